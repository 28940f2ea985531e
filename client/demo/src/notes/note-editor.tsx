import { Suspense, useState } from "react";
import type { Peer } from "rowcast";
import { useField, useRecord, useWrite } from "rowcast/react";
import { Empty } from "../layout.js";
import { Present } from "../people.js";
import { navigate } from "../router.js";
import { IconButton } from "../ui/icon.js";
import { late } from "../ui/late.js";
import { TagList } from "../ui/tag-list.js";
import { notify } from "../ui/toasts.js";
import { useMedia } from "../ui/use-media.js";
import { useSteadyCaret } from "../ui/use-steady-caret.js";

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
  const text = content.value ?? "";

  return (
    <article className="note">
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
