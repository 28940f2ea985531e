// @vitest-environment jsdom
import { act, fireEvent, render, screen } from "@testing-library/react";
import { StrictMode, useState, version } from "react";
import { version as domVersion } from "react-dom";
import { describe, expect, it, vi } from "vitest";
import type { Client } from "../../src/client.js";
import {
  RowcastProvider,
  useClient,
  useField,
  usePresence,
  useRecord,
  useRejected,
  useStatus,
  useWrite,
} from "../../src/react/index.js";
import { memoryStorage } from "../../src/storage-memory.js";
import type { TestServer } from "../../src/testing/index.js";
import { open, serve, set, settle, until } from "./app.js";

describe("RowcastProvider", () => {
  function Draft() {
    const [text, change] = useState("");
    const record = useRecord("tasks", "a");
    return (
      <>
        <p>{record?.title}</p>
        <input value={text} onChange={(event) => change(event.target.value)} />
      </>
    );
  }

  it("makes one client for each user, keeps nothing of the last one, and closes it", async () => {
    const server = serve(
      { tasks: [{ id: "a", title: "A", createdBy: "ann" }] },
      { visible: ({ user, record }) => record.createdBy === user },
    );
    const made: Client[] = [];
    const create = (user: string | null) => {
      const client = server.client(user);
      made.push(client);
      return client;
    };
    const page = (user: string | null) => (
      <StrictMode>
        <RowcastProvider user={user} create={create} fallback={<i>wait</i>}>
          <Draft />
        </RowcastProvider>
      </StrictMode>
    );
    const { rerender, container, unmount } = render(page("ann"));
    await settle(server);
    expect(made).toHaveLength(1);
    expect(container.querySelector("p")?.textContent).toBe("A");
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "mine" } });
    rerender(page("bob"));
    await settle(server);
    expect(made).toHaveLength(2);
    expect(container.querySelector("p")?.textContent).toBe("");
    expect(container.querySelector("input")?.value).toBe("");
    await until(() => made[0]?.debug.getSnapshot().socket === "idle");
    expect(() => made[0]?.write(set("a", "title", "x"))).toThrow(/closed/);
    unmount();
    await until(() => made[1]?.debug.getSnapshot().socket === "idle");
  });

  it("writes what the leaving user typed as that user", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    function Title() {
      const title = useField("tasks", "a", "title");
      return (
        <input
          value={String(title.value ?? "")}
          onChange={(event) => title.setValue(event.target.value)}
        />
      );
    }
    const storage = memoryStorage({ durable: true });
    const page = (user: string) => (
      <RowcastProvider user={user} create={(id) => server.client(id, { storage })}>
        <Title />
      </RowcastProvider>
    );
    const { rerender } = render(page("ann"));
    await settle(server);
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "by ann" } });
    rerender(page("bob"));
    await settle(server);
    rerender(page("ann"));
    await settle(server);
    await until(() => server.get("tasks", "a")?.title === "by ann");
    const writes = server.requests.filter(({ kind }) => kind === "write");
    expect(new Set(writes.map(({ user }) => user))).toEqual(new Set(["ann"]));
  });

  it("mounts all anew for another client, and where the cookie turns out to be another user's", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const storage = memoryStorage({ durable: true });
    let mounts = 0;
    function Counted() {
      useState(() => mounts++);
      return <p>{String(useStatus((status) => status.userId))}</p>;
    }
    const open = (user: string) => {
      const { userId: _, ...options } = server.options(user);
      return server.client(user, { ...options, storage, userId: undefined } as never);
    };
    const page = (client: Client) => (
      <RowcastProvider client={client}>
        <Counted />
      </RowcastProvider>
    );
    const first = open("ann");
    const { rerender, container } = render(page(first));
    await settle(server);
    expect(container.textContent).toBe("ann");
    expect(mounts).toBe(1);
    await first.close();
    server.setOnline(false);
    const second = open("bob");
    rerender(page(second));
    expect(mounts).toBe(2);
    await settle(server);
    // It opens what ann has left here, until the server says who asks.
    expect(container.textContent).toBe("ann");
    expect(mounts).toBe(2);
    act(() => server.setOnline(true));
    await settle(server);
    expect(container.textContent).toBe("bob");
    expect(mounts).toBe(3);
  });
  it("drops a draft of one user where the cookie turns out to be another's", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const storage = memoryStorage({ durable: true });
    function Title() {
      const title = useField("tasks", "a", "title");
      return (
        <input
          value={String(title.value ?? "")}
          onChange={(event) => title.setValue(event.target.value)}
        />
      );
    }
    const first = server.client("ann", { storage });
    await server.settle();
    await first.close();
    server.setOnline(false);
    const { userId: _, ...options } = server.options("bob");
    const client = server.client("bob", { ...options, storage, userId: undefined } as never);
    await server.settle();
    expect(client.status.getSnapshot().userId).toBe("ann");
    render(
      <RowcastProvider client={client}>
        <Title />
      </RowcastProvider>,
    );
    fireEvent.change(screen.getByRole("textbox"), { target: { value: "by ann" } });
    act(() => server.setOnline(true));
    await settle(server);
    expect(client.status.getSnapshot().userId).toBe("bob");
    expect(screen.getByRole<HTMLInputElement>("textbox").value).toBe("A");
    await act(() => new Promise((resolve) => setTimeout(resolve, 400)));
    expect(server.get("tasks", "a")?.title).toBe("A");
  });
});

