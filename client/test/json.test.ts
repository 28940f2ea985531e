import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { caught } from "../src/errors.js";
import { byteLength, compareText, equalJson, type Json, plainNumber, toJson } from "../src/json.js";

describe("equality", () => {
  test.each<[Json | undefined, Json | undefined, boolean]>([
    [{ a: 1, b: [1, { c: null }] }, { b: [1, { c: null }], a: 1 }, true],
    [{ a: 1 }, { a: 1, b: undefined as unknown as Json }, false],
    [{ a: undefined as unknown as Json }, { b: 1 }, false],
    [[1, 2], [2, 1], false],
    [[], {}, false],
    [null, {}, false],
    [null, undefined, false],
    [1, "1", false],
    [0, false, false],
    [{ toString: 1 }, {}, false],
  ])("of %j and %j is %s", (a, b, equal) => {
    expect(equalJson(a, b)).toBe(equal);
    expect(equalJson(b, a)).toBe(equal);
  });
});

describe("a copy as JSON", () => {
  test("is what JSON would carry", () => {
    const date = new Date(0);
    const sent = {
      a: undefined,
      b: [undefined, -0, date],
      c: 12n,
      __proto__: null,
      "": { d: true },
    };
    expect(toJson(sent)).toEqual({ b: [null, 0, date.toISOString()], c: "12", "": { d: true } });
    expect(Object.is((toJson([-0]) as number[])[0], 0)).toBe(true);
  });

  test("keeps a member of any name its own", () => {
    const copy = toJson(JSON.parse('{"__proto__": {"polluted": 1}}'));
    expect(Object.keys(copy as object)).toEqual(["__proto__"]);
    expect((copy as { polluted?: number }).polluted).toBeUndefined();
  });

  const circle: { self?: unknown } = {};
  circle.self = circle;
  test.each([
    [Number.NaN],
    [Number.POSITIVE_INFINITY],
    ["a\0"],
    ["\ud83d"],
    [{ "\ude00": 1 }],
    [() => 1],
    [Symbol("a")],
    [circle],
  ])("refuses what none can hold: %s", (value) => {
    expect(caught(() => void toJson(value))).toMatchObject({
      code: expect.stringMatching(/bad_value|too_many/),
    });
  });
});

test("texts are ordered by code point", () => {
  const letter = fc.constantFrom(
    "a",
    "Z",
    "é",
    "\ud7ff",
    "\ue000",
    "\uffff",
    "\u{10000}",
    "\u{10ffff}",
  );
  const text = fc.array(letter, { maxLength: 4 }).map((letters) => letters.join(""));
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(Math.sign(compareText(a, b))).toBe(
        Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b))),
      );
    }),
  );
});

test("bytes of a text are those of UTF-8", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 20 }), (text) => {
      expect(byteLength(text)).toBe(new TextEncoder().encode(text).length);
    }),
  );
});

test("a number without its exponent is the same number", () => {
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
      const text = plainNumber(value);
      expect(text).toMatch(/^-?\d+(\.\d+)?$/);
      expect(Number(text)).toBe(value + 0);
    }),
  );
});
