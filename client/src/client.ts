import { Cache, type ServerChange } from "./cache.js";
import { InvalidOperationError, InvalidQueryError, RowcastError } from "./errors.js";
import { compileWhere } from "./filters.js";
import { createIds, derivedIds, ServerClock } from "./ids.js";
import type { Json, RecordData } from "./json.js";
import type { KeyInfo } from "./keys.js";
import { checkTransaction, type OpContext } from "./operations.js";
import { type Broadcast, type Peer, Presence, type PresenceState } from "./presence.js";
import type { QuerySpec, QueryState } from "./query.js";
import { Queue, type Receipt, type Rejected, type Written } from "./queue.js";
import { Cell, type Listeners, listen, type Readable } from "./readable.js";
import { browserRuntime, type Runtime } from "./runtime.js";
import type { Schema } from "./schema.js";
import { Socket, type SocketState } from "./socket.js";
import { type History, Steps, type UndoResult } from "./steps.js";
import type { Change, Storage, Store } from "./storage.js";
import { indexedDbStorage } from "./storage-indexeddb.js";
import { memoryStorage } from "./storage-memory.js";
import { type QueryInfo, Sync } from "./sync.js";
import { browserTabs, type Channel, oneTab, type Tabs } from "./tabs.js";
import {
  type Auth,
  browserTransport,
  Http,
  NeedsAuthError,
  type Transport,
  userOfToken,
} from "./transport.js";
import type {
  CallArguments,
  Expectation,
  Functions,
  Include,
  Operation,
  OrderBy,
  RecordOf,
  TableFor,
  TableName,
  Where,
  WhereFor,
} from "./types.js";
import { Vault } from "./vault.js";
import type {
  ClientFrame,
  Key,
  ServerFrame,
  Transaction,
  WelcomeFrame,
  Operation as WireOperation,
} from "./wire.gen.js";

/** What a client is made of. */
export interface ClientOptions {
  /** The gateway's address; left out, the page's own. */
  url?: string;
  /** The registry, as `rowcast types` writes it. */
  schema: Schema;
  /** Who asks: "cookie", or where tokens come from. */
  auth: Auth;
  /** The user, where the app knows him; null for nobody. Left out: the token's, the last one, or whom the server names. */
  userId?: string | null;
  /** Where things are kept; left out, in IndexedDB, and in memory where that is not to be had. */
  storage?: Storage;
  /** How requests travel; left out, by fetch and WebSocket. */
  transport?: Transport;
  /** How tabs meet; left out, by BroadcastChannel and Web Locks. */
  tabs?: Tabs;
  /** Clock, timers and the page, for tests and other hosts than browsers. */
  runtime?: Runtime;
}

/** The state of the client as a whole. */
export interface Status {
  /** Whose client it is: null for nobody, undefined until that is known. */
  readonly userId: string | null | undefined;
  /** `syncing`: connected, and something is not confirmed. `needs-auth`: nothing is sent before a new sign-in. */
  readonly state: "online" | "offline" | "syncing" | "needs-auth";
  readonly online: boolean;
  /** Writes that are not confirmed. */
  readonly pending: number;
  /** Writes that were refused and wait for the user. */
  readonly rejected: number;
  readonly needsAuth: boolean;
  /** Whether writes survive the end of the page. */
  readonly durable: boolean;
  /** The app is too old for the server: writes are kept until it is updated. */
  readonly upgrade: boolean;
  readonly lastError: RowcastError | null;
}

/** How a write is made. */
export interface WriteOptions {
  /** Refuse it unless these versions hold. */
  expect?: readonly Expectation[];
  /** False: it is no step of undo. */
  undo?: boolean;
  /** Writes that follow each other with the same name are one step of undo. */
  group?: string;
}

/** A write that is under way. Awaiting it waits until it is stored on this device. */
export interface WriteHandle extends PromiseLike<void> {
  readonly txId: string;
  /** Resolves when it is stored on this device; rejects with StorageFullError, and then it is not shown either. */
  readonly saved: Promise<void>;
  /** Resolves when the server has applied it; rejects with RefusedError. */
  readonly confirmed: Promise<Receipt>;
}

