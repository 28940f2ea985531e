import { type ReactNode, useState } from "react";
import { PendingWritesError } from "rowcast";
import { useClient } from "rowcast/react";
import { Link, navigate } from "../router.js";
import { forget, useAccountHere } from "../session.js";
import { Dialog } from "../ui/dialog.js";
import { notify } from "../ui/toasts.js";

/**
 * Signing out without losing what was not sent, or what only a guest's session leads to. Render `dialog`: it asks where
 * there is something to be asked.
 */
export function useSignOut(): { signOut: (everywhere?: boolean) => void; dialog: ReactNode } {
  const client = useClient();
  const guest = useAccountHere()?.guest ?? false;
  const [unsent, setUnsent] = useState<PendingWritesError>();
  const [everywhere, setEverywhere] = useState(false);
  const [leaving, setLeaving] = useState(false);

  const leave = async (pending: "ask" | "keep" | "discard", all: boolean) => {
    setLeaving(false);
    try {
      await client.signOut({ pending });
      navigate({ app: "tasks" }, { replace: true });
      const told = await forget({ everywhere: all });
      if (!told) {
        notify(
          all
            ? "Signed out here. The other devices follow as soon as this one has a connection."
            : "Signed out. The server hears of it as soon as there is a connection.",
        );
      }
    } catch (error) {
      if (error instanceof PendingWritesError) setUnsent(error);
      else notify((error as Error).message);
    }
  };
  const signOut = (all = false) => {
    setEverywhere(all);
    if (guest) setLeaving(true);
    else void leave("ask", all);
  };

  const dialog = (
    <>
      {leaving && (
        <Dialog title="Leave for good?" onClose={() => setLeaving(false)}>
          <p>
            You are a guest: there is no way back to your boards and notes once you sign out. With
            an account you keep them.
          </p>
          <footer className="dialog-foot">
            <button type="button" onClick={() => setLeaving(false)}>
              Stay
            </button>
            <button type="button" className="danger" onClick={() => leave("discard", everywhere)}>
              Leave
            </button>
            <Link className="button primary" to={{ app: "account", page: "sign-up" }}>
              Create an account
            </Link>
          </footer>
        </Dialog>
      )}
      {unsent && (
        <Dialog title="There are changes that were not saved" onClose={() => setUnsent(undefined)}>
          <p>
            {unsent.pending > 0 && `${unsent.pending} not sent yet. `}
            {unsent.files > 0 &&
              `${unsent.files} ${unsent.files === 1 ? "file" : "files"} not uploaded. `}
            {unsent.rejected > 0 && `${unsent.rejected} refused by the server. `}
            This is on this device only.
          </p>
          <footer className="dialog-foot">
            <button type="button" onClick={() => setUnsent(undefined)}>
              Stay
            </button>
            <button type="button" className="danger" onClick={() => leave("discard", everywhere)}>
              Discard
            </button>
            <button type="button" className="primary" onClick={() => leave("keep", everywhere)}>
              Keep for next time
            </button>
          </footer>
        </Dialog>
      )}
    </>
  );
  return { signOut, dialog };
}
