import type { Cache } from "./cache.js";
import { RowcastError } from "./errors.js";
import type { Runtime } from "./runtime.js";
import { type Origin, placeOf, type Slot } from "./slots.js";
import type { Socket } from "./socket.js";
import { type KeyRow, type Vault, vouches } from "./vault.js";
import type { Cursor, FrameId, Key, SubscribedFrame } from "./wire.gen.js";

/** How a key stands on the present connection. */
export type KeyStatus = "off" | "joining" | "live" | "refused";

/** A key somebody needs, or needed. */
export interface KeyState {
  readonly key: Key;
  users: number;
  status: KeyStatus;
  /** Everything before it has been taken in; undefined: nothing is known under this key. While live, the socket's, and of a stale key that from before. */
  cursor: Cursor | undefined;
  /** The tick from which on nothing under this key is missed, and that of the read it began with. */
  since: number | undefined;
  from: number;
  /** Changes from now on are enough: nothing is read under it. */
  fromNow: boolean;
  /** Its queries have to be run again, since a tick. */
  stale: boolean;
  staleAt: number;
  /** It was joined again since: what that answers is read, and that is all. */
  again: boolean;
  /** The subscription under way. */
  frame: FrameId | undefined;
  /** Whose knowledge the cursor is, if not this tab's. */
  origin: { tab: string; boot: number } | undefined;
  used: number;
  /** Another tab has removed it from storage with its records: it is not stored again. */
  lost: boolean;
  /** Why it cannot be subscribed to, where it was refused. */
  error: RowcastError | undefined;
}

/** A key as devtools show it. */
export interface KeyInfo {
  key: Key;
  users: number;
  status: KeyStatus;
  stale: boolean;
}

/** What keys have to say to what rests on them. */
export interface KeysHost {
  /** Something is to be done, or to be shown. */
  schedule(): void;
  joined(key: Key): void;
  /** Somebody looks at the record. */
  isWatched(slot: Slot): boolean;
  failed(error: unknown): void;
}

const RELEASE_MS = 5000;
const FRAME_CHARACTERS = 20_000;

/** Keys and cursors: who uses which key, and from where on its changes have been taken in. */
export class Keys {
  /** Where what is known of keys is stored. */
  vault: Vault | undefined;
  private readonly states = new Map<Key, KeyState>();
  private readonly holds = new Set<Key[]>();

  constructor(
    private readonly cache: Cache,
    private readonly socket: Socket,
    private readonly runtime: Runtime,
    private readonly host: KeysHost,
  ) {}

  /** What is known of a key. */
  get(key: Key): KeyState | undefined {
    return this.states.get(key);
  }

  /** What is known of a key; makes the place for it. */
  state(key: Key): KeyState {
    const state = this.states.get(key) ?? {
      key,
      users: 0,
      status: "off",
      cursor: undefined,
      since: undefined,
      from: 0,
      fromNow: false,
      stale: false,
      staleAt: -1,
      again: false,
      frame: undefined,
      origin: undefined,
      used: 0,
      lost: false,
      error: undefined,
    };
    this.states.set(key, state);
    return state;
  }

  /** All keys that something is known of. */
  all(): KeyState[] {
    return [...this.states.values()];
  }

  /** Takes in a row of storage, of this epoch. */
  restore(key: Key, row: KeyRow, epoch: string | undefined): void {
    const state = this.state(key);
    state.used = row.used;
    if (row.cursor === undefined || row.epoch !== epoch || state.cursor !== undefined) return;
    state.cursor = row.cursor;
    state.since = 0;
    state.stale = row.stale === true || row.rights !== this.vault?.rights;
    state.origin = { tab: row.tab, boot: row.boot };
  }

  /** Forgets a key. */
  drop(key: Key): void {
    this.states.delete(key);
  }

  /** Forgets all that belongs to a user; who holds a key keeps holding it. */
  clear(): void {
    this.states.clear();
    for (const [key] of this.holds) this.acquire(key as Key, true);
  }

