import { useEffect } from "react";
import { createClient } from "rowcast";
import { RowcastProvider } from "rowcast/react";
import { Account } from "./account/account.js";
import { Data } from "./account/data.js";
import { Invitations } from "./account/invitations.js";
import { AccountPages, standsAlone } from "./account/pages.js";
import { KeepOffline } from "./keep-offline.js";
import { Layout } from "./layout.js";
import { Notes } from "./notes/notes.js";
import { PeopleProvider } from "./people.js";
import { type AccountPage, useRoute } from "./router.js";
import { schema } from "./schema.gen.js";
import { currentToken, useSession } from "./session.js";
import { SignIn } from "./sign-in.js";
import { Tasks } from "./tasks/tasks.js";
import { Toasts } from "./ui/toasts.js";

/** Both apps for whoever is signed in: every user has a client, and data on this device, of his own. */
export function App() {
  const session = useSession();
  const route = useRoute();
  const page = route.app === "account" ? route.page : undefined;
  return (
    <>
      {page !== undefined && (!session || standsAlone(page)) ? (
        <AccountPages page={page} />
      ) : session ? (
        <RowcastProvider
          user={session.userId}
          create={(userId) => createClient({ schema, userId, auth: { token: currentToken } })}
        >
          <PeopleProvider me={session.userId}>
            <Apps />
            <KeepOffline />
          </PeopleProvider>
        </RowcastProvider>
      ) : (
        <SignIn />
      )}
      <Toasts />
    </>
  );
}

function Personal({ page }: { page: AccountPage }) {
  if (page === "invitations") return <Invitations />;
  return page === "data" ? <Data /> : <Account />;
}

function Apps() {
  const route = useRoute();
  useEffect(() => {
    if (route.app !== "account") document.title = route.app === "tasks" ? "Tasks" : "Notes";
  }, [route.app]);
  return (
    <Layout route={route}>
      {route.app === "tasks" && <Tasks {...route} />}
      {route.app === "notes" && <Notes {...route} />}
      {route.app === "account" && <Personal page={route.page} />}
    </Layout>
  );
}
