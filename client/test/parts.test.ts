import { beforeAll, expect, it, vi } from "vitest";
import { createClient } from "../src/client.js";
import { memoryStorage } from "../src/storage-memory.js";
import { oneTab } from "../src/tabs.js";
import { ScriptedServer } from "./scripted-server.js";
import { Page, settle, World } from "./world.js";

const gate = vi.hoisted(() => ({
  fail: true,
  open: () => {},
  opened: Promise.resolve(),
}));

vi.mock("../src/errors.js", async (original) => {
  const errors = await original<typeof import("../src/errors.js")>();
  return {
    ...errors,
    // As where the files of the app cannot be had, or take their time.
    loadPart: async (load: () => Promise<unknown>) => {
      await gate.opened;
      return errors.loadPart(gate.fail ? () => Promise.reject(new TypeError("404")) : load);
    },
  };
});

// The clock of these tests does not wait for files.
beforeAll(() => Promise.all([import("../src/engine.js"), import("../src/undo.js")]));

function begin(storage = memoryStorage({ durable: true })) {
  const world = new World();
  const server = new ScriptedServer(world);
  server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
  const page = new Page(world);
  const client = createClient({
    url: "http://test",
    schema: server.tables,
    auth: { token: () => "t-ann" },
    storage,
    transport: server.transport(),
    tabs: oneTab(),
    runtime: page,
  });
  const create = (id: string) =>
    client.write({ type: "create", table: "tasks", id, value: { title: id, boardId: "b1" } });
  return { world, server, client, create, page };
}

it("works from memory while the engine is on its way, then stores and sends", async () => {
  gate.fail = false;
  gate.opened = new Promise((resolve) => {
    gate.open = resolve;
  });
  const { world, server, client, create } = begin();
  const query = client.query("tasks", { boardId: "b1" });
  query.subscribe(() => {});
  const peers = client.presence("tasks:a");
  const end = peers.subscribe(() => {});
  client.presence("tasks:b").subscribe(() => {})();
  client.setPresence("tasks:a", { x: 1 });
  client.onBroadcast("tasks:a", () => {});
  expect(query.getSnapshot()).toEqual({ data: [], status: "loading", hasMore: false });
  const write = create("n");
  await settle();
  expect(query.getSnapshot().data).toMatchObject([{ id: "n" }]);
  expect(client.status.getSnapshot()).toMatchObject({ state: "offline", pending: 1 });
  expect(client.history.getSnapshot().canUndo).toBe(true);
  expect(client.broadcast("tasks:a", "hello")).toBe(false);
  expect(peers.getSnapshot()).toEqual([]);
  expect(client.debug.getSnapshot()).toMatchObject({ socket: "idle", queries: [] });
  gate.open();
  await world.until(() => client.status.getSnapshot().state === "online");
  expect(await write.confirmed).toMatchObject({ txId: write.txId });
  await world.until(() => query.getSnapshot().status === "live");
  expect(query.getSnapshot().data.map(({ id }) => id)).toEqual(["a", "n"]);
  expect(server.get("tasks", "n")).toMatchObject({ title: "n" });
  const said = server.frames.filter(({ frame }) => frame.type === "presence");
  expect(said.map(({ frame }) => frame)).toMatchObject([{ key: "tasks:a", state: { x: 1 } }]);
  const keys = client.debug.getSnapshot().keys.map(({ key }) => key);
  expect(keys).toContain("tasks:a");
  expect(keys).not.toContain("tasks:b");
  end();
  await client.undo();
  await world.until(() => server.get("tasks", "n")?.deletedAt !== null);
  await client.close();
});

it("asks before the page ends as long as it alone knows of a write", async () => {
  gate.fail = true;
  const { world, client, create, page } = begin();
  await settle();
  expect(page.held).toBe(false);
  const first = create("n");
  const second = create("m");
  expect([page.held, client.status.getSnapshot().durable]).toEqual([true, false]);
  gate.fail = false;
  await world.until(() => client.status.getSnapshot().durable);
  await Promise.all([first.saved, second.saved]);
  expect(page.held).toBe(false);
  // Later ones, too, for the moment in which they are stored.
  const third = create("o");
  expect(page.held).toBe(true);
  await third.saved;
  await settle();
  expect(page.held).toBe(false);
  create("p");
  await client.close();
  expect(page.held).toBe(false);
});

it("asks before the page ends where nothing is kept and something is not sent", async () => {
  gate.fail = false;
  const { world, server, client, create, page } = begin(memoryStorage());
  await world.until(() => client.status.getSnapshot().state === "online");
  expect(page.held).toBe(false);
  server.next("write", () => "cut");
  const write = create("n");
  await write.saved;
  expect(page.held).toBe(true);
  await world.until(() => client.status.getSnapshot().pending === 0);
  expect(page.held).toBe(false);
  await client.close();
});

it("says so where a part cannot be loaded, and tries again", async () => {
  gate.fail = true;
  const { world, server, client, create } = begin();
  const write = create("n");
  await settle();
  expect(client.status.getSnapshot().lastError).toMatchObject({ code: "not_loaded" });
  await expect(client.undo()).rejects.toMatchObject({ code: "not_loaded" });
  await expect(client.query("tasks").refetch()).rejects.toMatchObject({ code: "not_loaded" });
  gate.fail = false;
  await world.until(() => client.status.getSnapshot().state === "online");
  await write.confirmed;
  expect(server.get("tasks", "n")).toMatchObject({ title: "n", deletedAt: null });
  expect(client.status.getSnapshot().lastError).toBeNull();
  // The undo that failed is not done after all.
  await client.undo();
  await client.undo();
  expect(client.history.getSnapshot()).toEqual({ canUndo: false, canRedo: true });
  await client.close();
});

it("ends without the engine, and what was not stored has failed", async () => {
  gate.fail = true;
  const { client, create } = begin();
  const write = create("n");
  await client.close();
  await expect(write.saved).rejects.toMatchObject({ code: "closed" });
  await expect(write.confirmed).rejects.toMatchObject({ code: "closed" });
  expect(() => create("m")).toThrow(/closed/);
  gate.fail = false;
});
