import { RowcastError } from "../errors.js";
import { type Listeners, listen, type Readable } from "../readable.js";

/** A user, as the server tells of him. */
export interface AccountUser {
  readonly id: string;
  /** Verified, in lower case; a guest has none. */
  readonly email?: string;
  readonly guest: boolean;
  readonly hasPassword: boolean;
  /** By which providers he signs in, too. */
  readonly providers: readonly string[];
  readonly createdAt: string;
}

/** A provider to sign in by. */
export interface SignInProvider {
  readonly id: string;
  readonly name: string;
  readonly startUrl: string;
}

/** By what one can sign in. */
export interface SignInWays {
  readonly providers: readonly SignInProvider[];
  readonly guests: boolean;
  readonly passwordMinLength: number;
}

/** Who is signed in in this browser. */
export interface SessionState {
  /** Null: nobody. Undefined: nothing is known here; `restore()` asks the server. */
  readonly user: AccountUser | null | undefined;
  /**
   * The code of the refusal where the session has ended though nobody signed out here. What the device keeps is still
   * the user's; nothing is sent before he signs in again.
   */
  readonly ended: string | null;
}

/** What of `navigator.locks` is used. */
export interface SessionLocks {
  request<T>(name: string, granted: () => Promise<T>): Promise<T>;
}

/** What `createSession` takes; in a browser nothing is needed. */
export interface SessionOptions {
  /** Where the gateway is; default: where the page is from. */
  url?: string;
  fetch?: typeof fetch;
  /** Where the last user is kept, never a token. Default: `localStorage`. */
  storage?: Pick<Storage, "getItem" | "setItem">;
  /** Between the tabs of a browser. Default: `navigator.locks`. */
  locks?: SessionLocks;
  /** Where `storage` and `online` events come from. Default: the window. */
  events?: Pick<EventTarget, "addEventListener">;
}

/**
 * The server refused, or did not answer (`status` 0, `code` "network"). `retryAfter` is in seconds; `key` is the field
 * it is about.
 */
export class AuthError extends RowcastError {
  override name = "AuthError";
  readonly status: number;
  readonly retryAfter: number | undefined;
  readonly key: string | undefined;

  constructor(
    code: string,
    message: string,
    {
      status = 0,
      retryAfter,
      key,
      cause,
    }: {
      status?: number;
      retryAfter?: number | undefined;
      key?: string | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(code, message, { cause });
    this.status = status;
    this.retryAfter = retryAfter;
    this.key = key;
  }
}

interface Memory {
  readonly user: AccountUser | null;
  readonly ended?: string | undefined;
  /** The user has signed out, and the server has not heard of it yet. */
  readonly leave?: "here" | "everywhere" | undefined;
}

interface SignedIn {
  readonly token: string;
  readonly expiresAt: string;
  readonly user: AccountUser;
}

interface Answer {
  readonly value: unknown;
  /** What the server's clock was ahead of this one's. */
  readonly ahead: number;
}

/** So long before a token ends another one is asked for. */
const EARLY_MS = 60_000;
const TIMEOUT_MS = 20_000;

/**
 * The session of this browser with a gateway's accounts: give it to `createClient` as `auth`. The session itself is a
 * cookie no script can read; a token is in memory only, and renewed when it is needed.
 */
export function createSession(options: SessionOptions = {}): AuthSession {
  return new AuthSession(options);
}

/** See `createSession`. Methods reject with AuthError. */
export class AuthSession implements Readable<SessionState> {
  private readonly url: string;
  private readonly name: string;
  private readonly fetch: typeof fetch;
  private readonly storage: SessionOptions["storage"];
  private readonly locks: SessionLocks | undefined;
  private readonly listeners: Listeners = new Set();
  private memory: Memory | undefined;
  private state: SessionState = { user: undefined, ended: null };
  private access: { token: string; until: number } | undefined;
  private renewing: Promise<void> | undefined;
  private last: Promise<unknown> = Promise.resolve();

  constructor(options: SessionOptions) {
    this.url = options.url?.replace(/\/+$/, "") ?? "";
    this.name = `rowcast-session:${this.url}`;
    this.fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.storage = options.storage ?? localStorageIfAny();
    this.locks = options.locks ?? (typeof navigator === "undefined" ? undefined : navigator.locks);
    this.recall();
    const events = options.events ?? (typeof window === "undefined" ? undefined : window);
    events?.addEventListener("storage", (event) => {
      if ((event as StorageEvent).key === this.name) this.recall();
    });
    events?.addEventListener("online", () => this.sayGoodbye());
    this.sayGoodbye();
  }

  subscribe = (listener: () => void): (() => void) => listen(this.listeners, listener);
  getSnapshot = (): SessionState => this.state;

