import {
  type Change,
  type CommitOptions,
  rowKey,
  STORE_NAMES,
  type Storage,
  StorageError,
  StorageFullError,
  type Store,
  type StoreName,
} from "./storage.js";

/** Changes of one commit that are asked for together. */
const AT_ONCE = 100;

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(failure(request.error));
  });
}

/** `own`: thrown by what was to be stored, unless it is the browser's. */
function failure(cause: unknown, own = false): unknown {
  if (own && !(cause instanceof DOMException)) return cause;
  return (cause as DOMException | null)?.name === "QuotaExceededError"
    ? new StorageFullError({ cause })
    : new StorageError("The browser's storage failed", { cause });
}

/** Keeps everything in IndexedDB, one database per user. */
export function indexedDbStorage(factory: IDBFactory = indexedDB): Storage {
  return {
    async open(name) {
      const request = factory.open(name, 1);
      request.onupgradeneeded = () => {
        for (const store of STORE_NAMES) {
          request.result.createObjectStore(store, { autoIncrement: store === "queue" });
        }
      };
      return new IndexedDbStore(await done(request));
    },
    async remove(name) {
      // Emptied first: the database itself only goes once every tab has let go of it.
      const store = await this.open(name);
      await (store as IndexedDbStore).clear();
      store.close();
      factory.deleteDatabase(name);
    },
  };
}

class IndexedDbStore implements Store {
  readonly durable = true;
  private removed: (() => void) | undefined;

  constructor(private readonly database: IDBDatabase) {
    database.onversionchange = () => {
      database.close();
      this.removed?.();
    };
    database.onclose = () => this.removed?.();
  }

  async all<T>(name: StoreName, most?: number): Promise<[string, T][]> {
    const store = this.begin([name], "readonly").objectStore(name);
    const [keys, values] = await Promise.all([
      done(store.getAllKeys(null, most)),
      done(store.getAll(null, most)),
    ]);
    return keys.map((key, at) => [typeof key === "number" ? rowKey(key) : String(key), values[at]]);
  }

  async get<T>(name: StoreName, key: string): Promise<T | undefined> {
    return done(this.begin([name], "readonly").objectStore(name).get(inner(name, key)));
  }

  async commit(changes: readonly Change[], options?: CommitOptions): Promise<void> {
    if (changes.length) await this.run(changes, options);
  }

  async append(
    values: readonly unknown[],
    changes: readonly Change[],
    options?: CommitOptions,
  ): Promise<string[]> {
    const requests: IDBRequest<IDBValidKey>[] = [];
    await this.run(changes, options, (queue) => {
      for (const value of values) requests.push(queue.add(value));
    });
    return requests.map((request) => rowKey(request.result as number));
  }

  onRemoved(listener: () => void): void {
    this.removed = listener;
  }

  close(): void {
    this.database.close();
  }

  async clear(): Promise<void> {
    const transaction = this.begin([...STORE_NAMES], "readwrite", true);
    for (const name of STORE_NAMES) transaction.objectStore(name).clear();
    await completion(transaction);
  }

  private begin(names: StoreName[], mode: IDBTransactionMode, strict?: boolean): IDBTransaction {
    try {
      return this.database.transaction(names, mode, { durability: strict ? "strict" : "relaxed" });
    } catch (cause) {
      throw new StorageError("The browser's storage was closed", { cause });
    }
  }

  /** Resolves when the transaction has completed; whatever fails in it undoes all of it. */
  private async run(
    changes: readonly Change[],
    options: CommitOptions | undefined,
    append?: (queue: IDBObjectStore) => void,
  ): Promise<void> {
    const names = new Set(changes.map((change) => change.store));
    if (append) names.add("queue");
    const transaction = this.begin([...names], "readwrite", options?.strict);
    let thrown: unknown;
    const attempt = (work: () => void) => {
      try {
        work();
      } catch (error) {
        thrown ??= error;
        transaction.abort();
      }
    };
    const done = completion(transaction, () => thrown);
    const make = (change: Change): IDBRequest => {
      const store = transaction.objectStore(change.store);
      const key = inner(change.store, change.key);
      if ("remove" in change) return store.delete(key);
      if ("value" in change) return store.put(change.value, key);
      const request = store.get(key);
      request.addEventListener("success", () =>
        attempt(() => {
          const value = change.revise(request.result);
          if (value === undefined) store.delete(key);
          else if (value !== request.result) store.put(value, key);
        }),
      );
      return request;
    };
    let at = 0;
    /** Some at a time: between them the page may answer and paint. */
    const next = () =>
      attempt(() => {
        let request: IDBRequest | undefined;
        for (const most = at + AT_ONCE; at < most && at < changes.length; at++) {
          request = make(changes[at] as Change);
        }
        if (at < changes.length) request?.addEventListener("success", next);
        else append?.(transaction.objectStore("queue"));
      });
    next();
    await done;
  }
}

function completion(transaction: IDBTransaction, thrown?: () => unknown): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => {
      const error = thrown?.();
      reject(error === undefined ? failure(transaction.error) : failure(error, true));
    };
  });
}

/** Rows of the queue are numbered by the database itself. */
function inner(name: StoreName, key: string): IDBValidKey {
  return name === "queue" ? Number(key) : key;
}
