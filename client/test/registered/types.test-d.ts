/**
 * What compiles with the example apps registered, as in an app that has run `rowcast types`.
 * A project by itself: what is registered holds for all of a program.
 */
import type {
  CreateOf,
  Functions,
  Include,
  KeyPath,
  Operation,
  OrderBy,
  RecordOf,
  Schema,
  TableName,
  TopicKey,
  ValueAt,
  Where,
} from "rowcast";
import { expectTypeOf, test } from "vitest";
import type { Task, TaskCreate } from "../../demo/src/schema.gen.js";

declare function write(operation: Operation | readonly Operation[]): void;
declare function valueAt<T extends TableName, const P extends KeyPath<T>>(
  table: T,
  key: P,
): ValueAt<T, P>;
declare function find<T extends TableName>(
  table: T,
  where: Where<T>,
  options?: { orderBy?: OrderBy<T>; include?: Include<T>[] },
): RecordOf<T>[];
declare const task: Task;

test("tables, records and functions are those of the registry", () => {
  expectTypeOf<TableName>().toEqualTypeOf<
    | "boards"
    | "comments"
    | "jobRunFiles"
    | "jobRuns"
    | "notebookInvitations"
    | "notebookMembers"
    | "notebooks"
    | "noteFiles"
    | "notes"
    | "notificationSettings"
    | "profiles"
    | "taskFiles"
    | "tasks"
    | "workspaceInvitations"
    | "workspaceMembers"
    | "workspaces"
  >();
  expectTypeOf<RecordOf<"tasks">>().toEqualTypeOf<Task>();
  expectTypeOf<CreateOf<"tasks">>().toEqualTypeOf<TaskCreate>();
  expectTypeOf<keyof Functions>().toEqualTypeOf<
    | "acceptNotebookInvitation"
    | "acceptWorkspaceInvitation"
    | "beginImport"
    | "completeBoard"
    | "findPerson"
    | "importWorkspaces"
    | "setWorkspaceWebhook"
    | "startExport"
  >();
  expectTypeOf<Task["status"]>().toEqualTypeOf<"todo" | "in_progress" | "done">();
  expectTypeOf<Task["dueDate"]>().toEqualTypeOf<string | null>();
  expectTypeOf<Task["tags"]>().toEqualTypeOf<readonly string[]>();
  expectTypeOf<TopicKey<"tasks">>().toEqualTypeOf<"boardId" | "assigneeId">();
});

test("a record cannot be changed in place", () => {
  // @ts-expect-error
  task.title = "x";
  // @ts-expect-error
  task.tags.push("x");
});

test("set takes the keys of the table, and each its own values", () => {
  write({ type: "set", table: "tasks", id: "x", key: "title", value: "x" });
  write({ type: "set", table: "tasks", id: "x", key: ["title"], value: "x" });
  write({ type: "set", table: "tasks", id: "x", key: "dueDate", value: null });
  write({ type: "set", table: "tasks", id: "x", key: "dueDate" });
  write({ type: "set", table: "tasks", id: "x", key: "tags", value: task.tags });
  write({ type: "set", table: "tasks", id: "x", key: "metadata.color", value: "red" });
  write({ type: "set", table: "tasks", id: "x", key: ["metadata", "a.b"], value: [1] });
  // @ts-expect-error no such table
  write({ type: "set", table: "task", id: "x", key: "title", value: "x" });
  // @ts-expect-error no such key
  write({ type: "set", table: "tasks", id: "x", key: "titel", value: "x" });
  // @ts-expect-error no such key, as a list
  write({ type: "set", table: "tasks", id: "x", key: ["titel"], value: "x" });
  // @ts-expect-error the key of another table
  write({ type: "set", table: "tasks", id: "x", key: "isPinned", value: true });
  // @ts-expect-error not of the type
  write({ type: "set", table: "tasks", id: "x", key: "title", value: 3 });
  // @ts-expect-error none of the values
  write({ type: "set", table: "tasks", id: "x", key: "status", value: "later" });
  // @ts-expect-error not null
  write({ type: "set", table: "tasks", id: "x", key: "title", value: null });
  // @ts-expect-error a title cannot be removed
  write({ type: "set", table: "tasks", id: "x", key: "title" });
  // @ts-expect-error the server's
  write({ type: "set", table: "tasks", id: "x", key: "createdBy", value: "x" });
  // @ts-expect-error the server's
  write({ type: "set", table: "tasks", id: "x", key: "updatedAt", value: "x" });
  // @ts-expect-error of no operation
  write({ type: "set", table: "tasks", id: "x", key: "version", value: 3 });
  // @ts-expect-error a text has nothing inside
  write({ type: "set", table: "tasks", id: "x", key: "title.x", value: "x" });
  // @ts-expect-error no JSON
  write({ type: "set", table: "tasks", id: "x", key: "metadata.on", value: new Date() });
});

