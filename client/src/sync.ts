import type { Cache, ServerChange } from "./cache.js";
import type { Core } from "./core.js";
import { RowcastError } from "./errors.js";
import { askedWait, type Http, isTransient, type Pause, pauseOf, readAnswer } from "./http.js";
import { isObject, type RecordData } from "./json.js";
import { type KeyInfo, type KeyState, Keys } from "./keys.js";
import type { LiveQuery, QueryStatus } from "./query.js";
import { Records } from "./records.js";
import { backoff, type Runtime } from "./runtime.js";
import { placeOf, type Slot } from "./slots.js";
import type { Socket } from "./socket.js";
import type { Change } from "./storage.js";
import { HttpError, NetworkError } from "./transport.js";
import type { Loaded, QueryRow, Vault } from "./vault.js";
import type { Load, Loader, Watch } from "./views.js";
import type { Cursor, Key, QueryAnswer, QueryBody, ServerFrame, StaleFrame } from "./wire.gen.js";

/** A query as devtools show it. */
export interface QueryInfo {
  id: string;
  status: QueryStatus;
  rows: number;
  loaded: boolean;
  loading: boolean;
  keys: readonly Key[];
}

/** What it needs of the engine around it. */
export interface SyncHost {
  /** Whether the server may be asked: it is known who asks. */
  ready(): boolean;
  /** Nothing is sent or read until `resume`. */
  pause(why: Pause): void;
  joined(key: Key): void;
}

const MONTH = 30 * 86_400_000;
const PAGE = 1000;
const MAX_HAVE = 10_000;
/** Queries whose results are known to be complete. */
const MAX_KNOWN = 500;

/** What is read is shown, but nobody tells of its changes. */
const NOT_LIVE = new RowcastError(
  "not_live",
  "No key covers this query: it was read once. Filter by id or a topic, with at most 100 values.",
);

/** Keeps keys subscribed, queries loaded and records fetched. */
export class Sync implements Loader {
  private readonly keys: Keys;
  private readonly records: Records;
  private readonly cache: Cache;
  private readonly runtime: Runtime;
  private readonly loads: Map<string, Load>;
  /** Queries nobody looks at whose results are complete as of their keys' cursors. */
  private readonly known = new Map<string, QueryRow>();
  private scheduled = false;
  /** Queries have ended that may have looked after watched records. */
  private unchecked = false;
  private failures = 0;
  private stopRetry: (() => void) | undefined;
  private vault: Vault | undefined;
  /** Counts users: what was asked for an earlier one is dropped. */
  private generation = 0;

  constructor(
    private readonly core: Core,
    private readonly http: Http,
    private readonly socket: Socket,
    private readonly host: SyncHost,
  ) {
    const { cache, runtime, views } = core;
    this.cache = cache;
    this.runtime = runtime;
    this.loads = views.loads;
    views.loader = this;
    const schedule = () => this.schedule();
    const { failed } = core;
    this.keys = new Keys(cache, socket, runtime, {
      schedule,
      failed,
      joined: (key) => host.joined(key),
      isWatched: (slot) => this.records.isWatched(slot),
    });
    this.records = new Records(cache, this.keys, http, views.watches, {
      schedule,
      failed,
      ready: () => this.vault !== undefined && !this.stopRetry && host.ready(),
      isCovered: (slot) => this.isCovered(slot),
      recovered: () => this.recovered(),
      isFinal: (error) => this.isFinal(error),
      retryLater: (error) => this.retryLater(error),
      take: (slot, record, sent) => this.takePointed(slot, record ?? null, sent),
    });
  }

  // --- storage ---

