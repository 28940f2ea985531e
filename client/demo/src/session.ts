import { useSyncExternalStore } from "react";
import { type AccountUser, createSession } from "rowcast/auth";

/** Who uses this window. */
export interface Session {
  /** What a demo user signs in by; others have an account. */
  readonly name?: string;
  readonly userId: string;
}

/** Who can sign in to the demo. */
export const DEMO_USERS = ["alice", "bob", "carol"];

/** The account of this browser: one for all its windows, as its cookie is. */
export const account = createSession();

// A window can have a demo user of its own, so that two can be tried side by side; a new one opens as the last.
const KEY = "rowcast-demo:user";
const SIGNED_OUT = "rowcast-demo:signed-out";
/** What a window keeps whose user is that of the account, or nobody. */
const ACCOUNT = "account";
const NOBODY = "nobody";
const listeners = new Set<() => void>();
let place = sessionStorage.getItem(KEY);
let demo = read(place === null ? localStorage.getItem(KEY) : place);
let token: string | undefined;
let present: Session | undefined;

/** The user of this window; undefined: nobody. */
export function useSession(): Session | undefined {
  return useSyncExternalStore(subscribe, session);
}

/** The account of this browser, whoever uses this window: the user, and why he has to sign in again. */
export function useAccount() {
  return useSyncExternalStore(account.subscribe, account.getSnapshot);
}

/** The account's user, if it is he who uses this window. */
export function useAccountHere(): AccountUser | undefined {
  const { user } = useAccount();
  return useSession()?.userId === user?.id && user ? user : undefined;
}

/** Makes this window a demo user's. Rejects where the server cannot be reached or does not know him. */
export async function signIn(name: string): Promise<void> {
  const made = await ask(name);
  token = made.token;
  demo = { name, userId: made.userId };
  localStorage.setItem(KEY, JSON.stringify(demo));
  stay(JSON.stringify(demo));
}

/** This window, and new ones, are the account's from now on. */
export function enterAccount(): void {
  demo = undefined;
  localStorage.removeItem(KEY);
  stay(ACCOUNT);
}

/** The user has signed out: in all his windows. False: the server has yet to hear of it. */
export async function forget({ everywhere = false } = {}): Promise<boolean> {
  if (!demo) return account.signOut({ everywhere });
  if (read(localStorage.getItem(KEY))?.userId === demo.userId) localStorage.removeItem(KEY);
  localStorage.setItem(SIGNED_OUT, `${demo.userId} ${Date.now()}`);
  leaveDemo();
  return true;
}

addEventListener("storage", ({ key, newValue }) => {
  if (key === SIGNED_OUT && demo && newValue?.startsWith(demo.userId)) leaveDemo();
});

/**
 * The token for the client. A demo user's is asked for as often as needed and kept nowhere: he has no password. An app
 * of yours gives the account's session to the client, as it is.
 */
export async function currentToken({ renew }: { renew: boolean }): Promise<string | null> {
  if (!demo) return account.token({ renew });
  if (renew || !token) token = (await ask(demo.name)).token;
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

function leaveDemo(): void {
  demo = undefined;
  token = undefined;
  // Not whoever has an account in this browser: that may be somebody else.
  stay(NOBODY);
}

function stay(kept: string): void {
  place = kept;
  sessionStorage.setItem(KEY, kept);
  for (const listener of listeners) listener();
}

function session(): Session | undefined {
  const { user } = account.getSnapshot();
  const next: Session | undefined =
    demo ?? (place !== NOBODY && user ? { userId: user.id } : undefined);
  if (next?.userId !== present?.userId || next?.name !== present?.name) present = next;
  return present;
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  const stop = account.subscribe(listener);
  return () => {
    listeners.delete(listener);
    stop();
  };
}

function read(kept: string | null): { name: string; userId: string } | undefined {
  try {
    const found = JSON.parse(kept ?? "null");
    return typeof found?.name === "string" && typeof found.userId === "string" ? found : undefined;
  } catch {
    return undefined;
  }
}
