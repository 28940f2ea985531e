import { caught, type OpProblem, Refusal, refuse } from "./errors.js";
import {
  byteLength,
  compareText,
  equalJson,
  isObject,
  type Json,
  jsonbKeys,
  jsonbSize,
  type RecordData,
  toJson,
} from "./json.js";
import { parsePath, patchAt, readPath } from "./paths.js";
import {
  type KeySchema,
  type KeyType,
  keyOf,
  type Schema,
  type TableSchema,
  tableOf,
} from "./schema.js";
import {
  addNumbers,
  addTo,
  canonical,
  checkJson,
  LIMITS,
  type Limits,
  refuseLimit,
  refuseType,
} from "./values.js";
import type { CallOperation, ListInsertOperation, Operation, Transaction } from "./wire.gen.js";

/** What is done to one record. */
export type RecordOperation = Exclude<Operation, CallOperation>;

type KeyOperation = Extract<RecordOperation, { key: unknown }>;

/**
 * What operations depend on besides the record. A replay of one transaction must be given the same `now` and the same
 * `uuid`s each time, or what it renders changes by itself.
 */
export interface OpContext {
  schema: Schema;
  userId: string | null;
  /** The time of the transaction as the wire writes it: ISO 8601 in UTC, six digits, `Z`. */
  now: string;
  uuid(): string;
  limits?: Partial<Limits>;
}

/** The record after the operations (null: it is not there), or why there are none. */
export type Applied =
  | { record: RecordData | null; problem?: never }
  | { record?: never; problem: OpProblem };

/** A step of a record: an operation, where a create has become one set per key. `n`: which operation it came from. */
interface Step {
  op: RecordOperation;
  n: number;
}

const limitsOf = (ctx: OpContext): Limits => ({ ...LIMITS, ...ctx.limits });

/**
 * Applies the operations of one record to its present state; null is an absent one. Never changes its input, shares
 * what stayed as it was, and gives the same object where nothing changed. A refusal is that of the server (docs:
 * Operations), as far as it follows from the record and the schema: rights, CHECK constraints and references are the
 * server's. A created record has version 0; other versions are kept.
 */
export function applyToRecord(
  record: RecordData | null,
  table: string,
  id: string,
  ops: readonly RecordOperation[],
  ctx: OpContext,
): Applied {
  let result: RecordData | null = null;
  const problem = caught(
    () => {
      result = run(record, table, id, ops, ctx);
    },
    () => ({ table, id }),
  );
  return problem ? { problem } : { record: result };
}

function run(
  record: RecordData | null,
  name: string,
  id: string,
  ops: readonly RecordOperation[],
  ctx: OpContext,
): RecordData | null {
  const table = tableOf(ctx.schema, name) ?? refuseTable();
  const limits = limitsOf(ctx);
  const steps = stepsOf(ops);
  const creating = steps.some(({ op }) => namesId(op));
  const forbidden = check(steps, table, creating, ctx, limits);
  if (forbidden) refuseKey(forbidden);
  if (!creating) {
    if (!record) refuse(403, "forbidden", "No such record, or you may not change it");
    if (removesRow(table, ops)) return null;
  }
  const after = patch(
    creating ? defaults(table, id, ctx) : (record as RecordData),
    table,
    steps,
    creating,
    ctx,
    limits,
  );
  if (creating && record) refuse(409, "exists", "There is such a record already");
  return after;
}

function refuseTable(): never {
  refuse(400, "unknown_table", "There is no such table");
}

function refuseKey({ op, n }: Step): never {
  refuse(403, "forbidden_key", "This key cannot be written", { ...keyShown(op), op: n });
}

const keyShown = (op: unknown) => {
  const key = isObject(op) ? op.key : undefined;
  const short =
    typeof key === "string" ||
    (Array.isArray(key) && key.every((part) => typeof part === "string"));
  return short ? { key: key as string | string[] } : {};
};

const removesRow = (table: TableSchema, ops: readonly Operation[]) =>
  table.hardDelete && !table.softDelete && ops.some((op) => op.type === "delete");

const namesId = (op: Operation) =>
  op.type === "set" && (op.key === "id" || (op.key?.length === 1 && op.key[0] === "id"));