/** A query: its result, and more of it. */
export interface Query<T> extends Readable<QueryState<T>> {
  /** Shows another page of a window. Resolves when it is there, or cannot be had now. */
  loadMore(): Promise<void>;
  /** Asks the server again. */
  refetch(): Promise<void>;
}

/** How a query is ordered and cut. */
export interface QueryOptions<T extends TableName> {
  orderBy?: OrderBy<T>;
  /** Rows to show; left out, all. */
  limit?: number;
  /** Records along foreign keys to load with it. */
  include?: readonly Include<T>[];
}

/** Changes of the server's records, without what is pending here: whole transactions. */
export interface ServerBatch<T> {
  /** Forget everything before these changes. */
  readonly reset: boolean;
  /** Whether all that matches is known now. */
  readonly ready: boolean;
  readonly changes: readonly ServerChangeOf<T>[];
  /** The transactions of clients among them, as far as they are told. */
  readonly txIds: readonly string[];
}

/** One change in a batch. */
export type ServerChangeOf<T> =
  | { readonly type: "insert" | "update"; readonly id: string; readonly record: T }
  | { readonly type: "delete"; readonly id: string };

/** What the server's records are, for adapters that keep pending writes themselves. */
export interface ServerStream<T> {
  /** Calls back first with a reset. */
  subscribe(listener: (batch: ServerBatch<T>) => void): () => void;
}

/** What goes on inside, for devtools. */
export interface DebugState {
  readonly socket: SocketState;
  readonly userId: string | null | undefined;
  readonly epoch: string | undefined;
  readonly cursor: string | undefined;
  readonly keys: readonly KeyInfo[];
  readonly queries: readonly QueryInfo[];
  readonly pending: readonly {
    txId: string;
    operations: readonly WireOperation[];
    attempted: boolean;
  }[];
  readonly rejected: readonly Rejected[];
  /** The last frames, the newest last. */
  readonly frames: readonly SeenFrame[];
}

/** A frame as devtools show it. */
export interface SeenFrame {
  readonly at: number;
  readonly direction: "in" | "out";
  readonly frame: ClientFrame | ServerFrame;
}

/** There are writes that would be lost, or would wait for the next sign-in: the user has to decide. */
export class PendingWritesError extends RowcastError {
  override name = "PendingWritesError";
  /** Writes that are not confirmed. */
  readonly pending: number;
  /** Writes that were refused. */
  readonly rejected: number;

  constructor(pending: number, rejected: number) {
    super(
      "pending_writes",
      `${pending} unsent and ${rejected} refused writes are on this device. Ask the user, then call signOut with pending: "keep" or "discard".`,
    );
    this.pending = pending;
    this.rejected = rejected;
  }
}

/** The server knows the caller as another user than the one whose data is kept here. */
export class UserChangedError extends RowcastError {
  override name = "UserChangedError";
  /** Who it is. */
  readonly userId: string | null;

  constructor(userId: string | null) {
    super(
      "user_changed",
      "Somebody else is signed in. Close this client and make one for the present user.",
    );
    this.userId = userId;
  }
}

/** The client was closed. */
export class ClosedError extends RowcastError {
  override name = "ClosedError";

  constructor() {
    super("closed", "The client was closed or signed out. Make a new one with createClient.");
  }
}

const FRAMES = 50;

/** A client of one server for one user. `createClient` makes it. */
export class Client {
  /** The schema it was made with. */
  readonly schema: Schema;
  /** The state of the client as a whole. */
  readonly status: Readable<Status>;
  /** Refused writes, the oldest first. */
  readonly rejected: Readable<readonly Rejected[]>;
  /** Whether there is something to undo or redo in this tab. */
  readonly history: Readable<History>;
  /** What goes on inside. */
  readonly debug: Readable<DebugState>;

