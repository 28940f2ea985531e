import type { ReactNode } from "react";

/** A part of a page about the user. */
export function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section className="account-section">
      <h2>{title}</h2>
      <div>{children}</div>
    </section>
  );
}
