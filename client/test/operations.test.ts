import { describe, expect, test } from "vitest";
import { derivedIds } from "../src/ids.js";
import {
  guardHolds,
  type Inverse,
  invert,
  invertTransaction,
  planUndo,
  reguard,
} from "../src/inverses.js";
import type { Json, RecordData } from "../src/json.js";
import {
  applyToRecord,
  checkTransaction,
  type OpContext,
  type RecordOperation,
} from "../src/operations.js";
import type { KeySchema, KeyType, TableSchema } from "../src/schema.js";
import type { Transaction } from "../src/wire.gen.js";

const key = (type: KeyType, more: Partial<KeySchema> = {}): KeySchema => ({
  type,
  nullable: true,
  required: false,
  ...more,
});

const tasks: TableSchema = {
  idType: "uuid",
  softDelete: "deleted",
  touch: "updatedAt",
  hardDelete: false,
  wholeTable: true,
  keys: {
    id: key("uuid", { nullable: false }),
    title: key("text", { nullable: false, required: true }),
    status: key("text", {
      nullable: false,
      values: ["todo", "done"],
      default: { constant: "todo" },
    }),
    count: key("integer"),
    exact: key("numeric"),
    ratio: key("float"),
    dueAt: key("timestamptz"),
    day: key("date"),
    plain: key("timestamp"),
    tags: key("list", { elementType: "text", nullable: false }),
    data: key("json", { nullable: false, default: { constant: {} } }),
    token: key("uuid", { nullable: false, default: { uuid: true } }),
    secret: key("text", { readable: false, default: { constant: "hidden" } }),
    boardId: key("uuid", { references: "boards", updatable: false }),
    createdBy: key("uuid", { nullable: false, serverOwned: true, default: { user: true } }),
    createdAt: key("timestamptz", { nullable: false, serverOwned: true, default: { now: true } }),
    updatedAt: key("timestamptz", { nullable: false, default: { now: true } }),
    deleted: key("timestamptz"),
    version: key("integer", { nullable: false, default: { constant: 1 } }),
  },
};

const marks: TableSchema = {
  idType: "text",
  softDelete: null,
  touch: null,
  hardDelete: true,
  wholeTable: true,
  keys: {
    id: key("text", { nullable: false }),
    name: key("text"),
    role: key("text", { nullable: false, default: { constant: "member" } }),
    createdBy: key("uuid", { nullable: false, serverOwned: true, default: { user: true } }),
    version: key("integer", { nullable: false, default: { constant: 1 } }),
  },
};

const NOW = "2026-01-31T12:00:00.000000Z";
const LATER = "2026-01-31T12:00:05.000000Z";
const ME = "00000000-0000-7000-8000-00000000a11c";
const ID = "00000000-0000-7000-9000-0000000000f1";
const TX = "0197a3c4-5b1e-7c3d-8e2f-1a2b3c4d5e6f";

const ctx: OpContext = {
  schema: {
    schema: 1,
    tables: { tasks, marks },
    functions: {
      restock: {
        title: { type: "text", required: true },
        quantity: { type: "integer", required: false },
      },
    },
  },
  userId: ME,
  now: NOW,
  uuid: () => "11111111-1111-4111-8111-111111111111",
};

const on = { table: "tasks", id: ID };
const set = (key: string | string[], value?: Json): RecordOperation =>
  value === undefined ? { type: "set", ...on, key } : { type: "set", ...on, key, value };

function task(fields: RecordData = {}): RecordData {
  const { record } = applyToRecord(
    null,
    "tasks",
    ID,
    [{ type: "create", ...on, value: { title: "A" } }],
    ctx,
  );
  return {
    ...(record as RecordData),
    ...fields,
    version: 4,
    updatedAt: "2020-01-01T00:00:00.000000Z",
  };
}

function apply(record: RecordData | null, ...ops: RecordOperation[]): RecordData | null {
  const { table, id } = ops[0] as RecordOperation;
  const applied = applyToRecord(record, table, id, ops, ctx);
  if (applied.problem) throw new Error(JSON.stringify(applied.problem));
  return applied.record;
}

function refused(record: RecordData | null, ...ops: RecordOperation[]) {
  return applyToRecord(record, "tasks", ID, ops, ctx).problem;
}

/** The record after a transaction, and what undoes it. */
function write(before: RecordData | null, ...ops: RecordOperation[]) {
  const inverses = invertTransaction(ops, () => before, ctx);
  return { after: apply(before, ...ops), inverses };
}

