import { type KeySchema, type Schema, tableOf } from "./schema.js";
import type { Path, Transaction } from "./wire.gen.js";

/** The records a transaction names, each once. */
export function namesOf({ operations }: Transaction): [table: string, id: string][] {
  const names = new Map<string, [string, string]>();
  for (const operation of operations) {
    if (operation.type === "call") continue;
    const { table, id } = operation;
    names.set(`${table}:${id}`, [table, id]);
  }
  return [...names.values()];
}

/** The records a transaction makes. */
function createsOf({ operations }: Transaction): { table: string; id: string }[] {
  return operations.flatMap((operation) => {
    const { type } = operation;
    return type === "create" || (type === "set" && String(operation.key) === "id") ? operation : [];
  });
}

/** What operations have, whatever their type. */
interface Members {
  type: string;
  table?: string;
  id?: string;
  key?: Path;
  value?: unknown;
  args?: unknown;
}

/**
 * Which queued transactions need a record whose create was refused, each with the transaction that was to make it. One
 * that does makes what it creates missing, too; what one makes itself is there for what follows.
 */
export function blockedBy<T extends { readonly tx: Transaction }>(
  refused: readonly Transaction[],
  queued: readonly T[],
  schema: Schema,
): [T, string][] {
  // By id, then by table.
  const missing = new Map<string, Map<string, string>>();
  const refuse = (tx: Transaction) => {
    for (const { table, id } of createsOf(tx)) {
      missing.set(id, new Map(missing.get(id)).set(table, tx.txId));
    }
  };
  refused.forEach(refuse);
  return queued.flatMap((one): [T, string][] => {
    for (const { table, id } of createsOf(one.tx)) missing.get(id)?.delete(table);
    const needed = neededBy(one.tx, missing, schema);
    if (needed === undefined) return [];
    refuse(one.tx);
    return [[one, needed]];
  });
}

/**
 * Which of the transactions whose creates were refused a transaction needs: it operates on such a record, or carries its
 * id where one may stand. A text that happens to be equal is no id: in a key that references another table, or, where ids
 * are not unique by themselves, in one that is a plain value. The server decides so, too (sync_internal.blocked_by).
 */
function neededBy(
  { operations }: Transaction,
  missing: ReadonlyMap<string, ReadonlyMap<string, string>>,
  schema: Schema,
): string | undefined {
  const look = (value: unknown, key?: KeySchema): string | undefined => {
    if (typeof value === "object" && value !== null) {
      for (const one of Object.values(value)) {
        const found = look(one, key);
        if (found) return found;
      }
    }
    for (const [table, txId] of missing.get(value as string) ?? []) {
      const fits = key?.references
        ? key.references === table
        : !key || /json|list/.test(key.type) || tableOf(schema, table)?.idType === "uuid";
      if (fits) return txId;
    }
    return undefined;
  };
  for (const { type, table = "", id = "", key, value, args } of operations as readonly Members[]) {
    const own = missing.get(id)?.get(table);
    if (own) return own;
    const keys = tableOf(schema, table)?.keys ?? {};
    const [name = ""] = [key].flat().join(".").split(".");
    const given: [unknown, (KeySchema | undefined)?][] =
      type === "create"
        ? Object.entries(value as object).map(([name, one]) => [one, keys[name]])
        : [[value, keys[name]], [args]];
    for (const [value, key] of given) {
      const found = look(value, key);
      if (found) return found;
    }
  }
  return undefined;
}
