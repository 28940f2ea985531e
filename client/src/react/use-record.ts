import { useMemo } from "react";
import type { RecordData } from "../json.js";
import type { Readable } from "../readable.js";
import type { RecordOf, TableFor, TableName } from "../types.js";
import { useReadable, useUntyped } from "./use-readable.js";

const NOTHING: Readable<null> = { subscribe: () => () => {}, getSnapshot: () => null };

/**
 * A record: undefined while nothing is known of it, null where it is not there or no id is given. Loads it and keeps
 * it live while the component is mounted, and a little longer.
 */
export function useRecord<T extends TableName>(
  table: T,
  id: string | null | undefined,
): RecordOf<T> | null | undefined;
export function useRecord<T extends object = never>(
  table: TableFor<T>,
  id: string | null | undefined,
): T | null | undefined;
export function useRecord(table: string, id: string | null | undefined) {
  const client = useUntyped();
  const record = useMemo<Readable<RecordData | null | undefined>>(
    () => (id === null || id === undefined ? NOTHING : client.record(table, id)),
    [client, table, id],
  );
  return useReadable(record, undefined);
}