function stepsOf(ops: readonly RecordOperation[]): Step[] {
  return ops.flatMap((op, n): Step[] => {
    if (op.type !== "create") return [{ op, n }];
    const { table, id, value } = op;
    const set = (key: string, value: Json): Step => ({
      op: { type: "set", table, id, key: [key], value },
      n,
    });
    const keys = jsonbKeys(value).filter((key) => key !== "id" && key !== "version");
    return [
      set("id", value.id === undefined ? id : value.id),
      ...keys.map((key) => set(key, value[key] as Json)),
    ];
  });
}

// What depends on the operation alone

/** Refuses what is not well formed; gives the first step whose key may not be written. */
function check(
  steps: readonly Step[],
  table: TableSchema,
  creating: boolean,
  ctx: OpContext,
  limits: Limits,
): Step | undefined {
  let forbidden: Step | undefined;
  for (const step of steps) {
    try {
      if (checkStep(step.op, table, creating, ctx, limits)) forbidden ??= step;
    } catch (error) {
      throw error instanceof Refusal
        ? new Refusal({ ...keyShown(step.op), op: step.n, ...error.problem })
        : error;
    }
  }
  if (creating) {
    const named = new Set(
      steps.map(({ op }) => "key" in op && parsePath(op.key, limits.max_path)[0]),
    );
    for (const [key, { required }] of Object.entries(table.keys)) {
      if (required && !named.has(key)) refuse(400, "required", `${key} is required`, { key });
    }
  }
  return forbidden;
}

const LISTS = ["listInsert", "listRemove"];

/** What operations there are besides `set` for a type. */
function suits(type: KeyType): readonly string[] {
  switch (type) {
    case "json":
      return ["set-now", "increment", ...LISTS];
    case "list":
      return LISTS;
    case "integer":
    case "bigint":
    case "numeric":
    case "float":
      return ["increment"];
    case "timestamptz":
    case "timestamp":
    case "date":
      return ["set-now"];
    default:
      return [];
  }
}

function checkStep(
  op: RecordOperation,
  table: TableSchema,
  creating: boolean,
  ctx: OpContext,
  limits: Limits,
): boolean {
  if (op.type === "delete" || op.type === "restore") {
    if (table.softDelete) return !creating && !mayUpdate(keyOf(table, table.softDelete));
    if (!table.hardDelete) refuse(400, "not_supported", "Records of this table cannot be deleted");
    if (creating)
      refuse(400, "not_supported", "A record cannot be created and deleted for good at once");
    if (op.type === "restore")
      refuse(400, "not_supported", "Records of this table are deleted for good");
    return false;
  }
  const { key: sent, type } = op as KeyOperation;
  const path = parsePath(sent, limits.max_path);
  const name = path[0];
  const key = keyOf(table, name) ?? refuse(400, "unknown_key", "There is no such key");
  const inside = path.length > 1;
  const value = op.type === "set" ? op.value : undefined;
  if (name === "version") refuse(400, "bad_request", "The version is the server's");
  if (name === "id") {
    if (!creating || type !== "set" || inside || value !== op.id) {
      refuse(400, "bad_request", "The id of a record cannot be changed");
    }
    return false;
  }
  if (key.type === "other") refuseType("nothing: the column is read only");
  if ((inside && key.type !== "json") || (type !== "set" && !suits(key.type).includes(type))) {
    const expected = key.type;
    if (inside)
      refuse(400, "bad_path", `A key of type ${expected} has nothing inside`, { expected });
    refuse(400, "wrong_type", `${type} does not apply to a key of type ${expected}`, { expected });
  }
  if (!key.nullable && type === "set" && !inside && (value === undefined || value === null)) {
    refuse(400, "required", "This key cannot be null");
  }
  const given = checkValue(op as KeyOperation, key, path.length - 1, limits);
  if (!creating) return !mayUpdate(key);
  // A key of the server's may repeat the default it would get anyway.
  return (
    key.serverOwned === true &&
    name !== table.touch &&
    (type !== "set" ||
      inside ||
      key.type === "json" ||
      key.type === "list" ||
      !equalJson(given, known(key, ctx)))
  );
}

const mayUpdate = (key: KeySchema | undefined) =>
  key !== undefined && !key.serverOwned && key.updatable !== false;

/** What a create puts into a key of the server's, as far as it can be known to be the same there. */
function known({ default: given }: KeySchema, ctx: OpContext): Json | undefined {
  if (!given) return null;
  if ("constant" in given) return given.constant;
  return "user" in given ? ctx.userId : undefined;
}

