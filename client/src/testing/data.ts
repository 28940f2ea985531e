import { compileOrder, compileWhere, coveringKeys, keysOf, recordKey } from "../filters.js";
import { derivedIds, timeOfId, wireTime } from "../ids.js";
import { equalJson, type Json, type RecordData } from "../json.js";
import { applyToRecord, checkTransaction, type RecordOperation } from "../operations.js";
import { type KeySchema, type Schema, type TableSchema, tableOf } from "../schema.js";
import type { AnyRecord } from "../types.js";
import type {
  GetRecordsAnswer,
  Key,
  Problem,
  QueryAnswer,
  QueryBody,
  RecordVersion,
  Result,
  Transaction,
  WriteAnswer,
} from "../wire.gen.js";

/** Reads everything there is, whoever asks. */
export interface ReadAll {
  /** A record; null where there is none. */
  get(table: string, id: unknown): AnyRecord | null;
  /** All records of a table. */
  all(table: string): AnyRecord[];
}

/** Who asks to see which record. */
export interface VisibleAsk extends ReadAll {
  readonly user: string | null;
  readonly table: string;
  readonly record: AnyRecord;
}

/** Who asks to change a record from what to what; null where it is made or removed. */
export interface WritableAsk extends ReadAll {
  readonly user: string | null;
  readonly table: string;
  readonly before: AnyRecord | null;
  readonly after: AnyRecord | null;
}

/** What a function of the server has to work with. */
export interface TestCall extends ReadAll {
  readonly user: string | null;
  /** Makes a record or changes some of its keys. */
  put(table: string, record: { readonly id: string; readonly [key: string]: Json }): void;
  remove(table: string, id: string): void;
}

/** One entry of the feed. */
export interface Change {
  table: string;
  id: string;
  before: RecordData | null;
  after: RecordData | null;
  txId: string | undefined;
}

/** The rules of the data, which the app's tests give. */
export interface Rules {
  visible?: ((ask: VisibleAsk) => boolean) | undefined;
  writable?: ((ask: WritableAsk) => boolean) | undefined;
  functions?: { readonly [fn: string]: (args: AnyRecord, call: TestCall) => unknown } | undefined;
}

/** A refusal in the form of the wire. */
export function problemOf(status: number, code: string, more?: object): Problem {
  return { type: "about:blank", title: code, status, code, ...more };
}

/** A request that is refused as a whole. */
export class RequestRefused {
  constructor(readonly problem: Problem) {}
}

const refuse = (status: number, code: string, more?: object): never => {
  throw new RequestRefused(problemOf(status, code, more));
};

const MONTH = 30 * 86_400_000;

/** Records with versions, receipts and the feed: what a database does. */
export class Data implements ReadAll {
  readonly feed: Change[] = [];
  /** Refusals that wait for a transaction. */
  readonly refusals: Problem[] = [];
  private readonly records = new Map<string, Map<string, RecordData>>();
  private readonly receipts = new Map<
    string,
    { author: string | null; text: string; result: Result }
  >();

  constructor(
    readonly schema: Schema,
    private readonly rules: Rules,
    private readonly now: () => number,
    /** Changes that take effect together. */
    private readonly committed: (changes: readonly Change[]) => void,
  ) {}

  get(table: string, id: unknown): AnyRecord | null {
    return (this.records.get(table)?.get(String(id)) as AnyRecord | undefined) ?? null;
  }

  all(table: string): AnyRecord[] {
    return [...(this.records.get(table)?.values() ?? [])] as AnyRecord[];
  }

  table(name: string): TableSchema {
    return tableOf(this.schema, name) ?? refuse(400, "unknown_table", { table: name });
  }

  isVisible(user: string | null, table: string, record: RecordData): boolean {
    const ask = { ...this.read, user, table, record: record as AnyRecord };
    return this.rules.visible?.(ask) ?? true;
  }

  /** A record as far as a user may know of it. */
  seen(user: string | null, table: string, id: unknown): RecordData | null {
    const record = this.get(table, id) as RecordData | null;
    return record && this.isVisible(user, table, record) ? record : null;
  }

  /** Makes a record, or changes keys of it, as plain SQL would. */
  put(table: string, values: { readonly [key: string]: Json }): RecordData {
    const change = this.changeOf(table, values);
    this.commit([change]);
    return change.after as RecordData;
  }

