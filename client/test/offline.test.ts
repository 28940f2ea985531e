import { IDBFactory } from "fake-indexeddb";
import { describe, expect, it } from "vitest";
import { PendingWritesError, UserChangedError } from "../src/errors.js";
import { type Storage, StorageFullError, type Store } from "../src/storage.js";
import { indexedDbStorage } from "../src/storage-indexeddb.js";
import { memoryStorage } from "../src/storage-memory.js";
import { add, create, rows, Stage, set, watch } from "./harness.js";
import { Page } from "./world.js";

const board = { boardId: "b1" };

/** A stage whose pages keep things in IndexedDB. */
function onDisk(): { stage: Stage; storage: Storage } {
  const stage = new Stage();
  stage.world.rounds = 40;
  return { stage, storage: indexedDbStorage(new IDBFactory()) };
}

/** A storage in which nothing more fits once it is said to be full. */
function smallStorage(inner: Storage = memoryStorage({ durable: true })) {
  const state = { full: false, frees: 0 };
  const check = (values: readonly unknown[], removes: number) => {
    if (removes && state.frees > 0) {
      state.frees--;
      state.full = false;
    }
    if (state.full && values.length) throw new StorageFullError();
  };
  const wrap = (store: Store): Store => ({
    ...store,
    commit: async (changes, options) => {
      const kept = changes.filter((change) => !("remove" in change));
      check(kept, changes.length - kept.length);
      return store.commit(changes, options);
    },
    append: async (values, changes, options) => {
      check(values, 0);
      return store.append(values, changes, options);
    },
  });
  return {
    state,
    storage: {
      open: async (name: string) => wrap(await inner.open(name)),
      remove: inner.remove,
    } as Storage,
  };
}

describe("offline", () => {
  it("keeps working, reloads, keeps working, and everything arrives once", async () => {
    const { stage, storage } = onDisk();
    const { server } = stage;
    server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const first = stage.open({ storage });
    rows(first.query("tasks", board));
    await stage.advance(2000);
    expect(first.status.getSnapshot()).toMatchObject({ durable: true, state: "online" });
    server.down = true;
    server.close();
    await stage.advance(1000);
    await first.write([add("a"), set("a", "title", "offline")]);
    await first.write(create("n", { title: "new", boardId: "b1" }));
    stage.crash(first);

    const second = stage.open({ storage });
    const seen = rows(second.query("tasks", board));
    await stage.until(() => seen.now().length === 2);
    await stage.advance(100);
    expect(seen.now()).toEqual(["offline", "new"]);
    expect(second.query("tasks", board).getSnapshot().status).toBe("offline");
    expect(second.status.getSnapshot()).toMatchObject({ pending: 2, state: "offline" });
    await second.write(add("a"));
    stage.crash(second);

    server.put("tasks", "a", { status: "meanwhile" });
    server.down = false;
    const third = stage.open({ storage });
    const rest = rows(third.query("tasks", board), "count");
    await stage.until(() => third.status.getSnapshot().state === "online");
    await stage.advance(1000);
    expect(rest.now()).toEqual([2, null]);
    expect(server.get("tasks", "a")).toMatchObject({
      count: 2,
      title: "offline",
      status: "meanwhile",
    });
    expect(server.applied).toHaveLength(3);
  });

  it("R14.2 opens the last user's data where no token can be had", async () => {
    const { stage, storage } = onDisk();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
    const token = `x.${btoa(JSON.stringify({ sub: "ann" }))}.x`;
    stage.server.userOf = () => "ann";
    const first = stage.open({ storage, auth: { token: () => token } });
    rows(first.query("tasks", board));
    await stage.advance(2000);
    await first.close();
    stage.server.down = true;
    const auth = {
      token: () => {
        throw new Error("no network");
      },
    };
    const second = stage.open({ storage, auth });
    const seen = rows(second.query("tasks", board));
    await stage.until(() => seen.now().length === 1);
    expect(second.debug.getSnapshot().userId).toBe("ann");
  });

  it("R9.1 what was awaited is on disk, though the page ends at once", async () => {
    const { stage, storage } = onDisk();
    stage.server.down = true;
    const first = stage.open({ storage, userId: "ann" });
    await stage.advance(100);
    await first.write(create("n", { title: "new" }));
    stage.crash(first);
    const second = stage.open({ storage, userId: "ann" });
    await stage.until(() => second.status.getSnapshot().pending === 1);
  });

  it("R6.3 writes what it knows when the page is hidden", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
    const first = stage.open({ page });
    rows(first.query("tasks", board));
    await stage.advance(45);
    page.hide();
    await stage.advance(1);
    stage.crash(first);
    stage.server.down = true;
    const second = stage.open();
    const seen = rows(second.query("tasks", board));
    await stage.advance(100);
    expect(seen.now()).toEqual(["A"]);
  });
});

