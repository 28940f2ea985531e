import { RowcastError } from "./errors.js";

/** The parts of a store. All but `queue` are keyed by their writers. */
export type StoreName = "records" | "keys" | "queries" | "queue" | "inbox" | "meta";

/** All parts of a store. */
export const STORE_NAMES: readonly StoreName[] = [
  "records",
  "keys",
  "queries",
  "queue",
  "inbox",
  "meta",
];

/** Puts a value. */
export interface Put {
  store: StoreName;
  key: string;
  value: unknown;
}

/** Removes a value. */
export interface Remove {
  store: StoreName;
  key: string;
  remove: true;
}

/**
 * Makes a value of the one that is stored, undefined standing for none, inside the same commit. It is called once
 * for each attempt and in the order of the changes. Giving back what it was given changes nothing; what it throws,
 * the commit rejects with, and nothing at all is changed.
 */
export interface Revise {
  store: StoreName;
  key: string;
  revise(stored: unknown): unknown;
}

/** One change of a commit. A commit names a key at most once. */
export type Change = Put | Remove | Revise;

/** How a commit is made. */
export interface CommitOptions {
  /** On disk when it resolves, not only with the operating system. */
  strict?: boolean;
}

/**
 * What is kept for one user of one server. Every tab opens it; commits of all tabs come one after the other.
 * Values are structured clones: JSON and undefined members.
 */
export interface Store {
  /** Whether it outlives the page, and other tabs see it. */
  readonly durable: boolean;
  /** The values of a part with their keys, in the order of the keys; the first `most` of them where given. */
  all<T>(store: StoreName, most?: number): Promise<[string, T][]>;
  /** One value. */
  get<T>(store: StoreName, key: string): Promise<T | undefined>;
  /** All changes or none. Rejects with StorageFullError where there is no room, and has then changed nothing. */
  commit(changes: readonly Change[], options?: CommitOptions): Promise<void>;
  /**
   * Appends to the queue and makes these changes, in one commit. The keys it gives sort as numbers do and are never
   * used twice, over all tabs.
   */
  append(
    values: readonly unknown[],
    changes: readonly Change[],
    options?: CommitOptions,
  ): Promise<string[]>;
  /** Calls back once somebody else has removed it: nothing can be stored any more. */
  onRemoved?(listener: () => void): void;
  /** Lets go of it. */
  close(): void;
}

/** Where stores are kept: IndexedDB, memory, SQLite, files. */
export interface Storage {
  /** Opens a store and makes it where there is none. */
  open(name: string): Promise<Store>;
  /** Removes a store with all it holds. Resolves when its contents are gone. */
  remove(name: string): Promise<void>;
}

/** There is no room left on the device. What was to be stored is not, and is not shown either. */
export class StorageFullError extends RowcastError {
  override name = "StorageFullError";

  constructor(options?: ErrorOptions) {
    super(
      "storage_full",
      "The device has no room for this change. Ask the user to free some space, then write it again.",
      options,
    );
  }
}

/** The store could not be read or written: it was removed, or the device failed. */
export class StorageError extends RowcastError {
  override name = "StorageError";

  constructor(message: string, options?: ErrorOptions) {
    super(
      "storage_failed",
      `${message}. Make a new client; what was queued is read again.`,
      options,
    );
  }
}

/** The key of a queue's row: numbers as texts that sort alike. */
export function rowKey(number: number): string {
  return String(number).padStart(16, "0");
}
