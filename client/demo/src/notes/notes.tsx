import { useEffect } from "react";
import { useQuery } from "rowcast/react";
import { Empty, NotHere, Topbar } from "../layout.js";
import { navigate } from "../router.js";
import { NotebookPage } from "./notebook-page.js";

/** The notes app: the notebook of the address, else the first there is. */
export function Notes({
  notebookId,
  noteId,
}: {
  notebookId?: string | undefined;
  noteId?: string | undefined;
}) {
  const { data: notebooks, status } = useQuery("notebooks", undefined, {
    orderBy: [{ key: "name" }],
  });
  const first = notebookId === undefined ? notebooks[0]?.id : undefined;
  useEffect(() => {
    if (first) navigate({ app: "notes", notebookId: first }, { replace: true });
  }, [first]);
  if (notebookId) {
    return <NotebookPage key={notebookId} notebookId={notebookId} noteId={noteId} />;
  }
  return (
    <>
      <Topbar title={<h1>Notes</h1>} />
      {!first && status === "live" && (
        <Empty title="No notebooks yet">
          <p>Make one in the sidebar.</p>
        </Empty>
      )}
      {!first && status === "offline" && <NotHere />}
    </>
  );
}
