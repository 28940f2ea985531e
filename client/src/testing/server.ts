import { type Client, type ClientOptions, createClient } from "../client.js";
import { InvalidQueryError } from "../errors.js";
import { parseKey, recordKey } from "../filters.js";
import { userOfToken } from "../http.js";
import type { Json, RecordData } from "../json.js";
import { browserRuntime } from "../runtime.js";
import { type Schema, tableOf } from "../schema.js";
import { memoryStorage } from "../storage-memory.js";
import { oneTab } from "../tabs.js";
import type { Connection, Reply, SocketEvents, Transport } from "../transport.js";
import type { RecordOf, TableName } from "../types.js";
import {
  CLOSE_SIGN_IN,
  type ClientFrame,
  type Key,
  type Problem,
  type QueryBody,
  type ServerFrame,
  type StaleFrame,
  type SubscribeFrame,
  type Update,
} from "../wire.gen.js";
import {
  type Change,
  Data,
  keysOfChange,
  patchOf,
  problemOf,
  RequestRefused,
  type Rules,
} from "./data.js";

/** What goes wrong with a request. */
export type Fault =
  /** It does not arrive. */
  | "drop"
  /** It takes effect, and no answer comes. */
  | "lose-reply"
  /** It takes effect, and the answer cannot be read. */
  | "garbage"
  /** It is refused as a whole: 503, 429 with `retryAfter` in seconds, 426 and so on. */
  | { readonly status: number; readonly code?: string; readonly retryAfter?: number };

/** The kinds of requests, by the end of their paths. */
export type RequestKind = "write" | "query" | "getRecords";

/** A request that has come. */
export interface SeenRequest {
  readonly kind: RequestKind;
  readonly user: string | null;
  readonly body: unknown;
}

/** What a test server is made of. */
export interface TestServerOptions extends Rules {
  /** The registry, as `rowcast types` writes it. */
  schema: Schema;
  /** What is there at first; keys left out have their defaults. */
  records?: { readonly [T in TableName]?: readonly Partial<RecordOf<T>>[] };
  /** Milliseconds a message takes, one way. Left out, no time passes: fake clocks need not be moved. */
  latency?: number;
  /** The server's clock; left out, `Date.now`. */
  now?: () => number;
}

interface Peer {
  readonly name: string;
  readonly events: SocketEvents;
  readonly keys: Set<Key>;
  readonly states: Map<Key, { readonly [key: string]: Json }>;
  /** Records its user could see after the last change. */
  seen: Set<Key>;
  user: string | null;
  greeted: boolean;
  open: boolean;
}

/** A server in memory that speaks Rowcast's protocol, for several users, with rules and faults. */
export class TestServer {
  /** All requests that have come, the newest last. */
  readonly requests: SeenRequest[] = [];
  private readonly data: Data;
  private readonly latency: number;
  private readonly now: () => number;
  private readonly hasRule: boolean;
  private readonly peers = new Set<Peer>();
  private readonly clients = new Set<Client>();
  private readonly faults: { readonly [kind in RequestKind]: Fault[] } = {
    write: [],
    query: [],
    getRecords: [],
  };
  private readonly gates = new Map<RequestKind, Promise<void>>();
  private readonly wakers = new Set<() => void>();
  private readonly signedOut = new Set<string | null>();
  private epoch = 1;
  private isOnline = true;
  /** A mistake in what the test gave. */
  private crash: { error: unknown } | undefined;
  private underWay = 0;
  private moves = 0;
  private names = 0;

  constructor({ schema, records = {}, latency = 0, now = Date.now, ...rules }: TestServerOptions) {
    this.latency = latency;
    this.now = now;
    this.hasRule = rules.visible !== undefined;
    this.data = new Data(schema, rules, now, (changes) => this.deliver(changes));
    for (const [table, rows] of Object.entries(records)) {
      for (const row of rows as readonly { [key: string]: Json }[]) this.data.put(table, row);
    }
  }

  // --- clients ---

  /** A client of a user, with a memory of its own. Several of one user are several devices. */
  client(user: string | null, options: Partial<ClientOptions> = {}): Client {
    const client = createClient({ ...this.options(user), ...options });
    this.clients.add(client);
    return client;
  }

