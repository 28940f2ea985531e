import { beforeEach, describe, expect, it, vi } from "vitest";
import { Cache } from "../src/cache.js";
import type { RecordData } from "../src/json.js";
import { LiveQuery } from "../src/query.js";
import type { Slot } from "../src/slots.js";
import { add, create, set } from "./harness.js";
import { schema } from "./scripted-server.js";

const NOW = "2026-03-01T12:00:00.000000Z";

/** A record as the wire has it. */
function task(id: string, version: number, more: object = {}): RecordData {
  return { id, version, title: id, status: "todo", boardId: "b1", count: 0, ...more };
}

let wanted: string[];
let covered: boolean;
let staleSince: number;
let cache: Cache;
let slot: Slot;

beforeEach(() => {
  wanted = [];
  covered = true;
  staleSince = 0;
  cache = new Cache(schema, {
    now: () => 0,
    want: ({ id }) => wanted.push(id),
    dirty: () => {},
    changed: () => {},
    covers: () => covered,
    staleSince: (_keys, tick) => staleSince > tick,
  });
  slot = cache.slot("tasks", "a");
});

const read = (record: RecordData | null, sent = cache.next()) => cache.takeRead(slot, record, sent);
const update = (entry: object) => cache.takeUpdate({ key: "tasks:a", ...entry }, cache.next());
const view = () => {
  cache.settle();
  return slot.view;
};
const write = (txId: string, ...operations: Parameters<typeof add>[] | object[]) =>
  cache.add({ txId, operations: operations as never }, NOW);

describe("R1 views", () => {
  it("R1.1 replays pending writes in the order of the queue, whatever order they come in", () => {
    read(task("a", 1));
    const late = write("t2", set("a", "title", "second"));
    const early = write("t1", set("a", "title", "first"));
    expect(view()?.title).toBe("first");
    early.key = "0001";
    late.key = "0002";
    cache.store([early, late]);
    expect(view()?.title).toBe("second");
    expect(cache.pending.map(({ tx }) => tx.txId)).toEqual(["t1", "t2"]);
  });

  it("R1.2 leaves out what cannot be applied", () => {
    read(task("a", 1));
    write("t1", create("a", { title: "x" }));
    write("t2", add("a"));
    expect(view()).toEqual(task("a", 1, { count: 1, updatedAt: NOW }));
  });

  it("R1.4 a refused write goes, the others stay; a refused create disappears", () => {
    const made = write("t1", create("a", { title: "x" }));
    const more = write("t2", set("a", "title", "y"));
    expect(view()?.title).toBe("y");
    cache.remove(more, true);
    expect(view()?.title).toBe("x");
    cache.remove(made, true);
    expect(view()).toBeUndefined();
  });

  it("R1.5 keeps the object of a view whose content stays", () => {
    read(task("a", 1));
    const before = view();
    read(task("a", 1));
    expect(view()).toBe(before);
    update({ version: 2, patch: { title: "z" } });
    expect(view()).not.toBe(before);
  });
});

describe("R2 the end of a part", () => {
  it("R2.1 an echo contains the write, the answer after it changes nothing", () => {
    read(task("a", 1));
    const pending = write("t1", add("a"));
    expect(view()?.count).toBe(1);
    update({ version: 2, patch: { count: 1 }, txId: "t1" });
    expect(view()?.count).toBe(1);
    cache.contain("t1", slot, 2);
    read(task("a", 2, { count: 1 }));
    cache.remove(pending, false);
    expect(view()?.count).toBe(1);
  });

  it("R2.1 an answer that names a version not held yet keeps the write shown", () => {
    read(task("a", 1));
    const pending = write("t1", add("a"));
    cache.contain("t1", slot, 3);
    cache.remove(pending, false);
    expect(view()?.count).toBe(1);
    update({ version: 2, patch: { title: "other" } });
    expect(view()).toMatchObject({ count: 1, title: "other" });
    update({ version: 3, patch: { count: 1 } });
    expect(view()?.count).toBe(1);
    expect(slot.parts).toEqual([]);
  });

  it("R2.1 an echo without contents keeps the write shown until it is fetched", () => {
    read(task("a", 1));
    write("t1", add("a"));
    update({ version: 2, txId: "t1" });
    expect(wanted).toEqual(["a"]);
    expect(view()?.count).toBe(1);
    read(task("a", 2, { count: 1 }));
    expect(view()?.count).toBe(1);
  });

  it("R2.4 what was answered unheard ends with the next thing heard", () => {
    read(task("a", 1));
    const pending = write("t1", add("a"));
    for (const part of pending.parts) part.since = cache.next();
    cache.remove(pending, false);
    expect(view()?.count).toBe(1);
    read(task("a", 2, { count: 1 }));
    expect(view()?.count).toBe(1);
  });
});

