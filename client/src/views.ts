import type { Cache } from "./cache.js";
import type { RowcastError } from "./errors.js";
import { LiveQuery, type QuerySpec, type QueryState, type QueryStatus, queryId } from "./query.js";
import { listen } from "./readable.js";
import type { Runtime } from "./runtime.js";
import type { Slot } from "./slots.js";
import type { Key } from "./wire.gen.js";

/** A query somebody looks at, and how far it is loaded. */
export interface Load {
  readonly query: LiveQuery;
  /** Complete as of the cursors of its keys. */
  loaded: boolean;
  loading: boolean;
  /** Has to be run again after the present run. */
  again: boolean;
  /** Has to be run as soon as something can be read. */
  due: boolean;
  /** Read again whole, whatever versions are held. */
  whole: boolean;
  error: RowcastError | undefined;
  keys: readonly Key[];
  next: string | undefined;
  count: number;
  filled: number;
  /** Ticks: when its last run was sent and taken in. */
  sentAt: number;
  takenAt: number;
  running: boolean;
  release: (() => void) | undefined;
}

/** Somebody looks at one record. */
export interface Watch {
  readonly slot: Slot;
  users: number;
  /** Whether it holds the record's own key: no query looks after the record. */
  own: boolean;
  release: (() => void) | undefined;
}

/** What loads that which is looked at and keeps it live, once it is there. */
export interface Loader {
  reviving(load: Load): void;
  begin(load: Load): void;
  released(load: Load): void;
  watched(watch: Watch): void;
  unwatched(watch: Watch): void;
  statusOf(load: Load): QueryStatus;
}

const RELEASE_MS = 5000;

/** Queries and records that somebody looks at, and a little longer. */
export class Views {
  readonly loads = new Map<string, Load>();
  readonly watches = new Map<Slot, Watch>();
  loader: Loader | undefined;
  /** What is to be let go, and when: the first one first. */
  private readonly leaving = new Map<() => void, number>();
  private waiting = false;

  constructor(
    private readonly cache: Cache,
    private readonly runtime: Runtime,
  ) {}

  /** A query that loads and stays live while somebody listens, and a little longer. */
  query(spec: QuerySpec): Load {
    const table = this.cache.table(spec.table).schema;
    return (
      this.loads.get(queryId(spec)) ?? {
        query: new LiveQuery(spec, table),
        loaded: false,
        loading: false,
        again: false,
        due: false,
        whole: false,
        error: undefined,
        keys: [],
        next: undefined,
        count: 0,
        filled: 0,
        sentAt: 0,
        takenAt: 0,
        running: false,
        release: undefined,
      }
    );
  }

  /** The present result. */
  snapshot(asked: Load): QueryState {
    const { query } = this.revive(asked);
    this.cache.settle();
    return query.snapshot;
  }

  /** Loads a query and keeps it live while there are listeners. */
  subscribeQuery(asked: Load, listener: () => void): () => void {
    const load = this.revive(asked);
    const { query } = load;
    load.release?.();
    load.release = undefined;
    const end = listen(query.listeners, listener);
    if (!load.running) {
      load.running = true;
      this.loader?.begin(load);
    }
    return () => {
      end();
      if (!query.listeners.size) this.releaseLater(load);
    };
  }

  /** The one load of a query: this one, if there is none. */
  revive(asked: Load): Load {
    const load = this.loads.get(asked.query.id) ?? asked;
    const { query } = load;
    if (query.attached) return load;
    this.loads.set(query.id, load);
    this.loader?.reviving(load);
    this.cache.attach(query);
    query.mark(this.loader?.statusOf(load) ?? "loading");
    query.refresh();
    this.releaseLater(load);
    return load;
  }

  private releaseLater(load: Load): void {
    load.release?.();
    load.release = this.later(() => {
      const { query } = load;
      this.loads.delete(query.id);
      this.cache.detach(query);
      load.running = false;
      load.release = undefined;
      this.loader?.released(load);
    });
  }

  /** Loads a record and keeps it live while there are listeners. */
  subscribeRecord(slot: Slot, listener: () => void): () => void {
    const watch = this.watches.get(slot) ?? { slot, users: 0, own: false, release: undefined };
    this.watches.set(slot, watch);
    watch.release?.();
    watch.release = undefined;
    watch.users++;
    const end = listen(slot.listeners, listener);
    this.loader?.watched(watch);
    return () => {
      end();
      if (--watch.users) return;
      watch.release?.();
      watch.release = this.later(() => {
        this.watches.delete(slot);
        this.loader?.unwatched(watch);
      });
    };
  }

  /** Does something when nobody has called it off for a while: all at once, where thousands leave together. */
  private later(work: () => void): () => void {
    this.leaving.set(work, this.runtime.now() + RELEASE_MS);
    this.wait();
    return () => void this.leaving.delete(work);
  }

  private wait(): void {
    const [next] = this.leaving.values();
    if (this.waiting || next === undefined) return;
    this.waiting = true;
    const left = next - this.runtime.now();
    this.runtime.later(
      () => {
        this.waiting = false;
        const now = this.runtime.now();
        for (const [leave, at] of this.leaving) {
          // Where the clock was set back it is time, too.
          if (at > now && at - now <= RELEASE_MS) break;
          this.leaving.delete(leave);
          leave();
        }
        this.wait();
      },
      Math.min(Math.max(left, 0), RELEASE_MS),
    );
  }
}
