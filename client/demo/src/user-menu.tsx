import { Suspense, useState } from "react";
import { createPortal } from "react-dom";
import { PendingWritesError } from "rowcast";
import { useClient, useWrite } from "rowcast/react";
import { Avatar, useMe, usePerson } from "./people.js";
import { navigate } from "./router.js";
import { DEMO_USERS, forget, signIn, useSession } from "./session.js";
import { THEMES, useTheme } from "./theme.js";
import { Dialog } from "./ui/dialog.js";
import { Icon } from "./ui/icon.js";
import { late } from "./ui/late.js";
import { Menu, MenuChoice, MenuGroup, MenuItem } from "./ui/menu.js";
import { NameDialog } from "./ui/name-dialog.js";
import { notify } from "./ui/toasts.js";

// For the curious, and not in what everybody downloads.
const Devtools = late(async () => (await import("rowcast/devtools")).RowcastDevtools);

/** Who is signed in, and what is about him: name, look, another user, signing out. */
export function UserMenu() {
  const client = useClient();
  const session = useSession();
  const me = useMe();
  const { name } = usePerson()(me);
  const write = useWrite();
  const [theme, chooseTheme] = useTheme();
  const [renaming, setRenaming] = useState(false);
  const [devtools, showDevtools] = useState(false);
  const [unsent, setUnsent] = useState<PendingWritesError>();

  const signOut = async (pending: "ask" | "keep" | "discard") => {
    try {
      await client.signOut({ pending });
      forget();
      navigate({ app: "tasks" }, { replace: true });
    } catch (error) {
      if (error instanceof PendingWritesError) setUnsent(error);
      else notify((error as Error).message);
    }
  };
  const become = async (user: string) => {
    try {
      await signIn(user);
      navigate({ app: "tasks" });
    } catch (error) {
      notify(`${(error as Error).message} To change user you have to be online.`);
    }
  };

  return (
    <div className="user">
      <Menu
        label={`${name}, you and this window`}
        className="upwards"
        button={
          <>
            <Avatar id={me} size={30} />
            <span className="grow">{name}</span>
            <Icon name="more" />
          </>
        }
      >
        <MenuItem onClick={() => setRenaming(true)}>Change name …</MenuItem>
        <MenuGroup title="Look">
          {THEMES.map((choice) => (
            <MenuChoice key={choice} checked={choice === theme} onClick={() => chooseTheme(choice)}>
              {choice}
            </MenuChoice>
          ))}
        </MenuGroup>
        <MenuGroup title="Use this window as">
          {DEMO_USERS.map((user) => (
            <MenuChoice key={user} checked={user === session?.name} onClick={() => become(user)}>
              {user}
            </MenuChoice>
          ))}
        </MenuGroup>
        <hr />
        <MenuItem onClick={() => showDevtools(!devtools)}>
          {devtools ? "Hide devtools" : "Show devtools"}
        </MenuItem>
        <MenuItem onClick={() => signOut("ask")}>Sign out</MenuItem>
      </Menu>
      {devtools &&
        createPortal(
          <Suspense>
            <Devtools initialIsOpen />
          </Suspense>,
          document.body,
        )}
      {renaming && (
        <NameDialog
          title="Your name, as others see it"
          value={name}
          button="Save"
          maxLength={80}
          onSave={(value) => write({ type: "set", table: "profiles", id: me, key: "name", value })}
          onClose={() => setRenaming(false)}
        />
      )}
      {unsent && (
        <Dialog title="There are changes that were not saved" onClose={() => setUnsent(undefined)}>
          <p>
            {unsent.pending > 0 && `${unsent.pending} not sent yet. `}
            {unsent.rejected > 0 && `${unsent.rejected} refused by the server. `}
            This is on this device only.
          </p>
          <footer className="dialog-foot">
            <button type="button" onClick={() => setUnsent(undefined)}>
              Stay
            </button>
            <button type="button" className="danger" onClick={() => signOut("discard")}>
              Discard
            </button>
            <button type="button" className="primary" onClick={() => signOut("keep")}>
              Keep for next time
            </button>
          </footer>
        </Dialog>
      )}
    </div>
  );
}
