import { guardHolds, type Inverse, invertTransaction, planUndo, reguard } from "./inverses.js";
import { applyToRecord } from "./operations.js";
import { samePath } from "./paths.js";
import type { Cell } from "./readable.js";
import type { Pending } from "./slots.js";
import type { History, ReadRecord, Trace, UndoHost, UndoResult } from "./steps.js";
import type { SetOperation } from "./wire.gen.js";

/** What undoes one write, or several that were merged into one. */
interface Part {
  readonly writes: Set<Pending>;
  inverses: Inverse[];
}

/** One step back. */
interface Entry {
  parts: Part[];
  group: unknown;
  /** The one operation that it is, for merging. */
  set: SetOperation | false;
  at: number;
}

/** An undo or redo whose transactions are not confirmed. */
interface Step {
  entry: Entry;
  from: Entry[];
  to: Entry[];
  made: Entry;
}

const DEPTH = 100;
const MERGE_MS = 1000;
const MAX_OPERATIONS = 500;

/** The steps back and forth of this tab. */
export class Undo {
  private readonly undos: Entry[] = [];
  private readonly redos: Entry[] = [];
  private readonly steps = new Map<Pending, Step>();

  constructor(
    private readonly cell: Cell<History>,
    private readonly host: UndoHost,
  ) {}

  /** A write has been shown, and this is what it did. */
  push({ pending, operations, before, context, group, at }: Trace): void {
    const inverses = invertTransaction(operations, before, context);
    this.redos.length = 0;
    const [first] = operations;
    // What takes something out merges with nothing: in a list another item has its place then.
    const set =
      group === undefined &&
      operations.length === 1 &&
      first?.type === "set" &&
      first.value !== undefined &&
      first;
    const last = this.undos.at(-1);
    const part: Part = { writes: new Set([pending]), inverses };
    if (!inverses.length) {
      // Nothing to take back.
    } else if (last && group !== undefined && last.group === group) {
      // The last write is undone first.
      last.parts.unshift(part);
    } else if (last && set && at - last.at <= MERGE_MS && continues(set, last, before)) {
      const { table, id } = set;
      const [merged] = last.parts as [Part];
      const { record } = applyToRecord(before(table, id) ?? null, table, id, [set], context);
      merged.writes.add(pending);
      if (record) merged.inverses = merged.inverses.map((inverse) => reguard(inverse, record));
      last.at = at;
    } else {
      this.undos.push({ parts: [part], group, set, at });
      if (this.undos.length > DEPTH) this.undos.shift();
    }
    this.tell();
  }

  /** Takes the last step back. Null where there is none. */
  undo(): Promise<UndoResult | null> {
    return this.step(this.undos, this.redos);
  }

  /** Takes the last step forth again. Null where there is none. */
  redo(): Promise<UndoResult | null> {
    return this.step(this.redos, this.undos);
  }

  /** A transaction has ended. What was refused needs no undoing; an undo that was refused can be tried again. */
  ended(pending: Pending, refused: boolean): void {
    const step = this.steps.get(pending);
    this.steps.delete(pending);
    if (!refused) return;
    if (step) {
      remove(step.to, step.made);
      if (!step.from.includes(step.entry)) step.from.push(step.entry);
    }
    for (const stack of [this.undos, this.redos]) {
      for (const entry of [...stack]) {
        for (const part of [...entry.parts]) {
          if (!part.writes.delete(pending)) continue;
          if (part.writes.size) part.inverses = this.guarded(part.inverses);
          else remove(entry.parts, part);
        }
        if (!entry.parts.length) remove(stack, entry);
      }
    }
    this.tell();
  }

  /** Forgets everything. */
  clear(): void {
    this.undos.length = this.redos.length = 0;
    this.steps.clear();
    this.tell();
  }

  private async step(from: Entry[], to: Entry[]): Promise<UndoResult | null> {
    const entry = from.pop();
    if (!entry) return null;
    const { host } = this;
    const inverses = entry.parts.flatMap((part) => part.inverses);
    const { operations, skipped } = planUndo(inverses, host.read, host.context());
    const made: Entry = { parts: [], group: undefined, set: false, at: 0 };
    const writes: { pending: Pending; saved: Promise<void> }[] = [];
    while (operations.length) {
      const some = operations.splice(0, MAX_OPERATIONS);
      const context = host.context();
      const back = invertTransaction(some, host.read, context);
      const write = host.write(some, context);
      writes.push(write);
      if (back.length) made.parts.unshift({ writes: new Set([write.pending]), inverses: back });
      this.steps.set(write.pending, { entry, from, to, made });
    }
    if (made.parts.length) to.push(made);
    this.tell();
    for (const { saved } of writes) await saved;
    return {
      txIds: writes.map(({ pending }) => pending.tx.txId),
      skipped: skipped.map(({ guard: { table, id, path } }) => ({ table, id, key: path })),
    };
  }

  private guarded(inverses: readonly Inverse[]): Inverse[] {
    return inverses.map((inverse) => {
      const record = this.host.read(inverse.guard.table, inverse.guard.id);
      return record ? reguard(inverse, record) : inverse;
    });
  }

  private tell(): void {
    const canUndo = this.undos.length > 0;
    const canRedo = this.redos.length > 0;
    const before = this.cell.getSnapshot();
    if (before.canUndo !== canUndo || before.canRedo !== canRedo)
      this.cell.set({ canUndo, canRedo });
  }
}

/** Whether it sets again what an entry has set, and nobody has changed what that left. */
function continues({ table, id, key }: SetOperation, { set, parts }: Entry, read: ReadRecord) {
  return (
    set &&
    set.table === table &&
    set.id === id &&
    samePath(set.key, key) &&
    parts.every((part) => part.inverses.every(({ guard }) => guardHolds(guard, read(table, id))))
  );
}

function remove<T>(list: T[], item: T): void {
  const at = list.indexOf(item);
  if (at >= 0) list.splice(at, 1);
}
