import { useEffect, useState } from "react";
import { useClient, useRecords, useStatus, useWrite } from "rowcast/react";
import { Empty, Topbar } from "../layout.js";
import { useMe } from "../people.js";
import { Link, type Route } from "../router.js";
import { useAccountHere, useSession } from "../session.js";
import { Icon } from "../ui/icon.js";
import { notify } from "../ui/toasts.js";

interface Received {
  readonly table: "workspaceInvitations" | "notebookInvitations";
  readonly id: string;
  readonly name: string;
  readonly createdAt: string;
}

/** The invitations to the user's address. Those he has sent himself he can read, too. */
function useReceived(): readonly Received[] {
  const me = useMe();
  const workspaces = useRecords("workspaceInvitations");
  const notebooks = useRecords("notebookInvitations");
  return [
    ...workspaces
      .filter(({ invitedBy }) => invitedBy !== me)
      .map(({ id, workspaceName: name, createdAt }) => {
        return { table: "workspaceInvitations" as const, id, name, createdAt };
      }),
    ...notebooks
      .filter(({ invitedBy }) => invitedBy !== me)
      .map(({ id, notebookName: name, createdAt }) => {
        return { table: "notebookInvitations" as const, id, name, createdAt };
      }),
  ].sort((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
}

/** In the sidebar, while there are some. */
export function InvitationsLink({ route }: { route: Route }) {
  const count = useReceived().length;
  const here = route.app === "account" && route.page === "invitations";
  if (count === 0) return null;
  return (
    <Link
      className="invitations-link"
      to={{ app: "account", page: "invitations" }}
      aria-current={here ? "page" : undefined}
    >
      <Icon name="share" size={16} />
      <span className="grow">{count === 1 ? "An invitation" : `${count} invitations`}</span>
    </Link>
  );
}

/** What the user is invited to: he accepts or declines it. */
export function Invitations() {
  const received = useReceived();
  const user = useAccountHere();
  const demo = useSession()?.name;
  useEffect(() => {
    document.title = "Invitations";
  }, []);
  return (
    <>
      <Topbar title={<h1>Invitations</h1>} />
      {received.length === 0 ? (
        <Empty title="Nothing waits for you">
          {user?.guest ? (
            <p>
              Invitations go to an address, and a guest has none:{" "}
              <Link to={{ app: "account", page: "sign-up" }}>create an account</Link> with it, or{" "}
              <Link to={{ app: "account", page: "sign-in" }}>sign in</Link>.
            </p>
          ) : (
            <p>
              What was sent to {user?.email ?? (demo ? `${demo}@example.com` : "your address")} is
              shown here. What you accepted is in the sidebar.
            </p>
          )}
        </Empty>
      ) : (
        <ul className="account-sections invitations">
          {received.map((invitation) => (
            <Invitation key={invitation.id} invitation={invitation} />
          ))}
        </ul>
      )}
    </>
  );
}

function Invitation({ invitation }: { invitation: Received }) {
  const { table, id, name } = invitation;
  const client = useClient();
  const write = useWrite();
  const online = useStatus((status) => status.online);
  const [busy, setBusy] = useState(false);
  const accept = async () => {
    if (busy) return;
    setBusy(true);
    const call =
      table === "workspaceInvitations"
        ? client.call("acceptWorkspaceInvitation", { id })
        : client.call("acceptNotebookInvitation", { id });
    try {
      await call.confirmed;
      notify(`“${name}” is in your sidebar now.`);
    } catch (error) {
      await client.discard(call.txId).catch(() => {});
      const code = (error as { code?: string }).code;
      notify(
        code === "forbidden"
          ? "This invitation was taken back."
          : `This did not work: ${(error as Error).message}`,
      );
    }
    setBusy(false);
  };
  return (
    <li className="invitation">
      <Icon name={table === "workspaceInvitations" ? "board" : "notebook"} size={22} />
      <p className="grow">
        <strong>{name}</strong>
        <small className="soft">
          {table === "workspaceInvitations" ? "A workspace with its boards" : "A notebook"}
        </small>
      </p>
      <div className="row">
        <button type="button" onClick={() => write({ type: "delete", table, id }, { undo: false })}>
          Decline
        </button>
        <button
          type="button"
          className="primary"
          disabled={!online}
          aria-disabled={busy}
          title={online ? undefined : "To accept you have to be online"}
          onClick={accept}
        >
          Accept
        </button>
      </div>
    </li>
  );
}