  /** Takes in what storage holds and keeps it from now on. */
  open(vault: Vault, loaded: Loaded): void {
    const { cache, keys, runtime } = this;
    this.vault = keys.vault = vault;
    vault.relieve = () => this.relieve();
    vault.lost = (key) => {
      const state = keys.get(key);
      if (state) state.lost = true;
    };
    for (const [key, { record, want, tab, commit, epoch }] of loaded.records) {
      const slot = cache.slotOfKey(key);
      if (!slot || slot.server !== undefined) continue;
      cache.restore(slot, record, { tab, commit }, epoch !== loaded.epoch);
      if (want) cache.want(slot);
    }
    for (const [key, row] of loaded.keys) keys.restore(key, row, loaded.epoch);
    for (const [id, row] of loaded.queries) {
      this.known.set(id, row);
      // Of a key that is not known any more nothing is told: what is read under it later vouches for that alone.
      const lost = row.keys.some((key) => keys.get(key)?.since === undefined);
      if (lost || row.rights !== vault.rights) this.forgetQuery(id);
    }
    const old = keys.all().filter((key) => !key.users && key.used < runtime.now() - MONTH);
    if (old.length) vault.flush(this.evict(old)).catch(this.core.failed);
    for (const load of this.loads.values()) if (load.running) this.begin(load);
    this.records.check();
    this.schedule();
  }

  /** Forgets all that belongs to a user; who looks keeps looking. */
  close(): void {
    this.generation++;
    this.vault = this.keys.vault = undefined;
    this.stopRetry?.();
    this.stopRetry = undefined;
    this.failures = 0;
    this.known.clear();
    this.keys.clear();
    this.records.clear();
    for (const load of this.loads.values()) {
      load.loaded = load.loading = load.again = load.due = false;
      load.error = load.next = undefined;
      load.keys = [];
      load.count = load.filled = load.sentAt = load.takenAt = 0;
      load.query.bound(undefined, false);
    }
    this.schedule();
  }

  /** What is to be removed so that there is room again: the half of the unused keys that was used longest ago. */
  private relieve(): Change[] {
    const unused = this.keys
      .all()
      .filter((key) => !key.users && key.used)
      .sort((a, b) => a.used - b.used);
    return this.evict(unused.slice(0, Math.ceil(unused.length / 2)));
  }

  /** Forgets keys, the queries that rest on them, and the records that no other key covers. */
  private evict(states: readonly KeyState[]): Change[] {
    const { cache, keys } = this;
    const changes: Change[] = [];
    const gone = new Set(states.map(({ key }) => key));
    for (const key of gone) {
      keys.drop(key);
      changes.push({ store: "keys", key, remove: true });
    }
    for (const [id, row] of this.known) {
      if (!row.keys.some((key) => gone.has(key))) continue;
      this.known.delete(id);
      changes.push({ store: "queries", key: id, remove: true });
    }
    for (const table of cache.all()) {
      for (const slot of [...table.slots.values()]) {
        const { server } = slot;
        if (server === undefined || slot.parts.length || slot.listeners.size || slot.want) continue;
        if (server && cache.keysOf(slot, server).some((key) => keys.get(key))) continue;
        changes.push({ store: "records", key: slot.key, remove: true });
        cache.forget(slot);
      }
    }
    return changes;
  }

  /** What was not read since its key went stale is not gone on with, but read. */
  private forgetUnread(states: readonly KeyState[]): void {
    const staleAt = new Map(states.map((state) => [state.key, state.staleAt]));
    if (!staleAt.size) return;
    for (const [id, { keys }] of this.known) {
      const load = this.loads.get(id);
      const sentAt = load?.loaded && !load.error ? load.sentAt : -1;
      if (keys.some((key) => sentAt <= (staleAt.get(key) ?? -2))) this.forgetQuery(id);
    }
  }

  private forgetQuery(id: string): void {
    this.known.delete(id);
    this.vault?.queries.set(id, null);
    this.vault?.save();
  }

  // --- the connection ---

