/**
 * Order keys: texts that say where a record stands among its siblings, compared by code point, as the database does
 * (`collate "C"`). A record is moved by giving it a key between those of its new neighbours; nobody else changes.
 *
 * A key is a fraction written in base 62: "V" is 0.V, half of everything. Two people who put something in the same
 * place at the same time, perhaps offline, must not get the same key, so every key ends in random digits.
 */

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE = BigInt(DIGITS.length);
/** Digits by which keys at either end count up and down: room for millions before they get longer. */
const COUNTED = 4;
/** Random digits at the end: about one in 14 million chances to meet. */
const RANDOM = 4;

/** A number from 0 to below 1, as Math.random gives it. Tests bring their own. */
export type Random = () => number;

/**
 * A key after `before` and before `after`; null is the beginning or the end. Undefined where nothing fits in between:
 * one of them is no key, or they are not in order.
 */
export function keyBetween(
  before: string | null,
  after: string | null,
  random: Random = Math.random,
): string | undefined {
  if (!isKeyOrNull(before) || !isKeyOrNull(after)) return undefined;
  if (before !== null && after !== null && before >= after) return undefined;
  const longest = Math.max(before?.length ?? 0, after?.length ?? 0) + COUNTED;
  for (let digits = COUNTED; digits <= longest; digits++) {
    const first = before === null ? 0n : toNumber(before, digits) + 1n;
    const end = after === null ? BASE ** BigInt(digits) : toNumber(after, digits);
    if (first < end) return toText(choose(first, end, before, after), digits) + tail(random);
  }
  return undefined;
}

/** At the end the next number, at the beginning the last, so that keys stay short; else the middle. */
function choose(first: bigint, end: bigint, before: string | null, after: string | null): bigint {
  if (before === null && after === null) return end / 2n;
  if (after === null) return first;
  if (before === null) return end - 1n;
  return (first + end - 1n) / 2n;
}

/**
 * Where something is put among siblings with these keys: its own key, and new keys for siblings that need one, by
 * their place. Siblings need one where they have none, or no two different ones around the place.
 */
export function placeAt(
  siblings: readonly (string | null)[],
  index: number,
  random: Random = Math.random,
): { key: string; siblings: Map<number, string> } {
  const key = keyBetween(siblings[index - 1] ?? null, siblings[index] ?? null, random);
  // A sibling without a key stands behind all that have one: what is put behind it needs it to have one.
  if (key !== undefined && (index === 0 || siblings[index - 1] !== null)) {
    return { key, siblings: new Map() };
  }
  const changed = new Map<number, string>();
  let last: string | null = null;
  let own = "";
  for (let place = 0; place <= siblings.length; place++) {
    if (place === index) last = own = after(last, random);
    const sibling = siblings[place] ?? null;
    const stands = isKeyOrNull(sibling) && (last === null || (sibling !== null && sibling > last));
    // Behind the place all may stay as soon as one stands well, or has no key and is last anyway.
    if (place >= index && (stands || sibling === null)) break;
    if (stands && sibling !== null) last = sibling;
    else {
      last = after(last, random);
      changed.set(place, last);
    }
  }
  return { key: own, siblings: changed };
}

function after(key: string | null, random: Random): string {
  const next = keyBetween(key, null, random);
  if (next === undefined) throw new RangeError("There is no room behind this key");
  return next;
}

function isKeyOrNull(key: string | null): boolean {
  return key === null || /^[0-9A-Za-z]+$/.test(key);
}

/** The first digits of a key as a number; what is missing counts as 0. */
function toNumber(key: string, digits: number): bigint {
  let number = 0n;
  for (let place = 0; place < digits; place++) {
    number = number * BASE + BigInt(Math.max(DIGITS.indexOf(key[place] ?? "0"), 0));
  }
  return number;
}

function toText(number: bigint, digits: number): string {
  let text = "";
  for (let rest = number; text.length < digits; rest /= BASE) {
    text = DIGITS[Number(rest % BASE)] + text;
  }
  return text;
}

/** Random digits. The last is never 0: between "a" and "a0" there would be no room. */
function tail(random: Random): string {
  let text = "";
  while (text.length < RANDOM) {
    const lowest = text.length === RANDOM - 1 ? 1 : 0;
    text += DIGITS[lowest + Math.floor(random() * (DIGITS.length - lowest))];
  }
  return text;
}
