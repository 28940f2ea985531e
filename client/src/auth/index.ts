export {
  type AccountUser,
  AuthError,
  AuthSession,
  createSession,
  type SessionLocks,
  type SessionOptions,
  type SessionState,
  type SignInProvider,
  type SignInWays,
} from "./session.js";
