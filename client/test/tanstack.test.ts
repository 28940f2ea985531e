import { createCollection, createTransaction } from "@tanstack/db";
import { InfiniteQueryObserver, QueryClient } from "@tanstack/query-core";
import { afterEach, describe, expect, it } from "vitest";
import type { Client } from "../src/client.js";
import { memoryStorage } from "../src/storage-memory.js";
import type { Tabs } from "../src/tabs.js";
import { rowcastCollectionOptions, rowcastMutationFn } from "../src/tanstack-db.js";
import { rowcastInfiniteQueryOptions, rowcastQueryOptions } from "../src/tanstack-query.js";
import { createTestServer, type TestServer } from "../src/testing/index.js";
import { schema } from "./react/schema.js";

const servers: TestServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

interface Task {
  id: string;
  version?: number;
  title: string | null;
  boardId: string | null;
  done?: boolean;
  position?: number | null;
  meta?: { [key: string]: unknown } | null;
}

function stage(tasks: object[] = [], boards: object[] = []) {
  const server = createTestServer({ schema, records: { tasks, boards } as never });
  servers.push(server);
  return { server, client: server.client("ann") };
}

/** What tabs of one browser share. */
function twoTabs(): Tabs {
  const channels = new Set<{ name: string; listener: (message: unknown) => void }>();
  const holders = new Set<string>();
  return {
    channel(name, listener) {
      const mine = { name, listener };
      channels.add(mine);
      return {
        post(message) {
          for (const other of channels) {
            if (other === mine || other.name !== name) continue;
            queueMicrotask(() => other.listener(structuredClone(message)));
          }
        },
        close: () => channels.delete(mine),
      };
    },
    lock(name, _steal, granted) {
      if (holders.has(name)) return () => {};
      holders.add(name);
      queueMicrotask(granted);
      return () => holders.delete(name);
    },
  };
}

