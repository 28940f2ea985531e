import { type Cache, type Origin, placeOf, type ServerChange, type Slot } from "./cache.js";
import { RowcastError } from "./errors.js";
import type { RecordData } from "./json.js";
import { isObject } from "./json.js";
import { LiveQuery, type QuerySpec, type QueryState, type QueryStatus, queryId } from "./query.js";
import { listen } from "./readable.js";
import { backoff, type Runtime } from "./runtime.js";
import type { Socket } from "./socket.js";
import type { Change } from "./storage.js";
import { type Http, HttpError, isTransient, NeedsAuthError, NetworkError } from "./transport.js";
import { type KeyRow, type Loaded, type QueryRow, type Vault, vouches } from "./vault.js";
import {
  CLOSE_UPGRADE,
  type Cursor,
  type FrameId,
  type GetRecordsAnswer,
  type Key,
  type QueryAnswer,
  type QueryBody,
  type ServerFrame,
  type StaleFrame,
  type SubscribedFrame,
} from "./wire.gen.js";

/** How a key stands on the present connection. */
export type KeyStatus = "off" | "joining" | "live" | "refused";

/** A key somebody needs, or needed. */
interface KeyState {
  readonly key: Key;
  users: number;
  status: KeyStatus;
  /** Everything before it has been taken in; undefined: nothing is known under this key. While live, the socket's. */
  cursor: Cursor | undefined;
  /** The tick from which on nothing under this key is missed, and that of the read it began with. */
  since: number | undefined;
  from: number;
  /** Changes from now on are enough: nothing is read under it. */
  fromNow: boolean;
  /** Its queries have to be run again, since a tick. */
  stale: boolean;
  staleAt: number;
  /** The subscription under way. */
  frame: FrameId | undefined;
  /** Whose knowledge the cursor is, if not this tab's. */
  origin: { tab: string; boot: number } | undefined;
  used: number;
  /** Another tab has removed it from storage with its records: it is not stored again. */
  lost: boolean;
}

/** A query somebody looks at, and how far it is loaded. */
interface Load {
  readonly query: LiveQuery;
  /** Complete as of the cursors of its keys. */
  loaded: boolean;
  loading: boolean;
  /** Has to be run again after the present run. */
  again: boolean;
  /** Has to be run as soon as something can be read. */
  due: boolean;
  /** Read again whole, whatever versions are held. */
  whole: boolean;
  error: RowcastError | undefined;
  keys: readonly Key[];
  next: string | undefined;
  count: number;
  filled: number;
  /** Ticks: when its last run was sent and taken in. */
  sentAt: number;
  takenAt: number;
  running: boolean;
  release: (() => void) | undefined;
}

/** Somebody looks at one record. */
interface Watch {
  readonly slot: Slot;
  users: number;
  /** Whether it holds the record's own key: no other key covers the record. */
  own: boolean;
  release: (() => void) | undefined;
}

/** What the engine around has to say and to hear. */
export interface SyncHost {
  /** Whether the server may be asked: it is known who asks. */
  ready(): boolean;
  /** Nothing is sent or read until `resume`. */
  pause(why: "auth" | "upgrade"): void;
  /** Something went wrong that the app may want to know; undefined: it went well again. */
  failed(error: unknown): void;
  joined(key: Key): void;
  /** What `describe` tells may be something else now. */
  stirred(): void;
}

const RELEASE_MS = 5000;
const MONTH = 30 * 86_400_000;
const PAGE = 1000;
const MAX_HAVE = 10_000;
/** Queries whose results are known to be complete. */
const MAX_KNOWN = 500;
const MAX_POINTERS = 1000;
const FRAME_CHARACTERS = 20_000;

/** Keeps keys subscribed, queries loaded and records fetched. */
export class Sync {
  private readonly keys = new Map<Key, KeyState>();
  private readonly loads = new Map<string, Load>();
  private readonly watches = new Map<Slot, Watch>();
  /** Queries nobody looks at whose results are complete as of their keys' cursors. */
  private readonly known = new Map<string, QueryRow>();
  private readonly wants = new Set<Slot>();
  private fetching = false;
  private scheduled = false;
  private failures = 0;
  private stopRetry: (() => void) | undefined;
  private vault: Vault | undefined;
  /** Counts users: what was asked for an earlier one is dropped. */
  private generation = 0;

  constructor(
    private readonly cache: Cache,
    private readonly http: Http,
    private readonly socket: Socket,
    private readonly runtime: Runtime,
    private readonly host: SyncHost,
  ) {}

  // --- storage ---

