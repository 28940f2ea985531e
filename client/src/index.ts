export type {
  ClientOptions,
  ClientPart,
  DebugState,
  Query,
  QueryOptions,
  SeenFrame,
  ServerBatch,
  ServerChangeOf,
  ServerStream,
  Status,
  WriteHandle,
  WriteOptions,
} from "./client.js";
export { Client, createClient } from "./client.js";
export type { OpProblem } from "./errors.js";
export {
  ClosedError,
  InvalidOperationError,
  InvalidQueryError,
  PendingWritesError,
  RefusedError,
  RowcastError,
  UserChangedError,
} from "./errors.js";
export { collectionKey, recordKey } from "./filters.js";
export type { Json, RecordData } from "./json.js";
export type { KeyInfo, KeyStatus } from "./keys.js";
export type { Broadcast, Peer, PresenceState } from "./presence.js";
export type { QueryState, QueryStatus } from "./query.js";
export type { Readable } from "./readable.js";
export type { Runtime } from "./runtime.js";
export { browserRuntime } from "./runtime.js";
export type { KeySchema, Schema, TableSchema } from "./schema.js";
export type { SocketState } from "./socket.js";
export type { History, Skipped, UndoResult } from "./steps.js";
export type {
  Change,
  CommitOptions,
  Put,
  Remove,
  Revise,
  Storage,
  Store,
  StoreName,
} from "./storage.js";
export { StorageError, StorageFullError } from "./storage.js";
export { indexedDbStorage } from "./storage-indexeddb.js";
export { memoryStorage } from "./storage-memory.js";
export type { QueryInfo } from "./sync.js";
export type { Channel, Tabs } from "./tabs.js";
export { browserTabs, oneTab } from "./tabs.js";
export type { Auth, Connection, Reply, SocketEvents, Transport } from "./transport.js";
export { browserTransport, HttpError, NeedsAuthError, NetworkError } from "./transport.js";
export type {
  AnyRecord,
  CallArguments,
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
  TableFor,
  TableName,
  Tables,
  TopicKey,
  ValueAt,
  Where,
  WhereFor,
} from "./types.js";
export type { Key, Problem, RecordVersion } from "./wire.gen.js";
export type { Receipt, Rejected } from "./written.js";
