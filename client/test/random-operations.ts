// The other half of tests/sql/write/test_typescript_agrees.py: makes random transactions, and says where this
// implementation comes to something else than the server did. A JSON line in, a JSON line out:
//
//   {"schema", "userId", "now", "limits", "seed"}    first; nothing comes back
//   {"make": [from, to]}              the transactions of these sequences, as one request per round
//   {"judge": [from, to], "answers"}  a text for each disagreement with the answers to those requests
//   {"ask": [from, to]}               the queries of these numbers
//   {"compare": [from, to], "made", "answers"}  a text for each disagreement with the answers to those queries, on the
//                                     records of the requests whose answers are "made"

import { createInterface } from "node:readline";
import { InvalidQueryError, type OpProblem } from "../src/errors.js";
import {
  compileOrder,
  compileWhere,
  coveringKeys,
  type OrderBy,
  type Where,
} from "../src/filters.js";
import { equalJson, type Json, type JsonObject, type RecordData } from "../src/json.js";
import {
  applyToRecord,
  checkTransaction,
  type OpContext,
  type RecordOperation,
} from "../src/operations.js";
import { type KeySchema, type KeyType, keyOf, type TableSchema } from "../src/schema.js";
import type { Transaction } from "../src/wire.gen.js";

interface Setup extends Pick<OpContext, "schema" | "userId" | "now"> {
  limits: NonNullable<OpContext["limits"]>;
  seed: number;
}

/** The refusal, or the records a transaction names as they are now, by "table id". */
interface Outcome {
  error?: JsonObject;
  records: { [place: string]: RecordData | null };
}

interface Answer {
  results: { error?: JsonObject }[];
  recordMap: { [table: string]: { [id: string]: RecordData } };
}

interface Query {
  table: string;
  where?: Where;
  orderBy?: OrderBy;
  limit: number;
}

interface Found {
  ids?: string[];
  keys?: string[];
  error?: JsonObject;
}

const ROUNDS = 3;

/** Random choices that follow from two numbers. */
class Dice {
  private state: number;

  constructor(seed: number, n: number) {
    this.state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(n + 1, 0xc2b2ae35);
    for (let i = 0; i < 4; i++) this.next();
  }

