import { type FormEvent, useState } from "react";
import { useClient, useRecords, useStatus, useWrite } from "rowcast/react";
import { PendingInvitations, useDemoNames, useInvitations } from "./account/invite.js";
import { Avatar, useMe, usePerson } from "./people.js";
import { Dialog } from "./ui/dialog.js";

/** What is shared: who owns it and who else is in. */
export type Shared =
  | { table: "workspaces"; id: string; name: string; ownerId: string; memberIds: readonly string[] }
  | { table: "notebooks"; id: string; name: string; ownerId: string; memberIds: readonly string[] };

/** Who is in, asking somebody in, sending somebody away, leaving. */
export function ShareDialog({ shared, onClose }: { shared: Shared; onClose: () => void }) {
  const me = useMe();
  const person = usePerson();
  const write = useWrite();
  const { table, id, ownerId, memberIds } = shared;
  const mine = ownerId === me;
  const { pending, invite } = useInvitations(shared);

  const remove = (value: string) =>
    write(
      table === "workspaces"
        ? { type: "listRemove", table, id, key: "memberIds", value }
        : { type: "listRemove", table, id, key: "sharedWith", value },
    );
  const add = (value: string) =>
    write(
      table === "workspaces"
        ? { type: "listInsert", table, id, key: "memberIds", value }
        : { type: "listInsert", table, id, key: "sharedWith", value },
    );

  return (
    <Dialog title={`Share “${shared.name}”`} onClose={onClose}>
      <ul className="members">
        <li>
          <Avatar id={ownerId} size={32} />
          <span className="grow">{person(ownerId).name}</span>
          <span className="soft">Owner</span>
        </li>
        {memberIds.map((member) => (
          <li key={member}>
            <Avatar id={member} size={32} />
            <span className="grow">
              {person(member).name}
              {member === me && <span className="soft"> (you)</span>}
            </span>
            {mine && (
              <button type="button" onClick={() => remove(member)}>
                Remove
              </button>
            )}
          </li>
        ))}
        {mine && <PendingInvitations table={table} pending={pending} />}
      </ul>
      {mine ? (
        <Invite known={[ownerId, ...memberIds]} onFound={add} onInvite={invite} />
      ) : (
        <Leave shared={shared} onLeft={onClose} />
      )}
    </Dialog>
  );
}

/** Invites an address; of demo users asks the server who signs in by a name: the one thing here that needs it. */
function Invite({
  known,
  onFound,
  onInvite,
}: {
  known: string[];
  onFound: (id: string) => void;
  onInvite: (email: string, say: (text: string) => void) => void;
}) {
  const demo = useDemoNames();
  const client = useClient();
  const online = useStatus((status) => status.online);
  const [name, setName] = useState("");
  const [said, setSaid] = useState("");

  const find = async (event: FormEvent) => {
    event.preventDefault();
    const asked = name.trim().toLowerCase();
    if (!demo || asked.includes("@")) {
      onInvite(asked, setSaid);
      if (/.@./.test(asked)) setName("");
      return;
    }
    if (!online) return setSaid("To find people by name you have to be online.");
    setSaid("Looking …");
    try {
      const { values } = await client.call("findPerson", { name: asked }).confirmed;
      const found = values[0] as { id: string; name: string } | null;
      if (!found) return setSaid(`Nobody signs in as “${asked}”.`);
      if (known.includes(found.id)) return setSaid(`${found.name} is in already.`);
      onFound(found.id);
      setName("");
      setSaid(`${found.name} is in.`);
    } catch (error) {
      setSaid(error instanceof Error ? error.message : String(error));
    }
  };

  return (
    <form className="invite" onSubmit={find}>
      <label htmlFor="invite-name">Share with</label>
      <div className="row">
        <input
          id="invite-name"
          className="first-focus"
          value={name}
          inputMode="email"
          maxLength={254}
          placeholder={demo ? "E-mail address, or carol" : "E-mail address"}
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          required
          onChange={(event) => setName(event.target.value)}
        />
        <button type="submit" className="primary">
          Share
        </button>
      </div>
      <p className="soft" role="status">
        {said}
      </p>
    </form>
  );
}

function Leave({ shared, onLeft }: { shared: Shared; onLeft: () => void }) {
  const me = useMe();
  const write = useWrite();
  const { table, id } = shared;
  const inWorkspace = useRecords(
    "workspaceMembers",
    table === "workspaces" ? { workspaceId: id, userId: me } : null,
  );
  const inNotebook = useRecords(
    "notebookMembers",
    table === "notebooks" ? { notebookId: id, userId: me } : null,
  );
  const leave = () => {
    for (const { id } of inWorkspace) write({ type: "delete", table: "workspaceMembers", id });
    for (const { id } of inNotebook) write({ type: "delete", table: "notebookMembers", id });
    onLeft();
  };
  return (
    <footer className="dialog-foot">
      <p className="soft grow">Only the owner shares it with others.</p>
      <button
        type="button"
        className="danger"
        disabled={inWorkspace.length + inNotebook.length === 0}
        onClick={leave}
      >
        Leave
      </button>
    </footer>
  );
}
