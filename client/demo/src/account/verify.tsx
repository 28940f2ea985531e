import { useCallback, useEffect, useRef, useState } from "react";
import { AuthError } from "rowcast/auth";
import { Link, navigate } from "../router.js";
import { account, enterAccount } from "../session.js";
import { Card, Waiting } from "./card.js";
import { Form, PasswordField, useForm } from "./form.js";
import { NoLink } from "./password.js";
import { linkIsUsed, useLinkToken } from "./use-link-token.js";
import { explain } from "./words.js";

/** Where the link of a sign-up's mail leads. */
export function Verify() {
  const token = useLinkToken();
  const [problem, setProblem] = useState("");
  const [stands, setStands] = useState<"asking" | "password" | "failed">("asking");
  const [password, setPassword] = useState("");
  const asked = useRef(false);

  const finish = useCallback(
    async (given?: string) => {
      await account.verify(token, given);
      linkIsUsed();
      enterAccount();
      navigate({ app: "tasks" }, { replace: true });
    },
    [token],
  );
  const begin = useCallback(async () => {
    setStands("asking");
    try {
      await finish();
    } catch (error) {
      if (error instanceof AuthError && error.code === "password_needed") {
        return setStands("password");
      }
      setProblem(explain(error).text);
      setStands("failed");
    }
  }, [finish]);
  useEffect(() => {
    if (asked.current || !token) return;
    asked.current = true;
    void begin();
  }, [begin, token]);
  const form = useForm(() => finish(password));

  if (!token) return <NoLink />;
  if (stands === "asking") {
    return (
      <Card title="Confirming your address" focus>
        <Waiting>One moment …</Waiting>
      </Card>
    );
  }
  if (stands === "password") {
    return (
      <Card title="Confirm your address">
        <p className="soft">
          You signed up in another browser. Enter the password you chose there, so that nobody opens
          an account in your name.
        </p>
        <Form state={form} button="Confirm">
          <PasswordField
            value={password}
            onChange={setPassword}
            invalid={form.said?.field === "current"}
            first
          />
        </Form>
        <p className="account-foot">
          Not you? <Link to={{ app: "account", page: "sign-up" }}>Sign up afresh</Link>
        </p>
      </Card>
    );
  }
  return (
    <Card title="This did not work" focus>
      <p className="problem" role="alert">
        {problem}
      </p>
      <button type="button" className="primary" onClick={begin}>
        Try again
      </button>
      <p className="account-foot">
        <Link to={{ app: "account", page: "sign-up" }}>Sign up</Link>
        <Link to={{ app: "account", page: "sign-in" }}>Sign in</Link>
      </p>
    </Card>
  );
}

/** Where a provider's sign-in ends: the session is in the cookie. */
export function Welcome() {
  const [problem, setProblem] = useState("");
  const enter = useCallback(async () => {
    setProblem("");
    try {
      const user = await account.restore();
      if (!user) return navigate({ app: "account", page: "sign-in" }, { replace: true });
      enterAccount();
      navigate({ app: "tasks" }, { replace: true });
    } catch (error) {
      setProblem(explain(error).text);
    }
  }, []);
  const asked = useRef(false);
  useEffect(() => {
    if (asked.current) return;
    asked.current = true;
    void enter();
  }, [enter]);
  return (
    <Card title="Signing you in" focus>
      {problem ? (
        <>
          <p className="problem" role="alert">
            {problem}
          </p>
          <button type="button" className="primary" onClick={enter}>
            Try again
          </button>
        </>
      ) : (
        <Waiting>One moment …</Waiting>
      )}
    </Card>
  );
}
