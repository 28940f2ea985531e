import { NetworkError } from "rowcast";
import { useUpload, useUploads } from "rowcast/files/react";
import { useRecord, useStatus } from "rowcast/react";
import { usePicture } from "../files/use-picture.js";
import { stepText, whyNot } from "../files/words.js";
import { Icon } from "../ui/icon.js";

const EVERY_NOTE = {};

/** A picture in a note, or what is to be said in its place. `words`: what its writer calls it. */
export function Picture({ id, words }: { id: string; words: string }) {
  const file = useRecord("noteFiles", id);
  const here = file && file.deleted === null ? file : null;
  const online = useStatus((status) => status.online);
  const { uploads } = useUpload(useUploads(), "noteFiles", EVERY_NOTE);
  const upload = uploads.find((other) => other.id === id);
  const { url, error, refresh } = usePicture(
    "noteFiles",
    here?.state === "ready" && !upload ? id : null,
  );
  if (url) return <img src={url} alt={words} title={words} decoding="async" onError={refresh} />;
  const said = upload
    ? stepText(upload, online)
    : file === undefined
      ? "Loading"
      : !here || error?.code === "forbidden"
        ? "This image is not here, or not for you."
        : here.state !== "ready"
          ? "This image is on its way."
          : error instanceof NetworkError
            ? "This image comes when there is a connection."
            : error
              ? whyNot(error)
              : "Loading";
  return (
    <span className="picture-place">
      <Icon name="image" size={20} />
      <span>
        {words && <strong>{words}</strong>} {said}
      </span>
    </span>
  );
}
