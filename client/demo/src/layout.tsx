import { createContext, type ReactNode, useContext, useEffect, useState } from "react";
import { InvitationsLink } from "./account/invitations.js";
import { NotesNav } from "./notes/notes-nav.js";
import { Link, type Route } from "./router.js";
import { StatusBar } from "./status.js";
import { TasksNav } from "./tasks/tasks-nav.js";
import { IconButton } from "./ui/icon.js";
import { useMedia } from "./ui/use-media.js";
import { UserMenu } from "./user-menu.js";

const Sidebar = createContext({ open: false, show: (_open: boolean) => {} });

/** The sidebar, which is a drawer on a phone, and the app beside it. */
export function Layout({ route, children }: { route: Route; children: ReactNode }) {
  const phone = useMedia("(max-width: 760px)");
  const [open, show] = useState(false);
  const hidden = phone && !open;
  const path = JSON.stringify(route);
  // biome-ignore lint/correctness/useExhaustiveDependencies: whoever goes somewhere wants to see it
  useEffect(() => show(false), [path]);
  useEffect(() => {
    if (!open) return;
    const press = (event: KeyboardEvent) => event.key === "Escape" && show(false);
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [open]);
  return (
    <Sidebar value={{ open, show }}>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <div className="layout">
        {phone && open && (
          <button
            type="button"
            className="backdrop"
            aria-label="Close the sidebar"
            onClick={() => show(false)}
          />
        )}
        <aside className={open ? "sidebar open" : "sidebar"} inert={hidden}>
          <div className="brand">
            <img src="/icons/icon.svg" alt="" width="26" height="26" />
            <span>Rowcast</span>
          </div>
          <nav className="apps" aria-label="Apps">
            <Link to={{ app: "tasks" }} aria-current={route.app === "tasks" ? "page" : undefined}>
              Tasks
            </Link>
            <Link to={{ app: "notes" }} aria-current={route.app === "notes" ? "page" : undefined}>
              Notes
            </Link>
          </nav>
          <div className="places">
            {route.app === "notes" ? (
              <NotesNav notebookId={route.notebookId} />
            ) : (
              <TasksNav boardId={route.app === "tasks" ? route.boardId : undefined} />
            )}
          </div>
          <InvitationsLink route={route} />
          <UserMenu />
        </aside>
        <main id="main" className="main">
          {children}
        </main>
      </div>
    </Sidebar>
  );
}

/** The bar above an app's page. `title` is what the page is about, `children` what can be done with it. */
export function Topbar({ title, children }: { title: ReactNode; children?: ReactNode }) {
  const { show } = useContext(Sidebar);
  return (
    <header className="topbar">
      <IconButton
        icon="menu"
        label="Boards and notebooks"
        className="phone"
        onClick={() => show(true)}
      />
      <div className="title">{title}</div>
      <div className="tools">{children}</div>
      <StatusBar />
    </header>
  );
}

/** A page without a content: what is missing, and what to do. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** What is said of something that was never loaded. */
export function NotHere() {
  return (
    <Empty title="Not on this device yet">
      <p>You are offline. It comes as soon as there is a connection.</p>
    </Empty>
  );
}
