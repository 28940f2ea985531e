import { useEffect, useState } from "react";
import { useClient, useStatus } from "rowcast/react";
import { useAccount, useAccountHere } from "../session.js";
import { Dialog } from "../ui/dialog.js";
import { Icon } from "../ui/icon.js";
import { ProviderButtons, SignInForm } from "./sign-in-form.js";
import { useSignOut } from "./use-sign-out.js";
import { useWays } from "./ways.js";

/** The server does not know the user any more: what he does is kept here until he signs in again. */
export function SignInAgain() {
  const client = useClient();
  const needsAuth = useStatus((status) => status.needsAuth);
  const user = useAccountHere();
  const { ended } = useAccount();
  const ways = useWays();
  const { signOut, dialog } = useSignOut();
  const [open, setOpen] = useState(false);
  const mine = user !== undefined;
  useEffect(() => {
    // He has, here or in another window.
    if (mine && ended === null && needsAuth) client.resume();
  }, [client, mine, ended, needsAuth]);
  return (
    <>
      <button
        type="button"
        className="badge warn"
        onClick={() => (mine && ended ? setOpen(true) : client.resume())}
      >
        <Icon name="warning" size={15} /> Sign in again
      </button>
      {open && ended && (
        <Dialog title="Sign in again" onClose={() => setOpen(false)}>
          <div className="account-dialog">
            <p className="soft">
              {ended === "disabled"
                ? "This account was disabled. "
                : "Your session has ended: on another device, or after a long time. "}
              What you have not sent is kept here for you.
            </p>
            {user?.guest ? (
              <p>As a guest you have no password, unless you have signed up elsewhere.</p>
            ) : null}
            {/* By a provider one becomes whoever one is there. */}
            <SignInForm email={user?.email} first onDone={() => setOpen(false)} />
            <ProviderButtons ways={ways} />
            <p className="account-foot">
              <button type="button" className="link" onClick={() => signOut()}>
                Sign out instead
              </button>
            </p>
          </div>
        </Dialog>
      )}
      {dialog}
    </>
  );
}
