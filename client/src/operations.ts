import { caught, type OpProblem, refuse } from "./errors.js";
import {
  byteLength,
  equalJson,
  isObject,
  type Json,
  jsonbKeys,
  member,
  type RecordData,
  toJson,
} from "./json.js";
import { parsePath, patchAt } from "./paths.js";
import {
  type KeySchema,
  type KeyType,
  keyOf,
  type Schema,
  type TableSchema,
  tableOf,
} from "./schema.js";
import {
  addTo,
  canonical,
  checkJson,
  elementOf,
  LIMITS,
  type Limits,
  refuseLimit,
  refuseType,
} from "./values.js";
import type { CallOperation, Operation, Transaction } from "./wire.gen.js";

/** What is done to one record. */
export type RecordOperation = Exclude<Operation, CallOperation>;

type KeyOperation = Extract<RecordOperation, { key: unknown }>;
type ListOperation = Extract<RecordOperation, { type: "listInsert" | "listRemove" }>;

/**
 * What operations depend on besides the record. A replay of one transaction must be given the same `now` and the same
 * `uuid`s each time, or what it renders changes by itself.
 */
export interface OpContext {
  schema: Schema;
  userId: string | null;
  /** The time of the transaction as the wire writes it: ISO 8601 in UTC, six digits, `Z`. */
  now: string;
  /** A uuid for a place: `table:id:key`. */
  uuid(place: string): string;
  limits?: Partial<Limits>;
}

/** The record after the operations (null: it is not there), or why there are none. */
export type Applied =
  | { record: RecordData | null; problem?: never }
  | { record?: never; problem: OpProblem };

/** An operation, and its number among those it came with. */
export interface Step {
  op: RecordOperation;
  n: number;
}

/** Where the work at hand is, for a refusal to tell. */
type Place = Partial<OpProblem>;

/** The limits that hold. */
export const limitsOf = (ctx: OpContext): Limits => ({ ...LIMITS, ...ctx.limits });
const numbered = (ops: readonly RecordOperation[]): Step[] => ops.map((op, n) => ({ op, n }));
/** The parts of an operation's key. */
export const partsOf = (op: RecordOperation, most: number): [string, ...string[]] =>
  parsePath((op as KeyOperation).key, most);
/** Takes a record away, or brings it back. */
export const isRemoval = (op: RecordOperation) => op.type === "delete" || op.type === "restore";

/**
 * Applies the operations of one record to its present state; null is an absent one. Never changes its input, shares
 * what stayed as it was, and gives the same object where nothing changed. A refusal is that of the server (docs:
 * Operations), as far as it follows from the record and the schema: rights, references, unique indexes, most CHECK
 * constraints and the count of bytes are the server's. A created record has version 0; other versions are kept.
 */
export function applyToRecord(
  record: RecordData | null,
  table: string,
  id: string,
  ops: readonly RecordOperation[],
  ctx: OpContext,
): Applied {
  const at: Place = { table, id };
  let after: RecordData | null = null;
  const problem = caught(() => {
    after = run(record, table, id, numbered(ops), ctx, at);
  }, at);
  return problem ? { problem } : { record: after };
}

function run(
  record: RecordData | null,
  name: string,
  id: string,
  given: readonly Step[],
  ctx: OpContext,
  at: Place,
): RecordData | null {
  const table = liveTable(name, ctx);
  const { steps, creating } = check(given, table, ctx, at);
  if (!creating && !record) refuse("forbidden");
  if (!creating && removesRow(table, given)) return null;
  const after = patch(creating ? null : record, id, table, steps, ctx, at);
  if (creating && record) refuse("exists");
  return after;
}

const liveTable = (name: string, { schema }: OpContext): TableSchema =>
  tableOf(schema, name) ?? refuse("unknown_table");

/** Whether nothing is left of the row. */
export const removesRow = (table: TableSchema, steps: readonly Step[]) =>
  table.hardDelete && !table.softDelete && steps.some(({ op }) => op.type === "delete");

/** Makes a record: the set of its id. */
export const namesId = ({ op }: Step) =>
  op.type === "set" && (op.key === "id" || (op.key?.length === 1 && op.key[0] === "id"));