  private readonly url: string;
  private readonly auth: Auth;
  private readonly runtime: Runtime;
  private readonly storage: Storage;
  private readonly givenTabs: Tabs;
  private readonly fixedUser: string | null | undefined;
  private readonly clock: ServerClock;
  private readonly newId: () => string;
  private readonly tab: string;
  private readonly cache: Cache;
  private readonly http: Http;
  private readonly socket: Socket;
  private readonly sync: Sync;
  private readonly queue: Queue;
  private readonly presences: Presence;
  private readonly steps: Steps;
  private readonly statusCell: Cell<Status>;
  private readonly debugListeners: Listeners = new Set();
  private readonly streams = new Set<(changes: readonly ServerChange[]) => void>();
  private readonly ends: (() => void)[] = [];
  private readonly frames: SeenFrame[] = [];
  private debugState: DebugState | undefined;
  private vault: Vault | undefined;
  private channel: Channel | undefined;
  private user: string | null | undefined;
  private opening: Promise<void> | undefined;
  private hello: WelcomeFrame | undefined;
  private pausedBy: "auth" | "upgrade" | undefined;
  private lastError: RowcastError | null = null;
  private closed = false;
  private asked = false;

  constructor(options: ClientOptions) {
    const { schema, auth } = options;
    const runtime = options.runtime ?? browserRuntime();
    this.schema = schema;
    this.auth = auth;
    this.runtime = runtime;
    this.url = options.url ?? (typeof location === "undefined" ? "" : location.origin);
    this.fixedUser = options.userId;
    this.storage = options.storage ?? defaultStorage();
    this.givenTabs = options.tabs ?? browserTabs();
    this.clock = new ServerClock(() => runtime.now());
    this.newId = createIds(() => this.clock.now(), runtime.fill);
    this.tab = this.newId().slice(-12);
    const transport = options.transport ?? browserTransport(this.url);
    this.http = new Http(transport, auth, schema.schema, runtime, this.clock, (user) =>
      this.isUser(user),
    );
    const host = {
      ready: () => this.isReady(),
      pause: (why: "auth" | "upgrade") => this.pause(why),
      failed: (error: unknown) => this.failed(error),
      changed: () => this.changed(),
    };
    this.cache = new Cache(schema, {
      want: (slot) => this.sync.want(slot),
      dirty: (slot) => this.vault?.dirty(slot),
      changed: (changes) => {
        this.sync.changed(changes);
        for (const stream of this.streams) stream(changes);
      },
      covers: (slot, record) => this.sync.covers(slot, record),
      staleSince: (keys, tick) => this.sync.staleSince(keys, tick),
    });
    const { batch } = this.cache;
    this.socket = new Socket(transport, this.http, runtime, this.clock, schema.schema, {
      welcome: (frame) => this.welcome(frame),
      frame: (frame) => this.take(frame),
      closed: () => this.disconnected(),
      changed: () => this.changed(),
      paused: (why) => this.pause(why),
      seen: (direction, frame) => this.see(direction, frame),
    });
    this.sync = new Sync(this.cache, this.http, this.socket, runtime, {
      ...host,
      joined: (key) => this.presences.joined(key),
      stirred: () => this.stir(),
    });
    this.queue = new Queue(this.cache, this.sync, this.http, runtime, this.clock, this.newId, {
      ...host,
      ended: (pending, problem) => this.steps.ended(pending, problem !== undefined),
      signedOut: () => this.removed(),
      reachable: () => this.socket.state === "open" || (this.http.answered && runtime.online()),
      author: () => (auth === "cookie" ? (this.user ?? undefined) : undefined),
    });
    this.presences = new Presence(this.socket, batch, runtime, (key) => this.sync.hold(key));
    this.steps = new Steps(batch, {
      read: (table, id) => this.read(table, id),
      context: () => this.context(this.newId()),
      write: (operations, context) => {
        const written = this.send({ txId: this.newId(), operations }, context.now);
        return { pending: written.pending, saved: written.saved.get() };
      },
    });
    this.statusCell = new Cell<Status>(batch, this.computeStatus());
    this.status = this.statusCell;
    this.rejected = this.queue.rejected;
    this.history = this.steps.history;
    this.debug = {
      subscribe: (listener) => listen(this.debugListeners, listener),
      getSnapshot: () => {
        this.cache.settle();
        this.debugState ??= this.describe();
        return this.debugState;
      },
    };
    this.ends.push(
      runtime.onWake(() => this.wake()),
      runtime.onHide(() => void this.vault?.flush().catch((error) => this.failed(error))),
    );
    void this.boot();
  }

