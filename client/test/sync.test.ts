import { describe, expect, it } from "vitest";
import type { Client } from "../src/client.js";
import type { Core } from "../src/core.js";
import type { Engine } from "../src/engine.js";
import type { RecordData } from "../src/json.js";
import { add, create, rows, Stage, set, watch } from "./harness.js";
import { refused, reply } from "./scripted-server.js";

const board = { boardId: "b1" };
const byPosition = { orderBy: [{ key: "position" as const }] };

/** Tasks of one board at positions 0, 10, 20 ... */
function fill(stage: Stage, count: number, boardId = "b1"): void {
  for (let at = 0; at < count; at++) {
    stage.server.put("tasks", `t${String(at).padStart(4, "0")}`, {
      title: `T${at}`,
      boardId,
      position: at * 10,
      status: "todo",
      count: 0,
    });
  }
}

const live = (client: Client, ...query: Parameters<Client["query"]>) =>
  client.query(...query).getSnapshot().status === "live";

const queries = (stage: Stage) => stage.server.requests("query") as { [key: string]: never }[];
const subscriptions = (stage: Stage) =>
  stage.server.frames.flatMap(({ frame }) => (frame.type === "subscribe" ? [frame] : []));

const key = "tasks?boardId=b1";
const one = { ...board, title: "T0" };
const other = { ...board, title: "T1" };
const cuts = (count: number) => Array.from({ length: count }, () => () => "cut" as const);

/** A client that was away for so long that it has to read again: t0000 has gone and `new` come. */
async function away(stage: Stage) {
  fill(stage, 2);
  const client = stage.open();
  const seen = rows(client.query("tasks", board));
  await stage.until(() => live(client, "tasks", board));
  stage.server.down = true;
  stage.server.close();
  await stage.advance(500);
  stage.server.remove("tasks", "t0000");
  stage.server.put("tasks", "new", { title: "NEW", boardId: "b1" });
  stage.server.pruned = stage.server.feed.length;
  stage.server.down = false;
  return { client, seen };
}