/** The same with a create as one set per key, in the server's order. */
export const spread = (steps: readonly Step[]): Step[] =>
  steps.flatMap(({ op, n }): Step[] => {
    if (op.type !== "create") return [{ op, n }];
    const { type: _, value, ...at } = op;
    const full: { [key: string]: Json } = { ...value };
    delete full.version;
    full.id ??= value.id === null ? null : op.id;
    return ["id", ...jsonbKeys(full).filter((key) => key !== "id")].map((key) => ({
      op: { type: "set", ...at, key: [key], value: full[key] as Json },
      n,
    }));
  });

// What depends on the operation alone

const SUITED: { readonly [type in KeyType]?: string } = {
  json: "set-now increment listInsert listRemove",
  list: "listInsert listRemove",
  integer: "increment",
  bigint: "increment",
  numeric: "increment",
  float: "increment",
  timestamptz: "set-now",
  timestamp: "set-now",
  date: "set-now",
};

/** Refuses operations of a record that are not well formed, then those on keys that the caller may not write. */
function check(given: readonly Step[], table: TableSchema, ctx: OpContext, at: Place) {
  const limits = limitsOf(ctx);
  const steps = spread(given);
  const creating = steps.some(namesId);
  const named = new Set<string>();
  let forbidden: Step | undefined;

  /** Gives whether the key may not be written. */
  const isForbidden = (op: RecordOperation): boolean => {
    const { type } = op;
    if (isRemoval(op)) {
      if (table.softDelete) return !creating && !mayUpdate(keyOf(table, table.softDelete));
      if (table.hardDelete && !creating && type === "delete") return false;
      refuse("not_supported");
    }
    const [name, ...rest] = partsOf(op, limits.max_path);
    const inside = rest.length > 0;
    const key = keyOf(table, name) ?? refuse("unknown_key");
    const value = type === "set" ? op.value : undefined;
    named.add(name);
    if (name === "id" && creating && type === "set" && !inside && value === op.id) return false;
    if (name === "id" || name === "version") {
      refuse("bad_request", `The ${name} cannot be changed`);
    }
    const expected = key.type;
    if (expected === "other") refuseType("nothing: the column is read only");
    if (inside && expected !== "json") {
      refuse("bad_path", `A key of type ${expected} has nothing inside`, { expected });
    }
    if (type !== "set" && !SUITED[expected]?.split(" ").includes(type)) {
      refuse("wrong_type", `${type} does not apply to a key of type ${expected}`, {
        expected,
      });
    }
    if (!key.nullable && type === "set" && !inside && (value ?? null) === null) {
      refuse("required");
    }
    let sent: Json | undefined;
    if (expected === "json") {
      if ("value" in op && op.value !== undefined) checkJson(op.value, rest.length, limits);
      if (type !== "set" && type !== "set-now") leaf(undefined, op as KeyOperation, "", limits);
    } else if (type === "listInsert" || type === "listRemove") {
      canonical(op.value, elementOf(key), limits);
      patchList(undefined, op, limits);
    } else {
      sent = canonical(type === "increment" ? op.by : value, key, limits);
    }
    if (!creating) return !mayUpdate(key);
    // A key of the server's may repeat the default it would get anyway.
    return (
      name !== table.touch &&
      (key.insertable === false ||
        (key.serverOwned === true &&
          (type !== "set" ||
            sent === undefined ||
            expected === "list" ||
            sent !== known(key, ctx))))
    );
  };

  for (const step of steps) {
    see(at, step);
    if (isForbidden(step.op)) forbidden ??= step;
  }
  for (const [key, { required }] of creating ? Object.entries(table.keys) : []) {
    if (required && !named.has(key)) refuse("required", undefined, { key });
  }
  if (forbidden) {
    see(at, forbidden);
    refuse("forbidden_key");
  }
  delete at.op;
  delete at.key;
  return { steps, creating };
}

/** Notes which operation is looked at. Its key is shown if it is one. */
function see(at: Place, { op, n }: Step): void {
  const { key } = op as KeyOperation;
  at.op = n;
  if ([key].flat().every((part) => typeof part === "string")) at.key = key;
  else delete at.key;
}