  // --- reading ---

  /** A record: undefined while nothing is known of it, null where it is not there. Loaded and live while subscribed. */
  record<T extends TableName>(table: T, id: string): Readable<RecordOf<T> | null | undefined>;
  record<T extends object = never>(table: TableFor<T>, id: string): Readable<T | null | undefined>;
  record(table: string, id: string): Readable<RecordData | null | undefined> {
    this.check(table);
    return {
      subscribe: (listener) => this.sync.subscribeRecord(this.cache.slot(table, id), listener),
      getSnapshot: () => this.read(table, id),
    };
  }

  /** The records that match, in order. Loaded and live while subscribed. Throws InvalidQueryError. */
  query<T extends TableName>(
    table: T,
    where?: Where<T>,
    options?: QueryOptions<T>,
  ): Query<RecordOf<T>>;
  query<T extends object = never>(
    table: TableFor<T>,
    where?: WhereFor<T>,
    options?: QueryOptions<TableName>,
  ): Query<T>;
  query(
    table: string,
    where?: object,
    { orderBy, limit, include }: Pick<QuerySpec, "orderBy" | "limit" | "include"> = {},
  ): Query<RecordData> {
    this.check(table);
    const { sync } = this;
    const load = sync.query({ table, where: where as QuerySpec["where"], orderBy, limit, include });
    return {
      subscribe: (listener) => sync.subscribeQuery(load, listener),
      getSnapshot: () => sync.snapshot(load),
      loadMore: () => sync.loadMore(load),
      refetch: () => sync.refetch(load),
    };
  }

  /** The server's records that match, without pending writes, and their changes. Live while subscribed. */
  serverStream<T extends TableName>(table: T, where?: Where<T>): ServerStream<RecordOf<T>>;
  serverStream<T extends object = never>(table: TableFor<T>, where?: WhereFor<T>): ServerStream<T>;
  serverStream(table: string, where?: object): ServerStream<RecordData> {
    this.check(table);
    const { sync, cache, streams } = this;
    const filter = where as QuerySpec["where"];
    const match = compileWhere(cache.table(table).schema, filter);
    const matching = (record: RecordData | null | undefined) =>
      record && match(record) ? record : undefined;
    return {
      subscribe(listener) {
        const load = sync.query({ table, where: filter });
        let ready = false;
        const follow = (changes: readonly ServerChange[]) => {
          const txIds = new Set<string>();
          const told = changes.flatMap(
            ({ slot, before, txIds: own }): ServerChangeOf<RecordData>[] => {
              if (slot.table.name !== table) return [];
              const old = matching(before);
              const record = matching(slot.server);
              if (!old && !record) return [];
              for (const txId of own) txIds.add(txId);
              const { id } = slot;
              return [
                record ? { type: old ? "update" : "insert", id, record } : { type: "delete", id },
              ];
            },
          );
          if (told.length) listener({ reset: false, ready, changes: told, txIds: [...txIds] });
        };
        const end = sync.subscribeQuery(load, () => {
          if (ready || !load.loaded) return;
          ready = true;
          listener({ reset: false, ready, changes: [], txIds: [] });
        });
        cache.settle();
        ready = load.loaded;
        const changes = [...cache.serverUnder(load.query)].map(
          ({ id, server }): ServerChangeOf<RecordData> => ({
            type: "insert",
            id,
            record: server as RecordData,
          }),
        );
        listener({ reset: true, ready, changes, txIds: [] });
        streams.add(follow);
        return () => {
          streams.delete(follow);
          end();
        };
      },
    };
  }

  // --- writing ---

