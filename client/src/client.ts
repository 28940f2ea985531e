import type { ServerChange } from "./cache.js";
import { Core } from "./core.js";
import type { Engine } from "./engine.js";
import {
  ClosedError,
  InvalidOperationError,
  InvalidQueryError,
  type RowcastError,
} from "./errors.js";
import { compileWhere } from "./filters.js";
import type { Json, RecordData } from "./json.js";
import type { KeyInfo } from "./keys.js";
import { checkTransaction } from "./operations.js";
import type { Broadcast, Peer, PresenceState } from "./presence.js";
import type { QuerySpec, QueryState } from "./query.js";
import { listen, type Readable } from "./readable.js";
import type { Runtime } from "./runtime.js";
import type { Schema } from "./schema.js";
import type { SocketState } from "./socket.js";
import type { History, UndoResult } from "./steps.js";
import type { Storage } from "./storage.js";
import type { QueryInfo } from "./sync.js";
import type { Tabs } from "./tabs.js";
import type { Auth, Transport } from "./transport.js";
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
import type {
  ClientFrame,
  Key,
  ServerFrame,
  Transaction,
  Operation as WireOperation,
} from "./wire.gen.js";
import type { Receipt, Rejected, Written } from "./written.js";

/** What keeps more of the user on this device than the client does, as uploads do. */
export interface ClientPart {
  /** How much of it is nowhere else: signing out asks before that is lost. */
  unsent(): number | Promise<number>;
  /** The client has ended, and so does this. `remove`: the user has signed out, and what is kept of him goes. */
  end(remove: boolean): unknown;
}

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

