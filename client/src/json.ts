import { refuse } from "./errors.js";

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** A JSON object. */
export type JsonObject = { [key: string]: Json };

/** A record as the wire shows it: every readable key, `id` and `version` among them. */
export type RecordData = JsonObject;

/** Is it an object, and neither null nor a list? */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A member of an object's own; undefined where there is none. */
export function member<T>(object: { readonly [name: string]: T }, name: string): T | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Equality of jsonb: deep, whatever the order of keys; 1 equals 1.0. */
export function equalJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    return (
      Array.isArray(a) &&
      Array.isArray(b) &&
      a.length === b.length &&
      a.every((item, index) => equalJson(item, b[index]))
    );
  }
  const keys = Object.keys(a);
  return (
    keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && equalJson(a[key], b[key]))
  );
}

/**
 * A copy of a value as JSON would carry it: members that are undefined are left out, dates become texts, and so do
 * values of BigInt. Refuses (400 `bad_value`) what PostgreSQL or JSON cannot hold: NUL, halves of surrogate pairs,
 * numbers that are not finite, functions, circles.
 */
export function toJson(value: unknown, depth = 0): Json {
  if (value === null || typeof value === "boolean") return value;
  if (typeof value === "string") return text(value);
  if (typeof value === "number") {
    if (!Number.isFinite(value)) refuse("bad_value");
    return value + 0; // -0 has no text of its own
  }
  if (typeof value === "bigint") return String(value);
  if (typeof value !== "object") refuse("bad_value", `A ${typeof value} is no JSON`);
  // Nothing as deep is accepted anywhere; a circle has no end.
  if (depth > 500) refuse("too_many", "The value is too deep", { limit: "max_depth" });
  if ("toJSON" in value && typeof value.toJSON === "function")
    return toJson(value.toJSON(), depth + 1);
  if (Array.isArray(value)) return value.map((item) => toJson(item ?? null, depth + 1));
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, item]) => item !== undefined)
      .map(([key, item]) => [text(key), toJson(item, depth + 1)]),
  );
}

const UNSTORABLE = /\0|\p{Surrogate}/u;

function text(value: string): string {
  if (UNSTORABLE.test(value)) refuse("bad_value");
  return value;
}

/** By code point, as `collate "C"`: UTF-16 units differ where characters beyond the basic plane meet U+E000 to U+FFFF. */
export function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let n = 0; n < length; n++) {
    let x = a.charCodeAt(n);
    let y = b.charCodeAt(n);
    if (x !== y) {
      if (x >= 0xd800 && y >= 0xd800) {
        x = x < 0xe000 ? x + 0x10000 : x;
        y = y < 0xe000 ? y + 0x10000 : y;
      }
      return x - y;
    }
  }
  return a.length - b.length;
}

/** Bytes of a text in UTF-8. */
export function byteLength(value: string): number {
  let bytes = value.length;
  for (let n = 0; n < value.length; n++) {
    const unit = value.charCodeAt(n);
    if (unit > 0x7f) bytes += unit > 0x7ff && (unit < 0xd800 || unit > 0xdfff) ? 2 : 1;
  }
  return bytes;
}

/** The keys of an object in the order of jsonb: short ones first, then by code point. */
export function jsonbKeys(value: JsonObject): string[] {
  return Object.keys(value).sort((a, b) => byteLength(a) - byteLength(b) || compareText(a, b));
}

/** A number in decimal digits, without an exponent. */
export function plainNumber(value: number): string {
  const written = String(value);
  const [, sign = "", whole = "", part = "", exponent] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(written) ?? [];
  if (exponent === undefined) return written;
  const digits = whole + part;
  const point = whole.length + Number(exponent);
  if (point >= digits.length) return sign + digits.padEnd(point, "0");
  if (point > 0) return `${sign + digits.slice(0, point)}.${digits.slice(point)}`;
  return `${sign}0.${digits.padStart(digits.length - point, "0")}`;
}
