import { useState } from "react";
import { useRecords, useWrite } from "rowcast/react";
import { newId } from "../new-id.js";
import { useMe, usePerson } from "../people.js";
import { Link, navigate } from "../router.js";
import type { Notebook } from "../schema.gen.js";
import { ShareDialog } from "../share-dialog.js";
import { Icon } from "../ui/icon.js";
import { Menu, MenuItem } from "../ui/menu.js";
import { NameDialog } from "../ui/name-dialog.js";
import { notify } from "../ui/toasts.js";

/** The notebooks: the user's own, and those others share with him. */
export function NotesNav({ notebookId }: { notebookId: string | undefined }) {
  const me = useMe();
  const notebooks = useRecords("notebooks", undefined, { orderBy: [{ key: "name" }] });
  const write = useWrite();
  const [adding, setAdding] = useState(false);
  const own = notebooks.filter(({ ownerId }) => ownerId === me);
  const others = notebooks.filter(({ ownerId }) => ownerId !== me);
  const add = (name: string) => {
    const id = newId();
    write({ type: "create", table: "notebooks", id, value: { name } });
    navigate({ app: "notes", notebookId: id });
  };
  return (
    <nav aria-label="Notebooks">
      <Section title="Notebooks" notebooks={own} notebookId={notebookId} />
      {others.length > 0 && (
        <Section title="Shared with you" notebooks={others} notebookId={notebookId} />
      )}
      <button type="button" className="quiet" onClick={() => setAdding(true)}>
        <Icon name="plus" size={16} /> New notebook
      </button>
      {adding && (
        <NameDialog
          title="New notebook"
          button="Create"
          onSave={add}
          onClose={() => setAdding(false)}
        />
      )}
    </nav>
  );
}

function Section({
  title,
  notebooks,
  notebookId,
}: {
  title: string;
  notebooks: readonly Notebook[];
  notebookId: string | undefined;
}) {
  return (
    <section className="place">
      <div className="place-head">
        <h2 className="grow">{title}</h2>
      </div>
      <ul>
        {notebooks.map((notebook) => (
          <Row key={notebook.id} notebook={notebook} open={notebook.id === notebookId} />
        ))}
      </ul>
    </section>
  );
}

function Row({ notebook, open }: { notebook: Notebook; open: boolean }) {
  const me = useMe();
  const person = usePerson();
  const write = useWrite();
  const [dialog, setDialog] = useState<"rename" | "share">();
  const { id, name, ownerId, sharedWith } = notebook;
  const mine = ownerId === me;
  const remove = () => {
    write({ type: "delete", table: "notebooks", id });
    if (open) navigate({ app: "notes" });
    notify(`“${name}” is deleted.`, {
      action: { label: "Restore", run: () => write({ type: "restore", table: "notebooks", id }) },
    });
  };
  const close = () => setDialog(undefined);
  return (
    <li>
      <Link to={{ app: "notes", notebookId: id }} aria-current={open ? "page" : undefined}>
        <Icon name="notebook" size={16} />
        <span className="grow">{name}</span>
        {!mine && <small className="soft">{person(ownerId).name}</small>}
        {mine && sharedWith.length > 0 && <Icon name="share" size={14} />}
      </Link>
      <Menu label={`Notebook ${name}`} button={<Icon name="more" />}>
        <MenuItem onClick={() => setDialog("share")}>{mine ? "Share …" : "Members …"}</MenuItem>
        {mine && <MenuItem onClick={() => setDialog("rename")}>Rename …</MenuItem>}
        {mine && (
          <MenuItem danger onClick={remove}>
            Delete
          </MenuItem>
        )}
      </Menu>
      {dialog === "rename" && (
        <NameDialog
          title="Rename notebook"
          value={name}
          button="Save"
          onSave={(value) => write({ type: "set", table: "notebooks", id, key: "name", value })}
          onClose={close}
        />
      )}
      {dialog === "share" && (
        <ShareDialog
          shared={{ table: "notebooks", id, name, ownerId, memberIds: sharedWith }}
          onClose={close}
        />
      )}
    </li>
  );
}
