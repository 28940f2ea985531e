import { type FormEvent, useState } from "react";
import { useRecords, useWrite } from "rowcast/react";
import { newId } from "../new-id.js";
import { Avatar, useMe, usePerson } from "../people.js";
import { IconButton } from "../ui/icon.js";
import { ago } from "../ui/time.js";

/** What people have said about a task. */
export function Comments({ taskId }: { taskId: string }) {
  const comments = useRecords("comments", { taskId }, { orderBy: [{ key: "createdAt" }] });
  const me = useMe();
  const person = usePerson();
  const write = useWrite();
  return (
    <section className="comments" aria-label="Comments">
      <h3>Comments</h3>
      <ul>
        {comments.map(({ id, authorId, content, createdAt }) => (
          <li key={id}>
            <Avatar id={authorId} size={28} />
            <div className="grow">
              <p className="comment-head">
                <strong>{person(authorId).name}</strong>{" "}
                <time dateTime={createdAt}>{ago(createdAt)}</time>
              </p>
              <p className="comment-text">{content}</p>
            </div>
            {authorId === me && (
              <IconButton
                icon="close"
                label="Delete this comment"
                className="faint"
                onClick={() => write({ type: "delete", table: "comments", id })}
              />
            )}
          </li>
        ))}
      </ul>
      <NewComment taskId={taskId} />
    </section>
  );
}

function NewComment({ taskId }: { taskId: string }) {
  const write = useWrite();
  const [text, setText] = useState("");
  const send = (event?: FormEvent) => {
    event?.preventDefault();
    const content = text.trim();
    if (!content) return;
    write({ type: "create", table: "comments", id: newId(), value: { taskId, content } });
    setText("");
  };
  return (
    <form className="new-comment" onSubmit={send}>
      <textarea
        value={text}
        maxLength={10000}
        rows={2}
        placeholder="Write a comment"
        aria-label="Write a comment"
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send();
        }}
      />
      <button type="submit" className="primary" disabled={!text.trim()}>
        Comment
      </button>
    </form>
  );
}
