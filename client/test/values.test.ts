import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { caught, type OpProblem } from "../src/errors.js";
import type { Json } from "../src/json.js";
import type { KeySchema, KeyType } from "../src/schema.js";
import { addTo, canonical, LIMITS } from "../src/values.js";

const key = (type: KeyType, more: Partial<KeySchema> = {}): KeySchema => ({
  type,
  nullable: true,
  required: false,
  ...more,
});

const of = (type: KeyType, value: Json): Json | OpProblem => {
  let result: Json = null;
  return (
    caught(() => {
      result = canonical(value, key(type), LIMITS);
    }) ?? result
  );
};

// As PostgreSQL answers, found by asking it.
describe("one way of writing for each value", () => {
  test.each<[KeyType, Json, string]>([
    ["timestamptz", "2024-01-01T00:00:00.0000005Z", "2024-01-01T00:00:00.000000Z"],
    ["timestamptz", "2024-01-01T00:00:00.0000015Z", "2024-01-01T00:00:00.000002Z"],
    ["timestamptz", "2024-12-31T23:59:59.9999999Z", "2025-01-01T00:00:00.000000Z"],
    ["timestamptz", "2024-12-31T23:59:60Z", "2025-01-01T00:00:00.000000Z"],
    ["timestamptz", "2024-12-31T24:00Z", "2025-01-01T00:00:00.000000Z"],
    ["timestamptz", "2024-03-01T00:30+02", "2024-02-29T22:30:00.000000Z"],
    ["timestamptz", "2024-03-01T00:30-0530", "2024-03-01T06:00:00.000000Z"],
    ["timestamptz", "1969-12-31T23:59:59.5-15:59", "1970-01-01T15:58:59.500000Z"],
    ["timestamptz", "0099-06-01T00:00:00+01:00", "0099-05-31T23:00:00.000000Z"],
    ["timestamp", "2024-02-29T12:00", "2024-02-29T12:00:00.000000"],
    ["timestamp", "9999-12-31T24:00:00", "10000-01-01T00:00:00.000000"],
    ["bigint", "-0", "0"],
    ["bigint", "007", "7"],
    ["bigint", 2 ** 53, "9007199254740992"],
    ["numeric", "-0.00", "0.00"],
    ["numeric", "007.10", "7.10"],
    ["numeric", 1.5e-7, "0.00000015"],
    ["numeric", 1e21, "1000000000000000000000"],
    ["bytea", "AB==", "AA=="],
    ["bytea", "AAF=", "AAE="],
    ["uuid", "018F0000-0000-7000-8000-0000000000FF", "018f0000-0000-7000-8000-0000000000ff"],
  ])("%s %j is %j", (type, value, expected) => {
    expect(of(type, value)).toBe(expected);
  });

  test.each<[KeyType, Json, string]>([
    ["timestamptz", "2024-12-31T23:59:60.5Z", "wrong_type"],
    ["timestamptz", "2024-12-31T24:00:01Z", "wrong_type"],
    ["timestamptz", "2024-02-30T12:00:00Z", "wrong_type"],
    ["timestamptz", "2024-13-01T12:00:00Z", "wrong_type"],
    ["timestamptz", "2024-00-01T12:00:00Z", "wrong_type"],
    ["timestamptz", "0000-01-01T12:00:00Z", "wrong_type"],
    ["timestamptz", "2024-01-01T12:60:00Z", "wrong_type"],
    ["timestamptz", "2024-01-01T12:00:61Z", "wrong_type"],
    ["timestamptz", "2024-01-01T12:00:00+16:00", "bad_value"],
    ["timestamptz", "2024-02-30T12:00:00+15:60", "bad_value"],
    ["timestamptz", "2024-02-29T25:00:00+16:00", "wrong_type"],
    ["timestamptz", "9999-12-31T23:59:59.9999999Z", "bad_value"],
    ["timestamptz", "0001-01-01T00:00:00+00:01", "bad_value"],
    ["date", "2023-02-29", "wrong_type"],
    ["date", "2024-01-00", "wrong_type"],
    ["numeric", "1".repeat(401), "wrong_type"],
    ["bigint", 2 ** 63, "wrong_type"],
    ["integer", -2147483649, "wrong_type"],
    ["list", [1], "wrong_type"],
  ])("%s %j is refused: %s", (type, value, code) => {
    expect(of(type, value)).toMatchObject({ status: 400, code });
  });

  test("spaces beyond a text's length are cut off, as PostgreSQL does", () => {
    const short = key("text", { maxLength: 3 });
    expect(canonical("😀é   ", short, LIMITS)).toBe("😀é ");
    expect(caught(() => void canonical("abcd", short, LIMITS))).toMatchObject({
      code: "wrong_type",
    });
  });

  test("is its own: nothing changes when it is written again", () => {
    const decimal = fc.stringMatching(/^-?[0-9]{1,12}(\.[0-9]{1,8})?$/);
    const date = fc.date({
      min: new Date("0001-01-02"),
      max: new Date("9999-12-30"),
      noInvalidDate: true,
    });
    fc.assert(
      fc.property(decimal, date, fc.uint8Array(), (text, when, bytes) => {
        for (const [type, value] of [
          ["numeric", text],
          ["timestamptz", when.toISOString()],
          ["bytea", Buffer.from(bytes).toString("base64")],
        ] as const) {
          const once = of(type, value);
          expect(of(type, once as Json)).toBe(once);
        }
        expect(of("timestamptz", when.toISOString())).toBe(
          `${when.toISOString().slice(0, -1)}000Z`,
        );
      }),
    );
  });
});

describe("sums", () => {
  test.each<[KeyType, Json, Json, Json]>([
    ["numeric", "0.1", "0.20", "0.30"],
    ["numeric", "-0.05", "0.05", "0.00"],
    ["numeric", "-1.5", "0.25", "-1.25"],
    ["numeric", null, "7", "7"],
    ["numeric", "99999999999999999999.9", "0.1", "100000000000000000000.0"],
    ["bigint", "9007199254740993", "1", "9007199254740994"],
    ["integer", null, -3, -3],
    ["float", 0.1, 0.2, 0.30000000000000004],
  ])("of %s: %j and %j are %j", (type, old, by, sum) => {
    expect(addTo(old, by, type)).toBe(sum);
  });

  test.each<[KeyType, Json, Json]>([
    ["integer", 2147483647, 1],
    ["bigint", "9223372036854775807", "1"],
    ["float", 1e308, 1e308],
  ])("of %s that are too large are refused", (type, old, by) => {
    expect(caught(() => void addTo(old, by, type))).toMatchObject({ code: "wrong_type" });
  });
});
