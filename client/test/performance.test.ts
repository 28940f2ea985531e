import { describe, expect, it } from "vitest";
import { filled } from "./ten-thousand.js";

// How long it takes is measured in bench/.
describe("ten thousand records", () => {
  it("one change reaches only those whose records changed", async () => {
    const { cache, use } = filled();
    const calls = new Map<string, number>();
    for (let at = 0; at < 50; at++) {
      const query = use({ boardId: `b${at}` });
      query.listeners.add(() => calls.set(query.id, (calls.get(query.id) ?? 0) + 1));
    }
    for (let at = 0; at < 500; at++) {
      const slot = cache.slot("tasks", `t${String(at).padStart(5, "0")}`);
      slot.listeners.add(() => calls.set(slot.key, (calls.get(slot.key) ?? 0) + 1));
    }
    cache.takeUpdate({ key: "tasks:t00007", version: 2, patch: { title: "x" } }, cache.next());
    await Promise.resolve();
    await Promise.resolve();
    expect([...calls].sort()).toEqual([
      [expect.stringContaining('"b7"'), 1],
      ["tasks:t00007", 1],
    ]);
  });

  it("a thousand pending writes to one record all count", () => {
    const { cache } = filled();
    const at = { table: "tasks", id: "t00001" };
    for (let n = 0; n < 1000; n++) {
      const operation = { type: "increment" as const, ...at, key: "count", by: 1 };
      cache.add({ txId: `t${n}`, operations: [operation] }, "2026-03-01T12:00:00.000000Z");
      cache.settle();
    }
    expect(cache.slot("tasks", "t00001").view?.count).toBe(1000);
  });
});
