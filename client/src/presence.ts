import type { Json } from "./json.js";
import { type Batch, Cell, type Readable } from "./readable.js";
import type { Runtime } from "./runtime.js";
import type { Socket } from "./socket.js";
import type { BroadcastedFrame, Key, PeersFrame, PresentPeer } from "./wire.gen.js";

/** What one shows the others: a JSON object. */
export type PresenceState = { readonly [key: string]: Json };

/** Somebody who is present under a key: one socket of a user, with what it shows. */
export interface Peer {
  readonly peer: string;
  readonly userId: string | null;
  readonly state: PresenceState;
}

/** An event that somebody has sent. */
export interface Broadcast {
  readonly key: Key;
  readonly event: string;
  readonly payload: Json;
  readonly from: string | null;
}

const NOBODY: readonly Peer[] = [];

/** Who is where, and events among them. Nothing of it is stored or sent again. */
export class Presence {
  private readonly cells = new Map<Key, Cell<readonly Peer[]>>();
  private readonly states = new Map<Key, PresenceState>();
  private readonly listeners = new Map<Key, Set<(event: Broadcast) => void>>();
  private stopTimer: (() => void) | undefined;
  private heartbeat = 20;

  constructor(
    private readonly socket: Socket,
    private readonly batch: Batch,
    private readonly runtime: Runtime,
    /** Subscribes to a key for as long as it is needed. */
    private readonly hold: (key: Key) => () => void,
  ) {}

  /** The others under a key, while somebody listens. */
  peers(key: Key): Readable<readonly Peer[]> {
    const cell = this.cell(key);
    return {
      getSnapshot: cell.getSnapshot,
      subscribe: (listener) => {
        const release = this.hold(key);
        const end = cell.subscribe(listener);
        return () => {
          end();
          release();
        };
      },
    };
  }

  /** What the others see from now on; null leaves. Gives what leaves. */
  show(key: Key, state: PresenceState | null): void {
    const before = this.states.get(key);
    if (state) {
      if (!before) this.releases.set(key, this.hold(key));
      this.states.set(key, state);
    } else {
      this.states.delete(key);
      if (before) this.releases.get(key)?.();
      this.releases.delete(key);
    }
    if (state || before) this.say(key, state);
    this.repeat();
  }

  private readonly releases = new Map<Key, () => void>();

  /** Sends an event to the others under a key. False where there is no connection. */
  broadcast(key: Key, event: string, payload: Json): boolean {
    return this.socket.send({ type: "broadcast", key, event, payload });
  }

  /** Calls back for events of others. Gives what ends it. */
  onBroadcast(key: Key, listener: (event: Broadcast) => void): () => void {
    const release = this.hold(key);
    const own = (event: Broadcast) => listener(event);
    const all = this.listeners.get(key) ?? new Set();
    this.listeners.set(key, all.add(own));
    return () => {
      if (all.delete(own)) release();
    };
  }

  /** A key has been joined: what is shown under it is said again. */
  joined(key: Key): void {
    const state = this.states.get(key);
    if (state) this.say(key, state);
  }

  /** The connection is open, with this heartbeat in seconds. */
  opened(heartbeat: number): void {
    this.heartbeat = heartbeat || this.heartbeat;
  }

  /** The connection has ended: nobody is known to be there. */
  closed(): void {
    for (const cell of this.cells.values()) cell.set(NOBODY);
  }

  /** The user has changed: nothing is shown any more. */
  clear(): void {
    for (const key of [...this.states.keys()]) this.show(key, null);
    this.closed();
  }

  /** Who has come, changed or left. */
  take(frame: PeersFrame): void {
    const cell = this.cell(frame.key);
    const known = frame.full ? [] : cell.getSnapshot();
    const peers = new Map(known.map((peer) => [peer.peer, peer]));
    for (const { peer, userId, state } of frame.peers as readonly PresentPeer[]) {
      if (state) peers.set(peer, { peer, userId, state });
      else peers.delete(peer);
    }
    cell.set([...peers.values()]);
  }

  /** Somebody's event. */
  hear({ key, event, payload, from }: BroadcastedFrame): void {
    for (const listener of this.listeners.get(key) ?? []) listener({ key, event, payload, from });
  }

  private cell(key: Key): Cell<readonly Peer[]> {
    let cell = this.cells.get(key);
    if (!cell) {
      cell = new Cell(this.batch, NOBODY);
      this.cells.set(key, cell);
    }
    return cell;
  }

  private say(key: Key, state: PresenceState | null): void {
    this.socket.send({ type: "presence", key, state });
  }

  /** A state that is not said again within two heartbeats ends. */
  private repeat(): void {
    if (this.stopTimer || !this.states.size) return;
    this.stopTimer = this.runtime.later(() => {
      this.stopTimer = undefined;
      for (const [key, state] of this.states) this.say(key, state);
      this.repeat();
    }, this.heartbeat * 1000);
  }
}
