import { useEffect, useState } from "react";
import type { SignInWays } from "rowcast/auth";
import { account } from "../session.js";

let known: SignInWays | null | undefined;

/** By what one can sign in; null: accounts are not turned on; undefined: not known (yet). */
export function useWays(): SignInWays | null | undefined {
  const [ways, show] = useState(known);
  useEffect(() => {
    let mounted = true;
    const ask = async () => {
      try {
        known = await account.ways();
        if (mounted) show(known);
      } catch {
        // Without a network: asked again when there is one.
      }
    };
    if (known === undefined) void ask();
    addEventListener("online", ask);
    return () => {
      mounted = false;
      removeEventListener("online", ask);
    };
  }, []);
  return ways;
}

/** For tests: as if the page had just been opened. */
export function forgetWays(): void {
  known = undefined;
}