describe("R7 queries", () => {
  it("R7.1 says what it holds and takes in what differs", async () => {
    const stage = new Stage();
    fill(stage, 3);
    const client = stage.open();
    for (const id of ["t0000", "t0001", "t0002"]) client.record("tasks", id).subscribe(() => {});
    await stage.advance();
    stage.server.mute = true;
    stage.server.put("tasks", "t0001", { title: "new" });
    stage.server.remove("tasks", "t0002");
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
    expect(queries(stage)[0]?.have).toEqual({ t0000: 1, t0001: 1, t0002: 1 });
    expect(seen.now()).toEqual(["T0", "new"]);
    expect(subscriptions(stage).at(-1)).toMatchObject({ keys: ["tasks?boardId=b1"] });
  });

  it("R7.1 reads all pages of a large result", async () => {
    const stage = new Stage();
    fill(stage, 2300);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
    expect(seen.now()).toHaveLength(2300);
    expect(queries(stage).map(({ limit, after }) => [limit, after !== undefined])).toEqual([
      [1000, false],
      [1000, true],
      [1000, true],
    ]);
  });

  it("R7.1 a change between the read and the subscription is replayed", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    stage.server.next("query", (call) => {
      const answer = call.commit();
      stage.server.put("tasks", "t0000", { title: "meanwhile" });
      stage.server.put("tasks", "new", { title: "also", boardId: "b1" });
      return answer;
    });
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
    expect(seen.now()).toEqual(["also", "meanwhile"]);
  });

  it("R7.1 loads what is included, and keeps it live", async () => {
    const stage = new Stage();
    stage.server.put("boards", "b1", { name: "Board" });
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", board, { include: ["boardId"] }));
    await stage.advance();
    expect(client.record("boards", "b1").getSnapshot()).toMatchObject({ name: "Board" });
    stage.server.put("boards", "b1", { name: "Renamed" });
    await stage.advance();
    expect(client.record("boards", "b1").getSnapshot()).toMatchObject({ name: "Renamed" });
  });

  it("R7.2 goes on after a reload from where it was, without reading anything", async () => {
    const stage = new Stage();
    fill(stage, 3);
    const first = stage.open();
    rows(first.query("tasks", board));
    await stage.advance();
    stage.crash(first);
    stage.server.put("tasks", "t0001", { title: "while away" });
    stage.server.put("tasks", "t0002", { boardId: "b2" });
    stage.server.calls.length = 0;
    const second = stage.open();
    const seen = rows(second.query("tasks", board));
    await stage.until(() => live(second, "tasks", board));
    expect(seen.now()).toEqual(["T0", "while away"]);
    expect(stage.server.calls).toEqual([]);
  });

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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
      const stage = new Stage();
      fill(stage, 2);
      const client = stage.open();
      const seen = rows(client.query("tasks", board));
      await stage.until(() => live(client, "tasks", board));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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

  it("R7.5 a record that came in while the query was read is verified", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    await stage.advance();
    // The query is carried out after x has left again; the answer to the write, made before that, comes first.
    stage.server.next("write", (call) => {
      const answer = call.commit();
      stage.server.mute = true;
      stage.server.put("tasks", "x", { boardId: "b2" });
      return answer;
    });
    stage.server.next("query", async (call) => {
      await new Promise<void>((resolve) => stage.world.later(resolve, 50));
      return call.commit();
    });
    const seen = rows(client.query("tasks", board));
    client.write(create("x", { title: "X", boardId: "b1" }));
    await stage.advance();
    expect(seen.now()).toEqual(["T0"]);
    expect(client.record("tasks", "x").getSnapshot()).toMatchObject({ boardId: "b2" });
  });

  it("refused for good: says why, until it is asked again", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    stage.server.next("query", () => refused(403, "forbidden"));
    const query = client.query("tasks", board);
    rows(query);
    await stage.advance(60_000);
    expect(query.getSnapshot()).toMatchObject({ status: "error", error: { code: "forbidden" } });
    expect(queries(stage)).toHaveLength(1);
    await Promise.all([query.refetch(), stage.advance()]);
    expect(query.getSnapshot()).toMatchObject({ status: "live", data: [{ title: "T0" }] });
  });

  it("not answered: asks again by itself, also after an answer that cannot be read", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    stage.server.next(
      "query",
      () => "cut",
      () => refused(503, "unavailable"),
      () => reply(200, "<html>"),
      () => reply(200, { ids: [] }),
      () => refused(429, "rate_limited", { "retry-after": "10" }),
    );
    const query = client.query("tasks", board);
    rows(query);
    await stage.until(() => live(client, "tasks", board), 60_000);
    expect(queries(stage)).toHaveLength(6);
  });
});

