import { useState } from "react";
import { Link, navigate } from "../router.js";
import { account, enterAccount } from "../session.js";
import { Card } from "./card.js";
import { EmailField, Form, PasswordField, useForm } from "./form.js";
import { MailboxLink } from "./mailbox.js";
import { useLinkToken } from "./use-link-token.js";
import { useWays } from "./ways.js";

/** Asks for a link to set another password by. */
export function Forgot({ email: known = "" }: { email?: string }) {
  const [email, setEmail] = useState(known);
  const [sent, setSent] = useState(false);
  const form = useForm(async () => {
    await account.requestReset(email.trim());
    setSent(true);
  });
  if (sent) {
    return (
      <Card title="Look into your mail" focus>
        <p>
          If there is an account with the address <strong>{email.trim()}</strong>, a mail with a
          link is on its way. The link is good for an hour.
        </p>
        <MailboxLink />
        <p className="account-foot">
          <button type="button" className="link" onClick={() => setSent(false)}>
            Take another address
          </button>
          <Link to={{ app: "account", page: "sign-in" }}>Sign in</Link>
        </p>
      </Card>
    );
  }
  return (
    <Card title="Choose another password">
      <p className="soft">Tell us your address; we send you a link for it.</p>
      <Form state={form} button="Send the link">
        <EmailField
          value={email}
          onChange={setEmail}
          first
          invalid={form.said?.field === "email"}
        />
      </Form>
      <p className="account-foot">
        <Link to={{ app: "account", page: "sign-in" }}>Back to signing in</Link>
      </p>
    </Card>
  );
}

/** Where the link of a mail leads: sets a password, and signs in. */
export function Reset() {
  const ways = useWays();
  const token = useLinkToken();
  const [password, setPassword] = useState("");
  const form = useForm(async () => {
    await account.reset(token, password);
    enterAccount();
    navigate({ app: "tasks" }, { replace: true });
  });
  if (!token) return <NoLink />;
  return (
    <Card title="Choose another password">
      <p className="soft">It signs you in here, and signs out all other devices.</p>
      <Form state={form} button="Set the password">
        <PasswordField
          fresh
          value={password}
          onChange={setPassword}
          min={ways?.passwordMinLength}
          invalid={form.said?.field === "password"}
          first
        />
      </Form>
      <p className="account-foot">
        <Link to={{ app: "account", page: "forgot" }}>Ask for another link</Link>
      </p>
    </Card>
  );
}

/** An address without what a mail's link has. */
export function NoLink() {
  return (
    <Card title="There is something missing" focus>
      <p>Open the link exactly as it is in the mail.</p>
      <p className="account-foot">
        <Link to={{ app: "account", page: "sign-in" }}>Sign in</Link>
        <Link to={{ app: "account", page: "forgot" }}>Ask for another link</Link>
      </p>
    </Card>
  );
}
