import { RowcastError } from "../errors.js";
import { isTransient } from "../http.js";
import type { Runtime } from "../runtime.js";
import { NetworkError } from "../transport.js";
import type { FileUploadAnswer } from "../wire.gen.js";
import type { Send } from "./send.js";

const STALLED = 60_000;

/** What sending takes. */
export interface Sending {
  send: Send;
  runtime: Runtime;
  /** Aborts it. */
  signal: AbortSignal;
  /** Is told how many bytes of the whole are there. */
  progress(sent: number): void;
}

/**
 * Sends bytes by a link, from where it says on, unless they are there already. Gives the receipt, where there is one.
 * Rejects with NetworkError where it is worth trying again, and where for a minute no byte went out.
 */
export async function sendBytes(
  { offset, headers }: FileUploadAnswer,
  url: string,
  bytes: Blob,
  { send, runtime, signal, progress }: Sending,
): Promise<string | undefined> {
  const stalled = new AbortController();
  const watch = () => runtime.later(() => stalled.abort(), STALLED);
  let stop = watch();
  const give = () => stalled.abort();
  signal.addEventListener("abort", give);
  try {
    const { status, body } = await send(
      url,
      offset ? bytes.slice(offset) : bytes,
      headers,
      (sent) => {
        stop();
        stop = watch();
        progress(offset + sent);
      },
      stalled.signal,
    );
    if (status < 300) return member(body, "receipt");
    const code = member(body, "code");
    // It was sent before, and the answer was lost: by the gateway's word, or the bucket's.
    if (code === "uploaded" || status === 412) return undefined;
    if (code === "mismatch") throw new RowcastError(code, "Other bytes arrived than were sent.");
    // A link that expired; what had arrived is gone; a bucket where two have written at once.
    const passes = status === 403 || code === "moved_on" || (status === 409 && !code);
    if (passes || isTransient(status)) {
      throw new NetworkError(`The store answered ${status}`);
    }
    throw new RowcastError(code ?? "http", `The store answered ${status}.`);
  } finally {
    stop();
    signal.removeEventListener("abort", give);
  }
}

/** A bucket answers with XML, or with nothing. */
function member(body: string, name: string): string | undefined {
  try {
    const value = JSON.parse(body)?.[name];
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}
