/** The adapters know the registered tables. */
import { createCollection } from "@tanstack/db";
import { QueryClient } from "@tanstack/query-core";
import type { Client } from "rowcast";
import { rowcastCollectionOptions } from "rowcast/tanstack-db";
import { rowcastInfiniteQueryOptions, rowcastQueryOptions } from "rowcast/tanstack-query";
import { expectTypeOf, test } from "vitest";
import type { Task } from "../../demo/src/schema.gen.js";

declare const client: Client;

test("a collection has the records of its table", () => {
  const tasks = createCollection(
    rowcastCollectionOptions({ client, table: "tasks", where: { boardId: "b" }, gcTime: 0 }),
  );
  expectTypeOf(tasks.get("x")?.title).toEqualTypeOf<string | undefined>();
  expectTypeOf(tasks.get("x")?.dueDate).toEqualTypeOf<string | null | undefined>();
  tasks.update("x", (draft) => {
    draft.status = "done";
    // @ts-expect-error no such value
    draft.status = "open";
  });
  // @ts-expect-error no such table
  rowcastCollectionOptions({ client, table: "task" });
  // @ts-expect-error no such key
  rowcastCollectionOptions({ client, table: "tasks", where: { board: "b" } });
});

test("a query has them, too, and so has the cache", async () => {
  const cache = new QueryClient();
  const options = rowcastQueryOptions(client, "tasks", { status: "done" });
  expectTypeOf(await cache.fetchQuery(options)).toEqualTypeOf<readonly Task[]>();
  expectTypeOf(cache.getQueryData(options.queryKey)).toEqualTypeOf<readonly Task[] | undefined>();
  const pages = await cache.fetchInfiniteQuery(rowcastInfiniteQueryOptions(client, "tasks"));
  expectTypeOf(pages.pages[0]?.rows).toEqualTypeOf<readonly Task[] | undefined>();
  // @ts-expect-error no such table
  rowcastQueryOptions(client, "task");
  // @ts-expect-error not of the type
  rowcastQueryOptions(client, "tasks", { status: "open" });
});
