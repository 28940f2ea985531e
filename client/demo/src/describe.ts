import type { Problem, Rejected } from "rowcast";

const THINGS: Record<string, string> = {
  boards: "board",
  comments: "comment",
  jobRunFiles: "file to import",
  notebookInvitations: "invitation",
  notebookMembers: "membership",
  notebooks: "notebook",
  noteFiles: "file of a note",
  notes: "note",
  notificationSettings: "choice of mails",
  profiles: "profile",
  taskFiles: "attachment",
  tasks: "task",
  workspaceInvitations: "invitation",
  workspaceMembers: "membership",
  workspaces: "workspace",
};

const KEYS: Record<string, string> = {
  assigneeId: "assignee",
  boardId: "board",
  dueDate: "due date",
  isPinned: "pin",
  memberIds: "members",
  orderKey: "place",
  sharedWith: "members",
};

/** So many characters tell what is meant: the text of a note can be a long one. */
const ENOUGH = 80;

function quoted(text: string): string {
  const letters = Array.from(text);
  return `“${letters.length > ENOUGH ? `${letters.slice(0, ENOUGH).join("")} …` : text}”`;
}

/** What a refused write was about, in a few words. */
export function describe({ operations }: Rejected): string {
  const parts = operations.map((operation) => {
    if (operation.type === "call") return `call ${operation.fn}`;
    const thing = THINGS[operation.table] ?? operation.table;
    if (operation.type === "create") {
      const { title, name, email } = operation.value;
      const called = title || name || email;
      return `new ${thing}${called ? ` ${quoted(String(called))}` : ""}`;
    }
    if (operation.type === "delete" || operation.type === "restore") {
      return `${operation.type} ${thing}`;
    }
    const path = typeof operation.key === "string" ? operation.key : operation.key.join(".");
    const value = "value" in operation ? operation.value : undefined;
    const shown = typeof value === "string" && path !== "orderKey" ? `: ${quoted(value)}` : "";
    return `${KEYS[path] ?? path} of a ${thing}${shown}`;
  });
  const text = [...new Set(parts)].join(", ");
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`;
}

/** Why a write was refused, for people. */
export function reason(problem: Problem): string {
  switch (problem.code) {
    case "forbidden":
      return "It is not there any more, or you may not change it.";
    case "blocked":
      return "It belongs to something that could not be made.";
    case "too_old":
      return "It waited too long on this device.";
    case "too_large":
      return problem.detail?.includes("max_file_bytes")
        ? "The file is larger than files may be here."
        : told(problem);
    default:
      return told(problem);
  }
}

/** What the server said, as a sentence. */
function told({ detail, title }: Problem): string {
  const words = detail || title;
  return /[.!?]$/.test(words) ? words : `${words}.`;
}