function undo(inverses: Inverse[], record: RecordData | null) {
  const { operations, skipped } = planUndo(inverses, () => record, ctx);
  return { operations, skipped, record: operations.length ? apply(record, ...operations) : record };
}

describe("creating", () => {
  test("shows what the server will give, as far as it can be known", () => {
    expect(apply(null, { type: "create", ...on, value: { title: "New" } })).toEqual({
      id: ID,
      title: "New",
      status: "todo",
      count: null,
      exact: null,
      ratio: null,
      dueAt: null,
      day: null,
      plain: null,
      tags: [],
      data: {},
      token: ctx.uuid(""),
      boardId: null,
      createdBy: ME,
      createdAt: NOW,
      updatedAt: NOW,
      deleted: null,
      version: 0,
    });
  });

  test("takes null for an id for what it is", () => {
    expect(refused(null, { type: "create", ...on, value: { title: "A", id: null } })).toMatchObject(
      {
        status: 400,
        code: "bad_request",
        key: ["id"],
      },
    );
  });

  test("a whole number as id is one in the record", () => {
    const counters: TableSchema = {
      ...marks,
      idType: "bigint",
      keys: { ...marks.keys, id: key("integer", { nullable: false }) },
    };
    const open = { ...ctx, schema: { ...ctx.schema, tables: { counters } } };
    const op: RecordOperation = { type: "create", table: "counters", id: "77", value: {} };
    expect(applyToRecord(null, "counters", "77", [op], open).record).toMatchObject({ id: 77 });
  });
});

describe("applying", () => {
  test("time has the form of its type", () => {
    const now = (key: string): RecordOperation => ({ type: "set-now", ...on, key });
    expect(apply(task(), now("dueAt"), now("day"), now("plain"), now("data.at"))).toMatchObject({
      dueAt: NOW,
      day: "2026-01-31",
      plain: "2026-01-31T12:00:00.000000",
      data: { at: NOW },
    });
  });

  test("a value that a CHECK does not list is refused, unless it is replaced again", () => {
    expect(refused(task(), set("status", "open"))).toMatchObject({
      status: 400,
      code: "check_failed",
      key: "status",
    });
    expect(refused(task(), set("status", "open"), set("status", "done"))).toBeUndefined();
  });

  test("a key that only a create gives is refused afterwards", () => {
    expect(refused(task(), set("boardId", ID))).toMatchObject({
      status: 403,
      code: "forbidden_key",
    });
    expect(
      apply(null, { type: "create", ...on, value: { title: "A", boardId: ID } }),
    ).toMatchObject({ boardId: ID });
  });

  test("the refusal names the operation and its key", () => {
    const record = task({ data: { a: 1 } });
    expect(refused(record, set("title", "B"), set(["data", "a", "b"], 1))).toEqual({
      status: 400,
      code: "bad_path",
      detail: "The path has an empty or reserved part, or leads nowhere",
      table: "tasks",
      id: ID,
      key: ["data", "a", "b"],
      op: 1,
    });
  });

  test("a hidden record and a missing one are the same", () => {
    expect(refused(null, set("title", "B"))).toMatchObject({ status: 403, code: "forbidden" });
  });
});