  /** What to give to `createClient` so that it talks to this server as a user. */
  options(user: string | null): ClientOptions {
    const runtime = browserRuntime();
    return {
      url: "http://test",
      schema: this.data.schema,
      auth: "cookie",
      userId: user,
      storage: memoryStorage(),
      tabs: oneTab(),
      transport: this.transport(user),
      runtime: {
        ...runtime,
        onWake: (listener) => {
          const end = runtime.onWake(listener);
          this.wakers.add(listener);
          return () => {
            end();
            this.wakers.delete(listener);
          };
        },
      },
    };
  }

  /** A transport for a user; left out, for the one whom the token names. */
  transport(user?: string | null): Transport {
    return {
      post: (path, body, headers, signal) => this.post(user, path, body, headers, signal),
      connect: (_path, events) => this.connect(user, events),
    };
  }

  /**
   * Resolves when nothing is under way any more and nobody has anything left to say. In React inside `act`. Rejects
   * with what a rule or a function of the test has thrown.
   */
  async settle(): Promise<void> {
    // What clients load when they need it: once it is there, no time passes with that.
    await Promise.all([import("../engine.js"), import("../undo.js")]);
    for (let quiet = 0; quiet < 100; ) {
      const { crash } = this;
      this.crash = undefined;
      if (crash) throw crash.error;
      const { moves } = this;
      if (this.latency && this.underWay) {
        await new Promise((resolve) => setTimeout(resolve, this.latency));
      } else await null;
      const busy = moves !== this.moves || (this.latency > 0 && this.underWay > 0);
      quiet = busy ? 0 : quiet + 1;
    }
  }

  /** Closes all clients it has made. */
  async close(): Promise<void> {
    for (const client of this.clients) await client.close();
    this.clients.clear();
  }

  // --- data ---

  /** A record as it is, whoever may see it; null where there is none. */
  get<T extends TableName>(table: T, id: string): RecordOf<T> | null {
    return this.data.get(table, id) as RecordOf<T> | null;
  }

  /** All records of a table. */
  all<T extends TableName>(table: T): RecordOf<T>[] {
    return this.data.all(table) as RecordOf<T>[];
  }

  /** Makes a record, or changes some of its keys, as plain SQL would: past all rules, and live for everybody. */
  put<T extends TableName>(table: T, record: Partial<RecordOf<T>> & { id: string }): RecordOf<T> {
    return this.data.put(table, record as never) as RecordOf<T>;
  }

  /** Removes a record for good. */
  remove(table: TableName, id: string): void {
    this.data.remove(table, id);
  }

  /** Looks again at what everybody may see: what `visible` depends on outside the data has changed. */
  recheck(): void {
    for (const peer of this.peers) this.compareSeen(peer, new Set());
  }

  /** Says that keys have to be read again; left out, all keys of everybody. */
  stale(keys?: readonly Key[], reason: StaleFrame["reason"] = "bulk"): void {
    for (const peer of this.peers) {
      const own = [...peer.keys].filter((key) => !keys || keys.includes(key));
      if (own.length) this.say(peer, { type: "stale", keys: own, reason });
    }
  }

  // --- faults ---

  /** The next requests of a kind go wrong in this way. */
  fail(kind: RequestKind, fault: Fault, times = 1): void {
    for (let n = 0; n < times; n++) this.faults[kind].push(fault);
  }

  /** The next transactions are refused for good, each by itself: `refuse({status: 403, code: "forbidden"})`. */
  refuse(problem: { status: number; code: string; detail?: string }, times = 1): void {
    const { status, code, ...more } = problem;
    for (let n = 0; n < times; n++) this.data.refusals.push(problemOf(status, code, more));
  }

  /** Requests of a kind wait from now on. Gives what lets them go on. */
  hold(kind: RequestKind): () => void {
    let release = () => {};
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.gates.set(kind, gate);
    return () => {
      if (this.gates.get(kind) === gate) this.gates.delete(kind);
      release();
    };
  }

