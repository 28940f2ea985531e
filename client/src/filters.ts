import { caught, InvalidQueryError, type OpProblem, Refusal, refuse } from "./errors.js";
import {
  compareText,
  equalJson,
  isObject,
  type Json,
  type JsonObject,
  jsonbKeys,
  member,
  type RecordData,
} from "./json.js";
import { type KeySchema, type KeyType, keyOf, type TableSchema } from "./schema.js";
import { canonical, checkJson, elementOf, LIMITS } from "./values.js";
import type { Key, Order } from "./wire.gen.js";

/** Conditions on one key, all of which must hold. Null compares to nothing; `is` finds it. */
export interface Conditions {
  eq?: Json;
  neq?: Json;
  in?: Json[];
  lt?: Json;
  lte?: Json;
  gt?: Json;
  gte?: Json;
  is?: null | "notNull";
  contains?: Json;
}

/** A filter: `{key: value}` or `{key: {operator: value, ...}}`, all of which must hold. */
export type Where = { readonly [key: string]: Json | Conditions };

/** An order: at most five keys, nulls last in both directions, ties by id. */
export type OrderBy = readonly Order[];

/** Tells whether a record is found. */
export type Predicate = (record: RecordData) => boolean;

/** Tells which of two records comes first, as `Array.prototype.sort` wants it. */
export type Comparator = (a: RecordData, b: RecordData) => number;

const UNORDERED: readonly KeyType[] = ["json", "list", "other", "bytea"];

function query<T>(work: () => T): T {
  let result: T | undefined;
  const problem = caught(() => {
    result = work();
  });
  if (problem) throw new InvalidQueryError(problem);
  return result as T;
}

/**
 * A filter as a function, by the rules of the server: three-valued nulls, text by code point. Leaves soft-deleted
 * records out unless the filter names their key. Throws InvalidQueryError.
 */
export function compileWhere(table: TableSchema, where: Where = {}): Predicate {
  return query(() => {
    if (!isObject(where)) refuse(400, "bad_request", "where is an object");
    checkJson(where, 0, LIMITS);
    const tests = entriesOf(where).flatMap(([name, condition]): Predicate[] => {
      const key =
        keyOf(table, name) ?? refuse(400, "unknown_key", "There is no such key", { key: name });
      // Left out it would find everything, which nobody wants who wrote it down.
      if (condition === undefined) {
        refuse(400, "bad_request", "The value is undefined: leave the key out, or ask later", {
          key: name,
        });
      }
      if (!isObject(condition)) return [comparison(name, key, "eq", condition)];
      const operators = entriesOf(condition).filter(([, value]) => value !== undefined);
      if (!operators.length) {
        refuse(400, "bad_request", "A condition names an operator", { key: name });
      }
      return operators.map(([operator, value]) => comparison(name, key, operator, value));
    });
    const { softDelete } = table;
    if (softDelete !== null && !Object.hasOwn(where, softDelete)) {
      tests.push((record) => !record[softDelete]);
    }
    return (record) => tests.every((test) => test(record));
  });
}

/** In the order in which the server looks at them. */
const entriesOf = (value: JsonObject) =>
  jsonbKeys(value).map((key): [string, Json] => [key, value[key] as Json]);