describe("useWrite, useStatus and useRejected", () => {
  it("write is one function, and a status part renders by itself", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const functions = new Set<unknown>();
    const pending: number[] = [];
    let durable = 0;
    function Write() {
      const write = useWrite();
      functions.add(write);
      return <button onClick={() => write(set("a", "title", "B"))} type="button" />;
    }
    function Pending() {
      pending.push(useStatus((status) => status.pending));
      return null;
    }
    function Durable() {
      useStatus((status) => status.durable);
      durable++;
      return null;
    }
    const app = (
      <>
        <Write />
        <Pending />
        <Durable />
      </>
    );
    const page = open(server, app);
    await settle(server);
    durable = 0;
    page.show(app);
    const release = server.hold("write");
    fireEvent.click(screen.getByRole("button"));
    await settle(server);
    release();
    await settle(server);
    expect(functions.size).toBe(1);
    expect(pending.filter((one, at) => one !== pending[at - 1])).toEqual([0, 1, 0]);
    expect(durable).toBe(0);
    expect(server.get("tasks", "a")?.title).toBe("B");
  });

  it("shows refused writes with the reason, retries and discards them", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    function Inbox() {
      const { rejected, retry, discard } = useRejected();
      return (
        <ul>
          {rejected.map(({ id, error }) => (
            <li key={id}>
              {error.code}
              <button type="button" onClick={() => retry(id)}>
                retry
              </button>
              <button type="button" onClick={() => discard(id)}>
                discard
              </button>
            </li>
          ))}
        </ul>
      );
    }
    const { client } = open(server, <Inbox />);
    await settle(server);
    server.refuse({ status: 403, code: "forbidden" }, 2);
    await act(async () => {
      client.write(set("a", "title", "B"));
      client.write(set("a", "position", 3));
    });
    await settle(server);
    expect(screen.getAllByRole("listitem").map((item) => item.firstChild?.textContent)).toEqual([
      "forbidden",
      "forbidden",
    ]);
    fireEvent.click(screen.getAllByText("retry")[0] as HTMLElement);
    await settle(server);
    fireEvent.click(screen.getByText("discard"));
    await settle(server);
    expect(screen.queryAllByRole("listitem")).toEqual([]);
    expect(server.get("tasks", "a")).toMatchObject({ title: "B", position: null });
  });
});

describe("usePresence", () => {
  function Here({ name, k = "tasks:a" }: { name?: string | null; k?: string }) {
    const peers = usePresence(k, name === undefined ? undefined : name === null ? null : { name });
    return <p>{peers.map(({ userId, state }) => `${userId}:${state.name}`).join()}</p>;
  }

  it("shows the others while they are there", async () => {
    const server: TestServer = serve({ tasks: [{ id: "a", title: "A" }] });
    const ann = open(server, <Here name="Ann" />, { strict: true });
    const bob = open(server, <Here />, { user: "bob" });
    await settle(server);
    expect(ann.text()).toBe("");
    expect(bob.text()).toBe("ann:Ann");
    bob.show(<Here name="Bob" />);
    await settle(server);
    expect(ann.text()).toBe("bob:Bob");
    bob.show(<Here name="Bobby" />);
    await settle(server);
    expect(ann.text()).toBe("bob:Bobby");
    bob.show(<Here name={null} />);
    await settle(server);
    expect(ann.text()).toBe("");
    ann.show(<p />);
    await settle(server);
    expect(bob.text()).toBe("");
  });

  it("of several components the one that came last counts, then the one before it again", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const both = (first: string | null, last: string | null) => (
      <>
        {first !== null && <Here key="first" name={first} />}
        {last !== null && <Here key="last" name={last} />}
      </>
    );
    const ann = open(server, both("page", null), { strict: true });
    const bob = open(server, <Here />, { user: "bob" });
    const shown = async (first: string | null, last: string | null) => {
      ann.show(both(first, last));
      await settle(server);
      return bob.text();
    };
    expect(await shown("page", "dialog")).toBe("ann:dialog");
    // What is hidden by another is said once that goes.
    expect(await shown("other page", "dialog")).toBe("ann:dialog");
    expect(await shown("other page", null)).toBe("ann:other page");
    expect(await shown("other page", "dialog")).toBe("ann:dialog");
    expect(await shown(null, "dialog")).toBe("ann:dialog");
    expect(await shown(null, null)).toBe("");
  });

  it("sends a state that is the same once", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const page = open(server, <Here name="Ann" />);
    await settle(server);
    const spy = vi.spyOn(page.client, "setPresence");
    page.show(<Here name="Ann" />);
    expect(spy).not.toHaveBeenCalled();
  });
});

it("useClient gives the client", async () => {
  const server = serve();
  let found: Client | undefined;
  function Find() {
    found = useClient();
    return null;
  }
  expect(open(server, <Find />).client).toBe(found);
  await settle(server);
});

it("runs with the React that is meant", () => {
  expect(version.split(".")[0]).toBe(process.env.REACT ?? "19");
  expect(domVersion).toBe(version);
});
