import type { Json } from "./json.js";
import type { KeyType, TableSchema } from "./schema.js";

/**
 * What the file of `rowcast types` tells this package of your database:
 *
 *     declare module "rowcast" {
 *       interface Register { tables: Tables; functions: Functions }
 *     }
 *
 * Without it everything works, and takes any table, key and value.
 */
// biome-ignore lint/suspicious/noEmptyInterface: apps add to it
export interface Register {}

// biome-ignore lint/suspicious/noExplicitAny: nothing is known of it
type Unknown = any;

/** A record of a table nothing is known of. */
export interface AnyRecord {
  readonly id: string;
  readonly version: number;
  readonly [key: string]: Unknown;
}

/** The registered tables by name: of each its `record`, what a `create` takes, and its `schema`. */
export type Tables<R = Register> = R extends { tables: infer T }
  ? T
  : { [table: string]: AnyTable };

/** The registered functions by name, each as its arguments. */
export type Functions<R = Register> = R extends { functions: infer F } ? F : AnyMembers;

type AnyMembers = { readonly [key: string]: Unknown };
type AnyTable = { record: AnyRecord; create: AnyMembers; schema: TableSchema };

/** The name of a live table. */
export type TableName<R = Register> = keyof Tables<R> & string;

/** A record of a table, as hooks and queries give it. */
export type RecordOf<T extends TableName<R>, R = Register> = Tables<R>[T] extends {
  record: infer Found;
}
  ? Found
  : never;

/** What a create of a table takes. */
export type CreateOf<T extends TableName<R>, R = Register> = Tables<R>[T] extends {
  create: infer Found;
}
  ? Found
  : never;

/**
 * The name of a table whose records have a type given by hand, as in `useRecord<Task>("tasks", id)`;
 * no name fits where none was given (`never`), so that such an overload lets nothing else pass.
 */
export type TableFor<Given> = [Given] extends [never] ? never : TableName;

/** A filter on records of a type given by hand. */
export type WhereFor<Given> = { readonly [K in keyof NoInfer<Given>]?: unknown };

// --- what may be done with a key ------------------------------------------------------------------

type SchemaOf<T extends TableName<R>, R> = Tables<R>[T] extends {
  schema: infer Found extends TableSchema;
}
  ? Found
  : TableSchema;

type KeysOf<T extends TableName<R>, R> = SchemaOf<T, R>["keys"];

/** The kind of a key's column: all kinds at once, where nothing is known of it. */
type KindOf<T extends TableName<R>, K, R> = K extends keyof KeysOf<T, R>
  ? KeysOf<T, R>[K]["type"]
  : KeyType;

/** The keys of a table whose description is a `Wanted`. */
type KeysLike<T extends TableName<R>, Wanted, R> = {
  [K in keyof KeysOf<T, R> & string]: KeysOf<T, R>[K] extends Wanted ? K : never;
}[keyof KeysOf<T, R> & string];

/** A key one can sort by. */
export type SortKey<T extends TableName<R>, R = Register> = {
  [K in keyof RecordOf<T, R> & string]: KindOf<T, K, R> extends "json" | "list" | "other" | "bytea"
    ? never
    : K;
}[keyof RecordOf<T, R> & string];

/** A key whose values make collections: `tasks?boardId=...`. */
export type TopicKey<T extends TableName<R>, R = Register> = string extends keyof KeysOf<T, R>
  ? string
  : KeysLike<T, { topic: true }, R>;

// --- places an operation can name: keys, and paths into jsonb -------------------------------------

/** A place as a dotted text (never, where a name has a dot in it) and as a list of names. */
interface Place<Dotted, Parts, Value, Kind, Removable> {
  dotted: Dotted;
  parts: Parts;
  value: Value;
  kind: Kind;
  removable: Removable;
}

/** Levels below a column that are known; further down any JSON may be put. */
type Levels = [1, 1, 1, 1];

type Places<T extends TableName<R>, R> = {
  [K in keyof CreateOf<T, R> & string]-?: K extends KeysLike<T, { updatable: false }, R>
    ? never
    : Column<K, Defined<CreateOf<T, R>[K]>, KindOf<T, K, R>>;
}[keyof CreateOf<T, R> & string];

/** Where the kind is not known the type of the value alone decides, as it does inside jsonb. */
type Column<K extends string, V, Kind> = KeyType extends Kind
  ? Column<K, V, "json">
  :
      | Place<K, readonly [K], V, Kind, null extends V ? true : false>
      | (Kind extends "json" ? Inside<NonNullable<V>, K, [K], Levels> : never);

type Inside<V, Dotted extends string, Parts extends string[], Left extends 1[]> = [
  Exclude<Json, null>,
] extends [V]
  ? Anywhere<Dotted, Parts>
  : Left extends [1, ...infer Rest extends 1[]]
    ? Members<V, Dotted, Parts, Rest>
    : V extends object
      ? Anywhere<Dotted, Parts>
      : never;

