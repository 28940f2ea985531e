import { useEffect } from "react";
import { useQuery } from "rowcast/react";
import { Empty, NotHere, Topbar } from "../layout.js";
import { navigate } from "../router.js";
import { BoardPage } from "./board-page.js";

/** The tasks app: the board of the address, else the first there is. */
export function Tasks({
  boardId,
  taskId,
}: {
  boardId?: string | undefined;
  taskId?: string | undefined;
}) {
  const { data: boards, status } = useQuery("boards", undefined, {
    orderBy: [{ key: "orderKey" }],
  });
  const first = boardId === undefined ? boards[0]?.id : undefined;
  useEffect(() => {
    if (first) navigate({ app: "tasks", boardId: first }, { replace: true });
  }, [first]);
  if (boardId) return <BoardPage key={boardId} boardId={boardId} taskId={taskId} />;
  return (
    <>
      <Topbar title={<h1>Tasks</h1>} />
      {!first && status === "live" && (
        <Empty title="No boards yet">
          <p>Make one in the sidebar: choose “New board” in the menu of a workspace.</p>
        </Empty>
      )}
      {!first && status === "offline" && <NotHere />}
    </>
  );
}
