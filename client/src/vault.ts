import type { RecordData } from "./json.js";
import type { Runtime } from "./runtime.js";
import type { Origin, Slot } from "./slots.js";
import { type Change, type CommitOptions, StorageFullError, type Store } from "./storage.js";
import type { Cursor, Key } from "./wire.gen.js";

/** A record as it is stored. */
export interface RecordRow {
  /** The server's copy; null, known not to be there; left out, never heard. */
  record?: RecordData | null;
  /** It has to be fetched. */
  want?: true;
  tab: string;
  commit: number;
  epoch: string | undefined;
  /** When it was stored. */
  at: number;
}

/** A key as it is stored. */
export interface KeyRow {
  /** The tab whose knowledge this is, and the commit up to which that tab had read everything. */
  tab: string;
  boot: number;
  epoch: string | undefined;
  /** Under which rights it was read. */
  rights?: string | undefined;
  /** Left out while the tab's own cursor counts; of a stale key where it went stale. */
  cursor?: Cursor;
  /** Its queries have to be run again. */
  stale?: true;
  /** When it was last used. */
  used: number;
}

/** A query whose result is complete as of the cursors of its keys. */
export interface QueryRow {
  tab: string;
  commit: number;
  /** Under which rights it was read. */
  rights?: string | undefined;
  keys: readonly Key[];
  limit: number | null;
  count: number;
  next?: string | undefined;
  boundary?: RecordData | undefined;
}

/** A tab's own cursor: true for every key it says to be live. */
export interface TabRow {
  cursor: Cursor | undefined;
  epoch: string | undefined;
}

/** What was found in storage. */
export interface Loaded {
  epoch: string | undefined;
  records: [Key, RecordRow][];
  keys: Map<Key, KeyRow>;
  queries: Map<string, QueryRow>;
}

const DAY = 86_400_000;
const DELAY = 200;

/**
 * Writes what is known to storage, a little later and all together: records, keys, and the cursor they are true for.
 *
 * Several tabs write the same records, each from its own stream. So each row says who wrote it and in which commit; a
 * key that is resumed from a tab's cursor trusts only rows that this tab wrote or had read when it began.
 */
export class Vault {
  /** The present epoch and cursor. */
  epoch: string | undefined;
  cursor: Cursor | undefined;
  /** What the user may read, as a name. */
  rights: string | undefined;
  /** The commit up to which this tab has read everything. */
  boot = 0;
  /** Rows that are out of date; null: to be removed. */
  readonly keys = new Map<Key, KeyRow | null>();
  readonly queries = new Map<string, QueryRow | null>();
  /** Makes room; gives what has to be removed for it. */
  relieve: () => Change[] = () => [];
  /** Keys whose rows another tab has removed, with their records. */
  lost: (key: Key) => void = () => {};
  private readonly slots = new Set<Slot>();
  private chain: Promise<void> = Promise.resolve();
  private stopTimer: (() => void) | undefined;
  private full = false;
  private changed = false;