/** Whether clients may change it. */
export const mayUpdate = (key: KeySchema | undefined) =>
  key !== undefined && !key.serverOwned && key.updatable !== false;

/** What a create puts into a key of the server's, as far as it can be known to be the same there. */
function known({ default: given }: KeySchema, ctx: OpContext): Json | undefined {
  if (!given) return null;
  return "constant" in given ? given.constant : "user" in given ? ctx.userId : undefined;
}

// What depends on the record

/** What a key is created with: the column's default, null where the server alone knows it. */
function initial(name: string, key: KeySchema, table: string, id: string, ctx: OpContext): Json {
  const { type, default: given } = key;
  if (name === "version") return 0;
  if (name === "id") return type === "integer" ? Number(id) : id;
  // A list that cannot be null is nearly always empty at first, and apps loop over it.
  if (!given) return type === "list" && !key.nullable && !key.required ? [] : null;
  if ("user" in given) return ctx.userId;
  if ("now" in given) return timeAs(type, ctx);
  return "uuid" in given
    ? ctx.uuid(`${table}:${id}:${name}`)
    : canonical(given.constant, key, LIMITS);
}

/** The time of the transaction as a type holds it. */
const timeAs = (type: KeyType, { now }: OpContext): string =>
  type === "date" ? now.slice(0, 10) : type === "timestamp" ? now.slice(0, -1) : now;

/** The record with the steps done; null is one that is made. */
function patch(
  record: RecordData | null,
  id: string,
  table: TableSchema,
  steps: readonly Step[],
  ctx: OpContext,
  at: Place,
): RecordData {
  const limits = limitsOf(ctx);
  const keys = Object.entries(table.keys);
  const after: RecordData = { ...record };
  if (!record) {
    for (const [name, key] of keys) {
      if (key.readable !== false) after[name] = initial(name, key, at.table as string, id, ctx);
    }
  }
  const named = new Set<string>();
  for (const step of steps) {
    const { op } = step;
    const [name, ...path] = isRemoval(op)
      ? [table.softDelete as string]
      : partsOf(op, limits.max_path);
    const key = keyOf(table, name) as KeySchema;
    const old = after[name] ?? null;
    if (name === "id") continue;
    see(at, step);
    named.add(name);
    if (isRemoval(op)) {
      const gone = op.type === "delete";
      after[name] = key.type === "boolean" ? gone : gone ? timeAs(key.type, ctx) : null;
    } else if (name === table.touch || (op.type === "set-now" && key.type !== "json")) {
      after[name] = timeAs(key.type, ctx);
    } else if (key.type === "json") {
      const change = (value?: Json) => leaf(value, op as KeyOperation, ctx.now, limits);
      after[name] = patchAt(old, path, change) ?? null;
    } else if (op.type === "increment") {
      after[name] = addTo(old, canonical(op.by, key, limits), key.type);
    } else {
      const value =
        op.type === "set"
          ? op.value
          : patchList(old, spelled(op as ListOperation, key, limits), limits);
      after[name] = canonical(value, key, limits);
    }
  }
  delete at.op;
  delete at.key;

  let changed = !record;
  for (const name of named) {
    const value = after[name] as Json;
    if (name === table.touch) changed = true;
    else if (record && equalJson(value, record[name])) after[name] = record[name] as Json;
    else changed = true;
    const { type, values } = keyOf(table, name) as KeySchema;
    if (type === "text" && value !== null && values?.includes(value as string) === false) {
      // What has long been there is the server's affair.
      if (value !== record?.[name]) {
        refuse("check_failed", undefined, { key: name });
      }
    }
  }
  if (record) {
    if (!changed) return record;
    const touch = table.touch !== null && keyOf(table, table.touch);
    if (touch) after[table.touch as string] = timeAs(touch.type, ctx);
    return after;
  }
  for (const [key, { required }] of keys) {
    if (required && after[key] === null) {
      refuse("required", undefined, { key });
    }
  }
  return after;
}

