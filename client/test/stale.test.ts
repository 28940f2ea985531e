import { describe, expect, it } from "vitest";
import type { Core } from "../src/core.js";
import type { Engine } from "../src/engine.js";
import type { RecordData } from "../src/json.js";
import { board, fill, live, queries, rows, Stage, set, subscriptions, watch } from "./harness.js";
import { refused } from "./scripted-server.js";

const byPosition = { orderBy: [{ key: "position" as const }] };
const key = "tasks?boardId=b1";
const one = { ...board, title: "T0" };
const other = { ...board, title: "T1" };
const cuts = (count: number) => Array.from({ length: count }, () => () => "cut" as const);

/** A page that shows queries of tasks, live; what the first of them shows. */
async function showing(count: number, ...specs: (typeof board | typeof one)[]) {
  const stage = new Stage();
  fill(stage, count);
  const client = stage.open();
  const queries = (specs.length ? specs : [board]).map((spec) => client.query("tasks", spec));
  const [seen] = queries.map((query) => rows(query)) as [ReturnType<typeof rows>];
  await stage.until(() => queries.every((query) => query.getSnapshot().status === "live"));
  return { stage, client, seen };
}

/** One that was away for so long that it has to read again: t0000 has gone and `new` come. */
async function away() {
  const shown = await showing(2);
  const { server } = shown.stage;
  server.down = true;
  server.close();
  await shown.stage.advance(500);
  server.remove("tasks", "t0000");
  server.put("tasks", "new", { title: "NEW", boardId: "b1" });
  server.pruned = server.feed.length;
  server.down = false;
  return shown;
}

