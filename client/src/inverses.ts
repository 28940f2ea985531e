import { equalJson, type Json, type RecordData } from "./json.js";
import {
  applyToRecord,
  groupsOf,
  indexOf,
  isRemoval,
  limitsOf,
  mayUpdate,
  namesId,
  type OpContext,
  partsOf,
  type RecordOperation,
  removesRow,
  type Step,
  spread,
  without,
} from "./operations.js";
import { readPath } from "./paths.js";
import { type KeySchema, keyOf, type TableSchema, tableOf } from "./schema.js";
import type { ReadRecord } from "./steps.js";
import { canonical, elementOf, LIMITS } from "./values.js";
import type { ListInsertOperation, Operation } from "./wire.gen.js";

/** What must still be so for an inverse to be right: nobody else has changed what the write left. */
export interface Guard {
  table: string;
  id: string;
  path: string[];
  /**
   * `value`: at the path stands `value` (undefined: nothing). `item`: the list there holds `value`; `noItem`: it does
   * not. `number`: a number is there. `keys`: the record has these keys. `absent`: there is no record.
   */
  kind: "value" | "item" | "noItem" | "number" | "keys" | "absent";
  value?: Json | undefined;
  /** The time of the transaction stands there: any time counts as equal, since the server's is not known yet. */
  time?: boolean;
}

/** What undoes one operation. */
export interface Inverse {
  operations: RecordOperation[];
  guard: Guard;
  /** Undoes less, for where the guard does not hold: its own part of what others have added to. */
  otherwise?: Inverse;
}

/**
 * What undoes one operation, from the record before and after it; applied to the record after, it gives back the one
 * before, but for keys of the server's and the touch key. Null where it changed nothing, or cannot be undone.
 */
export function invert(
  before: RecordData | null,
  op: RecordOperation,
  after: RecordData | null,
  ctx: OpContext,
): Inverse | null {
  const table = tableOf(ctx.schema, op.table);
  if (!table || before === after) return null;
  if (!before) return after && invertCreate([{ op, n: 0 }], after, table);
  /** The same but for the version and what the server gives; its user must be the same. */
  const same = (other: RecordData) =>
    Object.entries(table.keys).every(
      ([name, { serverOwned, default: given }]) =>
        name === "version" ||
        name === table.touch ||
        (serverOwned && !(given && "user" in given)) ||
        equalJson(before[name], other[name]),
    );
  if (after && same(after)) return null;
  const ways = after
    ? inverses(before, op, after, table, ctx)
    : [recreation(before, op, table, ctx)];
  const exact = ({ operations }: Inverse) => {
    const { record } = applyToRecord(after, op.table, op.id, operations, ctx);
    return record && same(record);
  };
  return ways.find(exact) ?? null;
}

