import { useMemo, useState } from "react";
import { recordKey } from "rowcast";
import { useField, usePresence, useQuery, useRecord, useRecords, useWrite } from "rowcast/react";
import { Empty, Topbar } from "../layout.js";
import { Present } from "../people.js";
import { navigate } from "../router.js";
import { ShareDialog } from "../share-dialog.js";
import { Icon } from "../ui/icon.js";
import { Menu, MenuItem } from "../ui/menu.js";
import { notify } from "../ui/toasts.js";
import { FilterBar, matches, NO_FILTERS } from "./filters.js";
import { Kanban } from "./kanban.js";
import { TaskDialog } from "./task-dialog.js";

/** One board: its tasks, who is on it, and the task that is open. */
export function BoardPage({ boardId, taskId }: { boardId: string; taskId: string | undefined }) {
  const board = useRecord("boards", boardId);
  const workspace = useRecord("workspaces", board?.workspaceId);
  const { data: tasks, status } = useQuery(
    "tasks",
    { boardId },
    { orderBy: [{ key: "orderKey" }] },
  );
  // Of all boards: one key for all cards, which the device keeps as a whole besides.
  const attached = useRecords("taskFiles");
  const files = useMemo(() => {
    const counts = new Map<string, number>();
    for (const { taskId } of attached) counts.set(taskId, (counts.get(taskId) ?? 0) + 1);
    return counts;
  }, [attached]);
  const peers = usePresence(recordKey("boards", boardId), { taskId: taskId ?? null });
  const [filters, setFilters] = useState(NO_FILTERS);
  const [sharing, setSharing] = useState(false);
  const write = useWrite();

  const shown = useMemo(
    () => (filters === NO_FILTERS ? tasks : tasks.filter((task) => matches(task, filters))),
    [tasks, filters],
  );
  const tags = useMemo(() => [...new Set(tasks.flatMap((task) => task.tags))].sort(), [tasks]);
  const people = workspace ? [workspace.ownerId, ...workspace.memberIds] : [];

  if (board === null || board?.deleted) {
    return (
      <>
        <Topbar title={<h1>Tasks</h1>} />
        <Empty title={board ? "This board is deleted" : "This board is not here"}>
          {board ? (
            <button
              type="button"
              onClick={() => write({ type: "restore", table: "boards", id: boardId })}
            >
              Restore it
            </button>
          ) : (
            <p>It does not exist, or it is not shared with you any more.</p>
          )}
        </Empty>
      </>
    );
  }

  const remove = () => {
    write({ type: "delete", table: "boards", id: boardId });
    navigate({ app: "tasks" });
    notify(`“${board?.name}” is deleted.`, {
      action: {
        label: "Restore",
        run: () => write({ type: "restore", table: "boards", id: boardId }),
      },
    });
  };

  return (
    <>
      <Topbar title={<BoardName id={boardId} />}>
        <Present peers={peers} what="this board" />
        <button type="button" className="share" onClick={() => setSharing(true)} aria-label="Share">
          <Icon name="share" /> <span className="words">Share</span>
        </button>
        <Menu label="Board" button={<Icon name="more" />}>
          <MenuItem danger onClick={remove}>
            Delete board
          </MenuItem>
        </Menu>
      </Topbar>
      <FilterBar filters={filters} onChange={setFilters} people={people} tags={tags} />
      {shown.length === 0 && tasks.length > 0 && (
        <p className="soft nothing" role="status">
          Nothing matches.
        </p>
      )}
      {status === "loading" ? (
        <p className="soft loading">Loading …</p>
      ) : (
        <Kanban boardId={boardId} tasks={shown} peers={peers} files={files} />
      )}
      {sharing && workspace && (
        <ShareDialog
          shared={{ table: "workspaces", ...workspace }}
          onClose={() => setSharing(false)}
        />
      )}
      {taskId && (
        <TaskDialog
          key={taskId}
          taskId={taskId}
          people={people}
          tags={tags}
          peers={peers.filter(({ state }) => state.taskId === taskId)}
          onClose={() => navigate({ app: "tasks", boardId })}
        />
      )}
    </>
  );
}

function BoardName({ id }: { id: string }) {
  const { value, setValue, onBlur } = useField("boards", id, "name");
  return (
    <>
      <h1 className="visually-hidden">{value || "Board"}</h1>
      <input
        className="heading"
        value={value ?? ""}
        maxLength={200}
        aria-label="Name of the board"
        onChange={(event) => setValue(event.target.value)}
        onBlur={onBlur}
        onKeyDown={(event) => event.key === "Enter" && event.currentTarget.blur()}
      />
    </>
  );
}