  /** Takes in what storage holds and keeps it from now on. */
  open(vault: Vault, loaded: Loaded): void {
    const { cache, runtime } = this;
    this.vault = vault;
    vault.relieve = () => this.relieve();
    vault.lost = (key) => this.lose(key);
    for (const [key, { record, want, tab, commit, epoch }] of loaded.records) {
      const slot = cache.slotOfKey(key);
      if (!slot || slot.server !== undefined) continue;
      cache.restore(slot, record, { tab, commit }, epoch !== loaded.epoch);
      if (want) cache.want(slot);
    }
    for (const [key, row] of loaded.keys) {
      const state = this.state(key);
      state.used = row.used;
      if (row.cursor === undefined || row.epoch !== loaded.epoch || state.cursor !== undefined)
        continue;
      state.cursor = row.cursor;
      state.since = 0;
      state.stale = row.stale === true;
      state.origin = { tab: row.tab, boot: row.boot };
    }
    for (const [id, row] of loaded.queries) this.known.set(id, row);
    const old = [...this.keys.values()].filter(
      (key) => !key.users && key.used < runtime.now() - MONTH,
    );
    if (old.length) vault.flush(this.evict(old)).catch((error) => this.host.failed(error));
    for (const load of this.loads.values()) if (load.running) this.begin(load);
    for (const watch of this.watches.values()) this.ensure(watch);
    this.schedule();
  }

  /** Forgets all that belongs to a user; who looks keeps looking. */
  close(): void {
    this.generation++;
    this.vault = undefined;
    this.stopRetry?.();
    this.stopRetry = undefined;
    this.failures = 0;
    this.keys.clear();
    this.known.clear();
    this.wants.clear();
    this.fetching = false;
    for (const load of this.loads.values()) {
      load.loaded = load.loading = load.again = load.due = false;
      load.error = load.next = undefined;
      load.keys = [];
      load.count = load.filled = load.sentAt = load.takenAt = 0;
      load.query.bound(undefined, false);
    }
    for (const watch of this.watches.values()) watch.own = false;
    for (const hold of this.holds) this.acquire(hold.key, true);
    this.schedule();
  }

  /** What is to be removed so that there is room again: the half of the unused keys that was used longest ago. */
  private relieve(): Change[] {
    const unused = [...this.keys.values()]
      .filter((key) => !key.users && key.used)
      .sort((a, b) => a.used - b.used);
    return this.evict(unused.slice(0, Math.ceil(unused.length / 2)));
  }

  /** Forgets keys, the queries that rest on them, and the records that no other key covers. */
  private evict(keys: readonly KeyState[]): Change[] {
    const changes: Change[] = [];
    const gone = new Set(keys.map(({ key }) => key));
    for (const key of gone) {
      this.keys.delete(key);
      changes.push({ store: "keys", key, remove: true });
    }
    for (const [id, row] of this.known) {
      if (!row.keys.some((key) => gone.has(key))) continue;
      this.known.delete(id);
      changes.push({ store: "queries", key: id, remove: true });
    }
    for (const table of this.cache.all()) {
      for (const slot of [...table.slots.values()]) {
        const { server } = slot;
        if (server === undefined || slot.parts.length || slot.listeners.size || slot.want) continue;
        if (server && this.cache.keysOf(slot, server).some((key) => this.keys.has(key))) continue;
        changes.push({ store: "records", key: slot.key, remove: true });
        this.cache.forget(slot);
      }
    }
    return changes;
  }

  private lose(key: Key): void {
    const state = this.keys.get(key);
    if (state) state.lost = true;
  }

  private keep(state: KeyState): void {
    const { vault } = this;
    if (!vault || state.lost) return;
    if (state.cursor === undefined && state.status !== "live") vault.keys.set(state.key, null);
    else {
      const { tab, boot, epoch } = vault;
      const row: KeyRow = { tab, boot, epoch, used: state.used, ...state.origin };
      if (state.status !== "live" && state.cursor !== undefined) row.cursor = state.cursor;
      if (state.stale) row.stale = true;
      vault.keys.set(state.key, row);
    }
    vault.save();
  }

  private forgetQuery(id: string): void {
    this.known.delete(id);
    this.vault?.queries.set(id, null);
    this.vault?.save();
  }

  // --- keys ---

  private readonly holds = new Set<{ key: Key }>();

  /** Subscribes to a key for its changes alone. Gives what lets go of it. */
  hold(key: Key): () => void {
    const hold = { key };
    this.holds.add(hold);
    this.acquire(key, true);
    return () => {
      if (!this.holds.delete(hold)) return;
      this.runtime.later(() => this.release(key), RELEASE_MS);
    };
  }

