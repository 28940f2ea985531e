/** The client's own methods know the registered tables. */
import { type Client, createClient } from "rowcast";
import { expectTypeOf, test } from "vitest";
import { schema, type Task } from "../../demo/src/schema.gen.js";

declare const client: Client;

interface Row {
  id: string;
  name: string;
}

test("the generated schema is the one a client takes", () => {
  createClient({ schema, auth: "cookie" });
});

test("records and queries have the types of their table", () => {
  expectTypeOf(client.record("tasks", "x").getSnapshot()).toEqualTypeOf<Task | null | undefined>();
  expectTypeOf(client.query("tasks").getSnapshot().data).toEqualTypeOf<readonly Task[]>();
  client.query("tasks", { boardId: "b" }, { orderBy: [{ key: "dueDate" }], include: ["comments"] });
  // @ts-expect-error no such table
  client.record("task", "x");
  // @ts-expect-error no such table
  client.query("task");
  // @ts-expect-error no such key
  client.query("tasks", { board: "b" });
  // @ts-expect-error not of the type
  client.query("tasks", { boardId: 1 });
  // @ts-expect-error a list has no order
  client.query("tasks", {}, { orderBy: [{ key: "tags" }] });
  // @ts-expect-error no such relation
  client.query("tasks", {}, { include: ["notes"] });
  // @ts-expect-error no such table
  client.serverStream("task");
});

test("the type of a record may be given by hand", () => {
  expectTypeOf(client.record<Row>("tasks", "x").getSnapshot()).toEqualTypeOf<
    Row | null | undefined
  >();
  expectTypeOf(client.query<Row>("tasks", { name: "x" }).getSnapshot().data).toEqualTypeOf<
    readonly Row[]
  >();
  // @ts-expect-error no such table
  client.record<Row>("task", "x");
  // @ts-expect-error no such key
  client.query<Row>("tasks", { title: "x" });
});

test("writes and calls are checked", () => {
  client.write({ type: "set", table: "tasks", id: "x", key: "title", value: "x" });
  client.write([{ type: "delete", table: "tasks", id: "x" }], {
    expect: [{ table: "tasks", id: "x", version: 1 }],
  });
  client.call("completeBoard", { boardId: "b" });
  // @ts-expect-error not of the type
  client.write({ type: "set", table: "tasks", id: "x", key: "title", value: 1 });
  // @ts-expect-error no such table
  client.write([], { expect: [{ table: "task", id: "x", version: 1 }] });
  // @ts-expect-error no such function
  client.call("completeTask", { boardId: "b" });
  // @ts-expect-error lacks its arguments
  client.call("completeBoard");
});