describe("a collection of TanStack DB", () => {
  const tasksOf = (client: Client, boardId?: string) =>
    createCollection(
      rowcastCollectionOptions<Task>({
        client,
        table: "tasks",
        startSync: true,
        gcTime: 0,
        ...(boardId && { where: { boardId } }),
      }),
    );
  const titles = (collection: { toArray: { title: string | null }[] }) =>
    collection.toArray.map(({ title }) => title).sort();

  it("shows the server's records, live, as far as they match", async () => {
    const { server, client } = stage([
      { id: "a", title: "A", boardId: "b1" },
      { id: "b", title: "B", boardId: "b2" },
    ]);
    const tasks = tasksOf(client, "b1");
    expect(tasks.status).toBe("loading");
    await tasks.preload();
    expect(titles(tasks)).toEqual(["A"]);
    server.put("tasks", { id: "b", boardId: "b1" });
    server.put("tasks", { id: "a", title: "A2" });
    await server.settle();
    expect(titles(tasks)).toEqual(["A2", "B"]);
    server.put("tasks", { id: "b", boardId: "b2" });
    server.remove("tasks", "a");
    await server.settle();
    expect(titles(tasks)).toEqual([]);
  });

  it("tells of a server's transaction as one", async () => {
    const { server, client } = stage([{ id: "a", title: "A", boardId: "b1" }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    await server.settle();
    const batches: number[] = [];
    tasks.subscribeChanges((changes) => batches.push(changes.length));
    const other = server.client("bob");
    await other.write([
      { type: "set", table: "tasks", id: "a", key: "title", value: "A2" },
      { type: "create", table: "tasks", id: "n", value: { title: "N" } },
    ]).confirmed;
    await server.settle();
    expect(batches).toEqual([2]);
  });

  it("knows nothing of what is pending in the client", async () => {
    const { server, client } = stage([{ id: "a", title: "A", boardId: "b1" }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    const release = server.hold("write");
    client.write({ type: "set", table: "tasks", id: "a", key: "title", value: "pending" });
    await server.settle();
    expect(titles(tasks)).toEqual(["A"]);
    release();
    await server.settle();
    expect(titles(tasks)).toEqual(["pending"]);
  });

  it("writes, and lets go of what it showed once the echo is there", async () => {
    const { server, client } = stage([], [{ id: "b1", name: "Board" }]);
    const tasks = tasksOf(client, "b1");
    await tasks.preload();
    const shown: unknown[] = [];
    tasks.subscribeChanges((changes) => shown.push(...changes.map(({ value }) => value.title)));
    // What the server alone gives may be there, as records have it.
    const owned = { version: 7, createdBy: "whoever", updatedAt: "2026-01-01T00:00:00.000000Z" };
    const insert = tasks.insert({ id: "n", title: "N", boardId: "b1", ...owned });
    expect(titles(tasks)).toEqual(["N"]);
    await insert.isPersisted.promise;
    expect(tasks.get("n")).toMatchObject({ title: "N", version: 1, createdBy: "ann", done: false });
    const release = server.hold("write");
    const update = tasks.update("n", (draft) => {
      draft.title = "N2";
    });
    await server.settle();
    expect(server.get("tasks", "n")?.title).toBe("N");
    expect(titles(tasks)).toEqual(["N2"]);
    release();
    await update.isPersisted.promise;
    expect(tasks.get("n")).toMatchObject({ title: "N2", version: 2 });
    // Never back to the old value.
    expect(shown.lastIndexOf("N")).toBeLessThan(shown.indexOf("N2"));
    const remove = tasks.delete("n");
    await remove.isPersisted.promise;
    await server.settle();
    expect(titles(tasks)).toEqual([]);
    expect(server.get("tasks", "n")?.deletedAt).toBeTruthy();
  });

  it("rolls back what is refused", async () => {
    const { server, client } = stage([{ id: "a", title: "A", boardId: "b1" }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    server.refuse({ status: 403, code: "forbidden" });
    const update = tasks.update("a", (draft) => {
      draft.title = "no";
    });
    expect(titles(tasks)).toEqual(["no"]);
    await expect(update.isPersisted.promise).rejects.toMatchObject({ code: "forbidden" });
    expect(titles(tasks)).toEqual(["A"]);
    expect(client.rejected.getSnapshot()).toHaveLength(1);
  });

  it("changes inside jsonb only what was changed", async () => {
    const { server, client } = stage([
      { id: "a", title: "A", meta: { color: "red", size: { w: 1, h: 2 }, old: 1 } },
    ]);
    const tasks = tasksOf(client);
    await tasks.preload();
    const release = server.hold("write");
    const update = tasks.update("a", (draft) => {
      draft.meta = { color: "blue", size: { w: 3, h: 2 } };
    });
    server.put("tasks", { id: "a", meta: { color: "red", size: { w: 1, h: 9 }, old: 1, more: 1 } });
    release();
    await update.isPersisted.promise;
    expect(server.get("tasks", "a")?.meta).toEqual({
      color: "blue",
      size: { w: 3, h: 9 },
      more: 1,
    });
  });

  it("ends a write that changes nothing", async () => {
    const { server, client } = stage([{ id: "a", title: "A", position: 1 }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    const release = server.hold("write");
    const update = tasks.update("a", (draft) => {
      draft.position = 2;
    });
    // Somebody else does the same meanwhile.
    server.put("tasks", { id: "a", position: 2 });
    release();
    await update.isPersisted.promise;
    expect(tasks.get("a")).toMatchObject({ position: 2 });
  });

  it("writes over several collections in one transaction", async () => {
    const { server, client } = stage([{ id: "a", title: "A" }]);
    const tasks = tasksOf(client);
    const boards = createCollection(
      rowcastCollectionOptions<{ id: string; name: string }>({
        client,
        table: "boards",
        startSync: true,
      }),
    );
    await Promise.all([tasks.preload(), boards.preload()]);
    const both = createTransaction({ mutationFn: rowcastMutationFn(client) });
    both.mutate(() => {
      boards.insert({ id: "b9", name: "New" });
      tasks.update("a", (draft) => {
        draft.boardId = "b9";
      });
    });
    await both.isPersisted.promise;
    const writes = server.requests.filter(({ kind }) => kind === "write");
    expect(writes).toHaveLength(1);
    expect(boards.get("b9")).toMatchObject({ name: "New", owner: "ann" });
    expect(tasks.get("a")).toMatchObject({ boardId: "b9" });
  });

  it("does not show again what another tab has removed for it", async () => {
    const { server } = stage([], [{ id: "b1", name: "Board" }]);
    const storage = memoryStorage({ durable: true });
    const tabs = twoTabs();
    const first = server.client("ann", { storage, tabs });
    await server.settle();
    // Only the answer to the other tab tells, not the socket; what it tells of has to be asked for.
    const transport = server.transport("ann");
    const second = server.client("ann", {
      storage,
      tabs,
      transport: {
        ...transport,
        connect: (path, events) =>
          transport.connect(path, {
            ...events,
            message: (text) => {
              if (!text.includes('"updates"')) events.message(text);
            },
          }),
      },
    });
    const boards = createCollection(
      rowcastCollectionOptions<{ id: string; name: string }>({
        client: second,
        table: "boards",
        startSync: true,
      }),
    );
    await boards.preload();
    const shown: number[] = [];
    boards.subscribeChanges(() => shown.push(boards.size), { includeInitialState: true });
    const release = server.hold("getRecords");
    const remove = boards.delete("b1");
    await server.settle();
    expect(server.get("boards", "b1")).toBeNull();
    expect(first.status.getSnapshot().pending).toBe(0);
    expect(boards.size).toBe(0);
    release();
    await remove.isPersisted.promise;
    expect(shown).toEqual([1, 0]);
  });

  it("tells of a transaction by its id", async () => {
    const { server, client } = stage([{ id: "a", title: "A" }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    const handle = client.write({ type: "set", table: "tasks", id: "a", key: "title", value: "B" });
    await tasks.utils.awaitTxId(handle.txId);
    expect(tasks.get("a")?.title).toBe("B");
    await tasks.utils.awaitTxId(handle.txId);
    await server.settle();
  });

  it("fails where the server refuses to read, and lets go when it is cleaned up", async () => {
    const { server, client } = stage();
    server.fail("query", { status: 403, code: "forbidden" });
    const tasks = tasksOf(client);
    await expect(tasks.preload()).rejects.toMatchObject({ code: "forbidden" });
    await tasks.cleanup();
    await server.settle();
    expect(client.debug.getSnapshot().queries.every(({ loading }) => !loading)).toBe(true);
  });

  it("reads again where keys are stale", async () => {
    const { server, client } = stage([{ id: "a", title: "A" }]);
    const tasks = tasksOf(client);
    await tasks.preload();
    server.stale();
    server.put("tasks", { id: "b", title: "B" });
    await server.settle();
    expect(titles(tasks)).toEqual(["A", "B"]);
    server.startEpoch();
    await server.settle();
    expect(titles(tasks)).toEqual(["A", "B"]);
  });
});

describe("a query of TanStack Query", () => {
  const many = Array.from({ length: 5 }, (_, n) => ({ id: `t${n}`, title: `T${n}`, position: n }));

  it("reads once and subscribes to nothing", async () => {
    const { server, client } = stage(many);
    await server.settle();
    const cache = new QueryClient();
    const options = rowcastQueryOptions(
      client,
      "tasks",
      { position: { gte: 1 } },
      { orderBy: [{ key: "position", dir: "desc" }], limit: 3 },
    );
    const rows = await cache.fetchQuery(options);
    expect(rows.map(({ title }) => title)).toEqual(["T4", "T3", "T2"]);
    expect(cache.getQueryData(options.queryKey)).toBe(rows);
    expect(options.queryKey.slice(0, 3)).toEqual(["rowcast", "ann", "tasks"]);
    expect(client.debug.getSnapshot().keys).toEqual([]);
  });

  it("reads all pages of a long list", async () => {
    const { server, client } = stage(
      Array.from({ length: 2300 }, (_, n) => ({ id: `t${n}`, title: `T${n}` })),
    );
    const rows = await new QueryClient().fetchQuery(rowcastQueryOptions(client, "tasks"));
    expect(new Set(rows.map(({ id }) => id)).size).toBe(2300);
    expect(server.requests).toHaveLength(3);
  });

  it("reads page by page", async () => {
    const { client } = stage(many);
    const cache = new QueryClient();
    const observer = new InfiniteQueryObserver(cache, {
      ...rowcastInfiniteQueryOptions(
        client,
        "tasks",
        {},
        { orderBy: [{ key: "position" }], limit: 2 },
      ),
    });
    const titles = () =>
      observer.getCurrentResult().data?.pages.map(({ rows }) => rows.map((row) => row.title));
    const end = observer.subscribe(() => {});
    await observer.refetch();
    expect(titles()).toEqual([["T0", "T1"]]);
    await observer.fetchNextPage();
    await observer.fetchNextPage();
    expect(titles()).toEqual([["T0", "T1"], ["T2", "T3"], ["T4"]]);
    expect(observer.getCurrentResult().hasNextPage).toBe(false);
    end();
  });

  it("tries again what may succeed, and only that", async () => {
    const { server, client } = stage(many);
    const options = { ...rowcastQueryOptions(client, "tasks"), retryDelay: 0 };
    server.fail("query", { status: 503 }, 2);
    await new QueryClient().fetchQuery(options);
    expect(server.requests).toHaveLength(3);
    server.fail("query", { status: 403, code: "forbidden" }, 2);
    await expect(new QueryClient().fetchQuery(options)).rejects.toMatchObject({ status: 403 });
    expect(server.requests).toHaveLength(4);
  });
});
