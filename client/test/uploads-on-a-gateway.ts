/**
 * Uploads with the whole client against a running gateway, for tests/gateway/test_uploader.py: settings come as one line
 * of JSON, what was found goes out as one.
 */
import { createUploads, memoryShelf, type Upload } from "../src/files/index.js";
import { createClient, memoryStorage, oneTab, type Schema } from "../src/index.js";

const { url, token, task } = JSON.parse(process.argv[2] as string) as {
  url: string;
  token: string;
  task: string;
};
const text = { type: "text", nullable: true, required: false } as const;
const owned = { ...text, serverOwned: true } as const;
// Not that of the apps, which would register its tables for the whole program.
const schema: Schema = {
  schema: 1,
  tables: {
    taskFiles: {
      idType: "uuid",
      softDelete: "deleted",
      touch: null,
      hardDelete: false,
      wholeTable: true,
      keys: {
        id: { type: "uuid", nullable: false, required: false },
        version: { type: "integer", nullable: false, required: false },
        taskId: { type: "uuid", nullable: false, required: true, topic: true },
        name: text,
        type: text,
        size: { type: "bigint", nullable: false, required: true },
        sha256: text,
        state: { ...owned, default: { constant: "pending" } },
        createdBy: owned,
        createdAt: owned,
        deleted: { type: "timestamptz", nullable: true, required: false },
      },
    },
  },
  functions: {},
};
const size = 3_000_000;
const content = Uint8Array.from({ length: size }, (_, at) => (at * 7) % 251);
const shelf = memoryShelf();

const open = () => {
  const client = createClient({
    url,
    schema,
    auth: { token: () => token },
    storage: memoryStorage(),
    tabs: oneTab(),
  });
  return { client, uploads: createUploads(client as never, { url, shelf, tabs: oneTab() }) };
};
const same = async (link: string, expected: Uint8Array) => {
  const answer = await fetch(link);
  const found = new Uint8Array(await answer.arrayBuffer());
  return {
    same: Buffer.compare(found, expected) === 0,
    disposition: answer.headers.get("content-disposition"),
  };
};
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "none",
    (error) => (error as { code?: string }).code ?? String(error),
  );

const { client, uploads } = open();
const file = new File([content], "My #1 Pic.PNG", { type: "image/png" });
const upload: Upload = uploads.add("taskFiles", file, { taskId: task });
const steps = new Set<string>();
upload.subscribe(() => steps.add(upload.getSnapshot().step));
await upload.done;
const record = (await client.request("/api/realtime/getRecords", {
  pointers: [{ table: "taskFiles", id: upload.id }],
})) as { recordMap: { taskFiles: { [id: string]: unknown } } };
const saved = await same(await uploads.url("taskFiles", upload.id), content);
const shown = await same(await uploads.url("taskFiles", upload.id, { inline: true }), content);

// A second page goes on with what the first has left.
const left = "01890000-0000-7000-8000-00000000f11e";
const kept = await shelf(`rowcast-files:${url}:=${client.status.getSnapshot().userId}`);
const meta = {
  id: left,
  table: "taskFiles",
  name: "left",
  type: "text/plain",
  size: 4,
  addedAt: 1,
};
await kept.put(
  {
    ...meta,
    record: { taskId: task, name: "left", type: "text/plain", size: "4" },
    created: false,
  },
  new Blob(["left"]),
);
const second = open();
await new Promise<void>((resolve) => {
  second.uploads.all.subscribe(() => {
    if (second.uploads.all.getSnapshot().length === 0) resolve();
  });
});
const resumed = await same(
  await second.uploads.url("taskFiles", left),
  new TextEncoder().encode("left"),
);

const stranger = uploads.add("taskFiles", new File(["x"], "x"), {
  taskId: "00000000-0000-7000-8000-00000000dead",
});
process.stdout.write(
  `${JSON.stringify({
    id: upload.id,
    steps: [...steps],
    record: record.recordMap.taskFiles[upload.id],
    saved,
    shown,
    resumed,
    refused: await codeOf(stranger.done),
    unknown: await codeOf(uploads.url("taskFiles", "00000000-0000-7000-8000-00000000dead")),
  })}\n`,
);
process.exit(0);