describe("R19 storage", () => {
  it("R19.1 without any, everything works from memory, each tab for itself", async () => {
    const stage = new Stage();
    const broken: Storage = {
      open: async () => {
        throw new Error("a private window");
      },
      remove: async () => {},
    };
    stage.server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const tabs = [stage.open({ storage: broken }), stage.open({ storage: broken })];
    const seen = tabs.map((tab) => rows(tab.query("tasks", board), "count"));
    await stage.advance();
    for (const tab of tabs) tab.write(add("a"));
    await stage.advance();
    expect(seen.map((log) => log.now())).toEqual([[2], [2]]);
    expect(tabs[0]?.status.getSnapshot()).toMatchObject({ durable: false, pending: 0 });
  });

  it("R19.2 no room for a write: it fails, and is not shown", async () => {
    const stage = new Stage();
    const { storage, state } = smallStorage();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const client = stage.open({ storage });
    const seen = rows(client.query("tasks", board), "count");
    await stage.advance();
    stage.server.down = true;
    state.full = true;
    const handle = client.write(add("a"));
    expect(seen.now()).toEqual([1]);
    await expect(handle).rejects.toBeInstanceOf(StorageFullError);
    await expect(handle.confirmed).rejects.toBeInstanceOf(StorageFullError);
    expect(seen.now()).toEqual([0]);
    expect(client.status.getSnapshot()).toMatchObject({
      pending: 0,
      lastError: { code: "storage_full" },
    });
    expect(client.history.getSnapshot().canUndo).toBe(false);
    state.full = false;
    await client.write(add("a"));
    expect(seen.now()).toEqual([1]);
  });

  it("R19.2 makes room by the least used keys first, and never by the queue", async () => {
    const stage = new Stage();
    const { storage, state } = smallStorage();
    for (const id of ["b1", "b2", "b3"])
      stage.server.put("tasks", `in-${id}`, { boardId: id, count: 0 });
    const client = stage.open({ storage });
    for (const boardId of ["b1", "b2", "b3"]) {
      const used = rows(client.query("tasks", { boardId }));
      await stage.advance();
      if (boardId !== "b3") used.end();
      await stage.advance(6000);
    }
    stage.server.down = true;
    stage.server.close();
    await stage.advance();
    await client.write(add("in-b3"));
    state.full = true;
    state.frees = 1;
    await client.write(add("in-b3"));
    stage.crash(client);
    const again = stage.open({ storage });
    const left = ["b1", "b2", "b3"].map((boardId) => rows(again.query("tasks", { boardId }), "id"));
    await stage.advance();
    expect(left.map((log) => log.now())).toEqual([[], ["in-b2"], ["in-b3"]]);
    expect(again.status.getSnapshot().pending).toBe(2);
  });

  it("R19.3 no room for the cache: it stays as it was, and the queue goes on", async () => {
    const stage = new Stage();
    const { storage, state } = smallStorage();
    stage.server.put("tasks", "a", { title: "1", boardId: "b1", count: 0 });
    const client = stage.open({ storage });
    const seen = rows(client.query("tasks", board));
    await stage.advance();
    state.full = true;
    stage.server.put("tasks", "a", { title: "2" });
    await stage.advance();
    expect(seen.now()).toEqual(["2"]);
    state.full = false;
    stage.server.put("tasks", "a", { title: "3" });
    client.write(add("a"));
    await stage.advance();
    stage.crash(client);
    const again = stage.open({ storage });
    const after = watch(again.query("tasks", board));
    after.end();
    rows(again.query("tasks", board));
    await stage.advance();
    // First as it was stored, then all that was missed since that cursor.
    expect(again.query("tasks", board).getSnapshot()).toMatchObject({
      status: "live",
      data: [{ title: "3", count: 1 }],
    });
    expect(again.status.getSnapshot().pending).toBe(0);
  });

  it("R19.4 keys nobody used for a month go, with their records", async () => {
    const stage = new Stage();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
    stage.server.put("tasks", "b", { title: "B", boardId: "b2" });
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance();
    await Promise.all([client.close(), stage.advance()]);
    stage.world.now += 20 * 86_400_000;
    const second = stage.open();
    rows(second.query("tasks", { boardId: "b2" }));
    await stage.advance();
    await Promise.all([second.close(), stage.advance()]);
    stage.world.now += 20 * 86_400_000;
    stage.server.down = true;
    const third = stage.open();
    await stage.advance();
    await Promise.all([third.close(), stage.advance()]);
    const fourth = stage.open();
    const seen = rows(fourth.query("tasks", {}));
    await stage.advance();
    expect(seen.now()).toEqual(["B"]);
  });

  it("asks once that the device keep it", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    const client = stage.open({ page });
    await stage.advance();
    client.write(create("x"));
    client.write(create("y"));
    // Not while it is being shown.
    expect(page.persisted).toBe(0);
    await stage.advance();
    client.write(create("z"));
    await stage.advance();
    expect(page.persisted).toBe(1);
  });
});

