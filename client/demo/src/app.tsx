import { useEffect } from "react";
import { createClient } from "rowcast";
import { RowcastProvider } from "rowcast/react";
import { KeepOffline } from "./keep-offline.js";
import { Layout } from "./layout.js";
import { Notes } from "./notes/notes.js";
import { PeopleProvider } from "./people.js";
import { useRoute } from "./router.js";
import { schema } from "./schema.gen.js";
import { currentToken, useSession } from "./session.js";
import { SignIn } from "./sign-in.js";
import { Tasks } from "./tasks/tasks.js";
import { Toasts } from "./ui/toasts.js";

/** Both apps for whoever is signed in: every user has a client, and data on this device, of his own. */
export function App() {
  const session = useSession();
  return (
    <>
      {session ? (
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

function Apps() {
  const route = useRoute();
  useEffect(() => {
    document.title = route.app === "tasks" ? "Tasks" : "Notes";
  }, [route.app]);
  return (
    <Layout route={route}>
      {route.app === "tasks" ? <Tasks {...route} /> : <Notes {...route} />}
    </Layout>
  );
}
