import { act, cleanup, render } from "@testing-library/react";
import { type ReactElement, StrictMode } from "react";
import { afterEach } from "vitest";
import type { Client, ClientOptions } from "../../src/client.js";
import { RowcastProvider } from "../../src/react/index.js";
import type { KeySchema, Schema } from "../../src/schema.js";
import {
  createTestServer,
  type TestServer,
  type TestServerOptions,
} from "../../src/testing/index.js";

const text: KeySchema = { type: "text", nullable: true, required: false };

/** Boards, and tasks on them. */
export const schema: Schema = {
  schema: 1,
  tables: {
    boards: {
      idType: "text",
      softDelete: null,
      touch: null,
      hardDelete: true,
      wholeTable: true,
      keys: {
        id: { ...text, nullable: false },
        version: { type: "integer", nullable: false, required: false },
        name: text,
        owner: { ...text, serverOwned: true, default: { user: true } },
        members: { type: "list", elementType: "text", nullable: true, required: false },
      },
    },
    tasks: {
      idType: "text",
      softDelete: "deletedAt",
      touch: "updatedAt",
      hardDelete: false,
      wholeTable: true,
      keys: {
        id: { ...text, nullable: false },
        version: { type: "integer", nullable: false, required: false },
        title: { ...text, maxLength: 40 },
        done: { type: "boolean", nullable: false, required: false, default: { constant: false } },
        boardId: { ...text, topic: true, references: "boards" },
        position: { type: "integer", nullable: true, required: false },
        meta: { type: "json", nullable: true, required: false },
        createdBy: { ...text, serverOwned: true, default: { user: true } },
        deletedAt: { type: "timestamptz", nullable: true, required: false },
        updatedAt: { type: "timestamptz", nullable: true, required: false },
      },
    },
  },
  functions: { finish: { board: { type: "text", required: true } } },
};

const servers: TestServer[] = [];

// What the testing library does by itself where test functions are global.
Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

afterEach(async () => {
  cleanup();
  for (const server of servers.splice(0)) await server.close();
});

/** A server with these records, closed after the test. */
export function serve(
  records: { boards?: object[]; tasks?: object[] } = {},
  options: Partial<TestServerOptions> = {},
): TestServer {
  const server = createTestServer({ schema, records: records as never, ...options });
  servers.push(server);
  return server;
}

/** A page of one user. */
export function open(
  server: TestServer,
  element: ReactElement,
  {
    user = "ann",
    strict = false,
    ...options
  }: Partial<ClientOptions> & { user?: string; strict?: boolean } = {},
) {
  const client = server.client(user, options);
  const page = (inside: ReactElement) => {
    const all = <RowcastProvider client={client}>{inside}</RowcastProvider>;
    return strict ? <StrictMode>{all}</StrictMode> : all;
  };
  const shown = render(page(element));
  return {
    ...shown,
    client,
    show: (inside: ReactElement) => shown.rerender(page(inside)),
    text: () => shown.container.textContent,
  };
}

/** Lets everything happen that is under way. */
export async function settle(server: TestServer): Promise<void> {
  await act(() => server.settle());
}

/** Waits, in real time, for something that comes by a timer. */
export async function until(holds: () => boolean, most = 5000): Promise<void> {
  const end = Date.now() + most;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`not within ${most} ms: ${holds}`);
    await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
  }
}

/** Keys that are subscribed to, with their users. */
export function keys(client: Client): { [key: string]: number } {
  return Object.fromEntries(
    client.debug
      .getSnapshot()
      .keys.filter(({ status }) => status === "live")
      .map(({ key, users }) => [key, users]),
  );
}

/** A change of one key of a task. */
export function set(id: string, key: string, value: unknown) {
  return { type: "set" as const, table: "tasks", id, key, value };
}