  /** From 0 up to 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let word = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  }

  upTo(most: number): number {
    return Math.floor(this.next() * (most + 1));
  }

  chance(of: number): boolean {
    return this.next() < of;
  }

  one<T>(from: readonly T[]): T {
    return from[this.upTo(from.length - 1)] as T;
  }
}

// biome-ignore format: read at a glance
const TEXTS = ["", "a", "b", "A", "a ", "12", "1", "é", "日本", "😀", "longer than ten", "ten letters ", "null", "0",
    "two\nlines", '"', "\\", "x".repeat(90), "2024-02-29", "todo", "done", "calm", "wild"];
// biome-ignore format: read at a glance
const NUMBERS: readonly number[] = [0, 1, -1, 2, 3, 0.5, -0.25, 0.1, 0.2, 1e21, 1.5e-7, 5e-324, 1e308, -1e308,
    2 ** 31, -(2 ** 31), 2 ** 31 - 1, 2 ** 53, 2 ** 53 - 1, 2 ** 53 + 2, 1e-10, 123456.789, 1e15, 1e16,
    0.30000000000000004, 100000000000000000000, 12345, 1234567890123, 1e-70, 1e300];
const WHOLE = [0, 1, -1, 2, 3, 7, -5, 2147483647, -2147483648, 2147483646];
const PARTS = ["a", "b", "c", "0", "1", "2", "01", "-1", "toString", "a.b", "hasOwnProperty"];
const BAD_PARTS = ["", "__proto__", "constructor", "prototype"];
// biome-ignore format: read at a glance
const VALUES: { [type: string]: readonly Json[] } = {
  text: TEXTS,
  boolean: [true, false],
  integer: WHOLE,
  bigint: ["0", "1", "-1", "12", "007", "-0", "9223372036854775807", "-9223372036854775808", "9007199254740993", 5,
    -7, 2 ** 53],
  numeric: ["0", "1", "1.50", "-0.0", "007.10", "-12.345", "0.1", "99999999999999999999.9", 1.5, 3, 1e21, 1.5e-7,
    -0.25, 1e-10],
  float: NUMBERS,
  uuid: ["018f0000-0000-7000-8000-0000000000ff", "018F0000-0000-7000-8000-0000000000FF",
    "00000000-0000-0000-0000-000000000000", "018f0000-0000-7000-8000-0000000000fe"],
  timestamptz: ["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.123456Z", "2024-02-29T12:00:00.1234565+02:00",
    "2024-12-31T23:59:60Z", "2024-12-31T24:00:00Z", "2024-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z", "2024-03-01T00:30+02", "2024-03-01T00:30-0530", "2024-01-01T00:00:00.0000005Z",
    "2024-01-01T00:00:00.0000015Z", "1969-12-31T23:59:59.5-15:59", "0099-06-01T00:00:00+01:00"],
  timestamp: ["2024-02-29T12:00:00", "2024-02-29T12:00", "2024-12-31T23:59:60.5", "0001-01-01T00:00:00",
    "9999-12-31T23:59:59", "2024-02-29T24:00:00", "2024-01-01T00:00:00.0000025", "0050-01-01T00:00:00.1"],
  date: ["2024-02-29", "2023-12-31", "0001-01-01", "9999-12-31", "0099-03-01"],
  bytea: ["", "AA==", "AB==", "AAE=", "AAF=", "AAEC", "QUJDQUJDQUJD"],
};
// biome-ignore format: read at a glance
const WRONG: { [type: string]: readonly Json[] } = {
  integer: [0.5, "1", 2147483648, -2147483649, 1e300],
  bigint: ["9223372036854775808", "1.5", "", " 5", 0.5, 9223372036854775000, 1e19, "99999999999999999999"],
  numeric: ["NaN", "1e5", ".5", "5.", "", "+1"],
  uuid: ["018f0000", "{018f0000-0000-7000-8000-0000000000ff}", ""],
  timestamptz: ["2024-02-29T12:00:00", "2024-02-30T12:00:00Z", "2024-02-29T25:00:00Z", "2024-02-29T24:00:01Z",
    "2024-02-29T12:60:00Z", "2024-02-29T12:00:61Z", "2024-02-29T12:00:00+16:00", "2024-02-29T12:00:00+15:60",
    "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "now", "2024-13-01T00:00:00Z",
    "9999-12-31T23:59:59.9999999Z", "2024-02-30T25:00:00+16:00", "2024-00-01T00:00:00Z"],
  timestamp: ["2024-02-29T12:00:00Z", "2024-02-30T12:00:00", "2024-02-29T12:00:61", "infinity"],
  date: ["2023-02-29", "2024-13-01", "2024-00-10", "2024-01-00", "0000-01-01", "24-01-01", "2024-02-29T00:00:00Z"],
  bytea: ["A", "AA=", "A===", "****", "AAE"],
  enum: ["CALM", "", "angry"],
};
const OWN = ["id", "version", "createdBy", "createdAt", "stamp", "frozen", "later"];
const TYPES = ["set", "set-now", "increment", "listInsert", "listRemove"];
// biome-ignore format: read at a glance
const SUITED: { [type: string]: readonly string[] } = {
  json: ["set", "set", "set-now", "increment", "listInsert", "listInsert", "listRemove"],
  list: ["listInsert", "listInsert", "listRemove"],
  integer: ["increment"],
  bigint: ["increment"],
  numeric: ["increment"],
  float: ["increment"],
  timestamptz: ["set-now"],
  timestamp: ["set-now"],
  date: ["set-now"],
};
// biome-ignore format: read at a glance
const ORDERED = ["text", "enum", "boolean", "integer", "bigint", "numeric", "float", "uuid", "timestamptz",
    "timestamp", "date"];

class Maker {
  private readonly dice: Dice;

  constructor(
    private readonly setup: Setup,
    private readonly n: number,
  ) {
    this.dice = new Dice(setup.seed, n);
  }

  /** A create, and what is done to the record after it. */
  sequence(): Transaction[] {
    const { dice } = this;
    const names = Object.keys(this.setup.schema.tables);
    const records = [0, 1].map((which) => {
      const table = dice.chance(0.6) ? "things" : dice.one(names);
      const id = `00000000-0000-7000-9${which}00-${this.n.toString(16).padStart(12, "0")}`;
      return { table, id: this.setup.schema.tables[table]?.idType === "text" ? `${id} é` : id };
    });
    const two = dice.chance(0.2);
    const rounds = Array.from({ length: ROUNDS }, (_, round) => {
      const operations = records
        .slice(0, two ? 2 : 1)
        .flatMap(({ table, id }) =>
          round === 0
            ? this.creation(table, id)
            : Array.from({ length: dice.upTo(dice.chance(0.1) ? 8 : 3) }, () =>
                this.operation(table, id),
              ),
        );
      if (dice.chance(0.3)) this.shuffle(operations);
      const { table, id } = records[0] as { table: string; id: string };
      return operations.length ? operations : [this.operation(table, id)];
    });
    return rounds.map((operations, round) => ({
      txId: `00000000-0000-4000-800${round}-${this.n.toString(16).padStart(12, "0")}`,
      operations,
    }));
  }