test("the other operations suit the kind of the key", () => {
  write({ type: "set-now", table: "tasks", id: "x", key: "dueDate" });
  write({ type: "set-now", table: "tasks", id: "x", key: "updatedAt" });
  write({ type: "set-now", table: "tasks", id: "x", key: "metadata.seenAt" });
  write({ type: "increment", table: "tasks", id: "x", key: "metadata.votes", by: 1 });
  write({ type: "listInsert", table: "tasks", id: "x", key: "tags", value: "a" });
  write({
    type: "listInsert",
    table: "tasks",
    id: "x",
    key: "tags",
    value: "a",
    position: { before: "b" },
  });
  write({ type: "listRemove", table: "tasks", id: "x", key: "metadata.seen", value: 1 });
  // @ts-expect-error no moment
  write({ type: "set-now", table: "tasks", id: "x", key: "title" });
  // @ts-expect-error no number
  write({ type: "increment", table: "tasks", id: "x", key: "title", by: 1 });
  // @ts-expect-error no number
  write({ type: "increment", table: "tasks", id: "x", key: "metadata.votes", by: "a" });
  // @ts-expect-error no list
  write({ type: "listInsert", table: "tasks", id: "x", key: "title", value: "a" });
  // @ts-expect-error no such element
  write({ type: "listRemove", table: "tasks", id: "x", key: "tags", value: 1 });
  // @ts-expect-error no such position
  write({
    type: "listInsert",
    table: "tasks",
    id: "x",
    key: "tags",
    value: "a",
    position: "first",
  });
});

test("what the grants keep from clients is neither set nor made", () => {
  write({ type: "delete", table: "workspaceMembers", id: "x" });
  // @ts-expect-error stays as it was made
  write({ type: "set", table: "workspaceMembers", id: "x", key: "role", value: "owner" });
  const value = { workspaceId: "x", userId: "y" };
  // @ts-expect-error made by a function
  write({ type: "create", table: "workspaceMembers", id: "x", value });
  // @ts-expect-error made by a function
  write({ type: "create", table: "workspaceMembers", id: "x", value: {} });
});

test("records are made with what is required, deleted and restored where they can be", () => {
  write([
    { type: "create", table: "tasks", id: "x", value: { title: "x", boardId: "b" } },
    { type: "delete", table: "tasks", id: "x" },
    { type: "restore", table: "tasks", id: "x" },
    { type: "delete", table: "workspaceMembers", id: "x" },
  ]);
  // @ts-expect-error lacks boardId
  write({ type: "create", table: "tasks", id: "x", value: { title: "x" } });
  // @ts-expect-error no such key
  write({ type: "create", table: "boards", id: "x", value: { title: "x", workspaceId: "w" } });
  const createdBy = { title: "x", boardId: "b", createdBy: "u" };
  // @ts-expect-error the server's
  write({ type: "create", table: "tasks", id: "x", value: { ...createdBy, createdBy: "u" } });
  // @ts-expect-error deleted for good
  write({ type: "restore", table: "workspaceMembers", id: "x" });
  // @ts-expect-error takes no value
  write({ type: "delete", table: "tasks", id: "x", value: 1 });
  write([
    { type: "delete", table: "tasks", id: "x" },
    // @ts-expect-error no such table, in a list
    { type: "delete", table: "task", id: "x" },
  ]);
});

test("calls name a function and its arguments", () => {
  write({ type: "call", fn: "completeBoard", args: { boardId: "b" } });
  // @ts-expect-error no such function
  write({ type: "call", fn: "completeTask", args: { boardId: "b" } });
  // @ts-expect-error lacks an argument
  write({ type: "call", fn: "completeBoard", args: {} });
  // @ts-expect-error lacks all
  write({ type: "call", fn: "completeBoard" });
});