function checkValue(
  op: KeyOperation,
  key: KeySchema,
  depth: number,
  limits: Limits,
): Json | undefined {
  if (key.type === "json") {
    if ("value" in op && op.value !== undefined) checkJson(op.value, depth, limits);
    if (op.type !== "set" && op.type !== "set-now") leaf(undefined, op, "", limits);
    return undefined;
  }
  if (op.type === "listInsert" || op.type === "listRemove") {
    canonical([op.value], key, limits);
    patchList(undefined, op, limits);
    return undefined;
  }
  if (op.type === "increment") return canonical(op.by, key, limits);
  return canonical(op.type === "set" ? op.value : null, key, limits);
}

// What depends on the record

/** The record a create begins with: defaults of the columns, null where the server alone knows. */
function defaults(table: TableSchema, id: string, ctx: OpContext): RecordData {
  const entries = Object.entries(table.keys).filter(([, key]) => key.readable !== false);
  return Object.fromEntries(entries.map(([name, key]) => [name, initial(name, key, id, ctx)]));
}

function initial(name: string, key: KeySchema, id: string, ctx: OpContext): Json {
  const { type, nullable, default: given } = key;
  if (name === "version") return 0;
  if (name === "id") return type === "integer" ? Number(id) : id;
  // A list that cannot be null is nearly always empty at first, and apps loop over it.
  if (!given) return type === "list" && !nullable && !key.required ? [] : null;
  if ("user" in given) return ctx.userId;
  if ("now" in given) return timeAs(type, ctx);
  return "uuid" in given ? ctx.uuid() : canonical(given.constant, key, LIMITS);
}

/** The time of the transaction as a type holds it. */
function timeAs(type: KeyType, { now }: OpContext): string {
  return type === "date" ? now.slice(0, 10) : type === "timestamp" ? now.slice(0, -1) : now;
}

function patch(
  record: RecordData,
  table: TableSchema,
  steps: readonly Step[],
  creating: boolean,
  ctx: OpContext,
  limits: Limits,
): RecordData {
  const after = { ...record };
  const named = new Set<string>();
  for (const { op, n } of steps) {
    if (op.type === "delete" || op.type === "restore") {
      const name = table.softDelete as string;
      const gone = op.type === "delete";
      const type = keyOf(table, name)?.type ?? "timestamptz";
      after[name] = type === "boolean" ? gone : gone ? timeAs(type, ctx) : null;
      named.add(name);
      continue;
    }
    const [name, ...path] = parsePath((op as KeyOperation).key, limits.max_path);
    const key = keyOf(table, name) as KeySchema;
    if (name === "id") continue;
    named.add(name);
    if (name === table.touch) {
      after[name] = timeAs(key.type, ctx);
      continue;
    }
    try {
      after[name] = column(after[name] ?? null, op as KeyOperation, key, path, ctx, limits);
    } catch (error) {
      throw error instanceof Refusal
        ? new Refusal({ ...keyShown(op), op: n, ...error.problem })
        : error;
    }
  }
  checkSize(after, table, limits);
  let changed = creating || (table.touch !== null && named.has(table.touch));
  for (const name of named) {
    const key = keyOf(table, name) as KeySchema;
    const value = after[name] as Json;
    if (name !== table.touch && !creating && equalJson(value, record[name])) {
      after[name] = record[name] as Json;
      continue;
    }
    changed = true;
    if (key.type === "text" && typeof value === "string" && key.values?.includes(value) === false) {
      refuse(400, "check_failed", "A value is not allowed here", { key: name });
    }
  }
  if (creating) {
    for (const [key, { required }] of Object.entries(table.keys)) {
      if (required && after[key] === null)
        refuse(400, "required", "A required key is missing", { key });
    }
  }
  if (!changed) return record;
  if (table.touch !== null && !creating) {
    after[table.touch] = timeAs(keyOf(table, table.touch)?.type ?? "timestamptz", ctx);
  }
  return after;
}

