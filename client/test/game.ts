import fc from "fast-check";
import { expect } from "vitest";
import type { Client, Query } from "../src/client.js";
import { compileOrder, compileWhere } from "../src/filters.js";
import type { RecordData } from "../src/json.js";
import type { Storage } from "../src/storage.js";
import { memoryStorage } from "../src/storage-memory.js";
import { add, create, Stage, set } from "./harness.js";
import { schema } from "./scripted-server.js";
import { Browser, Page, slowStorage } from "./world.js";

const boards = ["b1", "b2"];
const tasks = ["t1", "t2", "t3"];
const queries = [
  { where: { boardId: "b1" } },
  { where: { boardId: "b2" }, orderBy: [{ key: "title" }] },
  { where: { boardId: { in: ["b1", "b2"] }, status: "todo" } },
  { where: { assignee: "ann" } },
  { where: { boardId: "b1" }, orderBy: [{ key: "position" }], limit: 2 },
  { where: {}, orderBy: [{ key: "count", dir: "desc" as const }], limit: 3 },
  { where: { id: { in: ["t1", "t2"] } } },
  { where: {} },
];

/** What happens, in which tab, and three numbers to choose by. */
export type Command = { kind: string; tab: number; a: number; b: number; c: number };

/** One thing that happens. */
export const command: fc.Arbitrary<Command> = fc.record({
  kind: fc.oneof(
    {
      weight: 12,
      arbitrary: fc.constantFrom("set", "add", "create", "tag", "move", "both", "delete"),
    },
    { weight: 4, arbitrary: fc.constantFrom("use", "leave", "watch") },
    { weight: 3, arbitrary: fc.constantFrom("sql", "sqlMove", "sqlRemove") },
    { weight: 4, arbitrary: fc.constantFrom("lost", "cut", "busy", "slow", "garbage") },
    { weight: 4, arbitrary: fc.constantFrom("drop", "down", "up", "wake") },
    { weight: 2, arbitrary: fc.constantFrom("reload", "freeze", "thaw") },
    {
      weight: 2,
      arbitrary: fc.constantFrom("revoke", "grant", "stale", "epoch", "prune", "shape"),
    },
    { weight: 8, arbitrary: fc.constant("wait") },
  ),
  tab: fc.nat(2),
  a: fc.nat(1000),
  b: fc.nat(1000),
  c: fc.nat(1000),
});

interface Tab {
  user: string;
  client: Client;
  page: Page;
  storage: Storage & { kill(): void };
  uses: Map<number, { query: Query<RecordData>; end: () => void }>;
  watches: Map<string, () => void>;
}

/** Three tabs of two users, one server, and all that can go wrong between them. */
export class Game {
  readonly stage: Stage;
  readonly tabs: Tab[];
  readonly hidden = new Set<string>();
  /** Ids of writes stored on a device, in the order each tab made them. */
  readonly saved: { tab: number; txId: () => string }[] = [];
  private readonly disks = new Map<string, Storage>();
  private readonly browsers = new Map<string, Browser>();
  private unique = 0;

  constructor(seed: number) {
    this.stage = new Stage(seed);
    const { server, world } = this.stage;
    server.delay = () => 1 + Math.floor(world.random() * (world.random() < 0.1 ? 1500 : 60));
    // Versions fall when a record is made anew, but no two contents of an id have the same one: that a copy nobody kept
    // up to date is another record of the same version, nothing on the wire could tell.
    server.firstVersion = (before) => 10_000 - 100 * before;
    server.userOf = (token) => (token.startsWith("t-") ? token.slice(2) : "bob");
    server.mayRead = (user, table, record) =>
      table !== "tasks" || user === "ann" || !this.hidden.has(String(record.boardId));
    for (const [at, id] of tasks.entries()) {
      server.put("tasks", id, {
        title: id,
        boardId: boards[at % 2] as string,
        status: "todo",
        count: 0,
        position: at,
        tags: [],
      });
    }
    this.tabs = ["ann", "ann", "bob"].map((user) => this.open(user));
  }

  private open(user: string): Tab {
    const { world } = this.stage;
    const disk = this.disks.get(user) ?? memoryStorage({ durable: true });
    this.disks.set(user, disk);
    const browser =
      this.browsers.get(user) ?? new Browser(world, () => 1 + Math.floor(world.random() * 40));
    this.browsers.set(user, browser);
    const page = new Page(world);
    const storage = slowStorage(world, disk, () => Math.floor(world.random() * 20));
    // One user's token says whose it is, so that he need not wait for the welcome.
    const token = user === "bob" ? `.${btoa('{"sub":"bob"}')}.` : `t-${user}`;
    const auth = { token: () => token };
    const client = this.stage.open({ page, storage, auth, tabs: browser.tabs });
    return { user, client, page, storage, uses: new Map(), watches: new Map() };
  }

