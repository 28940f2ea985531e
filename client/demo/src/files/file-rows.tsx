import { useState } from "react";
import type { RowcastError } from "rowcast";
import type { UploadState, Uploads } from "rowcast/files";
import { useUploads } from "rowcast/files/react";
import { useStatus, useWrite } from "rowcast/react";
import { usePerson } from "../people.js";
import type { NoteFile, TaskFile } from "../schema.gen.js";
import { Icon, IconButton } from "../ui/icon.js";
import { ago } from "../ui/time.js";
import { notify } from "../ui/toasts.js";
import { isPicture, usePicture } from "./use-picture.js";
import { sizeText, stepText, whyNot } from "./words.js";

/** The tables of files. */
export type FileTable = "taskFiles" | "noteFiles" | "jobRunFiles";

/** Larger ones are no thumbnails: they are downloaded whole. */
const THUMBNAIL_BYTES = 8_000_000;

/** A file: its name saves it, and who may edit its parent removes it. */
export function FileRow({
  table,
  file,
  onRemoved,
}: {
  table: FileTable;
  file: TaskFile | NoteFile;
  /** The row goes, and the focus has to. */
  onRemoved?: () => void;
}) {
  const uploads = useUploads();
  const write = useWrite();
  const person = usePerson();
  const { id, name, size, state, createdBy, createdAt } = file;
  const ready = state === "ready";
  const remove = () => {
    write({ type: "delete", table, id });
    onRemoved?.();
    notify(`“${name}” is removed.`, {
      action: { label: "Restore", run: () => write({ type: "restore", table, id }) },
    });
  };
  return (
    <li className="file">
      <Thumbnail table={table} file={file} />
      <div className="grow">
        <button
          type="button"
          className="file-name"
          disabled={!ready}
          title={ready ? "Download" : undefined}
          onClick={() => download(uploads, table, id, name)}
        >
          {name}
        </button>
        <p className="file-meta">
          {sizeText(Number(size))}
          {createdBy && ` · ${person(createdBy).name}`} ·{" "}
          {ready ? <time dateTime={createdAt}>{ago(createdAt)}</time> : "on its way"}
        </p>
      </div>
      <IconButton icon="trash" label={`Remove ${name}`} className="faint" onClick={remove} />
    </li>
  );
}

/** A file that is being uploaded from here, or waits for it, or was refused. */
export function UploadRow({
  upload,
  onRetry,
  onCancel,
}: {
  upload: UploadState;
  onRetry: (id: string) => void;
  onCancel: (id: string) => void;
}) {
  const online = useStatus((status) => status.online);
  const { id, name, size, sent, step } = upload;
  const failed = step === "failed";
  return (
    <li className="file" data-step={step}>
      <span className="file-icon">
        <Icon name={failed ? "warning" : "up"} />
      </span>
      <div className="grow">
        <span className="file-name">{name}</span>
        {!failed && (
          <progress
            aria-label={`Upload of ${name}`}
            max={size || 1}
            value={step === "confirming" ? size || 1 : sent}
          />
        )}
        <p className="file-meta">
          <span role="status" className={failed ? "problem" : ""}>
            {stepText(upload, online)}
          </span>
          {/* Of numbers that run the bar tells a screen reader when it is asked. */}
          {step === "uploading" && (
            <span aria-hidden="true">{` · ${Math.floor((sent / (size || 1)) * 100)} % of `}</span>
          )}
          {step === "uploading" ? sizeText(size) : ` · ${sizeText(size)}`}
        </p>
      </div>
      {failed && (
        <button type="button" aria-label={`Retry ${name}`} onClick={() => onRetry(id)}>
          Retry
        </button>
      )}
      <IconButton
        icon="close"
        label={failed ? `Discard ${name}` : `Cancel ${name}`}
        onClick={() => onCancel(id)}
      />
    </li>
  );
}

function Thumbnail({ table, file }: { table: FileTable; file: TaskFile | NoteFile }) {
  const { id, type, size, state } = file;
  const shown = state === "ready" && isPicture(type) && Number(size) <= THUMBNAIL_BYTES;
  const { url, refresh } = usePicture(table, shown ? id : null);
  // What is loaded slowly comes when it is there: until then the icon is seen.
  const [loaded, setLoaded] = useState<string>();
  return (
    <span className="file-icon">
      {url && (
        <img
          src={url}
          alt=""
          decoding="async"
          data-loaded={loaded === url}
          onLoad={() => setLoaded(url)}
          onError={refresh}
        />
      )}
      {loaded !== url || !url ? <Icon name={isPicture(type) ? "image" : "note"} /> : null}
    </span>
  );
}

/** Saves a file. The link is asked for now: it lives for a minute. */
export async function download(
  uploads: Uploads,
  table: FileTable,
  id: string,
  name: string,
): Promise<void> {
  try {
    const link = document.createElement("a");
    link.href = await uploads.url(table, id);
    // An answer that is no file must not take the place of the app.
    link.download = "";
    link.click();
  } catch (error) {
    notify(`“${name}” cannot be downloaded. ${whyNot(error as RowcastError)}`);
  }
}
