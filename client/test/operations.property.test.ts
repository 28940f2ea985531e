import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { invertTransaction, planUndo } from "../src/inverses.js";
import { equalJson, type Json, type RecordData } from "../src/json.js";
import { applyToRecord, type OpContext, type RecordOperation } from "../src/operations.js";
import { type KeySchema, keyOf, type TableSchema } from "../src/schema.js";
import { contextOf, ID, readSchema } from "./vectors.js";

const RUNS = { numRuns: Number(process.env.ROWCAST_RANDOM_OPERATIONS ?? 500) };
// More runs, and a machine that does other things, take longer than the usual five seconds.
vi.setConfig({ testTimeout: 600_000 });
const schema = readSchema();
const ctx: OpContext = contextOf(schema);

const PARTS = ["a", "b", "0", "1", "toString", "a.b"];
const { json } = fc.letrec<{ json: Json }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.constantFrom<Json>(null, true, false, 0, 1, 2, 0.1, 0.2, "a", "b", ""),
    fc.array(tie("json"), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...PARTS), tie("json"), { maxKeys: 3 }),
  ),
}));

const ELEMENTS: { [type: string]: Json[] } = {
  integer: [1, 2, 3],
  bigint: ["1", 2, "3"],
  numeric: ["1.5", 2, "3"],
  uuid: ["a", "b", "C"].map((end) => `018f0000-0000-7000-8000-00000000000${end}`),
};

const elementsOf = (key: KeySchema) =>
  fc.constantFrom<Json>(...(ELEMENTS[key.elementType ?? ""] ?? ["a", "b", "c"]));

/** Values that a key takes. */
function valuesOf(key: KeySchema): fc.Arbitrary<Json> {
  const some = {
    text: fc.constantFrom("", "a", "b", "A"),
    enum: fc.constantFrom(...(key.values ?? ["none"])),
    uuid: fc.constantFrom(
      "018f0000-0000-7000-8000-0000000000ff",
      "018F0000-0000-7000-8000-0000000000FE",
    ),
    boolean: fc.boolean(),
    integer: fc.constantFrom(0, 1, -1, 5, 2147483647, -2147483648),
    bigint: fc.constantFrom<Json>("0", "7", "-1", "007", 5, "9223372036854775807"),
    numeric: fc.constantFrom<Json>("0", "1.50", "-0.5", "0.1", 0.25),
    float: fc.constantFrom(0, 0.1, 0.2, -3, 1e300),
    timestamptz: fc.constantFrom("2024-02-29T12:00:00Z", "2024-03-01T00:30:00+02:00"),
    timestamp: fc.constantFrom("2024-02-29T12:00:00"),
    date: fc.constantFrom("2024-02-29", "2023-12-31"),
    bytea: fc.constantFrom("", "AAE=", "AAEC"),
    json: key.nullable ? json : json.map((value) => value ?? {}),
    list: fc.array(elementsOf(key), { maxLength: 4 }),
    other: fc.constant(null),
  }[key.type] as fc.Arbitrary<Json>;
  return key.nullable ? fc.option(some, { freq: 6, nil: null }) : some;
}

