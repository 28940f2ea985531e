import { useState } from "react";

let taken = "";

/** What stands behind `#token=` of a mail's link. It goes away from the address bar, and so from the history. */
export function useLinkToken(): string {
  const [token] = useState(() => {
    const found = /^#token=([\w.~-]+)$/.exec(location.hash)?.[1];
    if (!found) return taken;
    history.replaceState(history.state, "", location.pathname);
    // Twice in development: React renders a component twice there.
    taken = found;
    return found;
  });
  return token;
}

/** The link has done what it is for. */
export function linkIsUsed(): void {
  taken = "";
}