  /** A filter and an order, nearly always well formed. */
  query(): Query {
    const { dice } = this;
    const table = dice.chance(0.7) ? "things" : dice.one(Object.keys(this.setup.schema.tables));
    const { keys } = this.setup.schema.tables[table] as TableSchema;
    const names = [...Object.keys(keys), "nothing"].filter(
      (name) => name !== "nothing" || dice.chance(0.05),
    );
    const where: JsonObject = {};
    for (let n = dice.upTo(3); n > 0; n--) where[dice.one(names)] = null;
    for (const name of Object.keys(where))
      where[name] = this.condition(keyOf({ keys } as TableSchema, name));
    const orderBy = Array.from({ length: dice.upTo(dice.chance(0.02) ? 6 : 3) }, () => ({
      key: dice.one(
        dice.chance(0.9)
          ? names.filter((name) => ORDERED.includes(keys[name]?.type as string))
          : names,
      ),
      ...(dice.chance(0.5)
        ? {
            dir: dice.one(
              dice.chance(0.98) ? (["asc", "desc"] as const) : (["up" as "asc"] as const),
            ),
          }
        : {}),
    }));
    return {
      table,
      ...(dice.chance(0.9) ? { where: where as Where } : {}),
      ...(dice.chance(0.8) ? { orderBy } : {}),
      limit: dice.chance(0.2) ? 1 + dice.upTo(20) : 1000,
    };
  }

  private condition(key: KeySchema = { type: "text", nullable: true, required: false }): Json {
    const { dice } = this;
    const element: KeySchema = { type: key.elementType ?? "text", nullable: true, required: false };
    // A word that is none of an enum's is found out late in lists.
    const wrong = key.elementType === "enum" ? 0 : 0.03;
    const value = (): Json => (key.type === "other" ? 1 : this.value(key, wrong));
    if (dice.chance(0.3)) return value();
    const condition: JsonObject = {};
    for (let n = dice.chance(0.02) ? 0 : 1 + dice.upTo(1); n > 0; n--) {
      const ordered = ORDERED.includes(key.type) || dice.chance(0.05);
      // In lists of these types the server looks for the number or letters as they were sent.
      const skipped = ["bigint", "numeric", "uuid"].includes(key.elementType as string);
      const contains = ["text", "list", "json"].includes(key.type) ? !skipped : dice.chance(0.05);
      const operator = dice.one([
        "eq",
        "neq",
        "in",
        "is",
        ...(ordered ? ["lt", "lte", "gt", "gte"] : []),
        ...(contains ? ["contains", "contains"] : []),
        ...(dice.chance(0.01) ? ["like", "toString"] : []),
      ]);
      condition[operator] =
        operator === "in"
          ? Array.from({ length: dice.upTo(4) }, value)
          : operator === "is"
            ? dice.one(dice.chance(0.97) ? [null, "notNull"] : ["null"])
            : operator === "contains" && key.type !== "text"
              ? dice.chance(0.9) && key.type === "list"
                ? this.value(element, 0)
                : this.json(1)
              : value();
    }
    return condition;
  }

