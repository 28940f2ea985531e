// @vitest-environment jsdom
import { act } from "@testing-library/react";
import { memo, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { afterEach, describe, expect, it, vi } from "vitest";
import {
  type Collection,
  RowcastProvider,
  useCollection,
  useQuery,
  useRecord,
  useRecords,
  useStatus,
} from "../../src/react/index.js";
import type { AnyRecord } from "../../src/types.js";
import { keys, open, serve, set, settle } from "./app.js";

afterEach(() => {
  vi.useRealTimers();
});

const task = (id: string, title: string, boardId = "b1", position = 0) => ({
  id,
  title,
  boardId,
  position,
});

describe("useRecord", () => {
  const seen: unknown[] = [];
  function Title({ id }: { id: string | null }) {
    const record = useRecord("tasks", id);
    seen.push(record?.title);
    return <p>{record === undefined ? "loading" : record === null ? "none" : record.title}</p>;
  }

  it("is undefined while loading, then live, and null where there is no record", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    const page = open(server, <Title id="a" />);
    expect(page.text()).toBe("loading");
    await settle(server);
    expect(page.text()).toBe("A");
    server.put("tasks", { id: "a", title: "B" });
    await settle(server);
    expect(page.text()).toBe("B");
    page.show(<Title id="x" />);
    expect(page.text()).toBe("loading");
    await settle(server);
    expect(page.text()).toBe("none");
    server.put("tasks", { id: "x", title: "X" });
    await settle(server);
    expect(page.text()).toBe("X");
  });

  it("asks for nothing without an id", async () => {
    const server = serve();
    const page = open(server, <Title id={null} />);
    await settle(server);
    expect(page.text()).toBe("none");
    expect(server.requests).toEqual([]);
  });

  it("shows a confirmed edit without a moment of the old value", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    const { client } = open(server, <Title id="a" />);
    await settle(server);
    seen.length = 0;
    const release = server.hold("write");
    await act(async () => {
      client.write(set("a", "title", "B"));
    });
    await settle(server);
    expect(seen).toEqual(["B"]);
    release();
    await settle(server);
    expect(client.status.getSnapshot().pending).toBe(0);
    expect(server.get("tasks", "a")?.version).toBe(2);
    expect(new Set(seen)).toEqual(new Set(["B"]));
  });

  it("never goes back while edits of one's own and of others cross", async () => {
    const server = serve({ tasks: [{ ...task("a", "A"), position: 0 }] });
    const positions: number[] = [];
    function Position() {
      const position = useRecord("tasks", "a")?.position;
      if (position !== undefined && position !== null) positions.push(position);
      return null;
    }
    const { client } = open(server, <Position />);
    await settle(server);
    for (let n = 1; n <= 20; n++) {
      const release = server.hold("write");
      await act(async () => {
        client.write({ type: "increment", table: "tasks", id: "a", key: "position", by: 1 });
      });
      if (n % 3 === 0) server.put("tasks", { id: "a", title: `by another ${n}` });
      if (n % 2) server.fail("write", "lose-reply");
      release();
      await settle(server);
    }
    vi.useRealTimers();
    await vi.waitFor(async () => {
      client.resume();
      await settle(server);
      expect(client.status.getSnapshot().pending).toBe(0);
    });
    expect(server.get("tasks", "a")?.position).toBe(20);
    expect(positions).toEqual([...positions].sort((a, b) => a - b));
    expect(positions.at(-1)).toBe(20);
  });
});