test("a path leads to a type", () => {
  expectTypeOf(valueAt("tasks", "title")).toEqualTypeOf<string>();
  expectTypeOf(valueAt("tasks", "dueDate")).toEqualTypeOf<string | null>();
  expectTypeOf(valueAt("notes", "isPinned")).toEqualTypeOf<boolean>();
  expectTypeOf(valueAt("tasks", ["tags"])).toEqualTypeOf<readonly string[]>();
  // @ts-expect-error no such path
  valueAt("tasks", "titel");
});

test("filters, orders and includes know the keys", () => {
  expectTypeOf(find("tasks", { boardId: "b" })).toEqualTypeOf<Task[]>();
  find("tasks", { status: { in: ["todo", "done"] }, dueDate: { is: "notNull", lt: "2026-12-31" } });
  find("tasks", { title: { contains: "x" }, tags: { contains: "a" }, metadata: { eq: { a: 1 } } });
  find("tasks", {}, { orderBy: [{ key: "dueDate", dir: "desc" }, { key: "title" }] });
  find("tasks", {}, { include: ["comments", "boardId", "boardId.workspaceId"] });
  // @ts-expect-error no such key
  find("tasks", { board: "b" });
  // @ts-expect-error not of the type
  find("notes", { isPinned: "yes" });
  // @ts-expect-error none of the values
  find("tasks", { status: { in: ["later"] } });
  // @ts-expect-error nothing equals null
  find("tasks", { assigneeId: null });
  // @ts-expect-error no such operator
  find("tasks", { title: { like: "x" } });
  // @ts-expect-error a list has no order
  find("tasks", { tags: { lt: ["x"] } });
  // @ts-expect-error a moment has no parts
  find("tasks", { dueDate: { contains: "2026" } });
  // @ts-expect-error a list has no order
  find("tasks", {}, { orderBy: [{ key: "tags" }] });
  // @ts-expect-error no such relation
  find("tasks", {}, { include: ["notes"] });
});

// Every kind of column, and a register handed over instead of declared.

interface Drawing {
  id: string;
  version: number;
  place: string;
  price: string | null;
  seen: string;
  sizes: readonly number[];
  bytes: string;
  style: Style;
  kind: string;
}

interface Page {
  id: string;
  version: number;
  later: string | null;
  moods: readonly ("calm" | "busy")[];
}

interface Style {
  color?: string;
  border: { width: number; dashes: number[] | null };
  parts: { name: string; "dotted.name"?: boolean }[];
  counts: { [name: string]: number };
  deep: { b: { c: { d: { e: { f: string } } } } };
}

const schema = {
  schema: 1,
  tables: {
    drawings: {
      idType: "bigint",
      softDelete: null,
      touch: null,
      hardDelete: false,
      wholeTable: false,
      keys: {
        id: { type: "bigint", nullable: false, required: false },
        version: { type: "integer", nullable: false, required: false },
        place: { type: "other", nullable: false, required: false },
        price: { type: "numeric", nullable: true, required: false },
        seen: { type: "bigint", nullable: false, required: false },
        sizes: { type: "list", elementType: "integer", nullable: false, required: false },
        bytes: { type: "bytea", nullable: false, required: true },
        style: { type: "json", nullable: false, required: true },
        kind: { type: "text", nullable: false, required: true, updatable: false },
      },
    },
    pages: {
      idType: "uuid",
      softDelete: null,
      touch: null,
      hardDelete: false,
      wholeTable: false,
      keys: {
        id: { type: "uuid", nullable: false, required: false },
        version: { type: "integer", nullable: false, required: false },
        later: { type: "text", nullable: true, required: false, insertable: false },
        moods: { type: "list", elementType: "enum", nullable: false, required: false },
      },
    },
  },
  functions: { ping: {} },
} as const satisfies Schema;

interface Mine {
  tables: {
    drawings: {
      record: Drawing;
      create: Omit<Drawing, "id" | "version" | "place" | "price" | "seen"> & {
        price?: string | number | null;
        seen?: string | number;
      };
      schema: (typeof schema.tables)["drawings"];
    };
    pages: {
      record: Page;
      create: { later?: string | null; moods?: Page["moods"] };
      schema: (typeof schema.tables)["pages"];
    };
  };
  functions: { ping: Record<string, never> };
}

