import { useRecords } from "rowcast/react";

/**
 * Whoever loses the network may open what he has not looked at today: all he can read is kept on this device. The
 * tasks are asked for board by board, by the keys that a board's page uses, too: the server then tells this device of
 * no others, and need not ask who may see them. An app with more than some thousand records per user names fewer here.
 */
export function KeepOffline() {
  const boards = useRecords("boards");
  const notebooks = useRecords("notebooks");
  // What files there are; their bytes come when they are looked at.
  useRecords("taskFiles");
  useRecords("noteFiles");
  return (
    <>
      {boards.map(({ id }) => (
        <Tasks key={id} boardId={id} />
      ))}
      {notebooks.map(({ id }) => (
        <Notes key={id} notebookId={id} />
      ))}
    </>
  );
}

function Tasks({ boardId }: { boardId: string }) {
  useRecords("tasks", { boardId });
  return null;
}

function Notes({ notebookId }: { notebookId: string }) {
  useRecords("notes", { notebookId });
  return null;
}
