import { isTransient, readAnswer, unreadable } from "./http.js";
import type { RecordData } from "./json.js";
import { namesOf } from "./needs.js";
import type { Pending } from "./slots.js";
import { HttpError } from "./transport.js";
import type { Problem, WriteAnswer } from "./wire.gen.js";
import type { Receipt } from "./written.js";

/** The records a transaction names, as they were once it was applied; null: not there for this user. */
export type Records = [table: string, id: string, record: RecordData | null][];

/** What became of a transaction. */
export type Answer = { receipt: Receipt; records: Records } | { problem: Problem };

/** A transaction by the key of its row. */
export type Entry = [key: string, pending: Pending];

/**
 * What became of the transactions of a request, in order, up to the first that is to be sent again: `later` is why.
 * Throws NetworkError where the body is no answer.
 */
export function readAnswers(
  batch: readonly Entry[],
  body: unknown,
): { ended: [Entry, Answer][]; later: unknown } {
  const { results, recordMap } = readAnswer<WriteAnswer>(body, ["results"]);
  const ended: [Entry, Answer][] = [];
  for (const [at, result] of results.entries()) {
    const entry = batch[at];
    if (!entry || result?.txId !== entry[1].tx.txId) return { ended, later: unreadable() };
    const { txId, status, versions, values } = result;
    const error = result.error ?? undefined;
    if (status === "applied" || status === "duplicate") {
      const records = namesOf(entry[1].tx).map(([table, id]): Records[number] => [
        table,
        id,
        recordMap[table]?.[id] ?? null,
      ]);
      ended.push([
        entry,
        { receipt: { txId, versions: versions ?? [], values: values ?? [] }, records },
      ]);
    } else if (
      status === "refused" &&
      error &&
      // One that fails unexpectedly would fail again, and hold up the others.
      (error.status === 500 || !comesAgain(error.status))
    ) {
      ended.push([entry, { problem: error }]);
    } else {
      return { ended, later: new HttpError(error?.status ?? 503, error, error?.retryAfter) };
    }
  }
  return { ended, later: ended.length ? undefined : unreadable() };
}

/** The refusal of a request as a whole that is final for the `count` transactions it holds; undefined: try again. */
export function refusalOf(error: unknown, count: number): Problem | undefined {
  if (!(error instanceof HttpError)) return undefined;
  const { status, problem } = error;
  if (status !== 413 && (!problem || (status !== 400 && status !== 422))) return undefined;
  if (problem || count > 1) return problem ?? ({ status } as Problem);
  // Refused on the way, by something that is not the gateway.
  return { type: "about:blank", title: "Too large", status, code: "too_large" };
}

/** Refusals of one transaction that are none for good. */
function comesAgain(status: number): boolean {
  return isTransient(status) || status === 401 || status === 426;
}
