import { StorageError, StorageFullError } from "../storage.js";

/** What is kept of an upload besides its bytes. */
export interface Kept {
  readonly id: string;
  readonly table: string;
  readonly name: string;
  readonly type: string;
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly addedAt: number;
  /** The record as it is created. */
  readonly record: { readonly [key: string]: unknown };
  /** Whether the write that creates it is kept by the client. */
  readonly created: boolean;
}

/** Where uploads are kept until they are confirmed. */
export interface Shelf {
  /** Whether they survive the end of the page. */
  readonly durable: boolean;
  all(): Promise<Kept[]>;
  /** The bytes; undefined where they are not kept any more. */
  bytes(id: string): Promise<Blob | undefined>;
  /** Keeps it, and its bytes where they are given. Rejects with StorageFullError. */
  put(kept: Kept, bytes?: Blob): Promise<void>;
  remove(id: string): Promise<void>;
  /** Removes everything. */
  clear(): Promise<void>;
  close(): void;
  /** Removes everything and the shelf itself, closed or not. */
  destroy(): Promise<void>;
}

/** Opens a shelf by name. */
export type OpenShelf = (name: string) => Promise<Shelf>;

/** In memory: gone with the page. */
export function memoryShelf(): OpenShelf {
  const shelves = new Map<string, Map<string, { kept: Kept; bytes: Blob }>>();
  return async (name) => {
    const files = shelves.get(name) ?? new Map<string, { kept: Kept; bytes: Blob }>();
    shelves.set(name, files);
    return {
      durable: false,
      all: async () => [...files.values()].map(({ kept }) => kept),
      bytes: async (id) => files.get(id)?.bytes,
      async put(kept, bytes) {
        const held = bytes ?? files.get(kept.id)?.bytes;
        if (held) files.set(kept.id, { kept, bytes: held });
      },
      async remove(id) {
        files.delete(id);
      },
      async clear() {
        files.clear();
      },
      close() {},
      async destroy() {
        files.clear();
        shelves.delete(name);
      },
    };
  };
}

/** In IndexedDB, bytes and all: a database of its own for each user. */
export function indexedDbShelf(factory: IDBFactory = indexedDB): OpenShelf {
  return async (name) => {
    const request = factory.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("files", { keyPath: "id" });
      request.result.createObjectStore("bytes");
    };
    const database = await done(request);
    database.onversionchange = () => database.close();
    const begin = (mode: IDBTransactionMode) => {
      try {
        return database.transaction(["files", "bytes"], mode);
      } catch (cause) {
        throw new StorageError("The browser's storage was closed", { cause });
      }
    };
    const change = async (work: (files: IDBObjectStore, bytes: IDBObjectStore) => void) => {
      const transaction = begin("readwrite");
      await new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onabort = () => reject(failure(transaction.error));
        try {
          work(transaction.objectStore("files"), transaction.objectStore("bytes"));
        } catch (error) {
          reject(failure(error));
          transaction.abort();
        }
      });
    };
    return {
      durable: true,
      all: async () => done(begin("readonly").objectStore("files").getAll()),
      bytes: async (id) => done(begin("readonly").objectStore("bytes").get(id)),
      put: (kept, held) =>
        change((files, bytes) => {
          files.put(kept);
          if (held) bytes.put(held, kept.id);
        }),
      remove: (id) =>
        change((files, bytes) => {
          files.delete(id);
          bytes.delete(id);
        }),
      clear: () =>
        change((files, bytes) => {
          files.clear();
          bytes.clear();
        }),
      close: () => database.close(),
      async destroy() {
        database.close();
        await done(factory.deleteDatabase(name));
      },
    };
  };
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(failure(request.error));
  });
}

function failure(cause: unknown): Error {
  return (cause as DOMException | null)?.name === "QuotaExceededError"
    ? new StorageFullError({ cause })
    : new StorageError("The browser's storage failed", { cause });
}