function comparison(name: string, key: KeySchema, operator: string, value: Json): Predicate {
  const test =
    (holds: (found: Json) => boolean): Predicate =>
    (record) => {
      const found = record[name];
      return found !== null && found !== undefined && holds(found);
    };
  switch (operator) {
    case "is":
      if (value === null) return (record) => (record[name] ?? null) === null;
      if (value === "notNull") return test(() => true);
      return refuse(400, "bad_request", 'is takes null or "notNull"', { key: name });
    case "in": {
      if (!Array.isArray(value) || value.length > 1000) {
        refuse(400, "bad_request", "in takes a list of at most 1000 values", { key: name });
      }
      const tests = value.map((item) => comparison(name, key, "eq", item));
      return (record) => tests.some((test) => test(record));
    }
    case "contains": {
      if (key.type === "text") {
        const part = wanted(name, key, value);
        return part === null
          ? () => false
          : test((found) => (found as string).includes(part as string));
      }
      if (key.type !== "list" && key.type !== "json") {
        refuse(400, "wrong_type", "contains is for texts and lists", { key: name });
      }
      const element = key.type === "list" ? elementOf(key) : key;
      let item = value;
      if (key.type === "list") {
        caught(() => {
          item = canonical(value, element, LIMITS);
        });
      }
      const equals = equality(element);
      return test((found) => Array.isArray(found) && found.some((one) => equals(one, item)));
    }
    case "eq":
    case "neq":
    case "lt":
    case "lte":
    case "gt":
    case "gte": {
      const wants = wanted(name, key, value);
      if (operator === "eq" || operator === "neq") {
        if (key.type === "other")
          refuse(400, "wrong_type", "This key cannot be compared", { key: name });
        if (wants === null) return () => false;
        const equals = equality(key);
        return test((found) => equals(found, wants) === (operator === "eq"));
      }
      if (UNORDERED.includes(key.type))
        refuse(400, "wrong_type", "This key has no order", { key: name });
      if (wants === null) return () => false;
      const compare = ordering(key.type);
      const least = operator === "gt" ? 1 : operator === "gte" ? 0 : Number.NEGATIVE_INFINITY;
      const most = operator === "lt" ? -1 : operator === "lte" ? 0 : Number.POSITIVE_INFINITY;
      return test((found) => {
        const sign = Math.sign(compare(found, wants));
        return sign >= least && sign <= most;
      });
    }
    default:
      return refuse(400, "unknown_operator", "There is no such operator", { key: name });
  }
}

/** The value of a filter in the form of the wire. */
function wanted(name: string, key: KeySchema, value: Json): Json {
  if (key.type === "other") return value;
  const { maxLength: _, ...unbounded } = key;
  let result: Json = null;
  const problem = caught(() => {
    result = canonical(value, unbounded, LIMITS);
  });
  if (!problem) return result;
  throw new Refusal(
    problem.status === 400
      ? { ...problem, code: "wrong_type", key: name, expected: key.type }
      : { ...problem, key: name },
  );
}

function equality({ type, elementType }: KeySchema): (a: Json, b: Json) => boolean {
  if ((elementType ?? type) !== "numeric") return equalJson;
  const equal = (a: Json, b: Json) =>
    a === b || (typeof a === "string" && typeof b === "string" && !compareDecimals(a, b));
  if (type === "numeric") return equal;
  return (a, b) =>
    Array.isArray(a) &&
    Array.isArray(b) &&
    a.length === b.length &&
    a.every((item, n) => equal(item, b[n] as Json));
}

/** How two values of a type, neither of them null, are ordered. */
function ordering(type: KeyType): (a: Json, b: Json) => number {
  switch (type) {
    case "boolean":
    case "integer":
      return (a, b) => Number(a) - Number(b);
    case "float":
      return (a, b) => compareFloats(Number(a), Number(b));
    case "bigint":
    case "numeric":
      return compareDecimals;
    default:
      return (a, b) => compareText(a as string, b as string);
  }
}

/** As PostgreSQL: NaN equals itself and is greater than all others. */
function compareFloats(a: number, b: number): number {
  return a === b ? 0 : a < b || Number.isNaN(b) ? (Number.isNaN(a) ? 0 : -1) : 1;
}

/** Compares decimal texts of any length; what is no number (NaN, Infinity) as floats are. */
function compareDecimals(a: Json, b: Json): number {
  const [x, y] = [String(a), String(b)];
  if (/[a-z]/.test(x + y)) return compareFloats(Number(x), Number(y));
  const negative = x.startsWith("-");
  if (negative !== y.startsWith("-")) return negative ? -1 : 1;
  const sign = negative ? -1 : 1;
  const [wholeX = "", partX = ""] = x.slice(negative ? 1 : 0).split(".");
  const [wholeY = "", partY = ""] = y.slice(negative ? 1 : 0).split(".");
  if (wholeX.length !== wholeY.length) return sign * (wholeX.length - wholeY.length);
  const length = Math.max(partX.length, partY.length);
  const [left, right] = [wholeX + partX.padEnd(length, "0"), wholeY + partY.padEnd(length, "0")];
  return left === right ? 0 : left < right ? -sign : sign;
}

