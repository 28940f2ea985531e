import { useMemo, useSyncExternalStore } from "react";
import type { Client, Status } from "../client.js";
import type { Rejected } from "../written.js";
import { useClient } from "./context.js";
import { useReadable } from "./use-readable.js";

const AT_FIRST: Status = {
  userId: undefined,
  state: "offline",
  online: false,
  pending: 0,
  rejected: 0,
  needsAuth: false,
  durable: false,
  upgrade: false,
  lastError: null,
};

/**
 * The state of the client: `{state, online, pending, rejected, needsAuth, durable, upgrade, ...}`. With a function the
 * part it picks, and the component renders only when that part changes: `useStatus((status) => status.pending)`.
 */
export function useStatus(): Status;
export function useStatus<S>(select: (status: Status) => S): S;
export function useStatus(select: (status: Status) => unknown = (status) => status) {
  const { status } = useClient();
  return useSyncExternalStore(
    status.subscribe,
    () => select(status.getSnapshot()),
    () => select(AT_FIRST),
  );
}

/** Refused writes, and what can be done with them. */
export interface Inbox {
  /** The oldest first, each with the reason. */
  readonly rejected: readonly Rejected[];
  /** Sends them again, changed or not, with what they blocked. */
  readonly retry: Client["retry"];
  /** Forgets them. */
  readonly discard: Client["discard"];
}

const NONE: readonly Rejected[] = [];

/** The writes the server refused, which wait for the user: `{rejected, retry, discard}`. */
export function useRejected(): Inbox {
  const client = useClient();
  const rejected = useReadable(client.rejected, NONE);
  return useMemo(
    () => ({
      rejected,
      retry: client.retry.bind(client),
      discard: client.discard.bind(client),
    }),
    [client, rejected],
  );
}
