import type { Runtime } from "../src/runtime.js";
import type { Storage, Store } from "../src/storage.js";
import type { Tabs } from "../src/tabs.js";

/** Random numbers that follow from a seed. */
export function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Timer {
  at: number;
  number: number;
  work: () => void;
}

/** Lets everything run that waits for no timer. `rounds`: turns of the event loop, of which IndexedDB takes many. */
export async function settle(rounds = 4): Promise<void> {
  for (let round = 0; round < rounds; round++)
    await new Promise((resolve) => setImmediate(resolve));
}

/** One clock and one chance for all that takes part in a test. Nothing moves unless the test says so. */
export class World {
  now: number;
  /** Turns of the event loop after each timer. */
  rounds = 4;
  readonly random: () => number;
  private timers: Timer[] = [];
  private numbers = 0;

  constructor(seed = 1, now = Date.parse("2026-03-01T12:00:00Z")) {
    this.random = randomFrom(seed);
    this.now = now;
  }

  /** Runs something after a time. */
  later(work: () => void, milliseconds: number): () => void {
    const timer = { at: this.now + Math.max(0, milliseconds), number: ++this.numbers, work };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  /** Lets time pass, and everything happen that falls into it. */
  async advance(milliseconds: number): Promise<void> {
    const end = this.now + milliseconds;
    await settle(this.rounds);
    for (;;) {
      const [next] = this.timers.sort((a, b) => a.at - b.at || a.number - b.number);
      if (!next || next.at > end) break;
      this.timers.shift();
      this.now = Math.max(this.now, next.at);
      next.work();
      await settle(this.rounds);
    }
    this.now = end;
  }

  /** Lets time pass until something holds; fails after so many milliseconds. */
  async until(holds: () => boolean, most = 60_000): Promise<void> {
    const end = this.now + most;
    await settle(this.rounds);
    while (!holds()) {
      if (this.now >= end) throw new Error(`not within ${most} ms: ${holds}`);
      const next = Math.min(...this.timers.map((timer) => timer.at), end);
      await this.advance(Math.max(0, next - this.now));
    }
  }
}

/** A page: its clock, and whether it is seen and has a network. */
export class Page implements Runtime {
  isVisible = true;
  isOnline = true;
  /** How far this device's clock goes ahead. */
  skew = 0;
  persisted = 0;
  private readonly wakers = new Set<() => void>();
  private readonly hiders = new Set<() => void>();
  private frozen: (() => void)[] | undefined;

  constructor(readonly world: World) {}

  now = () => this.world.now + this.skew;
  random = () => this.world.random();
  fill = (bytes: Uint8Array<ArrayBuffer>) => {
    for (let at = 0; at < bytes.length; at++) bytes[at] = Math.floor(this.world.random() * 256);
  };
  later = (work: () => void, milliseconds: number) =>
    this.world.later(() => {
      if (this.frozen) this.frozen.push(work);
      else work();
    }, milliseconds);
  visible = () => this.isVisible;
  online = () => this.isOnline;
  onWake = (listener: () => void) => {
    this.wakers.add(listener);
    return () => void this.wakers.delete(listener);
  };
  onHide = (listener: () => void) => {
    this.hiders.add(listener);
    return () => void this.hiders.delete(listener);
  };
  /** Whether the page may not end unasked. */
  held = false;
  holdPage = (on: boolean) => {
    this.held = on;
  };
  persist = () => {
    this.persisted++;
  };

  /** As a browser tells of the network, of the page being seen again. */
  wake(): void {
    for (const listener of this.wakers) listener();
  }

  /** As a browser tells of a page that is left. */
  hide(): void {
    for (const listener of this.hiders) listener();
  }

  /** Timers of a page in the background stop. */
  freeze(): void {
    this.frozen ??= [];
  }

  /** They go on. */
  thaw(): void {
    const waiting = this.frozen ?? [];
    this.frozen = undefined;
    for (const work of waiting) work();
  }
}

interface Waiter {
  granted: () => void;
  lost: () => void;
}

/** The tabs of one browser: channels with a delay, locks that can be stolen. */
export class Browser {
  /** Messages so far. */
  readonly messages: unknown[] = [];
  /** Messages are lost. */
  deaf = false;
  /** Messages take so much longer. */
  lag = 0;
  /** Locks taken from their holders. */
  steals = 0;
  private readonly channels = new Map<string, Set<(message: unknown) => void>>();
  private readonly holders = new Map<string, Waiter>();
  private readonly waiting = new Map<string, Waiter[]>();

  constructor(
    private readonly world: World,
    private readonly delay = () => 1,
  ) {}

  /** Says something to all who listen. */
  say(name: string, message: unknown): void {
    for (const listener of this.channels.get(name) ?? []) listener(structuredClone(message));
  }

  readonly tabs: Tabs = {
    channel: (name, listener) => {
      const all = this.channels.get(name) ?? new Set();
      this.channels.set(name, all.add(listener));
      let last = 0;
      return {
        post: (message) => {
          const copy = structuredClone(message);
          this.messages.push(copy);
          if (this.deaf) return;
          // Messages of one tab come in their order.
          last = Math.max(last, this.world.now + this.delay() + this.lag);
          for (const other of [...all]) {
            if (other === listener) continue;
            this.world.later(() => {
              if (all.has(other)) other(structuredClone(copy));
            }, last - this.world.now);
          }
        },
        close: () => void all.delete(listener),
      };
    },
    lock: (name, steal, granted, lost) => {
      const mine: Waiter = { granted, lost };
      const holder = this.holders.get(name);
      if (holder && steal) this.steals++;
      if (!holder || steal) {
        this.holders.set(name, mine);
        this.world.later(() => {
          if (this.holders.get(name) === mine) granted();
          holder?.lost();
        }, 0);
      } else {
        const queue = this.waiting.get(name) ?? [];
        this.waiting.set(name, queue);
        queue.push(mine);
      }
      return () => {
        const queue = this.waiting.get(name) ?? [];
        const at = queue.indexOf(mine);
        if (at >= 0) queue.splice(at, 1);
        if (this.holders.get(name) !== mine) return;
        this.holders.delete(name);
        const next = queue.shift();
        if (!next) return;
        this.holders.set(name, next);
        this.world.later(() => {
          if (this.holders.get(name) === next) next.granted();
        }, 0);
      };
    },
  };
}

/** A storage that takes its time, one operation after the other; what is under way when the page ends is lost. */
export function slowStorage(
  world: World,
  storage: Storage,
  delay: () => number,
): Storage & { kill(): void } {
  let alive = true;
  const slow = (store: Store): Store => {
    let last = 0;
    const inTurn = <T>(work: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        last = Math.max(last, world.now + delay());
        world.later(() => {
          if (!alive) return;
          work().then(
            (value) => alive && resolve(value),
            (error) => alive && reject(error),
          );
        }, last - world.now);
      });
    return {
      durable: store.durable,
      all: (name, most) => inTurn(() => store.all(name, most)),
      get: (name, key) => inTurn(() => store.get(name, key)),
      commit: (changes, options) => inTurn(() => store.commit(changes, options)),
      append: (values, changes, options) => inTurn(() => store.append(values, changes, options)),
      close: () => store.close(),
    };
  };
  return {
    open: async (name) => slow(await storage.open(name)),
    remove: (name) => storage.remove(name),
    kill: () => {
      alive = false;
    },
  };
}