  /**
   * Shows operations at once, stores them, and sends them when it can: together, once, in order. Throws
   * InvalidOperationError where they are not well formed, and ClosedError.
   */
  write(operations: Operation | readonly Operation[], options: WriteOptions = {}): WriteHandle {
    if (this.closed) throw new ClosedError();
    const { expect, undo, group } = options;
    const given = {
      txId: this.newId(),
      operations: (Array.isArray(operations) ? operations : [operations]) as WireOperation[],
      ...(expect && { expect }),
    };
    const context = this.context(given.txId);
    const problem = checkTransaction(given, context);
    if (problem) throw new InvalidOperationError(problem);
    // As JSON, and a copy: what is queued does not change when the caller goes on working with his objects.
    const tx: Transaction = JSON.parse(JSON.stringify(given));
    const { operations: done } = tx;
    const before = undo === false ? undefined : this.steps.before(done);
    const written = this.send(tx, context.now);
    const { pending } = written;
    const at = this.runtime.now();
    if (before) this.steps.push({ pending, operations: done, before, context, group, at });
    return handle(written);
  }

  /** Calls a function of the server, in its turn among the writes. What it gives is in the receipt. */
  call<F extends keyof Functions & string>(fn: F, ...[args]: CallArguments<F>): WriteHandle {
    return this.write({ type: "call", fn, ...(args && { args }) } as Operation, { undo: false });
  }

  /** Makes one step of undo of all that is written inside. */
  group(work: () => void): void;
  group(name: string, work: () => void): void;
  group(name: string | (() => void), work?: () => void): void {
    if (typeof name === "string") this.steps.grouped(name, work ?? (() => {}));
    else this.steps.grouped(Symbol(), name);
  }

  /** Takes back this tab's last step, as far as nobody has interfered. Null where there is none. */
  undo(): Promise<UndoResult | null> {
    return this.steps.take("undo");
  }

  /** Does again what was undone last. Null where there is none. */
  redo(): Promise<UndoResult | null> {
    return this.steps.take("redo");
  }

  /**
   * Sends refused writes again, with new ids and in their old order, and with them those they blocked. Of a single one
   * `changes` replaces the operations or what it expects (null: nothing).
   */
  async retry(
    id: string | readonly string[],
    changes?: {
      operations?: readonly Operation[];
      expect?: readonly Expectation[] | null;
    },
  ): Promise<WriteHandle[]> {
    const { operations } = changes ?? {};
    if (operations) {
      const tx = { txId: this.newId(), operations: operations as readonly WireOperation[] };
      const problem = checkTransaction(tx, this.context(tx.txId));
      if (problem) throw new InvalidOperationError(problem);
    }
    const ids = typeof id === "string" ? [id] : id;
    const written = await this.queue.retry(ids, changes as Parameters<Queue["retry"]>[1]);
    return written.map(handle);
  }

  /** Forgets refused writes. */
  discard(id: string | readonly string[]): Promise<void> {
    return this.queue.discard(typeof id === "string" ? [id] : id);
  }

  // --- what is not live ---

  /**
   * POSTs JSON to the gateway as this client does and gives the answer's JSON, neither cached nor repeated. Rejects with
   * NetworkError, HttpError, NeedsAuthError or ClosedError.
   */
  async request(path: string, body: unknown): Promise<unknown> {
    if (this.closed) throw new ClosedError();
    if (this.pausedBy === "auth") throw new NeedsAuthError();
    return this.http.post(path, body);
  }

  // --- presence ---

  /** The others under the key of a record (`tasks:<id>`), while subscribed. */
  presence(key: Key): Readable<readonly Peer[]> {
    return this.presences.peers(key);
  }

  /** What the others see of this tab under a record's key, at most 4 KiB; null leaves. */
  setPresence(key: Key, state: PresenceState | null): void {
    this.presences.show(key, state);
  }

  /** Sends an event to the others under a record's key, at most 16 KiB. False where there is no connection. */
  broadcast(key: Key, event: string, payload: Json = null): boolean {
    return this.presences.broadcast(key, event, payload);
  }

