import { useEffect, useMemo } from "react";
import type { Peer, PresenceState } from "../presence.js";
import type { Key } from "../wire.gen.js";
import { useClient } from "./context.js";
import { useReadable } from "./use-readable.js";

const NOBODY: readonly Peer[] = [];

/**
 * The others under the key of a record (`tasks:<id>`, made by `recordKey`). With a `state` they see this tab, too,
 * until the component goes away or says null. Of several components with a state for the same key the last one counts.
 */
export function usePresence(key: Key, state?: PresenceState | null): readonly Peer[] {
  const client = useClient();
  const peers = useReadable(
    useMemo(() => client.presence(key), [client, key]),
    NOBODY,
  );
  const shown = state ? JSON.stringify(state) : undefined;
  useEffect(() => {
    if (shown !== undefined) client.setPresence(key, JSON.parse(shown));
  }, [client, key, shown]);
  const isShown = shown !== undefined;
  useEffect(() => {
    if (!isShown) return;
    return () => client.setPresence(key, null);
  }, [client, key, isShown]);
  return peers;
}
