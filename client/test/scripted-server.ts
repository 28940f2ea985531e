import { compileOrder, compileWhere, coveringKeys, keysOf, recordKey } from "../src/filters.js";
import { derivedIds, timeOfId, wireTime } from "../src/ids.js";
import { equalJson, type Json, type RecordData } from "../src/json.js";
import { applyToRecord, type RecordOperation } from "../src/operations.js";
import type { Schema } from "../src/schema.js";
import type { Connection, Reply, SocketEvents, Transport } from "../src/transport.js";
import type {
  ClientFrame,
  Key,
  Problem,
  QueryBody,
  Result,
  ServerFrame,
  Transaction,
  Update,
} from "../src/wire.gen.js";
import type { World } from "./world.js";

/** Text columns `title`, `boardId` and so on of the tables used in tests. */
export const schema: Schema = {
  schema: 3,
  tables: {
    tasks: {
      idType: "text",
      softDelete: "deletedAt",
      touch: "updatedAt",
      hardDelete: false,
      wholeTable: true,
      keys: {
        id: { type: "text", nullable: false, required: false },
        version: { type: "integer", nullable: false, required: false },
        title: { type: "text", nullable: true, required: false },
        status: { type: "text", nullable: true, required: false, default: { constant: "todo" } },
        boardId: {
          type: "text",
          nullable: true,
          required: false,
          topic: true,
          references: "boards",
        },
        assignee: { type: "text", nullable: true, required: false, topic: true },
        position: { type: "integer", nullable: true, required: false },
        count: { type: "integer", nullable: true, required: false },
        tags: { type: "json", nullable: true, required: false },
        createdBy: {
          type: "text",
          nullable: true,
          required: false,
          serverOwned: true,
          default: { user: true },
        },
        deletedAt: { type: "timestamptz", nullable: true, required: false },
        updatedAt: { type: "timestamptz", nullable: true, required: false },
      },
    },
    boards: {
      idType: "text",
      softDelete: null,
      touch: null,
      hardDelete: true,
      wholeTable: true,
      keys: {
        id: { type: "text", nullable: false, required: false },
        version: { type: "integer", nullable: false, required: false },
        name: { type: "text", nullable: true, required: false },
      },
    },
  },
  functions: { archive: { board: { type: "text", required: true } } },
};

/** One request of HTTP as a script sees it. `commit` does what the request asks and gives the answer. */
export interface Call {
  path: string;
  body: Json;
  user: string | null | undefined;
  headers: { [name: string]: string };
  commit(): Reply;
}

/** What happens to the next request of a path: an answer, or none. */
export type Step = (call: Call) => Reply | "cut" | Promise<Reply | "cut">;

/** One entry of the feed. */
export interface Change {
  table: string;
  id: string;
  before: RecordData | null;
  after: RecordData | null;
  txId: string | undefined;
}

/** A socket on the server's side. */
export interface Peer {
  user: string | null;
  keys: Set<Key>;
  events: SocketEvents;
  open: boolean;
  greeted: boolean;
  busyUntil: number;
}