describe("undoing", () => {
  test("what a write had to make on its way goes with it", () => {
    const { after, inverses } = write(task(), set("data.a.b.c", 1));
    expect(after).toMatchObject({ data: { a: { b: { c: 1 } } } });
    expect(undo(inverses, after).record).toMatchObject({ data: {} });
  });

  test("others' members beside it stay, and so does what they need", () => {
    const { after, inverses } = write(task(), set("data.a.b", 1));
    const changed = { ...(after as RecordData), data: { a: { b: 1, theirs: 2 }, more: 3 } };
    const { record, skipped } = undo(inverses, changed);
    expect(record).toMatchObject({ data: { a: { theirs: 2 }, more: 3 } });
    expect(skipped).toEqual([]);
  });

  test("what somebody else has put in its place stays, and is told", () => {
    const { after, inverses } = write(task(), set("title", "Mine"), set("count", 1));
    const { record, skipped } = undo(inverses, { ...(after as RecordData), title: "Theirs" });
    expect(record).toMatchObject({ title: "Theirs", count: null });
    expect(skipped.map(({ guard }) => guard.path)).toEqual([["title"]]);
  });

  test("sums are undone by what was added, whatever others have added", () => {
    const { after, inverses } = write(task({ count: 1 }), {
      type: "increment",
      ...on,
      key: "count",
      by: 5,
    });
    expect(undo(inverses, { ...(after as RecordData), count: 106 }).record).toMatchObject({
      count: 101,
    });
    expect(undo(inverses, { ...(after as RecordData), count: null }).skipped).toHaveLength(1);
  });

  test("sums of fractions go back to the very same number", () => {
    const { after, inverses } = write(
      task({ ratio: 0.1, exact: "0.1" }),
      { type: "increment", ...on, key: "ratio", by: 0.2 },
      { type: "increment", ...on, key: "exact", by: "0.20" },
    );
    expect(after).toMatchObject({ ratio: 0.30000000000000004, exact: "0.30" });
    expect(undo(inverses, after).record).toMatchObject({ ratio: 0.1, exact: "0.1" });
    const changed = { ...(after as RecordData), ratio: 1.3, exact: "1.30" };
    expect(undo(inverses, changed).record).toMatchObject({ ratio: 1.1, exact: "1.10" });
  });

  test("a sum on nothing becomes nothing again, and a smaller sum where others have added", () => {
    const { after, inverses } = write(task(), { type: "increment", ...on, key: "data.n", by: 2 });
    expect(undo(inverses, after).record).toMatchObject({ data: {} });
    expect(undo(inverses, { ...(after as RecordData), data: { n: 7 } }).record).toMatchObject({
      data: { n: 5 },
    });
  });

  const insert = (value: Json, position?: "prepend" | { after: Json }): RecordOperation => ({
    type: "listInsert",
    ...on,
    key: "tags",
    value,
    ...(position ? { position } : {}),
  });

  test("an inserted value leaves the list as others have made it", () => {
    const { after, inverses } = write(task({ tags: ["a", "b"] }), insert("x", { after: "a" }));
    const { record } = undo(inverses, { ...(after as RecordData), tags: ["z", "b", "x", "a"] });
    expect(record).toMatchObject({ tags: ["z", "b", "a"] });
  });

  test("a removed value comes back behind the one it stood behind", () => {
    const { after, inverses } = write(task({ tags: ["a", "b", "c"] }), {
      type: "listRemove",
      ...on,
      key: "tags",
      value: "b",
    });
    expect(undo(inverses, after).record).toMatchObject({ tags: ["a", "b", "c"] });
    expect(
      undo(inverses, { ...(after as RecordData), tags: ["c", "z", "a"] }).record,
    ).toMatchObject({ tags: ["c", "z", "a", "b"] });
    expect(
      undo(inverses, { ...(after as RecordData), tags: ["b", "a", "c"] }).skipped,
    ).toHaveLength(1);
  });

  test("a moved value goes back to where it was", () => {
    const { after, inverses } = write(task({ tags: ["a", "b", "c"] }), insert("c", "prepend"));
    expect(after).toMatchObject({ tags: ["c", "a", "b"] });
    expect(undo(inverses, after).record).toMatchObject({ tags: ["a", "b", "c"] });
    expect(undo(inverses, { ...(after as RecordData), tags: ["a", "b"] }).skipped).toHaveLength(1);
  });

  test("a list that held the value twice is put back whole, if nobody has changed it", () => {
    const { after, inverses } = write(task({ tags: ["a", "b", "a"] }), {
      type: "listRemove",
      ...on,
      key: "tags",
      value: "a",
    });
    expect(undo(inverses, after).record).toMatchObject({ tags: ["a", "b", "a"] });
    expect(undo(inverses, { ...(after as RecordData), tags: ["b", "z"] }).skipped).toHaveLength(1);
  });

  test("an element removed by its index comes back", () => {
    const { after, inverses } = write(task({ data: { list: [1, 2, 3] } }), set("data.list.1"));
    expect(after).toMatchObject({ data: { list: [1, 3] } });
    const changed = { ...(after as RecordData), data: { list: [0, 1, 3] } };
    expect(undo(inverses, changed).record).toMatchObject({ data: { list: [0, 1, 2, 3] } });
  });

  test("a time of the transaction is recognised when the server has given its own", () => {
    const { after, inverses } = write(
      task({ day: "2020-01-01" }),
      { type: "set-now", ...on, key: "dueAt" },
      { type: "set-now", ...on, key: "day" },
    );
    const settled = { ...(after as RecordData), dueAt: LATER, day: "2026-02-01" };
    expect(undo(inverses, settled).record).toMatchObject({ dueAt: null, day: "2020-01-01" });
    const [day] = inverses.map((inverse) => reguard(inverse, settled));
    expect(guardHolds((day as Inverse).guard, settled)).toBe(true);
    expect(guardHolds((day as Inverse).guard, { ...settled, day: "2026-02-02" })).toBe(false);
  });

  test("a deleted record comes back, and at redo is deleted when it was", () => {
    const { after, inverses } = write(task(), { type: "delete", ...on });
    const settled = { ...(after as RecordData), deleted: LATER };
    const { operations, record } = undo(inverses, settled);
    expect(operations).toEqual([{ type: "restore", ...on }]);
    expect(record).toMatchObject({ deleted: null });
    expect(
      undo(
        invertTransaction(operations, () => settled, ctx),
        record,
      ).record,
    ).toMatchObject({ deleted: LATER });
  });

  test("a created record is deleted, unless somebody else has changed what was given or deleted it", () => {
    const { after, inverses } = write(null, {
      type: "create",
      ...on,
      value: { title: "New", tags: ["a"] },
    });
    const settled = {
      ...(after as RecordData),
      version: 1,
      createdAt: LATER,
      updatedAt: LATER,
      token: TX,
    };
    expect(undo(inverses, settled).operations).toEqual([{ type: "delete", ...on }]);
    expect(undo(inverses, { ...settled, count: 5 }).operations).toHaveLength(1);
    expect(undo(inverses, { ...settled, title: "Theirs" }).skipped).toHaveLength(1);
    expect(undo(inverses, { ...settled, deleted: LATER }).skipped).toHaveLength(1);
    expect(undo(inverses, null).skipped).toHaveLength(1);
  });

  test("a create by sets is undone as one", () => {
    const { inverses } = write(null, set("title", "New"), set("id", ID), set("data.a", 1));
    expect(inverses.map(({ operations }) => operations)).toEqual([[{ type: "delete", ...on }]]);
  });

  test("where records cannot be deleted a create has nothing that undoes it", () => {
    const fixed = {
      ...ctx,
      schema: { ...ctx.schema, tables: { tasks: { ...tasks, softDelete: null } } },
    };
    const op: RecordOperation = { type: "create", ...on, value: { title: "New" } };
    expect(invertTransaction([op], () => null, fixed)).toEqual([]);
  });

  test("the touch key and calls are not undone", () => {
    expect(
      invertTransaction(
        [
          { type: "set-now", ...on, key: "updatedAt" },
          { type: "call", fn: "restock" },
        ],
        () => task(),
        ctx,
      ),
    ).toEqual([]);
  });

  const at = { table: "marks", id: "a mark" };
  const mark: RecordData = {
    id: "a mark",
    name: "x",
    role: "member",
    createdBy: ME,
    version: 3,
  };

  test("a record deleted for good is made anew, if it was one's own", () => {
    const [inverse] = invertTransaction([{ type: "delete", ...at }], () => mark, ctx) as [Inverse];
    expect(inverse.operations).toEqual([
      { type: "create", ...at, value: { id: "a mark", name: "x" } },
    ]);
    expect(guardHolds(inverse.guard, null)).toBe(true);
    expect(guardHolds(inverse.guard, mark)).toBe(false);
    expect(invert({ ...mark, createdBy: ID }, { type: "delete", ...at }, null, ctx)).toBeNull();
  });

  test("every record of a transaction shows an id of its own, at each replay the same", () => {
    const replay = () => {
      const uuid = derivedIds(TX);
      return [ID, TX].map((id) => {
        const op = { type: "create" as const, table: "tasks", id, value: { title: "x" } };
        const { record } = applyToRecord(null, "tasks", id, [op], { ...ctx, uuid });
        return record?.token;
      });
    };
    const [one, other] = replay();
    expect(one).toBeTruthy();
    expect(one).not.toBe(other);
    expect(replay()).toEqual([one, other]);
  });

  test("what a default gives anyway is not named: not everybody may name it", () => {
    const back = (role: string) =>
      invertTransaction([{ type: "delete", ...at }], () => ({ ...mark, role }), ctx)[0]?.operations;
    expect(back("member")).toEqual([{ type: "create", ...at, value: { id: "a mark", name: "x" } }]);
    expect(back("owner")).toMatchObject([{ value: { name: "x", role: "owner" } }]);
  });

  test("records are undone in the order opposite to that of their operations", () => {
    const records: { [id: string]: RecordData } = { [ID]: task(), [TX]: { ...task(), id: TX } };
    const other = { table: "tasks", id: TX };
    const inverses = invertTransaction(
      [set("title", "1"), { type: "set", ...other, key: "title", value: "2" }, set("title", "3")],
      (_, id) => records[id],
      ctx,
    );
    expect(
      inverses.map(({ operations: [op] }) => [op?.id, (op as { value?: Json }).value]),
    ).toEqual([
      [ID, "1"],
      [TX, "A"],
      [ID, "A"],
    ]);
  });
});

