/** What compiles where no table is registered: everything that has the form of the wire. */
import type {
  AnyRecord,
  Include,
  KeyPath,
  Operation,
  OrderBy,
  RecordOf,
  TableName,
  ValueAt,
  Where,
} from "rowcast";
import { expectTypeOf, test } from "vitest";

interface Metadata {
  color: string;
}

test("any table, key and value may be named", () => {
  const metadata: Metadata = { color: "red" };
  const operations: Operation[] = [
    { type: "set", table: "anything", id: "x", key: "a.b", value: metadata },
    { type: "set", table: "anything", id: "x", key: ["a", "b"] },
    { type: "create", table: "anything", id: "x", value: { metadata } },
    { type: "increment", table: "anything", id: "x", key: "n", by: 1 },
    { type: "call", fn: "anything", args: { metadata } },
  ];
  expectTypeOf(operations).toBeArray();
  expectTypeOf<TableName>().toEqualTypeOf<string>();
  expectTypeOf<RecordOf<"anything">>().toEqualTypeOf<AnyRecord>();
  expectTypeOf<ValueAt<"anything", "a.b">>().toBeAny();
  expectTypeOf<KeyPath<"anything">>().extract<string>().toEqualTypeOf<string>();
  expectTypeOf<Include<"anything">>().toEqualTypeOf<string>();
  const where: Where<"anything"> = { a: { in: [1, "x"] }, b: null };
  const orderBy: OrderBy<"anything"> = [{ key: "a", dir: "desc" }];
  expectTypeOf([where, orderBy]).toBeArray();
});

test("the form of an operation is checked all the same", () => {
  const operations: Operation[] = [
    // @ts-expect-error no such operation
    { type: "put", table: "anything", id: "x", key: "a", value: 1 },
    // @ts-expect-error lacks its id
    { type: "set", table: "anything", key: "a", value: 1 },
    // @ts-expect-error adds nothing
    { type: "increment", table: "anything", id: "x", key: "n" },
  ];
  expectTypeOf(operations).toBeArray();
});
