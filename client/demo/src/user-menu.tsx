import { Suspense, useState } from "react";
import { createPortal } from "react-dom";
import { useWrite } from "rowcast/react";
import { useSignOut } from "./account/use-sign-out.js";
import { Avatar, useMe, usePerson } from "./people.js";
import { navigate } from "./router.js";
import { DEMO_USERS, signIn, useSession } from "./session.js";
import { THEMES, useTheme } from "./theme.js";
import { Icon } from "./ui/icon.js";
import { late } from "./ui/late.js";
import { Menu, MenuChoice, MenuGroup, MenuItem } from "./ui/menu.js";
import { NameDialog } from "./ui/name-dialog.js";
import { notify } from "./ui/toasts.js";

// For the curious, and not in what everybody downloads.
const Devtools = late(async () => (await import("rowcast/devtools")).RowcastDevtools);

/** Who is signed in, and what is about him: name, look, another user, signing out. */
export function UserMenu() {
  const session = useSession();
  const me = useMe();
  const { name } = usePerson()(me);
  const write = useWrite();
  const [theme, chooseTheme] = useTheme();
  const [renaming, setRenaming] = useState(false);
  const [devtools, showDevtools] = useState(false);
  const { signOut, dialog } = useSignOut();

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
        <MenuItem onClick={() => navigate({ app: "account", page: "" })}>Account …</MenuItem>
        <MenuItem onClick={() => navigate({ app: "account", page: "data" })}>Your data …</MenuItem>
        <MenuItem onClick={() => signOut()}>Sign out</MenuItem>
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
      {dialog}
    </div>
  );
}
