import { type Client, type ClientOptions, createClient, type Query } from "../src/client.js";
import type { Core } from "../src/core.js";
import "../src/engine.js";
import type { RecordData } from "../src/json.js";
import type { Readable } from "../src/readable.js";
import type { Storage } from "../src/storage.js";
import { memoryStorage } from "../src/storage-memory.js";
import { ScriptedServer } from "./scripted-server.js";
import { Browser, Page, World } from "./world.js";

/** A world with one server and the browsers of its users. */
export class Stage {
  readonly world: World;
  readonly server: ScriptedServer;
  readonly clients: Client[] = [];
  readonly browser: Browser;
  readonly storage: Storage = memoryStorage({ durable: true });

  constructor(seed = 1) {
    this.world = new World(seed);
    this.server = new ScriptedServer(this.world);
    this.browser = new Browser(this.world);
  }

  /** A client in a tab of its own, all of one browser unless told otherwise. */
  open(options: Partial<ClientOptions> & { user?: string; page?: Page } = {}): Client {
    const { user = "ann", page = new Page(this.world), ...rest } = options;
    const client = createClient({
      url: "http://test",
      schema: this.server.tables,
      auth: { token: () => `t-${user}` },
      storage: this.storage,
      transport: this.server.transport(),
      tabs: this.browser.tabs,
      runtime: page,
      ...rest,
    });
    this.clients.push(client);
    return client;
  }

  /** A page that ends as pages do: nothing is told, nothing more is done. */
  crash(client: Client): void {
    const { core } = client as unknown as { core: Core };
    if (core.engine) core.engine.end();
    else core.closed = true;
  }

  advance(milliseconds = 1000): Promise<void> {
    return this.world.advance(milliseconds);
  }

  until(holds: () => boolean, most?: number): Promise<void> {
    return this.world.until(holds, most);
  }
}

/** Everything a readable showed, each snapshot once, and how often its listener was called. */
export function watch<T>(readable: Readable<T>): { shown: T[]; calls: number; end: () => void } {
  const log = { shown: [readable.getSnapshot()], calls: 0, end: () => {} };
  log.end = readable.subscribe(() => {
    log.calls++;
    const now = readable.getSnapshot();
    if (now !== log.shown.at(-1)) log.shown.push(now);
  });
  return log;
}

/** Keeps a query in use; gives its rows as one value of each. */
export function rows(
  query: Query<RecordData>,
  key = "title",
): { now(): unknown[]; end: () => void } {
  const end = query.subscribe(() => {});
  return { now: () => query.getSnapshot().data.map((row) => row[key]), end };
}

/** A change of one key of a task. */
export function set(id: string, key: string, value: unknown) {
  return { type: "set" as const, table: "tasks", id, key, value };
}

/** A new task. */
export function create(id: string, value: object = {}) {
  return { type: "create" as const, table: "tasks", id, value: value as { title: string } };
}

/** Adds to the counter of a task. */
export function add(id: string, by = 1) {
  return { type: "increment" as const, table: "tasks", id, key: "count", by };
}

/** The board most tasks are on. */
export const board = { boardId: "b1" };

/** Tasks of one board at positions 0, 10, 20 ... */
export function fill(stage: Stage, count: number, boardId = "b1"): void {
  for (let at = 0; at < count; at++) {
    stage.server.put("tasks", `t${String(at).padStart(4, "0")}`, {
      title: `T${at}`,
      boardId,
      position: at * 10,
      status: "todo",
      count: 0,
    });
  }
}

/** Whether a query is live. */
export const live = (client: Client, ...query: Parameters<Client["query"]>) =>
  client.query(...query).getSnapshot().status === "live";

/** The bodies of all queries asked so far. */
export const queries = (stage: Stage) =>
  stage.server.requests("query") as { [key: string]: never }[];

/** All subscriptions sent so far. */
export const subscriptions = (stage: Stage) =>
  stage.server.frames.flatMap(({ frame }) => (frame.type === "subscribe" ? [frame] : []));
