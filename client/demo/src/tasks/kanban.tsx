import { type KeyboardEvent, useCallback, useEffect, useMemo, useRef } from "react";
import type { Peer } from "rowcast";
import { useWrite } from "rowcast/react";
import { newId } from "../new-id.js";
import { placeAt } from "../order-keys.js";
import { useMe } from "../people.js";
import type { Task } from "../schema.gen.js";
import { announce } from "../ui/toasts.js";
import { Card } from "./card.js";
import { Column } from "./column.js";
import { STATUSES, type TaskStatus } from "./statuses.js";
import { type ColumnHandle, type Target, useDrag } from "./use-drag.js";

const ignore = () => {};

/** The columns of a board, between which tasks are moved. */
export function Kanban({
  boardId,
  tasks,
  peers,
  files,
}: {
  boardId: string;
  /** Those to show, in order. */
  tasks: readonly Task[];
  peers: readonly Peer[];
  /** How many files are attached, by the id of the task. */
  files: ReadonlyMap<string, number>;
}) {
  const write = useWrite();
  const present = usePresent(peers);
  const board = useRef<HTMLDivElement>(null);
  const columns = useRef(new Map<TaskStatus, ColumnHandle>()).current;
  const byStatus = useMemo(() => {
    const found: Record<TaskStatus, Task[]> = { todo: [], in_progress: [], done: [] };
    for (const task of tasks) found[task.status].push(task);
    return found;
  }, [tasks]);

  /** One step of undo, whatever it takes. */
  const move = (task: Task, { status, index }: Target) => {
    const siblings = byStatus[status].filter(({ id }) => id !== task.id);
    const before = byStatus[status].findIndex(({ id }) => id === task.id);
    if (before === index) return;
    const placed = placeAt(
      siblings.map(({ orderKey }) => orderKey),
      index,
    );
    const set = { type: "set", table: "tasks" } as const;
    write([
      ...(status === task.status
        ? []
        : [{ ...set, id: task.id, key: "status", value: status } as const]),
      { ...set, id: task.id, key: "orderKey", value: placed.key },
      ...[...placed.siblings].flatMap(([at, value]) => {
        const sibling = siblings[at];
        return sibling ? [{ ...set, id: sibling.id, key: "orderKey", value } as const] : [];
      }),
    ]);
    const { label } = STATUSES.find(({ id }) => id === status) ?? { label: status };
    announce(`${task.title}: ${label}, ${index + 1} of ${siblings.length + 1}`);
  };

  const { drag, press, floating } = useDrag(board, columns, move);
  // Cards keep the same handler, so that they render only when their task changes.
  const pressed = useRef(press);
  useEffect(() => {
    pressed.current = press;
  });
  const onPress = useCallback<typeof press>((event, task) => pressed.current(event, task), []);

  const onKeyDown = (event: KeyboardEvent) => {
    const id = (event.target as HTMLElement).dataset.task;
    const task = id && tasks.find((other) => other.id === id);
    if (!task || event.altKey || event.ctrlKey || event.metaKey) return;
    const target = targetOf(event.key, task, byStatus, event.shiftKey);
    if (!target) return;
    event.preventDefault();
    if (event.shiftKey) move(task, target);
    const next = event.shiftKey ? task : byStatus[target.status][target.index];
    if (!next) return;
    columns.get(target.status)?.reveal(target.index);
    focusSoon(`task-${next.id}`);
  };

  const add = (status: TaskStatus, title: string) => {
    const column = byStatus[status];
    const { key, siblings } = placeAt(
      column.map(({ orderKey }) => orderKey),
      column.length,
    );
    const id = newId();
    write([
      { type: "create", table: "tasks", id, value: { boardId, title, status, orderKey: key } },
      ...[...siblings].flatMap(([at, value]) => {
        const id = column[at]?.id;
        return id ? [{ type: "set", table: "tasks", id, key: "orderKey", value } as const] : [];
      }),
    ]);
    requestAnimationFrame(() => columns.get(status)?.reveal(column.length));
  };

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: keys of the cards inside
    <div ref={board} className="kanban" onKeyDown={onKeyDown}>
      <p id="board-keys" className="visually-hidden">
        Arrow keys go to other tasks. With Shift they move the task.
      </p>
      {STATUSES.map(({ id, label }) => (
        <Column
          key={id}
          status={id}
          label={label}
          tasks={byStatus[id]}
          drag={drag}
          present={present}
          files={files}
          columns={columns}
          onPress={onPress}
          onAdd={(title) => add(id, title)}
        />
      ))}
      {drag && (
        <div
          ref={floating}
          className="floating"
          style={{ left: drag.box.left, top: drag.box.top, width: drag.box.width }}
          aria-hidden="true"
          inert
        >
          <Card task={drag.task} present="" files={files.get(drag.task.id) ?? 0} onPress={ignore} />
        </div>
      )}
    </div>
  );
}

/** Who has which task open: ids of users by the id of the task. */
function usePresent(peers: readonly Peer[]): ReadonlyMap<string, string> {
  const me = useMe();
  return useMemo(() => {
    const found = new Map<string, Set<string>>();
    for (const { userId, state } of peers) {
      const { taskId } = state;
      if (typeof taskId !== "string" || !userId || userId === me) continue;
      found.set(taskId, (found.get(taskId) ?? new Set()).add(userId));
    }
    return new Map([...found].map(([taskId, users]) => [taskId, [...users].join(" ")]));
  }, [peers, me]);
}

/** Where an arrow key leads from a task: to another one, or with `moving` to another place. */
function targetOf(
  key: string,
  { id, status }: Task,
  byStatus: Record<TaskStatus, Task[]>,
  moving: boolean,
): Target | undefined {
  const index = byStatus[status].findIndex((task) => task.id === id);
  if (key === "ArrowUp" || key === "ArrowDown") {
    const next = index + (key === "ArrowUp" ? -1 : 1);
    return next >= 0 && next < byStatus[status].length ? { status, index: next } : undefined;
  }
  if (key !== "ArrowLeft" && key !== "ArrowRight") return undefined;
  const here = STATUSES.findIndex((other) => other.id === status);
  const beside = key === "ArrowLeft" ? STATUSES.slice(0, here).reverse() : STATUSES.slice(here + 1);
  // One goes past an empty column, and moves into it.
  const column = beside.find(({ id }) => moving || byStatus[id].length > 0);
  if (!column) return undefined;
  const last = byStatus[column.id].length - (moving ? 0 : 1);
  return { status: column.id, index: Math.min(index, last) };
}

/** Puts the focus on an element as soon as it is in the page. */
function focusSoon(id: string, frames = 20): void {
  requestAnimationFrame(() => {
    const element = document.getElementById(id);
    element?.focus();
    if (document.activeElement !== element && frames > 0) focusSoon(id, frames - 1);
  });
}