/** The new value of a column. */
function column(
  old: Json,
  op: KeyOperation,
  key: KeySchema,
  path: readonly string[],
  ctx: OpContext,
  limits: Limits,
): Json {
  if (key.type === "json") {
    return patchAt(old, path, (value) => leaf(value, op, ctx.now, limits)) ?? null;
  }
  switch (op.type) {
    case "set":
      return canonical(op.value, key, limits);
    case "set-now":
      return timeAs(key.type, ctx);
    case "increment":
      return addTo(old, canonical(op.by, key, limits), key.type);
    default:
      return canonical(patchList(old, op, limits), key, limits);
  }
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
      if (typeof from !== "number") refuse(400, "not_a_number", "There is no number at this path");
      return addNumbers(from, typeof op.by === "number" ? op.by : refuseType("a number"));
    }
    default:
      return patchList(old, op, limits);
  }
}

function patchList(
  list: Json | undefined,
  op: Extract<KeyOperation, { type: "listInsert" | "listRemove" }>,
  limits: Limits,
): Json | undefined {
  const { value } = op;
  const position = op.type === "listInsert" ? placeOf(op.position) : undefined;
  if (list === undefined || list === null) return position ? [value] : list;
  if (!Array.isArray(list)) refuse(400, "not_a_list", "There is no list at this path");
  const rest = list.filter((item) => !equalJson(item, value));
  if (!position) return rest;
  if (rest.length >= limits.max_list_items) refuseLimit(limits, "max_list_items");
  const at = placeIn(list, rest, value, position);
  return [...rest.slice(0, at), value, ...rest.slice(at)];
}

type Place = ["prepend" | "append"] | ["before" | "after", Json];

function placeOf(position: unknown): Place {
  if (position === undefined || position === "append") return ["append"];
  if (position === "prepend") return ["prepend"];
  if (isObject(position)) {
    const [entry, more] = Object.entries(position);
    if (entry && !more && (entry[0] === "before" || entry[0] === "after"))
      return [entry[0], entry[1]];
  }
  refuse(
    400,
    "bad_request",
    'A position is "prepend", "append", {"before": value} or {"after": value}',
  );
}

function placeIn(list: Json[], rest: Json[], value: Json, [where, anchor]: Place): number {
  const at = (items: Json[], wanted: Json | undefined) =>
    items.findIndex((item) => equalJson(item, wanted));
  if (where === "prepend") return 0;
  if (where === "append") return rest.length;
  // An anchor that is the value itself leaves it where it is.
  if (equalJson(anchor, value) && rest.length < list.length) return at(list, value);
  const found = at(rest, anchor);
  return where === "before" ? Math.max(found, 0) : found < 0 ? rest.length : found + 1;
}

function checkSize(record: RecordData, table: TableSchema, limits: Limits): void {
  let size = 0;
  for (const [name, { type }] of Object.entries(table.keys)) {
    const value = record[name];
    if (value === null || value === undefined) continue;
    if (type === "json") size += jsonbSize(value);
    else if (type === "text") size += byteLength(value as string);
    else if (type === "bytea")
      size += Math.floor(((value as string).replace(/=+$/, "").length * 3) / 4);
  }
  if (size > limits.max_record_bytes) refuseLimit(limits, "max_record_bytes", 413);
}

// Transactions

const FIELDS: { readonly [type: string]: readonly string[] } = {
  set: ["table", "id", "key", "value"],
  "set-now": ["table", "id", "key"],
  increment: ["table", "id", "key", "by"],
  listInsert: ["table", "id", "key", "value", "position"],
  listRemove: ["table", "id", "key", "value"],
  create: ["table", "id", "value"],
  delete: ["table", "id"],
  restore: ["table", "id"],
  call: ["fn", "args"],
};

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * What is wrong with a transaction by its own contents, as the server would say it: 400, 413 and 422, and 403 for keys
 * of the server's. Null where it may be sent.
 */
export function checkTransaction(tx: Transaction, ctx: OpContext): OpProblem | null {
  let at: unknown;
  let number: number | undefined;
  return caught(
    () => {
      const limits = limitsOf(ctx);
      const sent = toJson(tx);
      const { txId, operations, expect } = sent as unknown as Transaction;
      if (
        typeof txId !== "string" ||
        !UUID.test(txId.toLowerCase()) ||
        !Array.isArray(operations)
      ) {
        refuse(400, "bad_request", "A transaction is {txId: uuid, operations: [...]}");
      }
      if (jsonbSize(sent) > limits.max_transaction_bytes) {
        refuseLimit(limits, "max_transaction_bytes", 413);
      }
      if (operations.length > limits.max_operations) refuseLimit(limits, "max_operations");
      if (!operations.length)
        refuse(400, "bad_request", "A transaction has at least one operation");
      operations.forEach((op: Operation, n) => {
        [at, number] = [op, n];
        checkForm(op);
        if (op.type !== "call") checkId(op.id, tableOf(ctx.schema, op.table) ?? refuseTable());
      });
      [at, number] = [undefined, undefined];
      checkGroups(operations, ctx, limits);
      if (expect !== undefined) checkExpect(expect, operations);
      operations.forEach((op: Operation, n) => {
        [at, number] = [op, n];
        if (op.type === "call") checkCall(op, ctx.schema, limits);
      });
    },
    () => ({ ...placeShown(at), ...(number === undefined ? {} : { op: number }) }),
  );
}