describe("R6 keys and cursors", () => {
  it("R6.1 one subscription for many, released five seconds after the last", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    const one = rows(client.query("tasks", board));
    const two = rows(client.query("tasks", { ...board, status: "todo" }));
    await stage.advance();
    expect(subscriptions(stage).flatMap(({ keys }) => keys)).toEqual(["tasks?boardId=b1"]);
    const left = () =>
      stage.server.frames.filter(({ frame }) => frame.type === "unsubscribe").length;
    one.end();
    await stage.advance(6000);
    two.end();
    await stage.advance(4000);
    expect(left()).toBe(0);
    const back = rows(client.query("tasks", { ...board, status: "todo" }));
    await stage.advance(4000);
    expect(left()).toBe(0);
    back.end();
    await stage.advance(5100);
    expect(left()).toBe(1);
  });

  it("R6.1 thousands that leave together are let go in one go", async () => {
    const stage = new Stage();
    fill(stage, 200);
    const client = stage.open();
    const ids = Array.from({ length: 200 }, (_, n) => `t${String(n).padStart(4, "0")}`);
    const ends = ids.flatMap((id) => [
      client.query("tasks", { ...board, title: id }).subscribe(() => {}),
      client.record("tasks", id).subscribe(() => {}),
    ]);
    await stage.advance();
    const engine = (client as unknown as { core: Core }).core.engine as Engine;
    const { records } = engine.sync as unknown as { records: { ensure(watch: unknown): void } };
    let looked = 0;
    const { ensure } = Object.getPrototypeOf(records);
    records.ensure = (watch) => {
      looked++;
      ensure.call(records, watch);
    };
    // The records stay in use.
    for (const end of ends.filter((_, n) => n % 2 === 0)) end();
    await stage.advance(6000);
    expect(looked).toBeLessThanOrEqual(2 * ids.length);
    expect(subscriptions(stage).flatMap(({ keys }) => keys)).toContain("tasks:t0199");
  });

  it("R6.2 a key released and used again goes on from its own cursor, without a read", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", { boardId: "b2" }));
    rows(client.query("tasks", board)).end();
    const first = rows(client.query("tasks", board));
    await stage.advance();
    first.end();
    await stage.advance(6000);
    // Others move on, so that the socket's cursor is not this key's.
    stage.server.put("tasks", "t0000", { title: "unheard so far" });
    stage.server.put("tasks", "x", { boardId: "b2" });
    await stage.advance();
    stage.server.calls.length = 0;
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
    expect(seen.now()).toEqual(["unheard so far", "T1"]);
    expect(stage.server.calls).toEqual([]);
  });

  it("R6.2 a connection that ends between two joins resumes each key where it was", async () => {
    const stage = new Stage();
    fill(stage, 1);
    stage.server.put("tasks", "x", { title: "X", boardId: "b2" });
    const client = stage.open();
    const one = rows(client.query("tasks", board));
    await stage.advance();
    stage.server.put("tasks", "t0000", { title: "1" });
    await stage.advance();
    const two = rows(client.query("tasks", { boardId: "b2" }));
    await stage.advance();
    stage.server.close();
    stage.server.put("tasks", "t0000", { title: "2" });
    stage.server.put("tasks", "x", { title: "Y" });
    stage.server.calls.length = 0;
    await stage.advance(3000);
    expect([one.now(), two.now()]).toEqual([["2"], ["Y"]]);
    expect(stage.server.calls).toEqual([]);
  });

  it("R6.3 what was to be fetched when the page ended is fetched by the next", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance();
    stage.server.shape = "bare";
    stage.server.next("getRecords", ...Array.from({ length: 9 }, () => () => "cut" as const));
    stage.server.put("tasks", "t0000", { title: "told, not brought" });
    await stage.advance(1000);
    stage.crash(client);
    stage.server.script.getRecords = [];
    const again = stage.open();
    const seen = rows(again.query("tasks", board));
    await stage.advance();
    expect(seen.now()).toEqual(["told, not brought"]);
  });

  it("R6.4 of two queries on one key the one read before the key was covered is read again", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    // Carried out first, answered last; between the two the record changes, which neither cursor tells the other.
    stage.server.next("query", async (call) => {
      const answer = call.commit();
      stage.server.put("tasks", "t0000", { title: "between" });
      await new Promise<void>((resolve) => stage.world.later(resolve, 200));
      return answer;
    });
    const one = rows(client.query("tasks", board));
    rows(client.query("tasks", { ...board, status: "done" }));
    await stage.advance();
    expect(one.now()).toEqual(["between"]);
    expect(queries(stage)).toHaveLength(3);
  });

  it("R6.6 versions of a join that differ from what is held", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const one = watch(client.record("tasks", "t0000"));
    const two = watch(client.record("tasks", "t0001"));
    await stage.advance();
    stage.server.close();
    // What the feed does not tell, as after a restore by hand.
    stage.server.records
      .get("tasks")
      ?.set("t0000", { ...(stage.server.get("tasks", "t0000") as RecordData), version: 7 });
    stage.server.records.get("tasks")?.delete("t0001");
    await stage.advance(5000);
    expect([one.shown.at(-1), two.shown.at(-1)]).toMatchObject([{ version: 7 }, null]);
  });

  it("R6.7 a row of a tab that knew less than the resumed one is fetched", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const [early, late] = [stage.open(), stage.open()];
    await stage.advance();
    // One tab looks at x while it is on the board, and leaves.
    const look = watch(late.record("tasks", "x"));
    stage.server.put("tasks", "x", { title: "X", boardId: "b1" });
    await stage.advance();
    look.end();
    await stage.advance(6000);
    stage.server.put("tasks", "x", { boardId: "b2" });
    // The other, which never heard of x, reads the board after that.
    rows(early.query("tasks", board));
    await stage.advance();
    stage.crash(early);
    stage.crash(late);
    const again = stage.open();
    const seen = rows(again.query("tasks", board));
    expect(seen.now()).toEqual([]);
    await stage.until(() => live(again, "tasks", board));
    await stage.advance();
    expect(seen.now()).toEqual(["T0"]);
  });

  it("R7.6 a query whose key the server refuses is shown, and says that it is not live", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    await stage.advance();
    const hear = stage.server as unknown as { hear(peer: unknown, frame: { type: string }): void };
    const own = hear.hear.bind(stage.server);
    hear.hear = (peer, frame) => {
      if (frame.type !== "subscribe") return own(peer, frame);
      const { id, keys } = frame as never as { id: number; keys: string[] };
      stage.server.tell({
        type: "subscribed",
        id,
        cursor: stage.server.cursor,
        versions: {},
        errors: keys.map((key) => ({ key, code: "too_many_keys" })),
      });
    };
    const query = client.query("tasks", board);
    rows(query);
    await stage.advance();
    const error = { code: "too_many_keys" };
    expect(query.getSnapshot()).toMatchObject({ status: "error", data: [{ title: "T0" }], error });
    expect(client.status.getSnapshot().lastError?.code).toBe("too_many_keys");
    hear.hear = own;
    stage.server.close();
    await stage.until(() => query.getSnapshot().status === "live");
    expect(query.getSnapshot().error).toBeUndefined();
  });

  it("R7.6 a query that no key covers says so; one that nothing can match is live", async () => {
    const stage = new Stage();
    const schema = structuredClone(stage.server.tables);
    (schema.tables.tasks as { wholeTable: boolean }).wholeTable = false;
    Object.assign(stage.server, { tables: schema });
    fill(stage, 2);
    const client = stage.open({ schema });
    const all = client.query("tasks", { status: "todo" });
    const none = client.query("tasks", { status: "todo", id: { in: [] } });
    rows(all);
    rows(none);
    await stage.advance();
    const { status, data, error } = all.getSnapshot();
    expect([status, data.length, error?.code]).toEqual(["error", 2, "not_live"]);
    expect(error?.message).toContain("Filter by id or a topic");
    expect(all.getSnapshot()).toBe(all.getSnapshot());
    expect(none.getSnapshot()).toMatchObject({ status: "live", data: [] });
    // What is read again by hand is there.
    stage.server.put("tasks", "t9", { title: "T9", status: "todo" });
    void all.refetch();
    await stage.advance();
    expect(all.getSnapshot()).toMatchObject({ status: "error", error: { code: "not_live" } });
    expect(all.getSnapshot().data).toHaveLength(3);
  });

  it("a subscription that failed is tried again", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    await stage.advance();
    const hear = stage.server as unknown as { hear(peer: unknown, frame: { type: string }): void };
    const own = hear.hear.bind(stage.server);
    let failures = 2;
    hear.hear = (peer, frame) => {
      if (frame.type !== "subscribe" || failures-- <= 0) return own(peer, frame);
      stage.server.tell({
        type: "error",
        code: "unavailable",
        message: "",
        id: (frame as never as { id: number }).id,
      });
    };
    rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
    expect(failures).toBeLessThan(0);
  });

  it("a table the server does not know holds no other's records", async () => {
    const stage = new Stage();
    fill(stage, 1);
    const client = stage.open();
    await stage.advance();
    const step = (call: { body: unknown; commit(): ReturnType<typeof reply> }) =>
      JSON.stringify(call.body).includes("boards") ? refused(400, "unknown_table") : call.commit();
    stage.server.next("getRecords", step, step, step);
    watch(client.record("boards", "b1"));
    const log = watch(client.record("tasks", "t0000"));
    await stage.advance();
    expect(log.shown.at(-1)).toMatchObject({ title: "T0" });
  });

  it("records are fetched together, and lean on the queries that show them", async () => {
    const stage = new Stage();
    fill(stage, 50);
    const client = stage.open();
    const ids = Array.from({ length: 50 }, (_, at) => `t${String(at).padStart(4, "0")}`);
    const ends = ids.map((id) => client.record("tasks", id).subscribe(() => {}));
    await stage.advance();
    expect(stage.server.requests("getRecords")).toHaveLength(1);
    for (const end of ends) end();
    const list = rows(client.query("tasks", board));
    await stage.advance(10_000);
    stage.server.frames.length = 0;
    stage.server.calls.length = 0;
    const log = watch(client.record("tasks", "t0007"));
    await stage.advance();
    expect([stage.server.calls, subscriptions(stage)]).toEqual([[], []]);
    // Once no query shows it any more, it is looked after by itself.
    list.end();
    await stage.advance(6000);
    stage.server.put("tasks", "t0007", { title: "still live" });
    await stage.advance();
    expect(log.shown.at(-1)).toMatchObject({ title: "still live" });
  });
});