describe("R3 updates", () => {
  beforeEach(() => read(task("a", 3)));

  it("R3.1 a patch applies exactly on its base", () => {
    update({ version: 4, patch: { title: "4" } });
    expect(slot.server).toEqual(task("a", 4, { title: "4" }));
    update({ version: 7, from: 4, patch: { title: "7" } });
    expect(slot.server).toEqual(task("a", 7, { title: "7" }));
    expect(wanted).toEqual([]);
  });

  it("R3.1 an old patch is ignored, a later one makes the record wanted", () => {
    update({ version: 3, patch: { title: "x" } });
    update({ version: 2, patch: { title: "x" } });
    expect([slot.server, wanted]).toEqual([task("a", 3), []]);
    update({ version: 5, patch: { title: "x" } });
    expect([slot.server, wanted]).toEqual([task("a", 3), ["a"]]);
  });

  it("R3.2 an equal record replaces, a lower one does not", () => {
    update({ version: 3, record: task("a", 3, { title: "same version, other content" }) });
    expect(slot.server?.title).toBe("same version, other content");
    update({ version: 2, record: task("a", 2) });
    expect(slot.server?.version).toBe(3);
    update({ version: 3 });
    expect(wanted).toEqual([]);
    update({ version: 4 });
    expect(wanted).toEqual(["a"]);
  });

  it("R3.3 gone purges, whatever is held; pending writes stay", () => {
    const pending = write("t1", add("a"));
    update({ gone: true });
    expect(view()).toBeNull();
    expect(cache.pending).toEqual([pending]);
  });

  it("R3.4 the versions of a copy nobody kept up to date tell nothing", () => {
    covered = false;
    update({ version: 4, patch: { title: "another record of this id" } });
    update({ version: 1, record: task("a", 1) });
    update({ version: 2, patch: { title: "x" } });
    expect([slot.server, wanted]).toEqual([task("a", 3), ["a", "a", "a"]]);
    update({ version: 9, record: task("a", 9) });
    expect(slot.server?.version).toBe(9);
  });
});

describe("R4 answers, sent earlier than something heard", () => {
  it("R4.1 a newer frame stays; a newer answer replaces", () => {
    read(task("a", 1));
    const sent = cache.next();
    update({ version: 2, patch: { title: "2" } });
    read(task("a", 1), sent);
    expect(slot.server?.version).toBe(2);
    read(task("a", 3), sent);
    expect(slot.server?.version).toBe(3);
  });

  it("R4.1 requests that cross: the higher version, and where that tells nothing a third one", () => {
    const [first, second] = [cache.next(), cache.next()];
    read(task("a", 3), first);
    read(task("a", 3, { title: "the same" }), second);
    expect([slot.server, wanted]).toEqual([task("a", 3), []]);
    const [third, fourth, fifth] = [cache.next(), cache.next(), cache.next()];
    read(task("a", 5), fourth);
    read(task("a", 4), third);
    expect([slot.server?.version, wanted]).toEqual([5, ["a"]]);
    read(null, fifth);
    expect([slot.server?.version, wanted]).toEqual([5, ["a", "a"]]);
    read(task("a", 4));
    expect(slot.server?.version).toBe(4);
  });

  it("R4.2 gone after it was sent: neither added nor restored, but asked again", () => {
    const sent = cache.next();
    update({ gone: true });
    read(task("a", 5), sent);
    expect([slot.server, wanted]).toEqual([null, ["a"]]);
    read(task("a", 1));
    expect(slot.server?.version).toBe(1);
  });

  it("R4.2 a key went stale after it was sent: not added, but asked again", () => {
    const sent = cache.next();
    staleSince = cache.next();
    read(task("a", 5), sent);
    expect([slot.server, wanted]).toEqual([undefined, ["a"]]);
    read(task("a", 5));
    expect(slot.server?.version).toBe(5);
    // One that is held already is neither added nor restored.
    read(task("a", 6), cache.next());
    expect(slot.server?.version).toBe(6);
  });

  it("R4.3 an absence that a frame contradicts is not believed", () => {
    const sent = cache.next();
    update({ version: 1, record: task("a", 1) });
    read(null, sent);
    expect([slot.server?.version, wanted]).toEqual([1, ["a"]]);
  });

  it("R4.4 otherwise it replaces whatever its number", () => {
    read(task("a", 9));
    read(task("a", 2));
    expect(slot.server?.version).toBe(2);
    read(null);
    expect(view()).toBeNull();
  });

  it("R4.5 what a frame asked for stays wanted", () => {
    read(task("a", 1));
    const sent = cache.next();
    update({ version: 4 });
    read(task("a", 3), sent);
    expect([slot.server?.version, slot.want]).toEqual([3, true]);
    read(task("a", 4));
    expect([slot.server?.version, slot.want]).toEqual([4, false]);
  });
});