  /** Writes to storage what is known of a key. */
  keep(state: KeyState): void {
    const { vault } = this;
    if (!vault || state.lost) return;
    const { key, status, cursor, stale, used, origin } = state;
    if (cursor === undefined && status !== "live") vault.keys.set(key, null);
    else {
      const { tab, boot, epoch, rights } = vault;
      const row: KeyRow = { tab, boot, epoch, rights, used, ...origin };
      if ((status !== "live" || stale) && cursor !== undefined) row.cursor = cursor;
      if (stale) row.stale = true;
      vault.keys.set(key, row);
    }
    vault.save();
  }

  // --- use ---

  /** Subscribes to a key for its changes alone. Gives what lets go of it. */
  hold(key: Key): () => void {
    const hold = [key];
    this.holds.add(hold);
    this.acquire(key, true);
    return () => {
      if (this.holds.delete(hold)) this.runtime.later(() => this.release(key), RELEASE_MS);
    };
  }

  /** One more needs a key. */
  acquire(key: Key, fromNow = false): void {
    const state = this.state(key);
    state.users++;
    state.fromNow ||= fromNow;
    state.used = this.runtime.now();
    this.host.schedule();
  }

  /** One less needs it. */
  release(key: Key): void {
    const state = this.states.get(key);
    if (!state || --state.users > 0) return;
    state.users = 0;
    state.fromNow = false;
    state.used = this.runtime.now();
    if (state.status === "live" || state.status === "joining") {
      this.socket.send({ type: "unsubscribe", id: this.socket.nextId(), keys: [key] });
    }
    this.off(state);
  }

  /** A read, sent at a tick, has found everything under a key; from its cursor on nothing is missed. */
  cover(state: KeyState, cursor: Cursor, from: number): void {
    state.cursor = cursor;
    state.from = from;
    state.since = this.cache.next();
    state.origin = undefined;
    this.keep(state);
  }

  /**
   * Everything under these stale keys was read. What changed just then the server may have kept to itself, since it knew
   * nothing of that read: joined again, once, it says so.
   */
  rejoin(states: readonly KeyState[]): void {
    const found: KeyState[] = [];
    const empty: KeyState[] = [];
    for (const state of states) {
      if (state.status === "live" && !state.again) {
        state.again = true;
        (this.heldUnder(state.key).length ? found : empty).push(state);
      } else {
        state.stale = state.again = false;
        this.keep(state);
      }
    }
    this.join(found);
    this.join(empty, true);
  }

  /** Whether what a row of storage tells holds as of a key's cursor, so that it can go on from there. */
  isResumable(key: Key, row: Origin): boolean {
    const state = this.states.get(key);
    if (!state || state.stale || state.since === undefined || state.status === "refused") {
      return false;
    }
    if (state.origin) return vouches(state.origin, row);
    return state.cursor !== undefined || state.status === "live";
  }

  /** Whether one of some keys went stale after a tick. */
  staleSince(keys: readonly Key[], tick: number): boolean {
    return keys.some((key) => (this.states.get(key)?.staleAt ?? -1) > tick);
  }

  // --- the connection ---

  /** Joins what is used and not joined. */
  subscribe(): void {
    if (this.socket.state !== "open" || !this.vault) return;
    const states = this.all().filter(
      ({ users, status, cursor, fromNow }) =>
        users && status === "off" && (cursor !== undefined || fromNow),
    );
    this.join(states);
  }

  /** Joins keys, grouped by cursor. */
  private join(joined: readonly KeyState[], empty?: boolean): void {
    const groups = new Map<Cursor | undefined, KeyState[]>();
    for (const state of joined) {
      const group = groups.get(state.cursor);
      if (group) group.push(state);
      else groups.set(state.cursor, [state]);
    }
    for (const [cursor, states] of groups) {
      while (states.length) {
        const id = this.socket.nextId();
        const keys: Key[] = [];
        let room = FRAME_CHARACTERS;
        while (states.length && room > 0) {
          const state = states.pop() as KeyState;
          keys.push(state.key);
          room -= state.key.length;
          state.status = "joining";
          state.frame = id;
        }
        this.socket.send({
          type: "subscribe",
          id,
          keys,
          ...(cursor !== undefined && { cursor }),
          ...(empty && { empty }),
        });
      }
    }
  }

