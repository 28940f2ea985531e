/** One change in a cache of ten thousand records, without a screen: `npm run bench`. It has to stay below 2 ms. */
import { bench, describe } from "vitest";
import { COUNT, filled } from "../test/ten-thousand.js";

const { cache, use } = filled();
use({ status: "todo" }, { orderBy: [{ key: "title" }] });
use({}, { orderBy: [{ key: "position", dir: "desc" }] });
for (let at = 0; at < 50; at++) use({ boardId: `b${at}`, status: "todo" });

const pending = filled().cache;
const boards = filled();
let number = 1;

describe(`a cache of ${COUNT} records`, () => {
  bench("a change that moves a record in two large queries and one of 50 small ones", () => {
    number++;
    const id = `t${String((number * 37) % COUNT).padStart(5, "0")}`;
    const from = Number(cache.slot("tasks", id).server?.version);
    const patch = { title: `Changed ${number}`, status: "todo", position: number * 31 };
    cache.takeUpdate({ key: `tasks:${id}`, version: from + 1, patch }, cache.next());
    cache.settle();
  });

  bench(
    "a write to a record with up to a thousand pending ones",
    () => {
      const at = { table: "tasks", id: "t00001" };
      const operation = { type: "increment" as const, ...at, key: "count", by: 1 };
      pending.add({ txId: `t${number++}`, operations: [operation] }, "2026-03-01T12:00:00.000000Z");
      pending.settle();
    },
    { time: 0, iterations: 1000, warmupTime: 0, warmupIterations: 0 },
  );

  bench(
    "a new query on one board of 200",
    () => {
      boards.use({ boardId: `b${number % 50}`, position: { gt: -number++ } });
    },
    { time: 0, iterations: 200, warmupTime: 0, warmupIterations: 0 },
  );
});