  /** Calls back for events of the others. Gives what ends it. */
  onBroadcast(key: Key, listener: (event: Broadcast) => void): () => void {
    return this.presences.onBroadcast(key, listener);
  }

  // --- the end ---

  /**
   * Tries again after a new sign-in of the same user, or after an update. The status changes once the server has let the
   * user in.
   */
  resume(): void {
    if (!this.closed && !(this.lastError instanceof UserChangedError)) this.socket.resume();
  }

  /**
   * Removes what is kept of the user, in all tabs, and closes. With "ask" (the default) it throws PendingWritesError
   * where writes are not confirmed; "keep" leaves those for the next sign-in of the same user, "discard" does not.
   */
  async signOut({ pending = "ask" }: { pending?: "ask" | "keep" | "discard" } = {}): Promise<void> {
    if (this.closed) throw new ClosedError();
    await this.opening;
    await this.queue.saved();
    const rejected = this.rejected.getSnapshot().length;
    const count = this.queue.size;
    if (pending === "ask" && count + rejected) throw new PendingWritesError(count, rejected);
    const keep = pending === "keep" && count + rejected > 0;
    const { vault } = this;
    this.queue.tellSignedOut();
    this.end();
    await this.remember(undefined);
    if (!vault) return;
    // What is being written must not come after.
    await vault.flush().catch(() => {});
    if (keep) {
      const changes: Change[] = [];
      for (const store of ["records", "keys", "queries", "meta"] as const) {
        for (const [key] of await vault.store.all(store))
          changes.push({ store, key, remove: true });
      }
      await vault.store.commit(changes, { strict: true });
      vault.store.close();
    } else {
      vault.store.close();
      await this.storage.remove(this.namespace());
    }
  }

  /** Lets go of everything; what is stored stays. */
  async close(): Promise<void> {
    if (this.closed) return;
    await this.opening;
    await this.queue.saved();
    const { vault } = this;
    await vault?.flush().catch((error) => this.failed(error));
    this.end();
    vault?.store.close();
  }

  // --- inside ---

  private check(table: string): void {
    if (this.schema.tables[table]) return;
    throw new InvalidQueryError({
      status: 400,
      code: "unknown_table",
      detail: "There is no such table",
      table,
    });
  }

  private read(table: string, id: string): RecordData | null | undefined {
    this.cache.settle();
    return this.cache.slotOf(table, id)?.view;
  }

  private context(txId: string): OpContext {
    const { schema, clock } = this;
    return { schema, userId: this.user ?? null, now: clock.wireNow(), uuid: derivedIds(txId) };
  }

  private send(tx: Transaction, now: string): Written {
    if (this.closed) throw new ClosedError();
    if (!this.asked && this.vault?.store.durable) {
      this.asked = true;
      this.runtime.persist();
    }
    return this.queue.write(tx, now);
  }

  /** Finds out whose data to open, opens it, and connects. */
  private async boot(): Promise<void> {
    const user = await this.whoIs().catch((error) => {
      this.failed(error);
      return undefined;
    });
    if (this.closed) return;
    if (user !== undefined) await this.open(user);
    if (!this.closed && !this.pausedBy) this.socket.start();
  }

  private async whoIs(): Promise<string | null | undefined> {
    if (this.auth !== "cookie") {
      const asked = this.http.token(false);
      if (this.fixedUser === undefined) {
        // Offline a token may not be to be had: then it is the last user.
        const token = await asked.catch(() => undefined);
        if (this.http.named) return token === undefined ? null : userOfToken(token);
      } else {
        asked.then(
          () => this.sync.retryNow(),
          () => {},
        );
      }
    }
    return this.fixedUser === undefined ? this.remembered() : this.fixedUser;
  }

  private namespace(user = this.user): string {
    return `rowcast:${this.url}:${user === null || user === undefined ? "" : `=${user}`}`;
  }

  private async remembered(): Promise<string | null | undefined> {
    const store = await this.storage.open(`rowcast:${this.url}`);
    const user = await store.get<{ id: string | null }>("meta", "user");
    store.close();
    return user?.id;
  }

