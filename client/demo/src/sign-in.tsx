import { useState } from "react";
import { DEMO_USERS, signIn } from "./session.js";

const ABOUT: Record<string, string> = {
  alice: "Owns the workspace Demo, which she shares with Bob.",
  bob: "Works in Demo, too, and has recipes of his own.",
  carol: "Has a garden, and sees nothing of the other two.",
};
const COLOURS: Record<string, string> = { alice: "#6b4df0", bob: "#0b8256", carol: "#c44d1c" };

/** Who are you? The demo asks for no password. */
export function SignIn() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  const choose = async (name: string) => {
    setBusy(true);
    setProblem("");
    try {
      await signIn(name);
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <main className="sign-in">
      <img src="/icons/icon.svg" alt="" width="56" height="56" />
      <h1>Tasks and notes</h1>
      <p className="soft">
        Live, shared, and there when the network is not. Choose who you are; then open a second
        window and be somebody else.
      </p>
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
      <p className="problem" role="alert">
        {problem}
      </p>
      <p className="soft small">
        <a href="/api/docs">API</a> · <a href="/readyz">Readiness</a> ·{" "}
        <a href="/metrics">Metrics</a>
      </p>
    </main>
  );
}