  private state(key: Key): KeyState {
    let state = this.keys.get(key);
    if (!state) {
      state = {
        key,
        users: 0,
        status: "off",
        cursor: undefined,
        since: undefined,
        from: 0,
        fromNow: false,
        stale: false,
        staleAt: -1,
        frame: undefined,
        origin: undefined,
        used: 0,
        lost: false,
      };
      this.keys.set(key, state);
    }
    return state;
  }

  private acquire(key: Key, fromNow = false): KeyState {
    const state = this.state(key);
    state.users++;
    state.fromNow ||= fromNow;
    state.used = this.runtime.now();
    this.schedule();
    return state;
  }

  private release(key: Key): void {
    const state = this.keys.get(key);
    if (!state || --state.users > 0) return;
    state.users = 0;
    state.fromNow = false;
    state.used = this.runtime.now();
    if (state.status === "live" || state.status === "joining") {
      this.socket.send({ type: "unsubscribe", id: this.socket.nextId(), keys: [key] });
    }
    this.off(state);
    for (const watch of this.watches.values()) this.ensure(watch);
  }

  /** A key is not live any more: from here on its own cursor counts. */
  private off(state: KeyState): void {
    if (state.status === "live") state.cursor = this.vault?.cursor ?? state.cursor;
    state.status = "off";
    state.frame = undefined;
    if (state.cursor === undefined) state.since = undefined;
    this.keep(state);
  }

