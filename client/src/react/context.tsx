import {
  createContext,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import type { Client } from "../client.js";
import { RowcastError } from "../errors.js";

/** What RowcastProvider takes: a client, or how to make one for each user. */
export type RowcastProviderProps = { children?: ReactNode } & (
  | {
      /** The app makes it and closes it. */
      client: Client;
    }
  | {
      /** Whose client it is; null for nobody. */
      user: string | null;
      /** Makes the client of a user. The provider closes it. */
      create: (user: string | null) => Client;
      /** What is shown until it is there: on the server, and for one render. */
      fallback?: ReactNode;
    }
);

const Context = createContext<Client | null>(null);

/**
 * Gives the components inside a client. They are mounted anew for another user or another client, so that no draft
 * and no selection of the one is seen, or written, by the other.
 */
export function RowcastProvider(props: RowcastProviderProps): ReactNode {
  const { children } = props;
  if ("client" in props) return <Given client={props.client}>{children}</Given>;
  const { user, create, fallback } = props;
  return (
    <Owned
      key={user === null ? "" : `=${user}`}
      create={() => create(user)}
      fallback={fallback ?? null}
    >
      {children}
    </Owned>
  );
}

function Owned(props: { create: () => Client; fallback: ReactNode; children: ReactNode }) {
  const { create, fallback, children } = props;
  const [client, show] = useState<Client | null>(null);
  const held = useRef<{ client: Client; stop?: ReturnType<typeof setTimeout> } | null>(null);
  const make = useRef(create);
  // An effect and not a render: a render may be thrown away, and its client would stay connected.
  useEffect(() => {
    held.current ??= { client: make.current() };
    const mine = held.current;
    clearTimeout(mine.stop);
    show(mine.client);
    return () => {
      // StrictMode mounts again at once; what is written while unmounting has to go first.
      mine.stop = setTimeout(() => {
        held.current = null;
        void mine.client.close();
      });
    };
  }, []);
  return client ? <Given client={client}>{children}</Given> : fallback;
}

function Given({ client, children }: { client: Client; children: ReactNode }) {
  const { status } = client;
  const user = useSyncExternalStore(
    status.subscribe,
    () => status.getSnapshot().userId,
    () => undefined,
  );
  const [last, remember] = useState({ client, user, number: 0 });
  let { number } = last;
  if (client !== last.client || (user !== undefined && user !== last.user)) {
    // That a user becomes known is no change of user.
    if (client !== last.client || last.user !== undefined) number++;
    remember({ client, user, number });
  }
  return (
    <Context.Provider key={number} value={client}>
      {children}
    </Context.Provider>
  );
}

/** The client of the provider above. */
export function useClient(): Client {
  const client = useContext(Context);
  if (client) return client;
  throw new RowcastError("no_provider", "There is no client here: render <RowcastProvider> above.");
}