/** Ways to undo an operation on a record that stays, the best first. */
function inverses(
  before: RecordData,
  op: RecordOperation,
  after: RecordData,
  table: TableSchema,
  ctx: OpContext,
): Inverse[] {
  const limits = limitsOf(ctx);
  const { type } = op;
  const at = { table: op.table, id: op.id };
  const path: string[] = "key" in op ? partsOf(op, limits.max_path) : [table.softDelete as string];
  const back = (
    rest: { type: RecordOperation["type"]; [field: string]: unknown },
    kind: Guard["kind"],
    value: Json | undefined,
    key = path,
  ): Inverse => ({
    operations: [{ ...at, ...rest } as RecordOperation],
    guard: { ...at, path: key, kind, value, time: type === "set-now" || type === "delete" },
  });
  const put = (key: string[]): Inverse => {
    const value = readPath(before, key);
    const rest = { type: "set" as const, key, ...(value === undefined ? {} : { value }) };
    return back(rest, "value", readPath(after, key), key);
  };
  // Where the write had to make the way, undoing takes the way back too.
  const made = path.findIndex((_, n) => (readPath(before, path.slice(0, n + 1)) ?? null) === null);
  const whole = put(made < 0 ? path : path.slice(0, made + 1));
  const last = [put(path), put(path.slice(0, 1))];
  const reinsert = (list: Json[], value: Json, kind: "item" | "noItem", key: string[]) => {
    const n = indexOf(list, value);
    const rest = without(list, value);
    const places: ListInsertOperation["position"][] = [n ? "append" : "prepend"];
    if (n < rest.length) places.unshift({ before: rest[n] as Json });
    if (n > 0) places.unshift({ after: rest[n - 1] as Json });
    return places.map((position) =>
      back({ type: "listInsert", key, value, position }, kind, value, key),
    );
  };
  const old = readPath(before, path);
  switch (type) {
    case "increment": {
      const by = typeof op.by === "number" ? -op.by : `-${op.by}`.replace("--", "");
      const less = back({ type, key: path, by }, "number", undefined);
      return [less, { ...whole, otherwise: less }, ...last];
    }
    case "listInsert":
    case "listRemove": {
      const key = keyOf(table, path[0] as string) as KeySchema;
      const value = key.type === "list" ? canonical(op.value, elementOf(key), limits) : op.value;
      const remove = back({ type: "listRemove", key: path, value }, "item", value);
      if (!Array.isArray(old)) return [{ ...whole, otherwise: remove }, ...last];
      return type === "listInsert"
        ? [remove, ...reinsert(old, value, "item", path), ...last]
        : [...reinsert(old, value, "noItem", path), ...last];
    }
    case "set": {
      const parent = path.slice(0, -1);
      const list = readPath(before, parent);
      if (op.value === undefined && Array.isArray(list)) {
        return [...reinsert(list, old as Json, "noItem", parent), put(parent), ...last];
      }
    }
  }
  if (type === "delete" && !old) whole.operations = [{ type: "restore", ...at }];
  return [
    made < 0 || made === path.length - 1 ? whole : { ...whole, otherwise: put(path) },
    ...last,
  ];
}

/**
 * Undoing a hard delete: the record anew, with what clients may give it. What the column's default gives anyway is left
 * out: not everybody who may make a record may name all its keys.
 */
function recreation(
  before: RecordData,
  op: RecordOperation,
  table: TableSchema,
  ctx: OpContext,
): Inverse {
  const at = { table: op.table, id: op.id };
  const value: RecordData = { id: op.id };
  for (const [name, key] of Object.entries(table.keys)) {
    const { serverOwned, type, required } = key;
    if (serverOwned || type === "other" || name === table.touch || name === "version") continue;
    if (before[name] === undefined) continue;
    if (!required && equalJson(before[name], defaultOf(key, ctx))) continue;
    value[name] ??= before[name];
  }
  return {
    operations: [{ type: "create", ...at, value }],
    guard: { ...at, path: [], kind: "absent" },
  };
}

/** What a key gets that is not named, where the client can be sure of it. */
function defaultOf(key: KeySchema, ctx: OpContext): Json | undefined {
  const { default: given } = key;
  if (!given) return undefined;
  if ("user" in given) return ctx.userId;
  return "constant" in given ? canonical(given.constant, key, LIMITS) : undefined;
}

function invertCreate(
  given: readonly Step[],
  after: RecordData,
  table: TableSchema,
): Inverse | null {
  const { op } = given[0] as Step;
  const at = { table: op.table, id: op.id };
  const soft = table.softDelete;
  if (soft ? after[soft] || !mayUpdate(keyOf(table, soft)) : !table.hardDelete) return null;
  const value: RecordData = soft ? { [soft]: after[soft] as Json } : {};
  for (const step of spread(given)) {
    if (isRemoval(step.op)) continue;
    const [name] = partsOf(step.op, Number.POSITIVE_INFINITY);
    if (name !== table.touch && mayUpdate(keyOf(table, name))) value[name] = after[name] as Json;
  }
  const time = given.some((step) => step.op.type === "set-now");
  return {
    operations: [{ type: "delete", ...at }],
    guard: { ...at, path: [], kind: "keys", value, time },
  };
}

