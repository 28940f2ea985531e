import { refuse } from "./errors.js";
import { type Json, plainNumber } from "./json.js";
import type { KeySchema, KeyType } from "./schema.js";

/** The settings of the server that a client can respect beforehand (`sync.configure`). */
export interface Limits {
  max_operations: number;
  max_transaction_bytes: number;
  max_record_bytes: number;
  max_list_items: number;
  max_depth: number;
  max_path: number;
}

/** What the server has where nobody configured anything. */
export const LIMITS: Limits = {
  max_operations: 500,
  max_transaction_bytes: 1048576,
  max_record_bytes: 262144,
  max_list_items: 10000,
  max_depth: 32,
  max_path: 16,
};

const BIGINT = 2n ** 63n;
const INTEGER = 2 ** 31;
const TIME =
  /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d)(?::(\d\d)(\.\d{1,9})?)?(Z|([+-])(\d\d)(?::?(\d\d))?)?$/;

/** Leaves with 413 or 422 naming the limit. */
export function refuseLimit(limits: Limits, limit: keyof Limits): never {
  const code = limit.endsWith("bytes") ? "too_large" : "too_many";
  refuse(code, `More than ${limit} allows (${limits[limit]})`, { limit });
}

/** Leaves with 400 `wrong_type`. */
export function refuseType(expected: string): never {
  refuse("wrong_type", `Expected ${expected}`, { expected });
}

/**
 * A value as a column of this type holds and shows it: one way of writing for each value. Nothing and null give null.
 * Refuses another type with 400.
 */
export function canonical(value: Json | undefined, key: KeySchema, limits: Limits): Json {
  if (value === null || value === undefined) return null;
  const string = typeof value === "string" ? value : null;
  const number = typeof value === "number" ? value : null;
  switch (key.type) {
    case "text":
      return shortened(string ?? refuseType("a string"), key.maxLength);
    case "enum":
      if (string === null) refuseType("a string");
      if (key.values?.includes(string) === false) refuseType(`one of ${key.values.join(", ")}`);
      return string;
    case "boolean":
      return typeof value === "boolean" ? value : refuseType("true or false");
    case "integer":
      if (number === null || !Number.isInteger(number)) refuseType("a whole number");
      return inRange(number);
    case "bigint":
      if (string === null ? !Number.isInteger(value) : !/^-?[0-9]{1,19}$/.test(string)) {
        refuseType("a whole number as a string");
      }
      return inBigRange(BigInt(string ?? plainNumber(value as number)));
    case "numeric":
      if (number !== null) return decimal(plainNumber(number));
      if (string === null || string.length > 400 || !/^-?[0-9]+(\.[0-9]+)?$/.test(string)) {
        refuseType("a number as a string");
      }
      return decimal(string);
    case "float":
      return (number ?? refuseType("a number")) + 0;
    case "uuid":
      if (!string || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(string))
        refuseType("a uuid");
      return string.toLowerCase();
    case "timestamptz":
      return time(string, true, "a time in ISO 8601 with a zone");
    case "timestamp":
      return time(string, false, "a time in ISO 8601 without a zone");
    case "date":
      if (!string || !/^\d{4}-\d\d-\d\d$/.test(string) || Number.isNaN(dayOf(string))) {
        refuseType("a date as YYYY-MM-DD");
      }
      return string;
    case "bytea":
      return base64(string);
    case "list":
      if (!Array.isArray(value)) refuseType("a list");
      if (value.length > limits.max_list_items) refuseLimit(limits, "max_list_items");
      return value.map((item) => canonical(item, elementOf(key), limits));
    case "json":
      return value;
    default:
      return refuseType("nothing: the column is read only");
  }
}

/** What an element of a list has to be. */
export function elementOf({ elementType, values }: KeySchema): KeySchema {
  const type = elementType as KeyType;
  return { type, nullable: true, required: false, ...(values ? { values } : {}) };
}

/** Refuses a JSON value that is too deep where it will hang, or holds a list that is too long. */
export function checkJson(value: Json, depth: number, limits: Limits): void {
  if (typeof value !== "object" || value === null) return;
  // Level n of a container holds something: the document is at least n deep.
  if (reaches(value, Math.max(limits.max_depth - depth, 0))) refuseLimit(limits, "max_depth");
  if (hasLong(value, limits.max_list_items)) refuseLimit(limits, "max_list_items");
}