/** An answer of HTTP. */
export function reply(
  status: number,
  body: unknown,
  headers: { [name: string]: string } = {},
): Reply {
  return {
    status,
    header: (name) => headers[name] ?? null,
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
}

/** A refusal. */
export function problem(status: number, code: string, more: object = {}): Problem {
  return { type: "about:blank", title: code, status, code, ...more };
}

/** A refused request. */
export const refused = (status: number, code: string, headers = {}) =>
  reply(status, problem(status, code), headers);

/**
 * A server in memory that speaks the protocol: records with versions, receipts, a feed with cursors, live sockets. What
 * goes wrong is scripted, request by request, or left to chance by the hooks.
 */
export class ScriptedServer {
  epoch = "e1";
  heartbeat = 20;
  /** Seconds a token lasts; 0: no end is named; less: nobody is welcomed. */
  expires = 0;
  /** No request and no socket gets through. */
  down = false;
  /** Milliseconds a message takes; one way. */
  delay = (): number => 5;
  /** Whether a user may see a record. */
  mayRead = (_user: string | null, _table: string, _record: RecordData): boolean => true;
  /** A refusal of a transaction, by rules of the test. */
  rule = (_tx: Transaction, _user: string | null): Problem | undefined => undefined;
  /** Who a token speaks of; undefined: nobody. */
  userOf = (token: string): string | undefined => token.replace(/^t-/, "") || undefined;
  /** Whom the cookie names. */
  cookieUser: string | null = null;
  /** What happens to coming requests, by the end of their path. */
  readonly script: { [path: string]: Step[] } = {};
  /** All requests that came. */
  readonly calls: { path: string; body: Json; user: string | null | undefined }[] = [];
  /** All frames of clients. */
  readonly frames: { user: string | null; frame: ClientFrame }[] = [];
  /** Ids of transactions in the order they took effect. */
  readonly applied: string[] = [];
  readonly feed: Change[] = [];
  readonly records: Map<string, Map<string, RecordData>>;
  readonly receipts = new Map<
    string,
    { author: string | null; operations: Json; result: Result }
  >();
  /** What an update says: whole records, patches, or nothing. */
  shape: "patch" | "record" | "bare" = "patch";
  /** Updates are made and not sent. */
  mute = false;
  /** What is joined again has to be read again: something may have happened there that was not told. */
  unsure = false;
  /** What stands for the claims. */
  rights = "r1";
  /** Changes before this are not kept: older cursors are stale. */
  pruned = 0;
  /** The version of a record when it is made, by how often one of this id was made before. */
  firstVersion = (_before: number): number => 1;
  private readonly births = new Map<string, number>();
  readonly peers = new Set<Peer>();
  closes: { code: number; reason: string }[] = [];

  constructor(
    private readonly world: World,
    readonly tables: Schema = schema,
  ) {
    this.records = new Map(Object.keys(tables.tables).map((name) => [name, new Map()]));
  }

  /** A transport for a token, "cookie", or nobody (null). */
  transport(): Transport {
    return {
      post: (path, body, headers, signal) => this.post(path, body, headers, signal),
      connect: (_path, events) => this.connect(events),
    };
  }

  // --- what a test does to the data ---

  /** Puts a record there as plain SQL would. */
  put(table: string, id: string, values: { [key: string]: Json }, txId?: string): RecordData {
    const before = this.get(table, id);
    const blank = Object.fromEntries(
      Object.keys(this.tables.tables[table]?.keys ?? {}).map((key) => [key, null]),
    );
    const version = this.versionAfter(table, id);
    const after: RecordData = { ...blank, ...before, ...values, id, version };
    this.change([{ table, id, before, after, txId }]);
    return after;
  }

  /** Removes a record for good. */
  remove(table: string, id: string): void {
    this.change([{ table, id, before: this.get(table, id), after: null, txId: undefined }]);
  }

  private versionAfter(table: string, id: string): number {
    const before = this.get(table, id);
    if (before) return Number(before.version) + 1;
    const births = this.births.get(`${table}:${id}`) ?? 0;
    this.births.set(`${table}:${id}`, births + 1);
    return this.firstVersion(births);
  }

  get(table: string, id: string): RecordData | null {
    return this.records.get(table)?.get(id) ?? null;
  }

  all(table: string): RecordData[] {
    return [...(this.records.get(table)?.values() ?? [])];
  }

  /** Says that keys have to be read again, to all who hold them. */
  stale(keys: Key[], reason: "access" | "behind" | "schema" | "bulk" = "access"): void {
    for (const peer of this.peers) {
      const mine = keys.filter((key) => peer.keys.has(key));
      if (mine.length) this.say(peer, { type: "stale", keys: mine, reason });
    }
  }

  /** Sends a frame to one socket. */
  tellPeer(peer: Peer, frame: ServerFrame): void {
    this.say(peer, frame);
  }

  /** Sends a frame to everybody. */
  tell(frame: ServerFrame): void {
    for (const peer of this.peers) if (peer.greeted) this.say(peer, frame);
  }

  /** Ends all sockets. */
  close(code = 1006, reason = ""): void {
    for (const peer of [...this.peers]) this.hangUp(peer, code, reason);
  }

  /** The next requests of this path take these steps. */
  next(path: string, ...steps: Step[]): void {
    this.script[path] = [...(this.script[path] ?? []), ...steps];
  }

  /** Requests of a path so far. */
  requests(path: string): Json[] {
    return this.calls.filter((call) => call.path.endsWith(path)).map((call) => call.body);
  }

  get cursor(): string {
    return `${this.epoch}/${this.feed.length}`;
  }

  // --- HTTP ---

  private post(
    path: string,
    text: string,
    headers: { [name: string]: string },
    signal: AbortSignal,
  ): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const fail = () => reject(new TypeError("network"));
      signal.addEventListener("abort", fail);
      this.world.later(async () => {
        if (this.down) return fail();
        const body = JSON.parse(text);
        const user = this.whoIs(headers);
        this.calls.push({ path, body, user });
        const commit = () =>
          user === undefined
            ? refused(401, "unauthorized")
            : this.answer(path, body as never, user);
        const name = path.slice(path.lastIndexOf("/") + 1);
        const step = this.script[name]?.shift();
        const answer = step ? await step({ path, body, user, headers, commit }) : commit();
        this.world.later(() => {
          if (answer === "cut" || this.down) fail();
          else resolve(answer);
        }, this.delay());
      }, this.delay());
    });
  }

  private whoIs(headers: { [name: string]: string }): string | null | undefined {
    const { authorization } = headers;
    return authorization ? this.userOf(authorization.replace("Bearer ", "")) : this.cookieUser;
  }

  private answer(path: string, body: never, user: string | null): Reply {
    if (path.endsWith("/write")) return this.write(body, user);
    if (path.endsWith("/query")) return this.query(body, user);
    return this.getRecords(body, user);
  }

  private write({ transactions }: { transactions: Transaction[] }, user: string | null): Reply {
    const results: Result[] = [];
    const recordMap: { [table: string]: { [id: string]: RecordData } } = {};
    const refusedCreates = new Map<string, string>();
    for (const tx of transactions) {
      const text = JSON.stringify(tx);
      const needed = [...refusedCreates.keys()].find((id) => text.includes(JSON.stringify(id)));
      const result =
        needed === undefined
          ? this.apply(tx, user)
          : this.refusal(tx, problem(424, "blocked", { blockedBy: refusedCreates.get(needed) }));
      results.push(result);
      if (result.status === "refused") {
        if (result.error?.code === "exists") continue;
        for (const op of tx.operations)
          if (op.type === "create") refusedCreates.set(op.id, tx.txId);
        continue;
      }
      for (const op of tx.operations) {
        if (op.type === "call") continue;
        const record = this.visible(user, op.table, op.id);
        if (!record) continue;
        recordMap[op.table] ??= {};
        (recordMap[op.table] as { [id: string]: RecordData })[op.id] = record;
      }
    }
    return reply(200, { results, recordMap });
  }

  private refusal(tx: Transaction, error: Problem): Result {
    return { txId: tx.txId, status: "refused", versions: [], error };
  }

  private apply(tx: Transaction, user: string | null): Result {
    const known = this.receipts.get(tx.txId);
    if (known) {
      if (known.author !== user || !equalJson(known.operations, tx.operations as never)) {
        return this.refusal(tx, problem(422, "tx_mismatch"));
      }
      const { result } = known;
      return result.status === "applied" ? { ...result, status: "duplicate" } : result;
    }
    const made = timeOfId(tx.txId);
    if (made !== null && made < this.world.now - 30 * 86_400_000) {
      return this.refusal(tx, problem(410, "too_old"));
    }
    if (tx.authorId !== undefined && tx.authorId !== user) {
      return this.refusal(tx, problem(403, "forbidden"));
    }
    const keep = (result: Result): Result => {
      this.receipts.set(tx.txId, { author: user, operations: tx.operations as never, result });
      return result;
    };
    const error = this.rule(tx, user);
    if (error) return keep(this.refusal(tx, error));
    for (const { table, id, version } of tx.expect ?? []) {
      const present = this.get(table, id);
      if (Number(present?.version ?? 0) === version) continue;
      const conflict = {
        conflicts: [{ table, id, version: present?.version ?? 0 }],
        recordMap: present ? { [table]: { [id]: present } } : {},
      };
      return keep(this.refusal(tx, problem(409, "conflict", conflict)));
    }
    const groups = new Map<string, RecordOperation[]>();
    for (const op of tx.operations) {
      if (op.type !== "call")
        groups.set(`${op.table}:${op.id}`, [...(groups.get(`${op.table}:${op.id}`) ?? []), op]);
    }
    const changes: Change[] = [];
    for (const ops of groups.values()) {
      const { table, id } = ops[0] as RecordOperation;
      const before = this.visible(user, table, id);
      const applied = applyToRecord(before, table, id, ops, {
        schema: this.tables,
        userId: user,
        now: wireTime(this.world.now),
        uuid: derivedIds(tx.txId),
      });
      if (applied.problem) {
        const { status, code } = applied.problem;
        return keep(this.refusal(tx, problem(status, code, { table, id })));
      }
      const { record } = applied;
      if (record === before) continue;
      const version = this.versionAfter(table, id);
      changes.push({
        table,
        id,
        before: this.get(table, id),
        after: record && { ...record, version },
        txId: tx.txId,
      });
    }
    this.applied.push(tx.txId);
    this.change(changes);
    const versions = [...groups.values()].map(([op]) => {
      const { table, id } = op as RecordOperation;
      return { table, id, version: Number(this.get(table, id)?.version ?? 0) };
    });
    const values = tx.operations.filter((op) => op.type === "call").map(() => null);
    return keep({ txId: tx.txId, status: "applied", versions, ...(values.length && { values }) });
  }

  private visible(user: string | null, table: string, id: string): RecordData | null {
    const record = this.get(table, id);
    return record && this.mayRead(user, table, record) ? record : null;
  }

  private query(body: QueryBody, user: string | null): Reply {
    const { table, where, orderBy, limit = 200, after, have = {}, include = [] } = body;
    const tableSchema = this.tables.tables[table];
    if (!tableSchema) return refused(400, "unknown_table");
    const match = compileWhere(tableSchema, where as never);
    const compare = compileOrder(tableSchema, orderBy);
    const last: RecordData | undefined = after === undefined ? undefined : JSON.parse(atob(after));
    const rows = this.all(table)
      .filter((record) => this.mayRead(user, table, record) && match(record))
      .filter((record) => !last || compare(record, last) > 0)
      .sort(compare);
    const page = rows.slice(0, limit);
    const end = page.at(-1);
    const ids = page.map(({ id }) => String(id));
    const recordMap: { [table: string]: { [id: string]: RecordData } } = { [table]: {} };
    const mine = recordMap[table] as { [id: string]: RecordData };
    for (const record of page) {
      if (have[String(record.id)] !== record.version) mine[String(record.id)] = record;
    }
    const gone: { table: string; id: string }[] = [];
    for (const [id, version] of Object.entries(have)) {
      if (ids.includes(id)) continue;
      const record = this.visible(user, table, id);
      if (!record) gone.push({ table, id });
      else if (record.version !== version) mine[id] = record;
    }
    const keys = coveringKeys(table, tableSchema, where as never);
    for (const name of include) {
      // Only parents along a key, as much as tests need.
      const parent = tableSchema.keys[name]?.references as string;
      recordMap[parent] ??= {};
      for (const id of new Set(page.map((record) => record[name]))) {
        if (typeof id !== "string") continue;
        const record = this.visible(user, parent, id);
        if (record) (recordMap[parent] as { [id: string]: RecordData })[id] = record;
        keys.push(recordKey(parent, id));
      }
    }
    const next = rows.length > limit && end ? btoa(JSON.stringify(end)) : null;
    return reply(200, { ids, recordMap, gone, keys, cursor: this.cursor, next });
  }

  private getRecords(
    { pointers }: { pointers: { table: string; id: string; version?: number }[] },
    user: string | null,
  ): Reply {
    const recordMap: { [table: string]: { [id: string]: RecordData } } = {};
    const gone: { table: string; id: string }[] = [];
    const unchanged: { table: string; id: string }[] = [];
    for (const { table, id, version } of pointers) {
      const record = this.visible(user, table, id);
      if (!record) gone.push({ table, id });
      else if (record.version === version) unchanged.push({ table, id });
      else {
        recordMap[table] ??= {};
        (recordMap[table] as { [id: string]: RecordData })[id] = record;
      }
    }
    return reply(200, { recordMap, gone, unchanged, cursor: this.cursor });
  }

  // --- the feed ---

  private change(changes: Change[]): void {
    for (const change of changes) {
      const records = this.records.get(change.table);
      if (change.after) records?.set(change.id, change.after);
      else records?.delete(change.id);
      this.feed.push(change);
    }
    if (this.mute || !changes.length) return;
    for (const peer of this.peers) this.deliver(peer, changes);
  }

  private deliver(peer: Peer, changes: readonly Change[]): void {
    const updates = changes.flatMap((change) => this.updateFor(peer, change, peer.keys));
    if (updates.length) this.say(peer, { type: "updates", cursor: this.cursor, updates });
  }

  private updateFor(peer: Peer, change: Change, keys: ReadonlySet<Key>, now = false): Update[] {
    const { table, id, before, after, txId } = change;
    const tableSchema = this.tables.tables[table];
    if (!tableSchema) return [];
    const touched = [before, after].flatMap((record) =>
      record ? keysOf(table, tableSchema, record) : [],
    );
    if (!touched.some((key) => keys.has(key))) return [];
    const key = recordKey(table, id);
    const saw = before && this.mayRead(peer.user, table, before);
    const sees =
      after &&
      this.mayRead(peer.user, table, after) &&
      (!now || this.visible(peer.user, table, id));
    if (!sees) return saw ? [{ key, gone: true }] : [];
    const common = { key, version: Number(after.version), ...(txId && { txId }) };
    if (this.shape === "bare") return [common];
    if (!saw || this.shape === "record") return [{ ...common, record: after }];
    const patch = Object.fromEntries(
      Object.entries(after).filter(
        ([name, value]) => name !== "version" && !equalJson(value, before[name]),
      ),
    );
    return [
      {
        ...common,
        patch,
        ...(Number(before.version) !== common.version - 1 && { from: Number(before.version) }),
      },
    ];
  }

  // --- sockets ---

  private connect(events: SocketEvents): Connection {
    const peer: Peer = {
      user: null,
      keys: new Set(),
      events,
      open: true,
      greeted: false,
      busyUntil: 0,
    };
    this.world.later(() => {
      if (!peer.open) return;
      if (this.down) return this.hangUp(peer, 1006, "");
      this.peers.add(peer);
      events.opened();
    }, this.delay());
    let last = 0;
    return {
      send: (text) => {
        last = Math.max(last, this.world.now + this.delay());
        this.world.later(() => {
          if (!peer.open || !this.peers.has(peer)) return;
          const frame = JSON.parse(text) as ClientFrame;
          this.frames.push({ user: peer.user, frame });
          this.hear(peer, frame);
        }, last - this.world.now);
      },
      close: () => {
        peer.open = false;
        this.peers.delete(peer);
      },
    };
  }

  private say(peer: Peer, frame: ServerFrame): void {
    const text = JSON.stringify(frame);
    // Frames of one socket come in their order.
    peer.busyUntil = Math.max(peer.busyUntil, this.world.now + this.delay());
    this.world.later(() => {
      if (peer.open) peer.events.message(text);
    }, peer.busyUntil - this.world.now);
  }

  private hangUp(peer: Peer, code: number, reason: string): void {
    if (!peer.open) return;
    this.closes.push({ code, reason });
    this.peers.delete(peer);
    this.world.later(
      () => {
        if (!peer.open) return;
        peer.open = false;
        peer.events.closed(code, reason);
      },
      Math.max(0, peer.busyUntil - this.world.now),
    );
  }

  private expiry(): string {
    return new Date(this.world.now + this.expires * 1000).toISOString();
  }

  private hear(peer: Peer, frame: ClientFrame): void {
    switch (frame.type) {
      case "hello": {
        const user = frame.token === undefined ? this.cookieUser : this.userOf(frame.token);
        if (user === undefined) {
          this.hangUp(peer, 4401, "sign in again");
          break;
        }
        peer.user = user;
        if (this.expires < 0) break;
        peer.greeted = true;
        this.say(peer, {
          type: "welcome",
          protocol: 1,
          epoch: this.epoch,
          userId: user,
          role: user === null ? "anon" : "authenticated",
          rights: this.rights,
          serverTime: new Date(this.world.now).toISOString(),
          heartbeat: this.heartbeat,
          ...(this.expires && { expiresAt: this.expiry() }),
          schema: this.tables.schema,
          limits: { keys: 2000, frame: 65536 },
        });
        break;
      }
      case "subscribe": {
        const { id, keys, cursor } = frame;
        const [epoch, from] = (cursor ?? this.cursor).split("/");
        const again = cursor !== undefined && keys.every((key) => peer.keys.has(key));
        const stale = again ? this.unsure : epoch !== this.epoch || Number(from) < this.pruned;
        const wanted = new Set(keys);
        if (!stale && !again) {
          const updates = this.feed
            .slice(Number(from))
            .flatMap((change) => this.updateFor(peer, change, wanted, true));
          if (updates.length) this.say(peer, { type: "updates", cursor: this.cursor, updates });
        }
        for (const key of keys) peer.keys.add(key);
        const versions: { [key: string]: number } = {};
        for (const key of keys) {
          const [table, encoded] = key.split(":");
          const record =
            encoded && this.visible(peer.user, table as string, decodeURIComponent(encoded));
          if (record) versions[key] = Number(record.version);
        }
        this.say(peer, {
          type: "subscribed",
          id,
          cursor: this.cursor,
          versions,
          ...(stale && { stale: keys }),
        });
        break;
      }
      case "unsubscribe":
        for (const key of frame.keys) peer.keys.delete(key);
        this.say(peer, { type: "unsubscribed", id: frame.id });
        break;
      case "auth":
        this.say(peer, { type: "authed", rights: this.rights, expiresAt: this.expiry() });
        break;
      case "ping":
        this.say(peer, { type: "pong", cursor: this.cursor });
        break;
    }
  }
}
