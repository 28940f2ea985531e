import { RefusedError } from "rowcast";
import { useClient, useRecords, useWrite } from "rowcast/react";
import { newId } from "../new-id.js";
import { useSession } from "../session.js";
import type { Shared } from "../share-dialog.js";
import { Icon } from "../ui/icon.js";

/** Invitations that wait, and one more. Whether an address has an account nobody learns. */
export function useInvitations({ table, id }: Pick<Shared, "table" | "id">) {
  const client = useClient();
  const inWorkspace = useRecords(
    "workspaceInvitations",
    table === "workspaces" ? { workspaceId: id } : null,
    { orderBy: [{ key: "email" }] },
  );
  const inNotebook = useRecords(
    "notebookInvitations",
    table === "notebooks" ? { notebookId: id } : null,
    { orderBy: [{ key: "email" }] },
  );
  const pending = [...inWorkspace, ...inNotebook];

  /** Says what became of it: at once, and again where the server refuses it. */
  const invite = (typed: string, say: (text: string) => void) => {
    const email = typed.trim().toLowerCase();
    if (!/^[^@\s]+@[^@\s]+$/.test(email)) return say(`“${email}” is no e-mail address.`);
    if (pending.some((invitation) => invitation.email === email)) {
      return say(`${email} is invited already.`);
    }
    const written = client.write(
      table === "workspaces"
        ? {
            type: "create",
            table: "workspaceInvitations",
            id: newId(),
            value: { workspaceId: id, email },
          }
        : {
            type: "create",
            table: "notebookInvitations",
            id: newId(),
            value: { notebookId: id, email },
          },
      { undo: false },
    );
    say(`${email} is invited: by mail, and in the app once signed in with this address.`);
    written.confirmed.catch(async (error) => {
      if (!(error instanceof RefusedError)) return;
      // Said here, it need not wait among what was refused.
      await client.discard(written.txId).catch(() => {});
      say(
        error.code === "exists"
          ? `${email} is invited already.`
          : error.code === "bad_email"
            ? `No mail can be sent to ${email}. Look at its spelling.`
            : error.code === "sign_up_first"
              ? "Guests cannot invite. Sign up first."
              : `${email} could not be invited: ${error.message}`,
      );
    });
  };
  return { pending, invite };
}

/** Those who were invited and have not answered yet. */
export function PendingInvitations({
  table,
  pending,
}: {
  table: Shared["table"];
  pending: readonly { readonly id: string; readonly email: string }[];
}) {
  const write = useWrite();
  const takeBack = (id: string) =>
    write(
      {
        type: "delete",
        table: table === "workspaces" ? "workspaceInvitations" : "notebookInvitations",
        id,
      },
      { undo: false },
    );
  return pending.map(({ id, email }) => (
    <li key={id}>
      <span className="avatar invited" aria-hidden>
        <Icon name="share" size={16} />
      </span>
      <span className="grow">
        {email}
        <small className="soft">Invited</small>
      </span>
      <button
        type="button"
        aria-label={`Take back the invitation of ${email}`}
        onClick={() => takeBack(id)}
      >
        Take back
      </button>
    </li>
  ));
}

/** Whether people are found by their demo names, too. */
export function useDemoNames(): boolean {
  return useSession()?.name !== undefined;
}