/** One operation at the end of its path inside jsonb; undefined stands for nothing there, before and after. */
function leaf(
  old: Json | undefined,
  op: KeyOperation,
  now: string,
  limits: Limits,
): Json | undefined {
  switch (op.type) {
    case "set":
      return op.value;
    case "set-now":
      return now;
    case "increment": {
      const from = old ?? 0;
      if (typeof from !== "number") refuse("not_a_number");
      const sum = from + (typeof op.by === "number" ? op.by : refuseType("a number"));
      return Number.isFinite(sum) ? sum : refuse("bad_value");
    }
    default:
      return patchList(old, op, limits);
  }
}

/** Where a value stands in a list. */
export const indexOf = (list: readonly Json[], value: Json | undefined) =>
  list.findIndex((item) => equalJson(item, value));
/** A list without a value. */
export const without = (list: readonly Json[], value: Json) =>
  list.filter((item) => !equalJson(item, value));

/** The operation as the column spells its values; an anchor that it could not hold is as it was, and found nowhere. */
function spelled(op: ListOperation, key: KeySchema, limits: Limits): ListOperation {
  if (key.type !== "list") return op;
  const element = elementOf(key);
  const value = canonical(op.value, element, limits);
  if (op.type === "listRemove" || !isObject(op.position)) return { ...op, value };
  const position = Object.fromEntries(
    Object.entries(op.position).map(([place, anchor]) => {
      let found = anchor as Json;
      caught(() => {
        found = canonical(found, element, limits);
      });
      return [place, found];
    }),
  );
  return { ...op, value, position: position as NonNullable<typeof op.position> };
}

function patchList(list: Json | undefined, op: ListOperation, limits: Limits): Json | undefined {
  const { value } = op;
  const insert = op.type === "listInsert";
  const position: unknown = (insert ? op.position : undefined) ?? "append";
  const [[where, anchor] = ["", null], more] =
    typeof position === "string"
      ? [[position, undefined]]
      : Object.entries(isObject(position) ? position : {});
  const places = anchor === undefined ? ["append", "prepend"] : ["before", "after"];
  if (more || !places.includes(where) || (insert && op.position === null)) {
    refuse("bad_request", 'A position is "prepend", "append", {before} or {after}');
  }
  if (list === undefined || list === null) return insert ? [value] : list;
  if (!Array.isArray(list)) refuse("not_a_list");
  const rest = without(list, value);
  if (!insert) return rest;
  if (rest.length >= limits.max_list_items) refuseLimit(limits, "max_list_items");
  const found = indexOf(rest, anchor);
  let at = where === "append" || where === "after" ? rest.length : 0;
  // An anchor that is the value itself leaves it where it is.
  if (equalJson(anchor, value) && rest.length < list.length) at = indexOf(list, value);
  else if (found >= 0) at = where === "after" ? found + 1 : found;
  return [...rest.slice(0, at), value, ...rest.slice(at)];
}

// Transactions

const FIELDS: { readonly [type: string]: string } = {
  set: "key value?",
  "set-now": "key",
  increment: "key by",
  listInsert: "key value position?",
  listRemove: "key value",
  create: "value",
  delete: "",
  restore: "",
  call: "fn args?",
};

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * What is wrong with a transaction by its own contents, as the server would say it: 400, 413 and 422, and 403 for keys
 * of the server's. Null where it may be sent. Of several things the one that comes first is told.
 */
export function checkTransaction(tx: Transaction, ctx: OpContext): OpProblem | null {
  const at: Place = {};
  return caught(() => {
    const limits = limitsOf(ctx);
    const sent = toJson(tx);
    const { txId, operations, expect } = sent as unknown as Transaction;
    if (typeof txId !== "string" || !UUID.test(txId.toLowerCase()) || !Array.isArray(operations)) {
      refuse("bad_request", "A transaction is {txId: uuid, operations: [...]}");
    }
    // The server counts in its own way; what is never within the limit is told here.
    if (JSON.stringify(sent).length > 1.5 * limits.max_transaction_bytes) {
      refuseLimit(limits, "max_transaction_bytes");
    }
    if (operations.length > limits.max_operations) refuseLimit(limits, "max_operations");
    if (!operations.length) refuse("bad_request");
    operations.forEach((op: Operation, n) => {
      checkForm(op, Object.assign(at, { op: n }));
      if (op.type === "call") checkCall(op, ctx, limits, at);
      else checkId(op.id, liveTable(op.table, ctx).idType);
    });
    const groups = groupsOf(operations);
    for (const { table, id, steps } of groups) {
      Object.assign(at, { table, id });
      check(steps, liveTable(table, ctx), ctx, at);
    }
    if (expect !== undefined) checkExpect(expect, groups);
  }, at);
}

