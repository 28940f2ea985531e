import { RefusedError, RowcastError } from "./errors.js";
import type { Problem } from "./wire.gen.js";

/** An answer of HTTP as it came. */
export interface Reply {
  status: number;
  /** A header by its name in lower case; null where there is none. */
  header(name: string): string | null;
  body: string;
}

/** What comes of a socket. After `closed` nothing more. */
export interface SocketEvents {
  opened(): void;
  message(text: string): void;
  closed(code: number, reason: string): void;
}

/** An open socket. */
export interface Connection {
  send(text: string): void;
  /** Ends it; `closed` need not be called any more. */
  close(): void;
}

/** How requests and frames travel. */
export interface Transport {
  /** POSTs JSON. Rejects where no answer came; `signal` gives up. */
  post(
    path: string,
    body: string,
    headers: { [name: string]: string },
    signal: AbortSignal,
  ): Promise<Reply>;
  /** Opens a WebSocket. */
  connect(path: string, events: SocketEvents): Connection;
}

/** fetch and WebSocket. `url` is the gateway's, without a path of its own. */
export function browserTransport(url: string): Transport {
  const base = url.replace(/\/+$/, "");
  return {
    async post(path, body, headers, signal) {
      const reply = await fetch(base + path, {
        method: "POST",
        body,
        headers,
        signal,
        credentials: "include",
        cache: "no-store",
      });
      return {
        status: reply.status,
        header: (name) => reply.headers.get(name),
        body: await reply.text(),
      };
    },
    connect(path, events) {
      const socket = new WebSocket(base.replace(/^http/, "ws") + path);
      socket.onopen = () => events.opened();
      socket.onmessage = (event) => events.message(String(event.data));
      socket.onclose = (event) => events.closed(event.code, event.reason);
      return {
        send: (text) => socket.send(text),
        close() {
          socket.onopen = socket.onmessage = socket.onclose = null;
          socket.close();
        },
      };
    },
  };
}

/**
 * Who asks. With `token`, a function that gives the present token, or null for nobody; `renew` asks for another than
 * the last, which was refused. With "cookie", the browser's cookie.
 */
export type Auth =
  | "cookie"
  | { token(options: { renew: boolean }): Promise<string | null> | string | null };

/** There was no answer, or none that could be read. It is worth trying again. */
export class NetworkError extends RowcastError {
  override name = "NetworkError";

  constructor(message: string, options?: ErrorOptions) {
    super("network", `${message}. It is tried again by itself.`, options);
  }
}

/** The server does not know the user any more, or the token is somebody else's. What is queued stays queued. */
export class NeedsAuthError extends RowcastError {
  override name = "NeedsAuthError";

  constructor() {
    super("needs_auth", "Sign in again as the same user, then call client.resume().");
  }
}

/** A refused request. `retryAfter` is in seconds. */
export class HttpError extends RowcastError {
  override name = "HttpError";
  readonly status: number;
  readonly problem: Problem | undefined;
  readonly retryAfter: number | undefined;

  constructor(status: number, problem: Problem | undefined, retryAfter: number | undefined) {
    const code = problem?.code ?? "http";
    super(code, problem ? new RefusedError(problem).message : `The server answered ${status}.`);
    this.status = status;
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}