function reaches(value: Json, level: number): boolean {
  if (level === 0) return true;
  return (
    typeof value === "object" &&
    value !== null &&
    Object.values(value).some((item) => reaches(item, level - 1))
  );
}

function hasLong(value: Json, most: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return (
    (Array.isArray(value) && value.length > most) ||
    Object.values(value).some((item) => hasLong(item, most))
  );
}

/** The sum of a column and a step, both in the form of the wire. Refuses what the type cannot hold. */
export function addTo(old: Json, by: Json, type: KeyType): Json {
  if (type === "bigint") return inBigRange(BigInt(String(old ?? 0)) + BigInt(String(by)));
  if (type === "numeric") {
    const [a, b, scale] = aligned(String(old ?? 0), String(by));
    const sum = a + b;
    const text = String(sum < 0n ? -sum : sum).padStart(scale + 1, "0");
    const at = text.length - scale;
    return `${sum < 0n ? "-" : ""}${text.slice(0, at)}${scale ? `.${text.slice(at)}` : ""}`;
  }
  const sum = Number(old ?? 0) + Number(by);
  if (!Number.isFinite(sum)) refuseType("a smaller sum");
  return type === "integer" ? inRange(sum) : sum;
}

/** Two decimal texts as whole numbers of the same scale, and that scale. */
export function aligned(a: string, b: string): [bigint, bigint, number] {
  const scaleOf = (text: string) => text.length - (text.indexOf(".") + 1 || text.length);
  const scale = Math.max(scaleOf(a), scaleOf(b));
  const whole = (text: string) => BigInt(text.replace(".", "") + "0".repeat(scale - scaleOf(text)));
  return [whole(a), whole(b), scale];
}

function decimal(text: string): string {
  const short = text.replace(/^(-?)0+(?=\d)/, "$1");
  return /[1-9]/.test(short) ? short : short.replace("-", "");
}

function inRange(value: number): number {
  if (value < -INTEGER || value >= INTEGER) refuseType("a whole number");
  return value + 0;
}

function inBigRange(value: bigint): string {
  if (value < -BIGINT || value >= BIGINT) refuseType("a whole number as a string");
  return String(value);
}

function shortened(value: string, most: number | undefined): string {
  if (most === undefined || value.length <= most) return value;
  const letters = Array.from(value);
  if (letters.slice(most).some((letter) => letter !== " "))
    refuseType(`at most ${most} characters`);
  return letters.slice(0, most).join("");
}

function base64(value: string | null): string {
  if (
    value === null ||
    !/^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value)
  ) {
    refuseType("base64");
  }
  // Bits beyond the last byte do not count.
  return value.endsWith("=") ? btoa(atob(value)) : value;
}

/** The day of a date, counted from 1970; NaN where there is none. */
function dayOf(text: string): number {
  const [year = 0, month = 0, day = 0] = text.split("-").map(Number);
  const date = new Date(0);
  const time = date.setUTCFullYear(year, month - 1, day);
  return year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day
    ? time / 864e5
    : Number.NaN;
}

function time(text: string | null, zoned: boolean, expected: string): string {
  const found = text === null ? null : TIME.exec(text);
  if (!found || (found[8] !== undefined) !== zoned) refuseType(expected);
  const part = (n: number) => Number(found[n] ?? 0);
  // To the nearest microsecond, halves to the even one, as PostgreSQL does.
  const fraction = part(7) * 1e6;
  let micros = Math.round(fraction);
  if (micros - fraction === 0.5 && micros % 2) micros--;
  const clock = part(4) * 3600 + part(5) * 60 + part(6);
  const day = dayOf((text as string).slice(0, 10));
  const wrong = part(5) > 59 || part(6) > 60 || clock * 1e6 + micros > 864e8;
  if (!wrong && (part(10) > 15 || part(11) > 59)) refuse("bad_value");
  if (wrong || Number.isNaN(day)) refuseType(expected);
  const zone = (found[9] === "-" ? -60 : 60) * (part(10) * 60 + part(11));
  const date = new Date((day * 86400 + clock - zone + Math.floor(micros / 1e6)) * 1000);
  const year = date.getUTCFullYear();
  if (zoned && (year < 1 || year > 9999)) refuse("bad_value");
  const rest = date.toISOString().replace(/^\+0*/, "").slice(0, -4);
  return `${rest}${String(micros % 1e6).padStart(6, "0")}${zoned ? "Z" : ""}`;
}
