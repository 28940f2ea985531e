import { AuthError } from "rowcast/auth";

/** What is said of a refusal, and which field it is about. */
export interface Said {
  readonly text: string;
  readonly field?: "email" | "password" | "current";
  /** Seconds until it is worth trying again. */
  readonly wait?: number;
}

/** Why something was refused, for people. It never says whether there is an account. */
export function explain(error: unknown): Said {
  if (!(error instanceof AuthError)) {
    return { text: error instanceof Error ? error.message : String(error) };
  }
  const { code, status, retryAfter } = error;
  if (status === 429) {
    const wait = Math.ceil(retryAfter ?? 60);
    return { text: `Too many attempts. You can try again in ${duration(wait)}.`, wait };
  }
  switch (code) {
    case "network":
      return { text: "The server cannot be reached. Check your connection, then try again." };
    case "wrong_credentials":
      return status === 401
        ? { text: "Address and password do not match.", field: "password" }
        : { text: "This is not the right password.", field: "current" };
    case "bad_email":
      return { text: "No mail can be sent to this address. Look at its spelling.", field: "email" };
    case "weak_password":
      return {
        text: "Choose another password: longer, not your address, and not a common one.",
        field: "password",
      };
    case "disabled":
      return { text: "This account is disabled. Ask whoever runs this server." };
    case "link_spent":
      return { text: "This link has been used, or is too old. Ask for another one." };
    case "unauthorized":
    case "session_ended":
      return { text: "Your session has ended. Sign in again." };
    case "not_found":
      return { text: "This server does not offer that." };
  }
  if (status >= 500) return { text: "The server is busy. Try again in a moment." };
  return { text: error.message };
}

/** What became of a sign-in by a provider that was in vain. */
export function providerError(code: string): string {
  switch (code) {
    case "oidc_denied":
      return "You were not signed in: the provider says that you declined.";
    case "disabled":
      return explain(new AuthError("disabled", "", { status: 403 })).text;
    case "rate_limited":
      return "Too many attempts. Try again in a few minutes.";
    case "unavailable":
      return "The provider cannot be reached now. Try again in a moment.";
    default:
      return "The sign-in at the provider did not work. Try again, or sign in another way.";
  }
}

/** Seconds in words: “40 seconds”, “3 minutes”. */
export function duration(seconds: number): string {
  const [value, unit] =
    seconds < 90
      ? [Math.max(1, Math.ceil(seconds)), "second"]
      : seconds < 5400
        ? [Math.ceil(seconds / 60), "minute"]
        : [Math.ceil(seconds / 3600), "hour"];
  return `${value} ${unit}${value === 1 ? "" : "s"}`;
}
