import { useEffect, useMemo, useRef } from "react";
import type { Client } from "../client.js";
import type { Peer, PresenceState } from "../presence.js";
import type { Key } from "../wire.gen.js";
import { useClient } from "./context.js";
import { useReadable } from "./use-readable.js";

const NOBODY: readonly Peer[] = [];

/**
 * The others under the key of a record (`tasks:<id>`, made by `recordKey`). With a `state` they see this tab, too,
 * until the component goes away or says null. Of several components with a state for the same key the one that came
 * last counts; when it goes, the one before it does again.
 */
export function usePresence(key: Key, state?: PresenceState | null): readonly Peer[] {
  const client = useClient();
  const peers = useReadable(
    useMemo(() => client.presence(key), [client, key]),
    NOBODY,
  );
  const shown = state ? JSON.stringify(state) : undefined;
  const who = useRef({}).current;
  useEffect(() => {
    if (shown !== undefined) show(client, key, who, JSON.parse(shown));
  }, [client, key, shown, who]);
  const isShown = shown !== undefined;
  useEffect(() => {
    if (!isShown) return;
    return () => show(client, key, who, null);
  }, [client, key, isShown, who]);
  return peers;
}

/** What components show under a key, in the order in which they came. */
const states = new WeakMap<Client, Map<Key, Map<object, PresenceState>>>();

function show(client: Client, key: Key, who: object, state: PresenceState | null): void {
  const keys = states.get(client) ?? new Map<Key, Map<object, PresenceState>>();
  states.set(client, keys);
  const all = keys.get(key) ?? new Map<object, PresenceState>();
  keys.set(key, all);
  const before = [...all.values()].at(-1);
  if (state) all.set(who, state);
  else all.delete(who);
  if (!all.size) keys.delete(key);
  const now = [...all.values()].at(-1);
  if (now !== before) client.setPresence(key, now ?? null);
}