function placeShown(op: unknown): Partial<OpProblem> {
  if (!isObject(op)) return {};
  const { table, id } = op;
  return {
    ...(typeof table === "string" ? { table } : {}),
    ...(typeof id === "string" ? { id } : {}),
    ...keyShown(op),
  };
}

/** The form of one operation, before its table is looked at. */
function checkForm(op: unknown): void {
  if (!isObject(op) || typeof op.type !== "string") {
    refuse(400, "bad_request", "An operation is an object with a type");
  }
  const fields = Object.hasOwn(FIELDS, op.type) ? FIELDS[op.type] : undefined;
  if (!fields) refuse(400, "unknown_operation", "There is no such operation");
  if (Object.keys(op).some((name) => name !== "type" && !fields.includes(name))) {
    refuse(400, "bad_request", "The operation has fields it does not take");
  }
  if (op.type === "call") {
    if (typeof op.fn !== "string" || !(op.args === undefined || isObject(op.args))) {
      refuse(400, "bad_request", "A call names a function and its arguments as an object");
    }
    return;
  }
  if (typeof op.table !== "string" || typeof op.id !== "string") {
    refuse(400, "bad_request", "An operation names its table and id");
  }
  const needs = (name: string) => fields.includes(name) && op[name] === undefined;
  if (
    needs("key") ||
    (op.type !== "set" && needs("value")) ||
    (op.type === "increment" && typeof op.by !== "number" && typeof op.by !== "string") ||
    (op.type === "create" && !isObject(op.value))
  ) {
    refuse(400, "bad_request", "The operation lacks a field, or one has the wrong form");
  }
}

/** Is the id written the one way the wire writes it? One record has one name. */
function checkId(id: string, { idType }: TableSchema): void {
  const [good, words] =
    idType === "uuid"
      ? [UUID.test(id), "a uuid in lower case"]
      : idType === "bigint"
        ? [
            /^(0|-?[1-9][0-9]{0,18})$/.test(id) && BigInt.asIntN(64, BigInt(id)) === BigInt(id),
            "a whole number as a string",
          ]
        : [id !== "" && byteLength(id) <= 200, "a text of 1 to 200 bytes"];
  if (!good) refuse(400, "bad_request", `The id is ${words}`);
}

interface Group {
  table: string;
  id: string;
  ops: RecordOperation[];
  numbers: number[];
}

/** Operations by record, in the order of their first ones. Calls divide them where `divided` says so. */
function groupsOf(operations: readonly Operation[], divided: boolean): Group[][] {
  const segments: Map<string, Group>[] = [new Map()];
  operations.forEach((op, n) => {
    if (op.type === "call") {
      if (divided) segments.push(new Map());
      return;
    }
    const segment = segments[segments.length - 1] as Map<string, Group>;
    const name = `${op.table} ${op.id}`;
    const group = segment.get(name) ?? { table: op.table, id: op.id, ops: [], numbers: [] };
    segment.set(name, group);
    group.ops.push(op);
    group.numbers.push(n);
  });
  return segments.map((segment) => [...segment.values()]);
}