describe("R7 stale keys", () => {
  it("R7.3 stale: reads again what the key covers, with what it holds; no other", async () => {
    const stage = new Stage();
    fill(stage, 2);
    stage.server.put("tasks", "x", { boardId: "b2" });
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    rows(client.query("tasks", { boardId: "b2" }));
    await stage.advance();
    stage.server.calls.length = 0;
    stage.server.mute = true;
    stage.server.put("tasks", "t0000", { title: "changed in bulk" });
    stage.server.stale(["tasks?boardId=b1"], "bulk");
    await stage.advance(7);
    expect(client.query("tasks", board).getSnapshot().status).toBe("cached");
    await stage.until(() => live(client, "tasks", board));
    expect(queries(stage)).toMatchObject([{ where: board, have: { t0000: 1, t0001: 1 } }]);
    expect(seen.now()).toEqual(["changed in bulk", "T1"]);
  });

  it("R7.3 the mark outlives a reload: what was stale is not resumed but read", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance();
    stage.server.mute = true;
    stage.server.put("tasks", "t0000", { title: "changed in bulk" });
    stage.server.next(
      "query",
      () => "cut",
      () => "cut",
    );
    stage.server.stale(["tasks?boardId=b1"], "bulk");
    await stage.advance(400);
    stage.crash(client);
    stage.server.script.query = [];
    stage.server.calls.length = 0;
    const again = stage.open();
    const seen = rows(again.query("tasks", board));
    await stage.until(() => live(again, "tasks", board));
    expect(queries(stage)).toHaveLength(1);
    expect(seen.now()).toEqual(["changed in bulk", "T1"]);
  });

  it("R7.7 where it went stale outlives a reload, too: what was read before is not trusted further", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const [one, other] = [
      { ...board, title: "T0" },
      { ...board, title: "T1" },
    ];
    const client = stage.open();
    rows(client.query("tasks", one));
    rows(client.query("tasks", other));
    await stage.until(() => live(client, "tasks", other));
    const stood = stage.server.cursor;
    stage.server.next(
      "query",
      (call) => {
        const answer = call.commit();
        stage.server.mute = true;
        stage.server.remove("tasks", "t0000");
        stage.server.mute = false;
        // The socket's cursor goes on, over what it was not told.
        stage.server.put("tasks", "t0001", { position: 1 });
        return answer;
      },
      () => "cut",
      () => "cut",
    );
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance(400);
    expect(client.query("tasks", one).getSnapshot().data).toHaveLength(1);
    stage.crash(client);
    stage.server.script.query = [];

    const again = stage.open();
    const before = subscriptions(stage).length;
    rows(again.query("tasks", other));
    await stage.until(() => live(again, "tasks", other));
    expect(subscriptions(stage)[before]).toMatchObject({ cursor: stood });
    const seen = rows(again.query("tasks", one));
    await stage.advance();
    expect(seen.now()).toEqual([]);
  });

  it("R7.3 with reason schema everything is asked for whole", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance();
    stage.server.records.get("tasks")?.set("t0000", {
      ...(stage.server.get("tasks", "t0000") as RecordData),
      assignee: "a key that could not be seen before",
    });
    stage.server.stale(["tasks?boardId=b1"], "schema");
    await stage.advance();
    expect(client.record("tasks", "t0000").getSnapshot()).toMatchObject({
      version: 1,
      assignee: expect.any(String),
    });
  });

  it("R7.3 access lost: what no query asks about is fetched, and is gone", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open({ user: "bob" });
    rows(client.query("tasks", board));
    const narrow = client.query("tasks", { ...board, title: "T1" });
    await stage.advance();
    expect(rows(narrow).now()).toEqual(["T1"]);
    stage.server.mayRead = (_user, table) => table !== "tasks";
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance();
    expect(client.query("tasks", board).getSnapshot().data).toEqual([]);
    expect(client.record("tasks", "t0000").getSnapshot()).toBeNull();
  });

  it("R7.3 a record that was not there and whose key goes stale is asked for again", async () => {
    const stage = new Stage();
    const client = stage.open();
    const log = watch(client.record("tasks", "x"));
    await stage.advance();
    stage.server.mute = true;
    stage.server.put("tasks", "x", { title: "X" });
    stage.server.stale(["tasks:x"], "bulk");
    await stage.advance();
    expect(log.shown).toMatchObject([undefined, null, { title: "X" }]);
  });

  it("R7.7 what changes right after a stale key was read is read once more when the key is joined again", async () => {
    const { stage, client, seen } = await showing(2);
    const before = subscriptions(stage).length;
    stage.server.unsure = true;
    let cursor = "";
    stage.server.next("query", (call) => {
      const answer = call.commit();
      cursor = stage.server.cursor;
      // The server tells nobody: it had not known that this could be seen.
      stage.server.mute = true;
      stage.server.remove("tasks", "t0000");
      stage.server.mute = false;
      return answer;
    });
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance();
    expect(seen.now()).toEqual(["T1"]);
    expect(client.query("tasks", board).getSnapshot().status).toBe("live");
    const joined = subscriptions(stage).slice(before);
    expect(joined).toEqual([
      { type: "subscribe", id: joined[0]?.id, keys: ["tasks?boardId=b1"], cursor },
    ]);
    expect(queries(stage)).toHaveLength(3);

    // The next time as well.
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance();
    expect(subscriptions(stage)).toHaveLength(before + 2);
    expect(queries(stage)).toHaveLength(5);
  });

  it("R7.7 so is a record that is looked at", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    const log = watch(client.record("tasks", "t0000"));
    await stage.advance();
    stage.server.next("getRecords", (call) => {
      const answer = call.commit();
      stage.server.mute = true;
      stage.server.remove("tasks", "t0000");
      stage.server.mute = false;
      return answer;
    });
    stage.server.stale(["tasks:t0000"], "access");
    await stage.advance();
    expect(log.shown.at(-1)).toBeNull();
  });

  it("R7.7 says where nothing was found", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", board));
    rows(client.query("tasks", { boardId: "b2" }));
    await stage.until(() => live(client, "tasks", { boardId: "b2" }));
    const before = subscriptions(stage).length;
    stage.server.stale(["tasks?boardId=b1", "tasks?boardId=b2"], "access");
    await stage.advance();
    const joined = subscriptions(stage).slice(before);
    expect(joined.map(({ keys, empty }) => ({ keys, empty }))).toEqual([
      { keys: ["tasks?boardId=b1"], empty: undefined },
      { keys: ["tasks?boardId=b2"], empty: true },
    ]);
    expect(queries(stage)).toHaveLength(4);
  });

  it("R7.7 once for all that is read under a key, from where it went stale", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const others = { ...board, title: "T1" };
    rows(client.query("tasks", board));
    const seen = rows(client.query("tasks", others));
    await stage.until(() => live(client, "tasks", others));
    const before = subscriptions(stage).length;
    const stood = stage.server.cursor;
    const cursors: string[] = [];
    for (let i = 0; i < 2; i++) {
      stage.server.next("query", (call) => {
        stage.server.put("tasks", "t0000", { title: `again ${i}` });
        cursors.push(stage.server.cursor);
        return call.commit();
      });
    }
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance();
    expect(seen.now()).toEqual(["T1"]);
    expect(new Set([stood, ...cursors]).size).toBe(3);
    expect(subscriptions(stage).slice(before)).toMatchObject([
      { keys: ["tasks?boardId=b1"], cursor: stood },
    ]);
  });

  it("R7.7 what a write of one's own shows elsewhere is held nevertheless", async () => {
    const { stage, client } = await showing(1);
    stage.server.next("write", ...cuts(50));
    client.write(set("t0000", "boardId", "b2"));
    await stage.advance(100);
    const before = subscriptions(stage).length;
    stage.server.stale([key], "access");
    await stage.advance(200);
    expect(subscriptions(stage).slice(before)[0]).toMatchObject({ keys: [key] });
    expect(subscriptions(stage).slice(before)[0]).not.toHaveProperty("empty");
  });

  it("R7.7 stale again while it is joined again: both are read, and it is joined once more", async () => {
    const { stage, client } = await showing(2);
    const before = subscriptions(stage).length;
    let others = 1;
    Object.defineProperty(stage.server, "unsure", {
      get: () => {
        if (others-- > 0) stage.server.stale(["tasks?boardId=b1"], "access");
        return false;
      },
    });
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance();
    expect(queries(stage)).toHaveLength(3);
    expect(subscriptions(stage)).toHaveLength(before + 2);
    expect(client.query("tasks", board).getSnapshot().status).toBe("live");
  });

  it.each(["before", "after"])(
    "R7.7 a connection that ends %s the answer to the read is resumed from where the key went stale",
    async (when) => {
      const { stage, client, seen } = await showing(2);
      stage.server.put("tasks", "t0001", { title: "T2" });
      await stage.advance();
      const before = subscriptions(stage).length;
      const stood = stage.server.cursor;
      stage.server.next("query", (call) => {
        const answer = call.commit();
        stage.server.mute = true;
        stage.server.remove("tasks", "t0000");
        stage.server.mute = false;
        // The socket's cursor goes on, over what it was not told.
        stage.server.put("tasks", "t0001", { title: "T3" });
        if (when === "before") stage.server.close();
        else queueMicrotask(() => stage.server.close());
        return answer;
      });
      stage.server.stale(["tasks?boardId=b1"], "access");
      await stage.until(() => subscriptions(stage).length > before);
      await stage.advance(2000);
      expect(subscriptions(stage)[before]).toMatchObject({ cursor: stood });
      expect(seen.now()).toEqual(["T3"]);
      expect(client.query("tasks", board).getSnapshot().status).toBe("live");
    },
  );

  it("R7.7 what is read on the next connection is joined again, although the key was on this one", async () => {
    const { stage, client } = await showing(2);
    const before = subscriptions(stage).length;
    stage.server.unsure = true;
    stage.server.next(
      "query",
      (call) => call.commit(),
      () => {
        stage.server.unsure = false;
        stage.server.close();
        return "cut";
      },
    );
    stage.server.stale(["tasks?boardId=b1"], "access");
    await stage.advance(3000);
    await stage.until(() => live(client, "tasks", board));
    // Joined again, resumed, joined again.
    expect(subscriptions(stage)).toHaveLength(before + 3);
  });

  it("R7.3 a query that nobody listened to when its key went stale is read, not resumed", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", { ...board, status: "todo" }));
    const other = rows(client.query("tasks", board));
    await stage.advance();
    other.end();
    await stage.advance(6000);
    // Looked at, as a page being drawn does, and subscribed to only later.
    const query = client.query("tasks", board);
    expect(query.getSnapshot().data).toHaveLength(1);
    stage.server.mute = true;
    stage.server.put("tasks", "t0000", { title: "in bulk", status: "done" });
    stage.server.put("tasks", "new", { title: "new", boardId: "b1", status: "done" });
    stage.server.stale(["tasks?boardId=b1"], "bulk");
    await stage.advance(100);
    const seen = rows(query);
    await stage.advance();
    expect(seen.now()).toEqual(["new", "in bulk"]);
  });

  it("R7.4 what was read before its key went stale is read again", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", { ...board, status: "todo" }));
    await stage.advance();
    stage.server.mute = true;
    stage.server.next("query", async (call) => {
      const answer = call.commit();
      stage.server.put("tasks", "t0000", { title: "unheard" });
      stage.server.stale(["tasks?boardId=b1"], "bulk");
      await new Promise<void>((resolve) => stage.world.later(resolve, 300));
      return answer;
    });
    const seen = rows(client.query("tasks", board));
    await stage.advance();
    expect(seen.now()).toEqual(["unheard"]);
  });
});

