import { Cache, type ServerChange } from "./cache.js";
import type { ClientOptions, ClientPart, DebugState, Status } from "./client.js";
import type { Engine } from "./engine.js";
import { ClosedError, known, loadPart, type RowcastError } from "./errors.js";
import { createIds, ServerClock } from "./ids.js";
import type { RecordData } from "./json.js";
import type { OpContext } from "./operations.js";
import { Cell, type Listeners } from "./readable.js";
import { browserRuntime, type Runtime } from "./runtime.js";
import type { Pending } from "./slots.js";
import { Steps } from "./steps.js";
import { Views } from "./views.js";
import type { Transaction } from "./wire.gen.js";
import { Outcome, type Receipt, type Rejected, type Written } from "./written.js";

/** How long to wait before a part that could not be loaded is asked for again. */
const AGAIN_MS = 5000;

/**
 * What is there at once: records as they are known, queries over them, and writes shown on top. The engine, which loads
 * and stores, sends and listens, is fetched while the app begins.
 */
export class Core {
  readonly runtime: Runtime;
  readonly clock: ServerClock;
  readonly newId: () => string;
  readonly cache: Cache;
  readonly views: Views;
  readonly steps: Steps;
  readonly status: Cell<Status>;
  readonly rejected: Cell<readonly Rejected[]>;
  /** Writes of this tab that are not answered, and those of them that are not stored. */
  readonly written = new Map<Pending, Written>();
  readonly unsaved: Pending[] = [];
  /** Who follows the server's copies. */
  readonly streams = new Set<(changes: readonly ServerChange[]) => void>();
  readonly onlookers: Listeners = new Set();
  readonly parts: ClientPart[] = [];
  debugState: DebugState | undefined;
  user: string | null | undefined;
  lastError: RowcastError | null = null;
  closed = false;
  engine: Engine | undefined;
  private loading: Promise<Engine> | undefined;
  private readonly waiting: ((engine: Engine) => void)[] = [];

  constructor(readonly options: ClientOptions) {
    const { schema } = options;
    const runtime = options.runtime ?? browserRuntime();
    this.runtime = runtime;
    this.clock = new ServerClock(() => runtime.now());
    this.newId = createIds(() => this.clock.now(), runtime.fill);
    this.cache = new Cache(schema, {
      now: () => runtime.now(),
      want: (slot) => this.engine?.sync.want(slot),
      dirty: (slot) => this.engine?.vault?.dirty(slot),
      changed: (changes) => {
        this.engine?.sync.changed(changes);
        for (const stream of this.streams) stream(changes);
      },
      covers: (slot, record) => this.engine?.sync.covers(slot, record) === true,
      staleSince: (keys, tick) => this.engine?.sync.staleSince(keys, tick) === true,
    });
    const { batch } = this.cache;
    this.views = new Views(this.cache, runtime);
    this.steps = new Steps(batch, {
      read: (table, id) => this.read(table, id),
      context: () => this.context(this.newId()),
      write: (operations, context) => {
        const { pending, saved } = this.write({ txId: this.newId(), operations }, context.now);
        return { pending, saved: saved.get() };
      },
      failed: this.failed,
    });
    this.rejected = new Cell<readonly Rejected[]>(batch, []);
    this.status = new Cell(batch, this.computeStatus());
    this.load();
  }

  /** The engine, as soon as it is there. */
  ready(): Promise<Engine> {
    this.loading ??= loadPart(() => import("./engine.js")).then(
      ({ Engine }) => {
        if (this.closed) throw new ClosedError();
        this.engine = new Engine(this);
        this.engine.start();
        for (const begin of this.waiting.splice(0)) begin(this.engine);
        // Not while somebody types.
        this.steps.prepare();
        return this.engine;
      },
      (error) => {
        this.loading = undefined;
        this.failed(error);
        throw error;
      },
    );
    return this.loading;
  }

  private load(): void {
    this.ready().catch(() => {
      if (!this.closed) this.runtime.later(() => this.load(), AGAIN_MS);
    });
  }

  /** Does something with the engine: at once, if it is there. */
  async use<T>(work: (engine: Engine) => T | Promise<T>): Promise<T> {
    return work(this.engine ?? (await this.ready()));
  }

  /** The same for what lasts until it is ended: gives what ends it. */
  until(work: (engine: Engine) => (() => void) | undefined): () => void {
    let end: (() => void) | undefined;
    let wanted = true;
    const begin = (engine: Engine) => {
      if (wanted) end = work(engine);
    };
    if (this.engine) begin(this.engine);
    else this.waiting.push(begin);
    return () => {
      wanted = false;
      end?.();
    };
  }

  /** A record as it is shown. */
  read(table: string, id: string): RecordData | null | undefined {
    this.cache.settle();
    return this.cache.slotOf(table, id)?.view;
  }

  /** What a transaction of now depends on. */
  context(txId: string): OpContext {
    return this.cache.context({ tx: { txId, operations: [] }, now: this.clock.wireNow() });
  }

  /** Shows a transaction made at a time, as the wire writes it; the engine stores and sends it. */
  write(tx: Transaction, now: string): Written {
    if (this.closed) throw new ClosedError();
    const pending = this.cache.add(tx, now);
    const written = { pending, saved: new Outcome<void>(), confirmed: new Outcome<Receipt>() };
    this.written.set(pending, written);
    this.unsaved.push(pending);
    this.engine?.wrote();
    this.changed();
    return written;
  }

  /** Something went wrong; undefined: something went well again. */
  readonly failed = (error: unknown): undefined => {
    if (error === undefined && !this.lastError) return;
    this.lastError = error === undefined ? null : known(error);
    this.changed();
  };

  /** The status may be another. */
  changed(): void {
    const status = this.computeStatus();
    const before = this.status.getSnapshot();
    const names = Object.keys(status) as (keyof Status)[];
    if (names.some((name) => status[name] !== before[name])) this.status.set(status);
    // Not to end unasked while the page alone knows of a write: what is not stored comes last.
    const last = this.cache.pending.at(-1);
    this.runtime.holdPage(!this.closed && last !== undefined && (!status.durable || !last.key));
    this.engine?.sync.refreshStatus();
    this.stir();
  }

  /** What devtools show may be something else now. */
  stir(): void {
    this.debugState = undefined;
    this.cache.batch.changed(this.onlookers);
  }

  /** Nothing new is begun, and what ends with the client does. */
  shut(remove = false): Promise<unknown> {
    this.closed = true;
    return Promise.all(this.parts.splice(0).map((part) => part.end(remove)));
  }

  /** Nothing more is done. */
  end(): void {
    void this.shut();
    this.changed();
    const closed = new ClosedError();
    for (const { saved, confirmed } of this.written.values()) {
      saved.fail(closed);
      confirmed.fail(closed);
    }
  }

  private computeStatus(): Status {
    const { engine } = this;
    const online = engine?.socket.state === "open";
    const needsAuth = engine?.pausedBy === "auth";
    const pending = this.cache.pending.length;
    return {
      userId: this.user,
      state: needsAuth ? "needs-auth" : !online ? "offline" : pending ? "syncing" : "online",
      online,
      pending,
      rejected: this.rejected.getSnapshot().length,
      needsAuth,
      durable: engine?.vault?.store.durable === true,
      upgrade: engine?.pausedBy === "upgrade",
      lastError: this.lastError,
    };
  }
}
