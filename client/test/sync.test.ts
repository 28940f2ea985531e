import { describe, expect, it } from "vitest";
import type { Core } from "../src/core.js";
import type { Engine } from "../src/engine.js";
import type { RecordData } from "../src/json.js";
import {
  add,
  board,
  create,
  fill,
  live,
  queries,
  rows,
  Stage,
  set,
  subscriptions,
  watch,
} from "./harness.js";
import { refused, reply } from "./scripted-server.js";

const byPosition = { orderBy: [{ key: "position" as const }] };

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
