import type { Cache } from "./cache.js";
import { type Http, readAnswer } from "./http.js";
import type { Keys } from "./keys.js";
import type { Slot } from "./slots.js";
import type { Watch } from "./views.js";
import type { GetRecordsAnswer } from "./wire.gen.js";

/** What fetching needs of what is around it. */
export interface RecordsHost {
  schedule(): void;
  /** Whether the server may be asked now. */
  ready(): boolean;
  /** A loaded query shows the record, so that it is up to date and stays so. */
  isCovered(slot: Slot): boolean;
  /** A request went well, or did not; tells whether it would be refused again. */
  recovered(): void;
  isFinal(error: unknown): boolean;
  retryLater(error: unknown): void;
  failed(error: unknown): void;
  /** What an answer about one record says. */
  take(slot: Slot, record: GetRecordsAnswer["recordMap"][string][string], sent: number): void;
}

const MAX_POINTERS = 1000;

/** Single records: those somebody looks at, and those that have to be fetched. */
export class Records {
  private readonly wants = new Set<Slot>();
  private fetching = false;
  /** Counts users: what was asked for an earlier one is dropped. */
  private generation = 0;

  constructor(
    private readonly cache: Cache,
    private readonly keys: Keys,
    private readonly http: Http,
    private readonly watches: ReadonlyMap<Slot, Watch>,
    private readonly host: RecordsHost,
  ) {}

  /** Forgets all that belongs to a user; who looks keeps looking. */
  clear(): void {
    this.generation++;
    this.wants.clear();
    this.fetching = false;
    for (const watch of this.watches.values()) watch.own = false;
  }

  // --- who looks ---

  /** Somebody looks at the record. */
  isWatched(slot: Slot): boolean {
    return this.watches.has(slot);
  }

  /** All that somebody looks at have to be fetched. */
  wantAll(): void {
    for (const slot of this.watches.keys()) this.cache.want(slot);
  }

  /** What looked after a record may not do so any more; left out, of any of them. */
  check(slot?: Slot): void {
    for (const watch of slot ? [this.watches.get(slot)] : this.watches.values()) {
      if (watch) this.ensure(watch);
    }
  }

  /** A watched record is looked after by a query that is there anyway, else by its own key. */
  ensure(watch: Watch): void {
    const { slot } = watch;
    if (!this.keys.vault) return;
    if (!watch.own) {
      if (this.host.isCovered(slot)) return;
      watch.own = true;
      this.keys.acquire(slot.key);
    }
    const { since } = this.keys.state(slot.key);
    if (since === undefined || slot.server === undefined) {
      this.cache.want(slot);
      // Whatever is on its way: the answer says from where on the key is covered.
      this.want(slot);
    }
  }

  // --- fetching ---

  /** A record has to be fetched. */
  want(slot: Slot): void {
    this.wants.add(slot);
    this.host.schedule();
  }

  /** Fetches what is wanted, one request after the other. */
  async fetch(): Promise<void> {
    if (this.fetching || !this.wants.size || !this.host.ready()) return;
    const { generation } = this;
    const mine = () => generation === this.generation;
    this.fetching = true;
    try {
      while (this.wants.size) {
        const slots = this.next();
        try {
          await this.fetchSome(slots, mine);
          if (!mine()) return;
          this.host.recovered();
        } catch (error) {
          if (!mine()) return;
          if (this.host.isFinal(error)) {
            for (const slot of slots) slot.wantedAt = 0;
            this.host.failed(error);
            continue;
          }
          for (const slot of slots) this.wants.add(slot);
          this.host.retryLater(error);
          return;
        }
      }
    } finally {
      if (mine()) {
        this.fetching = false;
        this.host.schedule();
      }
    }
  }

  /** Those of one table: one the server does not know must not hold the others. */
  private next(): Slot[] {
    const [first] = this.wants;
    const slots = [...this.wants].filter(({ table }) => table === first?.table);
    slots.length = Math.min(slots.length, MAX_POINTERS);
    for (const slot of slots) this.wants.delete(slot);
    return slots;
  }

  private async fetchSome(slots: readonly Slot[], mine: () => boolean): Promise<void> {
    const { cache, keys } = this;
    const pointers = slots.map(({ table, id, server, version }) => ({
      table: table.name,
      id,
      ...(server && { version }),
    }));
    const sent = cache.next();
    const answer = readAnswer<GetRecordsAnswer>(
      await this.http.post("/api/realtime/getRecords", { pointers }),
      ["gone"],
      ["cursor"],
    );
    if (!mine()) return;
    if (sent < cache.epochAt) {
      for (const slot of slots) this.wants.add(slot);
      return;
    }
    const gone = new Set(answer.gone.map(({ id }) => id));
    for (const slot of slots) {
      const { table, id, key } = slot;
      const record = answer.recordMap[table.name]?.[id];
      if (record) this.host.take(slot, record, sent);
      else if (gone.has(id)) cache.takeRead(slot, null, sent);
      else if (slot.server) cache.confirm(slot, sent);
      // Something crossed it that is no answer to what was wanted.
      if (slot.want && slot.wantedAt <= sent) cache.want(slot);
      const state = keys.get(key);
      if (!state?.users) continue;
      if (state.since === undefined) keys.cover(state, answer.cursor, sent);
      else if (state.since > sent && this.watches.get(slot)?.own) cache.want(slot);
    }
  }
}
