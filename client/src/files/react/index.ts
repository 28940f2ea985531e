import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from "react";
import type { Client } from "../../client.js";
import { RowcastError } from "../../errors.js";
import type { Json } from "../../json.js";
import { useClient } from "../../react/index.js";
import { createUploads, type Upload, type UploadState, type Uploads } from "../uploads.js";

const NONE: readonly UploadState[] = [];
const made = new WeakMap<Client, Uploads>();
/** What cannot be shown by a link younger than this is no picture. */
const FRESH_MILLISECONDS = 20_000;

/** The uploads of the client above, made when they are first asked for. `url`: the gateway's address, as of the client. */
export function useUploads(url?: string): Uploads {
  const client = useClient();
  let uploads = made.get(client);
  if (!uploads) {
    // It ends with the client, and one that was thrown away with its render would be another of the same.
    uploads = createUploads(client, url === undefined ? {} : { url });
    made.set(client, uploads);
  }
  return uploads;
}

/** What `useUpload` gives. */
export interface UploadHook {
  /** Those of this table and parent that are not ready, in the order they were added. */
  readonly uploads: readonly UploadState[];
  /** Adds a file to this parent. */
  add(file: Blob & { readonly name?: string }): Upload;
  /** Tries one that failed again. */
  retry(id: string): void;
  /** Gives one up. */
  abort(id: string): void;
}

/** The uploads to one parent: `useUpload(uploads, "taskFiles", { taskId })`. */
export function useUpload(
  uploads: Uploads,
  table: string,
  values: { readonly [key: string]: Json },
): UploadHook {
  const all = useSyncExternalStore(uploads.all.subscribe, uploads.all.getSnapshot, () => NONE);
  // The same object for the same values, however the caller writes them.
  const text = JSON.stringify(values);
  const given = useMemo<{ readonly [key: string]: Json }>(() => JSON.parse(text), [text]);
  const mine = useMemo(
    () =>
      all.filter(
        (upload) =>
          upload.table === table &&
          Object.entries(given).every(([key, value]) => upload.record[key] === value),
      ),
    [all, table, given],
  );
  const add = useCallback(
    (file: Blob & { readonly name?: string }) => uploads.add(table, file, given),
    [uploads, table, given],
  );
  const retry = useCallback((id: string) => void uploads.retry(id), [uploads]);
  const abort = useCallback((id: string) => void uploads.abort(id), [uploads]);
  return { uploads: mine, add, retry, abort };
}

/** What `useFileUrl` gives. */
export interface FileUrl {
  /** Undefined while it is fetched, and where it cannot be had. */
  readonly url: string | undefined;
  readonly error: RowcastError | null;
  /**
   * Asks for another: a link lives for a minute. For `onError` of an image: what a new link does not show either is the
   * error `unreadable`.
   */
  refresh(): void;
}

interface Found {
  /** What was asked for. */
  readonly for: string;
  /** When the answer came. */
  readonly at: number;
  readonly turn: number;
  readonly url?: string | undefined;
  readonly error?: RowcastError;
}

/**
 * A link to show a file by, fetched once; null for the id: none. For a download ask `uploads.url` when it is clicked: a
 * link lives for a minute.
 */
export function useFileUrl(
  uploads: Uploads,
  table: string,
  id: string | null,
  { inline = true }: { inline?: boolean } = {},
): FileUrl {
  const [turn, setTurn] = useState(0);
  const [found, show] = useState<Found>();
  const key = JSON.stringify([table, id, inline, turn]);
  useEffect(() => {
    if (id === null) return;
    let wanted = true;
    uploads.url(table, id, { inline, fresh: turn > 0 }).then(
      (url) => wanted && show({ for: key, at: Date.now(), url, turn }),
      (error) => wanted && show({ for: key, at: Date.now(), error: error as RowcastError, turn }),
    );
    return () => {
      wanted = false;
    };
  }, [uploads, table, id, inline, turn, key]);
  const refresh = useCallback(() => {
    if (found?.url && found.turn > 0 && Date.now() - found.at < FRESH_MILLISECONDS) {
      const error = new RowcastError("unreadable", "What the link leads to cannot be shown.");
      show({ ...found, url: undefined, error });
    } else {
      setTurn((last) => last + 1);
    }
  }, [found]);
  const current = found?.for === key ? found : undefined;
  return { url: current?.url, error: current?.error ?? null, refresh };
}
