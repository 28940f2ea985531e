import { afterEach, describe, expect, it } from "vitest";
import type { Client } from "../src/client.js";
import { memoryStorage } from "../src/storage-memory.js";
import { createTestServer, type TestServer, type TestServerOptions } from "../src/testing/index.js";
import { schema } from "./react/schema.js";

const servers: TestServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

function serve(options: Partial<TestServerOptions> = {}): TestServer {
  const server = createTestServer({ schema, ...options });
  servers.push(server);
  return server;
}

/** Keeps a query of tasks in use; gives its titles. */
function tasks(client: Client, where: object = {}): () => unknown[] {
  const query = client.query("tasks", where, { orderBy: [{ key: "title" }] });
  query.subscribe(() => {});
  return () => query.getSnapshot().data.map(({ title }) => title);
}

const set = (id: string, key: string, value: unknown) => ({
  type: "set" as const,
  table: "tasks",
  id,
  key,
  value,
});

/** Boards belong to their owner and members; tasks to their board. */
const rules: Partial<TestServerOptions> = {
  visible: ({ user, table, record, get }) => {
    const board = table === "boards" ? record : get("boards", record.boardId);
    return board?.owner === user || board?.members?.includes(user) === true;
  },
  writable: ({ user, table, before }) => table === "tasks" || !before || before.owner === user,
  records: {
    boards: [{ id: "b1", name: "Ann's", owner: "ann", members: [] }],
    tasks: [{ id: "a", title: "A", boardId: "b1" }],
  } as never,
};

