import type {
  BaseCollectionConfig,
  ChangeMessageOrDeleteKeyMessage,
  CollectionConfig,
  PendingMutation,
  SyncConfig,
} from "@tanstack/db";
import type { Client, ServerBatch, ServerStream, WriteHandle } from "./client.js";
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
  /** What it has taken in; for `rowcastMutationFn`. */
  readonly echoes: Echoes;
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
  write(operations: readonly Operation[]): WriteHandle;
}

/** A change as TanStack DB tells it. */
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
      mutations.map((mutation) => ({ table, mutation, echoes })),
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
    utils: { table, awaitTxId: (txId) => echoes.transaction(txId), echoes },
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
        const { utils } = mutation.collection as { utils: Partial<RowcastUtils> };
        const { table, echoes } = utils;
        if (table !== undefined && echoes) {
          return { table, mutation: mutation as unknown as Mutation, echoes };
        }
        throw new RowcastError(
          "foreign_collection",
          "A collection in this transaction is not Rowcast's. Make it with rowcastCollectionOptions, or write it yourself.",
        );
      }),
    );
}

/** What a collection has taken in, and who waits for it. */
class Echoes {
  private readonly heard = new Set<string>();
  private readonly versions = new Map<string, number>();
  private readonly waiting = new Set<{ holds: () => boolean; done: () => void }>();

  /** Hears of a batch once it has been handed on. */
  hear({ reset, changes, txIds }: ServerBatch<RecordData>): void {
    if (reset) this.versions.clear();
    for (const change of changes) {
      if (change.type === "delete") this.versions.delete(change.id);
      else this.versions.set(change.id, Number(change.record.version));
    }
    for (const txId of txIds) this.heard.add(txId);
    for (const oldest of this.heard) {
      if (this.heard.size <= REMEMBERED) break;
      this.heard.delete(oldest);
    }
    this.look();
  }

  /** Nothing more will come. */
  end(): void {
    this.versions.clear();
    this.look();
  }

  /** Resolves when a transaction has been taken in. */
  transaction(txId: string): Promise<void> {
    return this.until(() => this.heard.has(txId));
  }

  /** Resolves when a record is no older than this, or is not shown. */
  record(txId: string, id: string, version: number): Promise<void> {
    return this.until(() => {
      const held = this.versions.get(id);
      return held === undefined || (version > 0 && held >= version) || this.heard.has(txId);
    });
  }

  private until(holds: () => boolean): Promise<void> {
    return new Promise((done) => {
      this.waiting.add({ holds, done });
      this.look();
    });
  }

  private look(): void {
    for (const waiter of this.waiting) {
      if (!waiter.holds()) continue;
      this.waiting.delete(waiter);
      waiter.done();
    }
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
    echoes.hear(batch);
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
    echoes.end();
  };
}

type Sink = Parameters<SyncConfig<RecordData, string>["sync"]>[0];

/** One mutation and where it belongs. */
interface Sent {
  table: string;
  mutation: Mutation;
  echoes: Echoes;
}

/** Writes mutations as one transaction; resolves when every collection has taken in what came of it. */
async function send(client: Untyped, mutations: readonly Sent[]): Promise<void> {
  const operations = mutations.flatMap(({ table, mutation }) =>
    operationsOf(client.schema, table, mutation),
  );
  if (!operations.length) return;
  const { txId, versions } = await client.write(operations).confirmed;
  // What changed nothing has no echo: then it is enough that nothing older is shown.
  await Promise.all(
    mutations.map(({ table, mutation, echoes }) => {
      const id = String(mutation.key);
      const found = versions.find((one) => one.table === table && one.id === id);
      return echoes.record(txId, id, found?.version ?? 0);
    }),
  );
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