describe("checking a transaction", () => {
  const check = (operations: unknown, more: object = {}) =>
    checkTransaction({ txId: TX, operations, ...more } as Transaction, ctx);

  test.each([
    ["no operations", [], { status: 400, code: "bad_request" }],
    ["operations that are no list", {}, { status: 400, code: "bad_request" }],
    ["half a surrogate pair", [set("title", "\ud83d")], { status: 400, code: "bad_value" }],
    ["NUL in a name inside json", [set("data", { "a\0": 1 })], { status: 400, code: "bad_value" }],
    ["a number that is not finite", [set("data", Number.NaN)], { status: 400, code: "bad_value" }],
    [
      "an unknown table",
      [{ ...set("title", "x"), table: "toString" }],
      { status: 400, code: "unknown_table", op: 0 },
    ],
    ["an id in capitals", [{ ...set("title", "x"), id: ID.toUpperCase() }], { status: 400, op: 0 }],
    [
      "an unknown key after a good one",
      [set("title", "x"), set("titel", "x")],
      { code: "unknown_key", op: 1, key: "titel" },
    ],
    [
      "a key of the server's",
      [set("title", "x"), set("createdBy", ME)],
      { status: 403, code: "forbidden_key", op: 1 },
    ],
    [
      "a wrong type after a key of the server's",
      [set("createdBy", ME), set("count", "x")],
      { status: 400, code: "wrong_type", op: 1 },
    ],
    [
      "too many operations",
      Array(501).fill(set("title", "x")),
      { status: 422, limit: "max_operations" },
    ],
    [
      "an unknown function",
      [{ type: "call", fn: "toString" }],
      { code: "unknown_function", op: 0 },
    ],
    [
      "an unknown argument",
      [{ type: "call", fn: "restock", args: { title: "x", n: 1 } }],
      { code: "unknown_argument" },
    ],
    ["a missing argument", [{ type: "call", fn: "restock" }], { code: "required", key: "title" }],
    [
      "an argument of the wrong type",
      [{ type: "call", fn: "restock", args: { title: 5 } }],
      { code: "wrong_type", key: "title" },
    ],
  ])("%s", (_, operations, problem) => {
    expect(check(operations)).toMatchObject(problem);
  });

  test.each([
    [[{ table: "tasks", id: ID, version: -1 }]],
    [[{ table: "tasks", id: ID, version: 1.5 }]],
    [[{ table: "tasks", id: TX, version: 1 }]],
    [[{ table: "tasks", id: ID, version: 1, x: 1 }]],
    [{}],
    [null],
  ])("expect %j is refused", (expected) => {
    expect(check([set("title", "x")], { expect: expected })).toMatchObject({
      status: 400,
      code: "bad_request",
    });
  });

  test("what may be sent is let through", () => {
    const value = { title: "x", count: undefined, dueAt: new Date(0), createdBy: ME };
    const operations = [
      { type: "create", ...on, value },
      { type: "call", fn: "restock", args: { title: "x", quantity: 3 } },
      { type: "increment", ...on, key: "count", by: 1 },
    ];
    const expected = [{ table: "tasks", id: ID, version: 0 }];
    expect(check(operations, { expect: expected, anything: 1 })).toBeNull();
  });

  test("what the server would never take for its size is refused", () => {
    const tx = { txId: TX, operations: [set("title", "x".repeat(1000))] };
    const limits = (max_transaction_bytes: number) => ({
      ...ctx,
      limits: { max_transaction_bytes },
    });
    expect(checkTransaction(tx, limits(1000))).toBeNull();
    expect(checkTransaction(tx, limits(500))).toMatchObject({
      status: 413,
      code: "too_large",
      limit: "max_transaction_bytes",
    });
  });
});
