import { useEffect, useState } from "react";
import { Link, navigate } from "../router.js";
import { account, enterAccount, useAccount, useAccountHere } from "../session.js";
import { Card } from "./card.js";
import { EmailField, Form, PasswordField, useForm } from "./form.js";
import { MailboxLink } from "./mailbox.js";
import { ProviderButtons } from "./sign-in-form.js";
import { useWays } from "./ways.js";

/** A new account; of a guest's, which keeps what he has made. */
export function SignUp() {
  const ways = useWays();
  const guest = useAccountHere()?.guest ?? false;
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [sent, setSent] = useState(false);
  const form = useForm(async () => {
    await account.signUp(email.trim(), password);
    setSent(true);
  });
  if (sent) {
    return (
      <CheckMail
        email={email.trim()}
        onBack={() => setSent(false)}
        onAgain={() => account.signUp(email.trim(), password)}
      />
    );
  }
  return (
    <Card title={guest ? "Keep what you have made" : "Create an account"}>
      {guest && (
        <p className="soft">With an account you get at your boards and notes from any device.</p>
      )}
      <Form state={form} button="Create account">
        <EmailField
          value={email}
          onChange={setEmail}
          first
          invalid={form.said?.field === "email"}
          hint="We send a link there, to see that it is yours."
        />
        <PasswordField
          fresh
          label="Password"
          value={password}
          onChange={setPassword}
          min={ways?.passwordMinLength}
          invalid={form.said?.field === "password"}
        />
      </Form>
      <ProviderButtons ways={ways} />
      <p className="account-foot">
        {guest ? (
          <Link to={{ app: "account", page: "" }}>Back</Link>
        ) : (
          <>
            You have one? <Link to={{ app: "account", page: "sign-in" }}>Sign in</Link>
          </>
        )}
      </p>
    </Card>
  );
}

/** A mail is on its way. What it says is for its reader alone. */
function CheckMail({
  email,
  onBack,
  onAgain,
}: {
  email: string;
  onBack: () => void;
  onAgain: () => Promise<void>;
}) {
  const { user } = useAccount();
  const [again, setAgain] = useState(false);
  const form = useForm(async () => {
    await onAgain();
    setAgain(true);
  });
  const done = user?.email === email.toLowerCase();
  useEffect(() => {
    // The link was opened in another window of this browser.
    if (!done) return;
    enterAccount();
    navigate({ app: "tasks" }, { replace: true });
  }, [done]);
  return (
    <Card title="Look into your mail" focus>
      <p>
        We have sent a mail to <strong>{email}</strong>. Open the link in it, best on this device,
        to go on.
      </p>
      <p className="soft">Nothing there? Look among the unwanted mail, too.</p>
      <MailboxLink />
      <Form state={form} button="Send it again">
        <p className="small soft" role="status">
          {again ? "Sent again." : ""}
        </p>
      </Form>
      <p className="account-foot">
        <button type="button" className="link" onClick={onBack}>
          Take another address
        </button>
      </p>
    </Card>
  );
}
