import { parseKey } from "./filters.js";
import type { RecordData } from "./json.js";
import type { RecordOperation } from "./operations.js";
import type { LiveQuery } from "./query.js";
import type { Listeners } from "./readable.js";
import { type Schema, type TableSchema, tableOf } from "./schema.js";
import type { Key, Transaction } from "./wire.gen.js";

/**
 * What a pending transaction does to one record. `at`: the version of the server's that contains it, once known.
 * `since`: the tick at which it was found to be answered, nobody knows how: what is heard after that contains it.
 */
export interface Part {
  readonly pending: Pending;
  readonly slot: Slot;
  readonly operations: RecordOperation[];
  at?: number;
  since?: number;
  /** Of another tab that may have sent it before what is held was read: not shown before that is known. */
  doubted?: boolean;
  /** What it was applied to last, and what became of that: a replay need not do it again. */
  before?: RecordData | null;
  after?: RecordData | null;
}

/** A transaction that the server has not answered yet. */
export interface Pending {
  /** The key of its row in the queue; undefined until it is stored. */
  key: string | undefined;
  /** Its place among those not stored yet. */
  readonly number: number;
  tx: Transaction;
  /** When it was made, as the wire writes it: what `set-now` shows. */
  readonly now: string;
  /** Whether storage says that it was sent. */
  attempted: boolean;
  /** Whether it may have been carried out already: by now what is read may contain it. */
  uncertain: boolean;
  readonly parts: Part[];
}

/** Everything known of one record. */
export class Slot {
  /** What the server last said: null, not there for this user; undefined, nothing yet. */
  server: RecordData | null | undefined;
  /** The copy is of another epoch: it counts as version 0. */
  old = false;
  /** Ticks: as of when the copy holds; when a frame last said something, or that it is gone; when an answer did. */
  changedAt = 0;
  framedAt = 0;
  answeredAt = 0;
  goneAt = -1;
  /** When an answer last said something, by the clock that tabs share. */
  answeredOn = 0;
  /** The tick since which it is known that what is held may be out of date; 0: it is not. */
  wantedAt = 0;
  /** Pending transactions, in the order of the queue. */
  parts: Part[] = [];
  /** What is shown. */
  view: RecordData | null | undefined;
  /** Who stored the row this was read from, until something newer is heard. */
  origin: Origin | undefined;
  readonly listeners: Listeners = new Set();
  /** The keys the view is found under. */
  keys: readonly Key[] = [];
  /** The server's copy at the last refresh. */
  seen: RecordData | null | undefined;

  constructor(
    readonly table: Table,
    readonly id: string,
    readonly key: Key,
  ) {}

  /** Whether it has to be fetched. */
  get want(): boolean {
    return this.wantedAt > 0;
  }

  /** The version that counts in comparisons. */
  get version(): number {
    return this.server && !this.old ? Number(this.server.version) : 0;
  }
}

/** Which tab wrote a row of storage, and in which commit. */
export interface Origin {
  tab: string;
  commit: number;
}

/** The records of one table, found by id and by the keys that cover them. */
export class Table {
  readonly slots = new Map<string, Slot>();
  readonly byKey = new Map<Key, Set<Slot>>();
  readonly queries = new Map<Key, Set<LiveQuery>>();
  readonly windows = new Set<LiveQuery>();
  /** Slots with pending transactions: their views may hide what the server's copies match. */
  readonly overlaid = new Set<Slot>();

  constructor(
    readonly name: string,
    readonly schema: TableSchema,
  ) {}

  /** All slots that may match what is covered by these keys. */
  under(keys: readonly Key[]): Iterable<Slot> {
    if (keys.includes(this.name)) return this.slots.values();
    const found = new Set<Slot>();
    for (const key of keys) {
      for (const slot of this.byKey.get(key) ?? []) found.add(slot);
      const slot = this.slots.get(parseKey(key)?.id ?? "");
      if (slot) found.add(slot);
    }
    return found;
  }
}

/** Undefined for a text that is no key of a table of this schema. */
export function placeOf(schema: Schema, key: Key): { table: string; id?: string } | undefined {
  const place = parseKey(key);
  return place && tableOf(schema, place.table) ? place : undefined;
}

/** Whether what is held of a record contains this part, so that it need not be shown on top. */
export function isContained({ at, since, slot }: Part): boolean {
  const { server, old, version, changedAt } = slot;
  if (at !== undefined) {
    return server === null || (!!server && !old && version >= at);
  }
  return since !== undefined && changedAt > since;
}

/** Whether what is read of a record now may contain a write that is shown on top of it. */
export function isUncertain({ parts }: Slot): boolean {
  return parts.some((part) => part.pending.uncertain && !isKnown(part));
}

/** Whether it can be told of a copy whether it contains this part. */
export function isKnown({ at, since }: Part): boolean {
  return (at ?? since) !== undefined;
}

/** By their place in the queue; what is not stored yet comes last. */
export function comparePending(a: Pending, b: Pending): number {
  if (a.key === b.key) return a.number - b.number;
  if (a.key === undefined) return 1;
  return b.key === undefined || a.key < b.key ? -1 : 1;
}

/** The same of their parts. */
export function compareParts(a: Part, b: Part): number {
  return comparePending(a.pending, b.pending);
}
