import { type ReactNode, useEffect, useRef } from "react";
import { Link } from "../router.js";

/** A page with one thing on it, for people who are not signed in yet. */
export function Card({
  title,
  focus = false,
  children,
}: {
  title: string;
  /** There is no field to begin with: the title is where a screen reader begins. */
  focus?: boolean;
  children: ReactNode;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = title;
    if (focus) heading.current?.focus();
  }, [title, focus]);
  return (
    <main className="account-page">
      <Link to={{ app: "tasks" }} className="account-brand">
        <img src="/icons/icon.svg" alt="" width="30" height="30" /> Rowcast
      </Link>
      <section className="account-card">
        <h1 ref={heading} tabIndex={-1}>
          {title}
        </h1>
        {children}
      </section>
    </main>
  );
}

/** What is true while it is waited for. */
export function Waiting({ children }: { children: ReactNode }) {
  return (
    <p className="soft" role="status">
      {children}
    </p>
  );
}
