import { keysOf, recordKey } from "./filters.js";
import { derivedIds } from "./ids.js";
import { equalJson, type RecordData } from "./json.js";
import { applyToRecord, type OpContext } from "./operations.js";
import type { LiveQuery } from "./query.js";
import { Batch } from "./readable.js";
import { type Schema, tableOf } from "./schema.js";
import {
  compareParts,
  comparePending,
  isContained,
  isKnown,
  isUncertain,
  type Origin,
  type Part,
  type Pending,
  placeOf,
  Slot,
  Table,
} from "./slots.js";
import type { Key, RecordMap, Transaction, Update } from "./wire.gen.js";

/** A change of the server's copy of a record, for those who follow the server and not the view. */
export interface ServerChange {
  slot: Slot;
  before: RecordData | null | undefined;
  txIds: readonly string[];
}

/** Transactions that were heard of before they were told of by the tab that made them. */
const ECHOES = 200;

/** What the cache asks of the rest of the engine. */
export interface CacheEvents {
  /** The time by the clock of this machine. */
  now(): number;
  /** A record has to be fetched. */
  want(slot: Slot): void;
  /** What storage holds of a record is out of date. */
  dirty(slot: Slot): void;
  /** The server's copies of some records have changed. */
  changed(changes: readonly ServerChange[]): void;
  /** Whether every change of a record since its copy was read has been told: some key in use covers it. */
  covers(slot: Slot, record: RecordData): boolean;
  /** Whether one of these keys went stale after a tick, so that what was read before is not to be added. */
  staleSince(keys: readonly Key[], tick: number): boolean;
}

/** Records of the server and the pending transactions replayed on them. */
export class Cache {
  readonly batch = new Batch(() => this.settle());
  /** All pending transactions, in the order of the queue. */
  readonly pending: Pending[] = [];
  private readonly tables = new Map<string, Table>();
  private readonly touched = new Set<Slot>();
  private readonly txIds = new Map<Slot, string[]>();
  private readonly changedQueries = new Set<LiveQuery>();
  /** The tick at which the present epoch was learnt: what was asked for before is of another one, perhaps. */
  epochAt = -1;
  /** Wanted once no write to them is on its way. */
  private readonly deferred = new Set<Slot>();
  private readonly echoes = new Map<string, [Slot, number][]>();
  private tick = 0;
  private numbers = 0;

  constructor(
    readonly schema: Schema,
    private readonly events: CacheEvents,
    private userId: string | null = null,
  ) {}

  /** The next moment of the one order of frames, answers and the sending of requests. */
  next(): number {
    return ++this.tick;
  }

  /** A table by its name. Throws where the schema has none: callers check what comes from outside. */
  table(name: string): Table {
    let table = this.tables.get(name);
    if (!table) {
      const schema = tableOf(this.schema, name);
      if (!schema) throw new Error(`no table ${name}`);
      table = new Table(name, schema);
      this.tables.set(name, table);
    }
    return table;
  }

  /** All tables that something is known of. */
  all(): Iterable<Table> {
    return this.tables.values();
  }

  /** Everything known of a record; makes the place for it. */
  slot(tableName: string, id: string): Slot {
    const table = this.table(tableName);
    let slot = table.slots.get(id);
    if (!slot) {
      slot = new Slot(table, id, recordKey(tableName, id));
      table.slots.set(id, slot);
    }
    return slot;
  }

  /** The same; undefined for a table the schema has not. */
  slotOf(table: string, id: string): Slot | undefined {
    return tableOf(this.schema, table) ? this.slot(table, id) : undefined;
  }

  /** Everything known of the record of a record key; undefined for other keys and unknown tables. */
  slotOfKey(key: Key): Slot | undefined {
    const place = placeOf(this.schema, key);
    return place?.id === undefined ? undefined : this.slot(place.table, place.id);
  }

  // --- what the server says ---

  /** A record as storage holds it. */
  restore(slot: Slot, server: RecordData | null | undefined, origin: Origin, old: boolean): void {
    slot.server = server;
    slot.origin = origin;
    slot.old = old;
    this.touch(slot);
  }

