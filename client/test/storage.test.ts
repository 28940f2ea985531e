import { IDBFactory } from "fake-indexeddb";
import { describe, expect, it } from "vitest";
import { type Change, type Storage, StorageError, StorageFullError } from "../src/storage.js";
import { indexedDbStorage } from "../src/storage-indexeddb.js";
import { memoryStorage } from "../src/storage-memory.js";

const kinds: [string, () => Storage][] = [
  ["memory", () => memoryStorage()],
  ["IndexedDB", () => indexedDbStorage(new IDBFactory())],
];

describe.each(kinds)("a store in %s", (_name, make) => {
  it("keeps what is committed, in the order of the keys, also for whoever opens it next", async () => {
    const storage = make();
    const store = await storage.open("n");
    await store.commit([
      { store: "records", key: "b", value: { x: 2 } },
      { store: "records", key: "a", value: { x: 1 } },
      { store: "meta", key: "m", value: "M" },
    ]);
    await store.commit([{ store: "meta", key: "m", remove: true }], { strict: true });
    const other = await storage.open("n");
    expect(await other.all("records")).toEqual([
      ["a", { x: 1 }],
      ["b", { x: 2 }],
    ]);
    expect(await other.all("records", 1)).toEqual([["a", { x: 1 }]]);
    expect(await other.get("records", "b")).toEqual({ x: 2 });
    expect(await other.get("meta", "m")).toBeUndefined();
    expect(await (await storage.open("another")).all("records")).toEqual([]);
  });

  it("numbers what is appended, sortable and never twice", async () => {
    const store = await make().open("n");
    const [first, second] = await store.append(["a", "b"], []);
    const [third] = await store.append(
      ["c"],
      [{ store: "queue", key: first as string, remove: true }],
    );
    await store.commit([{ store: "queue", key: third as string, remove: true }]);
    const [fourth] = await store.append(["d"], []);
    expect([first, second, third, fourth]).toEqual([first, second, third, fourth].sort());
    expect(new Set([first, second, third, fourth]).size).toBe(4);
    expect(await store.all("queue")).toEqual([
      [second, "b"],
      [fourth, "d"],
    ]);
    await store.commit([{ store: "queue", key: second as string, value: "B" }]);
    expect(await store.get("queue", second as string)).toBe("B");
  });

  it("revises in the order of the changes; what is thrown undoes everything", async () => {
    const store = await make().open("n");
    await store.commit([{ store: "meta", key: "n", value: 1 }]);
    const seen: unknown[] = [];
    await store.commit([
      {
        store: "meta",
        key: "n",
        revise: (stored) => {
          seen.push(stored);
          return Number(stored) + 1;
        },
      },
      {
        store: "meta",
        key: "o",
        revise: (stored) => {
          seen.push(stored);
          return undefined;
        },
      },
    ]);
    expect(seen).toEqual([1, undefined]);
    const failed = new Error("no");
    await expect(
      store.append(
        ["x"],
        [
          { store: "meta", key: "n", value: 9 },
          {
            store: "meta",
            key: "o",
            revise: () => {
              throw failed;
            },
          },
        ],
      ),
    ).rejects.toBe(failed);
    expect(await store.get("meta", "n")).toBe(2);
    expect(await store.all("queue")).toEqual([]);
  });

  it("is empty after it was removed", async () => {
    const storage = make();
    const store = await storage.open("n");
    await store.append(["a"], [{ store: "meta", key: "n", value: 1 }]);
    store.close();
    await storage.remove("n");
    const again = await storage.open("n");
    expect([...(await again.all("queue")), ...(await again.all("meta"))]).toEqual([]);
  });
});

describe("IndexedDB", () => {
  it("makes a large commit a part at a time, in order, all or nothing", async () => {
    const store = await indexedDbStorage(new IDBFactory()).open("n");
    const seen: number[] = [];
    const many = (last: (stored: unknown) => unknown): Change[] =>
      Array.from({ length: 1234 }, (_, n) => ({
        store: n % 7 ? "records" : "meta",
        key: `k${n}`,
        revise: (stored: unknown) => {
          seen.push(n);
          return n < 1233 ? n : last(stored);
        },
      }));
    const failed = new Error("no");
    const refused = many(() => {
      throw failed;
    });
    await expect(store.append(["x"], refused)).rejects.toBe(failed);
    expect(await store.all("records")).toEqual([]);
    expect(await store.all("queue")).toEqual([]);
    seen.length = 0;
    await store.append(
      ["x"],
      many(() => 1233),
    );
    expect(seen).toEqual(Array.from({ length: 1234 }, (_, n) => n));
    expect((await store.all("records")).length + (await store.all("meta")).length).toBe(1234);
    expect((await store.all("queue")).map(([, value]) => value)).toEqual(["x"]);
  });

  it("tells a store that was removed elsewhere, which then refuses", async () => {
    const storage = indexedDbStorage(new IDBFactory());
    const store = await storage.open("n");
    const removed = new Promise<void>((resolve) => store.onRemoved?.(resolve));
    await storage.remove("n");
    await removed;
    await expect(store.append(["a"], [])).rejects.toBeInstanceOf(StorageError);
    await expect(store.all("queue")).rejects.toBeInstanceOf(StorageError);
  });

  it("says that there is no room, and has changed nothing", async () => {
    const store = await indexedDbStorage(new IDBFactory()).open("n");
    await store.commit([{ store: "meta", key: "n", value: 1 }]);
    const full = {
      store: "meta" as const,
      key: "o",
      revise: () => {
        throw new DOMException("full", "QuotaExceededError");
      },
    };
    const change = store.commit([{ store: "meta", key: "n", value: 2 }, full]);
    await expect(change).rejects.toBeInstanceOf(StorageFullError);
    expect(await store.get("meta", "n")).toBe(1);
  });
});
