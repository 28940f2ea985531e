import { NetworkError } from "../transport.js";

/** What the store answered. */
export interface Sent {
  status: number;
  body: string;
}

/** Sends bytes to a link. Rejects with NetworkError where no answer came; `signal` gives up. */
export type Send = (
  url: string,
  bytes: Blob,
  headers: { readonly [name: string]: string },
  progress: (sent: number) => void,
  signal: AbortSignal,
) => Promise<Sent>;

/** By XMLHttpRequest, since fetch does not tell how far it is; by fetch where there is none. */
export const browserSend: Send = (url, bytes, headers, progress, signal) =>
  typeof XMLHttpRequest === "undefined"
    ? byFetch(url, bytes, headers, progress, signal)
    : byXhr(url, bytes, headers, progress, signal);

const byFetch: Send = async (url, bytes, headers, progress, signal) => {
  try {
    const answer = await fetch(url, { method: "PUT", body: bytes, headers, signal });
    progress(bytes.size);
    return { status: answer.status, body: await answer.text() };
  } catch (cause) {
    throw new NetworkError("The file was not sent", { cause });
  }
};

const byXhr: Send = (url, bytes, headers, progress, signal) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    const fail = () => {
      signal.removeEventListener("abort", abort);
      reject(new NetworkError("The file was not sent"));
    };
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onload = () => {
      signal.removeEventListener("abort", abort);
      resolve({ status: request.status, body: request.responseText });
    };
    request.onerror = request.onabort = request.ontimeout = fail;
    request.open("PUT", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    if (signal.aborted) return fail();
    signal.addEventListener("abort", abort);
    request.send(bytes);
  });
