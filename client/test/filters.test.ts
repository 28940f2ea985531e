import { describe, expect, test } from "vitest";
import { InvalidQueryError } from "../src/errors.js";
import {
  collectionKey,
  compileOrder,
  compileWhere,
  coveringKeys,
  keysOf,
  type OrderBy,
  parseKey,
  recordKey,
  type Where,
} from "../src/filters.js";
import type { RecordData } from "../src/json.js";
import type { KeySchema, KeyType, TableSchema } from "../src/schema.js";

const key = (type: KeyType, more: Partial<KeySchema> = {}): KeySchema => ({
  type,
  nullable: true,
  required: false,
  ...more,
});

const tasks: TableSchema = {
  idType: "uuid",
  softDelete: "deleted",
  touch: null,
  hardDelete: false,
  wholeTable: true,
  keys: {
    id: key("uuid", { nullable: false }),
    title: key("text", { maxLength: 3 }),
    count: key("integer"),
    ratio: key("float"),
    exact: key("numeric"),
    big: key("bigint"),
    mood: key("enum", { values: ["calm", "busy"], topic: true }),
    done: key("boolean", { topic: true }),
    boardId: key("uuid", { topic: true }),
    name: key("text", { topic: true }),
    raw: key("bytea"),
    data: key("json"),
    tags: key("list", { elementType: "text" }),
    bigs: key("list", { elementType: "bigint" }),
    exacts: key("list", { elementType: "numeric" }),
    odd: key("other"),
    deleted: key("timestamptz"),
  },
};

const BOARD = "018f0000-0000-7000-8000-0000000000ff";
const found = (where: Where, record: RecordData) =>
  compileWhere(tasks, where)({ deleted: null, ...record });
const refusal = (where: unknown) => {
  try {
    compileWhere(tasks, where as Where);
  } catch (error) {
    if (error instanceof InvalidQueryError) return error.problem;
    throw error;
  }
  return null;
};

describe("a filter", () => {
  test("an element that the list could not hold is refused", () => {
    expect(() => compileWhere(tasks, { bigs: { contains: {} } })).toThrow(InvalidQueryError);
  });

  test.each<[Where, RecordData, boolean]>([
    [{ bigs: { contains: "12" } }, { bigs: ["12"] }, true],
    [{ bigs: { contains: 12 } }, { bigs: ["12"] }, true],
    [{ exacts: { contains: "1.0" } }, { exacts: ["1.00"] }, true],
    [{ exacts: { eq: ["1.0", null] } }, { exacts: ["1", null] }, true],
    [{ exacts: { eq: ["1.0", null] } }, { exacts: ["1", "2"] }, false],
    [{ exacts: { eq: [] } }, { exacts: ["1"] }, false],
    [{ exact: { gt: "99999999999999999999.9" } }, { exact: "99999999999999999999.91" }, true],
    [{ exact: { lt: "-0.0000000000000000001" } }, { exact: "-0.00000000000000000009" }, false],
    [{ ratio: { gt: 5 } }, { ratio: "NaN" }, true],
    [{ ratio: { lt: 5 } }, { ratio: "-Infinity" }, true],
    [{ ratio: 5 }, { ratio: "NaN" }, false],
    [{ boardId: BOARD.toUpperCase() }, { boardId: BOARD }, true],
    [{ title: "longer than its column" }, { title: "abc" }, false],
    [{ title: { contains: "" } }, { title: "abc" }, true],
    [{ title: { contains: "" } }, { title: null }, false],
    [{ data: { eq: { a: [1] } } }, { data: { a: [1] } }, true],
    [{ data: { contains: null } }, { data: [null] }, true],
    [{ data: { contains: "a" } }, { data: "a" }, false],
    [{ count: { in: [null, 1] } }, { count: null }, false],
    [{ count: { gte: 1, lt: undefined as never } }, { count: 1 }, true],
    [{ count: null }, { count: null }, false],
    [{ odd: { is: "notNull" } }, { odd: 1 }, true],
    [{}, { deleted: "2024-01-01T00:00:00.000000Z" }, false],
    [{ deleted: { is: "notNull" } }, { deleted: "2024-01-01T00:00:00.000000Z" }, true],
  ])("%j on %j: %s", (where, record, expected) => {
    expect(found(where, record)).toBe(expected);
  });

  test.each<[unknown, object]>([
    [[], { code: "bad_request" }],
    [{ boardId: undefined }, { code: "bad_request", key: "boardId" }],
    [{ count: {} }, { code: "bad_request", key: "count" }],
    [{ count: { lt: undefined } }, { code: "bad_request", key: "count" }],
    [{ toString: 1 }, { code: "unknown_key", key: "toString" }],
    [{ count: { like: 1 } }, { code: "unknown_operator", key: "count" }],
    [{ count: { toString: 1 } }, { code: "unknown_operator" }],
    [{ count: "1" }, { code: "wrong_type", key: "count" }],
    [{ mood: "angry" }, { code: "wrong_type", key: "mood" }],
    [{ count: { contains: 1 } }, { code: "wrong_type" }],
    [{ count: { in: 1 } }, { code: "bad_request" }],
    [{ count: { in: Array(1001).fill(1) } }, { code: "bad_request" }],
    [{ count: { is: "null" } }, { code: "bad_request" }],
    [{ tags: { lt: [] } }, { code: "wrong_type" }],
    [{ raw: { gte: "" } }, { code: "wrong_type" }],
    [{ odd: 1 }, { code: "wrong_type" }],
  ])("%j is refused", (where, problem) => {
    expect(refusal(where)).toMatchObject({ status: 400, ...problem });
  });
});