  private async remember(id: string | null | undefined): Promise<void> {
    try {
      const store = await this.storage.open(`rowcast:${this.url}`);
      const place = { store: "meta", key: "user" } as const;
      await store.commit([
        id === undefined ? { ...place, remove: true } : { ...place, value: { id } },
      ]);
      store.close();
    } catch (error) {
      this.failed(error);
    }
  }

  /** Opens what is kept of a user. */
  private open(user: string | null): Promise<void> {
    this.user = user;
    this.cache.setUser(user);
    this.changed();
    const opening = this.openStore(user).catch((error) => this.failed(error));
    this.opening = opening;
    return opening;
  }

  private async openStore(user: string | null): Promise<void> {
    const name = this.namespace(user);
    const mine = () => !this.closed && this.user === user;
    let store: Store;
    try {
      store = await this.storage.open(name);
    } catch (error) {
      // A private window: everything works, for as long as the page is there.
      this.failed(error);
      store = await memoryStorage().open(name);
    }
    if (!mine()) return store.close();
    const vault = new Vault(store, this.tab, this.runtime, (error) => this.failed(error));
    // Without a shared storage every tab has a queue of its own.
    const tabs = store.durable ? this.givenTabs : oneTab();
    store.onRemoved?.(() => {
      if (mine()) this.removed();
    });
    await this.queue.open(vault, tabs, name);
    const loaded = await vault.load();
    if (!mine()) return store.close();
    this.vault = vault;
    this.sync.open(vault, loaded);
    this.channel = tabs.channel(`rowcast:${this.url}`, (message) => this.hearUser(message));
    this.channel.post({ user });
    this.queue.start(tabs, name);
    await this.remember(user);
    if (this.hello) this.begin(this.hello);
    this.changed();
  }

  /** Another tab has opened another user's data: a cookie may be his from now on. */
  private hearUser(message: unknown): void {
    const { user } = message as { user: string | null };
    if (this.auth !== "cookie" || user === this.user) return;
    this.hello = undefined;
    this.socket.stop();
    this.socket.start();
  }

  private isUser(user: string | null): boolean {
    return this.user === undefined || this.user === user;
  }

  /**
   * Whether the server may be asked: what it answers is for this user. Where the token does not say whose it is, as a
   * cookie never does, the welcome of this connection must have said it.
   */
  private isReady(): boolean {
    if (this.closed || this.pausedBy || !this.vault) return false;
    return this.hello !== undefined || this.http.named;
  }

  private welcome(frame: WelcomeFrame): boolean {
    if (this.user !== undefined && frame.userId !== this.user) {
      this.userChanged(frame);
      return !this.pausedBy;
    }
    this.hello = frame;
    this.pausedBy = undefined;
    this.failed(undefined);
    if (this.user === undefined) void this.open(frame.userId);
    else if (this.vault) this.begin(frame);
    return true;
  }

  /** The connection is open and the storage, too. */
  private begin(frame: WelcomeFrame): void {
    if (this.socket.state !== "open") return;
    this.presences.opened(frame.heartbeat);
    this.sync.opened(frame.epoch);
    this.queue.wake();
  }

  private disconnected(): void {
    this.hello = undefined;
    this.sync.closed();
    this.presences.closed();
  }

  /** Nothing of the one user is shown to the other. Who was only remembered makes room for him. */
  private userChanged(frame: WelcomeFrame): void {
    const remembered = this.fixedUser === undefined && this.auth === "cookie";
    this.shut();
    if (remembered) {
      this.hello = frame;
      void this.open(frame.userId);
      return;
    }
    this.failed(new UserChangedError(frame.userId));
    this.pausedBy = "auth";
    this.socket.stop("paused");
    this.changed();
  }

  /** Closes the storage and forgets what was read from it. */
  private shut(): void {
    const { vault } = this;
    this.vault = undefined;
    this.hello = undefined;
    vault?.close();
    this.channel?.close();
    this.channel = undefined;
    this.queue.close();
    this.steps.clear();
    this.presences.clear();
    this.cache.clear();
    this.sync.close();
  }

