import { useCallback, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Query, QueryOptions } from "../client.js";
import { type QuerySpec, type QueryState, queryId } from "../query.js";
import type { RecordOf, TableFor, TableName, Where, WhereFor } from "../types.js";
import { useReadable, useUntyped } from "./use-readable.js";

/** A query's result, and what can be done with it. */
export interface QueryResult<T> extends QueryState<T> {
  /** Shows another page of a window. Resolves when it is there, or cannot be had now. */
  readonly loadMore: () => Promise<void>;
  /** Asks the server again. */
  readonly refetch: () => Promise<void>;
}

/** A list that grows page by page. */
export interface Collection<T> extends QueryResult<T> {
  /** Whether a page is on its way. */
  readonly isLoadingMore: boolean;
}

/** How a collection is ordered and divided. */
export interface CollectionOptions<T extends TableName>
  extends Pick<QueryOptions<T>, "orderBy" | "include"> {
  /** Rows of a page; left out, 50. */
  pageSize?: number;
}

type Options = Pick<QuerySpec, "orderBy" | "limit" | "include">;

const LOADING: QueryState<never> = { data: [], status: "loading", hasMore: false };
const NO_QUERY: Query<never> = {
  subscribe: () => () => {},
  getSnapshot: () => LOADING,
  loadMore: async () => {},
  refetch: async () => {},
};

/** A query by what it asks: the same handle as long as that is equal, however often it is written anew. */
function useHandle(table: string, where: object | null | undefined, options?: Options) {
  const client = useUntyped();
  const id =
    where === null ? null : queryId({ ...options, table, where: where as QuerySpec["where"] });
  // biome-ignore lint/correctness/useExhaustiveDependencies: the id says all that is asked
  return useMemo(
    () => (id === null ? NO_QUERY : client.query(table, where ?? undefined, options)),
    [client, id],
  );
}

/**
 * The records that match, in order: the same array until one of them changes, comes or goes. Loads them and keeps them
 * live while the component is mounted, and a little longer. With null for the filter nothing is asked.
 */
export function useRecords<T extends TableName>(
  table: T,
  where?: Where<T> | null,
  options?: QueryOptions<T>,
): readonly RecordOf<T>[];
export function useRecords<T extends object = never>(
  table: TableFor<T>,
  where?: WhereFor<T> | null,
  options?: QueryOptions<TableName>,
): readonly T[];
export function useRecords(table: string, where?: object | null, options?: Options) {
  const query = useHandle(table, where, options);
  return useSyncExternalStore(
    query.subscribe,
    () => query.getSnapshot().data,
    () => LOADING.data,
  );
}

/** The same as useRecords with how far it can be trusted, and more of it: `{data, status, hasMore, loadMore, error}`. */
export function useQuery<T extends TableName>(
  table: T,
  where?: Where<T> | null,
  options?: QueryOptions<T>,
): QueryResult<RecordOf<T>>;
export function useQuery<T extends object = never>(
  table: TableFor<T>,
  where?: WhereFor<T> | null,
  options?: QueryOptions<TableName>,
): QueryResult<T>;
export function useQuery(table: string, where?: object | null, options?: Options) {
  const query = useHandle(table, where, options);
  const state = useReadable(query, LOADING);
  return useMemo(() => {
    const { loadMore, refetch } = query;
    return { ...state, loadMore, refetch };
  }, [query, state]);
}

/**
 * A list in pages: at first one page, another with each `loadMore`, all of it live. Calling `loadMore` while a page is
 * on its way, or where there are no more, does nothing, so that scrolling may call it as often as it likes.
 */
export function useCollection<T extends TableName>(
  table: T,
  where?: Where<T> | null,
  options?: CollectionOptions<T>,
): Collection<RecordOf<T>>;
export function useCollection<T extends object = never>(
  table: TableFor<T>,
  where?: WhereFor<T> | null,
  options?: CollectionOptions<TableName>,
): Collection<T>;
export function useCollection(
  table: string,
  where?: object | null,
  { pageSize = 50, ...options }: Omit<Options, "limit"> & { pageSize?: number } = {},
) {
  const query = useHandle(table, where, { ...options, limit: pageSize });
  const state = useReadable(query, LOADING);
  const loading = useRef<Query<unknown> | null>(null);
  const [shown, show] = useState<Query<unknown> | null>(null);
  const loadMore = useCallback(async () => {
    if (loading.current === query || !query.getSnapshot().hasMore) return;
    loading.current = query;
    show(query);
    try {
      await query.loadMore();
    } finally {
      if (loading.current === query) {
        loading.current = null;
        show(null);
      }
    }
  }, [query]);
  return useMemo(
    () => ({ ...state, loadMore, refetch: query.refetch, isLoadingMore: shown === query }),
    [query, state, loadMore, shown],
  );
}
