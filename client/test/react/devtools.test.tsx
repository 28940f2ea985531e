// @vitest-environment jsdom

import { act, fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import type { Core } from "../../src/core.js";
import { RowcastDevtools } from "../../src/devtools/index.js";
import { useRecords } from "../../src/react/index.js";
import { open, serve, set, settle } from "./app.js";

function App({ isOpen = true }: { isOpen?: boolean }) {
  useRecords("tasks", { boardId: "b1" });
  return <RowcastDevtools initialIsOpen={isOpen} />;
}

const panel = () => screen.getByRole("tabpanel").textContent;
const choose = (name: string) =>
  fireEvent.click(screen.getByRole("tab", { name: new RegExp(name) }));

it("shows what goes on inside", async () => {
  const server = serve({ tasks: [{ id: "a", title: "A", boardId: "b1" }] });
  const { client } = open(server, <App />);
  await settle(server);
  expect(screen.getByRole("button", { expanded: true }).textContent).toBe("Rowcast · online");
  expect(screen.getByRole("region").textContent).toContain("userann");
  expect(panel()).toContain("tasks?boardId=b1live1");
  choose("queries");
  expect(panel()).toContain("live1tasks?boardId=b1");
  const release = server.hold("write");
  await act(async () => {
    client.write(set("a", "title", "B"));
  });
  await settle(server);
  choose("pending 1");
  expect(panel()).toContain('"value":"B"');
  server.refuse({ status: 403, code: "forbidden" });
  release();
  await settle(server);
  expect(screen.getByRole("button", { expanded: true }).textContent).toContain("1 refused");
  choose("refused 1");
  expect(panel()).toContain("you may not change it");
  fireEvent.click(screen.getByText("Retry"));
  await settle(server);
  expect(panel()).toBe("None");
  expect(server.get("tasks", "a")?.title).toBe("B");
  choose("frames");
  expect(panel()).toMatch(/← updates/);
  expect(panel()).toMatch(/→ hello/);
});

it("looks at nothing while it is closed", async () => {
  const server = serve();
  const page = open(server, <App isOpen={false} />);
  await settle(server);
  expect(screen.queryByRole("tabpanel")).toBeNull();
  let described = 0;
  const { getSnapshot } = page.client.debug;
  Object.assign(page.client.debug, {
    getSnapshot: () => {
      described++;
      return getSnapshot();
    },
  });
  server.put("tasks", { id: "a", title: "A", boardId: "b1" });
  await settle(server);
  expect(described).toBe(0);
  fireEvent.click(screen.getByRole("button"));
  expect(described).toBeGreaterThan(0);
});

it("never shows a token", async () => {
  const server = serve();
  const { userId: _, auth: __, ...options } = server.options("ann");
  const token = `x.${btoa(JSON.stringify({ sub: "ann" }))}.secret`;
  const page = open(server, <App />, {
    ...options,
    transport: server.transport(),
    auth: { token: () => token },
    userId: undefined,
  } as never);
  await settle(server);
  expect(page.client.status.getSnapshot()).toMatchObject({ userId: "ann", state: "online" });
  const { engine } = (page.client as unknown as { core: Core }).core;
  act(() => void engine?.socket.send({ type: "auth", token }));
  await settle(server);
  choose("frames");
  expect(panel()).toContain("→ auth");
  expect(panel()).not.toContain("secret");
});