/** An order as a function, by the rules of the server; without one by id alone. Throws InvalidQueryError. */
export function compileOrder(table: TableSchema, orderBy: OrderBy = []): Comparator {
  return query(() => {
    if (!Array.isArray(orderBy) || orderBy.length > 5) {
      refuse(400, "bad_request", "orderBy is a list of at most five {key, dir}");
    }
    const parts = orderBy.map((part: unknown): Comparator => {
      if (
        !isObject(part) ||
        typeof part.key !== "string" ||
        !["asc", "desc", undefined].includes(part.dir as string | undefined) ||
        Object.keys(part).some((name) => name !== "key" && name !== "dir")
      ) {
        refuse(400, "bad_request", 'An order is {key, dir: "asc" or "desc"}');
      }
      const name = part.key;
      const key =
        keyOf(table, name) ?? refuse(400, "unknown_key", "There is no such key", { key: name });
      if (UNORDERED.includes(key.type))
        refuse(400, "wrong_type", "This key has no order", { key: name });
      const compare = ordering(key.type);
      const sign = part.dir === "desc" ? -1 : 1;
      return (a, b) => {
        const [x, y] = [a[name] ?? null, b[name] ?? null];
        if (x === null || y === null) return Number(x === null) - Number(y === null);
        return sign * compare(x, y);
      };
    });
    return (a, b) => {
      for (const part of parts) {
        const found = part(a, b);
        if (found) return found;
      }
      return compareText(String(a.id), String(b.id));
    };
  });
}

const encode = (value: string) =>
  encodeURIComponent(value).replace(
    /[!'()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  );

/** The key of a record: `tasks:<id>`. */
export const recordKey = (table: string, id: string): Key => `${table}:${encode(id)}`;

/** The key of a collection: `tasks?boardId=<value>`. */
export const collectionKey = (table: string, name: string, value: string): Key =>
  `${table}?${name}=${encode(value)}`;

/** What a key names; null for a text that is none. */
export function parseKey(
  key: Key,
): { table: string; id?: string; name?: string; value?: string } | null {
  const [, table, mark, rest] = /^([A-Za-z][A-Za-z0-9]*)(?:([:?])(.*))?$/.exec(key) ?? [];
  if (table === undefined) return null;
  if (rest === undefined) return { table };
  try {
    if (mark === ":") return { table, id: decodeURIComponent(rest) };
    const at = rest.indexOf("=");
    return at < 1
      ? null
      : { table, name: rest.slice(0, at), value: decodeURIComponent(rest.slice(at + 1)) };
  } catch {
    return null;
  }
}

/** Every key that covers a record: its own, its collections, its table. */
export function keysOf(name: string, table: TableSchema, record: RecordData): Key[] {
  const collections = Object.entries(table.keys).flatMap(([key, { topic }]) => {
    const value = topic ? record[key] : null;
    return value === null || value === undefined ? [] : [collectionKey(name, key, String(value))];
  });
  return [recordKey(name, String(record.id)), ...collections, ...(table.wholeTable ? [name] : [])];
}

/** The narrowest keys that cover a filter, as the server chooses them: records, collections, or the table. */
export function coveringKeys(name: string, table: TableSchema, where: Where = {}): Key[] {
  const [best] = Object.entries(table.keys)
    .flatMap(([key, schema]) => {
      if (key !== "id" && !schema.topic) return [];
      const values = listed(member(where, key));
      return values && values.length <= 100 && !values.includes(null)
        ? [{ key, schema, values }]
        : [];
    })
    .sort(
      (a, b) =>
        Number(b.key === "id") - Number(a.key === "id") ||
        a.values.length - b.values.length ||
        compareText(a.key, b.key),
    );
  if (!best) return table.wholeTable ? [name] : [];
  const { key, schema, values } = best;
  const keys = values.flatMap((value) => {
    let text: Json = null;
    const problem: OpProblem | null = caught(() => {
      text = canonical(value, schema, LIMITS);
    });
    if (problem) return [];
    return [key === "id" ? recordKey(name, String(text)) : collectionKey(name, key, String(text))];
  });
  return [...new Set(keys)].sort(compareText);
}

function listed(condition: Json | undefined): Json[] | null {
  if (condition === undefined) return null;
  if (!isObject(condition)) return [condition];
  if (condition.eq !== undefined) return [condition.eq];
  return Array.isArray(condition.in) ? condition.in : null;
}