describe("R5 epochs", () => {
  it("R5.1 reads everything in use again; versions may have fallen; nothing is lost on the way", async () => {
    const stage = new Stage();
    fill(stage, 3);
    for (let n = 0; n < 5; n++) stage.server.put("tasks", "t0000", { title: `v${n}` });
    const client = stage.open();
    const query = client.query("tasks", board);
    const log = watch(query);
    await stage.advance();
    // Restored from a backup: older contents, lower versions, one record less.
    const { server } = stage;
    server.epoch = "e2";
    server.records
      .get("tasks")
      ?.set("t0000", { ...(server.get("tasks", "t0000") as RecordData), title: "old", version: 2 });
    server.records.get("tasks")?.delete("t0002");
    server.close();
    client.write(add("t0001"));
    await stage.advance(5000);
    expect(query.getSnapshot()).toMatchObject({
      status: "live",
      data: [{ title: "old", version: 2 }, { count: 1 }],
    });
    expect(log.shown.every(({ status, data }) => status === "loading" || data.length > 0)).toBe(
      true,
    );
    server.put("tasks", "t0000", { title: "goes on" });
    await stage.advance();
    expect(query.getSnapshot().data[0]).toMatchObject({ title: "goes on", version: 3 });
  });

  it("R5.1 also where the connection stays and says so", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.advance();
    const { server } = stage;
    server.epoch = "e2";
    // The same version, another content.
    server.records
      .get("tasks")
      ?.set("t0000", { ...(server.get("tasks", "t0000") as RecordData), title: "another" });
    const [peer] = server.peers;
    if (!peer) throw new Error("not connected");
    const keys = [...peer.keys.keys()];
    server.tellPeer(peer, { type: "stale", keys, reason: "behind", epoch: "e2" });
    await stage.advance(5000);
    expect(seen.now()).toEqual(["another", "T1"]);
    expect([...server.peers]).toEqual([peer]);
    server.put("tasks", "t0001", { title: "heard" });
    await stage.advance();
    expect(seen.now()).toEqual(["another", "heard"]);
  });

  it("R5.1 also where the epoch changed while the page was closed", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", board));
    await stage.advance();
    stage.crash(client);
    const { server } = stage;
    server.epoch = "e2";
    // The same version, another content.
    server.records
      .get("tasks")
      ?.set("t0000", { ...(server.get("tasks", "t0000") as RecordData), title: "another" });
    const again = stage.open();
    const seen = rows(again.query("tasks", board));
    await stage.advance(5000);
    expect(seen.now()).toEqual(["another", "T1"]);
  });
});