/** What undoes the operations of a transaction, in the order in which it has to be done. */
export function invertTransaction(
  operations: readonly Operation[],
  read: ReadRecord,
  ctx: OpContext,
): Inverse[] {
  const found: [number, Inverse | null][] = [];
  for (const { table, id, steps } of groupsOf(operations)) {
    const schema = tableOf(ctx.schema, table);
    if (!schema) continue;
    let record = read(table, id) ?? null;
    // A create is one, however many operations make it; and all that is left of a hard delete is the delete.
    const made = spread(steps).some(namesId);
    const whole = made || removesRow(schema, steps);
    const removal: Step = { op: { type: "delete", table, id }, n: steps[0]?.n as number };
    for (const step of whole ? [removal] : steps) {
      const ops = made ? steps.map(({ op }) => op) : [step.op];
      const after = applyToRecord(record, table, id, ops, ctx).record;
      if (after === undefined) continue;
      const inverse = made
        ? after && invertCreate(steps, after, schema)
        : invert(record, step.op, after, ctx);
      found.push([step.n, inverse]);
      record = after;
    }
  }
  return found.sort(([a], [b]) => b - a).flatMap(([, inverse]) => inverse ?? []);
}

/** Is it the same, where any time may stand for any other? */
const equalButTimes = (a: Json | undefined, b: Json | undefined) =>
  equalJson(timeless(a), timeless(b));

function timeless(value: Json | undefined): Json | undefined {
  if (typeof value === "string")
    return /^\d{4}-\d\d-\d\d(T[\d:.]{15}Z?)?$/.test(value) ? "" : value;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, timeless(item) as Json]);
  return { ...Object.fromEntries(entries), list: Array.isArray(value) };
}

/** Has nobody else changed what the write left? */
export function guardHolds(guard: Guard, record: RecordData | null | undefined): boolean {
  const { kind, path, value, time } = guard;
  if (!record) return kind === "absent";
  const same = time ? equalButTimes : equalJson;
  const there = readPath(record, path);
  switch (kind) {
    case "value":
      return same(there, value);
    case "keys":
      return Object.entries(value as RecordData).every(([name, was]) => same(record[name], was));
    case "number":
      return typeof there === "number" || (path.length === 1 && typeof there === "string");
    case "absent":
      return false;
    default:
      return Array.isArray(there) && indexOf(there, value) < 0 === (kind === "noItem");
  }
}

/** An inverse whose guard holds what is in the record now: after a merged write, or once the server's time is known. */
export function reguard(inverse: Inverse, record: RecordData): Inverse {
  const { guard, otherwise } = inverse;
  const now = { time: false, value: readPath(record, guard.path) };
  return {
    ...inverse,
    guard: { ...guard, ...(guard.kind === "value" && now) },
    ...(otherwise && { otherwise: reguard(otherwise, record) }),
  };
}

/**
 * The operations that undo, as far as nobody has interfered: to be written as one transaction. `skipped`: what was
 * changed by somebody else since, and stays. The inverses of several transactions are handed over with those of the
 * last one first.
 */
export function planUndo(
  inverses: readonly Inverse[],
  read: ReadRecord,
  ctx: OpContext,
): { operations: RecordOperation[]; skipped: Inverse[] } {
  const records = new Map<string, RecordData | null>();
  const operations: RecordOperation[] = [];
  const skipped: Inverse[] = [];
  for (const inverse of inverses) {
    const { table, id } = inverse.guard;
    const place = `${table} ${id}`;
    const record = (records.has(place) ? records.get(place) : read(table, id)) ?? null;
    let way: Inverse | undefined = inverse;
    while (way && !guardHolds(way.guard, record)) way = way.otherwise;
    const after = way && applyToRecord(record, table, id, way.operations, ctx).record;
    if (!way || after === undefined) {
      skipped.push(inverse);
    } else {
      records.set(place, after);
      operations.push(...way.operations);
    }
  }
  return { operations, skipped };
}
