export type { Json, RecordData } from "./json.js";
export type { KeySchema, Schema, TableSchema } from "./schema.js";
export type {
  AnyRecord,
  CallOperation,
  CreateOf,
  Expectation,
  Functions,
  Include,
  KeyPath,
  Operation,
  OperationOf,
  OrderBy,
  RecordOf,
  Register,
  SortKey,
  TableName,
  Tables,
  TopicKey,
  ValueAt,
  Where,
} from "./types.js";
