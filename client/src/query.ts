import type { RowcastError } from "./errors.js";
import { compileOrder, compileWhere, coveringKeys, type OrderBy, type Where } from "./filters.js";
import { isObject, type RecordData } from "./json.js";
import type { Listeners } from "./readable.js";
import type { TableSchema } from "./schema.js";
import type { Key } from "./wire.gen.js";

/** What a query asks for. */
export interface QuerySpec {
  table: string;
  where?: Where | undefined;
  orderBy?: OrderBy | undefined;
  /** Rows of a window; left out, all of them. */
  limit?: number | undefined;
  /** Records along foreign keys to load and keep live with it. */
  include?: readonly string[] | undefined;
}

/**
 * How far a result can be trusted. `loading`: nothing is known yet. `cached`: what this device knows, being checked.
 * `live`: complete, and changes arrive. `offline`: what was known when the connection ended. `error`: refused, or read
 * once and not live; `error.code` says which.
 */
export type QueryStatus = "loading" | "cached" | "live" | "offline" | "error";

/** A result. The same object until something in it changes; its rows are the same objects until they change. */
export interface QueryState<T = RecordData> {
  data: readonly T[];
  status: QueryStatus;
  /** There are rows behind the last one. */
  hasMore: boolean;
  error?: RowcastError;
}

/** The rows of one query, kept up to date one change at a time. Knows nothing of the server. */
export class LiveQuery {
  /** Equal queries have equal ids. */
  readonly id: string;
  readonly listeners: Listeners = new Set();
  /** The keys a record that matches is covered by; the table's where there are no narrower ones. */
  readonly covers: readonly Key[];
  readonly match: (record: RecordData) => boolean;
  readonly compare: (a: RecordData, b: RecordData) => number;
  readonly page: number;
  /** Rows to show. */
  limit: number;
  /** The place of the last row known to follow on all before it; what lies behind is not shown while hasMore. */
  boundary: RecordData | undefined;
  hasMore = false;
  /** Whether anybody needs the rows. */
  attached = false;
  /** Ids whose server copies lie inside the window. */
  readonly inside = new Set<string>();

  private rows: RecordData[] = [];
  private readonly members = new Map<string, RecordData>();
  private state: QueryState = { data: [], status: "loading", hasMore: false };
  private outdated = false;
  private status: QueryStatus = "loading";
  private error: RowcastError | undefined;

  constructor(
    readonly spec: QuerySpec,
    table: TableSchema,
  ) {
    this.id = queryId(spec);
    this.match = compileWhere(table, spec.where);
    this.compare = compileOrder(table, spec.orderBy);
    const keys = coveringKeys(spec.table, table, spec.where);
    this.covers = keys.length ? keys : [spec.table];
    this.page = spec.limit ?? Number.POSITIVE_INFINITY;
    this.limit = this.page;
  }

  /** Whether only a part of what matches is wanted. */
  get windowed(): boolean {
    return this.page !== Number.POSITIVE_INFINITY;
  }

  /** Whether a record lies where every row is known. */
  reaches(record: RecordData): boolean {
    return !this.hasMore || !this.boundary || this.compare(record, this.boundary) <= 0;
  }

  /** The record shown under an id is now this one; undefined or null: none. */
  update(id: string, record: RecordData | null | undefined): void {
    const before = this.members.get(id);
    const after = record && this.match(record) ? record : undefined;
    if (before === after) return;
    if (before) this.rows.splice(this.place(before), 1);
    if (after) {
      this.rows.splice(this.place(after), 0, after);
      this.members.set(id, after);
    } else this.members.delete(id);
    this.outdated = true;
  }

  /** The server's copy of a record is now this one. */
  updateServer(id: string, record: RecordData | null | undefined): void {
    if (record && this.match(record) && this.reaches(record)) this.inside.add(id);
    else this.inside.delete(id);
  }

  /** Begins anew with these records. */
  fill(records: readonly RecordData[]): void {
    this.rows = records.filter(this.match).sort(this.compare);
    this.members.clear();
    for (const row of this.rows) this.members.set(String(row.id), row);
    this.outdated = true;
  }

  /** What is shown under an id. */
  has(id: string): boolean {
    return this.members.has(id);
  }

  /** The end of the window has moved. */
  bound(boundary: RecordData | undefined, hasMore: boolean): void {
    this.boundary = boundary;
    this.hasMore = hasMore;
    this.outdated = true;
  }

  /** How far the result can be trusted now. */
  mark(status: QueryStatus, error?: RowcastError): void {
    if (status === this.status && error === this.error) return;
    this.status = status;
    this.error = error;
    this.outdated = true;
  }

  /** The result; tells whether it is another than before. */
  refresh(): boolean {
    if (!this.outdated) return false;
    this.outdated = false;
    const { state, status, error } = this;
    const visible = this.visible();
    const { data: old } = state;
    const same = old.length === visible.length && visible.every((row, at) => row === old[at]);
    const hasMore = this.hasMore || visible.length < this.rows.length;
    if (same && state.status === status && state.hasMore === hasMore && state.error === error) {
      return false;
    }
    const data = same ? old : visible;
    this.state = error ? { data, status, hasMore, error } : { data, status, hasMore };
    return true;
  }

  /** The result as of the last refresh. */
  get snapshot(): QueryState {
    return this.state;
  }

  /** The rows within reach, all of them up to the limit. */
  private visible(): RecordData[] {
    const end = this.hasMore && this.boundary ? this.place(this.boundary, true) : this.rows.length;
    return this.rows.slice(0, Math.min(end, this.limit));
  }

  /** Where a record stands among the rows, or would; with `after` behind its equals. */
  private place(record: RecordData, after = false): number {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = this.compare(this.rows[middle] as RecordData, record);
      if (order < 0 || (after && order === 0)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** One text for all queries that ask the same. */
export function queryId({ table, where, orderBy, limit, include }: QuerySpec): string {
  return stable([table, where ?? {}, orderBy ?? [], limit ?? null, include ?? []]);
}

/** What is no JSON stands out by a letter that no text may hold: it is never taken for something else. */
function stable(value: unknown): string {
  return JSON.stringify(value, (_, inner) => {
    if (isObject(inner)) {
      return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
    const json = ["object", "string", "boolean"].includes(typeof inner) || Number.isFinite(inner);
    return json ? inner : `\0${String(inner)}`;
  });
}