type Members<V, Dotted extends string, Parts extends string[], Left extends 1[]> = V extends object
  ? V extends readonly (infer Item)[]
    ? Member<Item, `${number}`, false, Dotted, Parts, Left>
    : {
        [K in keyof V & string]-?: Member<
          Defined<V[K]>,
          K,
          Record<never, never> extends Pick<V, K> ? true : false,
          Dotted,
          Parts,
          Left
        >;
      }[keyof V & string]
  : never;

type Member<
  V,
  K extends string,
  Removable,
  Dotted extends string,
  Parts extends string[],
  Left extends 1[],
> =
  | Place<Joined<Dotted, K>, readonly [...Parts, K], V, "json", Removable>
  | Inside<NonNullable<V>, Joined<Dotted, K>, [...Parts, K], Left>;

type Anywhere<Dotted extends string, Parts extends string[]> = Place<
  `${Dotted}.${string}`,
  readonly [...Parts, string, ...string[]],
  Json,
  "json",
  true
>;

type Joined<Dotted extends string, K extends string> = K extends `${string}.${string}`
  ? never
  : `${Dotted}.${K}`;

type Defined<V> = Exclude<V, undefined>;

/** A key of a table, or a path into one: `"title"`, `"metadata.color"`, `["metadata", "a.b"]`. */
export type KeyPath<T extends TableName<R>, R = Register> =
  | Places<T, R>["dotted"]
  | Places<T, R>["parts"];

/** The type of the value at a key or path. */
export type ValueAt<T extends TableName<R>, P extends KeyPath<T, R>, R = Register> = AtPlace<
  Places<T, R>,
  P
>;

type AtPlace<P, Asked> =
  P extends Place<infer Dotted, infer Parts, infer V, infer _Kind, infer _Removable>
    ? Asked extends Dotted | Parts
      ? V
      : never
    : never;

// --- operations -----------------------------------------------------------------------------------

/** Puts a value at a place; leaving the value out removes what is there. */
type SetAt<T, P> =
  P extends Place<infer Dotted, infer Parts, infer V, infer _Kind, infer Removable>
    ? SetKey<T, Dotted, V, Removable> | SetKey<T, Parts, V, Removable>
    : never;

// One member of the union per form of the key: the compiler picks by `key` what to complain about.
type SetKey<T, Key, V, Removable> = Key extends unknown
  ? Removable extends true
    ? { type: "set"; table: T; id: string; key: Key; value?: V }
    : { type: "set"; table: T; id: string; key: Key; value: V }
  : never;

/** The keys and paths of places that hold moments, or text inside jsonb. */
type MomentPath<P> =
  P extends Place<infer Dotted, infer Parts, infer V, infer Kind, infer _Removable>
    ? Kind extends "timestamptz" | "timestamp" | "date"
      ? Dotted | Parts
      : Kind extends "json"
        ? string extends V
          ? Dotted | Parts
          : never
        : never
    : never;

type IncrementAt<T, P> =
  P extends Place<infer Dotted, infer Parts, infer V, infer Kind, infer _Removable>
    ? Kind extends "bigint" | "numeric"
      ? { type: "increment"; table: T; id: string; key: Dotted | Parts; by: number | string }
      : Kind extends "integer" | "float" | "json"
        ? number extends V
          ? { type: "increment"; table: T; id: string; key: Dotted | Parts; by: number }
          : never
        : never
    : never;

type ListAt<T, P> =
  P extends Place<infer Dotted, infer Parts, infer V, infer Kind, infer _Removable>
    ? Kind extends "list" | "json"
      ? ListOf<T, Dotted | Parts, ItemOf<NonNullable<V>>>
      : never
    : never;

type ListOf<T, Key, Item> = [Item] extends [never]
  ? never
  :
      | {
          type: "listInsert";
          table: T;
          id: string;
          key: Key;
          value: Item;
          position?: "prepend" | "append" | { before: Item } | { after: Item };
        }
      | { type: "listRemove"; table: T; id: string; key: Key; value: Item };

type ItemOf<V> = [Exclude<Json, null>] extends [V]
  ? Json
  : V extends readonly (infer Item)[]
    ? Item
    : never;

type TableOperation<T extends TableName<R>, R, P, S extends TableSchema> =
  | SetAt<T, P>
  | ListAt<T, P>
  | IncrementAt<T, P>
  | { type: "set-now"; table: T; id: string; key: MomentPath<P> | Extract<S["touch"], string> }
  // The server counts up bigint ids: a client does not make such records, nor those it may not fill.
  | (S["idType"] extends "bigint"
      ? never
      : { type: "create"; table: T; id: string; value: Insertable<T, R> })
  | ([S["softDelete"], S["hardDelete"]] extends [null, false]
      ? never
      : { type: "delete"; table: T; id: string })
  | (S["softDelete"] extends null ? never : { type: "restore"; table: T; id: string });

/** What a create takes without what it may not name. */
type Insertable<T extends TableName<R>, R> = [KeysLike<T, { insertable: false }, R>] extends [never]
  ? CreateOf<T, R>
  : [KeysLike<T, { insertable: false; required: true }, R>] extends [never]
    ? Omit<CreateOf<T, R>, KeysLike<T, { insertable: false }, R>>
    : never;