  /**
   * The present token, as `createClient` asks for it. Null: nobody is signed in, or he has to sign in again. Rejects
   * where none can be had now; that is no sign-out.
   */
  async token({ renew = false } = {}): Promise<string | null> {
    const user = this.signedIn();
    if (!user) return null;
    const { access } = this;
    if (!renew && access && Date.now() < access.until - EARLY_MS) return access.token;
    try {
      await this.refresh(user);
    } catch (error) {
      if (!this.signedIn()) return null;
      if (renew || !access || Date.now() >= access.until) throw error;
      return access.token;
    }
    return this.signedIn() ? (this.access?.token ?? null) : null;
  }

  /**
   * Takes up the session of the browser's cookie, whoever's it is: after a sign-in by a provider, and where nothing is
   * known. Gives the user; null where there is no session.
   */
  async restore(): Promise<AccountUser | null> {
    await this.exclusive(async () => {
      const before = this.memory;
      try {
        const answer = await this.ask("refresh", {});
        // Unless the user has signed out meanwhile.
        if (this.memory === before) this.adopt(answer);
      } catch (error) {
        if (!isEnd(error)) throw error;
        if (this.memory !== before) return;
        if (before?.user) this.end(error);
        else this.keep({ user: null });
      }
    });
    return this.signedIn() ?? null;
  }

  /** By what one can sign in; null where accounts are not turned on. */
  async ways(): Promise<SignInWays | null> {
    try {
      return (await this.ask("providers")).value as SignInWays;
    } catch (error) {
      if (error instanceof AuthError && error.status === 404) return null;
      throw error;
    }
  }

  /** Sends a mail with a link, or one that says that there is an account: nobody can tell which. A guest keeps his id. */
  async signUp(email: string, password: string): Promise<void> {
    // A cookie comes with it, and the guest's goes along.
    await this.exclusive(() => this.ask("sign-up", { email, password }));
  }

  /** Ends a sign-up by the token of the mail's link; in another browser the password is needed. */
  verify(token: string, password?: string): Promise<AccountUser> {
    return this.enter("verify", password === undefined ? { token } : { token, password });
  }

  /** Signs in. */
  signIn(email: string, password: string): Promise<AccountUser> {
    return this.enter("sign-in", { email, password });
  }

  /** Begins without an address. */
  guest(): Promise<AccountUser> {
    return this.enter("guest", {});
  }

  /** Leaves the page for a provider's; afterwards the browser is at `next`, where `restore()` is to be called. */
  async signInBy(
    provider: SignInProvider,
    next = "/",
    go = (address: string) => location.assign(address),
  ): Promise<void> {
    // A sign-out that the server has not heard of must not meet the session that begins now.
    await this.exclusive(async () => {});
    go(`${this.url}${provider.startUrl}?next=${encodeURIComponent(next)}`);
  }

  /** Sends a mail with a link to set a password by, where there is an account. */
  async requestReset(email: string): Promise<void> {
    await this.ask("request-reset", { email });
  }

  /** Sets a password by the token of the mail's link, and signs in. All other sessions end. */
  reset(token: string, password: string): Promise<AccountUser> {
    return this.enter("reset", { token, password });
  }

  /** Changes the password. All other sessions end. */
  changePassword(current: string | undefined, password: string): Promise<AccountUser> {
    return this.enter("change-password", current ? { current, password } : { password });
  }

  /** Asks the server again who the user is: his address may have been verified elsewhere. */
  async me(): Promise<AccountUser | null> {
    const token = await this.token();
    const user = this.signedIn();
    if (!token || !user) return null;
    const { value } = await this.ask("me", undefined, { authorization: `Bearer ${token}` });
    if (this.signedIn()?.id === user.id) this.keep({ user: (value as { user: AccountUser }).user });
    return this.signedIn() ?? null;
  }

  /**
   * Nobody is signed in any more, in all tabs, at once. The server is told as soon as it can be reached; false: it could
   * not yet. Call `client.signOut()` before: it asks about what was not sent.
   */
  async signOut({ everywhere = false } = {}): Promise<boolean> {
    this.access = undefined;
    this.keep({ user: null, leave: everywhere ? "everywhere" : "here" });
    try {
      await this.exclusive(async () => {});
      return true;
    } catch {
      return false;
    }
  }

  // --- inside ---

  /** The user, unless he has to sign in again. */
  private signedIn(): AccountUser | undefined {
    return this.state.ended ? undefined : (this.state.user ?? undefined);
  }

  private refresh(user: AccountUser): Promise<void> {
    this.renewing ??= this.exclusive(async () => {
      // Another tab may have signed out, or in, while this one waited.
      if (this.signedIn()?.id !== user.id) return;
      try {
        const answer = await this.ask("refresh", {});
        if (this.state.user?.id === user.id) this.adopt(answer);
      } catch (error) {
        if (isEnd(error) && this.state.user?.id === user.id) this.end(error);
        throw error;
      }
    }).finally(() => {
      this.renewing = undefined;
    });
    return this.renewing;
  }

