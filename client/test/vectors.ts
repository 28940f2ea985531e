// The shared vectors as this implementation reads them: ../../tests/vectors/README.md says what they mean.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isObject, type Json, type JsonObject } from "../src/json.js";
import type { OpContext, RecordOperation } from "../src/operations.js";
import type { KeySchema, KeyType, Schema, TableSchema } from "../src/schema.js";
import type { Transaction } from "../src/wire.gen.js";

const FOLDER = fileURLToPath(new URL("../../tests/vectors/", import.meta.url));

export const NOW = "2026-01-31T12:00:00.000000Z";
export const ALICE = "00000000-0000-7000-8000-00000000a11c";

const NAMES: { [name: string]: string } = {
  $id: "00000000-0000-7000-9000-0000000000f1",
  $other: "00000000-0000-7000-9000-0000000000f2",
  $mark: "a mark",
  $alice: ALICE,
  $bob: "00000000-0000-7000-8000-000000000b0b",
  $carol: "00000000-0000-7000-8000-00000000ca01",
  $now: NOW,
};
for (const [n, letter] of [..."abcdefghij"].entries()) {
  NAMES[`$${letter}`] = `00000000-0000-7000-9000-${(n + 1).toString(16).padStart(12, "0")}`;
}

export const ID = NAMES.$id as string;

export interface Case {
  file: string;
  name: string;
  record: JsonObject | null;
  records: JsonObject[];
  operations: RecordOperation[];
  query: JsonObject;
  pages?: string[][];
  expect: {
    status: number;
    code?: string;
    key?: string;
    limit?: string;
    record?: JsonObject | null;
    versionDelta?: number;
    ids?: string[];
  };
}

function expand(value: Json): Json {
  if (typeof value === "string")
    return Object.hasOwn(NAMES, value) ? (NAMES[value] as Json) : value;
  if (Array.isArray(value)) return value.map(expand);
  if (!isObject(value)) return value;
  if (typeof value.$text === "number") return "x".repeat(value.$text);
  if (typeof value.$list === "number") return Array.from({ length: value.$list }, (_, n) => n);
  if (typeof value.$deep === "number") {
    return JSON.parse("[".repeat(value.$deep) + "]".repeat(value.$deep));
  }
  const { $repeat, ...rest } = value;
  if (typeof $repeat === "number") {
    return Array.from({ length: $repeat }, () => expand(Object.values(rest)[0] as Json));
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item)]));
}

/** The cases that need no server, by file. */
export function readCases(): Map<string, Case[]> {
  const files = readdirSync(FOLDER).filter(
    (name) => name.endsWith(".json") && name !== "schema.json",
  );
  return new Map(
    files.sort().map((name) => {
      const all = JSON.parse(readFileSync(FOLDER + name, "utf8")) as JsonObject[];
      const file = name.replace(".json", "");
      const pure = all.filter((one) => one.pure === true);
      return [
        file,
        pure.map((one) => ({ file, ...(expand(one) as JsonObject) }) as unknown as Case),
      ];
    }),
  );
}

/** A request of which something was refused, and for each of its transactions whether it was as one that is blocked. */
export interface Blocked {
  name: string;
  transactions: Transaction[];
  blocked: boolean[];
}

/** Requests whose first transaction was to create what some of the others need. */
export function readBlocked(): Blocked[] {
  const all = JSON.parse(readFileSync(`${FOLDER}envelope.json`, "utf8")) as JsonObject[];
  return all.flatMap(({ name, steps }) =>
    ((steps ?? []) as { transactions?: Json[]; results?: { code?: string }[] }[]).flatMap(
      ({ transactions = [], results = [] }) => {
        const blocked = results.map(({ code }) => code === "blocked");
        if (!blocked.includes(true)) return [];
        const given = transactions.map((one, n) => ({ txId: `${n}`, ...(expand(one) as object) }));
        return [{ name: name as string, transactions: given as Transaction[], blocked }];
      },
    ),
  );
}

const KINDS: { [type: string]: Pick<KeySchema, "type" | "elementType"> } = {
  double: { type: "float" },
  jsonb: { type: "json" },
  "text[]": { type: "list", elementType: "text" },
  "uuid[]": { type: "list", elementType: "uuid" },
  "bigint[]": { type: "list", elementType: "bigint" },
  "numeric[]": { type: "list", elementType: "numeric" },
  "integer[]": { type: "list", elementType: "integer" },
};

function defaultOf(value: Json): KeySchema["default"] {
  if (value === "$user") return { user: true };
  if (value === "$now") return { now: true };
  return value === "$uuid" ? { uuid: true } : { constant: value };
}

/** `schema.json` in the form of `sync.describe()`. */
export function readSchema(): Schema {
  const told = JSON.parse(readFileSync(`${FOLDER}schema.json`, "utf8")) as {
    [table: string]: JsonObject & { columns: { [key: string]: JsonObject } };
  };
  const tables = Object.entries(told).map(([name, table]): [string, TableSchema] => {
    const keys = Object.entries(table.columns).map(([key, column]): [string, KeySchema] => {
      const server =
        (table.serverOwned as string[]).includes(key) || !(column.create || column.update);
      const given = key === "id" || key === "version" || !server;
      return [
        key,
        {
          ...(KINDS[column.type as string] ?? { type: column.type as KeyType }),
          nullable: column.nullable as boolean,
          required: given && !column.nullable && column.default === undefined && key !== "id",
          ...(given ? {} : { serverOwned: true as const }),
          ...(column.default === undefined ? {} : { default: defaultOf(column.default) }),
          ...(column.values ? { values: column.values as string[] } : {}),
          ...(column.maxLength ? { maxLength: column.maxLength as number } : {}),
          ...(column.create && !column.update ? { updatable: false as const } : {}),
          ...(column.read ? {} : { readable: false as const }),
          ...(column.references ? { references: column.references as string } : {}),
        } as KeySchema,
      ];
    });
    const { softDelete, touch, hardDelete } = table as unknown as TableSchema;
    const idType = table.columns.id?.type as TableSchema["idType"];
    return [
      name,
      { idType, softDelete, touch, hardDelete, wholeTable: true, keys: Object.fromEntries(keys) },
    ];
  });
  return { schema: 1, tables: Object.fromEntries(tables), functions: {} };
}

/** The context of alice's transactions. */
export function contextOf(schema: Schema): OpContext {
  return { schema, userId: ALICE, now: NOW, uuid: () => "00000000-0000-4000-8000-000000000000" };
}
