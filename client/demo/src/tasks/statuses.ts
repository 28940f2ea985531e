import type { Task } from "../schema.gen.js";

/** What a task can be, in the order of the columns. */
export type TaskStatus = Task["status"];

/** The columns of a board. */
export const STATUSES: readonly { id: TaskStatus; label: string }[] = [
  { id: "todo", label: "To do" },
  { id: "in_progress", label: "In progress" },
  { id: "done", label: "Done" },
];

/** The priorities, the highest first. */
export const PRIORITIES = [
  { id: "high", label: "High" },
  { id: "medium", label: "Medium" },
  { id: "low", label: "Low" },
] as const;