describe("useRecords", () => {
  it("takes filters written in place, orders, and renders once for each change", async () => {
    const server = serve({
      tasks: [task("a", "A", "b1", 2), task("b", "B", "b1", 1), task("c", "C", "b2")],
    });
    const seen: (readonly unknown[])[] = [];
    function List() {
      const rows = useRecords(
        "tasks",
        { boardId: "b1", done: false },
        { orderBy: [{ key: "position" }] },
      );
      seen.push(rows);
      return <p>{rows.map((row) => row.title).join()}</p>;
    }
    const page = open(server, <List />);
    await settle(server);
    expect(page.text()).toBe("B,A");
    expect(server.requests.map(({ kind }) => kind)).toEqual(["query"]);
    const before = seen.length;
    // Nothing of this list.
    server.put("tasks", { id: "c", title: "C2" });
    server.put("tasks", { id: "b", done: true });
    await settle(server);
    expect(page.text()).toBe("A");
    expect(seen.length).toBe(before + 1);
    page.show(<List />);
    expect(seen.at(-1)).toBe(seen.at(-2));
  });

  it("gives the same array while only the connection changes", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    let renders = 0;
    function List() {
      renders++;
      return <p>{useRecords("tasks", { boardId: "b1" }).length}</p>;
    }
    open(server, <List />);
    await settle(server);
    const before = renders;
    act(() => server.setOnline(false));
    await settle(server);
    act(() => server.setOnline(true));
    await settle(server);
    expect(renders).toBe(before);
  });

  it("renders only the components whose records changed, among 10 000", async () => {
    const tasks = Array.from({ length: 10_000 }, (_, n) => task(`t${n}`, `T${n}`, `b${n % 50}`));
    const server = serve({ tasks });
    const renders = new Map<string, number>();
    const count = (name: string) => renders.set(name, (renders.get(name) ?? 0) + 1);
    const Row = memo(function Row({ id }: { id: string }) {
      count(id);
      return <li>{useRecord("tasks", id)?.title}</li>;
    });
    function Board({ id }: { id: string }) {
      count(id);
      const rows = useRecords("tasks", { boardId: id }, { orderBy: [{ key: "title" }] });
      return rows.map((row) => <Row key={row.id} id={row.id} />);
    }
    function All() {
      const all = useRecords("tasks");
      return (
        <>
          <p>{all.length}</p>
          <Board id="b1" />
          <Board id="b2" />
        </>
      );
    }
    const page = open(server, <All />);
    await settle(server);
    expect(page.text()).toContain("10000");
    expect(page.container.querySelectorAll("li")).toHaveLength(400);
    renders.clear();
    server.put("tasks", { id: "t1", title: "T1 again" });
    await settle(server);
    expect(page.text()).toContain("T1 again");
    // All rendered its boards: it shows the changed record, too. Rows did not.
    expect([...renders].filter(([name]) => name.startsWith("t"))).toEqual([["t1", 1]]);
    renders.clear();
    // What nothing but the list of everything shows.
    server.put("tasks", { id: "t49", title: "unseen" });
    await settle(server);
    expect([...renders].filter(([name]) => name.startsWith("t"))).toEqual([]);
  });

  it("asks for nothing with null for the filter", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    function List({ board }: { board: string | null }) {
      const { status, data } = useQuery("tasks", board === null ? null : { boardId: board });
      return <p>{`${status} ${data.length}`}</p>;
    }
    const page = open(server, <List board={null} />);
    await settle(server);
    expect(page.text()).toBe("loading 0");
    expect(server.requests).toEqual([]);
    page.show(<List board="b1" />);
    await settle(server);
    expect(page.text()).toBe("live 1");
  });
});

