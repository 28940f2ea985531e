export type { ReadAll, Rules, TestCall, VisibleAsk, WritableAsk } from "./data.js";
export {
  createTestServer,
  type Fault,
  type RequestKind,
  type SeenRequest,
  TestServer,
  type TestServerOptions,
} from "./server.js";
