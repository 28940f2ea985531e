import { useState } from "react";
import { useRecords, useWrite } from "rowcast/react";
import { newId } from "../new-id.js";
import { placeAt } from "../order-keys.js";
import { useMe } from "../people.js";
import { Link, navigate } from "../router.js";
import type { Board, Workspace } from "../schema.gen.js";
import { ShareDialog } from "../share-dialog.js";
import { Icon } from "../ui/icon.js";
import { Menu, MenuItem } from "../ui/menu.js";
import { NameDialog } from "../ui/name-dialog.js";
import { notify } from "../ui/toasts.js";

/** Workspaces and their boards. */
export function TasksNav({ boardId }: { boardId: string | undefined }) {
  const workspaces = useRecords("workspaces", undefined, { orderBy: [{ key: "name" }] });
  const boards = useRecords("boards", undefined, { orderBy: [{ key: "orderKey" }] });
  const write = useWrite();
  const [adding, setAdding] = useState(false);
  return (
    <nav aria-label="Boards">
      {workspaces.map((workspace) => (
        <WorkspaceNav
          key={workspace.id}
          workspace={workspace}
          boards={boards.filter((board) => board.workspaceId === workspace.id)}
          boardId={boardId}
        />
      ))}
      <button type="button" className="quiet" onClick={() => setAdding(true)}>
        <Icon name="plus" size={16} /> New workspace
      </button>
      {adding && (
        <NameDialog
          title="New workspace"
          button="Create"
          onSave={(name) =>
            write({ type: "create", table: "workspaces", id: newId(), value: { name } })
          }
          onClose={() => setAdding(false)}
        />
      )}
    </nav>
  );
}

function WorkspaceNav({
  workspace,
  boards,
  boardId,
}: {
  workspace: Workspace;
  boards: readonly Board[];
  boardId: string | undefined;
}) {
  const me = useMe();
  const write = useWrite();
  const [open, setOpen] = useState<"rename" | "board" | "share">();
  const { id, name, ownerId } = workspace;
  const mine = ownerId === me;
  const close = () => setOpen(undefined);

  const addBoard = (name: string) => {
    const board = newId();
    const { key } = placeAt(
      boards.map(({ orderKey }) => orderKey),
      boards.length,
    );
    const value = { workspaceId: id, name, orderKey: key };
    write({ type: "create", table: "boards", id: board, value });
    navigate({ app: "tasks", boardId: board });
  };
  const remove = () => {
    write({ type: "delete", table: "workspaces", id });
    notify(`“${name}” is deleted.`, {
      action: { label: "Restore", run: () => write({ type: "restore", table: "workspaces", id }) },
    });
  };

  return (
    <section className="place">
      <div className="place-head">
        <h2 className="grow">{name}</h2>
        <Menu label={`Workspace ${name}`} button={<Icon name="more" />}>
          <MenuItem onClick={() => setOpen("board")}>New board …</MenuItem>
          <MenuItem onClick={() => setOpen("share")}>{mine ? "Share …" : "Members …"}</MenuItem>
          {mine && <MenuItem onClick={() => setOpen("rename")}>Rename …</MenuItem>}
          {mine && (
            <MenuItem danger onClick={remove}>
              Delete
            </MenuItem>
          )}
        </Menu>
      </div>
      <ul>
        {boards.map((board) => (
          <li key={board.id}>
            <Link
              to={{ app: "tasks", boardId: board.id }}
              aria-current={board.id === boardId ? "page" : undefined}
            >
              <Icon name="board" size={16} />
              <span className="grow">{board.name}</span>
            </Link>
          </li>
        ))}
        {boards.length === 0 && (
          <li>
            <button type="button" className="quiet" onClick={() => setOpen("board")}>
              <Icon name="plus" size={16} /> New board
            </button>
          </li>
        )}
      </ul>
      {open === "board" && (
        <NameDialog title="New board" button="Create" onSave={addBoard} onClose={close} />
      )}
      {open === "rename" && (
        <NameDialog
          title="Rename workspace"
          value={name}
          button="Save"
          onSave={(value) => write({ type: "set", table: "workspaces", id, key: "name", value })}
          onClose={close}
        />
      )}
      {open === "share" && (
        <ShareDialog shared={{ table: "workspaces", ...workspace }} onClose={close} />
      )}
    </section>
  );
}
