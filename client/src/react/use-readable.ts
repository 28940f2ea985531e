import { useSyncExternalStore } from "react";
import type { Client, Query } from "../client.js";
import type { RecordData } from "../json.js";
import type { Readable } from "../readable.js";
import { useClient } from "./context.js";

/** What a readable shows now. `first`: what is shown on the server and while its page comes alive. */
export function useReadable<T>(readable: Readable<T>, first: T): T {
  return useSyncExternalStore(readable.subscribe, readable.getSnapshot, () => first);
}

/** The client without the types of an app's tables: the hooks' signatures have checked them. */
export interface Untyped extends Pick<Client, "status"> {
  record(table: string, id: string): Readable<RecordData | null | undefined>;
  query(table: string, where?: object, options?: object): Query<RecordData>;
  write(operation: object): ReturnType<Client["write"]>;
}

/** The client of the provider above, untyped. */
export function useUntyped(): Untyped {
  return useClient() as unknown as Untyped;
}
