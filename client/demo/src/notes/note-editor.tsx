import { Suspense, useMemo, useRef, useState } from "react";
import type { Peer } from "rowcast";
import { useUpload, useUploads } from "rowcast/files/react";
import { useField, useRecord, useRecords, useWrite } from "rowcast/react";
import { FileButton } from "../files/file-button.js";
import { FileRow, UploadRow } from "../files/file-rows.js";
import { useFileDrop } from "../files/use-file-drop.js";
import { isPicture } from "../files/use-picture.js";
import { Empty } from "../layout.js";
import { Present } from "../people.js";
import { navigate } from "../router.js";
import { IconButton } from "../ui/icon.js";
import { late } from "../ui/late.js";
import { TagList } from "../ui/tag-list.js";
import { notify } from "../ui/toasts.js";
import { useMedia } from "../ui/use-media.js";
import { insertText, useSteadyCaret } from "../ui/use-steady-caret.js";
import { referenceTo, withoutFile } from "./note-files.js";

// Not needed to start.
const Preview = late(async () => (await import("./preview.js")).default);

/** One note: its title, its text in Markdown, and what that looks like. */
export function NoteEditor({
  noteId: id,
  tags: known,
  peers,
}: {
  noteId: string;
  /** Tags to offer. */
  tags: readonly string[];
  /** Who else has it open. */
  peers: readonly Peer[];
}) {
  const note = useRecord("notes", id);
  const title = useField("notes", id, "title");
  const content = useField("notes", id, "content", { debounce: 500 });
  const caret = useSteadyCaret(content.value ?? "", content.dirty);
  const write = useWrite();
  const wide = useMedia("(min-width: 1180px)");
  const [view, setView] = useState<"write" | "read">("write");
  const text = content.value ?? "";
  const { uploads, add, retry, abort } = useUpload(useUploads(), "noteFiles", { noteId: id });
  const article = useRef<HTMLElement>(null);
  /** Uploads files, and writes into the text where they are to be seen: at the caret, else at its end. */
  const insert = (files: File[]) => {
    const references = files
      .map((file) => referenceTo(add(file).id, file.name, isPicture(file.type)))
      .join("\n");
    const area = caret.ref.current;
    if (area) insertText(area, references);
    else content.setValue(text ? `${text}\n\n${references}` : references);
  };

  if (!note || note.deleted) {
    return <Empty title={note === undefined ? "Loading …" : "This note is not here"} />;
  }
  const here = { table: "notes", id } as const;
  const remove = () => {
    write({ type: "delete", ...here });
    navigate({ app: "notes", notebookId: note.notebookId });
    notify("The note is deleted.", {
      action: { label: "Restore", run: () => write({ type: "restore", ...here }) },
    });
  };
  const cancel = (file: string) => {
    abort(file);
    content.setValue(withoutFile(text, file));
  };

  return (
    <article ref={article} className="note">
      <header className="note-head">
        <input
          className="heading"
          value={title.value ?? ""}
          maxLength={500}
          placeholder="Untitled"
          aria-label="Title"
          onChange={(event) => title.setValue(event.target.value)}
          onBlur={title.onBlur}
        />
        <Present peers={peers} what="this note" />
        {!wide && (
          <IconButton
            icon={view === "write" ? "eye" : "pen"}
            label={view === "write" ? "Read" : "Write"}
            onClick={() => setView(view === "write" ? "read" : "write")}
          />
        )}
        <FileButton icon="image" label="Insert images" words={false} onFiles={insert} />
        <IconButton
          icon="pin"
          label="Pin to the top"
          className={note.isPinned ? "on" : ""}
          aria-pressed={note.isPinned}
          onClick={() => write({ type: "set", ...here, key: "isPinned", value: !note.isPinned })}
        />
        <IconButton icon="trash" label="Delete note" onClick={remove} />
      </header>
      <TagList
        tags={note.tags}
        known={known}
        onAdd={(value) => write({ type: "listInsert", ...here, key: "tags", value })}
        onRemove={(value) => write({ type: "listRemove", ...here, key: "tags", value })}
      />
      <DropPlace target={article} onFiles={insert} />
      {uploads.length > 0 && (
        <ul className="files">
          {uploads.map((upload) => (
            <UploadRow key={upload.id} upload={upload} onRetry={retry} onCancel={cancel} />
          ))}
        </ul>
      )}
      <Unused noteId={id} text={text} />
      {content.error && <p className="problem">{content.error.message}</p>}
      <div className={wide ? "note-body side-by-side" : "note-body"}>
        {(wide || view === "write") && (
          <textarea
            {...caret}
            value={text}
            placeholder="Write in Markdown"
            aria-label="Text in Markdown"
            onChange={(event) => content.setValue(event.target.value)}
            onBlur={content.onBlur}
          />
        )}
        {(wide || view === "read") && (
          <Suspense fallback={<div className="preview" />}>
            <Preview text={text} />
          </Suspense>
        )}
      </div>
    </article>
  );
}

/** Takes what is dropped on the note or pasted into it, and says so while something is held above. */
function DropPlace({
  target,
  onFiles,
}: {
  target: React.RefObject<HTMLElement | null>;
  onFiles: (files: File[]) => void;
}) {
  const over = useFileDrop(target, onFiles);
  return over ? <p className="drop-here">Drop to insert</p> : null;
}

/** Files of the note that its text does not speak of any more: they still take room. */
function Unused({ noteId, text }: { noteId: string; text: string }) {
  const files = useRecords("noteFiles", { noteId, state: "ready" });
  const unused = useMemo(() => files.filter(({ id }) => !text.includes(id)), [files, text]);
  if (unused.length === 0) return null;
  return (
    <details className="unused">
      <summary>Not in the text: {unused.length}</summary>
      <ul className="files">
        {unused.map((file) => (
          <FileRow key={file.id} table="noteFiles" file={file} />
        ))}
      </ul>
    </details>
  );
}