  private shuffle(list: unknown[]): void {
    for (let n = list.length - 1; n > 0; n--) {
      const other = this.dice.upTo(n);
      [list[n], list[other]] = [list[other], list[n]];
    }
  }

  private creation(table: string, id: string): RecordOperation[] {
    const { dice } = this;
    const { keys } = this.setup.schema.tables[table] as TableSchema;
    const value: JsonObject = {};
    for (const [name, key] of Object.entries(keys)) {
      if (name === "id" || name === "version") {
        if (dice.chance(0.1))
          value[name] = name === "id" && dice.chance(0.8) ? id : dice.one([1, "x", null]);
      } else if (
        key.required
          ? dice.chance(0.99)
          : dice.chance(key.serverOwned || key.insertable === false ? 0.01 : 0.5)
      ) {
        value[name] = this.value(key, 0.004);
      }
    }
    if (dice.chance(0.01)) value[dice.one(["nothing", "a.b", "", "__proto__2"])] = 1;
    const operations: RecordOperation[] = dice.chance(0.7)
      ? [{ type: "create", table, id, value }]
      : [
          { type: "set", table, id, key: dice.one(["id", ["id"]]), value: id },
          ...Object.entries(value)
            .filter(([name]) => name !== "id" && name !== "version")
            .map(
              ([key, value]): RecordOperation => ({ type: "set", table, id, key: [key], value }),
            ),
        ];
    while (dice.chance(0.3)) operations.push(this.operation(table, id));
    return operations;
  }

  private operation(table: string, id: string): RecordOperation {
    const { dice } = this;
    const { keys } = this.setup.schema.tables[table] as TableSchema;
    const at = { table, id };
    if (dice.chance(0.04)) return { type: dice.one(["delete", "restore"] as const), ...at };
    if (dice.chance(0.01)) return { type: "create", ...at, value: { title: "again" } };
    const name = dice.chance(0.01)
      ? dice.one(["nothing", "toString", "Title"])
      : dice.one(Object.keys(keys).filter((one) => !OWN.includes(one) || dice.chance(0.05)));
    const key: KeySchema = keyOf({ keys } as TableSchema, name) ?? {
      type: "text",
      nullable: true,
      required: false,
    };
    const inside = dice.chance(key.type === "json" ? 0.75 : 0.03);
    const path = [
      name,
      ...(inside
        ? Array.from({ length: 1 + dice.upTo(dice.chance(0.1) ? 5 : 2) }, () => this.part())
        : []),
    ];
    const dotted = path.every((part) => !part.includes(".")) && dice.chance(0.6);
    const where = { ...at, key: dotted ? path.join(".") : path };
    const suited = SUITED[key.type] ?? [];
    const type = dice.one(dice.chance(0.97) ? [...suited, ...suited, "set"] : TYPES);
    const operation = this.filled(type, where, key, inside);
    // Nearly every operation is well formed.
    if (!dice.chance(0.01)) return operation;
    const odd = { ...operation } as unknown as JsonObject;
    odd[dice.one(["type", "key", "value", "by", "position", "extra", "id"])] = this.json(1);
    if (dice.chance(0.3)) delete odd[dice.one(["type", "key", "value", "by", "table"])];
    odd.id = id;
    return odd as unknown as RecordOperation;
  }