describe("an order", () => {
  const sorted = (orderBy: OrderBy, records: RecordData[]) =>
    [...records].sort(compileOrder(tasks, orderBy)).map(({ id }) => id);

  test("is by id where there is none, and numbers have theirs", () => {
    expect(sorted([], [{ id: "b" }, { id: "a" }])).toEqual(["a", "b"]);
    const records = [
      { id: "a", ratio: "NaN" },
      { id: "b", ratio: 1 },
      { id: "c", ratio: null },
      { id: "d", ratio: "-Infinity" },
    ];
    expect(sorted([{ key: "ratio" }], records)).toEqual(["d", "b", "a", "c"]);
    expect(sorted([{ key: "ratio", dir: "desc" }], records)).toEqual(["a", "b", "d", "c"]);
    const bigs = ["9007199254740993", "-9007199254740993", "9007199254740992", "5"].map(
      (big, n) => ({ id: `${n}`, big }),
    );
    expect(sorted([{ key: "big" }], bigs)).toEqual(["1", "3", "2", "0"]);
  });

  test.each([
    [{}],
    [[{ key: "count", dir: "up" }]],
    [[{ key: "count", more: 1 }]],
    [["count"]],
    [[{ key: "nothing" }]],
    [[{ key: "data" }]],
    [Array(6).fill({ key: "count" })],
  ])("%j is refused", (orderBy) => {
    expect(() => compileOrder(tasks, orderBy as OrderBy)).toThrow(InvalidQueryError);
  });
});

describe("keys", () => {
  test("hold what they name, whatever its letters", () => {
    for (const id of ["a", "a/b c?d=e&f", "ä€😀", "%41", "it's (so)!*", "a.b~c_d-e"]) {
      const own = recordKey("marks", id);
      expect(own).toMatch(/^marks:[A-Za-z0-9._~%-]*$/);
      expect(parseKey(own)).toEqual({ table: "marks", id });
      expect(parseKey(collectionKey("marks", "boardId", id))).toEqual({
        table: "marks",
        name: "boardId",
        value: id,
      });
    }
    expect(parseKey("marks")).toEqual({ table: "marks" });
    for (const bad of ["", ":a", "marks:%zz", "marks?a", "marks?=a", "ma rks"])
      expect(parseKey(bad)).toBeNull();
  });

  test("of a record are its own, its collections and its table", () => {
    const record = { id: "r", boardId: BOARD, mood: "busy", done: false, name: null };
    expect(keysOf("tasks", tasks, record)).toEqual([
      "tasks:r",
      "tasks?mood=busy",
      "tasks?done=false",
      `tasks?boardId=${BOARD}`,
      "tasks",
    ]);
    expect(keysOf("tasks", { ...tasks, wholeTable: false }, { id: "r" })).toEqual(["tasks:r"]);
  });

  test.each<[Where, string[]]>([
    [{}, ["tasks"]],
    [{ count: 1 }, ["tasks"]],
    [{ boardId: BOARD, mood: { in: ["calm", "busy"] } }, [`tasks?boardId=${BOARD}`]],
    [{ boardId: BOARD.toUpperCase() }, [`tasks?boardId=${BOARD}`]],
    [{ name: { in: ["b", "a", "b"] } }, ["tasks?name=a", "tasks?name=b"]],
    [{ name: { in: [] } }, []],
    [{ name: { eq: "x", in: ["y"] } }, ["tasks?name=x"]],
    [{ name: null }, ["tasks"]],
    [{ name: { in: ["a", null] } }, ["tasks"]],
    [{ name: { gt: "a" } }, ["tasks"]],
    [{ name: { in: Array.from({ length: 101 }, (_, n) => `${n}`) } }, ["tasks"]],
    [{ name: "a", id: { in: [BOARD] } }, [`tasks:${BOARD}`]],
    [{ done: true }, ["tasks?done=true"]],
  ])("that cover %j", (where, keys) => {
    expect(coveringKeys("tasks", tasks, where)).toEqual(keys);
  });

  test("where the whole table is no key, nothing covers what no other key does", () => {
    expect(coveringKeys("tasks", { ...tasks, wholeTable: false }, { count: 1 })).toEqual([]);
  });
});
