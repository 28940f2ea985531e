import { useEffect, useState } from "react";
import { GuestButton, ProviderButtons, SignInForm } from "./account/sign-in-form.js";
import { useWays } from "./account/ways.js";
import { providerError } from "./account/words.js";
import { type AccountPage, Link, navigate } from "./router.js";
import { account, DEMO_USERS, enterAccount, signIn, useAccount } from "./session.js";

const ABOUT: Record<string, string> = {
  alice: "Owns the workspace Demo, which she shares with Bob.",
  bob: "Works in Demo, too, and has recipes of his own.",
  carol: "Has a garden, and sees nothing of the other two.",
};
const COLOURS: Record<string, string> = { alice: "#6b4df0", bob: "#0b8256", carol: "#c44d1c" };

/** Who are you? A demo user, for whom nothing is asked, or somebody with an account. */
export function SignIn({ page }: { page?: AccountPage }) {
  const ways = useWays();
  const [failed] = useState(() => /^#error=(\w+)$/.exec(location.hash)?.[1]);
  useEffect(() => {
    if (failed) history.replaceState(history.state, "", location.pathname);
    document.title = "Sign in";
  }, [failed]);
  useEffect(() => {
    // The browser may know a session of which this page does not.
    if (account.getSnapshot().user === undefined && ways) account.restore().catch(() => {});
  }, [ways]);
  return (
    <main className={ways ? "sign-in with-accounts" : "sign-in"}>
      <img src="/icons/icon.svg" alt="" width="56" height="56" />
      <h1>Tasks and notes</h1>
      {page === "invitations" ? (
        <p className="account-note">
          You are invited. Sign in with the address the mail came to, or create an account with it:
          what you are invited to is there then.
        </p>
      ) : (
        <p className="soft">
          Live, shared, and there when the network is not. Choose who you are; then open a second
          window and be somebody else.
        </p>
      )}
      {failed && (
        <p className="problem" role="alert">
          {providerError(failed)}
        </p>
      )}
      <div className="sign-in-ways">
        <DemoUsers compact={Boolean(ways)} />
        {ways && (
          <section className="account-card" aria-labelledby="with-account">
            <h2 id="with-account">Your account</h2>
            <GoOn />
            <SignInForm onDone={() => goHome(page)} />
            <div className="account-or">or</div>
            <ProviderButtons ways={ways} />
            <div className="account-others">
              <Link className="button" to={{ app: "account", page: "sign-up" }}>
                Create an account
              </Link>
              <GuestButton ways={ways} onDone={() => goHome(page)} />
            </div>
          </section>
        )}
      </div>
      <p className="soft small">
        <a href="/api/docs">API</a> · <a href="/readyz">Readiness</a> ·{" "}
        <a href="/metrics">Metrics</a>
      </p>
    </main>
  );
}

/** This browser has an account's session already. */
function GoOn() {
  const { user } = useAccount();
  if (!user) return null;
  return (
    <button
      type="button"
      className="primary"
      onClick={() => {
        enterAccount();
        navigate({ app: "tasks" });
      }}
    >
      Go on as {user.email ?? "the guest you are"}
    </button>
  );
}

/** Whoever came to a page of the apps stays there. */
function goHome(page: AccountPage | undefined): void {
  if (page === undefined) return;
  navigate(page === "invitations" ? { app: "account", page } : { app: "tasks" }, { replace: true });
}

/** The demo asks for no password. */
function DemoUsers({ compact }: { compact: boolean }) {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const choose = async (name: string) => {
    setBusy(true);
    setProblem("");
    try {
      await signIn(name);
      if (location.pathname.startsWith("/account")) navigate({ app: "tasks" }, { replace: true });
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <section>
      {compact && <h2>A demo user, without a password</h2>}
      <ul>
        {DEMO_USERS.map((name) => (
          <li key={name}>
            <button type="button" disabled={busy} onClick={() => choose(name)}>
              <span className="avatar large" style={{ backgroundColor: COLOURS[name] }} aria-hidden>
                {name.charAt(0).toUpperCase()}
              </span>
              <span>
                <strong>{name}</strong>
                <small>{ABOUT[name]}</small>
              </span>
            </button>
          </li>
        ))}
      </ul>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </section>
  );
}