  /** One entry of `updates`, at its tick. */
  takeUpdate(update: Update, tick: number): void {
    const slot = this.slotOfKey(update.key);
    if (!slot) return;
    const { server } = slot;
    const version = update.version ?? 0;
    slot.framedAt = tick;
    if (update.txId) this.contain(update.txId, slot, version);
    if (update.gone) {
      this.purge(slot, tick);
    } else if (update.record && !isUncertain(slot) && (!server || version >= slot.version)) {
      this.put(slot, update.record, tick, update.txId);
    } else {
      // A copy that no key covered may be of a record that was deleted since and made anew: versions tell nothing then.
      const trusted = server && this.events.covers(slot, server);
      if (!trusted || version > slot.version) {
        const { patch, from = version - 1 } = update;
        if (trusted && patch && !slot.old && slot.version === from) {
          const { wantedAt } = slot;
          this.put(slot, { ...server, ...patch, version }, tick, update.txId);
          slot.wantedAt = wantedAt;
        } else {
          this.want(slot);
        }
      }
    }
  }

  /**
   * What an answer to a request sent at a tick says of a record. Null: it is not there for this user. `txId`: the
   * transaction it answers.
   */
  takeRead(slot: Slot, record: RecordData | null, sent: number, txId?: string): void {
    const { server, wantedAt } = slot;
    // What may have been lost since is neither added nor restored.
    if (
      sent < this.epochAt ||
      (txId === undefined && isUncertain(slot)) ||
      (record &&
        (slot.goneAt > sent ||
          (!server && this.events.staleSince(this.keysOf(slot, record), sent))))
    ) {
      this.want(slot);
      return;
    }
    const framed = slot.framedAt > sent;
    const crossed = framed || slot.answeredAt > sent;
    if (crossed && server !== undefined) {
      const lead = record && server ? Number(record.version) - slot.version : undefined;
      if (lead === undefined ? server !== record : lead <= 0) {
        // Requests that cross are carried out in any order. Where a frame does not decide, only a third can tell.
        if (lead === undefined || (lead < 0 && !framed && sent >= 0)) this.want(slot);
        return;
      }
    }
    const at = Math.max(slot.changedAt, sent);
    if (record) this.put(slot, record, at, txId);
    else {
      slot.changedAt = at;
      if (server !== null || slot.old) {
        slot.server = null;
        this.renewed(slot);
      }
    }
    this.answered(slot);
    // What was wanted meanwhile is not answered by what was asked for before.
    slot.wantedAt = wantedAt > sent ? wantedAt : 0;
    this.touch(slot);
  }

  /** An answer to a request sent at a tick says that a record is as it is held. */
  confirm(slot: Slot, sent: number): void {
    if (slot.framedAt > sent || slot.answeredAt > sent) return;
    slot.changedAt = Math.max(slot.changedAt, sent);
    this.answered(slot);
    slot.origin = undefined;
    if (slot.want) this.events.dirty(slot);
    if (slot.wantedAt <= sent) slot.wantedAt = 0;
    this.touch(slot);
  }

  /** The records of an answer. */
  takeMap(map: RecordMap, sent: number): void {
    for (const [name, records] of Object.entries(map)) {
      for (const [id, record] of Object.entries(records)) {
        const slot = this.slotOf(name, id);
        if (slot) this.takeRead(slot, record, sent);
      }
    }
  }

  /**
   * A record has to be fetched before it can be trusted. While a write to it may be on its way, nobody could tell whether
   * what is fetched contains it; its answer is awaited.
   */
  want(slot: Slot): void {
    slot.wantedAt = this.next();
    this.events.dirty(slot);
    if (isUncertain(slot)) this.deferred.add(slot);
    else this.events.want(slot);
  }

  /** Another epoch: what is held stays on screen but counts for nothing. */
  age(): void {
    this.epochAt = this.next();
    for (const table of this.tables.values()) {
      for (const slot of table.slots.values()) {
        if (slot.server === undefined) continue;
        slot.old = true;
        slot.framedAt = slot.answeredAt = 0;
        slot.goneAt = -1;
        for (const part of slot.parts) if (part.at !== undefined) part.at = 0;
        this.touch(slot);
      }
    }
  }

  /** What the views of a user's records depend on. */
  setUser(userId: string | null): void {
    this.userId = userId;
  }

  /** Forgets everything: what follows is another user's. */
  clear(): void {
    this.pending.length = 0;
    this.echoes.clear();
    this.deferred.clear();
    this.epochAt = -1;
    for (const table of this.tables.values()) {
      for (const slot of table.slots.values()) {
        slot.server = undefined;
        slot.parts = [];
        slot.wantedAt = 0;
        slot.old = false;
        slot.origin = undefined;
        table.overlaid.delete(slot);
        this.touch(slot);
      }
    }
  }

