import { type AnchorHTMLAttributes, type MouseEvent, useSyncExternalStore } from "react";

/** Where one is: an app, and what is open in it. */
export type Route =
  | { app: "tasks"; boardId?: string | undefined; taskId?: string | undefined }
  | { app: "notes"; notebookId?: string | undefined; noteId?: string | undefined }
  | { app: "account"; page: AccountPage };

const ACCOUNT_PAGES = [
  "",
  "data",
  "forgot",
  "invitations",
  "mails",
  "reset",
  "sign-in",
  "sign-up",
  "verify",
  "welcome",
] as const;

/** A page about the user's account; the one without a name is the account itself. */
export type AccountPage = (typeof ACCOUNT_PAGES)[number];

const listeners = new Set<() => void>();

/** The present route. */
export function useRoute(): Route {
  const path = useSyncExternalStore(subscribe, () => location.pathname);
  return parse(path);
}

/** Goes somewhere. `replace`: not a step of the browser's Back. */
export function navigate(route: Route, { replace = false } = {}): void {
  history[replace ? "replaceState" : "pushState"](null, "", href(route));
  for (const listener of listeners) listener();
}

/** The address of a route. */
export function href(route: Route): string {
  if (route.app === "account") return route.page ? `/account/${route.page}` : "/account";
  const parts =
    route.app === "tasks"
      ? ["tasks", route.boardId, route.taskId]
      : ["notes", route.notebookId, route.noteId];
  return `/${parts.filter((part) => part !== undefined).join("/")}`;
}

/** The route of an address. What is none is the tasks app. */
export function parse(path: string): Route {
  const [app, first, second] = path.split("/").filter((part) => part !== "");
  if (app === "account") return { app, page: ACCOUNT_PAGES.find((page) => page === first) ?? "" };
  if (app === "notes") return { app, notebookId: first, noteId: second };
  return { app: "tasks", boardId: first, taskId: second };
}

/** A link within the apps. */
export function Link(props: { to: Route } & Omit<AnchorHTMLAttributes<HTMLAnchorElement>, "href">) {
  const { to, onClick, ...rest } = props;
  const go = (event: MouseEvent<HTMLAnchorElement>) => {
    onClick?.(event);
    const elsewhere = event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0;
    if (event.defaultPrevented || elsewhere) return;
    event.preventDefault();
    navigate(to);
  };
  return <a {...rest} href={href(to)} onClick={go} />;
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  addEventListener("popstate", listener);
  return () => {
    listeners.delete(listener);
    removeEventListener("popstate", listener);
  };
}
