import { useMemo, useRef } from "react";
import { useUpload, useUploads } from "rowcast/files/react";
import { useRecords } from "rowcast/react";
import { FileButton } from "../files/file-button.js";
import { FileRow, UploadRow } from "../files/file-rows.js";
import { useFileDrop } from "../files/use-file-drop.js";
import { announce } from "../ui/toasts.js";

/** The files of a task. What is dropped on the dialog, or pasted in it, is one more. */
export function Attachments({ taskId }: { taskId: string }) {
  const files = useRecords("taskFiles", { taskId }, { orderBy: [{ key: "createdAt" }] });
  const { uploads, add, retry, abort } = useUpload(useUploads(), "taskFiles", { taskId });
  const section = useRef<HTMLElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  const focusButton = () => button.current?.focus();
  const attach = (chosen: File[]) => {
    for (const file of chosen) {
      add(file).done.then(
        () => announce(`${file.name} is attached.`),
        () => {},
      );
    }
  };
  const over = useFileDrop(section, attach, { within: "dialog" });
  // What is under way from here stands where its record does, or at the end while there is none.
  const rows = useMemo(() => {
    const underWay = new Map(uploads.map((upload) => [upload.id, upload]));
    const known = files.map((file) => {
      const upload = underWay.get(file.id);
      underWay.delete(file.id);
      return upload ?? file;
    });
    return [...known, ...underWay.values()];
  }, [files, uploads]);
  return (
    <section ref={section} className="attachments" aria-label="Attachments" data-over={over}>
      <header>
        <h3 className="grow">Attachments</h3>
        <FileButton ref={button} icon="clip" label="Add files" onFiles={attach} />
      </header>
      {rows.length > 0 && (
        <ul className="files">
          {rows.map((row) =>
            "step" in row ? (
              <UploadRow
                key={row.id}
                upload={row}
                onRetry={retry}
                onCancel={(id) => {
                  abort(id);
                  focusButton();
                }}
              />
            ) : (
              <FileRow key={row.id} table="taskFiles" file={row} onRemoved={focusButton} />
            ),
          )}
        </ul>
      )}
      {over && <p className="drop-here">Drop to attach</p>}
    </section>
  );
}