  /** Does in one go, in the next microtask, what has come together. */
  private schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => {
      this.scheduled = false;
      if (this.unchecked) {
        this.unchecked = false;
        this.records.check();
      }
      this.keys.subscribe();
      void this.records.fetch();
      const read = this.keys.all().filter((state) => state.stale && this.isRead(state));
      this.forgetUnread(read);
      this.keys.rejoin(read);
      this.refreshStatus();
      this.core.stir();
    });
  }

  /** The connection is open, in this epoch and with these rights. */
  opened(epoch: string, rights?: string): void {
    const { vault } = this;
    if (!vault) return;
    if (vault.epoch !== epoch) {
      if (vault.epoch !== undefined) this.startEpoch();
      vault.epoch = epoch;
      vault.save();
    }
    this.allow(vault, rights);
    vault.cursor = undefined;
    this.retryNow();
  }

  /** Other rights than before: the feed does not tell of that, and all that was read may look otherwise. */
  private allow(vault: Vault, rights: string | undefined): void {
    const before = vault.rights;
    if (rights === undefined || rights === before) return;
    vault.rights = rights;
    vault.save();
    if (before === undefined) return;
    // What is under way may have been asked for before, and no key tells of what none covers.
    for (const load of this.loads.values()) {
      if (load.loading || (load.loaded && !load.keys.length)) this.reload(load);
    }
    // Of what is joined the server says so itself.
    const states = this.keys.all().filter(({ status }) => status !== "live");
    this.keys.mark(names(states), false);
    this.stale(names(states.filter(({ users }) => users)), "access");
  }

  /** The connection has ended. */
  closed(): void {
    this.keys.closed();
    this.schedule();
  }

  /** Another epoch: every cursor is void, versions mean nothing, everything in use is read again. */
  private startEpoch(): void {
    this.cache.age();
    this.keys.age();
    for (const id of [...this.known.keys()]) this.forgetQuery(id);
    for (const load of this.loads.values()) {
      load.loaded = false;
      this.reload(load);
    }
    this.records.wantAll();
  }

  /** Takes in a frame of the open connection. */
  take(frame: ServerFrame): void {
    const { vault, cache } = this;
    if (!vault) return;
    switch (frame.type) {
      case "authed":
        this.allow(vault, frame.rights);
        break;
      case "updates": {
        const tick = cache.next();
        for (const update of frame.updates) cache.takeUpdate(update, tick);
        vault.cursor = frame.cursor;
        vault.save();
        break;
      }
      case "subscribed":
        this.keys.subscribed(frame);
        if (frame.stale?.length) this.stale(frame.stale, undefined);
        // A query whose key was refused looks after its records no more.
        this.records.check();
        this.schedule();
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
        if (this.keys.failed(frame.id)) this.retryLater();
        break;
    }
  }

  /** Keys have to be read again, for a reason, or since they were joined. */
  private stale(keys: readonly Key[], reason: StaleFrame["reason"] | undefined): void {
    const { cache } = this;
    const marked = new Set(keys);
    this.keys.mark(keys, !reason);
    for (const [id, row] of this.known) {
      if (!this.loads.get(id)?.running && row.keys.some((key) => marked.has(key))) {
        this.forgetQuery(id);
      }
    }
    for (const load of this.loads.values()) {
      if (!load.keys.some((key) => marked.has(key))) continue;
      load.whole ||= reason === "schema";
      this.reload(load);
    }
    for (const key of keys) {
      const place = placeOf(cache.schema, key);
      if (!place) continue;
      if (place.id !== undefined) {
        cache.want(cache.slot(place.table, place.id));
        continue;
      }
      // What no query asks about again is fetched: all of it where it may have been lost, else what is looked at.
      const asked = [...this.loads.values()].filter((load) => load.keys.includes(key));
      for (const slot of this.keys.heldUnder(key)) {
        const { server } = slot;
        if (server && asked.some(({ query }) => query.match(server))) continue;
        if (reason === "access" || this.records.isWatched(slot)) cache.want(slot);
      }
    }
    this.schedule();
  }

  /** Whether everything in use under a stale key was asked for after it went stale. */
  private isRead({ key, staleAt, status }: KeyState): boolean {
    if (status === "joining" || this.cache.slotOfKey(key)?.want) return false;
    for (const { keys, sentAt, loading, error } of this.loads.values()) {
      if (keys.includes(key) && ((sentAt < staleAt && !error) || loading)) return false;
    }
    return true;
  }

  // --- queries ---

  /** A query is about to be shown: the end of its window is known from storage. */
  reviving({ query }: Load): void {
    const row = this.known.get(query.id);
    if (!row) return;
    query.limit = row.limit ?? query.page;
    query.bound(row.boundary, row.next !== undefined);
  }

  /** Nobody looks at a query any more. */
  released(load: Load): void {
    if (load.loaded && !load.loading && !load.again)
      this.known.set(load.query.id, this.rowOf(load));
    load.loaded = false;
    const { keys } = load;
    load.keys = [];
    for (const key of keys) this.keys.release(key);
    // All records at once, however many queries end together.
    this.unchecked = true;
    this.schedule();
  }

  /** Somebody looks at a record. */
  watched(watch: Watch): void {
    this.records.ensure(watch);
  }

  /** Nobody looks at it any more. */
  unwatched({ slot, own }: Watch): void {
    if (own) this.keys.release(slot.key);
  }

  /** Resumes a query by its keys' cursors where its stored result is complete, else reads it. */
  begin(load: Load): void {
    if (!this.vault) return;
    const { query } = load;
    const row = this.known.get(query.id);
    if (row?.keys.every((key) => this.keys.isResumable(key, row))) {
      query.limit = row.limit ?? query.page;
      load.next = row.next;
      load.count = row.count;
      load.keys = row.keys;
      for (const key of row.keys) this.keys.acquire(key);
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
  async loadMore(load: Load): Promise<void> {
    const { query } = load;
    if (!query.windowed) return;
    query.limit += query.page;
    query.bound(query.boundary, query.hasMore);
    this.cache.queryChanged(query);
    if (load.loaded && load.next === undefined) this.keepQuery(load);
    else await this.load(load, true);
  }

  /** Reads a query again. */
  async refetch(load: Load): Promise<void> {
    await this.load(load);
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
    // What could not be read again is not made up for by what follows it.
    const whole = load.due || load.error !== undefined;
    load.due = load.again = false;
    if (load.error) {
      load.error = undefined;
      this.schedule();
    }
    try {
      await this.run(load, more && load.loaded && !whole, generation);
      if (generation !== this.generation) return;
      this.recovered();
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
      const answer = readAnswer<QueryAnswer>(
        await this.http.post("/api/realtime/query", body),
        ["ids", "gone", "keys"],
        ["cursor"],
      );
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
      const state = this.keys.state(key);
      if (!before.includes(key)) this.keys.acquire(key);
      const { since = 0, staleAt } = state;
      if (state.since === undefined) this.keys.cover(state, cursor, sent);
      if (Math.max(since, staleAt) > sent) load.again = true;
    }
    for (const key of before) if (!keys.includes(key)) this.keys.release(key);
    this.schedule();
  }

  /** Why a query is not there, or cannot be live. */
  private errorOf(load: Load): RowcastError | undefined {
    const { error, keys, loaded, query } = load;
    if (error) return error;
    if (loaded && !keys.length && !isEmpty(query)) return NOT_LIVE;
    for (const key of keys) {
      const state = this.keys.get(key);
      if (state?.error) return state.error;
    }
    return undefined;
  }

  statusOf(load: Load): QueryStatus {
    const { query, keys } = load;
    if (this.errorOf(load)) return "error";
    const states = keys.map((key) => this.keys.get(key));
    const live = states.every((state) => state?.status === "live" && !state.stale);
    if (load.loaded && live) return "live";
    const offline =
      this.socket.state !== "open" && (this.socket.failures > 0 || !this.runtime.online());
    if (offline) return "offline";
    const some = load.loaded || this.known.has(query.id) || query.snapshot.data.length;
    return some ? "cached" : "loading";
  }

  /** Brings the status of every query up to date. */
  refreshStatus(): void {
    for (const load of this.loads.values()) {
      load.query.mark(this.statusOf(load), this.errorOf(load));
      this.cache.queryChanged(load.query);
    }
  }

  // --- records ---

  /** Subscribes to a key for its changes alone. Gives what lets go of it. */
  hold(key: Key): () => void {
    return this.keys.hold(key);
  }

  /** A record has to be fetched. */
  want(slot: Slot): void {
    this.records.want(slot);
  }

  /** Whether one of some keys went stale after a tick. */
  staleSince(keys: readonly Key[], tick: number): boolean {
    return this.keys.staleSince(keys, tick);
  }

  /** Whether every change of a record since its copy was read has been told. */
  covers(slot: Slot, record: RecordData): boolean {
    return this.cache.keysOf(slot, record).some((key) => {
      const state = this.keys.get(key);
      return state?.users && state.since !== undefined && slot.changedAt >= state.from;
    });
  }

  /** A loaded query shows it, so that it is up to date and stays so. */
  private isCovered(slot: Slot): boolean {
    const { server, want } = slot;
    if (!server || want) return false;
    for (const query of this.cache.queriesOf(slot, server)) {
      const load = this.loads.get(query.id);
      if (!load?.loaded || !load.keys.length || !query.reaches(server)) continue;
      if (load.keys.every((key) => this.keys.get(key)?.status !== "refused")) return true;
    }
    return false;
  }

  /**
   * What an answer about one record says. A copy that a query which was read meanwhile did not bring may be out of date
   * already: it is shown, and asked for again.
   */
  takePointed(slot: Slot, record: RecordData | null, sent: number, txId?: string): void {
    const known = slot.server;
    this.cache.takeRead(slot, record, sent, txId);
    if (known || !record || slot.server !== record) return;
    const read = [...this.cache.queriesOf(slot, record)].map(({ id }) => this.loads.get(id));
    if (read.some((load) => load && load.takenAt > sent)) this.cache.want(slot);
  }

  /** The server's copies of some records have changed. */
  changed(changes: readonly ServerChange[]): void {
    this.schedule();
    for (const { slot } of changes) this.records.check(slot);
    for (const load of this.loads.values()) {
      const { query } = load;
      if (query.hasMore && load.loaded && query.inside.size < load.filled && !load.loading) {
        this.reload(load);
      }
    }
  }

  // --- failures ---

  private recovered(): void {
    this.failures = 0;
    this.core.failed(undefined);
  }

  /** Whether asking again the same would be answered the same. Also tells of what pauses everything. */
  private isFinal(error: unknown): boolean {
    const why = pauseOf(error);
    if (why) this.host.pause(why);
    else if (error instanceof HttpError)
      return error.problem !== undefined && !isTransient(error.status);
    else if (!(error instanceof NetworkError)) this.core.failed(error);
    return false;
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

  private retryLater(error?: unknown): void {
    if (this.stopRetry) return;
    this.stopRetry = this.runtime.later(
      () => this.retryNow(),
      Math.max(askedWait(error), backoff(this.runtime, this.failures++)),
    );
  }

  /** For those who look on. */
  describe(): { keys: KeyInfo[]; queries: QueryInfo[] } {
    return {
      keys: this.keys.all().map(({ key, users, status, stale }) => ({ key, users, status, stale })),
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

const names = (states: readonly KeyState[]) => states.map(({ key }) => key);

/** Whether nothing can match. */
function isEmpty({ spec }: LiveQuery): boolean {
  return Object.values(spec.where ?? {}).some(
    (test) => isObject(test) && Array.isArray(test.in) && !test.in.length,
  );
}