  async play({ kind, tab: at, a, b, c }: Command): Promise<void> {
    const { server, world } = this.stage;
    const tab = this.tabs[at] as Tab;
    const known = [...new Set([...tasks, ...server.all("tasks").map(({ id }) => String(id))])];
    const id = known[a % known.length] as string;
    const board = boards[b % boards.length] as string;
    const value = `v${++this.unique}`;
    const write = (...operations: Parameters<Client["write"]>[0][]) => {
      const handle = tab.client.write(operations.flat() as never);
      handle.saved.then(
        () => this.saved.push({ tab: at, txId: () => handle.txId }),
        () => {},
      );
    };
    switch (kind) {
      case "set":
        return write(set(id, c % 2 ? "title" : "assignee", c % 3 ? value : "ann"));
      case "add":
        return write(add(id));
      case "create":
        return write(
          create(`n${value}`, { title: value, boardId: board, count: 0, position: c % 5 }),
        );
      case "tag":
        return write({ type: "listInsert", table: "tasks", id, key: "tags", value });
      case "move":
        return write(set(id, c % 2 ? "boardId" : "position", c % 2 ? board : c % 5));
      case "both":
        return write(set(id, "status", c % 2 ? "done" : "todo"), add(tasks[b % 3] as string));
      case "delete":
        return write({ type: c % 2 ? "delete" : "restore", table: "tasks", id });
      case "use": {
        const number = a % queries.length;
        if (tab.uses.has(number)) break;
        const { where, ...options } = queries[number] as (typeof queries)[number];
        const query = tab.client.query<RecordData>("tasks", where, options);
        tab.uses.set(number, { query, end: query.subscribe(() => {}) });
        break;
      }
      case "leave": {
        const [number] = [...tab.uses.keys()];
        if (number === undefined) break;
        tab.uses.get(number)?.end();
        tab.uses.delete(number);
        break;
      }
      case "watch":
        if (!tab.watches.has(id)) {
          tab.watches.set(
            id,
            tab.client.record("tasks", id).subscribe(() => {}),
          );
        }
        break;
      case "sql":
        server.put("tasks", id, {
          title: value,
          boardId: server.get("tasks", id)?.boardId ?? board,
        });
        break;
      case "sqlMove":
        server.put("tasks", id, { boardId: board });
        break;
      case "sqlRemove":
        if (server.get("tasks", id)) server.remove("tasks", id);
        break;
      case "lost":
        this.fault(a, () => "cut");
        break;
      case "cut":
        this.fault(a, (call) => {
          call.commit();
          return "cut";
        });
        break;
      case "busy":
        this.fault(a, () => ({
          status: b % 2 ? 503 : 429,
          header: (name) => (c % 2 && name === "retry-after" ? "2" : null),
          body: "",
        }));
        break;
      case "garbage":
        this.fault(a, (call) => ({ ...call.commit(), body: "<html>" }));
        break;
      case "slow":
        this.fault(a, async (call) => {
          const answer = call.commit();
          await new Promise<void>((resolve) => world.later(resolve, b * 5));
          return answer;
        });
        break;
      case "drop":
        server.close(c % 2 ? 1006 : 1001, c % 3 ? "" : "stopping; retry-after=1.5");
        break;
      case "down":
        server.down = true;
        server.close();
        break;
      case "up":
        server.down = false;
        break;
      case "wake":
        tab.page.wake();
        break;
      case "reload":
        this.reload(at);
        break;
      case "freeze":
        tab.page.isVisible = false;
        tab.page.freeze();
        break;
      case "thaw":
        tab.page.isVisible = true;
        tab.page.thaw();
        tab.page.wake();
        break;
      case "revoke":
      case "grant":
        this.access(board, kind === "grant");
        break;
      case "stale":
        server.stale([`tasks?boardId=${board}`, "tasks"], "bulk");
        break;
      case "epoch":
        server.epoch = `e${value}`;
        server.close();
        // Restored elsewhere: versions begin anew.
        for (const record of server.all("tasks")) {
          server.records.get("tasks")?.set(String(record.id), { ...record, version: (b % 3) + 1 });
        }
        break;
      case "prune":
        server.pruned = server.feed.length;
        break;
      case "shape":
        server.shape = (["patch", "record", "bare"] as const)[a % 3] ?? "patch";
        break;
      case "wait":
        // Mostly so short that much happens at once, at times longer than anything is kept.
        await world.advance(b % 8 ? a % 80 : a % 2 ? 6000 : a);
    }
  }

