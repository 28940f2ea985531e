/** Without registered tables hooks take any table and key, and records have any type. */
import { expectTypeOf, test } from "vitest";
import { useField, useQuery, useRecord, useRecords } from "../../src/react/index.js";
import type { AnyRecord } from "../../src/types.js";

test("anything goes", () => {
  expectTypeOf(useRecord("whatever", "x")).toEqualTypeOf<AnyRecord | null | undefined>();
  expectTypeOf(useRecords("whatever", { some: { gt: 1 } })).toEqualTypeOf<readonly AnyRecord[]>();
  expectTypeOf(useQuery<{ id: string }>("whatever").data).toEqualTypeOf<
    readonly { id: string }[]
  >();
  useField("whatever", "x", "some.path").setValue([1, { a: null }]);
  useField("whatever", "x", ["some", "pa.th"]).setValue("x");
});