  private filled(
    type: string,
    where: { table: string; id: string; key: string | string[] },
    key: KeySchema,
    inside: boolean,
  ): RecordOperation {
    const { dice } = this;
    switch (type) {
      case "set-now":
        return { type, ...where };
      case "increment":
        return {
          type,
          ...where,
          by: (key.type === "json" || dice.chance(0.05)
            ? dice.one<Json>(dice.chance(0.95) ? NUMBERS : ["1"])
            : this.value(key, 0.03, false)) as number | string,
        };
      case "listInsert":
      case "listRemove": {
        const value = () =>
          key.type === "list"
            ? this.value(
                { type: key.elementType as KeyType, nullable: true, required: false },
                0.02,
              )
            : this.json(1);
        const given = value();
        if (type === "listRemove") return { type, ...where, value: given };
        const positions = [
          "prepend",
          "append",
          { before: value() },
          { after: value() },
          { before: given },
          { after: given },
        ];
        const odd = [null, "first", {}, { before: 1, after: 2 }, 0];
        const position = dice.one<Json>(dice.chance(0.03) ? odd : positions);
        return {
          type,
          ...where,
          value: given,
          ...(dice.chance(0.3) ? {} : { position: position as "append" }),
        };
      }
      default: {
        if (dice.chance(inside ? 0.25 : 0.05)) return { type: "set", ...where };
        return {
          type: "set",
          ...where,
          value: inside ? this.json(dice.upTo(2)) : this.value(key, 0.05),
        };
      }
    }
  }

  private part(): string {
    return this.dice.one(this.dice.chance(0.01) ? BAD_PARTS : PARTS);
  }

  /** A value for a key: null now and then, now and then a wrong one. */
  private value(key: KeySchema, wrong: number, nulls = true): Json {
    const { dice } = this;
    if (nulls && dice.chance(key.nullable ? 0.1 : 0.004)) return null;
    if (dice.chance(wrong))
      return dice.chance(0.5) ? this.json(1) : dice.one(WRONG[key.type] ?? [null]);
    switch (key.type) {
      case "json":
        return this.json(dice.upTo(3));
      case "list":
        return Array.from({ length: dice.upTo(dice.chance(0.005) ? 9 : 4) }, () =>
          this.value({ type: key.elementType as KeyType, nullable: true, required: false }, 0),
        );
      case "enum":
        return dice.one(key.values ?? ["calm", "wild"]);
      case "text":
        return dice.one(key.values && dice.chance(0.9) ? key.values : TEXTS);
      default:
        return dice.one(VALUES[key.type] ?? TEXTS);
    }
  }

  private json(depth: number): Json {
    const { dice } = this;
    if (depth === 0 || dice.chance(0.2)) {
      return dice.one<Json>([
        null,
        true,
        false,
        ...(dice.chance(0.3) ? NUMBERS : [0, 1, 2, 3]),
        ...(dice.chance(0.2) ? TEXTS : ["a", "b", "c"]),
      ]);
    }
    const length = dice.upTo(dice.chance(0.005) ? 9 : 3);
    return dice.chance(0.5)
      ? Array.from({ length }, () => this.json(depth - 1))
      : Object.fromEntries(
          Array.from({ length }, () => [
            dice.one(dice.chance(0.9) ? PARTS : [...TEXTS, "__proto__"]),
            this.json(depth - 1),
          ]),
        );
  }
}

