import type {
  BaseCollectionConfig,
  ChangeMessageOrDeleteKeyMessage,
  CollectionConfig,
  PendingMutation,
  SyncConfig,
} from "@tanstack/db";
import type { Client, ServerStream, WriteHandle } from "./client.js";
import { RowcastError } from "./errors.js";
import { equalJson, isObject, type Json, type RecordData } from "./json.js";
import type { Readable } from "./readable.js";
import { keyOf, type Schema, tableOf } from "./schema.js";
import type { RecordOf, TableFor, TableName, Where, WhereFor } from "./types.js";
import type { Operation, Path } from "./wire.gen.js";

/** What a collection of Rowcast's has in its `utils`. */
export interface RowcastUtils {
  readonly [name: string]: unknown;
  /** The table it shows. */
  readonly table: string;
  /** Resolves when the changes of a transaction have been taken in; it is one that this collection hears of. */
  readonly awaitTxId: (txId: string) => Promise<void>;
}

/** What a collection is made of. */
export interface RowcastCollectionConfig<T extends object, Name, Filter>
  extends Partial<
    Pick<
      BaseCollectionConfig<T, string>,
      "id" | "gcTime" | "startSync" | "autoIndex" | "defaultIndexType" | "compare"
    >
  > {
  client: Client;
  table: Name;
  /** Which records; left out, all one may read. */
  where?: Filter;
}

/** The client without the types of an app's tables. */
interface Untyped {
  readonly schema: Schema;
  serverStream(table: string, where?: object): ServerStream<RecordData>;
  query(table: string, where?: object): Readable<{ status: string; error?: RowcastError }>;
  record(table: string, id: string): Readable<unknown>;
  write(operations: readonly Operation[]): WriteHandle;
}

/** Operations of one transaction, as the wire has them: what a mutation of TanStack DB stands for. */
type Mutation = Pick<PendingMutation<RecordData>, "type" | "key" | "original" | "modified">;

const REMEMBERED = 1000;
const MAX_PATH = 16;
const RESERVED = ["", "__proto__", "constructor", "prototype"];

/**
 * Options for `createCollection` of TanStack DB: a collection of the server's records, live. Pending writes are TanStack
 * DB's own: its handlers write through the client's queue, wait until the server has confirmed, and for the echo.
 * A refused write is rolled back there, and is kept in the client's inbox.
 *
 *     const tasks = createCollection(rowcastCollectionOptions({ client, table: "tasks", where: { boardId } }));
 */
export function rowcastCollectionOptions<T extends TableName>(
  config: RowcastCollectionConfig<RecordOf<T> & object, T, Where<T>>,
): CollectionConfig<RecordOf<T> & object, string, never, RowcastUtils>;
export function rowcastCollectionOptions<T extends object = never>(
  config: RowcastCollectionConfig<T, TableFor<T>, WhereFor<T>>,
): CollectionConfig<T, string, never, RowcastUtils>;
export function rowcastCollectionOptions(config: unknown): unknown {
  const {
    client: given,
    table,
    where,
    ...more
  } = config as RowcastCollectionConfig<RecordData, string, object>;
  const client = given as unknown as Untyped;
  const echoes = new Echoes();
  const handler = async ({ transaction }: { transaction: { mutations: readonly Mutation[] } }) => {
    const { mutations } = transaction;
    await send(
      client,
      mutations.map((mutation) => ({ table, mutation })),
    );
  };
  const options: CollectionConfig<RecordData, string, never, RowcastUtils> = {
    ...more,
    getKey: (record) => String(record.id),
    // As the server compares.
    defaultStringCollation: { stringSort: "lexical" },
    sync: { sync: (sink) => follow(client, table, where, echoes, sink), rowUpdateMode: "full" },
    onInsert: handler,
    onUpdate: handler,
    onDelete: handler,
    utils: { table, awaitTxId: (txId) => echoes.wait(txId) },
  };
  return options;
}

/**
 * The `mutationFn` for transactions of TanStack DB over several collections of Rowcast's: all of it is one transaction
 * on the server.
 *
 *     const move = createTransaction({ mutationFn: rowcastMutationFn(client) });
 */
export function rowcastMutationFn(
  client: Client,
): (params: { transaction: { mutations: readonly PendingMutation<never>[] } }) => Promise<void> {
  return ({ transaction }) =>
    send(
      client as unknown as Untyped,
      transaction.mutations.map((mutation) => {
        const { table } = (mutation.collection as { utils: Partial<RowcastUtils> }).utils;
        if (table !== undefined) return { table, mutation: mutation as unknown as Mutation };
        throw new RowcastError(
          "foreign_collection",
          "A collection in this transaction is not Rowcast's. Make it with rowcastCollectionOptions, or write it yourself.",
        );
      }),
    );
}

