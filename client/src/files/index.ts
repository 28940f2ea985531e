export { HASHED_BYTES, hashOf, plainName, plainType } from "./prepare.js";
export type { Send, Sent } from "./send.js";
export { browserSend } from "./send.js";
export type { Kept, OpenShelf, Shelf } from "./shelf.js";
export { indexedDbShelf, memoryShelf } from "./shelf.js";
export type {
  Upload,
  UploadClient,
  UploadState,
  UploadStep,
  UploadsOptions,
} from "./uploads.js";
export { createUploads, UploadAbortedError, Uploads } from "./uploads.js";
