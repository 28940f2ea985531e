import { usePerson } from "../people.js";
import type { Task } from "../schema.gen.js";
import { IconButton } from "../ui/icon.js";
import { daysUntil } from "./due.js";
import { PRIORITIES } from "./statuses.js";

/** Which tasks are shown. An empty text is no condition. */
export interface Filters {
  text: string;
  /** An id, or "none". */
  assignee: string;
  priority: string;
  tag: string;
  due: string;
}

/** All tasks are shown. */
export const NO_FILTERS: Filters = { text: "", assignee: "", priority: "", tag: "", due: "" };

const DUE: Record<string, { label: string; holds: (days: number) => boolean }> = {
  overdue: { label: "Overdue", holds: (days) => days < 0 },
  week: { label: "Within a week", holds: (days) => days >= 0 && days <= 7 },
};

/** Whether a task is shown. */
export function matches(task: Task, filters: Filters): boolean {
  const { text, assignee, priority, tag, due } = filters;
  const words = `${task.title} ${task.description ?? ""} ${task.tags.join(" ")}`.toLowerCase();
  return (
    (!text || words.includes(text.toLowerCase())) &&
    (!assignee || (task.assigneeId ?? "none") === assignee) &&
    (!priority || task.priority === priority) &&
    (!tag || task.tags.includes(tag)) &&
    (!due || (task.dueDate !== null && (DUE[due]?.holds(daysUntil(task.dueDate)) ?? true)))
  );
}

/** What is shown can be narrowed here. */
export function FilterBar({
  filters,
  onChange,
  people,
  tags,
}: {
  filters: Filters;
  onChange: (filters: Filters) => void;
  people: readonly string[];
  tags: readonly string[];
}) {
  const person = usePerson();
  const set = (key: keyof Filters) => (value: string) => onChange({ ...filters, [key]: value });
  const active = Object.values(filters).some((value) => value !== "");
  return (
    <search className="filters">
      <input
        type="search"
        value={filters.text}
        placeholder="Search"
        aria-label="Search tasks"
        onChange={(event) => set("text")(event.target.value)}
      />
      <Choice
        label="Assignee"
        value={filters.assignee}
        onChange={set("assignee")}
        options={[
          ...people.map((id): [string, string] => [id, person(id).name]),
          ["none", "Nobody"],
        ]}
      />
      <Choice
        label="Priority"
        value={filters.priority}
        onChange={set("priority")}
        options={PRIORITIES.map(({ id, label }) => [id, label])}
      />
      <Choice
        label="Tag"
        value={filters.tag}
        onChange={set("tag")}
        options={tags.map((tag) => [tag, tag])}
      />
      <Choice
        label="Due"
        value={filters.due}
        onChange={set("due")}
        options={Object.entries(DUE).map(([id, { label }]) => [id, label])}
      />
      {active && (
        <IconButton icon="close" label="Show all tasks" onClick={() => onChange(NO_FILTERS)} />
      )}
    </search>
  );
}

function Choice({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  onChange: (value: string) => void;
}) {
  return (
    <select
      className={value ? "choice active" : "choice"}
      aria-label={label}
      value={value}
      onChange={(event) => onChange(event.target.value)}
    >
      <option value="">{label}</option>
      {options.map(([id, name]) => (
        <option key={id} value={id}>
          {name}
        </option>
      ))}
    </select>
  );
}
