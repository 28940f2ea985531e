import { useEffect, useState } from "react";
import type { AccountUser } from "rowcast/auth";
import { useRecord, useStatus, useWrite } from "rowcast/react";
import { Topbar } from "../layout.js";
import { useMe } from "../people.js";
import { Link } from "../router.js";
import { account, useAccount, useAccountHere, useSession } from "../session.js";
import { notify } from "../ui/toasts.js";
import { Field, Form, PasswordField, useForm, WhosePassword } from "./form.js";
import { MailboxLink } from "./mailbox.js";
import { Section } from "./section.js";
import { useSignOut } from "./use-sign-out.js";
import { useWays } from "./ways.js";

/** What is about the user himself: name, address, password, where he is signed in. */
export function Account() {
  const user = useAccountHere();
  const { ended } = useAccount();
  const demo = useSession()?.name;
  const { signOut, dialog } = useSignOut();
  const online = useStatus((status) => status.online);
  useEffect(() => {
    document.title = "Your account";
    // His address may have been verified on another device.
    account.me().catch(() => {});
  }, []);
  return (
    <>
      <Topbar title={<h1>Account</h1>} />
      <div className="account-sections">
        <Section title="Name">
          <Name />
        </Section>
        {demo && (
          <Section title="A demo user">
            <p className="soft">
              {demo} signs in by a click and has nothing to change here. Sign out to see how it is
              to have an account of your own.
            </p>
          </Section>
        )}
        {user?.guest && (
          <Section title="You are a guest">
            <p>
              Your boards and notes are at hand in this browser only, and gone when you sign out.
              With an account you keep them, and get at them from any device.
            </p>
            <p className="row">
              <Link className="button primary" to={{ app: "account", page: "sign-up" }}>
                Create an account
              </Link>
            </p>
            <p className="small soft">
              You have an account already?{" "}
              <Link to={{ app: "account", page: "sign-in" }}>Sign in</Link>: what you made as a
              guest does not come along.
            </p>
          </Section>
        )}
        {user?.email && (
          <Section title="How you sign in">
            <p>
              As <strong>{user.email}</strong>
              {user.providers.length > 0 && <>, also by {user.providers.join(", ")}</>}
            </p>
          </Section>
        )}
        {user && !user.guest && !ended && (
          <Section title="Password">
            {user.hasPassword ? <ChangePassword user={user} /> : <FirstPassword user={user} />}
          </Section>
        )}
        <Section title="Your data">
          <p>
            <Link to={{ app: "account", page: "data" }}>Export, import and mails</Link>
          </p>
        </Section>
        <Section title="Sessions">
          <div className="row wrap">
            <button type="button" onClick={() => signOut()}>
              Sign out
            </button>
            {user && !user.guest && (
              <button
                type="button"
                className="danger"
                disabled={!online}
                onClick={() => signOut(true)}
              >
                Sign out everywhere
              </button>
            )}
          </div>
          {user && !user.guest && (
            <p className="small soft">
              {online
                ? "Everywhere: on all devices, this one too, at once. A lost phone is out, for example."
                : "To sign out everywhere you have to be online."}
            </p>
          )}
        </Section>
      </div>
      {dialog}
    </>
  );
}

function Name() {
  const me = useMe();
  const profile = useRecord("profiles", me);
  const write = useWrite();
  const [typed, setTyped] = useState<string>();
  const value = typed ?? profile?.name ?? "";
  const form = useForm(async () => {
    const name = value.trim();
    if (!name || !profile) return;
    await write({ type: "set", table: "profiles", id: me, key: "name", value: name });
    setTyped(undefined);
    notify("Your name is changed.");
  });
  return (
    <Form state={form} button="Save">
      <Field
        label="Your name, as others see it"
        value={value}
        onChange={setTyped}
        autoComplete="name"
        maxLength={80}
        required
      />
    </Form>
  );
}

function ChangePassword({ user }: { user: AccountUser }) {
  const ways = useWays();
  const [current, setCurrent] = useState("");
  const [password, setPassword] = useState("");
  const form = useForm(async () => {
    await account.changePassword(current, password);
    setCurrent("");
    setPassword("");
    notify("Your password is changed. All other devices are signed out.");
  });
  return (
    <Form state={form} button="Change password">
      <WhosePassword email={user.email} />
      <PasswordField
        label="Current password"
        value={current}
        onChange={setCurrent}
        invalid={form.said?.field === "current"}
      />
      <PasswordField
        fresh
        value={password}
        onChange={setPassword}
        min={ways?.passwordMinLength}
        invalid={form.said?.field === "password"}
      />
      <p className="small soft">It signs out all other devices.</p>
    </Form>
  );
}

/** Who came by a provider has none: he sets it by a link. */
function FirstPassword({ user }: { user: AccountUser }) {
  const [sent, setSent] = useState(false);
  const form = useForm(async () => {
    if (user.email) await account.requestReset(user.email);
    setSent(true);
  });
  if (!user.email) {
    return <p className="soft">Your provider has given no verified address to send a link to.</p>;
  }
  return (
    <Form state={form} button="Send me a link">
      <p className="soft" role="status">
        {sent
          ? `A mail to ${user.email} is on its way.`
          : "You have none yet. We send you a link to set one by."}
      </p>
      {sent && <MailboxLink />}
    </Form>
  );
}
