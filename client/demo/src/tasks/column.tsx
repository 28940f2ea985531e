import { defaultRangeExtractor, useVirtualizer } from "@tanstack/react-virtual";
import { type FormEvent, type PointerEvent, useCallback, useEffect, useRef, useState } from "react";
import type { Task } from "../schema.gen.js";
import { Icon } from "../ui/icon.js";
import { Card } from "./card.js";
import type { TaskStatus } from "./statuses.js";
import type { ColumnHandle, Drag } from "./use-drag.js";

const GAP = 8;

/** The tasks of one status. Only those in sight are in the page, however many there are. */
export function Column({
  status,
  label,
  tasks,
  drag,
  present,
  files,
  columns,
  onPress,
  onAdd,
}: {
  status: TaskStatus;
  label: string;
  tasks: readonly Task[];
  drag: Drag | null;
  present: ReadonlyMap<string, string>;
  files: ReadonlyMap<string, number>;
  columns: Map<TaskStatus, ColumnHandle>;
  onPress: (event: PointerEvent<HTMLElement>, task: Task) => void;
  onAdd: (title: string) => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const lifted = drag ? tasks.findIndex(({ id }) => id === drag.task.id) : -1;
  const virtualizer = useVirtualizer({
    count: tasks.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => 78,
    gap: GAP,
    overscan: 6,
    getItemKey: useCallback((index: number) => tasks[index]?.id ?? index, [tasks]),
    // The lifted card stays in the page: a finger's events go to where it came down.
    rangeExtractor: (range) => {
      const seen = defaultRangeExtractor(range);
      return lifted < 0 || seen.includes(lifted) ? seen : [...seen, lifted];
    },
  });

  useEffect(() => {
    const element = scroller.current;
    const top = list.current;
    if (!element || !top) return;
    columns.set(status, {
      element,
      indexAt(y, skip) {
        const offset = y - top.getBoundingClientRect().top;
        const gone = tasks.findIndex(({ id }) => id === skip.id);
        const space = gone < 0 ? 0 : (virtualizer.measurementsCache[gone]?.size ?? 0) + GAP;
        let index = 0;
        for (const { index: at, start, size } of virtualizer.measurementsCache) {
          const middle = start + size / 2 - (gone >= 0 && at > gone ? space : 0);
          if (at !== gone && middle < offset) index++;
        }
        return index;
      },
      reveal: (index) => virtualizer.scrollToIndex(index),
    });
    return () => void columns.delete(status);
  }, [columns, status, tasks, virtualizer]);

  const room = drag ? drag.box.height + GAP : 0;
  const into = drag?.target.status === status;
  /** How far a card makes way: up for the one that was lifted before it, down for where that would be put. */
  const shift = (index: number) => {
    if (!drag || index === lifted) return 0;
    const after = lifted >= 0 && index > lifted;
    const makesRoom = into && index - (after ? 1 : 0) >= drag.target.index;
    return (makesRoom ? room : 0) - (after ? room : 0);
  };
  const height = virtualizer.getTotalSize() + (into && lifted < 0 ? room : 0);

  return (
    <section className="column" data-into={into} aria-label={label}>
      <h2>
        <span className="status-dot" data-status={status} />
        {label}
        <span className="count">{tasks.length}</span>
      </h2>
      <div ref={scroller} className="column-scroller">
        <ul ref={list} style={{ height }} data-dragging={drag !== null}>
          {virtualizer.getVirtualItems().map(({ key, index, start }) => {
            const task = tasks[index];
            return (
              task && (
                <li
                  key={key}
                  ref={virtualizer.measureElement}
                  data-index={index}
                  data-lifted={index === lifted}
                  aria-setsize={tasks.length}
                  aria-posinset={index + 1}
                  style={{ transform: `translateY(${start + shift(index)}px)` }}
                >
                  <Card
                    task={task}
                    present={present.get(task.id) ?? ""}
                    files={files.get(task.id) ?? 0}
                    onPress={onPress}
                  />
                </li>
              )
            );
          })}
        </ul>
      </div>
      <NewTask label={label} onAdd={onAdd} />
    </section>
  );
}

function NewTask({ label, onAdd }: { label: string; onAdd: (title: string) => void }) {
  const [title, setTitle] = useState("");
  const add = (event: FormEvent) => {
    event.preventDefault();
    if (title.trim()) onAdd(title.trim());
    setTitle("");
  };
  return (
    <form className="new-task" onSubmit={add}>
      <Icon name="plus" size={16} />
      <input
        value={title}
        maxLength={500}
        placeholder="Add a task"
        aria-label={`Add a task to ${label}`}
        onChange={(event) => setTitle(event.target.value)}
      />
    </form>
  );
}