  /** Forgets a record that storage has no room for and nobody looks at. */
  forget(slot: Slot): void {
    if (slot.parts.length || slot.listeners.size) return;
    slot.server = undefined;
    this.touch(slot);
    this.settle();
    slot.table.slots.delete(slot.id);
  }

  private answered(slot: Slot): void {
    slot.answeredAt = this.next();
    slot.answeredOn = this.events.now();
  }

  private purge(slot: Slot, tick: number): void {
    slot.goneAt = tick;
    slot.changedAt = tick;
    slot.wantedAt = 0;
    if (slot.server === null) return;
    slot.server = null;
    this.renewed(slot);
  }

  private put(slot: Slot, record: RecordData, tick: number, txId?: string): void {
    slot.changedAt = tick;
    slot.wantedAt = 0;
    slot.server = record;
    if (txId) this.txIds.set(slot, [...(this.txIds.get(slot) ?? []), txId]);
    this.renewed(slot);
  }

  private renewed(slot: Slot): void {
    slot.old = false;
    slot.origin = undefined;
    this.events.dirty(slot);
    this.touch(slot);
  }

  // --- pending transactions ---

  /** Shows what a transaction does, last of all or where its row stands in the queue. */
  add(tx: Transaction, now: string, key?: string, attempted = false): Pending {
    const number = ++this.numbers;
    const pending: Pending = { key, number, tx, now, attempted, uncertain: attempted, parts: [] };
    const parts = new Map<Slot, Part>();
    for (const operation of tx.operations) {
      if (operation.type === "call" || !tableOf(this.schema, operation.table)) continue;
      const slot = this.slot(operation.table, operation.id);
      let part = parts.get(slot);
      if (!part) {
        part = { pending, slot, operations: [] };
        parts.set(slot, part);
        pending.parts.push(part);
      }
      part.operations.push(operation);
    }
    for (const [slot, version] of this.echoes.get(tx.txId) ?? []) {
      const part = parts.get(slot);
      if (part) part.at = version;
    }
    insert(this.pending, pending, comparePending);
    for (const part of pending.parts) {
      insert(part.slot.parts, part, compareParts);
      part.slot.table.overlaid.add(part.slot);
      this.touch(part.slot);
    }
    return pending;
  }

  /** Transactions have their rows in the queue: from now on they stand where those stand. */
  store(stored: readonly Pending[]): void {
    this.pending.sort(comparePending);
    for (const slot of new Set(stored.flatMap(({ parts }) => parts.map((part) => part.slot)))) {
      if (slot.parts.length < 2) continue;
      slot.parts.sort(compareParts);
      this.touch(slot);
    }
  }

  /** A transaction is answered. Its parts stay until the copies they concern contain them, or go at once. */
  remove(pending: Pending, refused: boolean): void {
    const at = this.pending.indexOf(pending);
    if (at >= 0) this.pending.splice(at, 1);
    for (const part of pending.parts) {
      const { slot } = part;
      if (refused) slot.parts = slot.parts.filter((other) => other !== part);
      this.touch(slot);
    }
  }

  /** The server's copy of a record contains a transaction from this version on. */
  contain(txId: string, slot: Slot, version: number): void {
    const part = slot.parts.find(({ pending }) => pending.tx.txId === txId);
    if (part) {
      part.at = version;
      this.touch(slot);
    } else {
      // Of another tab, perhaps, which tells of it later than the server does.
      const known = this.echoes.get(txId) ?? [];
      this.echoes.set(txId, [...known, [slot, version]]);
      const [oldest] = this.echoes.keys();
      if (this.echoes.size > ECHOES && oldest !== undefined) this.echoes.delete(oldest);
    }
  }

  // --- what is shown ---

  /** Shows a query's rows and keeps them up to date. */
  attach(query: LiveQuery): void {
    this.settle();
    query.attached = true;
    const table = this.table(query.spec.table);
    for (const key of query.covers) setOf(table.queries, key).add(query);
    if (query.windowed) table.windows.add(query);
    const views: RecordData[] = [];
    for (const slot of table.under(query.covers)) if (slot.view) views.push(slot.view);
    query.fill(views);
    this.recount(query);
    query.refresh();
  }

  /** Keeps a query's rows no more. */
  detach(query: LiveQuery): void {
    query.attached = false;
    const table = this.table(query.spec.table);
    for (const key of query.covers) drop(table.queries, key, query);
    table.windows.delete(query);
    this.changedQueries.delete(query);
  }

  /** Counts anew which server copies lie inside a window. */
  recount(query: LiveQuery): void {
    query.inside.clear();
    if (!query.windowed) return;
    for (const slot of this.serverUnder(query)) query.updateServer(slot.id, slot.server);
  }