  /** Removes a record for good. */
  remove(table: string, id: string): void {
    const before = this.get(table, id);
    if (before) this.commit([{ table, id, before, after: null, txId: undefined }]);
  }

  // --- requests ---

  write(body: unknown, user: string | null): WriteAnswer {
    const { transactions, dryRun } = body as { transactions?: Transaction[]; dryRun?: boolean };
    const all = transactions ?? [body as Transaction];
    const results: Result[] = [];
    const recordMap: { [table: string]: { [id: string]: RecordData } } = {};
    const refused = new Map<string, string>();
    for (const tx of all) {
      const needed = [...refused.keys()].find((id) => names(tx.operations, id));
      const blockedBy = needed === undefined ? undefined : refused.get(needed);
      const result = blockedBy
        ? refusalOf(tx, problemOf(424, "blocked", { blockedBy }))
        : this.apply(tx, user, dryRun === true);
      results.push(result);
      for (const op of tx.operations) {
        if (op.type === "call") continue;
        const { table, id } = op;
        if (result.status === "refused") {
          if (op.type === "create") refused.set(id, tx.txId);
          continue;
        }
        const record = this.seen(user, table, id);
        recordMap[table] ??= {};
        if (record) (recordMap[table] as { [id: string]: RecordData })[id] = record;
      }
    }
    return { results, recordMap };
  }

  getRecords(body: unknown, user: string | null): GetRecordsAnswer {
    const { pointers } = body as { pointers: { table: string; id: string; version?: number }[] };
    if (!pointers.length) refuse(400, "bad_request");
    if (pointers.length > 1000) refuse(422, "too_many");
    const recordMap: { [table: string]: { [id: string]: RecordData } } = {};
    const gone: { table: string; id: string }[] = [];
    const unchanged: { table: string; id: string }[] = [];
    for (const { table, id, version } of pointers) {
      this.table(table);
      const record = this.seen(user, table, id);
      if (!record) gone.push({ table, id });
      else if (record.version === version) unchanged.push({ table, id });
      else put(recordMap, table, record);
    }
    return { recordMap, gone, unchanged, cursor: "" };
  }

  query(body: QueryBody, user: string | null): Omit<QueryAnswer, "cursor"> {
    const { table, where, orderBy, limit = 200, after, have = {}, include = [] } = body;
    const schema = this.table(table);
    const match = compileWhere(schema, where as never);
    const compare = compileOrder(schema, orderBy);
    const last = after === undefined ? undefined : JSON.parse(after);
    const rows = (this.all(table) as unknown as RecordData[])
      .filter((record) => this.isVisible(user, table, record) && match(record))
      .filter((record) => !last || compare(record, last) > 0)
      .sort(compare);
    const page = rows.slice(0, limit);
    const ids = page.map(({ id }) => String(id));
    const recordMap: { [table: string]: { [id: string]: RecordData } } = { [table]: {} };
    for (const record of page) {
      if (have[String(record.id)] !== record.version) put(recordMap, table, record);
    }
    const gone: { table: string; id: string }[] = [];
    for (const [id, version] of Object.entries(have)) {
      if (ids.includes(id)) continue;
      const record = this.seen(user, table, id);
      if (!record) gone.push({ table, id });
      else if (record.version !== version) put(recordMap, table, record);
    }
    const keys = new Set<Key>(coveringKeys(table, schema, where as never));
    for (const path of include) {
      this.include(user, table, page, path.split("."), recordMap, keys);
    }
    const next = rows.length > limit ? JSON.stringify(page.at(-1)) : null;
    return { ids, recordMap, gone, keys: [...keys], next };
  }

  // --- inside ---

  private readonly read: ReadAll = {
    get: (table, id) => this.get(table, id),
    all: (table) => this.all(table),
  };

