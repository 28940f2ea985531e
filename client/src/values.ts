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
export function refuseLimit(limits: Limits, limit: keyof Limits, status = 422): never {
  refuse(
    status,
    status === 413 ? "too_large" : "too_many",
    `More than ${limit} allows (${limits[limit]})`,
    { limit },
  );
}

/** Leaves with 400 `wrong_type`. */
export function refuseType(expected: string): never {
  refuse(400, "wrong_type", `Expected ${expected}`, { expected });
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
      if (!string || !/^\d{4}-\d\d-\d\d$/.test(string)) refuseType("a date as YYYY-MM-DD");
      checkDay(string);
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
    const [a, b] = [digits(String(old ?? 0)), digits(String(by))];
    const scale = Math.max(a.scale, b.scale);
    const sum = a.value * 10n ** BigInt(scale - a.scale) + b.value * 10n ** BigInt(scale - b.scale);
    const text = String(sum < 0n ? -sum : sum).padStart(scale + 1, "0");
    const at = text.length - scale;
    return `${sum < 0n ? "-" : ""}${text.slice(0, at)}${scale ? `.${text.slice(at)}` : ""}`;
  }
  const sum = Number(old ?? 0) + Number(by);
  if (!Number.isFinite(sum)) refuse(400, "wrong_type", "The sum is too large");
  return type === "integer" ? inRange(sum) : sum;
}

/** The sum of two numbers inside jsonb: whole ones exactly, fractions and what is beyond 2^53 as doubles. */
export function addNumbers(old: number, by: number): number {
  const sum = old + by;
  if (!Number.isFinite(sum)) refuse(400, "bad_value", "The number is too large");
  if (Number.isInteger(old) && Number.isInteger(by)) {
    const exact = BigInt(plainNumber(old)) + BigInt(plainNumber(by));
    if (exact <= Number.MAX_SAFE_INTEGER && exact >= Number.MIN_SAFE_INTEGER) return Number(exact);
  }
  return sum;
}

function digits(text: string): { value: bigint; scale: number } {
  const [whole = "", part = ""] = text.split(".");
  return { value: BigInt(whole + part), scale: part.length };
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

function days(year: number, month: number, day: number): number {
  return new Date(0).setUTCFullYear(year, month - 1, day) / 86_400_000;
}

function checkDay(text: string): number {
  const [year = 0, month = 0, day = 0] = text.split("-").map(Number);
  const number = days(year, month, day);
  if (year < 1 || new Date(number * 86_400_000).getUTCDate() !== day || month < 1 || month > 12) {
    refuse(400, "wrong_type", "There is no such day");
  }
  return number;
}

function time(text: string | null, zoned: boolean, expected: string): string {
  const found = text === null ? null : TIME.exec(text);
  if (!found || (found[8] !== undefined) !== zoned) refuseType(expected);
  const part = (n: number) => Number(found[n] ?? 0);
  const [hour, minute, second] = [part(4), part(5), part(6)];
  // To the nearest microsecond, halves to the even one, as PostgreSQL does.
  const fraction = part(7) * 1e6;
  let micros = Math.round(fraction);
  if (micros - fraction === 0.5 && micros % 2) micros--;
  const clock = hour * 3600 + minute * 60 + second;
  if (minute > 59 || second > 60 || clock * 1e6 + micros > 86_400e6) {
    refuse(400, "wrong_type", "There is no such time");
  }
  if (part(10) > 15 || part(11) > 59) refuse(400, "bad_value", "There is no such zone");
  let seconds = checkDay((text as string).slice(0, 10)) * 86_400 + clock;
  seconds -= (found[9] === "-" ? -1 : 1) * (part(10) * 3600 + part(11) * 60);
  seconds += Math.floor(micros / 1e6);
  const date = new Date(seconds * 1000);
  const year = date.getUTCFullYear();
  if (zoned && (year < 1 || year > 9999)) refuse(400, "bad_value", "The year has four digits");
  const rest = date.toISOString().replace(/^\+0*/, "").slice(0, -4);
  return `${rest}${String(micros % 1e6).padStart(6, "0")}${zoned ? "Z" : ""}`;
}