/** The checks of every record's operations, in the server's order: creates, updates by table and id, hard deletes. */
function checkGroups(operations: readonly Operation[], ctx: OpContext, limits: Limits): void {
  let refusal: Refusal | undefined;
  for (const groups of groupsOf(operations, true)) {
    const ranked = groups.map((group) => {
      const table = tableOf(ctx.schema, group.table) as TableSchema;
      const steps = stepsOf(group.ops);
      const creating = steps.some(({ op }) => namesId(op));
      return {
        ...group,
        schema: table,
        steps,
        creating,
        rank: creating ? 1 : removesRow(table, group.ops) ? 3 : 2,
      };
    });
    ranked.sort(
      (a, b) =>
        a.rank - b.rank ||
        (a.rank === 1 ? 0 : compareText(a.table, b.table) || compareText(a.id, b.id)),
    );
    for (const { table, id, numbers, schema, steps, creating } of ranked) {
      const placed = (problem: OpProblem) =>
        new Refusal({
          table,
          id,
          ...problem,
          ...(problem.op === undefined ? {} : { op: numbers[problem.op] as number }),
        });
      try {
        const forbidden = check(steps, schema, creating, ctx, limits);
        if (forbidden && !refusal) {
          const problem = caught(() => refuseKey(forbidden)) as OpProblem;
          refusal = placed(problem);
        }
      } catch (error) {
        throw error instanceof Refusal ? placed(error.problem) : error;
      }
    }
  }
  if (refusal) throw refusal;
}

function checkExpect(expect: unknown, operations: readonly Operation[]): void {
  const good =
    Array.isArray(expect) &&
    expect.every(
      (one: unknown) =>
        isObject(one) &&
        Object.keys(one).every((key) => key === "table" || key === "id" || key === "version") &&
        typeof one.version === "number" &&
        Number.isInteger(one.version) &&
        one.version >= 0 &&
        one.version <= 999_999_999_999_999 &&
        operations.some((op) => op.type !== "call" && op.table === one.table && op.id === one.id),
    );
  if (!good) {
    refuse(
      400,
      "bad_request",
      "expect is a list of {table, id, version} of records the transaction touches",
    );
  }
}

function checkCall({ fn, args = {} }: CallOperation, schema: Schema, limits: Limits): void {
  const takes = Object.hasOwn(schema.functions, fn) ? schema.functions[fn] : undefined;
  if (!takes) refuse(400, "unknown_function", "There is no such function");
  if (Object.keys(args).some((name) => !Object.hasOwn(takes, name))) {
    refuse(400, "unknown_argument", "The function takes no such argument");
  }
  for (const [key, { type, required }] of Object.entries(takes)) {
    if (required && !Object.hasOwn(args, key))
      refuse(400, "required", "An argument is missing", { key });
    // What a list holds is not told.
    if (type !== "list" && type !== "other") {
      const problem = caught(() =>
        canonical(args[key], { type: type as KeyType, nullable: true, required }, limits),
      );
      if (problem) throw new Refusal({ ...problem, key });
    }
  }
}

// Undoing

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
  time?: true;
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
  if (!table || before === after || (before && after && sameButServers(table, before, after)))
    return null;
  if (!before) return after && invertCreate([op], after, table, ctx);
  const exact = (one: Inverse) => {
    const { record } = applyToRecord(after, op.table, op.id, one.operations, ctx);
    return record !== undefined && record !== null && sameButServers(table, record, before);
  };
  return (
    (after ? inverses(before, op, after, table, ctx) : recreations(before, op, table)).find(
      exact,
    ) ?? null
  );
}

/** The same but for the version and what the server gives; its user must be the same. */
function sameButServers(table: TableSchema, a: RecordData, b: RecordData): boolean {
  return Object.entries(table.keys).every(
    ([name, { serverOwned, default: given }]) =>
      name === "version" ||
      name === table.touch ||
      (serverOwned && !(given && "user" in given)) ||
      equalJson(a[name], b[name]),
  );
}

const place = ({ table, id }: RecordOperation) => ({ table, id });

