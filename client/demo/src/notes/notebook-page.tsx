import { useMemo, useState } from "react";
import { recordKey } from "rowcast";
import { usePresence, useQuery, useRecord, useWrite } from "rowcast/react";
import { Empty, Topbar } from "../layout.js";
import { newId } from "../new-id.js";
import { Present } from "../people.js";
import { navigate } from "../router.js";
import { ShareDialog } from "../share-dialog.js";
import { Icon, IconButton } from "../ui/icon.js";
import { useMedia } from "../ui/use-media.js";
import { NoteEditor } from "./note-editor.js";
import { NoteList } from "./note-list.js";

/** One notebook: the list of its notes, and the one that is open. On a phone one of both. */
export function NotebookPage({
  notebookId,
  noteId,
}: {
  notebookId: string;
  noteId: string | undefined;
}) {
  const notebook = useRecord("notebooks", notebookId);
  const { data: notes, status } = useQuery(
    "notes",
    { notebookId },
    {
      orderBy: [
        { key: "isPinned", dir: "desc" },
        { key: "updatedAt", dir: "desc" },
      ],
    },
  );
  const peers = usePresence(recordKey("notebooks", notebookId), { noteId: noteId ?? null });
  const [text, setText] = useState("");
  const [tag, setTag] = useState("");
  const [sharing, setSharing] = useState(false);
  const narrow = useMedia("(max-width: 760px)");
  const write = useWrite();

  const tags = useMemo(() => [...new Set(notes.flatMap((note) => note.tags))].sort(), [notes]);
  const shown = useMemo(() => {
    const wanted = text.toLowerCase();
    return notes.filter(
      (note) =>
        (!tag || note.tags.includes(tag)) &&
        (!wanted || `${note.title}\n${note.content}`.toLowerCase().includes(wanted)),
    );
  }, [notes, text, tag]);

  if (notebook === null || notebook?.deleted) {
    return (
      <>
        <Topbar title={<h1>Notes</h1>} />
        <Empty title={notebook ? "This notebook is deleted" : "This notebook is not here"}>
          {!notebook && <p>It does not exist, or it is not shared with you any more.</p>}
        </Empty>
      </>
    );
  }

  const add = () => {
    const id = newId();
    write({
      type: "create",
      table: "notes",
      id,
      value: { notebookId, ...(tag && { tags: [tag] }) },
    });
    setText("");
    navigate({ app: "notes", notebookId, noteId: id });
  };

  const list = (
    <section className="note-list" aria-label="Notes">
      <search className="filters">
        <input
          type="search"
          value={text}
          placeholder="Search"
          aria-label="Search notes"
          onChange={(event) => setText(event.target.value)}
        />
        {tags.length > 0 && (
          <select
            className={tag ? "choice active" : "choice"}
            aria-label="Tag"
            value={tag}
            onChange={(event) => setTag(event.target.value)}
          >
            <option value="">Tag</option>
            {tags.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        )}
        <button type="button" className="primary" onClick={add}>
          <Icon name="plus" size={16} /> New
        </button>
      </search>
      {status !== "loading" && (
        <NoteList
          notes={shown}
          noteId={noteId}
          peers={peers}
          empty={notes.length ? "Nothing matches." : "Nothing is written here yet."}
        />
      )}
    </section>
  );

  return (
    <>
      <Topbar
        title={
          <>
            {narrow && noteId && (
              <IconButton
                icon="back"
                label="Back to the notes"
                onClick={() => navigate({ app: "notes", notebookId })}
              />
            )}
            <h1>{notebook?.name || <span className="visually-hidden">Notebook</span>}</h1>
          </>
        }
      >
        <Present peers={peers} what="this notebook" />
        <button type="button" className="share" onClick={() => setSharing(true)} aria-label="Share">
          <Icon name="share" /> <span className="words">Share</span>
        </button>
      </Topbar>
      <div className="notebook">
        {(!narrow || !noteId) && list}
        {noteId ? (
          <NoteEditor
            key={noteId}
            noteId={noteId}
            tags={tags}
            peers={peers.filter(({ state }) => state.noteId === noteId)}
          />
        ) : (
          !narrow && (
            <Empty title="Choose a note">
              <p>Or write a new one.</p>
            </Empty>
          )
        )}
      </div>
      {sharing && notebook && (
        <ShareDialog
          shared={{ table: "notebooks", ...notebook, memberIds: notebook.sharedWith }}
          onClose={() => setSharing(false)}
        />
      )}
    </>
  );
}