const NOBODY: readonly Peer[] = [];
const NOTHING: DebugState = {
  socket: "idle",
  userId: undefined,
  epoch: undefined,
  cursor: undefined,
  keys: [],
  queries: [],
  pending: [],
  rejected: [],
  frames: [],
};

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

  private readonly core: Core;

  constructor(options: ClientOptions) {
    const core = new Core(options);
    this.core = core;
    this.schema = options.schema;
    this.status = core.status;
    this.rejected = core.rejected;
    this.history = core.steps.history;
    this.debug = {
      subscribe: (listener) => listen(core.onlookers, listener),
      getSnapshot: () => {
        core.cache.settle();
        core.debugState ??= core.engine?.describe() ?? NOTHING;
        return core.debugState;
      },
    };
  }

  // --- reading ---

  /** A record: undefined while nothing is known of it, null where it is not there. Loaded and live while subscribed. */
  record<T extends TableName>(table: T, id: string): Readable<RecordOf<T> | null | undefined>;
  record<T extends object = never>(table: TableFor<T>, id: string): Readable<T | null | undefined>;
  record(table: string, id: string): Readable<RecordData | null | undefined> {
    const { cache, views } = this.core;
    this.check(table);
    return {
      subscribe: (listener) => views.subscribeRecord(cache.slot(table, id), listener),
      getSnapshot: () => this.core.read(table, id),
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
    const { core } = this;
    const { views } = core;
    const load = views.query({
      table,
      where: where as QuerySpec["where"],
      orderBy,
      limit,
      include,
    });
    return {
      subscribe: (listener) => views.subscribeQuery(load, listener),
      getSnapshot: () => views.snapshot(load),
      loadMore: () => core.use(({ sync }) => sync.loadMore(views.revive(load))),
      refetch: () => core.use(({ sync }) => sync.refetch(views.revive(load))),
    };
  }

  /** The server's records that match, without pending writes, and their changes. Live while subscribed. */
  serverStream<T extends TableName>(table: T, where?: Where<T>): ServerStream<RecordOf<T>>;
  serverStream<T extends object = never>(table: TableFor<T>, where?: WhereFor<T>): ServerStream<T>;
  serverStream(table: string, where?: object): ServerStream<RecordData> {
    this.check(table);
    const { cache, streams, views } = this.core;
    const filter = where as QuerySpec["where"];
    const match = compileWhere(cache.table(table).schema, filter);
    const matching = (record: RecordData | null | undefined) =>
      record && match(record) ? record : undefined;
    return {
      subscribe(listener) {
        const load = views.query({ table, where: filter });
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
        const end = views.subscribeQuery(load, () => {
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
    const { core } = this;
    const { expect, undo, group } = options;
    const given = {
      txId: core.newId(),
      operations: (Array.isArray(operations) ? operations : [operations]) as WireOperation[],
      ...(expect && { expect }),
    };
    const context = core.context(given.txId);
    const problem = checkTransaction(given, context);
    if (problem) throw new InvalidOperationError(problem);
    // As JSON, and a copy: what is queued does not change when the caller goes on working with his objects.
    const tx: Transaction = JSON.parse(JSON.stringify(given));
    const { operations: done } = tx;
    const before = undo === false ? undefined : core.steps.before(done);
    const written = core.write(tx, context.now);
    const { pending } = written;
    const at = core.runtime.now();
    if (before) core.steps.push({ pending, operations: done, before, context, group, at });
    core.cache.batch.tellNow();
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
    if (typeof name === "string") this.core.steps.grouped(name, work ?? (() => {}));
    else this.core.steps.grouped(Symbol(), name);
  }

  /** Takes back this tab's last step, as far as nobody has interfered. Null where there is none. */
  undo(): Promise<UndoResult | null> {
    return this.core.steps.take("undo");
  }

  /** Does again what was undone last. Null where there is none. */
  redo(): Promise<UndoResult | null> {
    return this.core.steps.take("redo");
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
    const ids = [id].flat();
    const given = changes as Parameters<Engine["retry"]>[1];
    return (await this.core.use((engine) => engine.retry(ids, given))).map(handle);
  }

  /** Forgets refused writes. */
  discard(id: string | readonly string[]): Promise<void> {
    return this.core.use(({ queue }) => queue.discard([id].flat()));
  }

  // --- what is not live ---

  /**
   * POSTs JSON to the gateway as this client does and gives the answer's JSON, neither cached nor repeated. Rejects with
   * NetworkError, HttpError, NeedsAuthError or ClosedError.
   */
  async request(path: string, body: unknown): Promise<unknown> {
    if (this.core.closed) throw new ClosedError();
    return this.core.use((engine) => engine.request(path, body));
  }

  // --- presence ---

  /** The others under the key of a record (`tasks:<id>`), while subscribed. */
  presence(key: Key): Readable<readonly Peer[]> {
    const { core } = this;
    return {
      getSnapshot: () => core.engine?.presences.peers(key).getSnapshot() ?? NOBODY,
      subscribe: (listener) =>
        core.until(({ presences }) => presences.peers(key).subscribe(listener)),
    };
  }

  /** What the others see of this tab under a record's key, at most 4 KiB; null leaves. */
  setPresence(key: Key, state: PresenceState | null): void {
    this.core.until(({ presences }) => {
      presences.show(key, state);
      return undefined;
    });
  }

  /** Sends an event to the others under a record's key, at most 16 KiB. False where there is no connection. */
  broadcast(key: Key, event: string, payload: Json = null): boolean {
    return this.core.engine?.presences.broadcast(key, event, payload) === true;
  }

  /** Calls back for events of the others. Gives what ends it. */
  onBroadcast(key: Key, listener: (event: Broadcast) => void): () => void {
    return this.core.until(({ presences }) => presences.onBroadcast(key, listener));
  }

  // --- the end ---

  /**
   * Tries again after a new sign-in of the same user, or after an update. The status changes once the server has let the
   * user in.
   */
  resume(): void {
    this.core.engine?.resume();
  }

  /** Ends something together with the client, and has it asked and told when the user signs out. */
  attach(part: ClientPart): void {
    this.core.parts.push(part);
  }

  /**
   * Removes what is kept of the user, in all tabs, and closes. With "ask" (the default) it throws PendingWritesError
   * where writes are not confirmed, or files not sent; "keep" leaves those for the next sign-in of the same user, "discard"
   * does not.
   */
  async signOut({ pending = "ask" }: { pending?: "ask" | "keep" | "discard" } = {}): Promise<void> {
    if (this.core.closed) throw new ClosedError();
    await this.core.use((engine) => engine.signOut(pending));
  }

  /** Lets go of everything; what is stored stays. */
  async close(): Promise<void> {
    const { core } = this;
    if (core.closed) return;
    await core.use((engine) => engine.close()).catch(core.failed);
    core.end();
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

/** Makes a client. It opens what this device has kept, shows it, and connects. */
export function createClient(options: ClientOptions): Client {
  return new Client(options);
}
