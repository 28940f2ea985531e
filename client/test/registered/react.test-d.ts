/** Hooks know the registered tables. */

import type { Json } from "rowcast";
import {
  type Field,
  useCollection,
  useField,
  useQuery,
  useRecord,
  useRecords,
  useStatus,
  useWrite,
} from "rowcast/react";
import { expectTypeOf, test } from "vitest";
import type { Task } from "../../demo/src/schema.gen.js";

interface Row {
  id: string;
  name: string;
}

test("records and lists have the types of their table", () => {
  expectTypeOf(useRecord("tasks", "x")).toEqualTypeOf<Task | null | undefined>();
  expectTypeOf(useRecord("tasks", null)).toEqualTypeOf<Task | null | undefined>();
  expectTypeOf(useRecords("tasks")).toEqualTypeOf<readonly Task[]>();
  expectTypeOf(useQuery("tasks", null).data).toEqualTypeOf<readonly Task[]>();
  expectTypeOf(useCollection("tasks", {}, { pageSize: 20 }).data).toEqualTypeOf<readonly Task[]>();
  useRecords("tasks", { boardId: "b", status: { in: ["todo", "done"] } }, { limit: 10 });
  useQuery("tasks", {}, { orderBy: [{ key: "dueDate", dir: "desc" }], include: ["comments"] });
  // @ts-expect-error no such table
  useRecord("task", "x");
  // @ts-expect-error no such table
  useRecords("task");
  // @ts-expect-error no such key
  useRecords("tasks", { board: "b" });
  // @ts-expect-error not of the type
  useQuery("tasks", { status: "open" });
  // @ts-expect-error a list has no order
  useQuery("tasks", {}, { orderBy: [{ key: "tags" }] });
  // @ts-expect-error no such relation
  useQuery("tasks", {}, { include: ["comment"] });
  // @ts-expect-error a collection has pages
  useCollection("tasks", {}, { limit: 20 });
});

test("the type of a record may be given by hand", () => {
  expectTypeOf(useRecord<Row>("tasks", "x")).toEqualTypeOf<Row | null | undefined>();
  expectTypeOf(useRecords<Row>("tasks", { name: "x" })).toEqualTypeOf<readonly Row[]>();
  expectTypeOf(useQuery<Row>("tasks").data).toEqualTypeOf<readonly Row[]>();
  expectTypeOf(useCollection<Row>("tasks").data).toEqualTypeOf<readonly Row[]>();
  expectTypeOf(useField<Row, "name">("tasks", "x", "name").value).toEqualTypeOf<
    string | undefined
  >();
  // @ts-expect-error no such table
  useRecord<Row>("task", "x");
  // @ts-expect-error no such key
  useRecords<Row>("tasks", { title: "x" });
});

test("a field has the type of its path", () => {
  expectTypeOf(useField("tasks", "x", "title")).toEqualTypeOf<Field<string>>();
  expectTypeOf(useField("tasks", "x", "dueDate")).toEqualTypeOf<Field<string | null>>();
  expectTypeOf(useField("tasks", "x", "metadata.color").value).toEqualTypeOf<Json | undefined>();
  expectTypeOf(useField("tasks", "x", ["metadata", "a.b"]).value).toEqualTypeOf<Json | undefined>();
  useField("tasks", "x", "status").setValue("done");
  // @ts-expect-error no such value
  useField("tasks", "x", "status").setValue("open");
  // @ts-expect-error no such key
  useField("tasks", "x", "name");
  // @ts-expect-error nothing inside a text
  useField("tasks", "x", "title.x");
  // @ts-expect-error the server's alone
  useField("tasks", "x", "createdBy");
});

test("writes are checked, and a status part has its type", () => {
  const write = useWrite();
  write({ type: "set", table: "tasks", id: "x", key: "title", value: "x" });
  // @ts-expect-error not of the type
  write({ type: "set", table: "tasks", id: "x", key: "title", value: 1 });
  expectTypeOf(useStatus((status) => status.pending)).toEqualTypeOf<number>();
});