describe("R7.3 a query whose key went stale", () => {
  it("is read again where nobody waited for that: released in between", async () => {
    const { stage, client, seen } = await away();
    stage.server.next("query", ...cuts(50));
    await stage.until(() => queries(stage).length >= 3, 60_000);
    seen.end();
    await stage.advance(7000);
    stage.server.script.query = [];
    const again = rows(client.query("tasks", board));
    await stage.advance(60_000);
    expect(client.query("tasks", board).getSnapshot().status).toBe("live");
    expect(again.now()).toEqual(["NEW", "T1"]);
  });

  it.each([0, 100])(
    "is read again where nobody waited for that: reloaded, and looked at after %s ms",
    async (ms) => {
      const { stage, client } = await away();
      stage.server.next("query", ...cuts(50));
      await stage.until(() => queries(stage).length >= 3, 60_000);
      await stage.advance(400);
      stage.crash(client);
      stage.server.script.query = [];
      const page = stage.open();
      if (ms) await stage.advance(ms);
      const again = rows(page.query("tasks", board));
      await stage.advance(60_000);
      expect(page.query("tasks", board).getSnapshot().status).toBe("live");
      expect(again.now()).toEqual(["NEW", "T1"]);
    },
  );

  it("is read again where rights have changed, and nobody waited for that", async () => {
    const { stage, client, seen } = await showing(2);
    stage.server.mayRead = (_user, table, { id }) => table !== "tasks" || id !== "t0000";
    stage.server.next("query", ...cuts(50));
    stage.server.stale([key], "access");
    await stage.advance(100);
    seen.end();
    await stage.advance(7000);
    stage.server.script.query = [];
    const again = rows(client.query("tasks", board));
    await stage.advance(60_000);
    expect(client.query("tasks", board).getSnapshot().status).toBe("live");
    expect(again.now()).toEqual(["T1"]);
  });

  it("is read again, though another under its key was read, and joined again, meanwhile", async () => {
    const { stage, client, seen } = await showing(2, one, other);
    stage.server.mute = true;
    stage.server.remove("tasks", "t0000");
    stage.server.mute = false;
    stage.server.next(
      "query",
      () => "cut",
      (call) => call.commit(),
      ...cuts(50),
    );
    stage.server.stale([key], "bulk");
    await stage.advance(100);
    seen.end();
    await stage.advance(7000);
    stage.server.script.query = [];
    await stage.advance(1000);
    const again = rows(client.query("tasks", one));
    await stage.advance(60_000);
    expect(client.query("tasks", one).getSnapshot().status).toBe("live");
    expect(again.now()).toEqual([]);
  });

  it("is read again after a reload, though another under its key was read before it", async () => {
    const { stage, client } = await showing(2, one, other);
    stage.server.down = true;
    stage.server.close();
    await stage.advance(500);
    stage.server.remove("tasks", "t0000");
    stage.server.pruned = stage.server.feed.length;
    stage.server.down = false;
    stage.server.next("query", ...cuts(50));
    await stage.until(() => queries(stage).length >= 4, 60_000);
    await stage.advance(400);
    stage.crash(client);
    stage.server.script.query = [];
    const page = stage.open();
    rows(page.query("tasks", other));
    await stage.until(() => live(page, "tasks", other));
    await stage.advance(1000);
    const again = rows(page.query("tasks", one));
    await stage.advance(60_000);
    expect(page.query("tasks", one).getSnapshot().status).toBe("live");
    expect(again.now()).toEqual([]);
  });

  it("is joined again although another under its key is refused", async () => {
    const { stage, seen } = await showing(2, one, other);
    stage.server.unsure = true;
    stage.server.next(
      "query",
      (call) => {
        const answer = call.commit();
        stage.server.mute = true;
        stage.server.remove("tasks", "t0000");
        stage.server.mute = false;
        return answer;
      },
      () => refused(400, "bad_request"),
    );
    stage.server.stale([key], "access");
    await stage.advance(60_000);
    expect(seen.now()).toEqual([]);
  });

  it("is read from its beginning by loadMore where that could not be read again", async () => {
    const stage = new Stage();
    fill(stage, 8);
    const client = stage.open();
    const spec = { ...byPosition, limit: 3 };
    const query = client.query("tasks", board, spec);
    const seen = rows(query);
    await stage.until(() => live(client, "tasks", board, spec));
    stage.server.mute = true;
    stage.server.remove("tasks", "t0000");
    stage.server.mute = false;
    stage.server.next("query", () => "cut");
    stage.server.stale([key], "bulk");
    await stage.advance(20);
    void query.loadMore();
    await stage.advance(60_000);
    expect(query.getSnapshot().status).toBe("live");
    expect(seen.now()).toEqual(["T1", "T2", "T3", "T4", "T5", "T6"]);
  });

  it("is not gone on with where its key was forgotten, though another is read under that", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const b = stage.open();
    const left = rows(b.query("tasks", other));
    await stage.until(() => live(b, "tasks", other));
    await stage.advance(400);
    const a = stage.open();
    rows(a.query("tasks", one));
    await stage.until(() => live(a, "tasks", one));
    await stage.advance(400);
    stage.crash(a);
    left.end();
    await stage.advance(7000);
    // Short of room.
    const { vault } = ((b as unknown as { core: Core }).core.engine as Engine).sync as unknown as {
      vault: { relieve(): never[]; flush(changes: never[]): Promise<void> };
    };
    await vault.flush(vault.relieve());
    stage.crash(b);
    stage.server.remove("tasks", "t0000");
    stage.server.put("tasks", "new", { title: "T0", boardId: "b1" });
    const c = stage.open();
    rows(c.query("tasks", other));
    await stage.until(() => live(c, "tasks", other));
    const seen = rows(c.query("tasks", one), "id");
    await stage.advance(60_000);
    expect(c.query("tasks", one).getSnapshot().status).toBe("live");
    expect(seen.now()).toEqual(["new"]);
  });
});