/** Ids of transactions that have been taken in, and who waits for some. */
class Echoes {
  private readonly heard = new Set<string>();
  private readonly waiting = new Map<string, (() => void)[]>();

  hear(txIds: readonly string[]): void {
    for (const txId of txIds) {
      this.heard.add(txId);
      for (const done of this.waiting.get(txId) ?? []) done();
      this.waiting.delete(txId);
    }
    for (const oldest of this.heard) {
      if (this.heard.size <= REMEMBERED) break;
      this.heard.delete(oldest);
    }
  }

  wait(txId: string): Promise<void> {
    if (this.heard.has(txId)) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting.set(txId, [...(this.waiting.get(txId) ?? []), resolve]);
    });
  }
}

/** Hands the server's transactions on, one by one. */
function follow(
  client: Untyped,
  table: string,
  where: object | undefined,
  echoes: Echoes,
  { begin, write, commit, truncate, markReady, markError }: Sink,
): () => void {
  let ready = false;
  const end = client.serverStream(table, where).subscribe((batch) => {
    if (batch.reset || batch.changes.length) {
      begin();
      if (batch.reset) truncate({ markReady: false });
      for (const change of batch.changes) {
        const { type, id } = change;
        write(
          type === "delete"
            ? { type, key: id }
            : ({ type, value: change.record } as ChangeMessageOrDeleteKeyMessage<
                RecordData,
                string
              >),
        );
      }
      commit();
    }
    if (batch.ready && !ready) {
      ready = true;
      markReady();
    }
    echoes.hear(batch.txIds);
  });
  // The stream says nothing of a query that is refused.
  const query = client.query(table, where);
  const look = () => {
    const { status, error } = query.getSnapshot();
    if (status === "error" && !ready) markError(error);
  };
  const endLook = query.subscribe(look);
  look();
  return () => {
    endLook();
    end();
  };
}

type Sink = Parameters<SyncConfig<RecordData, string>["sync"]>[0];

/** Writes mutations as one transaction; resolves when every collection has taken in what came of it. */
async function send(
  client: Untyped,
  mutations: readonly { table: string; mutation: Mutation }[],
): Promise<void> {
  const operations = mutations.flatMap(({ table, mutation }) =>
    operationsOf(client.schema, table, mutation),
  );
  const [first] = mutations;
  if (!operations.length || !first) return;
  await client.write(operations).confirmed;
  // The answer came with the records as they are now. Looking at one lets the streams tell of them first: what a stream
  // then does not tell of is nothing that it shows.
  client.record(first.table, String(first.mutation.key)).getSnapshot();
}

function operationsOf(schema: Schema, table: string, mutation: Mutation): Operation[] {
  const id = String(mutation.key);
  const at = { table, id };
  const live = tableOf(schema, table);
  const { type, modified } = mutation;
  if (type === "delete") return [{ type: "delete", ...at }];
  const isOurs = (name: string) => {
    const key = live && keyOf(live, name);
    // A name that is not there is left in, so that the write says so.
    if (!key) return true;
    return !key.serverOwned && name !== "id" && name !== "version" && name !== live.touch;
  };
  if (type === "insert") {
    const value = Object.fromEntries(
      Object.entries(modified).filter(([name, item]) => item !== undefined && isOurs(name)),
    );
    return [{ type: "create", ...at, value }];
  }
  const original = mutation.original as RecordData;
  return [...new Set([...Object.keys(original), ...Object.keys(modified)])]
    .filter(isOurs)
    .flatMap((name) => {
      const inside = live && keyOf(live, name)?.type === "json";
      return differences([name], original[name], modified[name], inside === true);
    })
    .map(({ key, value }) => ({
      type: "set",
      ...at,
      key,
      ...(value !== undefined && { value }),
    }));
}

/** What makes one value of another; inside jsonb by the smallest paths, so that others may change the rest meanwhile. */
function differences(
  path: readonly string[],
  before: Json | undefined,
  after: Json | undefined,
  inside: boolean,
): { key: Path; value: Json | undefined }[] {
  if (equalJson(before, after)) return [];
  if (!inside || !isObject(before) || !isObject(after) || path.length >= MAX_PATH) {
    return [{ key: path, value: after }];
  }
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  if (names.some((name) => RESERVED.includes(name))) return [{ key: path, value: after }];
  return names.flatMap((name) => differences([...path, name], before[name], after[name], true));
}