  /** Another tab has signed out and removed everything. */
  private removed(): void {
    this.pausedBy = "auth";
    this.end();
  }

  /** The client does nothing any more. */
  private end(): void {
    if (this.closed) return;
    this.closed = true;
    for (const end of this.ends) end();
    this.socket.stop();
    this.shut();
    this.changed();
  }

  private take(frame: ServerFrame): void {
    if (frame.type === "presence") this.presences.take(frame);
    else if (frame.type === "broadcast") this.presences.hear(frame);
    else this.sync.take(frame);
  }

  private wake(): void {
    if (this.closed) return;
    if (this.pausedBy === "auth") this.resume();
    this.socket.wake();
    this.sync.retryNow();
    void this.queue
      .reconcile()
      .catch((error) => this.failed(error))
      .then(() => this.queue.wake());
  }

  private pause(why: "auth" | "upgrade"): void {
    if (this.pausedBy) return;
    this.pausedBy = why;
    if (why === "auth" && !this.lastError) this.lastError = new NeedsAuthError();
    this.socket.stop("paused");
    this.changed();
  }

  /** Something went wrong; undefined: something went well again. */
  private failed(error: unknown): void {
    if (error === undefined && !this.lastError) return;
    this.lastError =
      error === undefined
        ? null
        : error instanceof RowcastError
          ? error
          : new RowcastError("internal", `Unexpected: ${String(error)}.`, { cause: error });
    this.changed();
  }

  private changed(): void {
    // Called from constructors of parts, before all of them are there.
    if (!this.statusCell) return;
    const status = this.computeStatus();
    const before = this.statusCell.getSnapshot();
    const names = Object.keys(status) as (keyof Status)[];
    if (names.some((name) => status[name] !== before[name])) this.statusCell.set(status);
    this.sync.refreshStatus();
    this.stir();
  }

  private computeStatus(): Status {
    const online = this.socket.state === "open";
    const needsAuth = this.pausedBy === "auth";
    const pending = this.queue.size;
    return {
      userId: this.user,
      state: needsAuth ? "needs-auth" : !online ? "offline" : pending ? "syncing" : "online",
      online,
      pending,
      rejected: this.rejected?.getSnapshot().length ?? 0,
      needsAuth,
      durable: this.vault?.store.durable ?? false,
      upgrade: this.pausedBy === "upgrade",
      lastError: this.lastError,
    };
  }

  private see(direction: "in" | "out", frame: ClientFrame | ServerFrame): void {
    // Tokens are nobody's to look at.
    const shown = "token" in frame ? { ...frame, token: "..." } : frame;
    this.frames.push({ at: this.runtime.now(), direction, frame: shown });
    if (this.frames.length > FRAMES) this.frames.shift();
    this.stir();
  }

  private stir(): void {
    this.debugState = undefined;
    this.cache.batch.changed(this.debugListeners);
  }

  private describe(): DebugState {
    return {
      socket: this.socket.state,
      userId: this.user,
      epoch: this.vault?.epoch,
      cursor: this.vault?.cursor,
      ...this.sync.describe(),
      pending: this.cache.pending.map(({ tx, attempted }) => ({
        txId: tx.txId,
        operations: tx.operations,
        attempted,
      })),
      rejected: this.rejected.getSnapshot(),
      frames: [...this.frames],
    };
  }
}

function handle({ pending, saved, confirmed }: Written): WriteHandle {
  return {
    get txId() {
      return pending.tx.txId;
    },
    get saved() {
      return saved.get();
    },
    get confirmed() {
      return confirmed.get();
    },
    // biome-ignore lint/suspicious/noThenProperty: awaiting a write waits until it is stored
    then: (done, failed) => saved.get().then(done, failed),
  };
}

function defaultStorage(): Storage {
  return typeof indexedDB === "undefined" ? memoryStorage() : indexedDbStorage();
}

/** Makes a client. It opens what this device has kept, shows it, and connects. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}
