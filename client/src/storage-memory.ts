import { type Change, rowKey, type Storage, type Store, type StoreName } from "./storage.js";

/**
 * Keeps everything in memory until the page ends: for private windows, servers and tests. `durable`: say that it
 * outlives the page, for tests in which several clients share one storage as tabs share a disk.
 */
export function memoryStorage({ durable = false } = {}): Storage {
  const stores = new Map<string, { parts: Map<StoreName, Map<string, unknown>>; last: number }>();
  return {
    async open(name) {
      const held = stores.get(name) ?? { parts: new Map(), last: 0 };
      stores.set(name, held);
      return memoryStore(held, durable);
    },
    async remove(name) {
      stores.get(name)?.parts.clear();
      stores.delete(name);
    },
  };
}

function memoryStore(
  held: { parts: Map<StoreName, Map<string, unknown>>; last: number },
  durable: boolean,
): Store {
  const part = (name: StoreName) => {
    const found = held.parts.get(name) ?? new Map<string, unknown>();
    held.parts.set(name, found);
    return found;
  };
  /** What is thrown on the way leaves everything as it was. */
  const apply = (changes: readonly Change[]) => {
    const made = changes.map((change): unknown => {
      if ("revise" in change) return change.revise(part(change.store).get(change.key));
      return "value" in change ? change.value : undefined;
    });
    changes.forEach(({ store, key }, at) => {
      if (made[at] === undefined) part(store).delete(key);
      else part(store).set(key, made[at]);
    });
  };
  return {
    durable,
    async all<T>(name: StoreName, most?: number) {
      const rows = [...part(name)].sort(([a], [b]) => (a < b ? -1 : 1)) as [string, T][];
      return rows.slice(0, most);
    },
    async get<T>(name: StoreName, key: string) {
      return part(name).get(key) as T | undefined;
    },
    async commit(changes) {
      apply(changes);
    },
    async append(values, changes) {
      apply(changes);
      return values.map((value) => {
        const key = rowKey(++held.last);
        part("queue").set(key, value);
        return key;
      });
    },
    close() {},
  };
}
