import { refuse } from "./errors.js";
import { isObject, type Json, member, type RecordData } from "./json.js";
import type { Path } from "./wire.gen.js";

const RESERVED = ["", "__proto__", "constructor", "prototype"];
const INDEX = /^(0|[1-9][0-9]{0,8})$/;

/** The parts of a key: a dotted text, or a list of texts. Refuses with 400, or 422 beyond `most` parts. */
export function parsePath(key: unknown, most: number): [string, ...string[]] {
  const path = typeof key === "string" ? key.split(".") : key;
  if (!Array.isArray(path) || !path.length || path.some((part) => typeof part !== "string")) {
    refuse("bad_request", "A key is a dotted text or a list of texts");
  }
  if (path.length > most) {
    refuse("too_many", `More than max_path allows (${most})`, { limit: "max_path" });
  }
  if (path.some((part) => RESERVED.includes(part))) {
    refuse("bad_path");
  }
  return path as [string, ...string[]];
}

/** What is at a path; undefined where there is nothing. */
export function readPath(record: RecordData, path: readonly string[]): Json | undefined {
  let value: Json | undefined = record;
  for (const part of path) {
    if (Array.isArray(value)) value = INDEX.test(part) ? value[Number(part)] : undefined;
    else value = isObject(value) ? member(value, part) : undefined;
  }
  return value;
}

/**
 * `old` with what `change` makes of the value at the path; undefined stands for nothing there, before and after.
 * Missing and null on the way become objects, removing what is not there makes nothing. Gives `old` itself where
 * nothing changed. Refuses a way through a scalar, or through a list by a name or beyond its end.
 */
export function patchAt(
  old: Json | undefined,
  path: readonly string[],
  change: (value: Json | undefined) => Json | undefined,
): Json | undefined {
  const [head, ...rest] = path;
  if (head === undefined) return change(old);
  if (old === undefined || old === null) {
    const made = patchAt(undefined, rest, change);
    return made === undefined ? old : { [head]: made };
  }
  if (Array.isArray(old) && INDEX.test(head)) {
    const at = Number(head);
    if (at >= old.length) refuse("bad_index");
    const made = patchAt(old[at], rest, change);
    if (made === undefined) return old.filter((_, index) => index !== at);
    return made === old[at] ? old : old.map((item, index) => (index === at ? made : item));
  }
  if (!isObject(old)) refuse("bad_path");
  const was = member(old, head);
  const made = patchAt(was, rest, change);
  if (made === was) return old;
  if (made !== undefined) return { ...old, [head]: made };
  const { [head]: _, ...others } = old;
  return others;
}

/** Two keys of operations name the same path. */
export function samePath(a: Path, b: Path): boolean {
  const parts = (key: Path) => (typeof key === "string" ? key.split(".") : key);
  const [left, right] = [parts(a), parts(b)];
  return left.length === right.length && left.every((part, index) => part === right[index]);
}
