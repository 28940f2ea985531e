import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useCallback, useRef } from "react";
import type { Peer } from "rowcast";
import { Present } from "../people.js";
import { Link } from "../router.js";
import type { Note } from "../schema.gen.js";
import { Icon } from "../ui/icon.js";
import { Tag } from "../ui/tag-list.js";
import { ago } from "../ui/time.js";

/** Notes with their first words. Only those in sight are in the page. */
export function NoteList({
  notes,
  noteId,
  peers,
  empty,
}: {
  notes: readonly Note[];
  noteId: string | undefined;
  peers: readonly Peer[];
  /** What is said where there are none. */
  empty: string;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtualizer = useVirtualizer({
    count: notes.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 92,
    overscan: 6,
    getItemKey: useCallback((index: number) => notes[index]?.id ?? index, [notes]),
  });
  if (notes.length === 0) return <p className="soft nothing">{empty}</p>;
  return (
    <div ref={scroller} className="note-scroller">
      <ul style={{ height: virtualizer.getTotalSize() }}>
        {virtualizer.getVirtualItems().map(({ key, index, start }) => {
          const note = notes[index];
          return (
            note && (
              <li
                key={key}
                ref={virtualizer.measureElement}
                data-index={index}
                aria-setsize={notes.length}
                aria-posinset={index + 1}
                style={{ transform: `translateY(${start}px)` }}
              >
                <Row
                  note={note}
                  open={note.id === noteId}
                  peers={peers.filter(({ state }) => state.noteId === note.id)}
                />
              </li>
            )
          );
        })}
      </ul>
    </div>
  );
}

const EXCERPT = 120;

const Row = memo(function Row({
  note: { id, notebookId, title, content, tags, isPinned, updatedAt },
  open,
  peers,
}: {
  note: Note;
  open: boolean;
  peers: readonly Peer[];
}) {
  // Without the signs of Markdown, as far as they disturb.
  const words = content
    .replace(/!?\[([^\]\n]*)\]\(files\/[^)]*\)/g, "$1")
    .slice(0, EXCERPT * 2)
    .replace(/[#*_`>[\]]+/g, "")
    .trim();
  return (
    <Link
      className="note-row"
      to={{ app: "notes", notebookId, noteId: id }}
      aria-current={open ? "page" : undefined}
    >
      <div className="note-row-title">
        {isPinned && <Icon name="pin" size={14} />}
        {isPinned && <span className="visually-hidden">Pinned: </span>}
        <span className="grow">{title || "Untitled"}</span>
        <Present peers={peers} what="this note" size={18} />
      </div>
      <p>{words.slice(0, EXCERPT) || "Empty"}</p>
      <span className="note-meta">
        <time dateTime={updatedAt}>{ago(updatedAt)}</time>
        {tags.map((tag) => (
          <Tag key={tag} name={tag} />
        ))}
      </span>
    </Link>
  );
});
