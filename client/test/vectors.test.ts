import { describe, expect, test } from "vitest";
import { InvalidQueryError } from "../src/errors.js";
import { compileOrder, compileWhere, type OrderBy, type Where } from "../src/filters.js";
import { equalJson, type Json, type JsonObject, type RecordData } from "../src/json.js";
import { blockedBy } from "../src/needs.js";
import {
  applyToRecord,
  checkTransaction,
  type OpContext,
  type RecordOperation,
} from "../src/operations.js";
import type { TableSchema } from "../src/schema.js";
import type { Transaction } from "../src/wire.gen.js";
import {
  ALICE,
  type Case,
  contextOf,
  ID,
  NOW,
  readBlocked,
  readCases,
  readSchema,
} from "./vectors.js";

const TABLE = "vectorItems";
const schema = readSchema();
const ctx: OpContext = contextOf(schema);
const items = schema.tables[TABLE] as TableSchema;

/** A record as the server would show it: written by a create, so that values have the form of the wire. */
function stored(fields: JsonObject, id = ID): RecordData {
  const { createdBy = ALICE, ...value } = fields;
  const open = {
    ...schema,
    tables: {
      [TABLE]: {
        ...items,
        keys: { ...items.keys, createdBy: { type: "uuid", nullable: false, required: false } },
      },
    },
  } as typeof schema;
  const made = applyToRecord(
    null,
    TABLE,
    id,
    [{ type: "create", table: TABLE, id, value: { title: "A title", createdBy, ...value, id } }],
    { ...ctx, schema: open, now: "2020-01-01T00:00:00.000000Z" },
  );
  if (!made.record) throw new Error(JSON.stringify(made.problem));
  return { ...made.record, version: 7 };
}

function freeze(value: Json): void {
  if (typeof value !== "object" || value === null) return;
  Object.freeze(value);
  Object.values(value).forEach(freeze);
}

function checkOperations({ record, operations, expect: expected }: Case): void {
  const before = record && stored(record);
  if (before) freeze(before);
  freeze(operations as unknown as Json);
  const tx = { txId: "00000000-0000-7000-8000-000000000001", operations };
  const problem =
    checkTransaction(tx, ctx) ?? applyToRecord(before, TABLE, ID, operations, ctx).problem;
  if (expected.status !== 200) {
    expect(problem).not.toBeNull();
    expect(problem?.status).toBe(expected.status);
    if (expected.code) expect(problem?.code).toBe(expected.code);
    if (expected.limit) expect(problem?.limit).toBe(expected.limit);
    if (expected.key) {
      expect(typeof problem?.key === "string" ? problem.key : problem?.key?.join(".")).toBe(
        expected.key,
      );
    }
    return;
  }
  expect(problem ?? null).toBeNull();
  const after = applyToRecord(before, TABLE, ID, operations, ctx).record ?? null;
  for (const [key, value] of Object.entries(expected.record ?? {})) {
    // A record that is not there yet is shown with version 0.
    const wanted = key === "version" ? 0 : value;
    if (wanted !== "$any") expect({ [key]: after?.[key] }).toEqual({ [key]: wanted });
  }
  if (expected.versionDelta === 0) expect(after).toBe(before);
  if (expected.versionDelta === 1) {
    expect(equalJson(after, before)).toBe(false);
    expect(after?.updatedAt).toBe(NOW);
  }
}

function checkQuery({ records, query, pages, expect: expected }: Case): void {
  const { where, orderBy, limit, after: _, ...rest } = query;
  expect(Object.keys(rest)).toEqual(["table"]);
  const rows = records.map((record) => stored(record, record.id as string));
  const find = () =>
    rows
      .filter(compileWhere(items, where as Where | undefined))
      .sort(compileOrder(items, orderBy as unknown as OrderBy | undefined))
      .map((record) => record.id as string);
  if (expected.status !== 200) {
    expect(find).toThrow(InvalidQueryError);
    return;
  }
  const size = typeof limit === "number" ? limit : 200;
  const found = find();
  for (const [n, page] of (pages ?? [expected.ids ?? []]).entries()) {
    expect(found.slice(n * size, (n + 1) * size)).toEqual(page);
  }
}

const files = readCases();

test("every file of vectors has been read", () => {
  expect([...files.keys()]).toEqual([
    "conflicts",
    "create",
    "delete_restore",
    "envelope",
    "filters",
    "forbidden",
    "increment",
    "limits",
    "lists",
    "paths",
    "set",
    "set_now",
    "values",
  ]);
  expect([...files.values()].flat().length).toBeGreaterThan(500);
});

for (const [file, cases] of files) {
  if (cases.length) {
    describe(file, () => {
      test.each(cases.map((one) => [one.name, one] as const))("%s", (_, one) => {
        if ("query" in one) checkQuery(one);
        else checkOperations(one);
      });
    });
  }
}

// Of a batch the server says what is blocked; of what waits behind it this client does.
test.each(readBlocked().map((one) => [one.name, one] as const))("%s", (_, one) => {
  const [refused, ...queued] = one.transactions as [Transaction, ...Transaction[]];
  const found = blockedBy(
    [refused],
    queued.map((tx) => ({ tx })),
    schema,
  );
  expect(found.map(([{ tx }]) => tx)).toEqual(queued.filter((_, n) => one.blocked[n + 1]));
});

// Cases for servers whose answer follows from the schema alone.
test.each([
  ["secret", 403, "forbidden_key"],
  ["doubled", 403, "forbidden_key"],
  ["legacy", 400, "wrong_type"],
])("%s cannot be written", (key, status, code) => {
  const op: RecordOperation = {
    type: "set",
    table: TABLE,
    id: ID,
    key,
    value: key === "doubled" ? "4" : "x",
  };
  expect(applyToRecord(stored({}), TABLE, ID, [op], ctx).problem).toMatchObject({
    status,
    code,
    key,
  });
});