describe("a test server", () => {
  it("brings several users together", async () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    const [ann, bob] = [server.client("ann"), server.client("bob")];
    const seen = tasks(bob);
    await server.settle();
    ann.write(set("a", "title", "by ann"));
    await server.settle();
    expect(seen()).toEqual(["by ann"]);
    expect(server.get("tasks", "a")).toMatchObject({ title: "by ann", version: 2 });
  });

  it("gives records their defaults", () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    expect(server.all("tasks")).toMatchObject([
      { id: "a", version: 1, title: "A", done: false, boardId: null, deletedAt: null },
    ]);
  });

  it("shows and lets change only what the rules allow", async () => {
    const server = serve(rules);
    const [ann, bob] = [server.client("ann"), server.client("bob")];
    const [hers, his] = [tasks(ann), tasks(bob)];
    await server.settle();
    expect([hers(), his()]).toEqual([["A"], []]);
    // Hidden and absent are one answer, for a create over it, too.
    for (const write of [
      set("a", "title", "x"),
      set("none", "title", "x"),
      { type: "create" as const, table: "tasks", id: "a", value: {} },
      { type: "create" as const, table: "tasks", id: "n", value: { boardId: "b1" } },
    ]) {
      const { confirmed } = bob.write(write);
      await expect(confirmed).rejects.toMatchObject({ code: "forbidden" });
    }
    expect(server.get("tasks", "a")?.version).toBe(1);
  });

  it("shows what is shared, and takes away what is not any more", async () => {
    const server = serve(rules);
    const [ann, bob] = [server.client("ann"), server.client("bob")];
    const his = tasks(bob, { boardId: "b1" });
    const one = bob.record("tasks", "a");
    one.subscribe(() => {});
    await server.settle();
    expect([his(), one.getSnapshot()]).toEqual([[], null]);
    await ann.write({
      type: "listInsert",
      table: "boards",
      id: "b1",
      key: "members",
      value: "bob",
    }).confirmed;
    await server.settle();
    expect(his()).toEqual(["A"]);
    expect(one.getSnapshot()).toMatchObject({ title: "A" });
    // A member may not change members.
    const more = bob.write({
      type: "listInsert",
      table: "boards",
      id: "b1",
      key: "members",
      value: "eve",
    });
    await expect(more.confirmed).rejects.toMatchObject({ code: "forbidden" });
    server.put("boards", { id: "b1", members: [] });
    await server.settle();
    expect([his(), one.getSnapshot()]).toEqual([[], null]);
  });

  it("looks again where a rule depends on something else", async () => {
    let open = false;
    const server = serve({
      visible: () => open,
      records: { tasks: [{ id: "a", title: "A" }] } as never,
    });
    const seen = tasks(server.client("ann"));
    await server.settle();
    expect(seen()).toEqual([]);
    open = true;
    server.recheck();
    await server.settle();
    expect(seen()).toEqual(["A"]);
  });

  it("tells who was away of what he has missed, also of what he has lost", async () => {
    const server = serve({
      ...rules,
      records: {
        boards: [{ id: "b1", owner: "ann", members: ["bob"] }],
        tasks: [
          { id: "a", title: "A", boardId: "b1" },
          { id: "b", title: "B", boardId: "b1" },
        ],
      } as never,
    });
    const seen = tasks(server.client("bob"));
    await server.settle();
    server.setOnline(false);
    await server.settle();
    server.put("tasks", { id: "a", title: "A2" });
    await server.settle();
    expect(seen()).toEqual(["A", "B"]);
    server.setOnline(true);
    await server.settle();
    expect(seen()).toEqual(["A2", "B"]);
    server.setOnline(false);
    server.put("boards", { id: "b1", members: [] });
    server.setOnline(true);
    await server.settle();
    expect(seen()).toEqual([]);
  });

  it("loses requests and answers; what was written takes effect once", async () => {
    const server = serve({ records: { tasks: [{ id: "a", position: 0 }] } as never });
    const client = server.client("ann");
    await server.settle();
    for (const fault of ["drop", "lose-reply", "garbage", { status: 503 }] as const) {
      server.fail("write", fault);
      const { confirmed } = client.write({
        type: "increment",
        table: "tasks",
        id: "a",
        key: "position",
        by: 1,
      });
      await confirmed;
    }
    expect(server.get("tasks", "a")).toMatchObject({ position: 4, version: 5 });
  });

  it("refuses, and keeps to its word", async () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    const client = server.client("ann");
    await server.settle();
    server.refuse({ status: 400, code: "check_failed", detail: "Not today" });
    const first = client.write(set("a", "title", "B"));
    const second = client.write(set("a", "title", "C"));
    await expect(first.confirmed).rejects.toMatchObject({ code: "check_failed" });
    await second.confirmed;
    expect(server.get("tasks", "a")?.title).toBe("C");
    expect(client.rejected.getSnapshot()).toHaveLength(1);
  });

  it("tells of conflicts, with the record as it is", async () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    const client = server.client("ann");
    await server.settle();
    server.put("tasks", { id: "a", title: "B" });
    const write = client.write(set("a", "title", "C"), {
      expect: [{ table: "tasks", id: "a", version: 1 }],
    });
    await expect(write.confirmed).rejects.toMatchObject({
      code: "conflict",
      problem: {
        conflicts: [{ id: "a", version: 2 }],
        recordMap: { tasks: { a: { title: "B" } } },
      },
    });
  });

  it("runs functions inside the transaction that calls them", async () => {
    const server = serve({
      ...rules,
      functions: {
        finish(args, { user, all, put }) {
          for (const task of all("tasks")) {
            if (task.boardId === args.board) put("tasks", { id: task.id, done: true });
          }
          return `by ${user}`;
        },
      },
    });
    const client = server.client("ann");
    const query = client.query("tasks", { done: true });
    query.subscribe(() => {});
    await server.settle();
    const receipt = await client.call("finish", { board: "b1" }).confirmed;
    expect(receipt.values).toEqual(["by ann"]);
    await server.settle();
    expect(query.getSnapshot().data).toMatchObject([{ id: "a", done: true }]);
  });

  it("tells of a mistake in what the test gave", async () => {
    const server = serve();
    const client = server.client("ann");
    await server.settle();
    client.call("finish", { board: "b1" });
    await expect(server.settle()).rejects.toThrow(/functions with a finish/);
  });

  it("undoes all of a transaction that is refused", async () => {
    const server = serve(rules);
    const client = server.client("ann");
    await server.settle();
    const write = client.write([
      set("a", "title", "x"),
      { type: "create", table: "tasks", id: "n", value: { boardId: "none" } },
    ]);
    await expect(write.confirmed).rejects.toMatchObject({ code: "forbidden" });
    expect(server.get("tasks", "a")).toMatchObject({ title: "A", version: 1 });
    expect(server.get("tasks", "n")).toBeNull();
  });

  it("ends and begins sessions", async () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    const client = server.client("ann");
    await server.settle();
    server.signOut("ann");
    await server.settle();
    client.write(set("a", "title", "B"));
    await expect
      .poll(async () => {
        await server.settle();
        return client.status.getSnapshot();
      })
      .toMatchObject({ needsAuth: true, pending: 1 });
    server.signIn("ann");
    client.resume();
    await server.settle();
    expect(client.status.getSnapshot()).toMatchObject({ needsAuth: false, pending: 0 });
    expect(server.get("tasks", "a")?.title).toBe("B");
  });

  it("keeps what a page leaves behind for the next one", async () => {
    const server = serve({ records: { tasks: [{ id: "a", title: "A" }] } as never });
    const storage = memoryStorage({ durable: true });
    const first = server.client("ann", { storage });
    const before = tasks(first);
    await server.settle();
    server.setOnline(false);
    await first.write(set("a", "title", "offline"));
    await first.close();
    const second = server.client("ann", { storage });
    const seen = tasks(second);
    await server.settle();
    expect(seen()).toEqual(["offline"]);
    server.setOnline(true);
    await server.settle();
    expect(server.get("tasks", "a")?.title).toBe("offline");
    expect(before()).toEqual([]);
  });

  it("takes its time where it is told to", async () => {
    const server = serve({ latency: 5, records: { tasks: [{ id: "a", title: "A" }] } as never });
    const client = server.client("ann");
    const seen = tasks(client);
    await server.settle();
    expect(seen()).toEqual(["A"]);
    const begin = performance.now();
    await client.write(set("a", "title", "B")).confirmed;
    expect(performance.now() - begin).toBeGreaterThan(8);
  });

  it("loads what hangs on a query, up and down", async () => {
    const server = serve(rules);
    const client = server.client("ann");
    client.query("boards", { id: "b1" }, { include: ["tasks"] }).subscribe(() => {});
    await server.settle();
    expect(client.record("tasks", "a").getSnapshot()).toMatchObject({ title: "A" });
    const other = server.client("ann");
    other.query("tasks", { id: "a" }, { include: ["boardId"] }).subscribe(() => {});
    await server.settle();
    expect(other.record("boards", "b1").getSnapshot()).toMatchObject({ name: "Ann's" });
  });

  it("passes broadcasts on to those who may hear them", async () => {
    const server = serve({
      ...rules,
      records: {
        boards: [{ id: "b1", owner: "ann", members: ["bob"] }],
      } as never,
    });
    const heard: unknown[] = [];
    const [ann, bob, eve] = ["ann", "bob", "eve"].map((user) => server.client(user)) as [
      Client,
      Client,
      Client,
    ];
    for (const client of [ann, bob, eve]) {
      client.onBroadcast("boards:b1", ({ event, payload, from }) => {
        heard.push([client === bob ? "bob" : "other", event, payload, from]);
      });
    }
    await server.settle();
    expect(ann.broadcast("boards:b1", "ping", { n: 1 })).toBe(true);
    await server.settle();
    expect(heard).toEqual([["bob", "ping", { n: 1 }, "ann"]]);
  });
});
