import { memo, type PointerEvent } from "react";
import { useWrite } from "rowcast/react";
import { Avatar } from "../people.js";
import { Link } from "../router.js";
import type { Task } from "../schema.gen.js";
import { Icon } from "../ui/icon.js";
import { Tag } from "../ui/tag-list.js";
import { daysUntil, dueText } from "./due.js";

/** A task on a board. Renders again when its record changes, and not when others do. */
export const Card = memo(function Card({
  task,
  present,
  files = 0,
  onPress,
}: {
  task: Task;
  /** How many are attached. */
  files?: number;
  /** Who has it open, as a text, so that it is equal when it is the same. */
  present: string;
  onPress: (event: PointerEvent<HTMLElement>, task: Task) => void;
}) {
  const { id, boardId, title, priority, dueDate, tags, assigneeId } = task;
  return (
    <div className="card" data-status={task.status} onPointerDown={(event) => onPress(event, task)}>
      <div className="card-main">
        <Done task={task} />
        <Link
          id={`task-${id}`}
          className="card-title"
          to={{ app: "tasks", boardId, taskId: id }}
          draggable={false}
          data-task={id}
          aria-describedby="board-keys"
        >
          {title || "Untitled"}
        </Link>
      </div>
      {(priority || dueDate || tags.length > 0 || files > 0 || assigneeId) && (
        <div className="card-meta">
          {priority && <Priority priority={priority} />}
          {dueDate && <Due date={dueDate} done={task.status === "done"} />}
          {files > 0 && (
            <span className="clip">
              <Icon name="clip" size={13} />
              <span className="visually-hidden">Attachments: </span>
              {files}
            </span>
          )}
          {tags.map((tag) => (
            <Tag key={tag} name={tag} />
          ))}
          {assigneeId && <Avatar id={assigneeId} size={22} />}
        </div>
      )}
      {present && (
        <span className="card-present">
          {present.split(" ").map((peer) => (
            <Avatar key={peer} id={peer} size={20} />
          ))}
        </span>
      )}
    </div>
  );
});

function Done({ task: { id, status, title } }: { task: Task }) {
  const write = useWrite();
  const done = status === "done";
  return (
    <button
      type="button"
      className="done"
      data-status={status}
      aria-pressed={done}
      aria-label={`Done: ${title}`}
      title={done ? "Not done" : "Done"}
      tabIndex={-1}
      onClick={() =>
        write({ type: "set", table: "tasks", id, key: "status", value: done ? "todo" : "done" })
      }
    >
      <Icon name="check" size={12} />
    </button>
  );
}

function Priority({ priority }: { priority: "low" | "medium" | "high" }) {
  return (
    <span
      className="priority"
      data-priority={priority}
      role="img"
      aria-label={`${priority} priority`}
      title={`${priority} priority`}
    >
      <i />
      <i />
      <i />
    </span>
  );
}

function Due({ date, done }: { date: string; done: boolean }) {
  const days = daysUntil(date);
  const when = done ? "past" : days < 0 ? "overdue" : days <= 1 ? "soon" : "later";
  return (
    <span className="due" data-when={when}>
      <Icon name="calendar" size={13} />
      <span className="visually-hidden">{when === "overdue" ? "Overdue: " : "Due: "}</span>
      {dueText(date)}
    </span>
  );
}