  private fault(a: number, step: Parameters<Stage["server"]["next"]>[1]): void {
    this.stage.server.next(["write", "query", "getRecords", "write"][a % 4] as string, step);
  }

  /** As the relay does it: who loses records is told they are gone, keys go stale. */
  private access(board: string, granted: boolean): void {
    const { server } = this.stage;
    if (this.hidden.has(board) !== granted) return;
    const records = server.all("tasks").filter((record) => record.boardId === board);
    if (granted) this.hidden.delete(board);
    else this.hidden.add(board);
    for (const peer of server.peers) {
      if (peer.user !== "bob") continue;
      const keys = [...peer.keys];
      if (!granted) {
        const updates = records.map(({ id }) => ({ key: `tasks:${id}`, gone: true as const }));
        if (updates.length)
          server.tellPeer(peer, { type: "updates", cursor: server.cursor, updates });
      }
      if (keys.length) server.tellPeer(peer, { type: "stale", keys, reason: "access" });
    }
    // Whoever resumes from before has to read again.
    server.pruned = server.feed.length + 1;
    server.feed.push({ table: "none", id: "", before: null, after: null, txId: undefined });
  }

  private reload(at: number): void {
    this.end(at);
    this.begin(at);
  }

  /** A page ends without a word. */
  end(at: number): void {
    const tab = this.tabs[at] as Tab;
    tab.storage.kill();
    this.stage.crash(tab.client);
  }

  /** It is opened again and shows the same. */
  begin(at: number): void {
    const tab = this.tabs[at] as Tab;
    const fresh = this.open(tab.user);
    for (const number of tab.uses.keys()) {
      const { where, ...options } = queries[number] as (typeof queries)[number];
      const query = fresh.client.query<RecordData>("tasks", where, options);
      fresh.uses.set(number, { query, end: query.subscribe(() => {}) });
    }
    for (const id of tab.watches.keys()) {
      fresh.watches.set(
        id,
        fresh.client.record("tasks", id).subscribe(() => {}),
      );
    }
    this.tabs[at] = fresh;
  }

  /** All faults end; everybody has time to find together. */
  async heal(): Promise<void> {
    const { server, world } = this.stage;
    server.down = false;
    for (const name of Object.keys(server.script)) server.script[name] = [];
    for (const { page } of this.tabs) {
      page.isVisible = true;
      page.thaw();
      page.wake();
    }
    await world.advance(120_000);
    await world.until(
      () =>
        this.tabs.every(
          ({ client, uses }) =>
            client.status.getSnapshot().pending === 0 &&
            [...uses.values()].every(({ query }) => query.getSnapshot().status === "live"),
        ),
      300_000,
    );
    await world.advance(10_000);
  }

  check(): void {
    const { server } = this.stage;
    for (const { user, client, uses, watches } of this.tabs) {
      const readable = server
        .all("tasks")
        .filter((record) => server.mayRead(user, "tasks", record));
      for (const [number, { query }] of uses) {
        const { where, orderBy, limit } = queries[number] as {
          where: object;
          orderBy?: [];
          limit?: number;
        };
        const table = schema.tables.tasks as never;
        const wanted = readable
          .filter(compileWhere(table, where as never))
          .sort(compileOrder(table, orderBy))
          .slice(0, limit);
        expect(query.getSnapshot().data, `${user} query ${number}`).toEqual(wanted);
      }
      for (const id of watches.keys()) {
        const wanted = readable.find((record) => record.id === id) ?? null;
        const shown = client.record("tasks", id).getSnapshot();
        expect(shown, `${user} record ${id}`).toEqual(wanted);
      }
    }
    expect(new Set(server.applied).size).toBe(server.applied.length);
    const inboxes = new Set(
      this.tabs.flatMap(({ client }) => client.rejected.getSnapshot().map(({ txId }) => txId)),
    );
    const places = new Map(server.applied.map((txId, at) => [txId, at]));
    const last = [-1, -1, -1];
    for (const { tab, txId } of this.saved) {
      const at = places.get(txId());
      expect((at !== undefined) !== inboxes.has(txId()), `${txId()} is applied or refused`).toBe(
        true,
      );
      if (at === undefined) continue;
      expect(at, "in the order it was written").toBeGreaterThan(last[tab] as number);
      last[tab] = at;
    }
  }
}
