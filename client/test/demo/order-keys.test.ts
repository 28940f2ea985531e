import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keyBetween, placeAt } from "../../demo/src/order-keys.js";

const KEY = /^[0-9A-Za-z]*[1-9A-Za-z]$/;

/** Random numbers that repeat with their seed. */
function dice(seed: number) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const sorted = (keys: readonly (string | null)[]) =>
  keys.every((key, n) => {
    const next = keys[n + 1];
    return next === undefined || next === null || (key !== null && key < next);
  });

describe("a key between two", () => {
  it("lies between them", () => {
    const key = fc.stringMatching(/^[0-9A-Za-z]{0,8}[1-9A-Za-z]$/);
    fc.assert(
      fc.property(fc.uniqueArray(key, { minLength: 2, maxLength: 2 }), fc.nat(), (pair, seed) => {
        const [before, after] = pair.sort((a, b) => (a < b ? -1 : 1)) as [string, string];
        const found = keyBetween(before, after, dice(seed));
        expect(found).toMatch(KEY);
        expect(before < (found as string) && (found as string) < after).toBe(true);
      }),
    );
  });

  it("takes the keys of the seed, which end in 0", () => {
    for (const [before, after] of [
      ["a0", "a1"],
      [null, "a0"],
      ["a7", null],
      [null, null],
    ] as const) {
      const key = keyBetween(before, after) as string;
      expect(key).toMatch(KEY);
      if (before) expect(before < key).toBe(true);
      if (after) expect(key < after).toBe(true);
    }
  });

  it("is not to be had where they are not in order, or no keys", () => {
    expect(keyBetween("b", "a")).toBeUndefined();
    expect(keyBetween("a", "a")).toBeUndefined();
    expect(keyBetween("a", "a0")).toBeUndefined();
    expect(keyBetween("", "b")).toBeUndefined();
    expect(keyBetween("ä", null)).toBeUndefined();
  });

  it("differs for everybody who puts something in the same place", () => {
    const keys = new Set<string | undefined>();
    for (let n = 0; n < 2000; n++) keys.add(keyBetween("a0", "a1"));
    expect(keys.size).toBeGreaterThan(1995);
  });

  it.each([
    ["last", 3000],
    ["first", 3000],
    ["second", 300],
  ])("stays short where always the %s is added, %i times", (where, times) => {
    const random = dice(7);
    const keys = ["a0", "a1"];
    for (let n = 0; n < times; n++) {
      const index = where === "last" ? keys.length : where === "first" ? 0 : 1;
      const key = keyBetween(keys[index - 1] ?? null, keys[index] ?? null, random) as string;
      keys.splice(index, 0, key);
      if (where !== "second") expect(key.length).toBe(8);
    }
    expect(sorted(keys)).toBe(true);
    // About six times in the same gap cost a digit.
    expect(Math.max(...keys.map((key) => key.length))).toBeLessThan(8 + 300 / 5);
  });
});

describe("putting something among siblings", () => {
  it("changes nobody else where there is room", () => {
    const { key, siblings } = placeAt(["a0", "a1", null], 1);
    expect(siblings.size).toBe(0);
    expect(sorted(["a0", key, "a1", null])).toBe(true);
    expect(placeAt(["a0", null], 1).siblings.size).toBe(0);
    expect(placeAt([null, null], 0).siblings.size).toBe(0);
  });

  it("gives a key to siblings without one that stand before it", () => {
    const { key, siblings } = placeAt(["a0", null, null, null], 3);
    expect([...siblings.keys()]).toEqual([1, 2]);
    expect(sorted(["a0", siblings.get(1) ?? "", siblings.get(2) ?? "", key, null])).toBe(true);
  });

  it("parts siblings with the same key", () => {
    const { key, siblings } = placeAt(["a0", "a0", "a0", "a5"], 1);
    expect([...siblings.keys()]).toEqual([1, 2]);
    expect(sorted(["a0", key, siblings.get(1) ?? "", siblings.get(2) ?? "", "a5"])).toBe(true);
  });

  it("puts it exactly there, whatever keys the siblings have", () => {
    const key = fc.option(fc.constantFrom("a", "a0", "a1", "a2", "zz", "b5", "?", "é"));
    fc.assert(
      fc.property(fc.array(key, { maxLength: 8 }), fc.nat(), fc.nat(), (given, at, seed) => {
        // As the database sorts them: by code point, those without a key last.
        const keys = given.sort((a, b) =>
          a === b ? 0 : b === null || (a !== null && a < b) ? -1 : 1,
        );
        const index = at % (keys.length + 1);
        const placed = placeAt(keys, index, dice(seed));
        const after = keys.map((old, n) => placed.siblings.get(n) ?? old);
        const before = after.slice(0, index);
        expect(before.every((other) => other !== null && other < placed.key)).toBe(true);
        expect(sorted([placed.key, ...after.slice(index, index + 1)])).toBe(true);
      }),
    );
  });
});