/** Operations on a record that is there; some are refused, by what the record holds. */
function operationOn(name: string, table: TableSchema): fc.Arbitrary<RecordOperation> {
  const at = { table: name, id: ID };
  const arbitraries = Object.entries(table.keys).flatMap(
    ([name, key]): fc.Arbitrary<RecordOperation>[] => {
      if (
        ["id", "version"].includes(name) ||
        key.serverOwned ||
        key.updatable === false ||
        key.type === "other"
      )
        return [];
      const set = valuesOf(key).map(
        (value): RecordOperation => ({ type: "set", ...at, key: name, value }),
      );
      const lists = (
        key: string | string[],
        value: fc.Arbitrary<Json>,
      ): fc.Arbitrary<RecordOperation>[] => [
        value.map((value): RecordOperation => ({ type: "listRemove", ...at, key, value })),
        fc
          .tuple(
            value,
            fc.oneof(
              fc.constantFrom("prepend" as const, "append" as const),
              value.map((before) => ({ before })),
              value.map((after) => ({ after })),
            ),
          )
          .map(
            ([value, position]): RecordOperation => ({
              type: "listInsert",
              ...at,
              key,
              value,
              position,
            }),
          ),
      ];
      switch (key.type) {
        case "json": {
          const path = fc
            .array(fc.constantFrom(...PARTS), { maxLength: 3 })
            .map((parts) => [name, ...parts]);
          return [
            fc
              .tuple(path, fc.option(json, { nil: undefined }))
              .map(
                ([key, value]): RecordOperation =>
                  key.length === 1
                    ? { type: "set", ...at, key, value: value ?? {} }
                    : { type: "set", ...at, key, ...(value === undefined ? {} : { value }) },
              ),
            path.map((key): RecordOperation => ({ type: "set-now", ...at, key })),
            fc
              .tuple(path, fc.constantFrom(1, -1, 0.1))
              .map(([key, by]): RecordOperation => ({ type: "increment", ...at, key, by })),
            ...[0, 1].map(() => path.chain((path) => fc.oneof(...lists(path, json)))),
          ];
        }
        case "list":
          return [set, ...lists(name, elementsOf(key))];
        case "integer":
        case "float":
          return [
            set,
            fc
              .constantFrom(1, -1, 7)
              .map((by): RecordOperation => ({ type: "increment", ...at, key: name, by })),
          ];
        case "bigint":
        case "numeric":
          return [
            set,
            fc
              .constantFrom("1", "-7", 3)
              .map((by): RecordOperation => ({ type: "increment", ...at, key: name, by })),
          ];
        case "timestamptz":
        case "date":
          return [set, fc.constant<RecordOperation>({ type: "set-now", ...at, key: name })];
        default:
          return [set];
      }
    },
  );
  const last = fc.constantFrom<RecordOperation>(
    ...(table.softDelete
      ? [
          { type: "delete" as const, ...at },
          { type: "restore" as const, ...at },
        ]
      : []),
    ...(table.hardDelete ? [{ type: "delete" as const, ...at }] : []),
  );
  return fc.oneof(...arbitraries, last);
}

/** A record as a create makes it. */
function recordOf(name: string, table: TableSchema): fc.Arbitrary<RecordData> {
  const keys = Object.entries(table.keys).filter(
    ([name, key]) => !["id", "version"].includes(name) && !key.serverOwned && key.type !== "other",
  );
  const values = fc.record(Object.fromEntries(keys.map(([name, key]) => [name, valuesOf(key)])), {
    requiredKeys: keys.filter(([, key]) => key.required).map(([name]) => name),
  });
  return values.map((value) => {
    const operation: RecordOperation = {
      type: "create",
      table: name,
      id: ID,
      value: value as RecordData,
    };
    const { record } = applyToRecord(null, name, ID, [operation], {
      ...ctx,
      now: "2020-01-01T00:00:00.000000Z",
    });
    if (!record) throw new Error(`The create of ${JSON.stringify(value)} was refused`);
    return freeze({ ...record, version: 3 });
  });
}

function freeze<T extends Json>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.freeze(value);
    Object.values(value).forEach(freeze);
  }
  return value;
}

interface Story {
  name: string;
  table: TableSchema;
  start: RecordData;
  transactions: RecordOperation[][];
}

const story: fc.Arbitrary<Story> = fc
  .constantFrom("vectorItems", "vectorItems", "vectorItems", "vectorMarks")
  .chain((name) => {
    const table = schema.tables[name] as TableSchema;
    return fc.record({
      name: fc.constant(name),
      table: fc.constant(table),
      start: recordOf(name, table),
      transactions: fc.array(
        fc
          .array(operationOn(name, table), { minLength: 1, maxLength: 5 })
          .map((ops) => freeze(ops as unknown as Json) as unknown as RecordOperation[]),
        { minLength: 1, maxLength: 4 },
      ),
    });
  });

/** The same but for the version, the touch key and what the server gives. */
function same(table: TableSchema, a: RecordData | null, b: RecordData | null): boolean {
  if (!a || !b) return a === b;
  return Object.entries(table.keys).every(
    ([name, key]) =>
      name === "version" || name === table.touch || key.serverOwned || equalJson(a[name], b[name]),
  );
}

/** Does the transactions that are not refused; gives the record after them and what undoes them. */
function play({ name, start, transactions }: Story) {
  let record: RecordData | null = start;
  const inverses = transactions.flatMap((ops) => {
    const applied = applyToRecord(record, name, ID, ops, ctx);
    if (applied.problem) return [];
    const before = record;
    const inverse = invertTransaction(ops, () => before, ctx);
    record = applied.record && freeze(applied.record);
    return [inverse];
  });
  return { record: record as RecordData | null, inverses: inverses.reverse().flat() };
}

test("applying never changes its input, and shares what stayed as it was", () => {
  fc.assert(
    fc.property(story, ({ name, start, transactions }) => {
      const copy = structuredClone(start);
      for (const ops of transactions) {
        const { record } = applyToRecord(start, name, ID, ops, ctx);
        expect(start).toEqual(copy);
        if (!record) continue;
        const changed = Object.keys(record).filter((key) => record[key] !== start[key]);
        if (record === start) continue;
        expect(changed).not.toEqual([]);
        for (const key of changed)
          expect(equalJson(record[key], start[key]) && key !== "updatedAt").toBe(false);
      }
    }),
    RUNS,
  );
});

