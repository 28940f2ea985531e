import { useSyncExternalStore } from "react";

/** Who uses this window. */
export interface Session {
  /** What he signs in by. */
  readonly name: string;
  readonly userId: string;
}

/** Who can sign in to the demo. */
export const DEMO_USERS = ["alice", "bob", "carol"];

// A window has its own user, so that two users can be tried side by side; a new one opens as the last.
const KEY = "rowcast-demo:user";
const SIGNED_OUT = "rowcast-demo:signed-out";
const listeners = new Set<() => void>();
let session = read(sessionStorage) ?? read(localStorage);
let token: string | undefined;

/** The user of this window; undefined: nobody. */
export function useSession(): Session | undefined {
  return useSyncExternalStore(subscribe, () => session);
}

/** Makes this window a user's. Rejects where the server cannot be reached or does not know him. */
export async function signIn(name: string): Promise<void> {
  const made = await ask(name);
  token = made.token;
  become({ name, userId: made.userId });
}

/** The user has signed out: in all his windows. */
export function forget(): void {
  if (!session) return;
  if (read(localStorage)?.userId === session.userId) localStorage.removeItem(KEY);
  localStorage.setItem(SIGNED_OUT, `${session.userId} ${Date.now()}`);
  become(undefined);
}

addEventListener("storage", ({ key, newValue }) => {
  if (key === SIGNED_OUT && session && newValue?.startsWith(session.userId)) become(undefined);
});

/**
 * The token for the client. It is asked for as often as needed and kept nowhere: the demo knows no passwords. An app
 * of yours says `auth: "cookie"`, or gives the token of its sign-in service here.
 */
export async function currentToken({ renew }: { renew: boolean }): Promise<string | null> {
  if (!session) return null;
  if (renew || !token) token = (await ask(session.name)).token;
  return token;
}

async function ask(name: string): Promise<{ token: string; userId: string }> {
  const answer = await fetch("/api/auth/dev-sign-in", {
    method: "POST",
    body: JSON.stringify({ user: name }),
    // The cookie that comes with it would be shared by all windows.
    credentials: "omit",
  }).catch(() => undefined);
  if (!answer) throw new Error("The server cannot be reached.");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.title ?? `The server answered ${answer.status}.`);
  return body;
}

function become(next: Session | undefined): void {
  session = next;
  if (!next) {
    token = undefined;
    sessionStorage.removeItem(KEY);
  } else {
    sessionStorage.setItem(KEY, JSON.stringify(next));
    localStorage.setItem(KEY, JSON.stringify(next));
  }
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function read(storage: Storage): Session | undefined {
  try {
    const found = JSON.parse(storage.getItem(KEY) ?? "null");
    return typeof found?.name === "string" && typeof found.userId === "string" ? found : undefined;
  } catch {
    return undefined;
  }
}
