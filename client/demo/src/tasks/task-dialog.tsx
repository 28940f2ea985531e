import type { ReactNode } from "react";
import type { Peer } from "rowcast";
import { useField, useRecord, useWrite } from "rowcast/react";
import { Present, usePerson } from "../people.js";
import type { Task } from "../schema.gen.js";
import { Dialog } from "../ui/dialog.js";
import { IconButton } from "../ui/icon.js";
import { TagList } from "../ui/tag-list.js";
import { notify } from "../ui/toasts.js";
import { useSteadyCaret } from "../ui/use-steady-caret.js";
import { Attachments } from "./attachments.js";
import { Comments } from "./comments.js";
import { PRIORITIES, STATUSES } from "./statuses.js";

/** Everything about one task. */
export function TaskDialog({
  taskId,
  people,
  tags,
  peers,
  onClose,
}: {
  taskId: string;
  /** Who may be asked to do it. */
  people: readonly string[];
  /** Tags to offer. */
  tags: readonly string[];
  /** Who else has it open. */
  peers: readonly Peer[];
  onClose: () => void;
}) {
  const task = useRecord("tasks", taskId);
  const write = useWrite();
  const remove = () => {
    write({ type: "delete", table: "tasks", id: taskId });
    onClose();
    notify("The task is deleted.", {
      action: {
        label: "Restore",
        run: () => write({ type: "restore", table: "tasks", id: taskId }),
      },
    });
  };
  const here = task && !task.deleted;
  return (
    <Dialog
      sheet
      title="Task"
      onClose={onClose}
      actions={
        <>
          <Present peers={peers} what="this task" />
          {here && <IconButton icon="trash" label="Delete task" onClick={remove} />}
        </>
      }
    >
      {here ? (
        <>
          <Title id={taskId} />
          <Fields task={task} people={people} tags={tags} />
          <Description id={taskId} />
          <Attachments taskId={taskId} />
          <Comments taskId={taskId} />
        </>
      ) : (
        <p className="soft">
          {task === undefined ? "Loading …" : "This task is not here any more."}
        </p>
      )}
    </Dialog>
  );
}

function Title({ id }: { id: string }) {
  const { value, setValue, onBlur } = useField("tasks", id, "title");
  return (
    <textarea
      className="task-title"
      value={value ?? ""}
      maxLength={500}
      rows={1}
      aria-label="Title"
      onChange={(event) => setValue(event.target.value.replaceAll("\n", " "))}
      onBlur={onBlur}
      onKeyDown={(event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        event.currentTarget.blur();
      }}
    />
  );
}

function Description({ id }: { id: string }) {
  const { value, dirty, setValue, onBlur } = useField("tasks", id, "description");
  const caret = useSteadyCaret(value ?? "", dirty);
  return (
    <textarea
      {...caret}
      className="task-description"
      value={value ?? ""}
      rows={4}
      placeholder="Add a description"
      aria-label="Description"
      onChange={(event) => setValue(event.target.value || null)}
      onBlur={onBlur}
    />
  );
}

function Fields({
  task: { id, status, priority, assigneeId, tags },
  people,
  tags: known,
}: {
  task: Task;
  people: readonly string[];
  tags: readonly string[];
}) {
  const write = useWrite();
  const person = usePerson();
  const here = { table: "tasks", id } as const;
  const assignees = assigneeId && !people.includes(assigneeId) ? [...people, assigneeId] : people;
  return (
    <div className="fields">
      <Field label="Status">
        <select
          value={status}
          onChange={({ target: { value } }) =>
            write({ type: "set", ...here, key: "status", value: value as Task["status"] })
          }
        >
          {STATUSES.map(({ id, label }) => (
            <option key={id} value={id}>
              {label}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Assignee">
        <select
          value={assigneeId ?? ""}
          onChange={({ target: { value } }) =>
            write({ type: "set", ...here, key: "assigneeId", value: value || null })
          }
        >
          <option value="">Nobody</option>
          {assignees.map((id) => (
            <option key={id} value={id}>
              {person(id).name}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Priority">
        <select
          value={priority ?? ""}
          onChange={({ target: { value } }) =>
            write({
              type: "set",
              ...here,
              key: "priority",
              value: (value || null) as Task["priority"],
            })
          }
        >
          <option value="">None</option>
          {PRIORITIES.map(({ id, label }) => (
            <option key={id} value={id}>
              {label}
            </option>
          ))}
        </select>
      </Field>
      <Field label="Due">
        <DueDate id={id} />
      </Field>
      <div className="field">
        <span className="field-label">Tags</span>
        <TagList
          tags={tags}
          known={known}
          onAdd={(value) => write({ type: "listInsert", ...here, key: "tags", value })}
          onRemove={(value) => write({ type: "listRemove", ...here, key: "tags", value })}
        />
      </div>
    </div>
  );
}

/** A year is typed digit by digit, and each makes a date: only where it ends is one meant. */
function DueDate({ id }: { id: string }) {
  const { value, setValue, onBlur } = useField("tasks", id, "dueDate", { debounce: 1500 });
  return (
    <input
      type="date"
      max="9999-12-31"
      value={value ?? ""}
      onChange={(event) => setValue(event.target.value || null)}
      onBlur={onBlur}
    />
  );
}

function Field({ label, children }: { label: string; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: it is among the children
    <label className="field">
      <span className="field-label">{label}</span>
      {children}
    </label>
  );
}