/** What this implementation makes of a transaction, given the records before it. */
function carryOut(tx: Transaction, before: Outcome["records"], ctx: OpContext): Outcome {
  const operations = tx.operations as readonly RecordOperation[];
  const places = new Map<string, RecordOperation[]>();
  for (const op of operations) {
    const place = `${op.table} ${op.id}`;
    places.set(place, [...(places.get(place) ?? []), op]);
  }
  const invalid = checkTransaction(tx, ctx);
  if (invalid) {
    // Of several records that are refused the server may come to another one first.
    const alone = [...places.values()].map((ops) =>
      checkTransaction({ ...tx, operations: ops }, ctx),
    );
    return refusal([invalid, ...alone], invalid.op);
  }
  const groups = [...places].map(([place, ops]) => {
    const table = ctx.schema.tables[ops[0]?.table as string] as TableSchema;
    const creating = ops.some(
      (op) => op.type === "create" || (op.type === "set" && dotted(op.key) === "id"),
    );
    const removing =
      table.hardDelete && !table.softDelete && ops.some(({ type }) => type === "delete");
    return { place, ops, rank: creating ? 1 : removing ? 3 : 2 };
  });
  // Creates in the order sent, updates in the order of the locks, then hard deletes.
  groups.sort((a, b) => a.rank - b.rank || (a.rank === 1 ? 0 : a.place < b.place ? -1 : 1));
  const records: Outcome["records"] = {};
  for (const { place, ops } of groups) {
    const { table, id } = ops[0] as RecordOperation;
    const apply = (some: RecordOperation[]) =>
      applyToRecord(before[place] ?? null, table, id, some, ctx);
    const { record, problem } = apply(ops);
    if (problem) {
      // Of several operations that the row refuses the server may come to a later one first.
      const found = [problem];
      const rest = ops.slice();
      for (
        let next: OpProblem | undefined = problem;
        next?.op !== undefined && found.length < 20;
      ) {
        rest.splice(next.op, 1);
        next = apply(rest).problem;
        if (next) found.push(next);
      }
      const op =
        problem.op === undefined
          ? undefined
          : operations.indexOf(ops[problem.op] as RecordOperation);
      return refusal(found, op);
    }
    records[place] = record;
  }
  return { records };
}

function refusal(problems: (OpProblem | null)[], op: number | undefined): Outcome {
  const found = problems.filter((one) => one !== null);
  const answers = found.map(({ status, code, limit }) => `${status} ${code} ${limit}`);
  const places = found.map(({ code, table, id, key }) => `${code} ${table} ${id} ${dotted(key)}`);
  const several = new Set(places).size > 1;
  const error = { ...found[0], ...(op === undefined ? {} : { op }), answers, several };
  return { error: error as unknown as JsonObject, records: {} };
}

const BY_ROW = ["bad_path", "bad_index", "not_a_list", "not_a_number"];

const dotted = (key: unknown) => (Array.isArray(key) ? key.join(".") : key);

/** Where the server may answer either way. */
function excused(ours: Outcome, theirs: Outcome): boolean {
  const [a, b] = [ours.error, theirs.error];
  // Operations that cannot follow one another are told even where there is no record.
  return a?.code === "forbidden" && b?.status === 400;
}

function compare(ours: Outcome, theirs: Outcome, before: Outcome["records"]): string | null {
  if (excused(ours, theirs)) return null;
  if (ours.error || theirs.error) {
    const answers = (ours.error?.answers ?? []) as string[];
    const { status, code, limit } = theirs.error ?? {};
    if (!answers.includes(`${status} ${code} ${limit}`)) return "the refusal";
    // Of several keys that are missing either may be named; what the row decides is told of the first operation on
    // the key.
    const several = ours.error?.several === true;
    const names = code === "required" || several ? [] : ["key"];
    for (const name of BY_ROW.includes(code as string) || several ? names : [...names, "op"]) {
      const [a, b] = [dotted(ours.error?.[name]), dotted(theirs.error?.[name])];
      if (a !== undefined && b !== undefined && a !== b) return `${name} of the refusal`;
    }
    return null;
  }
  for (const [place, theirRecord] of Object.entries(theirs.records)) {
    const record = ours.records[place] ?? null;
    const was = before[place] ?? null;
    if (!record || !theirRecord) {
      if (record || theirRecord) return `${place} is there`;
      continue;
    }
    for (const [name, value] of Object.entries(theirRecord)) {
      if (name === "version") {
        const expected =
          was === null ? 1 : record === was ? was.version : (was.version as number) + 1;
        if (value !== expected) return `version of ${place}`;
      } else if (!equalJson(value, record[name])) {
        return `${name} of ${place}`;
      }
    }
    if (Object.keys(record).some((name) => !Object.hasOwn(theirRecord, name)))
      return `keys of ${place}`;
  }
  return null;
}