/** A call of a function that `sync.expose` made callable. */
export type CallOperation<R = Register> = {
  [F in keyof Functions<R> & string]: Record<never, never> extends Functions<R>[F]
    ? { type: "call"; fn: F; args?: Functions<R>[F] }
    : { type: "call"; fn: F; args: Functions<R>[F] };
}[keyof Functions<R> & string];

/** What follows a function's name in a call: its arguments, where none is required perhaps not. */
export type CallArguments<F extends keyof Functions<R> & string, R = Register> =
  Record<never, never> extends Functions<R>[F] ? [args?: Functions<R>[F]] : [args: Functions<R>[F]];

/**
 * What one writes, checked against the registered tables: names, paths, values. All but `call` name `table` and `id`.
 *
 *     { type: "create", table, id, value: { title } }
 *     { type: "set", table, id, key: "metadata.color", value: "red" }   // without a value: removes what is there
 *     { type: "set-now", table, id, key: "dueDate" }
 *     { type: "increment", table, id, key: "votes", by: 1 }
 *     { type: "listInsert", table, id, key: "tags", value: "home", position: { after: "work" } }
 *     { type: "listRemove", table, id, key: "tags", value: "home" }
 *     { type: "delete", table, id }                                     // and "restore"
 *     { type: "call", fn: "completeBoard", args: { boardId } }
 */
export type Operation<R = Register> =
  string extends TableName<R> ? AnyOperation : OperationOf<TableName<R>, R> | CallOperation<R>;

/** What one writes to a table. */
export type OperationOf<T extends TableName<R>, R = Register> = {
  [Name in T]: TableOperation<Name, R, Places<Name, R>, SchemaOf<Name, R>>;
}[T];

type AnyAt = { table: string; id: string };
type AnyKey = AnyAt & { key: string | readonly string[] };
type AnyOperation =
  | ({ type: "set"; value?: Unknown } & AnyKey)
  | ({ type: "set-now" } & AnyKey)
  | ({ type: "increment"; by: number | string } & AnyKey)
  | ({ type: "listInsert"; value: Unknown; position?: Unknown } & AnyKey)
  | ({ type: "listRemove"; value: Unknown } & AnyKey)
  | ({ type: "create"; value: AnyMembers } & AnyAt)
  | ({ type: "delete" | "restore" } & AnyAt)
  | { type: "call"; fn: string; args?: AnyMembers };

/** A version a record must have for a transaction to be applied; 0: it must not exist. */
export interface Expectation<R = Register> {
  table: TableName<R>;
  id: string;
  version: number;
}

// --- queries --------------------------------------------------------------------------------------

interface Presence {
  /** There is no value, or there is one. */
  is?: null | "notNull";
}

interface Equality<V> extends Presence {
  eq?: V;
  neq?: V;
  in?: readonly V[];
}

interface Listing<V, Item> extends Equality<V> {
  /** An element of the list. */
  contains?: Item;
}

interface Ordering<V> extends Equality<V> {
  lt?: V;
  lte?: V;
  gt?: V;
  gte?: V;
}

interface Text<V> extends Ordering<V> {
  /** A part of the text, letter by letter. */
  contains?: string;
}

type Condition<V, Kind> = Kind extends "other"
  ? Presence
  : Kind extends "json"
    ? Exclude<V, object> | Extract<V, readonly unknown[]> | Listing<V, ItemOf<V>>
    : Kind extends "list"
      ? V | Listing<V, ItemOf<V>>
      : Kind extends "bytea"
        ? V | Equality<V>
        : Kind extends "text"
          ? V | Text<V>
          : Kind extends "bigint" | "numeric"
            ? V | number | Ordering<V | number>
            : V | Ordering<V>;

/**
 * Conditions that all must hold: `{ status: { in: ["todo", "done"] }, dueDate: { lt: "2026-12-31" } }`.
 * `{ boardId: "x" }` is `{ boardId: { eq: "x" } }`. As in SQL nothing equals null: `{ is: null }`.
 */
export type Where<T extends TableName<R>, R = Register> =
  string extends TableName<R>
    ? { readonly [key: string]: Unknown }
    : {
        readonly [K in keyof RecordOf<T, R>]?: Condition<
          NonNullable<RecordOf<T, R>[K]>,
          KindOf<T, K, R>
        >;
      };

/** At most five keys to sort by; nulls stand last, ties are broken by id. */
export type OrderBy<T extends TableName<R>, R = Register> = readonly {
  readonly key: SortKey<T, R>;
  readonly dir?: "asc" | "desc";
}[];

/** Along a foreign key (`boardId`: the parents), or to a table that has one to here (`comments`). */
type Relation<T extends TableName<R>, R> =
  | KeysLike<T, { references: string }, R>
  | {
      [Child in TableName<R>]: [KeysLike<Child, { references: T }, R>] extends [never]
        ? never
        : Child;
    }[TableName<R>];

/** What to load with a query; up to three relations joined by dots, of which the first is checked. */
export type Include<T extends TableName<R>, R = Register> = string extends keyof KeysOf<T, R>
  ? string
  : Relation<T, R> | `${Relation<T, R>}.${string}`;
