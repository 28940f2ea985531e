import type { ServerClock } from "./ids.js";
import { isObject } from "./json.js";
import type { Runtime } from "./runtime.js";
import {
  type Auth,
  HttpError,
  NeedsAuthError,
  NetworkError,
  type Reply,
  type Transport,
} from "./transport.js";
import type { Problem } from "./wire.gen.js";

/** The user a token speaks of; undefined where it does not say. Nothing is verified: that is the server's. */
export function userOfToken(token: string): string | undefined {
  try {
    const part = token.split(".")[1] ?? "";
    const text = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    const { sub } = JSON.parse(new TextDecoder().decode(bytes));
    return typeof sub === "string" ? sub : undefined;
  } catch {
    return undefined;
  }
}

/** Seconds in a `Retry-After`, which may also be a date. */
export function secondsOf(header: string | null, now: number): number | undefined {
  if (!header) return undefined;
  const seconds = /^\d+(\.\d+)?$/.test(header) ? Number(header) : (Date.parse(header) - now) / 1000;
  return Number.isFinite(seconds) && seconds > 0 ? seconds : undefined;
}

/** Statuses after which the same request may well succeed. */
export function isTransient(status: number): boolean {
  return status >= 500 || status === 408 || status === 425 || status === 429;
}

/** Why nothing is sent or read until `resume`: nobody is signed in, or the app is too old. */
export type Pause = "auth" | "upgrade";

/** Whether an error is one after which everything pauses. */
export function pauseOf(error: unknown): Pause | undefined {
  const status = error instanceof HttpError ? error.status : 0;
  if (error instanceof NeedsAuthError || status === 401) return "auth";
  return status === 426 ? "upgrade" : undefined;
}

/** How long the server asked to be left alone, in milliseconds; 0: it did not. */
export function askedWait(error: unknown): number {
  return error instanceof HttpError ? (error.retryAfter ?? 0) * 1000 : 0;
}

/** An answer could not be read. */
export function unreadable(): NetworkError {
  return new NetworkError("The answer could not be read");
}

/** An answer that has what it must: a recordMap, these lists and these texts. Throws NetworkError where it has not. */
export function readAnswer<T>(
  answer: unknown,
  lists: readonly string[],
  texts: readonly string[] = [],
): T {
  if (
    !isObject(answer) ||
    !isObject(answer.recordMap) ||
    !lists.every((name) => Array.isArray(answer[name])) ||
    !texts.every((name) => typeof answer[name] === "string")
  ) {
    throw unreadable();
  }
  return answer as T;
}

/** Requests to the gateway with everything they carry: who asks, for which schema, how long to wait. */
export class Http {
  /** Whether the last request was answered, in whatever way. */
  answered = false;
  /** Whether the last token says by itself whose it is: the right user's, or nobody's. */
  named = false;
  private readonly timeout = 60_000;

  constructor(
    private readonly transport: Transport,
    private readonly auth: Auth,
    private readonly schema: number | undefined,
    private readonly runtime: Runtime,
    private readonly clock: ServerClock,
    /** Whether this user is the one the client is for. */
    private readonly isUser: (user: string | null) => boolean,
  ) {}

  /** The present token; undefined with a cookie or for nobody. Rejects with NeedsAuthError for somebody else's. */
  async token(renew: boolean): Promise<string | undefined> {
    if (this.auth === "cookie") return undefined;
    const token = await this.auth.token({ renew });
    const user = token === null ? null : userOfToken(token);
    this.named = user !== undefined;
    if (user !== undefined && !this.isUser(user)) throw new NeedsAuthError();
    return token ?? undefined;
  }

  /**
   * The answer's JSON. Rejects with NetworkError, HttpError, or NeedsAuthError, the last once a renewed token was
   * refused, too.
   */
  async post(path: string, body: unknown): Promise<unknown> {
    let reply = await this.send(path, body, false);
    if (reply.status === 401 && this.auth !== "cookie") reply = await this.send(path, body, true);
    if (reply.status === 401) throw new NeedsAuthError();
    let value: unknown;
    try {
      value = JSON.parse(reply.body);
    } catch {
      if (reply.status < 300) throw unreadable();
    }
    if (reply.status < 300) return value;
    const problem = (value as Problem | undefined)?.code ? (value as Problem) : undefined;
    const retryAfter = secondsOf(reply.header("retry-after"), this.runtime.now());
    throw new HttpError(reply.status, problem, retryAfter ?? problem?.retryAfter);
  }

  private async send(path: string, body: unknown, renew: boolean): Promise<Reply> {
    const headers: { [name: string]: string } = { "content-type": "application/json" };
    let token: string | undefined;
    try {
      token = await this.token(renew);
    } catch (cause) {
      if (cause instanceof NeedsAuthError) throw cause;
      throw new NetworkError("No token could be had", { cause });
    }
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    if (this.schema !== undefined) headers["rowcast-schema"] = String(this.schema);
    const abort = new AbortController();
    const stop = this.runtime.later(() => abort.abort(), this.timeout);
    const began = this.runtime.now();
    try {
      const reply = await this.transport.post(path, JSON.stringify(body), headers, abort.signal);
      const date = reply.header("date");
      this.answered = true;
      if (date) this.clock.adjust(date, this.runtime.now() - began, 1000);
      return reply;
    } catch (cause) {
      this.answered = false;
      throw new NetworkError("No answer came", { cause });
    } finally {
      stop();
    }
  }
}
