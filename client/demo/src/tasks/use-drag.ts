import { type PointerEvent, type RefObject, useEffect, useRef, useState } from "react";
import type { Task } from "../schema.gen.js";
import type { TaskStatus } from "./statuses.js";

/** Where a task would be put: before the task with this index, the dragged one not counted. */
export interface Target {
  readonly status: TaskStatus;
  readonly index: number;
}

/** A task that is being dragged. */
export interface Drag {
  readonly task: Task;
  /** Where it was when it was lifted. */
  readonly box: DOMRect;
  readonly target: Target;
}

/** What a column tells about itself. */
export interface ColumnHandle {
  /** What scrolls. */
  readonly element: HTMLElement;
  /** The index at a height of the window, `skip` not counted. */
  indexAt(y: number, skip: Task): number;
  /** Scrolls to a task. */
  reveal(index: number): void;
}

type Point = { x: number; y: number };

const MOUSE_MOVES = 5; // pixels after which a press is a drag
const TOUCH_HOLDS_MS = 280; // a finger that moves earlier scrolls
const TOUCH_MOVES = 10;
const EDGE = 56; // pixels at the edges in which it scrolls by itself
const SPEED = 14; // pixels a frame

/**
 * Dragging tasks with a mouse, a pen or a finger. `press` is for the cards' onPointerDown, `floating` for the element
 * that shows the dragged one.
 */
export function useDrag(
  board: RefObject<HTMLElement | null>,
  columns: ReadonlyMap<TaskStatus, ColumnHandle>,
  onDrop: (task: Task, target: Target) => void,
) {
  const [drag, setDrag] = useState<Drag | null>(null);
  const floating = useRef<HTMLDivElement>(null);
  const stop = useRef(() => {});
  const drop = useRef(onDrop);
  useEffect(() => {
    drop.current = onDrop;
  });
  useEffect(() => () => stop.current(), []);

  const press = (event: PointerEvent<HTMLElement>, task: Task) => {
    if (event.button !== 0 || (event.target as Element).closest("button")) return;
    const card = event.currentTarget;
    const finger = event.pointerType !== "mouse";
    const start: Point = { x: event.clientX, y: event.clientY };
    let now = start;
    let current: Drag | undefined;
    let frame = 0;

    const lift = () => {
      current = {
        task,
        box: card.getBoundingClientRect(),
        target: targetAt(columns, now, task) ?? { status: task.status, index: 0 },
      };
      setDrag(current);
      frame = requestAnimationFrame(scroll);
    };
    const timer = finger ? setTimeout(lift, TOUCH_HOLDS_MS) : undefined;

    const place = () => {
      if (!current) return;
      const { style } = floating.current ?? {};
      style?.setProperty("transform", `translate(${now.x - start.x}px, ${now.y - start.y}px)`);
      const target = targetAt(columns, now, task);
      const same =
        target?.status === current.target.status && target.index === current.target.index;
      if (!target || same) return;
      current = { ...current, target };
      setDrag(current);
    };

    const scroll = () => {
      const column = columnAt(columns, now.x)?.[1].element;
      const moved = [
        scrollBy(column, "scrollTop", now.y, column?.getBoundingClientRect(), "top", "bottom"),
        scrollBy(
          board.current,
          "scrollLeft",
          now.x,
          board.current?.getBoundingClientRect(),
          "left",
          "right",
        ),
      ];
      if (moved.some(Boolean)) place();
      frame = requestAnimationFrame(scroll);
    };

    const move = (event: globalThis.PointerEvent) => {
      now = { x: event.clientX, y: event.clientY };
      const far = Math.hypot(now.x - start.x, now.y - start.y);
      if (current) place();
      else if (finger && far > TOUCH_MOVES) end();
      else if (!finger && far > MOUSE_MOVES) lift();
    };
    const up = () => {
      const done = current;
      end();
      if (!done) return;
      // The click that follows does not open the task.
      const swallow = (event: Event) => {
        event.preventDefault();
        event.stopPropagation();
      };
      addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => removeEventListener("click", swallow, { capture: true }));
      drop.current(task, done.target);
    };
    const key = (event: KeyboardEvent) => {
      if (event.key === "Escape" && current) end();
    };
    // A finger that has lifted a card scrolls nothing and opens no menu.
    const hold = (event: Event) => {
      if (current || event.type === "contextmenu") event.preventDefault();
    };
    const end = () => {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      for (const [name, listener] of listeners)
        removeEventListener(name, listener as EventListener);
      stop.current = () => {};
      current = undefined;
      setDrag(null);
    };
    const listeners: [string, unknown][] = [
      ["pointermove", move],
      ["pointerup", up],
      ["pointercancel", end],
      ["keydown", key],
      ...(finger
        ? ([
            ["touchmove", hold],
            ["contextmenu", hold],
          ] as [string, unknown][])
        : []),
    ];
    stop.current();
    stop.current = end;
    for (const [name, listener] of listeners) {
      addEventListener(name, listener as EventListener, { passive: false });
    }
  };

  return { drag, press, floating };
}

function targetAt(
  columns: ReadonlyMap<TaskStatus, ColumnHandle>,
  { x, y }: Point,
  task: Task,
): Target | undefined {
  const found = columnAt(columns, x);
  return found && { status: found[0], index: found[1].indexAt(y, task) };
}

/** The column nearest to a place. */
function columnAt(columns: ReadonlyMap<TaskStatus, ColumnHandle>, x: number) {
  let nearest: [TaskStatus, ColumnHandle] | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const entry of columns) {
    const { left, right } = entry[1].element.getBoundingClientRect();
    const distance = Math.max(left - x, x - right, 0);
    if (distance < least) {
      least = distance;
      nearest = entry;
    }
  }
  return nearest;
}

/** Scrolls where the pointer is near an edge; says whether anything moved. */
function scrollBy(
  element: HTMLElement | null | undefined,
  key: "scrollTop" | "scrollLeft",
  at: number,
  box: DOMRect | undefined,
  low: "top" | "left",
  high: "bottom" | "right",
): boolean {
  if (!element || !box) return false;
  const before = element[key];
  if (at < box[low] + EDGE) element[key] -= SPEED;
  else if (at > box[high] - EDGE) element[key] += SPEED;
  return element[key] !== before;
}
