import type { DataTag, InfiniteData } from "@tanstack/query-core";
import type { Client, QueryOptions } from "./client.js";
import { isTransient } from "./http.js";
import { isObject, type RecordData } from "./json.js";
import { HttpError, NetworkError } from "./transport.js";
import type { RecordOf, TableFor, TableName, Where, WhereFor } from "./types.js";
import type { QueryAnswer, QueryBody } from "./wire.gen.js";

/** The key of a query: `["rowcast", user, table, {where, orderBy, limit}]`. */
export type RowcastQueryKey = readonly [
  "rowcast",
  user: string | null,
  table: string,
  asked: { readonly [name: string]: unknown },
];

/** What TanStack Query takes: who asks, how, and what is worth trying again. */
export interface RowcastQuery<T> {
  queryKey: DataTag<RowcastQueryKey, readonly T[]>;
  queryFn: (context: { signal: AbortSignal }) => Promise<readonly T[]>;
  retry: (failures: number, error: Error) => boolean;
}

/** The same in pages. */
export interface RowcastInfiniteQuery<T> {
  queryKey: DataTag<RowcastQueryKey, InfiniteData<RowcastPage<T>>>;
  queryFn: (context: { signal: AbortSignal; pageParam: string | null }) => Promise<RowcastPage<T>>;
  initialPageParam: string | null;
  getNextPageParam: (last: RowcastPage<T>) => string | null;
  retry: (failures: number, error: Error) => boolean;
}

/** One page of records; `next` asks for the one behind it, null where there is none. */
export interface RowcastPage<T> {
  readonly rows: readonly T[];
  readonly next: string | null;
}

type Options<T extends TableName> = Pick<QueryOptions<T>, "orderBy" | "limit">;
type Asked = Pick<QueryBody, "table" | "where" | "orderBy" | "limit">;

const PAGE = 1000;
const RETRIES = 3;

/**
 * Options for `useQuery` of TanStack Query: records that are read once and not kept live: reports, archives, lists that
 * nobody watches. What is pending is not in them, and they are not stored on the device.
 *
 *     useQuery(rowcastQueryOptions(client, "tasks", { status: "done" }, { limit: 500 }));
 */
export function rowcastQueryOptions<T extends TableName>(
  client: Client,
  table: T,
  where?: Where<T>,
  options?: Options<T>,
): RowcastQuery<RecordOf<T>>;
export function rowcastQueryOptions<T extends object = never>(
  client: Client,
  table: TableFor<T>,
  where?: WhereFor<T>,
  options?: Options<TableName>,
): RowcastQuery<T>;
export function rowcastQueryOptions(
  client: Client,
  table: string,
  where?: object,
  options: Pick<Asked, "orderBy" | "limit"> = {},
): unknown {
  const { asked, ...rest } = common(client, table, where, options);
  return {
    ...rest,
    async queryFn({ signal }: { signal: AbortSignal }) {
      const { limit = Number.POSITIVE_INFINITY } = options;
      const rows: RecordData[] = [];
      let next: string | null = null;
      do {
        const most = Math.min(PAGE, limit - rows.length);
        const page = await read(client, { ...asked, limit: most }, next, signal);
        rows.push(...page.rows);
        next = page.next;
      } while (next !== null && rows.length < limit);
      return rows;
    },
  };
}

/**
 * Options for `useInfiniteQuery` of TanStack Query: the same page by page, `limit` rows each (200 where it is left out).
 */
export function rowcastInfiniteQueryOptions<T extends TableName>(
  client: Client,
  table: T,
  where?: Where<T>,
  options?: Options<T>,
): RowcastInfiniteQuery<RecordOf<T>>;
export function rowcastInfiniteQueryOptions<T extends object = never>(
  client: Client,
  table: TableFor<T>,
  where?: WhereFor<T>,
  options?: Options<TableName>,
): RowcastInfiniteQuery<T>;
export function rowcastInfiniteQueryOptions(
  client: Client,
  table: string,
  where?: object,
  options: Pick<Asked, "orderBy" | "limit"> = {},
): unknown {
  const { asked, ...rest } = common(client, table, where, options, { pages: true });
  return {
    ...rest,
    queryFn: ({ signal, pageParam }: { signal: AbortSignal; pageParam: string | null }) =>
      read(client, asked, pageParam, signal),
    initialPageParam: null,
    getNextPageParam: ({ next }: RowcastPage<RecordData>) => next,
  };
}

/** What both have: the body of the request, the key under which its answer is kept, and what is tried again. */
function common(
  client: Client,
  table: string,
  where: object | undefined,
  { orderBy, limit }: Pick<Asked, "orderBy" | "limit">,
  more?: { pages: true },
) {
  const rest: Omit<Asked, "table"> = {
    ...(where && { where: where as NonNullable<Asked["where"]> }),
    ...(orderBy && { orderBy }),
    ...(limit !== undefined && { limit }),
  };
  // What one user has read is not shown to the next one.
  const user = client.status.getSnapshot().userId ?? null;
  const queryKey: RowcastQueryKey = ["rowcast", user, table, { ...rest, ...more }];
  return { asked: { table, ...rest }, queryKey, retry };
}

async function read(
  client: Client,
  asked: Asked,
  after: string | null,
  signal: AbortSignal,
): Promise<RowcastPage<RecordData>> {
  const answer = await client.request("/api/realtime/query", {
    ...asked,
    ...(after !== null && { after }),
  });
  signal.throwIfAborted();
  if (!isObject(answer) || !Array.isArray(answer.ids) || !isObject(answer.recordMap)) {
    throw new NetworkError("The answer could not be read");
  }
  const { ids, recordMap, next } = answer as unknown as QueryAnswer;
  const found = recordMap[asked.table] ?? {};
  const rows = ids.flatMap((id) => (Object.hasOwn(found, id) ? [found[id] as RecordData] : []));
  return { rows, next: next ?? null };
}

/** What is refused is refused again; the rest is tried three times more, as TanStack Query does by itself. */
function retry(failures: number, error: Error): boolean {
  const again =
    error instanceof NetworkError || (error instanceof HttpError && isTransient(error.status));
  return again && failures < RETRIES;
}
