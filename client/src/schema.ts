import { type Json, member } from "./json.js";

/** A default that a client can know. */
export type Default = { constant: Json } | { now: true } | { user: true } | { uuid: true };

/** The wire's name for a column's type. */
export type KeyType =
  | "text"
  | "enum"
  | "uuid"
  | "boolean"
  | "integer"
  | "bigint"
  | "numeric"
  | "float"
  | "timestamptz"
  | "timestamp"
  | "date"
  | "bytea"
  | "json"
  | "list"
  | "other";

/** What `sync.describe()` says of one key. */
export interface KeySchema {
  type: KeyType;
  /** Of a list. */
  elementType?: KeyType;
  nullable: boolean;
  /** A create must name it. */
  required: boolean;
  /** The server alone gives it. */
  serverOwned?: true;
  /** Collections are made of it: `tasks?boardId=...` is a key to subscribe to. */
  topic?: true;
  /** The table whose ids it holds. */
  references?: string;
  /** All the values it, or an element of it, may have. */
  values?: readonly string[];
  default?: Default;
  /** The most characters a text has, as SQL counts them: code points. */
  maxLength?: number;
  /** False where a create cannot name it. */
  insertable?: false;
  /** False where a record once made keeps it. */
  updatable?: false;
  /** False where clients never see it. */
  readable?: false;
  /** The column's comment. */
  comment?: string;
}

/** What `sync.describe()` says of one table. */
export interface TableSchema {
  idType: "uuid" | "text" | "bigint";
  softDelete: string | null;
  touch: string | null;
  hardDelete: boolean;
  wholeTable: boolean;
  /** The table's comment. */
  comment?: string | null;
  keys: Record<string, KeySchema>;
}

/** The registry of the server, as `sync.describe()` gives it. */
export interface Schema {
  schema: number;
  tables: Record<string, TableSchema>;
  functions: Record<string, Record<string, { type: string; required: boolean }>>;
}

/** A table by its wire name; undefined where there is none. */
export function tableOf(schema: Schema, name: string): TableSchema | undefined {
  return member(schema.tables, name);
}

/** A key of a table; undefined where there is none. */
export function keyOf(table: TableSchema, name: string): KeySchema | undefined {
  return member(table.keys, name);
}