describe("R7.8 other claims than at the last connection", () => {
  /** t0000 is not his any more, by his claims: the feed tells nothing of that. */
  function lessRights(stage: Stage): void {
    stage.server.mayRead = (_user, table, { id }) => table !== "tasks" || id !== "t0000";
    stage.server.rights = "r2";
  }

  it("what was read is read again, by what is held", async () => {
    const { stage, client, seen } = await showing(2);
    lessRights(stage);
    stage.server.close();
    await stage.advance(2000);
    expect(seen.now()).toEqual(["T1"]);
    expect(queries(stage).at(-1)).toMatchObject({ have: { t0000: 1, t0001: 1 } });
    expect(client.query("tasks", board).getSnapshot().status).toBe("live");
    const read = queries(stage).length;
    stage.server.close();
    await stage.advance(2000);
    expect(queries(stage)).toHaveLength(read);
  });

  it.each([0, 100])("so it is by the next page, looked at after %s ms", async (ms) => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance(1000);
    stage.crash(client);
    lessRights(stage);
    const page = stage.open();
    if (ms) await stage.advance(ms);
    const seen = rows(page.query("tasks", board));
    await stage.until(() => live(page, "tasks", board));
    await stage.advance();
    expect(seen.now()).toEqual(["T1"]);
  });

  it("and by the page after one that looked at something else", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance(1000);
    stage.crash(client);
    lessRights(stage);
    const next = stage.open();
    rows(next.query("tasks", { boardId: "b2" }));
    await stage.advance(1000);
    stage.crash(next);
    const page = stage.open();
    const seen = rows(page.query("tasks", board));
    await stage.until(() => live(page, "tasks", board));
    expect(seen.now()).toEqual(["T1"]);
  });

  it("and by the page after another tab's that did not know of it", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const other = stage.open();
    rows(other.query("tasks", { boardId: "b2" }));
    await stage.advance(1000);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance(1000);
    stage.crash(client);
    lessRights(stage);
    stage.server.close();
    await stage.advance(2000);
    stage.crash(other);
    const page = stage.open();
    const seen = rows(page.query("tasks", board));
    await stage.until(() => live(page, "tasks", board));
    expect(seen.now()).toEqual(["T1"]);
  });

  /** The token is renewed, with other claims. */
  function renew(stage: Stage, rights: string, stale: readonly string[]): void {
    stage.server.rights = rights;
    for (const peer of stage.server.peers) stage.server.tellPeer(peer, { type: "authed", rights });
    if (stale.length) stage.server.stale([...stale], "access");
  }

  it.each(["a reconnect", "the next page"])(
    "claims that were renewed and are as before at %s are others",
    async (how) => {
      const stage = new Stage();
      fill(stage, 2);
      const client = stage.open();
      lessRights(stage);
      stage.server.rights = "r1";
      const seen = rows(client.query("tasks", board));
      await stage.until(() => live(client, "tasks", board));
      stage.server.mayRead = () => true;
      renew(stage, "r2", [key]);
      await stage.advance(2000);
      expect(seen.now()).toEqual(["T0", "T1"]);
      lessRights(stage);
      stage.server.rights = "r1";
      if (how === "a reconnect") stage.server.close();
      else stage.crash(client);
      const page = how === "a reconnect" ? client : stage.open();
      const again = rows(page.query("tasks", board));
      await stage.advance(10_000);
      expect(again.now()).toEqual(["T1"]);
      expect(page.query("tasks", board).getSnapshot().status).toBe("live");
    },
  );

  it("what nobody looked at when the token was renewed is read again", async () => {
    const { stage, client, seen } = await showing(2);
    seen.end();
    await stage.advance(7000);
    lessRights(stage);
    renew(stage, "r2", []);
    await stage.advance(1000);
    const again = rows(client.query("tasks", board));
    await stage.advance(10_000);
    expect(again.now()).toEqual(["T1"]);
  });

  it("what a tab reads with a former token is not gone on with by the next page", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const former = stage.open();
    rows(former.query("tasks", other));
    await stage.until(() => live(former, "tasks", other));
    await stage.advance(1000);
    lessRights(stage);
    const tab = stage.open();
    rows(tab.query("tasks", { boardId: "b2" }));
    await stage.advance(1000);
    stage.server.mayRead = () => true;
    rows(former.query("tasks", board));
    await stage.until(() => live(former, "tasks", board));
    await stage.advance(1000);
    lessRights(stage);
    stage.crash(former);
    rows(tab.query("tasks", { boardId: "b3" }));
    await stage.advance(1000);
    stage.crash(tab);
    const page = stage.open();
    const seen = rows(page.query("tasks", board));
    await stage.advance(10_000);
    expect(seen.now()).toEqual(["T1"]);
  });

  it("what no key covers is read again, too", async () => {
    const stage = new Stage();
    const schema = structuredClone(stage.server.tables);
    Object.assign(schema.tables.tasks as object, { wholeTable: false });
    Object.assign(stage.server, { tables: schema });
    fill(stage, 2);
    const client = stage.open({ schema });
    const seen = rows(client.query("tasks", { title: "T0" }));
    await stage.advance(2000);
    expect(seen.now()).toEqual(["T0"]);
    lessRights(stage);
    stage.server.close();
    await stage.advance(2000);
    expect(seen.now()).toEqual([]);
  });
});