  private async enter(path: string, body: object): Promise<AccountUser> {
    return this.exclusive(async () => this.adopt(await this.ask(path, body)));
  }

  /**
   * One at a time over all tabs: each of these replaces the cookie, and one that was replaced twice is a stolen one to
   * the server.
   */
  private exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = async () => {
      this.recall();
      await this.leave();
      return work();
    };
    if (this.locks) return this.locks.request(this.name, run);
    const mine = this.last.then(run, run);
    this.last = mine.catch(() => {});
    return mine;
  }

  /** Tells the server of a sign-out it has not heard of. */
  private async leave(): Promise<void> {
    const leave = this.memory?.leave;
    if (!leave) return;
    try {
      await this.ask(leave === "everywhere" ? "sign-out-everywhere" : "sign-out", {});
    } catch (error) {
      // What it refuses for good cannot be said any better.
      if (!(error instanceof AuthError) || isPassing(error)) throw error;
    }
    if (this.memory?.leave === leave) this.keep({ user: this.memory.user });
  }

  private sayGoodbye(): void {
    if (this.memory?.leave) this.exclusive(async () => {}).catch(() => {});
  }

  private adopt({ value, ahead }: Answer): AccountUser {
    const { token, expiresAt, user } = value as SignedIn;
    this.access = { token, until: Date.parse(expiresAt) - ahead };
    this.keep({ user });
    return user;
  }

  private end(error: AuthError): void {
    this.access = undefined;
    if (this.memory?.user) this.keep({ user: this.memory.user, ended: error.code });
  }

  /** Remembers, and tells the other tabs. */
  private keep(memory: Memory): void {
    try {
      this.storage?.setItem(this.name, JSON.stringify(memory));
    } catch {
      // No room, or none given: then it is this page's alone.
    }
    this.show(memory);
  }

  /** What this or another tab has kept. */
  private recall(): void {
    try {
      const kept = JSON.parse(this.storage?.getItem(this.name) ?? "null") as Memory | null;
      if (!kept || (kept.user !== null && typeof kept.user?.id !== "string")) return;
      if (kept.user?.id !== this.memory?.user?.id) this.access = undefined;
      this.show(kept);
    } catch {
      // Somebody else's, or none given.
    }
  }

  private show(memory: Memory): void {
    if (JSON.stringify(memory) === JSON.stringify(this.memory)) return;
    this.memory = memory;
    const state = { user: memory.user, ended: memory.ended ?? null };
    if (JSON.stringify(state) === JSON.stringify(this.state)) return;
    this.state = state;
    for (const listener of [...this.listeners]) listener();
  }

  /** A GET without a body. */
  private async ask(
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    let reply: Response;
    let text: string;
    const init: RequestInit = {
      method: body ? "POST" : "GET",
      credentials: "include",
      cache: "no-store",
      headers: body ? { ...headers, "content-type": "application/json" } : headers,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    };
    if (body) init.body = JSON.stringify(body);
    try {
      reply = await this.fetch(`${this.url}/api/auth/${path}`, init);
      text = await reply.text();
    } catch (cause) {
      throw new AuthError("network", "The server cannot be reached.", { cause });
    }
    const now = Date.now();
    const date = Date.parse(reply.headers.get("date") ?? "");
    const value = parsed(text);
    const { status } = reply;
    if (reply.ok && (value !== undefined || status === 204)) {
      return { value, ahead: Number.isNaN(date) ? 0 : date - now };
    }
    if (reply.ok) throw new AuthError("network", "The answer could not be read.");
    const problem = (typeof value === "object" && value ? value : {}) as Record<string, unknown>;
    const { code, detail, title, key, retryAfter } = problem;
    const seconds = Number(reply.headers.get("retry-after") ?? retryAfter);
    throw new AuthError(
      typeof code === "string" ? code : "http",
      String(detail ?? title ?? `The server answered ${status}.`),
      {
        status,
        retryAfter: seconds > 0 ? seconds : undefined,
        key: typeof key === "string" ? key : undefined,
      },
    );
  }
}

/** Whether the server says that there is no such session any more. */
function isEnd(error: unknown): error is AuthError {
  if (!(error instanceof AuthError)) return false;
  return error.status === 401 || (error.status === 403 && error.code === "disabled");
}

function isPassing({ status }: AuthError): boolean {
  return status === 0 || status >= 500 || status === 408 || status === 425 || status === 429;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function localStorageIfAny(): Storage | undefined {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined;
  }
}