  constructor(
    readonly store: Store,
    readonly tab: string,
    private readonly runtime: Runtime,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** Reads everything but the queue and the inbox. */
  async load(): Promise<Loaded> {
    const { store } = this;
    // Cursors first: records newer than their cursor are only told again, older ones would never be.
    const meta = new Map(await store.all<unknown>("meta"));
    const keys = new Map(await store.all<KeyRow>("keys"));
    const queries = new Map(await store.all<QueryRow>("queries"));
    const records = await store.all<RecordRow>("records");
    const still = new Map(await store.all<KeyRow>("keys"));
    const now = this.runtime.now();
    const removed: Change[] = [];
    this.boot = Number(meta.get("commit") ?? 0);
    this.epoch = meta.get("epoch") as string | undefined;
    this.rights = meta.get("rights") as string | undefined;
    const tabs = new Set<string>();
    for (const [key, row] of keys) {
      // Removed while records were read, and some of those with it.
      if (!still.has(key)) keys.delete(key);
      if (row.cursor !== undefined) continue;
      tabs.add(row.tab);
      const own = meta.get(`tab:${row.tab}`) as TabRow | undefined;
      if (own?.cursor !== undefined && own.epoch === row.epoch) {
        keys.set(key, { ...row, cursor: own.cursor });
      }
    }
    for (const key of meta.keys()) {
      if (key.startsWith("tab:") && !tabs.has(key.slice(4))) {
        removed.push({ store: "meta", key, remove: true });
      }
    }
    const kept = records.filter(([key, row]) => {
      const keep = row.record || row.want || row.at > now - DAY;
      if (!keep) removed.push({ store: "records", key, remove: true });
      return keep;
    });
    if (removed.length) this.run(removed).catch(this.failed);
    return { epoch: this.epoch, records: kept, keys, queries };
  }

  /** What is stored of a record is out of date. */
  dirty(slot: Slot): void {
    this.slots.add(slot);
    this.save();
  }

  /** Something has to be written before long. */
  save(): void {
    this.changed = true;
    this.stopTimer ??= this.runtime.later(() => {
      this.flush().catch(this.failed);
    }, DELAY);
  }

  /** Writes everything now, together with these changes. */
  flush(extra: readonly Change[] = [], options?: CommitOptions): Promise<void> {
    const done = this.chain.then(() => this.write(extra, options));
    this.chain = done.catch(() => {});
    return done;
  }

  /** Appends to the queue, making room where there is none. */
  async append(values: readonly unknown[], changes: readonly Change[] = []): Promise<string[]> {
    const append = () => this.store.append(values, changes, { strict: true });
    try {
      return await append();
    } catch (error) {
      if (!(error instanceof StorageFullError)) throw error;
      await this.run(this.relieve());
      return append();
    }
  }

  /** Makes this tab's writing end. */
  close(): void {
    this.stopTimer?.();
    this.full = true;
  }

  private run(changes: readonly Change[]): Promise<void> {
    return changes.length ? this.store.commit(changes) : Promise.resolve();
  }

  private async write(extra: readonly Change[], options?: CommitOptions): Promise<void> {
    this.stopTimer?.();
    this.stopTimer = undefined;
    if (this.full || !this.changed)
      return extra.length ? this.store.commit(extra, options) : undefined;
    const slots = [...this.slots];
    const keys = [...this.keys];
    const queries = [...this.queries];
    this.slots.clear();
    this.keys.clear();
    this.queries.clear();
    this.changed = false;
    const changes = [...this.changes(slots, keys, queries), ...extra];
    try {
      try {
        await this.store.commit(changes, options);
      } catch (error) {
        if (!(error instanceof StorageFullError)) throw error;
        await this.run(this.relieve());
        await this.store.commit(changes, options);
      }
    } catch (error) {
      // From here on storage stays as it is: records and cursors there fit together.
      this.full = true;
      this.failed(error);
      if (extra.length) await this.store.commit(extra, options);
    }
  }

  private changes(
    slots: readonly Slot[],
    keys: readonly [Key, KeyRow | null][],
    queries: readonly [string, QueryRow | null][],
  ): Change[] {
    const { tab, boot, epoch, cursor, rights } = this;
    const at = this.runtime.now();
    let commit = 0;
    const changes: Change[] = [
      {
        store: "meta",
        key: "commit",
        revise: (stored) => {
          commit = Number(stored ?? 0) + 1;
          return commit;
        },
      },
      { store: "meta", key: "epoch", value: epoch },
      { store: "meta", key: "rights", value: rights },
      { store: "meta", key: `tab:${tab}`, value: { cursor, epoch } satisfies TabRow },
    ];
    for (const { key, server, want, old } of slots) {
      const row: Omit<RecordRow, "commit"> = { tab, epoch: old ? undefined : epoch, at };
      if (server !== undefined) row.record = server;
      if (want) row.want = true;
      changes.push({
        store: "records",
        key,
        revise(stored) {
          const other = stored as RecordRow | undefined;
          if (server === undefined && !want) return undefined;
          // Another tab is ahead. Its row stays, and stays its own.
          if (
            other?.record &&
            server &&
            other.tab !== tab &&
            other.commit > boot &&
            other.epoch === row.epoch &&
            Number(other.record.version) > Number(server.version)
          ) {
            return other;
          }
          return { ...row, commit };
        },
      });
    }
    for (const [key, row] of keys) {
      if (!row) {
        this.known.delete(key);
        changes.push({ store: "keys", key, remove: true });
      } else {
        changes.push({
          store: "keys",
          key,
          revise: (stored) => {
            // Another tab was short of room and removed it with its records.
            if (!stored && this.known.has(key)) {
              this.known.delete(key);
              this.lost(key);
              return undefined;
            }
            this.known.add(key);
            return row;
          },
        });
      }
    }
    for (const [key, row] of queries) {
      if (!row) changes.push({ store: "queries", key, remove: true });
      else changes.push({ store: "queries", key, revise: () => ({ ...row, rights, commit }) });
    }
    return changes;
  }

  /** Keys this tab has stored. */
  private readonly known = new Set<Key>();
}

/** Whether a tab vouches for a row: it wrote it, or had read it when it began. */
export function vouches(by: { tab: string; boot: number }, row: Origin): boolean {
  return row.tab === by.tab || row.commit <= by.boot;
}
