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

const FIXES: { readonly [code: string]: string } = {
  unknown_table: "Make it live with sync.enable and generate the types again (rowcast types).",
  unknown_key: "Keys are camelCase; generate the types again (rowcast types).",
  unknown_function: "Expose it with sync.expose and generate the types again (rowcast types).",
  unknown_argument: "Arguments are camelCase without p_.",
  unknown_operator: "Operators: eq, neq, in, lt, lte, gt, gte, is, contains.",
  forbidden_key: "Leave the key out; the server gives it its value.",
  not_supported: "Name p_soft_delete or p_hard_delete in sync.enable.",
  too_many: "Divide it, or raise the limit with sync.configure.",
  too_large: "Make it smaller, or raise the limit with sync.configure.",
  exists: "Take another id or value, or change the record that is there.",
  conflict: "Look at the record as it is now, decide, and write again.",
  upgrade: "Load the new version of the app; what is queued stays queued.",
  too_old: "Look at the record as it is now and write again with retry.",
  blocked: "Mend the create that was refused first, then retry both.",
};

function sentence(problem: { code: string; detail?: string } & Partial<OpProblem>): string {
  const { code, detail, table, id, key, op, limit } = problem;
  const at = [table, id, typeof key === "string" ? key : key?.join(".")].filter(Boolean).join(" ");
  const where = [at, op === undefined ? "" : `operation ${op}`, limit].filter(Boolean).join(", ");
  return [`${detail ?? "Refused"} (${code}${where && `: ${where}`}).`, FIXES[code]]
    .filter(Boolean)
    .join(" ");
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
    super(problem.code, sentence(problem as unknown as { code: string } & Partial<OpProblem>));
    this.problem = problem;
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
  status: number,
  code: ProblemCode,
  detail: string,
  more?: Partial<OpProblem>,
): never {
  throw new Refusal({ status, code, detail, ...more });
}

/** The problem that some work ends in, with what is known of the place; null where it ends well. */
export function caught(work: () => void, place?: () => Partial<OpProblem>): OpProblem | null {
  try {
    work();
    return null;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { ...place?.(), ...error.problem };
  }
}
