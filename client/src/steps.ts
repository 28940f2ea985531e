import { loadPart } from "./errors.js";
import type { RecordData } from "./json.js";
import type { OpContext, RecordOperation } from "./operations.js";
import { type Batch, Cell } from "./readable.js";
import type { Pending } from "./slots.js";
import type { Undo } from "./undo.js";
import type { Operation, Path } from "./wire.gen.js";

/** Whether there is something to undo or redo. */
export interface History {
  readonly canUndo: boolean;
  readonly canRedo: boolean;
}

/** A part that was not undone, since somebody has changed it meanwhile. */
export interface Skipped {
  readonly table: string;
  readonly id: string;
  readonly key: Path;
}

/** What an undo or a redo did. */
export interface UndoResult {
  /** The transactions it made; none where all was skipped. */
  readonly txIds: readonly string[];
  readonly skipped: readonly Skipped[];
}

/** Looks a record up as it is shown now; null or undefined where it is not there. */
export type ReadRecord = (table: string, id: string) => RecordData | null | undefined;

/** What a write leaves for undo: what it did, and to what. */
export interface Trace {
  readonly pending: Pending;
  readonly operations: readonly Operation[];
  /** The records as they were before it. */
  readonly before: ReadRecord;
  readonly context: OpContext;
  /** Writes that follow each other with the same group are one step. */
  readonly group: unknown;
  readonly at: number;
}

/** What the stack needs of the engine. */
export interface UndoHost {
  read: ReadRecord;
  /** What a transaction of now depends on. */
  context(): OpContext;
  /** Writes operations that are no step of their own. */
  write(
    operations: RecordOperation[],
    context: OpContext,
  ): { pending: Pending; saved: Promise<void> };
  /** What was asked for cannot be done. */
  failed(error: unknown): void;
}

/** Writes that are remembered while undo itself cannot be loaded. */
const MOST = 1000;

/**
 * The steps of this tab. What undoes them is loaded once the engine is there, or with the first one; what happens before
 * that is told it in order.
 */
export class Steps {
  readonly history: Cell<History>;
  private undo: Undo | undefined;
  private loading: Promise<void> | undefined;
  private readonly early: ((undo: Undo) => void)[] = [];
  private group: unknown;

  constructor(
    batch: Batch,
    private readonly host: UndoHost,
  ) {
    this.history = new Cell<History>(batch, { canUndo: false, canRedo: false });
  }

  /** Makes one step of all that is written inside. */
  grouped(name: unknown, work: () => void): void {
    const outer = this.group;
    this.group ??= name;
    try {
      work();
    } finally {
      this.group = outer;
    }
  }

  /** The records of some operations as they are now. */
  before(operations: readonly Operation[]): ReadRecord {
    const records = new Map<string, RecordData | null | undefined>();
    for (const operation of operations) {
      if (operation.type === "call") continue;
      const { table, id } = operation;
      records.set(`${table} ${id}`, this.host.read(table, id));
    }
    return (table, id) => records.get(`${table} ${id}`);
  }

  /** A write has been shown. */
  push(trace: Trace): void {
    const whole = { ...trace, group: trace.group ?? this.group };
    this.tell((undo) => undo.push(whole));
    if (this.undo) return;
    if (!this.history.getSnapshot().canUndo) this.history.set({ canUndo: true, canRedo: false });
    this.prepare();
  }

  /** Loads what undoes. Without it nothing is lost but undo, which says so itself. */
  prepare(): void {
    this.load().catch(() => {});
  }

  /** A transaction has ended. */
  ended(pending: Pending, refused: boolean): void {
    if (this.early.length || this.undo) this.tell((undo) => undo.ended(pending, refused));
  }

  /** Forgets everything. */
  clear(): void {
    if (this.early.length || this.undo) this.tell((undo) => undo.clear());
  }

  /** Takes the last step back, or forth again. Null where there is none. */
  async take(step: "undo" | "redo"): Promise<UndoResult | null> {
    if (!this.undo && !this.early.length) return null;
    return new Promise((resolve, reject) => {
      let wanted = true;
      this.tell((undo) => wanted && resolve(undo[step]()));
      this.load().catch((error) => {
        wanted = false;
        this.host.failed(error);
        reject(error);
      });
    });
  }

  private tell(what: (undo: Undo) => void): void {
    if (this.undo) what(this.undo);
    else if (this.early.push(what) > MOST) this.early.shift();
  }

  private load(): Promise<void> {
    this.loading ??= loadPart(() => import("./undo.js")).then(
      ({ Undo }) => {
        this.undo = new Undo(this.history, this.host);
        for (const what of this.early.splice(0)) what(this.undo);
      },
      (error) => {
        this.loading = undefined;
        throw error;
      },
    );
    return this.loading;
  }
}