/** Ways to undo an operation on a record that stays, the best first. */
function inverses(
  before: RecordData,
  op: RecordOperation,
  after: RecordData,
  table: TableSchema,
  ctx: OpContext,
): Inverse[] {
  const at = place(op);
  const limits = limitsOf(ctx);
  const path: string[] =
    "key" in op ? parsePath(op.key, limits.max_path) : [table.softDelete as string];
  const key = keyOf(table, path[0] as string) as KeySchema;
  const time = op.type === "set-now" || op.type === "delete" ? { time: true as const } : {};
  const guard = (kind: Guard["kind"], value?: Json): Guard => ({ ...at, path, kind, value });
  const put = (path: string[]): Inverse => {
    const old = readPath(before, path);
    const set = { type: "set" as const, ...at, key: path.length > 1 ? path : (path[0] as string) };
    return {
      operations: [old === undefined ? set : { ...set, value: old }],
      guard: { ...at, path, kind: "value", value: readPath(after, path), ...time },
    };
  };
  const old = readPath(before, path);
  // Where the write had to make the way, undoing takes the way back too.
  const made = path.findIndex((_, n) => (readPath(before, path.slice(0, n + 1)) ?? null) === null);
  const whole = put(made < 0 ? path : path.slice(0, made + 1));
  const orElse = (otherwise: Inverse): Inverse => ({ ...whole, otherwise });
  const last = [put(path), put(path.slice(0, 1))];
  const reinsert = (
    list: Json[],
    value: Json,
    path: string[],
    kind: "item" | "noItem",
  ): Inverse[] => {
    const n = list.findIndex((item) => equalJson(item, value));
    const rest = list.filter((item) => !equalJson(item, value));
    const [previous, next] = [rest[n - 1], rest[n]];
    const places: NonNullable<ListInsertOperation["position"]>[] = [
      ...(previous === undefined ? [] : [{ after: previous }]),
      ...(next === undefined ? [] : [{ before: next }]),
      n === 0 ? "prepend" : "append",
    ];
    return places.map((position) => ({
      operations: [{ type: "listInsert", ...at, key: path, value, position }],
      guard: { ...at, path, kind, value },
    }));
  };
  switch (op.type) {
    case "increment": {
      const by =
        typeof op.by === "number" ? -op.by : op.by.startsWith("-") ? op.by.slice(1) : `-${op.by}`;
      const back: Inverse = {
        operations: [{ type: "increment", ...at, key: op.key, by }],
        guard: guard("number"),
      };
      return [back, orElse(back), ...last];
    }
    case "listInsert":
    case "listRemove": {
      const value =
        key.type === "list"
          ? ((canonical([op.value], key, limits) as Json[])[0] as Json)
          : op.value;
      const remove: Inverse = {
        operations: [{ type: "listRemove", ...at, key: op.key, value }],
        guard: guard("item", value),
      };
      if (!Array.isArray(old)) return [orElse(remove), ...last];
      const back = reinsert(old, value, path, op.type === "listInsert" ? "item" : "noItem");
      return [...(op.type === "listInsert" ? [remove] : []), ...back, ...last];
    }
    case "delete":
      if (!old) whole.operations = [{ type: "restore", ...at }];
      return [whole];
    default: {
      const parent = path.slice(0, -1);
      const list = readPath(before, parent);
      if (op.type === "set" && op.value === undefined && Array.isArray(list)) {
        return [...reinsert(list, old as Json, parent, "noItem"), put(parent), ...last];
      }
      return [made < 0 || made === path.length - 1 ? whole : orElse(put(path)), ...last];
    }
  }
}

/** Undoing a hard delete: the record anew, with what clients may give it. */
function recreations(before: RecordData, op: RecordOperation, table: TableSchema): Inverse[] {
  const value = Object.fromEntries(
    Object.entries(before).filter(([name]) => {
      const key = keyOf(table, name);
      return (
        key &&
        !key.serverOwned &&
        key.type !== "other" &&
        name !== "version" &&
        name !== table.touch
      );
    }),
  );
  return [
    {
      operations: [{ type: "create", ...place(op), value: { ...value, id: op.id } }],
      guard: { ...place(op), path: [], kind: "absent" },
    },
  ];
}

function invertCreate(
  ops: readonly RecordOperation[],
  after: RecordData,
  table: TableSchema,
  ctx: OpContext,
): Inverse | null {
  const at = place(ops[0] as RecordOperation);
  const soft = table.softDelete;
  if (soft ? after[soft] || !mayUpdate(keyOf(table, soft)) : !table.hardDelete) return null;
  const named = stepsOf(ops).flatMap(({ op }) =>
    "key" in op ? [parsePath(op.key, limitsOf(ctx).max_path)[0]] : [],
  );
  const keys = [...named, ...(soft ? [soft] : [])].filter(
    (name) => name !== table.touch && !keyOf(table, name)?.serverOwned,
  );
  return {
    operations: [{ type: "delete", ...at }],
    guard: {
      ...at,
      path: [],
      kind: "keys",
      value: Object.fromEntries(keys.map((name) => [name, after[name] as Json])),
      ...(ops.some(({ type }) => type === "set-now") ? { time: true } : {}),
    },
  };
}

/** Looks a record up as it is shown now; null or undefined where it is not there. */
export type ReadRecord = (table: string, id: string) => RecordData | null | undefined;