/** The form of one operation, before its table is looked at. */
function checkForm(op: unknown, at: Place): asserts op is Operation {
  for (const name of ["table", "id", "key"] as const) {
    const shown = isObject(op) ? op[name] : undefined;
    if ([shown].flat().every((part) => typeof part === "string")) at[name] = shown as string;
    else delete at[name];
  }
  if (!isObject(op) || typeof op.type !== "string") refuse("bad_request");
  const { type, table, id, key, by, value, fn, args } = op;
  const fields = member(FIELDS, type);
  if (fields === undefined) refuse("unknown_operation");
  const call = type === "call";
  const takes = [...fields.split(" "), ...(call ? [] : ["table", "id"]), "type"];
  if (
    Object.keys(op).some((name) => !takes.includes(name) && !takes.includes(`${name}?`)) ||
    takes.some((name) => name && !name.endsWith("?") && op[name] === undefined) ||
    (call
      ? typeof fn !== "string" || (args !== undefined && !isObject(args))
      : typeof table !== "string" || typeof id !== "string") ||
    (type === "increment" && typeof by !== "number" && typeof by !== "string") ||
    (type === "create" && !isObject(value)) ||
    key === null
  ) {
    refuse("bad_request");
  }
}

/** Is the id written the one way the wire writes it? One record has one name. */
function checkId(id: string, type: string): void {
  const good =
    type === "uuid"
      ? UUID.test(id)
      : type === "bigint"
        ? /^(0|-?[1-9]\d{0,18})$/.test(id) && BigInt.asIntN(64, BigInt(id)) === BigInt(id)
        : id && byteLength(id) <= 200;
  if (!good) refuse("bad_request", `That is no id of type ${type} as the wire writes it`);
}

/** The operations of one record. */
export interface Group {
  table: string;
  id: string;
  steps: Step[];
}

/** Operations by record, in the order of their first ones. */
export function groupsOf(operations: readonly Operation[]): Group[] {
  const groups = new Map<string, Group>();
  operations.forEach((op, n) => {
    if (op.type === "call") return;
    const { table, id } = op;
    const place = `${table} ${id}`;
    const group = groups.get(place) ?? { table, id, steps: [] };
    groups.set(place, group);
    group.steps.push({ op, n });
  });
  return [...groups.values()];
}

function checkExpect(expect: unknown, groups: readonly Group[]): void {
  const good = (one: Json) =>
    isObject(one) &&
    Object.keys(one).length === 3 &&
    Number.isInteger(one.version) &&
    (one.version as number) >= 0 &&
    (one.version as number) < 1e15 &&
    groups.some(({ table, id }) => table === one.table && id === one.id);
  if (!Array.isArray(expect) || !expect.every(good)) {
    refuse("bad_request", "expect is [{table, id, version}] of records that are written");
  }
}

function checkCall(
  { fn, args = {} }: CallOperation,
  { schema }: OpContext,
  limits: Limits,
  at: Place,
): void {
  const takes = member(schema.functions, fn) ?? refuse("unknown_function");
  if (Object.keys(args).some((name) => !Object.hasOwn(takes, name))) {
    refuse("unknown_argument");
  }
  for (const [key, { type, required }] of Object.entries(takes)) {
    at.key = key;
    if (required && args[key] === undefined) refuse("required");
    // What a list holds is not told.
    if (type !== "list" && type !== "other") {
      canonical(args[key], { type: type as KeyType, nullable: true, required }, limits);
    }
  }
}
