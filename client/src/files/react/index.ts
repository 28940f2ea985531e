import { useCallback, useEffect, useMemo, useState, useSyncExternalStore } from "react";
import type { RowcastError } from "../../errors.js";
import type { Json } from "../../json.js";
import type { Upload, UploadState, Uploads } from "../uploads.js";

const NONE: readonly UploadState[] = [];

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
  /** Asks for another: a link lives for a minute. For `onError` of an image. */
  refresh(): void;
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
  const [found, show] = useState<{ for: string; url?: string; error?: RowcastError }>();
  const key = JSON.stringify([table, id, inline, turn]);
  useEffect(() => {
    if (id === null) return;
    let wanted = true;
    uploads.url(table, id, { inline, fresh: turn > 0 }).then(
      (url) => wanted && show({ for: key, url }),
      (error) => wanted && show({ for: key, error: error as RowcastError }),
    );
    return () => {
      wanted = false;
    };
  }, [uploads, table, id, inline, turn, key]);
  const refresh = useCallback(() => setTurn((last) => last + 1), []);
  const current = found?.for === key ? found : undefined;
  return { url: current?.url, error: current?.error ?? null, refresh };
}