describe("R5 another epoch", () => {
  it("R5.2 what is held stays on screen and counts as version 0", () => {
    read(task("a", 9));
    cache.age();
    expect(view()?.version).toBe(9);
    expect(slot.version).toBe(0);
    update({ version: 10, patch: { title: "x" } });
    expect([slot.server?.title, wanted]).toEqual(["a", ["a"]]);
    update({ version: 1, record: task("a", 1) });
    expect(view()?.version).toBe(1);
  });

  it("R5.3 an answer to what was asked before it is not believed", () => {
    read(task("a", 1));
    const sent = cache.next();
    cache.age();
    read(task("a", 9), sent);
    expect([slot.server?.version, wanted]).toEqual([1, ["a"]]);
  });

  it("R5.4 a contained write stays shown until the next copy", () => {
    read(task("a", 1));
    const pending = write("t1", add("a"));
    cache.contain("t1", slot, 7);
    cache.remove(pending, false);
    cache.age();
    expect(view()?.count).toBe(1);
    read(task("a", 1, { count: 1 }));
    expect(view()?.count).toBe(1);
  });
});

describe("queries", () => {
  const query = (where: object, more: object = {}) => {
    const made = new LiveQuery(
      { table: "tasks", where: where as never, ...more },
      cache.table("tasks").schema,
    );
    cache.attach(made);
    return made;
  };
  const ids = (made: LiveQuery) => {
    cache.settle();
    return made.snapshot.data.map(({ id }) => id);
  };
  const put = (id: string, more: object) =>
    cache.takeRead(cache.slot("tasks", id), task(id, 1, more), cache.next());

  it("find by any topic, by id and by table, and follow every move", () => {
    const byBoard = query({ boardId: "b1" });
    const byTwo = query({ boardId: { in: ["b1", "b2"] } });
    const byId = query({ id: "a" });
    const all = query({});
    put("a", { boardId: "b1" });
    put("b", { boardId: "b2" });
    expect([ids(byBoard), ids(byTwo), ids(byId), ids(all)]).toEqual([
      ["a"],
      ["a", "b"],
      ["a"],
      ["a", "b"],
    ]);
    put("a", { boardId: "b3" });
    expect([ids(byBoard), ids(byTwo), ids(byId), ids(all)]).toEqual([[], ["b"], ["a"], ["a", "b"]]);
  });

  it("R1.5 give the same array while nothing in it changes", () => {
    const made = query({ boardId: "b1" });
    put("a", {});
    ids(made);
    const before = made.snapshot;
    put("b", { boardId: "b2" });
    put("a", {});
    ids(made);
    expect(made.snapshot).toBe(before);
  });

  it("find tables that cannot be subscribed to as a whole", () => {
    const narrow = structuredClone(schema);
    (narrow.tables.tasks as { wholeTable: boolean }).wholeTable = false;
    cache = new Cache(narrow, {
      now: () => 0,
      want: () => {},
      dirty: () => {},
      changed: () => {},
      covers: () => true,
      staleSince: () => false,
    });
    const made = query({ status: "todo" });
    put("a", {});
    expect(ids(made)).toEqual(["a"]);
  });

  it("R8.1, R8.2 show what lies within reach, and no more than the limit", () => {
    const made = query({ boardId: "b1" }, { orderBy: [{ key: "position" }], limit: 2 });
    for (const [at, id] of ["a", "b", "c"].entries()) put(id, { position: at * 10 });
    made.bound(task("b", 1, { position: 10 }), true);
    cache.queryChanged(made);
    expect(ids(made)).toEqual(["a", "b"]);
    put("d", { position: 5 });
    expect(ids(made)).toEqual(["a", "d"]);
    put("e", { position: 15 });
    cache.takeRead(cache.slot("tasks", "a"), null, cache.next());
    cache.takeRead(cache.slot("tasks", "d"), null, cache.next());
    // c and e are known, but what else lies before them is not.
    expect(ids(made)).toEqual(["b"]);
    expect(made.snapshot.hasMore).toBe(true);
  });
});

describe("listeners", () => {
  it("are called once for all that changed together, and only where the snapshot did", async () => {
    const heard = vi.fn();
    const other = vi.fn();
    slot.listeners.add(heard);
    cache.slot("tasks", "b").listeners.add(other);
    read(task("a", 1));
    update({ version: 2, patch: { title: "2" } });
    write("t1", add("a"));
    await Promise.resolve();
    await Promise.resolve();
    expect([heard.mock.calls.length, other.mock.calls.length]).toEqual([1, 0]);
  });
});
