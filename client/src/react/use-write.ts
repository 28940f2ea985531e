import { useMemo } from "react";
import type { Client } from "../client.js";
import { useClient } from "./context.js";

/**
 * The function that writes: `write(operation)`, `write([operation, ...], {expect, undo, group})`. What it does shows
 * at once. It is the same function for as long as the client is.
 */
export function useWrite(): Client["write"] {
  const client = useClient();
  return useMemo(() => client.write.bind(client), [client]);
}
