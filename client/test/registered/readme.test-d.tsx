/** The examples of README.md. */
import { createRoot } from "react-dom/client";
import { createClient } from "rowcast";
import { createSession } from "rowcast/auth";
import { useFileUrl, useUpload, useUploads } from "rowcast/files/react";
import { RowcastProvider, useField, useRecords, useUndoRedo, useWrite } from "rowcast/react";
import { createTestServer } from "rowcast/testing";
import { expect } from "vitest";
import { schema } from "../../demo/src/schema.gen";

const client = createClient({ url: "http://localhost:8000", schema, auth: "cookie" });

function Board({ id }: { id: string }) {
  const tasks = useRecords("tasks", { boardId: id }, { orderBy: [{ key: "orderKey" }] });
  const write = useWrite();
  const finish = (taskId: string) =>
    write({ type: "set", table: "tasks", id: taskId, key: "status", value: "done" });
  return tasks.map((task) => (
    <button key={task.id} type="button" onClick={() => finish(task.id)}>
      {task.title}: {task.status}
    </button>
  ));
}

createRoot(document.body).render(
  <RowcastProvider client={client}>
    <Board id="..." />
  </RowcastProvider>,
);

export function Title({ id }: { id: string }) {
  const title = useField("tasks", id, "title");
  return (
    <input
      value={title.value ?? ""}
      onChange={(event) => title.setValue(event.target.value)}
      onBlur={title.onBlur}
    />
  );
}

export function Undo() {
  const { undo, canUndo } = useUndoRedo({
    onStep: ({ skipped }) => {
      if (skipped.length) alert("Not all of it could be undone.");
    },
  });
  return (
    <button type="button" disabled={!canUndo} onClick={undo}>
      Undo
    </button>
  );
}

export const app = (session: { userId: string | null }) => (
  <RowcastProvider
    user={session.userId}
    create={(userId) => createClient({ schema, auth: "cookie", userId })}
  >
    <Board id="..." />
  </RowcastProvider>
);

const session = createSession();
export const signIn = (email: string, word: string) => session.signIn(email, word);
export const create = (userId: string | null) => createClient({ schema, auth: session, userId });

export async function test() {
  const id = crypto.randomUUID();
  const server = createTestServer({
    schema,
    records: { tasks: [{ id, title: "Write tests", createdBy: "alice" }] },
    visible: ({ user, record }) => record.createdBy === user,
  });
  const alice = server.client("alice");
  server.fail("write", { status: 503 }); // or "drop", "lose-reply", "garbage"
  await alice.write({ type: "set", table: "tasks", id, key: "title", value: "Done" }).confirmed;
  expect(server.get("tasks", id)?.title).toBe("Done");
  await server.close();
}

export function Attachments({ taskId }: { taskId: string }) {
  const uploads = useUploads("http://localhost:8000");
  const files = useRecords("taskFiles", { taskId });
  const upload = useUpload(uploads, "taskFiles", { taskId });
  const open = async (id: string) => window.open(await uploads.url("taskFiles", id));
  return (
    <>
      <input
        type="file"
        multiple
        onChange={(event) => [...(event.target.files ?? [])].map(upload.add)}
      />
      {upload.uploads.map(({ id, name, sent, size, error }) => (
        <p key={id}>
          {name} <progress value={sent} max={size} /> {error?.message}
          <button type="button" onClick={() => upload.abort(id)}>
            Cancel
          </button>
        </p>
      ))}
      {files.map((file) => (
        <button
          key={file.id}
          type="button"
          disabled={file.state !== "ready"}
          onClick={() => open(file.id)}
        >
          {file.name}
        </button>
      ))}
    </>
  );
}

export function Picture({ id }: { id: string }) {
  const uploads = useUploads("http://localhost:8000");
  const { url, refresh } = useFileUrl(uploads, "taskFiles", id);
  return <img src={url} alt="" onError={refresh} />;
}