describe("R8 windows", () => {
  const spec = { ...byPosition, limit: 3 };

  it("R8.1, R8.2 shows a page, takes in what sorts inside, leaves out what lies behind", async () => {
    const stage = new Stage();
    fill(stage, 6);
    const client = stage.open();
    const query = client.query("tasks", board, spec);
    const seen = rows(query);
    await stage.advance();
    expect([seen.now(), query.getSnapshot().hasMore]).toEqual([["T0", "T1", "T2"], true]);
    stage.server.put("tasks", "x", { title: "X", boardId: "b1", position: 5 });
    stage.server.put("tasks", "y", { title: "Y", boardId: "b1", position: 35 });
    await stage.advance();
    expect(seen.now()).toEqual(["T0", "X", "T1"]);
    client.write(create("z", { title: "Z", boardId: "b1", position: 1 }));
    expect(seen.now()).toEqual(["T0", "Z", "X"]);
  });

  it("R8.3 reads the page again when a row leaves; an optimistic delete waits for the server", async () => {
    const stage = new Stage();
    fill(stage, 6);
    const client = stage.open();
    const seen = rows(client.query("tasks", board, spec));
    await stage.advance();
    stage.server.put("tasks", "t0001", { boardId: "b2" });
    await stage.advance();
    expect(seen.now()).toEqual(["T0", "T2", "T3"]);
    stage.server.down = true;
    stage.server.close();
    stage.server.calls.length = 0;
    client.write({ type: "delete", table: "tasks", id: "t0000" });
    expect(seen.now()).toEqual(["T2", "T3"]);
    await stage.advance(100);
    stage.server.down = false;
    await stage.advance(10_000);
    expect(seen.now()).toEqual(["T2", "T3", "T4"]);
    expect(queries(stage).length).toBeLessThan(4);
  });

  it("R8.3 also where more rows are known than are within reach", async () => {
    const stage = new Stage();
    fill(stage, 6);
    const client = stage.open();
    const seen = rows(client.query("tasks", board, spec));
    await stage.advance();
    rows(client.query("tasks", board));
    await stage.advance();
    stage.server.put("tasks", "t0001", { boardId: "b2" });
    await stage.advance();
    expect(seen.now()).toEqual(["T0", "T2", "T3"]);
  });

  it("R8.4 grows by pages to the end", async () => {
    const stage = new Stage();
    fill(stage, 8);
    const client = stage.open();
    const query = client.query("tasks", board, spec);
    const seen = rows(query);
    await stage.advance();
    await Promise.all([query.loadMore(), stage.advance()]);
    expect([seen.now().length, query.getSnapshot().hasMore]).toEqual([6, true]);
    expect(queries(stage).at(-1)).toMatchObject({ limit: 3, after: expect.any(String), have: {} });
    await Promise.all([query.loadMore(), stage.advance()]);
    expect([seen.now().length, query.getSnapshot().hasMore]).toEqual([8, false]);
    // What leaves now is replaced by nothing, what comes is shown up to the limit.
    stage.server.put("tasks", "t0000", { boardId: "b2" });
    stage.server.put("tasks", "x", { title: "X", boardId: "b1", position: 1000 });
    await stage.advance();
    expect(seen.now()).toEqual(["T1", "T2", "T3", "T4", "T5", "T6", "T7", "X"]);
  });

  it("R8.4 is as long as it was after a reload", async () => {
    const stage = new Stage();
    fill(stage, 9);
    const client = stage.open();
    const query = client.query("tasks", board, spec);
    rows(query);
    await stage.advance();
    await Promise.all([query.loadMore(), stage.advance()]);
    stage.crash(client);
    stage.server.calls.length = 0;
    const again = stage.open();
    const seen = rows(again.query("tasks", board, spec));
    await stage.until(() => live(again, "tasks", board, spec));
    expect([seen.now().length, stage.server.calls]).toEqual([6, []]);
  });
});

