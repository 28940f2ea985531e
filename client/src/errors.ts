import type { Path, Problem, ProblemCode } from "./wire.gen.js";

/** Why something cannot be applied, by the client's own knowledge: what the server would answer, as data. */
export interface OpProblem {
  status: number;
  code: ProblemCode;
  /** A sentence for people. */
  detail: string;
  table?: string;
  id?: string;
  key?: Path;
  /** Which operation, counted from 0. */
  op?: number;
  /** The name of the limit that was passed. */
  limit?: string;
  /** What was expected in its place. */
  expected?: string;
}

/** What is told of a code where nothing better is known, and after the colon what to do. */
const WORDS: { readonly [code: string]: string } = {
  bad_request: "The form is wrong: see the docs",
  unknown_operation: "There is no such operation",
  unknown_operator: "There is no such operator",
  unknown_table: "There is no such table: see sync.enable, and generate the types again",
  unknown_key: "There is no such key: keys are camelCase; generate the types again",
  unknown_function: "There is no such function: see sync.expose",
  unknown_argument: "There is no such argument: see sync.describe",
  required: "A value is required",
  bad_value: "No such value can be stored",
  bad_path: "The path has an empty or reserved part, or leads nowhere",
  bad_index: "The list is shorter than this index",
  not_a_list: "There is no list at this path",
  not_a_number: "There is no number at this path",
  not_supported: "The table does not allow this: see sync.enable",
  check_failed: "The value is not allowed",
  forbidden: "No such record, or you may not change it",
  forbidden_key: "This key cannot be written",
  exists: "There is such a record already: change it, or take another value",
  too_many: "It is too much: divide it, or see sync.configure",
  too_large: "It is too large: divide it, or see sync.configure",
  conflict: "The record has changed: look at it and write again",
  too_old: "It is too old: look at the record and retry",
  blocked: "It needs a record whose create was refused: retry both",
  upgrade: "The app is too old: load it anew; what is queued stays",
};
const STATUS: { readonly [code: string]: number } = {
  forbidden: 403,
  forbidden_key: 403,
  exists: 409,
  too_large: 413,
  too_many: 422,
};
const wordsOf = (code: string): string[] =>
  ((Object.hasOwn(WORDS, code) && WORDS[code]) || "It was refused").split(": ");

interface Told extends Pick<OpProblem, "code" | "table" | "id" | "key"> {
  detail?: string;
}

function sentence({ code, detail, table, id, key }: Told): string {
  const [words, fix] = wordsOf(code);
  const place = [code, table, id, typeof key === "string" ? key : key?.join(".")];
  return `${detail ?? words} (${place.filter(Boolean).join(", ")})${fix ? `: ${fix}` : ""}.`;
}

/** What every error of Rowcast is. `code` is the stable word to branch on. */
export class RowcastError extends Error {
  override name = "RowcastError";
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** What was thrown, as an error of Rowcast. */
export function known(error: unknown): RowcastError {
  return error instanceof RowcastError
    ? error
    : new RowcastError("internal", `Unexpected: ${String(error)}.`, { cause: error });
}

/** A part of the package that is loaded when it is needed. Where that fails, the app's files are not to be had. */
export async function loadPart<T>(load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    throw new RowcastError(
      "not_loaded",
      "A part of the app could not be loaded. Load the page again.",
      { cause },
    );
  }
}

/** Thrown in place by `write`: the operations are not well formed, so they are neither shown nor queued. */
export class InvalidOperationError extends RowcastError {
  override name = "InvalidOperationError";
  readonly problem: OpProblem;

  constructor(problem: OpProblem) {
    super(problem.code, sentence(problem));
    this.problem = problem;
  }
}

/** Thrown in place by `query`: a filter or an order is not well formed. */
export class InvalidQueryError extends RowcastError {
  override name = "InvalidQueryError";
  readonly problem: OpProblem;

  constructor(problem: OpProblem) {
    super(problem.code, sentence(problem));
    this.problem = problem;
  }
}

/** The server refused for good. `problem` is its answer; sending the same again would be refused again. */
export class RefusedError extends RowcastError {
  override name = "RefusedError";
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.code, sentence(problem as Told));
    this.problem = problem;
  }
}

/** There are writes that would be lost, or would wait for the next sign-in: the user has to decide. */
export class PendingWritesError extends RowcastError {
  override name = "PendingWritesError";
  /** Writes that are not confirmed. */
  readonly pending: number;
  /** Writes that were refused. */
  readonly rejected: number;
  /** Files that are not uploaded. */
  readonly files: number;

  constructor(pending: number, rejected: number, files = 0) {
    super(
      "pending_writes",
      `${pending} unsent, ${rejected} refused writes, ${files} files. Ask the user: "keep" or "discard"?`,
    );
    this.pending = pending;
    this.rejected = rejected;
    this.files = files;
  }
}

/** The server knows the caller as another user than the one whose data is kept here. */
export class UserChangedError extends RowcastError {
  override name = "UserChangedError";
  /** Who it is. */
  readonly userId: string | null;

  constructor(userId: string | null) {
    super("user_changed", "Somebody else is signed in. Make a client for the present user.");
    this.userId = userId;
  }
}

/** The client was closed. */
export class ClosedError extends RowcastError {
  override name = "ClosedError";

  constructor() {
    super("closed", "The client was closed. Make a new one.");
  }
}

/** A problem on its way to the function that gives it back as data. No Error: a replay may meet many. */
export class Refusal {
  readonly problem: OpProblem;

  constructor(problem: OpProblem) {
    this.problem = problem;
  }
}

/** Leaves the work at hand with a problem; `caught` gives it back. */
export function refuse(
  code: ProblemCode,
  detail: string = wordsOf(code)[0] as string,
  more?: Partial<OpProblem>,
): never {
  throw new Refusal({ status: STATUS[code] ?? 400, code, detail, ...more });
}

/** The problem that some work ends in, at the place it has come to; null where it ends well. */
export function caught(work: () => void, at?: Partial<OpProblem>): OpProblem | null {
  try {
    work();
    return null;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { ...at, ...error.problem };
  }
}