  private include(
    user: string | null,
    table: string,
    from: readonly RecordData[],
    [relation = "", ...rest]: readonly string[],
    recordMap: { [table: string]: { [id: string]: RecordData } },
    keys: Set<Key>,
  ): void {
    const parent = this.table(table).keys[relation]?.references;
    const child = parent ? undefined : tableOf(this.schema, relation);
    const back = Object.entries(child?.keys ?? {}).find(([, key]) => key.references === table)?.[0];
    const target = parent ?? relation;
    if (!parent && back === undefined) refuse(400, "unknown_key", { key: relation });
    const found: RecordData[] = [];
    for (const record of from) {
      if (parent) {
        const id = record[relation];
        if (id === null || id === undefined) continue;
        keys.add(recordKey(parent, String(id)));
        const one = this.seen(user, parent, id);
        if (one) found.push(one);
      } else if (back !== undefined && child) {
        const where = { [back]: record.id as Json };
        for (const key of coveringKeys(target, child, where)) keys.add(key);
        const match = compileWhere(child, where);
        for (const one of this.all(target) as unknown as RecordData[]) {
          if (match(one) && this.isVisible(user, target, one)) found.push(one);
        }
      }
    }
    for (const record of found) put(recordMap, target, record);
    if (rest.length) this.include(user, target, found, rest, recordMap, keys);
  }

  private apply(tx: Transaction, user: string | null, dryRun: boolean): Result {
    const { txId, operations, expect = [], authorId } = tx;
    const text = JSON.stringify([operations, expect]);
    const known = this.receipts.get(txId);
    if (known) {
      if (known.author !== user || known.text !== text) {
        return refusalOf(tx, problemOf(422, "tx_mismatch"));
      }
      const { result } = known;
      return result.status === "applied" ? { ...result, status: "duplicate" } : result;
    }
    const made = timeOfId(txId);
    if (made !== null && made < this.now() - MONTH) return refusalOf(tx, problemOf(410, "too_old"));
    const undo: Change[] = [];
    let result: Result;
    try {
      if (authorId !== undefined && authorId !== user) refuse(403, "forbidden");
      const given = this.refusals.shift();
      if (given) throw new RequestRefused(given);
      result = this.run(tx, user, undo);
    } catch (error) {
      this.rollBack(undo);
      if (!(error instanceof RequestRefused)) throw error;
      result = refusalOf(tx, error.problem);
    }
    if (dryRun) {
      this.rollBack(undo);
      return result;
    }
    this.receipts.set(txId, { author: user, text, result });
    if (result.status === "applied" && undo.length) {
      this.feed.push(...undo);
      this.committed(undo);
    }
    return result;
  }

  private run(tx: Transaction, user: string | null, done: Change[]): Result {
    const { txId, operations, expect = [] } = tx;
    const context = {
      schema: this.schema,
      userId: user,
      now: wireTime(this.now()),
      uuid: derivedIds(txId),
    };
    const bad = checkTransaction(tx, context);
    if (bad) throw new RequestRefused(problemOf(bad.status, bad.code, bad));
    this.expect(expect, user);
    const groups = new Map<string, RecordOperation[]>();
    const values: Json[] = [];
    for (const op of operations) {
      if (op.type === "call") {
        this.operate([...groups.values()], user, context, txId, done);
        groups.clear();
        values.push(this.call(op.fn, op.args, user, txId, done));
      } else {
        const place = recordKey(op.table, op.id);
        groups.set(place, [...(groups.get(place) ?? []), op]);
      }
    }
    this.operate([...groups.values()], user, context, txId, done);
    for (const { table, before, after } of done) {
      if (after) this.checkReferences(table, before, after, user);
    }
    const named = new Map<string, RecordVersion>();
    for (const op of operations) {
      if (op.type === "call") continue;
      const { table, id } = op;
      const version = Number(this.get(table, id)?.version ?? 0);
      named.set(recordKey(table, id), { table, id, version });
    }
    const versions = [...named.values()];
    return { txId, status: "applied", versions, ...(values.length && { values }) };
  }

  private expect(expect: readonly RecordVersion[], user: string | null): void {
    const conflicts: RecordVersion[] = [];
    const recordMap: { [table: string]: { [id: string]: RecordData } } = {};
    for (const { table, id, version } of expect) {
      if (this.get(table, id) && !this.seen(user, table, id)) refuse(403, "forbidden");
      const present = Number(this.get(table, id)?.version ?? 0);
      if (present === version) continue;
      conflicts.push({ table, id, version: present });
      const record = this.seen(user, table, id);
      if (record) put(recordMap, table, record);
    }
    if (conflicts.length) refuse(409, "conflict", { conflicts, recordMap });
  }

