import { act, cleanup, render } from "@testing-library/react";
import { type ReactElement, StrictMode } from "react";
import { afterEach } from "vitest";
import type { Client, ClientOptions } from "../../src/client.js";
import { RowcastProvider } from "../../src/react/index.js";
import {
  createTestServer,
  type TestServer,
  type TestServerOptions,
} from "../../src/testing/index.js";
import { schema } from "./schema.js";

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
