// @vitest-environment jsdom
/**
 * From a frame of the socket to the rendered page, with 10 000 cached records: `npm run bench`. It has to stay below
 * 2 ms. Production React, as users have it; a virtual list, which is the app's, is left out.
 */
import { createRoot } from "react-dom/client";
import { afterAll, beforeAll, bench, describe } from "vitest";
import { RowcastProvider, useRecords } from "../src/react/index.js";
import { createTestServer } from "../src/testing/index.js";
import type { SocketEvents } from "../src/transport.js";
import { schema } from "../test/react/schema.js";

const RECORDS = 10_000;
const tasks = Array.from({ length: RECORDS }, (_, n) => ({
  id: `t${n}`,
  title: `Task ${n}`,
  boardId: `b${n % 50}`,
  position: n,
  done: n % 2 === 0,
}));
const server = createTestServer({ schema, records: { tasks } as never });
const transport = server.transport("ann");
let socket: SocketEvents | undefined;
const client = server.client("ann", {
  transport: {
    ...transport,
    connect(path, events) {
      socket = events;
      return transport.connect(path, events);
    },
  },
});
const root = createRoot(document.body.appendChild(document.createElement("div")));
const renders = new Map<string, number>();
const versions = new Map<string, number>();

function List({ name, where }: { name: string; where: object }) {
  const rows = useRecords("tasks", where, { orderBy: [{ key: "position" }] });
  renders.set(name, (renders.get(name) ?? 0) + 1);
  return <p>{`${rows.length} ${rows[0]?.title}`}</p>;
}

/** Somebody changes one record; resolves when the list has rendered. */
async function change(name: string, id: string): Promise<void> {
  const version = (versions.get(id) ?? 1) + 1;
  versions.set(id, version);
  const before = renders.get(name);
  const update = { key: `tasks:${id}`, version, patch: { title: `Task ${id} ${version}` } };
  socket?.message(JSON.stringify({ type: "updates", cursor: "1/1", updates: [update] }));
  while (renders.get(name) === before) await null;
}

beforeAll(async () => {
  root.render(
    <RowcastProvider client={client}>
      <List name="board" where={{ boardId: "b1" }} />
      <List name="open" where={{ done: false }} />
      <List name="all" where={{}} />
    </RowcastProvider>,
  );
  // Scheduled by React, not by a promise.
  while (!renders.size) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await server.settle();
});

afterAll(async () => {
  root.unmount();
  await server.close();
});

describe(`one change among ${RECORDS} cached records`, () => {
  bench("a list of 200, by a topic", () => change("board", "t51"));
  bench("a list of 5 000, by a filter", () => change("open", "t101"));
  bench("a list of all 10 000", () => change("all", "t102"));
});