describe("the server's stream", () => {
  it("leaves pending writes out, tells whole transactions with their ids, and begins with a reset", async () => {
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const batches: unknown[] = [];
    const end = client.serverStream("tasks", board).subscribe((batch) => batches.push(batch));
    await stage.advance();
    const { txId } = client.write([set("t0000", "title", "mine"), set("t0001", "boardId", "b2")]);
    await stage.advance();
    end();
    expect(batches).toMatchObject([
      { reset: true, ready: false, changes: [] },
      {
        changes: [
          { type: "insert", id: "t0000" },
          { type: "insert", id: "t0001" },
        ],
      },
      { reset: false, ready: true, changes: [] },
      {
        txIds: [txId],
        changes: [
          { type: "update", id: "t0000", record: { title: "mine" } },
          { type: "delete", id: "t0001" },
        ],
      },
    ]);
  });
});

describe("R7.3 a query whose key went stale", () => {
  it("is read again where nobody waited for that: released in between", async () => {
    const stage = new Stage();
    const { client, seen } = await away(stage);
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
      const stage = new Stage();
      const { client } = await away(stage);
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", one));
    rows(client.query("tasks", other));
    await stage.until(() => live(client, "tasks", other));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    rows(client.query("tasks", one));
    rows(client.query("tasks", other));
    await stage.until(() => live(client, "tasks", other));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", one));
    rows(client.query("tasks", other));
    await stage.until(() => live(client, "tasks", other));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
    const stage = new Stage();
    fill(stage, 2);
    const client = stage.open();
    const seen = rows(client.query("tasks", board));
    await stage.until(() => live(client, "tasks", board));
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
