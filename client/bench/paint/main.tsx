/**
 * The page `npm run bench:paint` opens: a board of thousands of tasks, the first of them as inputs. Its twin (`?twin`) is
 * the same with the tasks in React's own state: neither stored nor sent, nor anybody else's.
 */
import { useLayoutEffect, useState } from "react";
import { createRoot } from "react-dom/client";
import { createClient } from "rowcast";
import { RowcastProvider, useRecords, useWrite } from "rowcast/react";
import { schema } from "../../demo/src/schema.gen.js";

declare global {
  interface Window {
    /** Of each edit: milliseconds from the input event to the commit of React, and to after the paint. */
    edits: { commit: number; paint: number }[];
  }
}

const SHOWN = 50;
const asked = new URLSearchParams(location.search);
const boardId = asked.get("board") as string;
let edit: { began: number; commit: number } | undefined;
window.edits = [];

/** A message comes after what the frame has painted. */
function afterPaint(then: () => void): void {
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = then;
    port2.postMessage(null);
  });
}

// Before React hears of it.
addEventListener(
  "input",
  (event) => {
    const now = { began: event.timeStamp, commit: 0 };
    edit = now;
    afterPaint(() => {
      const paint = performance.now() - now.began;
      window.edits.push({ commit: now.commit - now.began, paint });
    });
  },
  true,
);

interface Task {
  readonly id: string;
  readonly title: string;
}

function Board({
  tasks,
  edit: change,
}: {
  tasks: readonly Task[];
  edit(id: string, title: string): void;
}) {
  useLayoutEffect(() => {
    if (edit && !edit.commit) edit.commit = performance.now();
  });
  return (
    <main data-loaded={tasks.length}>
      {tasks.slice(0, SHOWN).map(({ id, title }) => (
        <input key={id} value={title} onChange={({ target }) => change(id, target.value)} />
      ))}
    </main>
  );
}

function Live() {
  const tasks = useRecords("tasks", { boardId }, { orderBy: [{ key: "orderKey" }] });
  const write = useWrite();
  return (
    <Board
      tasks={tasks}
      edit={(id, value) => write({ type: "set", table: "tasks", id, key: "title", value })}
    />
  );
}

function Twin() {
  const [tasks, show] = useState<readonly Task[]>(() =>
    Array.from({ length: Number(asked.get("twin")) }, (_, n) => ({
      id: crypto.randomUUID(),
      title: `Task ${n}`,
    })),
  );
  return (
    <Board
      tasks={tasks}
      edit={(id, title) => show(tasks.map((task) => (task.id === id ? { ...task, title } : task)))}
    />
  );
}

createRoot(document.body).render(
  asked.has("twin") ? (
    <Twin />
  ) : (
    <RowcastProvider client={createClient({ schema, auth: "cookie" })}>
      <Live />
    </RowcastProvider>
  ),
);
