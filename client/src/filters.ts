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
import { aligned, canonical, checkJson, elementOf, LIMITS } from "./values.js";
import type { Key, Order, ProblemCode } from "./wire.gen.js";

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

/** Which signs of a comparison an operator wants. */
const SIGNS: { readonly [operator: string]: readonly number[] } = {
  eq: [0],
  neq: [-1, 1],
  lt: [-1],
  lte: [-1, 0],
  gt: [1],
  gte: [0, 1],
};
const UNORDERED = "json list other bytea";

/** What some work gives; a refusal is thrown as InvalidQueryError. */
function query<T>(work: () => T): T {
  let result: T | undefined;
  const problem = caught(() => {
    result = work();
  });
  if (problem) throw new InvalidQueryError(problem);
  return result as T;
}

const noKey = (key: string): never => refuse("unknown_key", undefined, { key });

/**
 * A filter as a function, by the rules of the server: three-valued nulls, text by code point. Leaves soft-deleted
 * records out unless the filter names their key. Throws InvalidQueryError.
 */
export function compileWhere(table: TableSchema, where: Where = {}): Predicate {
  return query(() => {
    if (!isObject(where)) refuse("bad_request", "where is an object");
    checkJson(where, 0, LIMITS);
    const { softDelete } = table;
    const tests = entriesOf(where).flatMap(([name, condition]): Predicate[] => {
      const key = keyOf(table, name) ?? noKey(name);
      const conditions = isObject(condition) ? entriesOf(condition) : [];
      const given = conditions.filter(([, value]) => value !== undefined);
      // Left out it would find everything, which nobody wants who wrote it down.
      if (condition === undefined || (isObject(condition) && !given.length)) {
        refuse("bad_request", "There is nothing to compare with: leave the key out", {
          key: name,
        });
      }
      if (!isObject(condition)) given.push(["eq", condition]);
      return given.map(([operator, value]) => comparison(name, key, operator, value));
    });
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
  const no = (code: ProblemCode, detail?: string): never => refuse(code, detail, { key: name });
  const test =
    (holds: (found: Json) => boolean): Predicate =>
    (record) => {
      const found = record[name] ?? null;
      return found !== null && holds(found);
    };
  const { type } = key;
  if (operator === "is") {
    if (value === null) return (record) => (record[name] ?? null) === null;
    return value === "notNull" ? test(() => true) : no("bad_request", 'is takes null or "notNull"');
  }
  if (operator === "in") {
    if (!Array.isArray(value) || value.length > 1000) {
      return no("bad_request", "in takes a list of at most 1000 values");
    }
    const tests = value.map((item) => comparison(name, key, "eq", item));
    return (record) => tests.some((test) => test(record));
  }
  if (operator === "contains" && (type === "list" || type === "json")) {
    const element = type === "list" ? elementOf(key) : key;
    let item = value;
    const problem = caught(() => {
      item = canonical(value, element, LIMITS);
    });
    if (problem) no("wrong_type", problem.detail);
    const compare = ordering(element);
    const same = (one: Json) =>
      one === item || (one !== null && item !== null && !compare(one, item));
    return test((found) => Array.isArray(found) && found.some(same));
  }
  const part = operator === "contains";
  const signs = member(SIGNS, operator);
  if (!signs && !part) no("unknown_operator", "There is no such operator");
  if (
    part ? type !== "text" : signs?.length !== 3 && isUnordered(type) && !operator.endsWith("eq")
  ) {
    no("wrong_type", `${operator} does not apply to this key`);
  }
  const { maxLength: _, ...unbounded } = key;
  let wanted: Json = null;
  const problem = caught(() => {
    wanted = canonical(value, unbounded, LIMITS);
  });
  if (problem?.status === 400) no("wrong_type", problem.detail);
  if (problem) throw new Refusal({ ...problem, key: name });
  if (wanted === null) return () => false;
  if (part) return test((found) => (found as string).includes(wanted as unknown as string));
  const compare = ordering(key);
  return test((found) => signs?.includes(Math.sign(compare(found, wanted))) === true);
}

const isUnordered = (type: KeyType) => UNORDERED.includes(type);

/** How two values, neither of them null, are ordered; 0 where they are equal, for types without an order too. */
function ordering(key: KeySchema): (a: Json, b: Json) => number {
  switch (key.type) {
    case "boolean":
    case "integer":
    case "float":
      return (a, b) => compareNumbers(Number(a), Number(b));
    case "bigint":
    case "numeric":
      return (a, b) => compareDecimals(a as string, b as string);
    case "list": {
      const compare = ordering(elementOf(key));
      const same = (a: Json, b: Json) => a === b || (a !== null && b !== null && !compare(a, b));
      return (a, b) => {
        const [x, y] = [a as Json[], b as Json[]];
        return Number(x.length !== y.length || x.some((item, n) => !same(item, y[n] as Json)));
      };
    }
    case "json":
    case "bytea":
    case "other":
      return (a, b) => Number(!equalJson(a, b));
    default:
      return (a, b) => compareText(a as string, b as string);
  }
}

/** As PostgreSQL: NaN equals itself and is greater than all others. */
const compareNumbers = (a: number, b: number) =>
  Object.is(a, b) || a === b ? 0 : a < b || Number.isNaN(b) ? -1 : 1;

function compareDecimals(a: string, b: string): number {
  // Up to fifteen digits a double is exact enough, and NaN and Infinity have one.
  if (a.length < 16 && b.length < 16) return compareNumbers(Number(a), Number(b));
  const [x, y] = aligned(a, b);
  return x === y ? 0 : x < y ? -1 : 1;
}

/** An order as a function, by the rules of the server; without one by id alone. Throws InvalidQueryError. */
export function compileOrder(table: TableSchema, orderBy: OrderBy = []): Comparator {
  return query(() => {
    if (!Array.isArray(orderBy) || orderBy.length > 5) {
      refuse("bad_request", "orderBy is a list of at most five {key, dir}");
    }
    const parts = orderBy.map((part: unknown): Comparator => {
      const { key: name, dir = "asc", ...more } = isObject(part) ? part : {};
      if (
        typeof name !== "string" ||
        (dir !== "asc" && dir !== "desc") ||
        Object.keys(more).length
      ) {
        refuse("bad_request", 'An order is {key, dir: "asc" or "desc"}');
      }
      const key = keyOf(table, name) ?? noKey(name);
      if (isUnordered(key.type)) {
        refuse("wrong_type", "This key has no order", { key: name });
      }
      const compare = ordering(key);
      const sign = dir === "desc" ? -1 : 1;
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
      const values = listed(member(where as JsonObject, key));
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