/** What undoes the operations of a transaction, in the order in which it has to be done. */
export function invertTransaction(
  operations: readonly Operation[],
  read: ReadRecord,
  ctx: OpContext,
): Inverse[] {
  const found: { n: number; inverse: Inverse | null }[] = [];
  for (const { table, id, ops, numbers } of groupsOf(operations, false)[0] ?? []) {
    const schema = tableOf(ctx.schema, table);
    let record = read(table, id) ?? null;
    const first = numbers[0] as number;
    const apply = (ops: readonly RecordOperation[]) =>
      applyToRecord(record, table, id, ops, ctx).record;
    if (schema && stepsOf(ops).some(({ op }) => namesId(op))) {
      const made = apply(ops);
      if (made) found.push({ n: first, inverse: invertCreate(ops, made, schema, ctx) });
    } else if (schema && removesRow(schema, ops)) {
      const removal: RecordOperation = { type: "delete", table, id };
      if (record) found.push({ n: first, inverse: invert(record, removal, null, ctx) });
    } else {
      ops.forEach((op, n) => {
        const after = apply([op]);
        if (after === undefined) return;
        found.push({ n: numbers[n] as number, inverse: invert(record, op, after, ctx) });
        record = after;
      });
    }
  }
  return found.sort((a, b) => b.n - a.n).flatMap(({ inverse }) => inverse ?? []);
}

const WIRE_TIME = /^\d{4}-\d\d-\d\d(T[\d:.]{15}Z?)?$/;

function blurred(value: Json | undefined): Json | undefined {
  if (typeof value === "string") return WIRE_TIME.test(value) ? "" : value;
  if (Array.isArray(value)) return value.map((item) => blurred(item) as Json);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, blurred(item) as Json]),
  );
}

/** Has nobody else changed what the write left? */
export function guardHolds(guard: Guard, record: RecordData | null | undefined): boolean {
  const { kind, path, value, time } = guard;
  if (kind === "absent") return !record;
  if (!record) return false;
  const same = (a: Json | undefined, b: Json | undefined) =>
    time ? equalJson(blurred(a), blurred(b)) : equalJson(a, b);
  const there = readPath(record, path);
  switch (kind) {
    case "value":
      return same(there, value);
    case "keys":
      return Object.entries(value as RecordData).every(([name, was]) => same(record[name], was));
    case "number":
      return typeof there === "number" || (path.length === 1 && typeof there === "string");
    default:
      return (
        Array.isArray(there) && there.some((item) => equalJson(item, value)) === (kind === "item")
      );
  }
}

/** An inverse whose guard holds what is in the record now: after a merged write, or once the server's time is known. */
export function reguard(inverse: Inverse, record: RecordData): Inverse {
  const { guard } = inverse;
  if (guard.kind !== "value") return inverse;
  const { time: _, ...rest } = guard;
  return { ...inverse, guard: { ...rest, value: readPath(record, guard.path) } };
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
  const done: { inverse: Inverse; operations: RecordOperation[] }[] = [];
  const skipped: Inverse[] = [];
  for (const inverse of inverses) {
    const { table, id } = inverse.guard;
    const name = `${table} ${id}`;
    const record = records.get(name) ?? (records.has(name) ? null : (read(table, id) ?? null));
    let chosen: Inverse | undefined = inverse;
    while (chosen && !guardHolds(chosen.guard, record)) chosen = chosen.otherwise;
    const applied = chosen && applyToRecord(record, table, id, chosen.operations, ctx);
    if (!chosen || applied?.record === undefined) {
      skipped.push(inverse);
      continue;
    }
    records.set(name, applied.record);
    done.push({ inverse, operations: chosen.operations });
  }
  // What can be done one by one need not be possible at once, as deleting for good what is made anew.
  const operations = done.flatMap((one) => one.operations);
  const impossible = (groupsOf(operations, false)[0] ?? []).filter(
    ({ table, id, ops }) => applyToRecord(read(table, id) ?? null, table, id, ops, ctx).problem,
  );
  const kept = done.filter(
    ({ inverse: { guard } }) =>
      !impossible.some(({ table, id }) => table === guard.table && id === guard.id),
  );
  skipped.push(...done.filter((one) => !kept.includes(one)).map((one) => one.inverse));
  return { operations: kept.flatMap((one) => one.operations), skipped };
}