  /** Slots whose server copies match a query. */
  *serverUnder(query: LiveQuery): Iterable<Slot> {
    // Slots are found by what they show.
    this.settle();
    const table = this.table(query.spec.table);
    const seen = new Set<Slot>();
    for (const slots of [table.under(query.covers), table.overlaid]) {
      for (const slot of slots) {
        if (seen.has(slot) || !slot.server || !query.match(slot.server)) continue;
        seen.add(slot);
        yield slot;
      }
    }
  }

  /** The queries that show a record now. */
  *queriesOf(slot: Slot, record: RecordData): Iterable<LiveQuery> {
    for (const key of new Set([...this.keysOf(slot, record), slot.table.name])) {
      for (const query of slot.table.queries.get(key) ?? []) {
        if (query.match(record)) yield query;
      }
    }
  }

  /** A query's status or window has changed. */
  queryChanged(query: LiveQuery): void {
    this.changedQueries.add(query);
    this.batch.schedule();
  }

  /** Something of a record has changed that may show. */
  touch(slot: Slot): void {
    this.touched.add(slot);
    this.batch.schedule();
  }

  /** Brings all views up to date. */
  settle(): void {
    if (this.touched.size) {
      const changes: ServerChange[] = [];
      for (const slot of this.touched) this.refresh(slot, changes);
      this.touched.clear();
      this.txIds.clear();
      if (changes.length) this.events.changed(changes);
    }
    for (const query of this.changedQueries) {
      if (query.refresh()) this.batch.changed(query.listeners);
    }
    this.changedQueries.clear();
  }

  /** The keys that cover a record. */
  keysOf(slot: Slot, record: RecordData): readonly Key[] {
    return keysOf(slot.table.name, slot.table.schema, record);
  }

  private refresh(slot: Slot, changes: ServerChange[]): void {
    const { server, table } = slot;
    if (server !== slot.seen) {
      changes.push({ slot, before: slot.seen, txIds: this.txIds.get(slot) ?? [] });
      slot.seen = server;
      for (const query of table.windows) query.updateServer(slot.id, server);
    }
    if (slot.parts.some(isContained)) slot.parts = slot.parts.filter((part) => !isContained(part));
    if (!slot.parts.length) table.overlaid.delete(slot);
    if (this.deferred.has(slot) && !isUncertain(slot)) {
      this.deferred.delete(slot);
      this.events.want(slot);
    }
    let view = server;
    for (const part of slot.parts) {
      if (part.doubted && !isKnown(part)) continue;
      const input = view ?? null;
      if (part.before !== input) {
        const { operations, pending } = part;
        const applied = applyToRecord(
          input,
          table.name,
          slot.id,
          operations,
          this.context(pending),
        );
        part.before = input;
        part.after = applied.problem ? input : applied.record;
      }
      if (part.after !== input) view = part.after;
    }
    const before = slot.view;
    if (before === view || (before && view && equalJson(before, view))) return;
    slot.view = view;
    const keys = view ? this.keysOf(slot, view) : [];
    // Under the table's name stand queries that no narrower key covers.
    const concerned = new Set([...slot.keys, ...keys, table.name]);
    for (const key of slot.keys) if (!keys.includes(key)) drop(table.byKey, key, slot);
    for (const key of keys) {
      // The table's own key and those of records are found without an index.
      if (key.includes("?") && !slot.keys.includes(key)) setOf(table.byKey, key).add(slot);
    }
    slot.keys = keys;
    for (const key of concerned) {
      for (const query of table.queries.get(key) ?? []) {
        query.update(slot.id, view);
        this.changedQueries.add(query);
      }
    }
    this.batch.changed(slot.listeners);
  }

  /** What the operations of a transaction depend on, the same at every replay. */
  context({ tx, now }: { tx: Transaction; now: string }): OpContext {
    return { schema: this.schema, userId: this.userId, now, uuid: derivedIds(tx.txId) };
  }
}

function insert<T>(list: T[], item: T, compare: (a: T, b: T) => number): void {
  let at = list.length;
  while (at > 0 && compare(list[at - 1] as T, item) > 0) at--;
  list.splice(at, 0, item);
}

function setOf<K, V>(map: Map<K, Set<V>>, key: K): Set<V> {
  let set = map.get(key);
  if (!set) {
    set = new Set();
    map.set(key, set);
  }
  return set;
}

function drop<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set?.delete(value) && !set.size) map.delete(key);
}