  /** Slots whose server copies a key covers. */
  heldUnder(key: Key): Slot[] {
    const { cache } = this;
    const place = placeOf(cache.schema, key);
    if (!place) return [];
    const table = cache.table(place.table);
    // Found by what it shows, that is: a write of one's own may show it elsewhere.
    const found = new Set([...table.under([key]), ...table.overlaid]);
    return [...found].filter(
      (slot) =>
        slot.server && (key === table.name || cache.keysOf(slot, slot.server).includes(key)),
    );
  }

  /** The answer to a subscription. */
  subscribed({ id, cursor, versions, errors }: SubscribedFrame): void {
    const tick = this.cache.next();
    const refused = new Map(errors?.map(({ key, code }) => [key, code]));
    if (cursor && this.vault) this.vault.cursor = cursor;
    for (const state of this.states.values()) {
      if (state.frame !== id) continue;
      const { key, origin } = state;
      state.frame = undefined;
      const code = refused.get(key);
      if (code) {
        state.status = "refused";
        state.error = new RowcastError(code, `The key ${key} cannot be subscribed to.`);
        this.host.failed(state.error);
        continue;
      }
      state.status = "live";
      if (state.since === undefined) state.since = state.from = tick;
      if (origin) this.doubt(key, origin);
      state.origin = undefined;
      this.keep(state);
      this.host.joined(key);
      const slot = this.cache.slotOfKey(key);
      const version = versions[key];
      // Held and not readable: a change that told so was missed, or it says so in a moment. Asked for, it is certain.
      if (slot && (version !== undefined ? slot.version !== version : slot.server)) {
        if (slot.server || this.host.isWatched(slot)) this.cache.want(slot);
      }
    }
  }

  /** A subscription failed. Tells whether it was one of these keys'. */
  failed(id: FrameId | undefined): boolean {
    const states = this.all().filter(({ frame }) => frame !== undefined && frame === id);
    for (const state of states) {
      state.status = "off";
      state.frame = undefined;
    }
    return states.length > 0;
  }

  /** The connection has ended. */
  closed(): void {
    for (const state of this.states.values()) if (state.status !== "off") this.off(state);
  }

  /** Another epoch: no cursor counts any more. */
  age(): void {
    for (const state of this.states.values()) {
      state.cursor = state.since = state.origin = undefined;
      state.stale = false;
      this.keep(state);
    }
  }

  /** Keys have to be read again; `again`: so they were told when they were joined. */
  mark(keys: readonly Key[], again: boolean): void {
    const tick = this.cache.next();
    for (const key of keys) {
      const state = this.state(key);
      if (state.status === "live") state.cursor = this.vault?.cursor ?? state.cursor;
      state.stale = true;
      state.again &&= again;
      state.staleAt = state.from = tick;
      this.keep(state);
    }
  }

  /** A key is not live any more: from here on its own cursor counts. */
  private off(state: KeyState): void {
    if (state.status === "live" && !state.stale) state.cursor = this.vault?.cursor ?? state.cursor;
    state.status = "off";
    state.again = false;
    state.frame = state.error = undefined;
    if (state.cursor === undefined) state.since = undefined;
    this.keep(state);
  }

  /** Rows under a resumed key that the tab whose cursor it is does not vouch for have to be fetched. */
  private doubt(key: Key, by: { tab: string; boot: number }): void {
    const place = placeOf(this.cache.schema, key);
    if (!place) return;
    const table = this.cache.table(place.table);
    const ask = (slot: Slot) => {
      if (slot.origin && !vouches(by, slot.origin)) this.cache.want(slot);
    };
    for (const slot of table.under([key])) ask(slot);
    for (const slot of table.slots.values()) if (slot.server === null) ask(slot);
  }
}