  /** Without a network nothing arrives and sockets end; with one again its clients notice at once. */
  setOnline(online: boolean): void {
    this.isOnline = online;
    if (online) this.wake();
    else this.disconnect();
  }

  /** Ends all sockets, or those of a user; clients connect again. */
  disconnect(code = 1006, reason = "", user?: string | null): void {
    for (const peer of [...this.peers]) {
      if (user === undefined || peer.user === user) this.hangUp(peer, code, reason);
    }
  }

  /** Nobody is signed in as this user any more: 401, and its sockets end. */
  signOut(user: string | null): void {
    this.signedOut.add(user);
    this.disconnect(CLOSE_SIGN_IN, "sign in again", user);
  }

  /** The user is signed in again; its clients go on with `client.resume()`. */
  signIn(user: string | null): void {
    this.signedOut.delete(user);
  }

  /** As after a restore from a backup: every cursor is void, and all clients read again. */
  startEpoch(): void {
    this.epoch++;
    this.disconnect();
    this.wake();
  }

  // --- HTTP ---

  private async post(
    fixed: string | null | undefined,
    path: string,
    text: string,
    headers: { [name: string]: string },
    signal: AbortSignal,
  ): Promise<Reply> {
    const lost = () => new TypeError("The network is gone");
    const given = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(lost()));
    });
    const work = async (): Promise<Reply> => {
      await this.travel();
      if (!this.isOnline) throw lost();
      const kind = path.slice(path.lastIndexOf("/") + 1) as RequestKind;
      const token = headers.authorization?.replace("Bearer ", "");
      const user = fixed === undefined ? whoIs(token) : fixed;
      const body: unknown = JSON.parse(text);
      this.requests.push({ kind, user, body });
      await this.gates.get(kind);
      if (!this.isOnline) throw lost();
      const fault = this.faults[kind]?.shift();
      if (fault === "drop") throw lost();
      const reply =
        typeof fault === "object"
          ? refusal(problemOf(fault.status, fault.code ?? "fault"), fault.retryAfter)
          : this.answer(kind, body, user);
      await this.travel();
      if (fault === "lose-reply" || !this.isOnline) throw lost();
      return fault === "garbage" ? { ...reply, status: 200, body: "<html>" } : reply;
    };
    return Promise.race([work(), given]);
  }

  private answer(kind: RequestKind, body: unknown, user: string | null): Reply {
    if (this.signedOut.has(user)) return refusal(problemOf(401, "unauthorized"));
    try {
      const { data, cursor } = this;
      if (kind === "write") return json(200, data.write(body, user));
      if (kind === "getRecords") return json(200, { ...data.getRecords(body, user), cursor });
      if (kind === "query") return json(200, { ...data.query(body as QueryBody, user), cursor });
    } catch (error) {
      if (error instanceof RequestRefused) return refusal(error.problem);
      if (error instanceof InvalidQueryError)
        return refusal(problemOf(400, error.code, error.problem));
      this.crash ??= { error };
      return refusal(problemOf(500, "internal"));
    }
    return refusal(problemOf(404, "not_found"));
  }

  // --- sockets ---

  private get cursor(): string {
    return `${this.epoch}/${this.data.feed.length}`;
  }

  private connect(fixed: string | null | undefined, events: SocketEvents): Connection {
    const peer: Peer = {
      name: `peer-${++this.names}`,
      events,
      keys: new Set(),
      states: new Map(),
      seen: new Set(),
      user: fixed ?? null,
      greeted: false,
      open: true,
    };
    this.later(() => {
      if (!peer.open) return;
      if (!this.isOnline) {
        this.hangUp(peer, 1006, "");
        return;
      }
      this.peers.add(peer);
      events.opened();
    });
    return {
      send: (text) => {
        this.later(() => {
          if (this.peers.has(peer)) this.hear(peer, JSON.parse(text), fixed);
        });
      },
      close: () => {
        peer.open = false;
        this.leave(peer);
      },
    };
  }

  private hear(peer: Peer, frame: ClientFrame, fixed: string | null | undefined): void {
    switch (frame.type) {
      case "hello":
        peer.user = fixed === undefined ? whoIs(frame.token) : fixed;
        if (this.signedOut.has(peer.user)) {
          this.hangUp(peer, CLOSE_SIGN_IN, "sign in again");
          break;
        }
        peer.greeted = true;
        peer.seen = this.seenBy(peer.user);
        this.say(peer, {
          type: "welcome",
          protocol: 1,
          epoch: String(this.epoch),
          userId: peer.user,
          role: peer.user === null ? "anon" : "authenticated",
          rights: "",
          serverTime: new Date(this.now()).toISOString(),
          heartbeat: 20,
          schema: this.data.schema.schema,
          limits: { keys: 2000, frame: 65536 },
        });
        break;
      case "auth":
        this.say(peer, { type: "authed", rights: "" });
        break;
      case "subscribe":
        this.subscribe(peer, frame);
        break;
      case "unsubscribe":
        for (const key of frame.keys) {
          peer.keys.delete(key);
          this.show(peer, key, null);
        }
        this.say(peer, { type: "unsubscribed", id: frame.id });
        break;
      case "ping":
        this.say(peer, { type: "pong", cursor: this.cursor });
        break;
      case "presence":
        this.show(peer, frame.key, frame.state as never);
        break;
      case "broadcast": {
        const { key, event, payload = null } = frame;
        for (const other of this.others(peer, key)) {
          this.say(other, { type: "broadcast", key, event, payload, from: peer.user });
        }
      }
    }
  }

  private subscribe(peer: Peer, { id, keys, cursor }: SubscribeFrame): void {
    const { data } = this;
    const [epoch, from] = (cursor ?? this.cursor).split("/");
    const missed = data.feed.slice(Number(from));
    const errors: { key: Key; code: "bad_key" | "unknown_table" | "unknown_collection" }[] = [];
    const good = new Set<Key>();
    for (const key of keys) {
      const place = parseKey(key);
      const table = place && tableOf(data.schema, place.table);
      const isKnown = place?.name === undefined || table?.keys[place.name]?.topic;
      if (place && table && isKnown) good.add(key);
      else errors.push({ key, code: place && table ? "unknown_collection" : "unknown_table" });
    }
    // By which rules somebody saw what meanwhile is not kept: then it is all read again, unless it was told all along.
    const again = keys.every((key) => peer.keys.has(key));
    const stale = epoch !== String(this.epoch) || (this.hasRule && !again && missed.length > 0);
    if (!stale) this.tell(peer, missed, good);
    const versions: { [key: Key]: number } = {};
    for (const key of good) {
      peer.keys.add(key);
      const place = parseKey(key);
      const record = place?.id && data.seen(peer.user, place.table, place.id);
      if (record) versions[key] = Number(record.version);
    }
    this.say(peer, {
      type: "subscribed",
      id,
      cursor: this.cursor,
      versions,
      ...(stale && { stale: [...good] }),
      ...(errors.length && { errors }),
    });
    for (const key of good) {
      const peers = [...this.others(peer, key)].flatMap(({ name, user, states }) => {
        const state = states.get(key);
        return state ? [{ peer: name, userId: user, state }] : [];
      });
      if (peers.length) this.say(peer, { type: "presence", key, peers, full: true });
    }
  }

  private *others(peer: Peer, key: Key): Iterable<Peer> {
    const place = parseKey(key);
    for (const other of this.peers) {
      if (other === peer || !other.keys.has(key) || place?.id === undefined) continue;
      if (this.data.seen(other.user, place.table, place.id)) yield other;
    }
  }

  private show(peer: Peer, key: Key, state: { readonly [key: string]: Json } | null): void {
    if (state) peer.states.set(key, state);
    else if (!peer.states.delete(key)) return;
    const peers = [{ peer: peer.name, userId: peer.user, state }];
    for (const other of this.others(peer, key)) this.say(other, { type: "presence", key, peers });
  }

  private deliver(changes: readonly Change[]): void {
    this.moves++;
    const own = new Set(changes.map(({ table, id }) => recordKey(table, id)));
    for (const peer of this.peers) {
      this.tell(peer, changes, peer.keys);
      if (this.hasRule) this.compareSeen(peer, own);
    }
  }

  private tell(peer: Peer, changes: readonly Change[], keys: ReadonlySet<Key>): void {
    const updates = changes.flatMap((change): Update[] => {
      const { table, id, before, after, txId } = change;
      if (![...keysOfChange(this.data.schema, change)].some((key) => keys.has(key))) return [];
      const key = recordKey(table, id);
      const saw = before && (this.hasRule ? peer.seen.has(key) : true);
      if (!after || !this.data.isVisible(peer.user, table, after)) {
        return saw ? [{ key, gone: true }] : [];
      }
      const version = Number(after.version);
      const common = { key, version, ...(txId !== undefined && { txId }) };
      if (!saw) return [{ ...common, record: after }];
      return [{ ...common, from: Number(before.version), patch: patchOf(before, after) }];
    });
    if (updates.length) this.say(peer, { type: "updates", cursor: this.cursor, updates });
  }

  private seenBy(user: string | null): Set<Key> {
    const found = new Set<Key>();
    for (const table of this.hasRule ? Object.keys(this.data.schema.tables) : []) {
      for (const record of this.data.all(table) as unknown as RecordData[]) {
        if (this.data.isVisible(user, table, record))
          found.add(recordKey(table, String(record.id)));
      }
    }
    return found;
  }

  /** Records that somebody gained or lost by a change of something else make the keys that cover them stale. */
  private compareSeen(peer: Peer, told: ReadonlySet<Key>): void {
    if (!peer.greeted) return;
    const before = peer.seen;
    peer.seen = this.seenBy(peer.user);
    const stale = new Set<Key>();
    for (const key of new Set([...before, ...peer.seen])) {
      if (told.has(key) || before.has(key) === peer.seen.has(key)) continue;
      const { table = "", id } = parseKey(key) ?? {};
      const after = this.data.get(table, id) as RecordData | null;
      const change = { table, id: String(id), before: null, after, txId: undefined };
      for (const covering of keysOfChange(this.data.schema, change)) {
        if (peer.keys.has(covering)) stale.add(covering);
      }
    }
    if (stale.size) this.say(peer, { type: "stale", keys: [...stale], reason: "access" });
  }

  private say(peer: Peer, frame: ServerFrame): void {
    const text = JSON.stringify(frame);
    this.later(() => {
      if (peer.open) peer.events.message(text);
    });
  }

  private hangUp(peer: Peer, code: number, reason: string): void {
    if (!peer.open) return;
    this.leave(peer);
    this.later(() => {
      if (!peer.open) return;
      peer.open = false;
      peer.events.closed(code, reason);
    });
  }

  private leave(peer: Peer): void {
    this.moves++;
    if (!this.peers.delete(peer)) return;
    for (const key of [...peer.states.keys()]) this.show(peer, key, null);
  }

  /** Clients notice that it is worth trying again, once they have noticed that their sockets have ended. */
  private wake(): void {
    this.later(() => {
      for (const wake of this.wakers) wake();
    });
  }

  // --- time ---

  private travel(): Promise<void> {
    return new Promise((resolve) => this.later(resolve));
  }

  /** After the time a message takes, in the order of the calls. */
  private later(work: () => void): void {
    this.underWay++;
    this.moves++;
    const done = () => {
      this.underWay--;
      this.moves++;
      work();
    };
    if (this.latency) setTimeout(done, this.latency);
    else queueMicrotask(done);
  }
}

/** Makes a server in memory that speaks Rowcast's protocol, for the tests of an app. */
export function createTestServer(options: TestServerOptions): TestServer {
  return new TestServer(options);
}

function whoIs(token: string | undefined): string | null {
  return token === undefined ? null : (userOfToken(token) ?? token);
}

function json(status: number, body: unknown, header: { [name: string]: string } = {}): Reply {
  return { status, header: (name) => header[name] ?? null, body: JSON.stringify(body) };
}

function refusal(problem: Problem, retryAfter?: number): Reply {
  const header = retryAfter === undefined ? {} : { "retry-after": String(retryAfter) };
  return json(problem.status, problem, header);
}