function judge(given: Setup, ctx: OpContext, n: number, at: number, answers: Answer[]): string[] {
  const records: Outcome["records"] = {};
  return new Maker(given, n).sequence().flatMap((tx, round) => {
    const operations = tx.operations as readonly RecordOperation[];
    const { results, recordMap } = answers[round] as Answer;
    const { error } = results[at] as Answer["results"][number];
    const theirs: Outcome = { ...(error ? { error } : {}), records: {} };
    const before: Outcome["records"] = {};
    for (const { table, id } of operations) {
      before[`${table} ${id}`] = records[`${table} ${id}`] ?? null;
      if (!error) theirs.records[`${table} ${id}`] = recordMap[table]?.[id] ?? null;
    }
    Object.assign(records, theirs.records);
    const ours = carryOut(tx, before, ctx);
    const difference = compare(ours, theirs, before);
    const text = JSON.stringify({ operations, before, typescript: ours, sql: theirs });
    return difference ? [`sequence ${n}, transaction ${round}: ${difference}: ${text}`] : [];
  });
}

/** What this implementation finds among records. */
function find(query: Query, given: Setup, records: RecordData[]): Found {
  const { table: name, where, orderBy, limit } = query;
  const table = given.schema.tables[name] as TableSchema;
  try {
    const order = compileOrder(table, orderBy);
    const found = records.filter(compileWhere(table, where)).sort(order);
    return {
      ids: found.slice(0, limit).map(({ id }) => id as string),
      keys: coveringKeys(name, table, where),
    };
  } catch (error) {
    if (!(error instanceof InvalidQueryError)) throw error;
    return { error: { ...error.problem } as JsonObject };
  }
}

function compareQuery(given: Setup, n: number, made: Answer[], theirs: Found): string[] {
  const query = new Maker(given, n).query();
  const records = made.flatMap(({ recordMap }) => Object.values(recordMap[query.table] ?? {}));
  const ours = find(query, given, records);
  // The server leaves an id as it was written, in capitals too.
  const keys = ({ keys = [] }: Found) => [...new Set(keys.map((key) => key.toLowerCase()))].sort();
  const same = ours.error
    ? ours.error.status === theirs.error?.status && ours.error.code === theirs.error?.code
    : equalJson(ours.ids as Json, (theirs.ids ?? null) as Json) &&
      equalJson(keys(ours), keys(theirs));
  return same ? [] : [`query ${n}: ${JSON.stringify({ query, typescript: ours, sql: theirs })}`];
}

interface Told {
  make?: number[];
  judge?: number[];
  ask?: number[];
  compare?: number[];
  answers?: string[];
  made?: string[];
}

function answer(given: Setup, line: string): Json {
  const told = JSON.parse(line) as Told;
  const [from = 0, to = 0] = told.make ?? told.judge ?? told.ask ?? told.compare ?? [];
  const numbers = Array.from({ length: to - from }, (_, n) => from + n);
  if (told.make) {
    const sequences = numbers.map((n) => new Maker(given, n).sequence());
    return Array.from({ length: ROUNDS }, (_, round) =>
      JSON.stringify(sequences.map((transactions) => transactions[round])),
    );
  }
  if (told.ask) return numbers.map((n) => JSON.stringify(new Maker(given, n).query()));
  const answers = (told.answers ?? []).map((text) => JSON.parse(text));
  if (told.compare) {
    const made = (told.made ?? []).map((text) => JSON.parse(text) as Answer);
    return numbers.flatMap((n, at) => compareQuery(given, n, made, answers[at] as Found));
  }
  const ctx: OpContext = { ...given, uuid: () => "00000000-0000-4000-8000-000000000000" };
  return numbers.flatMap((n, at) => judge(given, ctx, n, at, answers as Answer[]));
}

let setup: Setup | undefined;
for await (const line of createInterface({ input: process.stdin })) {
  if (setup) process.stdout.write(`${JSON.stringify(answer(setup, line))}\n`);
  else setup = JSON.parse(line) as Setup;
}