describe("mounting", () => {
  function Both() {
    const rows = useRecords("tasks", { boardId: "b1" });
    const one = useRecord("tasks", "z");
    return <p>{`${rows.length} ${one === null}`}</p>;
  }

  it("loads and subscribes once in StrictMode, and lets go after a delay", async () => {
    vi.useFakeTimers();
    const server = serve({ tasks: [task("a", "A")] });
    const page = open(server, <Both />, { strict: true });
    await settle(server);
    expect(page.text()).toBe("1 true");
    expect(server.requests.map(({ kind }) => kind).sort()).toEqual(["getRecords", "query"]);
    expect(keys(page.client)).toEqual({ "tasks?boardId=b1": 1, "tasks:z": 1 });
    page.show(<p />);
    await act(() => vi.advanceTimersByTimeAsync(3000));
    expect(Object.keys(keys(page.client))).toHaveLength(2);
    page.show(<Both />);
    await settle(server);
    // Come back in time: nothing is asked again.
    expect(server.requests).toHaveLength(2);
    page.show(<p />);
    await act(() => vi.advanceTimersByTimeAsync(6000));
    expect(keys(page.client)).toEqual({});
  });

  it("follows another table, filter or id", async () => {
    const server = serve({ tasks: [task("a", "A"), task("b", "B", "b2")] });
    function List({ board }: { board: string }) {
      const rows = useRecords("tasks", { boardId: board });
      return <p>{rows.map((row) => row.title).join()}</p>;
    }
    const page = open(server, <List board="b1" />);
    await settle(server);
    expect(page.text()).toBe("A");
    page.show(<List board="b2" />);
    expect(page.text()).toBe("");
    await settle(server);
    expect(page.text()).toBe("B");
  });

  it("renders first states on a server, and asks for nothing", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    const client = server.client("ann");
    await server.settle();
    function Page() {
      const query = useQuery("tasks", { boardId: "b1" });
      const record = useRecord("tasks", "a");
      return <p>{`${query.status} ${query.data.length} ${record} ${useStatus().state}`}</p>;
    }
    const html = renderToString(
      <StrictMode>
        <RowcastProvider client={client}>
          <Page />
        </RowcastProvider>
      </StrictMode>,
    );
    expect(html).toBe("<p>loading 0 undefined offline</p>");
    await server.settle();
    expect(server.requests).toEqual([]);
  });

  it("says what to do without a provider", () => {
    function Lost() {
      useRecord("tasks", "a");
      return null;
    }
    expect(() => renderToString(<Lost />)).toThrow(/RowcastProvider/);
  });

  it("throws in place for a table or a key that is not there", () => {
    const server = serve();
    const client = server.client("ann");
    function Wrong({ table, where }: { table: string; where?: object }) {
      useRecords(table, where);
      return null;
    }
    const html = (element: React.ReactElement) =>
      renderToString(<RowcastProvider client={client}>{element}</RowcastProvider>);
    expect(() => html(<Wrong table="task" />)).toThrow(/no such table/);
    expect(() => html(<Wrong table="tasks" where={{ titel: "x" }} />)).toThrow(/no such key/);
  });
});

describe("useQuery and useCollection", () => {
  const many = Array.from({ length: 7 }, (_, n) => task(`t${n}`, `T${n}`, "b1", n));

  it("says how far a result can be trusted", async () => {
    const server = serve({ tasks: [task("a", "A")] });
    const seen: string[] = [];
    function List() {
      const { status } = useQuery("tasks", { boardId: "b1" });
      if (seen.at(-1) !== status) seen.push(status);
      return null;
    }
    const release = server.hold("query");
    open(server, <List />);
    await settle(server);
    release();
    await settle(server);
    act(() => server.setOnline(false));
    await settle(server);
    act(() => server.setOnline(true));
    await settle(server);
    // "cached" between "loading" and "live" is too short to be certain of.
    expect(seen.filter((status) => status !== "cached")).toEqual([
      "loading",
      "live",
      "offline",
      "live",
    ]);
  });

  it("tells of a refusal", async () => {
    const server = serve();
    server.fail("query", { status: 403, code: "forbidden" });
    function List() {
      const { status, error } = useQuery("tasks", { boardId: "b1" });
      return <p>{`${status} ${error?.code}`}</p>;
    }
    const page = open(server, <List />);
    await settle(server);
    expect(page.text()).toBe("error forbidden");
  });

  it("grows page by page, however often it is asked to", async () => {
    const server = serve({ tasks: many });
    let list: Collection<AnyRecord> | undefined;
    const loading: boolean[] = [];
    function List() {
      list = useCollection("tasks", {}, { orderBy: [{ key: "position" }], pageSize: 3 });
      loading.push(list.isLoadingMore);
      return <p>{list.data.map((row) => row.title).join()}</p>;
    }
    const page = open(server, <List />);
    await settle(server);
    expect(page.text()).toBe("T0,T1,T2");
    expect(list?.hasMore).toBe(true);
    await act(async () => {
      for (let n = 0; n < 5; n++) void list?.loadMore();
    });
    await settle(server);
    expect(page.text()).toBe("T0,T1,T2,T3,T4,T5");
    expect(loading).toContain(true);
    expect(list?.isLoadingMore).toBe(false);
    await act(() => list?.loadMore());
    expect(page.text()).toBe("T0,T1,T2,T3,T4,T5,T6");
    expect(list?.hasMore).toBe(false);
    const requests = server.requests.length;
    await act(() => list?.loadMore());
    expect(server.requests).toHaveLength(requests);
    server.put("tasks", task("n", "new", "b1", -1));
    await settle(server);
    expect(page.text()).toBe("new,T0,T1,T2,T3,T4,T5,T6");
  });
});