  /** Does in one go, in the next microtask, what has come together. */
  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      this.subscribe();
      if (this.wants.size) void this.fetch();
      for (const state of this.keys.values()) if (state.stale) this.clearStale(state);
      this.refreshStatus();
      this.host.stirred();
    });
  }

  private subscribe(): void {
    if (this.socket.state !== "open" || !this.vault) return;
    const groups = new Map<Cursor | undefined, KeyState[]>();
    for (const state of this.keys.values()) {
      if (!state.users || state.status !== "off") continue;
      if (state.cursor === undefined && !state.fromNow) continue;
      const group = groups.get(state.cursor);
      if (group) group.push(state);
      else groups.set(state.cursor, [state]);
    }
    for (const [cursor, states] of groups) {
      while (states.length) {
        const id = this.socket.nextId();
        const keys: Key[] = [];
        let room = FRAME_CHARACTERS;
        while (states.length && room > 0) {
          const state = states.pop() as KeyState;
          keys.push(state.key);
          room -= state.key.length;
          state.status = "joining";
          state.frame = id;
        }
        this.socket.send({ type: "subscribe", id, keys, ...(cursor !== undefined && { cursor }) });
      }
    }
  }

  // --- frames ---

  /** The connection is open, in this epoch. */
  opened(epoch: string): void {
    const { vault } = this;
    if (!vault) return;
    if (vault.epoch !== epoch) {
      if (vault.epoch !== undefined) this.startEpoch();
      vault.epoch = epoch;
      vault.save();
    }
    vault.cursor = undefined;
    this.retryNow();
  }

  /** The connection has ended. */
  closed(): void {
    for (const state of this.keys.values()) if (state.status !== "off") this.off(state);
    this.schedule();
  }

  /** It is worth trying again at once. */
  retryNow(): void {
    this.stopRetry?.();
    this.stopRetry = undefined;
    for (const load of this.loads.values()) {
      if (load.due && load.running && !load.loading) void this.load(load);
    }
    this.schedule();
  }

  /** Another epoch: every cursor is void, versions mean nothing, everything in use is read again. */
  private startEpoch(): void {
    this.cache.age();
    for (const state of this.keys.values()) {
      state.cursor = state.since = state.origin = undefined;
      state.stale = false;
      this.keep(state);
    }
    for (const id of [...this.known.keys()]) this.forgetQuery(id);
    for (const load of this.loads.values()) {
      load.loaded = false;
      if (load.running) this.reload(load);
    }
    for (const { slot } of this.watches.values()) this.cache.want(slot);
  }

  /** Takes in a frame of the open connection. */
  take(frame: ServerFrame): void {
    const { vault } = this;
    if (!vault) return;
    switch (frame.type) {
      case "updates": {
        const tick = this.cache.next();
        for (const update of frame.updates) this.cache.takeUpdate(update, tick);
        vault.cursor = frame.cursor;
        vault.save();
        break;
      }
      case "subscribed":
        this.subscribed(frame);
        break;
      case "stale":
        if (frame.epoch && frame.epoch !== vault.epoch) {
          // As after a reconnect: every key is read, then joined anew.
          this.closed();
          this.opened(frame.epoch);
        } else this.stale(frame.keys, frame.reason);
        break;
      case "pong":
        if (frame.cursor) {
          vault.cursor = frame.cursor;
          vault.save();
        }
        break;
      case "error":
        this.refused(frame.id);
        break;
    }
  }

  private subscribed({ id, cursor, versions, stale, errors }: SubscribedFrame): void {
    const tick = this.cache.next();
    const { vault } = this;
    const refused = new Map(errors?.map(({ key, code }) => [key, code]));
    if (cursor && vault) vault.cursor = cursor;
    for (const state of this.keys.values()) {
      if (state.frame !== id) continue;
      const { key, origin } = state;
      state.frame = undefined;
      const code = refused.get(key);
      if (code) {
        state.status = "refused";
        this.host.failed(new RowcastError(code, `The key ${key} cannot be subscribed to.`));
        continue;
      }
      state.status = "live";
      if (state.since === undefined) state.since = state.from = tick;
      if (origin) this.doubt(key, origin);
      state.origin = undefined;
      this.keep(state);
      this.host.joined(key);
      const slot = this.cache.slotOfKey(key);
      const version = versions[key];
      // Held and not readable: a change that told so was missed, or it says so in a moment. Asked for, it is certain.
      if (slot && (version !== undefined ? slot.version !== version : slot.server)) {
        if (this.watches.has(slot) || slot.server) this.cache.want(slot);
      }
    }
    if (stale?.length) this.stale(stale, "behind");
    this.schedule();
  }

  /** A subscription failed: its keys are tried again before long. */
  private refused(id: FrameId | undefined): void {
    if (id === undefined) return;
    for (const state of this.keys.values()) {
      if (state.frame !== id) continue;
      state.status = "off";
      state.frame = undefined;
      this.retryLater();
    }
  }

  /** Rows under a resumed key that the tab whose cursor it is does not vouch for have to be fetched. */
  private doubt(key: Key, by: { tab: string; boot: number }): void {
    const place = placeOf(this.cache.schema, key);
    if (!place) return;
    const table = this.cache.table(place.table);
    const ask = (slot: Slot) => {
      if (slot.origin && !vouches(by, slot.origin)) this.cache.want(slot);
    };
    for (const slot of table.under([key])) ask(slot);
    for (const slot of table.slots.values()) if (slot.server === null) ask(slot);
  }

  private stale(keys: readonly Key[], reason: StaleFrame["reason"]): void {
    const tick = this.cache.next();
    const marked = new Set(keys);
    for (const key of keys) {
      const state = this.state(key);
      state.stale = true;
      state.staleAt = state.from = tick;
      this.keep(state);
    }
    for (const [id, row] of this.known) {
      if (!this.loads.has(id) && row.keys.some((key) => marked.has(key))) this.forgetQuery(id);
    }
    for (const load of this.loads.values()) {
      if (!load.keys.some((key) => marked.has(key))) continue;
      load.whole ||= reason === "schema";
      this.reload(load);
    }
    for (const key of keys) {
      const place = placeOf(this.cache.schema, key);
      if (!place) continue;
      if (place.id !== undefined) {
        this.cache.want(this.cache.slot(place.table, place.id));
        continue;
      }
      const table = this.cache.table(place.table);
      // What no query asks about again is fetched: all of it where it may have been lost, else what is looked at.
      const asked = [...this.loads.values()].filter((load) => load.keys.includes(key));
      for (const slot of [...table.under([key])]) {
        const { server } = slot;
        if (!server || asked.some(({ query }) => query.match(server))) continue;
        if (reason === "access" || this.watches.has(slot)) this.cache.want(slot);
      }
    }
    this.schedule();
  }

  /** A stale key is clear once everything in use under it was asked for after that. */
  private clearStale(state: KeyState): void {
    const { key } = state;
    for (const load of this.loads.values()) {
      if (load.keys.includes(key) && (load.sentAt < state.staleAt || load.loading)) return;
    }
    const slot = this.cache.slotOfKey(key);
    if (slot?.want) return;
    state.stale = false;
    this.keep(state);
  }

  /** Whether one of some keys went stale after a tick. */
  staleSince(keys: readonly Key[], tick: number): boolean {
    return keys.some((key) => (this.keys.get(key)?.staleAt ?? -1) > tick);
  }

  // --- queries ---

  /** A query that loads and stays live while somebody listens, and a little longer. */
  query(spec: QuerySpec): Load {
    const table = this.cache.table(spec.table).schema;
    const id = queryId(spec);
    const existing = this.loads.get(id);
    if (existing) return existing;
    const query = new LiveQuery(spec, table);
    const load: Load = {
      query,
      loaded: false,
      loading: false,
      again: false,
      due: false,
      whole: false,
      error: undefined,
      keys: [],
      next: undefined,
      count: 0,
      filled: 0,
      sentAt: 0,
      takenAt: 0,
      running: false,
      release: undefined,
    };
    return load;
  }

  /** The present result. */
  snapshot(asked: Load): QueryState {
    const { query } = this.revive(asked);
    this.cache.settle();
    return query.snapshot;
  }

  /** Loads a query and keeps it live while there are listeners. */
  subscribeQuery(asked: Load, listener: () => void): () => void {
    const load = this.revive(asked);
    const { query } = load;
    load.release?.();
    load.release = undefined;
    const end = listen(query.listeners, listener);
    if (!load.running) {
      load.running = true;
      if (this.vault) this.begin(load);
    }
    return () => {
      end();
      if (!query.listeners.size) this.releaseLater(load);
    };
  }

  /** The one load of a query: this one, if there is none. */
  private revive(asked: Load): Load {
    const load = this.loads.get(asked.query.id) ?? asked;
    const { query } = load;
    if (query.attached) return load;
    this.loads.set(query.id, load);
    const row = this.known.get(query.id);
    if (row) {
      query.limit = row.limit ?? query.page;
      query.bound(row.boundary, row.next !== undefined);
    }
    this.cache.attach(query);
    query.mark(this.statusOf(load));
    query.refresh();
    this.releaseLater(load);
    return load;
  }

  private releaseLater(load: Load): void {
    load.release?.();
    load.release = this.runtime.later(() => {
      const { query } = load;
      this.loads.delete(query.id);
      this.cache.detach(query);
      load.running = false;
      load.release = undefined;
      if (load.loaded && !load.loading && !load.again) this.known.set(query.id, this.rowOf(load));
      load.loaded = false;
      const { keys } = load;
      load.keys = [];
      for (const key of keys) this.release(key);
      for (const watch of this.watches.values()) this.ensure(watch);
    }, RELEASE_MS);
  }

  /** Resumes a query by its keys' cursors where its stored result is complete, else reads it. */
  private begin(load: Load): void {
    const { query } = load;
    const row = this.known.get(query.id);
    if (row?.keys.every((key) => this.isResumable(key, row))) {
      query.limit = row.limit ?? query.page;
      load.next = row.next;
      load.count = row.count;
      load.keys = row.keys;
      for (const key of row.keys) this.acquire(key);
      query.bound(row.boundary, row.next !== undefined);
      this.cache.recount(query);
      load.filled = load.count;
      load.loaded = true;
      load.sentAt = load.takenAt = this.cache.next();
      this.keepQuery(load);
      this.cache.queryChanged(query);
      this.schedule();
    } else void this.load(load);
  }

  private isResumable(key: Key, row: Origin): boolean {
    const state = this.keys.get(key);
    if (!state || state.stale || state.since === undefined || state.status === "refused")
      return false;
    return state.origin
      ? vouches(state.origin, row)
      : state.cursor !== undefined || state.status === "live";
  }

  private rowOf({ query, keys, count, next }: Load): QueryRow {
    const { limit, boundary } = query;
    const tab = this.vault?.tab ?? "";
    return {
      tab,
      commit: 0,
      keys,
      limit: query.windowed ? limit : null,
      count,
      next,
      boundary,
    };
  }

  private keepQuery(load: Load): void {
    const { id } = load.query;
    const row = this.rowOf(load);
    this.known.delete(id);
    this.known.set(id, row);
    this.vault?.queries.set(id, row);
    this.vault?.save();
    const [oldest] = this.known.keys();
    if (this.known.size > MAX_KNOWN && oldest !== undefined) this.forgetQuery(oldest);
  }

  /** Shows more rows of a window. */
  async loadMore(asked: Load): Promise<void> {
    const load = this.revive(asked);
    const { query } = load;
    if (!query.windowed) return;
    query.limit += query.page;
    query.bound(query.boundary, query.hasMore);
    this.cache.queryChanged(query);
    if (load.loaded && load.next === undefined) this.keepQuery(load);
    else await this.load(load, true);
  }

  /** Reads a query again. */
  async refetch(asked: Load): Promise<void> {
    await this.load(this.revive(asked));
  }

  private reload(load: Load): void {
    if (load.running) void this.load(load);
    else load.loaded = false;
  }

  private async load(load: Load, more = false): Promise<void> {
    const { query } = load;
    if (load.loading) {
      load.again = true;
      return;
    }
    if (!this.vault || !this.host.ready()) {
      load.due = true;
      return;
    }
    const { generation } = this;
    load.loading = true;
    load.due = load.again = false;
    if (load.error) {
      load.error = undefined;
      this.schedule();
    }
    try {
      await this.run(load, more && load.loaded, generation);
      if (generation !== this.generation) return;
      this.failures = 0;
      this.host.failed(undefined);
    } catch (error) {
      if (generation !== this.generation) return;
      if (this.isFinal(error)) load.error = error as RowcastError;
      else {
        load.due = true;
        this.retryLater(error);
      }
    } finally {
      if (generation === this.generation) {
        load.loading = false;
        this.schedule();
      }
    }
    if (load.again && query.attached) await this.load(load);
  }

  /** Reads the pages of a query up to its limit. */
  private async run(load: Load, more: boolean, generation: number): Promise<void> {
    const { cache } = this;
    const { query, whole } = load;
    const { table, where, orderBy, include } = query.spec;
    const first = cache.next();
    const held = this.heldOf(query);
    const asked = new Map<string, RecordData>();
    // Found, and as what.
    const ids = new Map<string, RecordData | undefined>();
    const keys = new Set<Key>(more ? load.keys : []);
    const from = more ? query.boundary : undefined;
    let after = more ? load.next : undefined;
    let count = more ? load.count : 0;
    let boundary = from;
    let cursor: Cursor | undefined;
    do {
      const limit = Math.min(PAGE, query.limit - count);
      const body: QueryBody = { table, limit };
      if (where) body.where = where as NonNullable<QueryBody["where"]>;
      if (orderBy) body.orderBy = orderBy;
      if (include) body.include = include;
      if (after !== undefined) body.after = after;
      const have = this.haveOf(query, held, boundary, ids, after === undefined, limit);
      body.have = Object.fromEntries(
        have.map(({ id, server, version }) => {
          asked.set(id, server as RecordData);
          return [id, whole ? 0 : version];
        }),
      );
      const sent = cache.next();
      const answer = readQuery(await this.http.post("/api/realtime/query", body));
      if (generation !== this.generation || !query.attached) return;
      if (sent < cache.epochAt) {
        load.again = true;
        return;
      }
      cache.takeMap(answer.recordMap, sent);
      for (const place of answer.gone) {
        const slot = cache.slotOf(place.table, place.id);
        if (slot) cache.takeRead(slot, null, sent);
      }
      const map = answer.recordMap[table];
      for (const slot of have) {
        if (!map?.[slot.id] && slot.server && !whole) cache.confirm(slot, sent);
      }
      for (const id of answer.ids) {
        const said = map?.[id] ?? asked.get(id);
        ids.set(id, said);
        const slot = cache.slot(table, id);
        if (!slot.server) cache.want(slot);
        boundary = said ?? slot.server ?? boundary;
      }
      count += answer.ids.length;
      after = answer.next ?? undefined;
      cursor ??= answer.cursor;
      for (const key of answer.keys) keys.add(key);
    } while (after !== undefined && count < query.limit);
    if (query.windowed)
      query.bound(after === undefined ? undefined : boundary, after !== undefined);
    // Held, within reach, and neither found nor asked about: it came in meanwhile, or there was no room to ask.
    for (const slot of [...cache.serverUnder(query)]) {
      const server = slot.server as RecordData;
      if (ids.has(slot.id) || asked.has(slot.id) || !query.reaches(server)) continue;
      if (from && query.compare(server, from) <= 0) continue;
      cache.want(slot);
    }
    load.next = after;
    load.count = count;
    load.sentAt = first;
    load.takenAt = cache.next();
    if (whole) load.whole = false;
    load.loaded = true;
    this.rest(load, [...keys], cursor as Cursor, first);
    cache.recount(query);
    load.filled = count;
    // What was found has left the window already.
    for (const [id, said] of query.hasMore ? ids : []) {
      const { server, want } = cache.slot(table, id);
      if (!query.inside.has(id) && server !== said && !want) load.again = true;
    }
    this.keepQuery(load);
    cache.queryChanged(query);
  }

  /** The slots that match, in order. */
  private heldOf(query: LiveQuery): Slot[] {
    return [...this.cache.serverUnder(query)].sort((a, b) =>
      query.compare(a.server as RecordData, b.server as RecordData),
    );
  }

  /** What to say one has: on a first page all within reach, later what may follow. */
  private haveOf(
    query: LiveQuery,
    held: readonly Slot[],
    boundary: RecordData | undefined,
    seen: ReadonlyMap<string, unknown>,
    first: boolean,
    limit: number,
  ): Slot[] {
    const rest = held.filter(
      ({ id, server }) =>
        server &&
        !seen.has(id) &&
        (first ? query.reaches(server) : !boundary || query.compare(server, boundary) > 0),
    );
    const most = first && (!query.windowed || query.boundary) ? MAX_HAVE : 2 * limit;
    return rest.slice(0, Math.min(most, MAX_HAVE));
  }

  /** A query rests on these keys from now on. What was read before a key's coverage began has to be read again. */
  private rest(load: Load, keys: readonly Key[], cursor: Cursor, sent: number): void {
    const before = load.keys;
    load.keys = keys;
    for (const key of keys) {
      const state = this.state(key);
      if (!before.includes(key)) this.acquire(key);
      if (state.since === undefined) this.cover(state, cursor, sent);
      else if (state.since > sent) load.again = true;
      if (state.staleAt > sent) load.again = true;
    }
    for (const key of before) if (!keys.includes(key)) this.release(key);
    this.schedule();
  }

  private cover(state: KeyState, cursor: Cursor, from: number): void {
    state.cursor = cursor;
    state.from = from;
    state.since = this.cache.next();
    state.origin = undefined;
    this.keep(state);
  }

  private statusOf(load: Load): QueryStatus {
    const { query, keys } = load;
    if (load.error) return "error";
    const states = keys.map((key) => this.keys.get(key));
    const live = states.every((state) => state?.status === "live" && !state.stale);
    if (load.loaded && keys.length && live) return "live";
    const offline =
      this.socket.state !== "open" && (this.socket.failures > 0 || !this.runtime.online());
    if (load.loaded || this.known.has(query.id) || query.snapshot.data.length) {
      return offline ? "offline" : "cached";
    }
    return offline ? "offline" : "loading";
  }

  /** Brings the status of every query up to date. */
  refreshStatus(): void {
    for (const load of this.loads.values()) {
      load.query.mark(this.statusOf(load), load.error);
      this.cache.queryChanged(load.query);
    }
  }

  // --- records ---

  /** Loads a record and keeps it live while there are listeners. */
  subscribeRecord(slot: Slot, listener: () => void): () => void {
    let watch = this.watches.get(slot);
    if (!watch) {
      watch = { slot, users: 0, own: false, release: undefined };
      this.watches.set(slot, watch);
    }
    const { release } = watch;
    release?.();
    watch.release = undefined;
    watch.users++;
    const end = listen(slot.listeners, listener);
    if (this.vault) this.ensure(watch);
    const held = watch;
    return () => {
      end();
      if (--held.users) return;
      held.release?.();
      held.release = this.runtime.later(() => {
        this.watches.delete(slot);
        if (held.own) this.release(slot.key);
      }, RELEASE_MS);
    };
  }

  /** A watched record is covered by some key: one that is there anyway, else its own. */
  private ensure(watch: Watch): void {
    const { slot } = watch;
    if (!watch.own) {
      if (this.isCovered(slot)) return;
      watch.own = true;
      this.acquire(slot.key);
    }
    const state = this.state(slot.key);
    if (state.since === undefined || slot.server === undefined) {
      this.cache.want(slot);
      // Whatever is on its way: the answer says from where on the key is covered.
      this.want(slot);
    }
  }

  /** A loaded query shows it, so that it is up to date and stays so. */
  private isCovered(slot: Slot): boolean {
    const { server, want } = slot;
    if (!server || want) return false;
    for (const query of this.cache.queriesOf(slot, server)) {
      const load = this.loads.get(query.id);
      if (
        load?.loaded &&
        query.reaches(server) &&
        load.keys.length &&
        !load.keys.some(this.isRefused)
      ) {
        return true;
      }
    }
    return false;
  }

  private isRefused = (key: Key): boolean => this.keys.get(key)?.status === "refused";

  /** Whether every change of a record since its copy was read has been told. */
  covers(slot: Slot, record: RecordData): boolean {
    return this.cache.keysOf(slot, record).some((key) => {
      const state = this.keys.get(key);
      return state?.users && state.since !== undefined && slot.changedAt >= state.from;
    });
  }

  /** The cache asks for a record. */
  want(slot: Slot): void {
    this.wants.add(slot);
    this.schedule();
  }

  /**
   * What an answer about one record says. A copy that a query which was read meanwhile did not bring may be out of date
   * already: it is shown, and asked for again.
   */
  takePointed(slot: Slot, record: RecordData | null, sent: number, txId?: string): void {
    const unknown = slot.server === undefined || slot.server === null;
    this.cache.takeRead(slot, record, sent, txId);
    if (!unknown || !record || slot.server !== record) return;
    const read = [...this.cache.queriesOf(slot, record)].map((query) => this.loads.get(query.id));
    if (read.some((load) => load && load.takenAt > sent)) this.cache.want(slot);
  }

  private async fetch(): Promise<void> {
    if (this.fetching || !this.vault || !this.host.ready() || this.stopRetry) return;
    const { generation } = this;
    this.fetching = true;
    try {
      while (this.wants.size) {
        const slots = [...this.wants].slice(0, MAX_POINTERS);
        for (const slot of slots) this.wants.delete(slot);
        try {
          await this.fetchSome(slots, generation);
        } catch (error) {
          if (generation !== this.generation) return;
          if (this.isFinal(error)) {
            for (const slot of slots) slot.wantedAt = 0;
            this.host.failed(error);
            continue;
          }
          for (const slot of slots) this.wants.add(slot);
          this.retryLater(error);
          return;
        }
        if (generation !== this.generation) return;
        this.failures = 0;
      }
    } finally {
      if (generation === this.generation) {
        this.fetching = false;
        this.schedule();
      }
    }
  }

  private async fetchSome(slots: readonly Slot[], generation: number): Promise<void> {
    const { cache } = this;
    const pointers = slots.map(({ table, id, server, version }) => ({
      table: table.name,
      id,
      ...(server && { version }),
    }));
    const sent = cache.next();
    const answer = readRecords(await this.http.post("/api/realtime/getRecords", { pointers }));
    if (generation !== this.generation) return;
    if (sent < cache.epochAt) {
      for (const slot of slots) this.wants.add(slot);
      return;
    }
    const gone = new Set(answer.gone.map(({ table, id }) => `${table}:${id}`));
    for (const slot of slots) {
      const { table, id, key } = slot;
      const record = answer.recordMap[table.name]?.[id];
      if (record) this.takePointed(slot, record, sent);
      else if (gone.has(`${table.name}:${id}`)) cache.takeRead(slot, null, sent);
      else if (slot.server) cache.confirm(slot, sent);
      // Something crossed it that is no answer to what was wanted.
      if (slot.want && slot.wantedAt <= sent) cache.want(slot);
      const state = this.keys.get(key);
      if (!state?.users) continue;
      if (state.since === undefined) this.cover(state, answer.cursor, sent);
      else if (state.since > sent && this.watches.get(slot)?.own) cache.want(slot);
    }
  }

  /** The server's copies of some records have changed. */
  changed(changes: readonly ServerChange[]): void {
    this.schedule();
    for (const { slot } of changes) {
      const watch = this.watches.get(slot);
      if (watch && !watch.own && this.vault) this.ensure(watch);
    }
    for (const load of this.loads.values()) {
      const { query } = load;
      if (query.hasMore && load.loaded && query.inside.size < load.filled && !load.loading) {
        this.reload(load);
      }
    }
  }

  // --- failures ---

  /** Whether asking again the same would be answered the same. Also tells of what pauses everything. */
  private isFinal(error: unknown): boolean {
    if (error instanceof NeedsAuthError) this.host.pause("auth");
    else if (error instanceof HttpError) {
      if (error.status === CLOSE_UPGRADE - 4000) this.host.pause("upgrade");
      else return error.problem !== undefined && !isTransient(error.status);
    } else if (!(error instanceof NetworkError)) this.host.failed(error);
    return false;
  }

  private retryLater(error?: unknown): void {
    if (this.stopRetry) return;
    const asked = error instanceof HttpError ? (error.retryAfter ?? 0) * 1000 : 0;
    this.stopRetry = this.runtime.later(
      () => this.retryNow(),
      Math.max(asked, backoff(this.runtime, this.failures++)),
    );
  }

  /** For those who look on. */
  describe(): { keys: KeyInfo[]; queries: QueryInfo[] } {
    return {
      keys: [...this.keys.values()].map(({ key, users, status, stale }) => ({
        key,
        users,
        status,
        stale,
      })),
      queries: [...this.loads.values()].map(({ query, loaded, loading, keys }) => ({
        id: query.id,
        status: query.snapshot.status,
        rows: query.snapshot.data.length,
        loaded,
        loading,
        keys,
      })),
    };
  }
}

/** A key as devtools show it. */
export interface KeyInfo {
  key: Key;
  users: number;
  status: KeyStatus;
  stale: boolean;
}

/** A query as devtools show it. */
export interface QueryInfo {
  id: string;
  status: QueryStatus;
  rows: number;
  loaded: boolean;
  loading: boolean;
  keys: readonly Key[];
}

export type { Load };

function unreadable(): never {
  throw new NetworkError("The answer could not be read");
}

function readQuery(answer: unknown): QueryAnswer {
  if (!isObject(answer) || !isObject(answer.recordMap) || typeof answer.cursor !== "string")
    unreadable();
  const { ids, gone, keys } = answer;
  if (!Array.isArray(ids) || !Array.isArray(gone) || !Array.isArray(keys)) unreadable();
  return answer as unknown as QueryAnswer;
}

function readRecords(answer: unknown): GetRecordsAnswer {
  if (!isObject(answer) || !isObject(answer.recordMap) || typeof answer.cursor !== "string")
    unreadable();
  if (!Array.isArray(answer.gone)) unreadable();
  return answer as unknown as GetRecordsAnswer;
}