describe("R14 users", () => {
  it("R14.1 of one device share nothing", async () => {
    const { stage, storage } = onDisk();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1", assignee: "ann" });
    stage.server.mayRead = (user, _table, record) => record.assignee === user;
    const ann = stage.open({ storage, user: "ann", userId: "ann" });
    rows(ann.query("tasks", board));
    await stage.advance(2000);
    stage.server.down = true;
    stage.server.close();
    await ann.write(add("a"));
    stage.crash(ann);
    const bob = stage.open({ storage, user: "bob", userId: "bob" });
    const log = watch(bob.query("tasks", board));
    await stage.advance(2000);
    stage.server.down = false;
    await stage.advance(60_000);
    expect(log.shown.every(({ data }) => !data.length)).toBe(true);
    expect(bob.status.getSnapshot().pending).toBe(0);
    expect(stage.server.applied).toEqual([]);
    await bob.close();
    const back = stage.open({ storage, user: "ann", userId: "ann" });
    await stage.until(() => back.status.getSnapshot().state === "online");
    await stage.advance(2000);
    expect(stage.server.applied).toHaveLength(1);
  });

  it("R14.3 another user than the app's: nothing is shown, stored or sent", async () => {
    const stage = new Stage();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const first = stage.open({ userId: "ann" });
    rows(first.query("tasks", board));
    await stage.advance();
    stage.server.down = true;
    stage.server.close();
    first.write(add("a"));
    await stage.advance(100);
    stage.crash(first);
    stage.server.down = false;
    stage.server.userOf = () => "bob";
    const second = stage.open({ userId: "ann" });
    const seen = rows(second.query("tasks", board));
    await stage.advance(5000);
    expect(seen.now()).toEqual([]);
    const status = second.status.getSnapshot();
    expect(status).toMatchObject({ state: "needs-auth", pending: 0 });
    expect(status.lastError).toBeInstanceOf(UserChangedError);
    second.resume();
    await stage.advance(5000);
    expect(stage.server.applied).toEqual([]);
  });

  it("R14.3 a token that speaks of somebody else is never sent", async () => {
    const stage = new Stage();
    const token = (sub: string) => `x.${btoa(JSON.stringify({ sub }))}.x`;
    let user = "ann";
    stage.server.userOf = (given) => JSON.parse(atob(given.split(".")[1] as string)).sub;
    const client = stage.open({ auth: { token: () => token(user) } });
    await stage.advance();
    user = "bob";
    client.write(create("x"));
    await stage.advance();
    expect(client.status.getSnapshot()).toMatchObject({ needsAuth: true, pending: 1 });
    expect(stage.server.calls.every((call) => call.user === "ann")).toBe(true);
  });

  it("R14.4 with a cookie nothing is asked before it is known whose it is", async () => {
    const stage = new Stage();
    const { server } = stage;
    server.cookieUser = "ann";
    server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const client = stage.open({ auth: "cookie" });
    const seen = rows(client.query("tasks", board));
    const early = client.write(add("a"));
    await stage.advance(1000);
    expect(seen.now()).toEqual(["A"]);
    await expect(early.confirmed).resolves.toBeDefined();
    expect(server.requests("write")).toMatchObject([{ transactions: [{ authorId: "ann" }] }]);
    // The cookie becomes somebody else's while the connection is down.
    server.down = true;
    server.close();
    await stage.advance(100);
    server.cookieUser = "bob";
    server.calls.length = 0;
    client.write(add("a"));
    await stage.advance(5000);
    server.down = false;
    await stage.advance(60_000);
    expect(server.calls.filter(({ user }) => user === "bob").map(({ path }) => path)).not.toContain(
      "/api/realtime/write",
    );
    expect(server.get("tasks", "a")?.count).toBe(1);
    expect(client.debug.getSnapshot().userId).toBe("bob");
    expect(client.status.getSnapshot().pending).toBe(0);
    // It is still there for its author.
    await Promise.all([client.close(), stage.advance()]);
    server.cookieUser = "ann";
    stage.open({ auth: "cookie" });
    await stage.advance(5000);
    expect(server.get("tasks", "a")?.count).toBe(2);
  });

  it("R14.4 a tab whose cookie another tab has exchanged stops, and shows nothing of the other user", async () => {
    const stage = new Stage();
    const { server } = stage;
    server.mayRead = (user, _table, record) => record.assignee === user;
    server.cookieUser = "ann";
    server.put("tasks", "a", { title: "A", boardId: "b1", assignee: "ann" });
    server.put("tasks", "b", { title: "B", boardId: "b1", assignee: "bob" });
    const ann = stage.open({ auth: "cookie", userId: "ann" });
    const log = watch(ann.query("tasks", board));
    await stage.advance();
    server.cookieUser = "bob";
    stage.open({ auth: "cookie", userId: "bob" });
    await stage.advance(5000);
    ann.query("tasks", board).refetch();
    await stage.advance();
    expect(ann.status.getSnapshot()).toMatchObject({ needsAuth: true });
    expect(log.shown.flatMap(({ data }) => [...data]).every(({ title }) => title === "A")).toBe(
      true,
    );
  });

  it.each(["ask", "keep", "discard"] as const)("R14.5 signOut with %s", async (pending) => {
    const { stage, storage } = onDisk();
    const { server } = stage;
    server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const client = stage.open({ storage });
    rows(client.query("tasks", board));
    await stage.advance(2000);
    server.down = true;
    server.close();
    await stage.advance(100);
    await client.write(add("a"));
    const out = client.signOut({ pending });
    if (pending === "ask") {
      await expect(out).rejects.toMatchObject({
        constructor: PendingWritesError,
        pending: 1,
        rejected: 0,
      });
      expect(client.status.getSnapshot().pending).toBe(1);
      server.down = false;
      await stage.until(() => client.status.getSnapshot().pending === 0);
      await client.signOut();
    } else await out;
    expect(() => client.write(add("a"))).toThrow("closed");
    expect(client.query("tasks", board).getSnapshot().data).toEqual([]);
    server.down = true;
    const next = stage.open({ storage, userId: "ann" });
    const seen = rows(next.query("tasks", {}));
    await stage.advance(1000);
    expect(seen.now()).toEqual([]);
    expect(next.status.getSnapshot().pending).toBe(pending === "keep" ? 1 : 0);
    server.down = false;
    await stage.until(() => next.status.getSnapshot().state === "online");
    await stage.advance(3000);
    expect(server.get("tasks", "a")?.count).toBe(pending === "discard" ? 0 : 1);
  });

  it("R14.5 signOut asks what else would be lost, and has it removed", async () => {
    for (const pending of ["keep", "discard"] as const) {
      const stage = new Stage();
      const [client, other] = [stage.open(), stage.open()];
      const ends: boolean[] = [];
      const others: boolean[] = [];
      client.attach({ unsent: async () => 2, end: (remove) => ends.push(remove) });
      other.attach({ unsent: () => 0, end: (remove) => others.push(remove) });
      await stage.advance();
      await expect(client.signOut()).rejects.toMatchObject({ pending: 0, rejected: 0, files: 2 });
      expect(ends).toEqual([]);
      await Promise.all([client.signOut({ pending }), stage.advance()]);
      await client.close();
      expect(ends).toEqual([pending === "discard"]);
      expect(others).toEqual([false]);
      const closed = stage.open({ userId: "bob" });
      closed.attach({ unsent: () => 0, end: (remove) => ends.push(remove) });
      await stage.advance();
      await closed.close();
      expect(ends).toEqual([pending === "discard", false]);
    }
  });

  it("R14.5 ends the client in all tabs", async () => {
    const stage = new Stage();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
    const [one, other] = [stage.open(), stage.open()];
    const seen = rows(other.query("tasks", board));
    await stage.advance();
    expect(seen.now()).toEqual(["A"]);
    await Promise.all([one.signOut(), stage.advance()]);
    expect(seen.now()).toEqual([]);
    expect(other.status.getSnapshot()).toMatchObject({ state: "needs-auth", online: false });
    expect(() => other.write(add("a"))).toThrow("closed");
    const store = await stage.storage.open("rowcast:http://test:=ann");
    expect(await store.all("records")).toEqual([]);
  });
});
