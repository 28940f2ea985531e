import { useCallback, useEffect, useState } from "react";
import { Link } from "../router.js";
import { ago } from "../ui/time.js";
import { Card, Waiting } from "./card.js";

interface Mail {
  readonly id: string;
  readonly to: string;
  readonly subject: string;
  readonly text: string;
  readonly link?: string;
  readonly createdAt: string;
}

/** In development mails are not sent: here they are. Elsewhere there is no such page on the server. */
async function read(): Promise<readonly Mail[] | null> {
  const answer = await fetch("/api/auth/dev-mails", { credentials: "omit" }).catch(() => undefined);
  if (!answer?.ok) return null;
  const { mails } = await answer.json();
  return mails;
}

/** The way to the mails, where they can be seen. */
export function MailboxLink() {
  const [there, setThere] = useState(false);
  useEffect(() => {
    let mounted = true;
    void read().then((mails) => mounted && setThere(mails !== null));
    return () => {
      mounted = false;
    };
  }, []);
  if (!there) return null;
  return (
    <p className="account-note">
      This is a development server: it sends no mails, it{" "}
      <Link to={{ app: "account", page: "mails" }}>shows them</Link>.
    </p>
  );
}

/** All mails of a development server. */
export function Mailbox() {
  const [mails, show] = useState<readonly Mail[] | null>();
  const load = useCallback(() => {
    void read().then(show);
  }, []);
  useEffect(load, [load]);
  return (
    <Card title="Mails of this development server" focus>
      {mails === undefined && <Waiting>One moment …</Waiting>}
      {mails === null && <p>There are none to be seen here.</p>}
      {mails?.length === 0 && <p className="soft">None yet.</p>}
      <ul className="mails">
        {mails?.map(({ id, to, subject, text, link, createdAt }) => (
          <li key={id}>
            <h2>{subject}</h2>
            <p className="small soft">
              To {to}, {ago(createdAt)}
            </p>
            <p>{link ? text.replace(link, "").trim() : text}</p>
            {/* Opened as a page: what is running here is another user's, perhaps. */}
            {link && <a href={link}>{new URL(link).pathname}</a>}
          </li>
        ))}
      </ul>
      <p className="account-foot">
        <button type="button" onClick={load}>
          Look again
        </button>
        <Link to={{ app: "tasks" }}>Back</Link>
      </p>
    </Card>
  );
}