  private operate(
    groups: readonly RecordOperation[][],
    user: string | null,
    context: Parameters<typeof applyToRecord>[4],
    txId: string,
    done: Change[],
  ): void {
    for (const ops of groups) {
      const { table, id } = ops[0] as RecordOperation;
      const before = this.seen(user, table, id);
      const applied = applyToRecord(before, table, id, ops, context);
      if (applied.problem) {
        const { status, code } = applied.problem;
        refuse(status, code, applied.problem);
      }
      const record = applied.record ?? null;
      if (record === before) continue;
      // It is there and hidden, or the rules say no: one answer.
      const ask = { ...this.read, user, table, before: before as AnyRecord | null };
      const allowed = this.rules.writable?.({ ...ask, after: record as AnyRecord | null }) ?? true;
      if (!allowed || (!before && this.get(table, id))) refuse(403, "forbidden", { table, id });
      const version = Number(before?.version ?? 0) + 1;
      const after = record && { ...record, version };
      this.make({ table, id, before, after, txId }, done);
    }
  }

  private call(fn: string, args: unknown, user: string | null, txId: string, done: Change[]): Json {
    const work = this.rules.functions?.[fn];
    if (!work) throw new Error(`Give createTestServer functions with a ${fn}.`);
    const value = work((args ?? {}) as AnyRecord, {
      ...this.read,
      user,
      put: (table, values) => this.make({ ...this.changeOf(table, values), txId }, done),
      remove: (table, id) => {
        const before = this.get(table, id);
        if (before) this.make({ table, id, before, after: null, txId }, done);
      },
    });
    return (value ?? null) as Json;
  }

  /** A key that names a record of another table names one that its author can see. */
  private checkReferences(
    table: string,
    before: RecordData | null,
    after: RecordData,
    user: string | null,
  ): void {
    for (const [name, { references }] of Object.entries(this.table(table).keys)) {
      const value = after[name] ?? null;
      if (!references || value === null || value === before?.[name]) continue;
      if (tableOf(this.schema, references) && !this.seen(user, references, value)) {
        refuse(403, "forbidden", { table, id: String(after.id) });
      }
    }
  }

  private changeOf(table: string, values: { readonly [key: string]: Json }): Change {
    const id = String(values.id);
    const before = this.get(table, id) as RecordData | null;
    const blank = before ?? this.blank(this.table(table));
    const version = Number(before?.version ?? 0) + 1;
    const after: RecordData = { ...blank, ...values, version };
    return { table, id, before, after, txId: undefined };
  }

  private blank({ keys }: TableSchema): RecordData {
    const now = wireTime(this.now());
    const initial = ({ type, nullable, default: given }: KeySchema): Json => {
      if (!given) return !nullable && type === "list" ? [] : null;
      if ("constant" in given) return given.constant;
      return "now" in given ? (type === "date" ? now.slice(0, 10) : now) : null;
    };
    return Object.fromEntries(Object.entries(keys).map(([name, key]) => [name, initial(key)]));
  }

  private make(change: Change, done: Change[]): void {
    this.store(change.table, change.id, change.after);
    done.push(change);
  }

  private store(table: string, id: string, record: RecordData | null): void {
    const all = this.records.get(table) ?? new Map<string, RecordData>();
    this.records.set(table, all);
    if (record) all.set(id, record);
    else all.delete(id);
  }

  private rollBack(done: Change[]): void {
    for (const { table, id, before } of done.reverse()) this.store(table, id, before);
    done.length = 0;
  }

  private commit(changes: readonly Change[]): void {
    for (const { table, id, after } of changes) this.store(table, id, after);
    this.feed.push(...changes);
    this.committed(changes);
  }
}

/** Every key that covers a change, by what the record was and by what it is. */
export function keysOfChange(schema: Schema, { table, before, after }: Change): Set<Key> {
  const found = tableOf(schema, table) as TableSchema;
  return new Set([before, after].flatMap((record) => (record ? keysOf(table, found, record) : [])));
}

/** The columns that differ. */
export function patchOf(before: RecordData, after: RecordData): RecordData {
  return Object.fromEntries(
    Object.entries(after).filter(
      ([name, value]) => name !== "version" && !equalJson(value, before[name]),
    ),
  );
}

function refusalOf({ txId }: Transaction, error: Problem): Result {
  return { txId, status: "refused", versions: [], error };
}

function put(
  map: { [table: string]: { [id: string]: RecordData } },
  table: string,
  record: RecordData,
): void {
  map[table] ??= {};
  (map[table] as { [id: string]: RecordData })[String(record.id)] = record;
}

function names(value: unknown, id: string): boolean {
  if (value === id) return true;
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).some((one) => names(one, id))
  );
}