test("undo returns exactly to the start", () => {
  fc.assert(
    fc.property(story, (told) => {
      const { record, inverses } = play(told);
      const { operations, skipped } = planUndo(inverses, () => record, ctx);
      // A record made anew within what is undone cannot be deleted and made at once.
      fc.pre(!told.transactions.flat().some(({ type }) => type === "create"));
      expect(skipped).toEqual([]);
      const undone = operations.length
        ? applyToRecord(record, told.name, ID, operations, ctx)
        : { record };
      expect(undone.problem).toBeUndefined();
      expect(same(told.table, undone.record ?? null, told.start)).toBe(true);
    }),
    RUNS,
  );
});

test("redo after undo is identity, and so is undo after redo", () => {
  fc.assert(
    fc.property(story, (told) => {
      const { record, inverses } = play(told);
      let present = record;
      let next = inverses;
      for (const goal of [told.start, record, told.start]) {
        const { operations, skipped } = planUndo(next, () => present, ctx);
        expect(skipped).toEqual([]);
        if (!operations.length) return;
        next = invertTransaction(operations, () => present, ctx);
        const applied = applyToRecord(present, told.name, ID, operations, ctx);
        expect(applied.problem).toBeUndefined();
        present = applied.record ?? null;
        expect(same(told.table, present, goal)).toBe(true);
      }
    }),
    RUNS,
  );
});

test("what somebody else has changed since stays, what nobody has goes back", () => {
  fc.assert(
    fc.property(story, fc.infiniteStream(fc.nat()), (told, numbers) => {
      const { record, inverses } = play(told);
      if (!record) return;
      const keys = Object.keys(told.table.keys).filter((key) => {
        const { type, values, serverOwned, updatable } = keyOf(told.table, key) as KeySchema;
        return type === "text" && !values && !serverOwned && updatable !== false;
      });
      const theirs = keys[(numbers.next().value as number) % keys.length] as string;
      const changed = { ...record, [theirs]: "by somebody else" };
      const { operations, skipped } = planUndo(inverses, () => changed, ctx);
      const after = operations.length
        ? applyToRecord(changed, told.name, ID, operations, ctx).record
        : changed;
      expect(after?.[theirs]).toBe("by somebody else");
      expect(
        same(
          told.table,
          { ...(after as RecordData), [theirs]: told.start[theirs] as Json },
          told.start,
        ),
      ).toBe(true);
      expect(skipped.every(({ guard }) => guard.path[0] === theirs)).toBe(true);
      if (!equalJson(record[theirs], told.start[theirs])) expect(skipped).not.toEqual([]);
    }),
    RUNS,
  );
});

test("undoing what one inserted into lists and added to numbers leaves what others did to them", () => {
  const item = fc.constantFrom("a", "b", "c", "d", "e");
  const mine = fc.oneof(
    item.map(
      (value): RecordOperation => ({
        type: "listInsert",
        table: "vectorItems",
        id: ID,
        key: "names",
        value,
      }),
    ),
    fc.integer({ min: -5, max: 5 }).map(
      (by): RecordOperation => ({
        type: "increment",
        table: "vectorItems",
        id: ID,
        key: "score",
        by,
      }),
    ),
  );
  const table = schema.tables.vectorItems as TableSchema;
  fc.assert(
    fc.property(
      recordOf("vectorItems", table),
      fc.array(mine, { maxLength: 6 }),
      fc.array(fc.constantFrom("x", "y")),
      (made, ops, theirs) => {
        const start = { ...made, names: ["b", "d"], score: 10 };
        const { record, inverses } = play({
          name: "vectorItems",
          table,
          start,
          transactions: [ops],
        });
        const changed = {
          ...(record as RecordData),
          names: [...theirs, ...((record?.names ?? []) as string[])],
          score: (record?.score as number) + 100,
        };
        const { operations, skipped } = planUndo(inverses, () => changed, ctx);
        expect(skipped).toEqual([]);
        const after = operations.length
          ? applyToRecord(changed, "vectorItems", ID, operations, ctx).record
          : changed;
        expect(after?.score).toBe(110);
        const names = after?.names as string[];
        expect(names.filter((name) => name !== "x" && name !== "y")).toEqual(["b", "d"]);
        expect(names.length).toBe(theirs.length + 2);
      },
    ),
    RUNS,
  );
});
