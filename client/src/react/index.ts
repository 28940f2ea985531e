export { RowcastProvider, type RowcastProviderProps, useClient } from "./context.js";
export { type Field, type FieldOptions, useField } from "./use-field.js";
export { usePresence } from "./use-presence.js";
export {
  type Collection,
  type CollectionOptions,
  type QueryResult,
  useCollection,
  useQuery,
  useRecords,
} from "./use-query.js";
export { useRecord } from "./use-record.js";
export { type Inbox, useRejected, useStatus } from "./use-status.js";
export {
  type UndoRedo,
  type UndoRedoOptions,
  useUndoRedo,
} from "./use-undo-redo.js";
export { useWrite } from "./use-write.js";
