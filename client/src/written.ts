import type { RefusedError } from "./errors.js";
import type { Json } from "./json.js";
import type { Pending } from "./slots.js";
import type { Operation, Problem, RecordVersion } from "./wire.gen.js";

/** A transaction the server refused, kept until it is retried or discarded. */
export interface Rejected {
  /** Names it to `retry` and `discard`. */
  readonly id: string;
  readonly txId: string;
  readonly operations: readonly Operation[];
  readonly expect?: readonly RecordVersion[];
  /** What the server said; `code` is `blocked` where it was not sent, since a create it needs was refused. */
  readonly problem: Problem;
  readonly error: RefusedError;
  /** When it was refused, in milliseconds since 1970. */
  readonly at: number;
}

/** What became of a transaction that the server applied. */
export interface Receipt {
  readonly txId: string;
  readonly versions: readonly RecordVersion[];
  /** What the calls in it gave, in their order. */
  readonly values: readonly Json[];
}

/** What becomes of a write, as promises that are only made when somebody asks for them. */
export class Outcome<T> {
  private done: Promise<T> | undefined;
  private promise: Promise<T> | undefined;
  private resolve: ((value: T | Promise<T>) => void) | undefined;

  /** The promise. */
  get(): Promise<T> {
    this.promise ??=
      this.done ??
      new Promise((resolve) => {
        this.resolve = resolve;
      });
    return this.promise;
  }

  /** It ends well; the first end counts. */
  settle(value: T): void {
    this.end(Promise.resolve(value));
  }

  /** It ends badly. Nobody who has not asked is bothered. */
  fail(error: unknown): void {
    const failed = Promise.reject(error);
    failed.catch(() => {});
    this.end(failed);
  }

  private end(done: Promise<T>): void {
    if (this.done) return;
    this.done = done;
    this.resolve?.(done);
  }
}

/** What one write is waiting for. */
export interface Written {
  readonly pending: Pending;
  readonly saved: Outcome<void>;
  readonly confirmed: Outcome<Receipt>;
}
