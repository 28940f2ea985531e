import { useState } from "react";
import type { SignInProvider, SignInWays } from "rowcast/auth";
import { Link } from "../router.js";
import { account, enterAccount } from "../session.js";
import { EmailField, Form, PasswordField, useForm } from "./form.js";
import { explain } from "./words.js";

/** Address and password. */
export function SignInForm({
  email: known = "",
  first = false,
  onDone,
}: {
  email?: string | undefined;
  first?: boolean;
  onDone?: () => void;
}) {
  const [email, setEmail] = useState(known);
  const [password, setPassword] = useState("");
  const form = useForm(async () => {
    await account.signIn(email.trim(), password);
    enterAccount();
    onDone?.();
  });
  const wrong = form.said?.field === "password";
  return (
    <Form state={form} button="Sign in">
      <EmailField value={email} onChange={setEmail} first={first && !known} />
      <PasswordField
        value={password}
        onChange={setPassword}
        invalid={wrong}
        first={first && known !== ""}
      />
      <p className="small">
        <Link to={{ app: "account", page: "forgot" }}>Forgot your password?</Link>
      </p>
    </Form>
  );
}

/** “Sign in with …”, where the server is set up for it. */
export function ProviderButtons({ ways }: { ways: SignInWays | null | undefined }) {
  const [problem, setProblem] = useState("");
  if (!ways?.providers.length) return null;
  const go = async (provider: SignInProvider) => {
    setProblem("");
    try {
      await account.signInBy(provider, "/account/welcome");
    } catch (error) {
      setProblem(explain(error).text);
    }
  };
  return (
    <div className="account-others">
      {ways.providers.map((provider) => (
        <button key={provider.id} type="button" onClick={() => go(provider)}>
          Sign in with {provider.name}
        </button>
      ))}
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}

/** Begins without an address. */
export function GuestButton({
  ways,
  onDone,
}: {
  ways: SignInWays | null | undefined;
  onDone: () => void;
}) {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  if (!ways?.guests) return null;
  const begin = async () => {
    if (busy) return;
    setBusy(true);
    setProblem("");
    try {
      await account.guest();
      enterAccount();
      onDone();
    } catch (error) {
      setProblem(explain(error).text);
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" aria-disabled={busy} onClick={begin}>
        Try without an account
      </button>
      {problem && (
        <p className="problem" role="alert">
          {problem}
        </p>
      )}
    </>
  );
}