test("paths lead through typed JSON, five parts deep", () => {
  type At<P extends KeyPath<"drawings", Mine>> = ValueAt<"drawings", P, Mine>;
  expectTypeOf<At<"style.color">>().toEqualTypeOf<string>();
  expectTypeOf<At<"style.border.width">>().toEqualTypeOf<number>();
  expectTypeOf<At<"style.border.dashes">>().toEqualTypeOf<number[] | null>();
  expectTypeOf<At<"style.border.dashes.0">>().toEqualTypeOf<number>();
  expectTypeOf<At<"style.parts.3.name">>().toEqualTypeOf<string>();
  expectTypeOf<At<["style", "parts", "3", "dotted.name"]>>().toEqualTypeOf<boolean>();
  expectTypeOf<At<"style.counts.anything">>().toEqualTypeOf<number>();
  expectTypeOf<At<"style.deep.b.c.d">>().toEqualTypeOf<{ e: { f: string } }>();
  // @ts-expect-error no such member
  expectTypeOf<At<"style.border.height">>().toBeNever();
  // @ts-expect-error only as a list of names
  expectTypeOf<At<"style.parts.3.dotted.name">>().toBeNever();
});

test("operations on every kind of column", () => {
  const at = { table: "drawings", id: "1" } as const;
  const ops: Operation<Mine>[] = [
    { type: "set", table: "drawings", id: "1", key: "style.color" },
    { type: "set", table: "drawings", id: "1", key: "style.border.width", value: 2 },
    { type: "set", table: "drawings", id: "1", key: ["style", "border", "width"], value: 2 },
    { type: "set", table: "drawings", id: "1", key: "style.counts.a" },
    { type: "set", table: "drawings", id: "1", key: "style.deep.b.c.d.e", value: { any: 1 } },
    { type: "set", table: "drawings", id: "1", key: "price", value: 2 },
    { type: "increment", table: "drawings", id: "1", key: "style.border.width", by: 1 },
    { type: "increment", table: "drawings", id: "1", key: "seen", by: "9007199254740993" },
    { type: "listInsert", table: "drawings", id: "1", key: "sizes", value: 3 },
    { type: "listRemove", table: "drawings", id: "1", key: "style.border.dashes", value: 3 },
    { type: "call", fn: "ping" },
    // @ts-expect-error required inside the JSON
    { type: "set", table: "drawings", id: "1", key: "style.border.width" },
    // @ts-expect-error not of the type
    { type: "set", table: "drawings", id: "1", key: "style.border.width", value: "2" },
    { type: "create", table: "pages", id: "x", value: { moods: ["calm"] } },
    { type: "set", table: "pages", id: "x", key: "later", value: "x" },
    { type: "listInsert", table: "pages", id: "x", key: "moods", value: "busy" },
    // @ts-expect-error cannot be named when it is made
    { type: "create", table: "pages", id: "x", value: { later: "x" } },
    // @ts-expect-error none of the values
    { type: "listInsert", table: "pages", id: "x", key: "moods", value: "wild" },
    // @ts-expect-error stays as it was made
    { type: "set", table: "drawings", id: "1", key: "kind", value: "x" },
    // @ts-expect-error read only
    { type: "set", table: "drawings", id: "1", key: "place", value: "x" },
    // @ts-expect-error a list of the database is no JSON
    { type: "set", table: "drawings", id: "1", key: "sizes.0", value: 1 },
    // @ts-expect-error no number
    { type: "increment", table: "drawings", id: "1", key: "style.color", by: 1 },
    // @ts-expect-error no such element
    { type: "listInsert", table: "drawings", id: "1", key: "sizes", value: "3" },
    // @ts-expect-error the server counts the ids
    { type: "create", ...at, value: {} },
    // @ts-expect-error there is no way to delete it
    { type: "delete", ...at },
    // @ts-expect-error nor to restore it
    { type: "restore", ...at },
  ];
  expectTypeOf(ops).toBeArray();
});

test("filters on every kind of column", () => {
  const filters: Where<"drawings", Mine>[] = [
    { price: { gt: 3 }, seen: "9007199254740993" },
    { sizes: [1, 2] },
    { sizes: { contains: 1 }, bytes: { eq: "AA==" }, place: { is: "notNull" } },
    { style: { is: null } },
    // @ts-expect-error nothing is known of its values
    { place: "x" },
    // @ts-expect-error bytes have no order
    { bytes: { lt: "AA==" } },
    // @ts-expect-error no such element
    { sizes: { contains: "1" } },
  ];
  expectTypeOf(filters).toBeArray();
});
