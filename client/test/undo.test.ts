import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Client } from "../src/client.js";
import type { RecordData } from "../src/json.js";
import { add, create, Stage, set, watch } from "./harness.js";
import { problem } from "./scripted-server.js";

type Task = {
  title: string;
  count: number;
  tags: string[];
  status: string;
  deletedAt: string | null;
};

/** A client that shows two tasks. */
async function ready() {
  const stage = new Stage();
  for (const id of ["a", "b"]) {
    stage.server.put("tasks", id, {
      title: id,
      boardId: "b1",
      count: 0,
      tags: ["x"],
      status: "todo",
    });
  }
  const client = stage.open();
  for (const id of ["a", "b"]) client.record("tasks", id).subscribe(() => {});
  await stage.advance();
  const task = (id = "a") => client.record("tasks", id).getSnapshot() as unknown as Task;
  return { stage, server: stage.server, client, task };
}

const tag = (value: string, id = "a") => ({
  type: "listInsert" as const,
  table: "tasks",
  id,
  key: "tags",
  value,
});
const untag = (value: string, id = "a") => ({
  type: "listRemove" as const,
  table: "tasks",
  id,
  key: "tags",
  value,
});
const titles = (client: Client) => client.history.getSnapshot();

describe("R18 undo", () => {
  it("R18.2 takes back one write after the other, and does them again", async () => {
    const { stage, server, client, task } = await ready();
    const start = task();
    client.write(set("a", "title", "1"));
    client.write([add("a", 5), tag("y")]);
    client.write({ type: "delete", table: "tasks", id: "a" });
    const end = task();
    expect(titles(client)).toEqual({ canUndo: true, canRedo: false });
    for (let n = 0; n < 3; n++) expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(await client.undo()).toBeNull();
    expect(task()).toMatchObject({ title: "a", count: 0, tags: ["x"], deletedAt: null });
    expect(titles(client)).toEqual({ canUndo: false, canRedo: true });
    for (let n = 0; n < 3; n++) await client.redo();
    const { title, count, tags, deletedAt } = task();
    expect([title, count, tags, deletedAt !== null]).toEqual([
      end.title,
      end.count,
      end.tags,
      true,
    ]);
    await stage.advance();
    expect(server.get("tasks", "a")).toMatchObject({ title: "1", count: 5, tags: ["x", "y"] });
    expect(server.applied).toHaveLength(9);
    expect(start.title).toBe("a");
  });

  it("R18.1 merges sets of one path within a second, and no others", async () => {
    const { stage, client, task } = await ready();
    for (const title of ["h", "he", "hello"]) {
      client.write(set("a", "title", title));
      await stage.advance(300);
    }
    client.write(set("a", "status", "done"));
    await stage.advance(1200);
    client.write(set("a", "status", "todo"));
    client.write(add("a"));
    client.write(add("a"));
    const steps: unknown[] = [];
    while (await client.undo()) steps.push([task().title, task().status, task().count]);
    expect(steps).toEqual([
      ["hello", "todo", 1],
      ["hello", "todo", 0],
      ["hello", "done", 0],
      ["hello", "todo", 0],
      ["a", "todo", 0],
    ]);
  });

  it("R18.1 a group is one step and loses no operation, by function or by name", async () => {
    const { client, task } = await ready();
    client.group(() => {
      client.write(tag("1"));
      client.group("inner", () => client.write([tag("2"), untag("x")]));
      client.write(tag("3"));
    });
    expect(task().tags).toEqual(["1", "2", "3"]);
    await client.undo();
    expect(task().tags).toEqual(["x"]);
    await client.redo();
    expect(task().tags).toEqual(["1", "2", "3"]);
    await client.undo();
    for (const value of ["p", "q"]) client.write(tag(value), { group: "drag" });
    client.write(tag("r"));
    await client.undo();
    expect(task().tags).toEqual(["x", "p", "q"]);
    await client.undo();
    expect(task().tags).toEqual(["x"]);
  });

  it("R18.1 a set beside a group is a step of its own", async () => {
    const { client, task } = await ready();
    const tags = () => [task("a").tags, task("b").tags];
    client.write(set("a", "tags", ["y"]), { group: "g" });
    client.write(set("b", "tags", ["y"]), { group: "g" });
    client.write(set("a", "tags", ["x"]));
    client.write(set("a", "tags", ["z"]));
    client.write(set("a", "tags", ["w"]), { group: "g" });
    expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(tags()).toEqual([["z"], ["y"]]);
    expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(tags()).toEqual([["y"], ["y"]]);
    expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(tags()).toEqual([["x"], ["x"]]);
    expect(await client.undo()).toBeNull();
  });

  it("R18.1 what takes an item out of a list is merged with nothing", async () => {
    const { client, task } = await ready();
    const tags = ["1", "2", "3"];
    client.write(set("a", "tags", tags));
    client.write({ type: "set", table: "tasks", id: "a", key: "tags.0" });
    client.write({ type: "set", table: "tasks", id: "a", key: "tags.0" });
    client.write(set("a", "tags.0", "4"));
    client.write({ type: "set", table: "tasks", id: "a", key: "tags.0" });
    const shown: unknown[] = [];
    for (let done = await client.undo(); done; done = await client.undo()) {
      expect(done.skipped).toEqual([]);
      shown.push(task().tags);
    }
    expect(shown).toEqual([["4"], ["3"], ["2", "3"], tags, ["x"]]);
  });

  it("R18.2 what others have set in between is no part of what is merged", async () => {
    const { stage, server, client, task } = await ready();
    client.write(set("a", "title", "mine"));
    await stage.advance(100);
    server.put("tasks", "a", { title: "theirs" });
    await stage.advance(100);
    client.write(set("a", "title", "mine again"));
    expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(task().title).toBe("theirs");
    expect(await client.undo()).toMatchObject({ txIds: [], skipped: [{ key: ["title"] }] });
    expect(task().title).toBe("theirs");
  });

  it("R18.2 merged sets leave what others have put beside them", async () => {
    const { stage, server, client } = await ready();
    const tags = () => client.record<{ tags: unknown }>("tasks", "a").getSnapshot()?.tags;
    server.put("tasks", "a", { tags: null });
    await stage.advance();
    for (const value of ["h", "he"]) client.write(set("a", "tags.mine", value));
    await stage.advance();
    server.put("tasks", "a", { tags: { mine: "he", theirs: 1 } });
    await stage.advance();
    expect(await client.undo()).toMatchObject({ skipped: [] });
    expect(tags()).toEqual({ theirs: 1 });
  });

  it("R18.2 skips and tells what somebody has changed, and undoes the rest", async () => {
    const { stage, server, client, task } = await ready();
    client.write([set("a", "title", "mine"), set("a", "status", "done"), tag("mine")]);
    await stage.advance();
    server.put("tasks", "a", { title: "theirs", tags: ["x", "mine", "theirs"] });
    await stage.advance();
    expect(await client.undo()).toEqual({
      txIds: [expect.any(String)],
      skipped: [{ table: "tasks", id: "a", key: ["title"] }],
    });
    expect(task()).toMatchObject({ title: "theirs", status: "todo", tags: ["x", "theirs"] });
    client.write(set("a", "title", "again"));
    await stage.advance();
    server.put("tasks", "a", { title: "theirs" });
    await stage.advance();
    expect(await client.undo()).toMatchObject({ txIds: [], skipped: [{ id: "a" }] });
    expect(titles(client)).toEqual({ canUndo: false, canRedo: false });
  });

  it("R18.3 a refused write leaves the stack", async () => {
    const { stage, server, client, task } = await ready();
    client.write(set("a", "title", "fine"));
    await stage.advance(2000);
    server.rule = () => problem(403, "forbidden");
    client.write(add("a"));
    await stage.advance();
    server.rule = () => undefined;
    await client.undo();
    expect(task()).toMatchObject({ title: "a", count: 0 });
    expect(titles(client).canUndo).toBe(false);
  });

  it("R18.3 a refused undo returns to it, and can be tried again", async () => {
    const { stage, server, client, task } = await ready();
    client.write(add("a"));
    await stage.advance();
    server.rule = () => problem(403, "forbidden");
    await client.undo();
    expect(titles(client)).toEqual({ canUndo: false, canRedo: true });
    await stage.advance();
    expect(task().count).toBe(1);
    expect(titles(client)).toEqual({ canUndo: true, canRedo: false });
    server.rule = () => undefined;
    await client.undo();
    await stage.advance();
    expect(server.get("tasks", "a")?.count).toBe(0);
  });

  it("R18.3 a new write clears redo; writes that are no step do not count", async () => {
    const { client } = await ready();
    client.write(add("a"));
    await client.undo();
    client.write(add("b"), { undo: false });
    expect(titles(client)).toEqual({ canUndo: false, canRedo: true });
    client.write(add("b"));
    expect(titles(client)).toEqual({ canUndo: true, canRedo: false });
  });

  it("R18.3 keeps a hundred steps", async () => {
    const { client, task } = await ready();
    for (let n = 0; n < 130; n++) client.write(add("a"));
    let steps = 0;
    while (await client.undo()) steps++;
    expect([steps, task().count]).toEqual([100, 30]);
  });

  it("undoes a create by a delete, and a large group by several transactions", async () => {
    const { stage, server, client } = await ready();
    client.write(create("n", { title: "new", boardId: "b1" }));
    await client.undo();
    expect(
      client.record<{ deletedAt: string }>("tasks", "n").getSnapshot()?.deletedAt,
    ).not.toBeNull();
    await client.redo();
    expect(client.record("tasks", "n").getSnapshot()).toMatchObject({
      title: "new",
      deletedAt: null,
    });
    client.group(() => {
      for (let n = 0; n < 700; n++) client.write(add("a"));
    });
    const undone = await client.undo();
    expect(undone?.txIds).toHaveLength(2);
    await stage.advance(5000);
    expect(server.get("tasks", "a")?.count).toBe(0);
    await client.redo();
    await stage.advance(5000);
    expect(server.get("tasks", "a")?.count).toBe(700);
    await client.undo();
    await stage.advance(5000);
    expect(server.get("tasks", "a")?.count).toBe(0);
  }, 20_000);

  it("R18.1 what happens before undo is loaded is told it in order", async () => {
    const { stage, client, task } = await ready();
    client.write(add("a", 2));
    client.write(set("a", "status", "done"));
    const undone = client.undo();
    client.write(add("a", 3));
    expect(titles(client)).toEqual({ canUndo: true, canRedo: false });
    expect(await undone).toMatchObject({ skipped: [] });
    expect(task()).toMatchObject({ status: "todo", count: 5 });
    await stage.advance();
    await client.undo();
    expect(task().count).toBe(2);
    await client.undo();
    expect(task().count).toBe(0);
    expect(await client.undo()).toBeNull();
  });

  it("is one snapshot while nothing changes", async () => {
    const { client } = await ready();
    const log = watch(client.history);
    for (let n = 0; n < 5; n++) await client.write(add("a"));
    await client.undo();
    await client.undo();
    expect(log.shown).toEqual([
      { canUndo: false, canRedo: false },
      { canUndo: true, canRedo: false },
      { canUndo: true, canRedo: true },
    ]);
  });

  it("any sequence, undone, is exactly where it began, and redone where it ended", async () => {
    const values = fc.constantFrom("x", "y", "z");
    const ids = fc.constantFrom("a", "b");
    const operation = fc.oneof(
      fc.tuple(ids, values).map(([id, value]) => tag(value, id)),
      fc.tuple(ids, values).map(([id, value]) => untag(value, id)),
      fc.tuple(ids, values).map(([id, value]) => set(id, "title", value)),
      fc.tuple(ids, fc.integer({ min: -3, max: 3 })).map(([id, by]) => add(id, by)),
      fc
        .tuple(ids, fc.constantFrom("delete" as const, "restore" as const))
        .map(([id, type]) => ({ type, table: "tasks", id })),
      fc.tuple(ids, values).map(([id, value]) => set(id, "tags", [value])),
    );
    const write = fc.record({
      operations: fc.array(operation, { minLength: 1, maxLength: 4 }),
      group: fc.boolean(),
      wait: fc.constantFrom(0, 5, 2000),
    });
    const bare = (record: RecordData | null | undefined) => ({
      ...record,
      version: 0,
      updatedAt: null,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(write, { minLength: 1, maxLength: 12 }), async (writes) => {
        const { stage, client } = await ready();
        const now = () =>
          ["a", "b"].map((id) => {
            const record = bare(client.record("tasks", id).getSnapshot() as RecordData);
            // The time of a deletion is the server's.
            return { ...record, deletedAt: (record as { deletedAt?: unknown }).deletedAt !== null };
          });
        const start = now();
        for (const { operations, group, wait } of writes) {
          client.write(operations, group ? { group: "g" } : {});
          await stage.advance(wait);
        }
        const end = now();
        let steps = 0;
        for (let done = await client.undo(); done; done = await client.undo()) {
          expect(done.skipped).toEqual([]);
          steps++;
          await stage.advance(steps % 2 ? 0 : 50);
        }
        expect(now()).toEqual(start);
        while (await client.redo()) steps--;
        expect(now()).toEqual(end);
        await stage.advance(5000);
        expect(now()).toEqual(end);
        expect(client.rejected.getSnapshot()).toEqual([]);
        stage.crash(client);
      }),
      { numRuns: 100 },
    );
  }, 60_000);
});
