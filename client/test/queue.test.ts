import { describe, expect, it, vi } from "vitest";
import { RefusedError } from "../src/errors.js";
import type { Storage, StoreName } from "../src/storage.js";
import { memoryStorage } from "../src/storage-memory.js";
import type { Transaction } from "../src/wire.gen.js";
import { add, create, rows, Stage, set } from "./harness.js";
import { problem, refused, reply } from "./scripted-server.js";
import { Page } from "./world.js";

/** A stage with one client whose first connection is open, and one task. */
async function ready(stage = new Stage(), options: Parameters<Stage["open"]>[0] = {}) {
  stage.server.put("tasks", "a", { title: "A", boardId: "b1", count: 0, tags: [] });
  const client = stage.open(options);
  const seen = rows(client.query("tasks", { boardId: "b1" }), "count");
  await stage.until(() => client.query("tasks", { boardId: "b1" }).getSnapshot().status === "live");
  return { stage, server: stage.server, client, seen };
}

const sent = (stage: Stage): string[][] =>
  stage.server
    .requests("write")
    .map((body) =>
      (body as never as { transactions: Transaction[] }).transactions.map(({ txId }) => txId),
    );

describe("R9 sending", () => {
  it("R9.3 sends in the order of the queue, what came meanwhile together", async () => {
    const { stage, server, client } = await ready();
    const handles = Array.from({ length: 120 }, () => client.write(add("a")));
    await stage.advance(5000);
    expect(server.applied).toEqual(handles.map(({ txId }) => txId));
    expect(sent(stage).map((batch) => batch.length)).toEqual([50, 50, 20]);
    expect(server.get("tasks", "a")?.count).toBe(120);
  });

  it("R9.3 sends at most 512 KiB a request, and a larger one alone", async () => {
    const { stage, client } = await ready();
    for (const kilobytes of [200, 200, 200, 600, 1]) {
      client.write(set("a", "tags", ["x".repeat(kilobytes * 1024)]), { undo: false });
    }
    await stage.advance(5000);
    expect(sent(stage).map((batch) => batch.length)).toEqual([2, 1, 1, 1]);
  });

  it("R9.4 tries again after a random time that doubles, without being told to", async () => {
    const { stage, server, client, seen } = await ready();
    server.next("write", ...Array.from({ length: 4 }, () => () => refused(503, "unavailable")));
    const times: number[] = [];
    const begun = stage.world.now;
    client.write(add("a"));
    for (let tries = 1; tries <= 5; tries++) {
      await stage.until(() => sent(stage).length === tries);
      times.push(stage.world.now - begun);
    }
    await stage.advance();
    expect(seen.now()).toEqual([1]);
    expect(server.applied).toHaveLength(1);
    const waits = times.map((time, at) => time - (times[at - 1] ?? 0)).slice(1);
    waits.forEach((wait, at) => {
      expect(wait).toBeLessThan(500 * 2 ** at + 50);
    });
  });

  it("R9.4 waits as long as Retry-After says, whoever wakes it", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    const { server, client } = await ready(stage, { page });
    server.next("write", () => refused(429, "rate_limited", { "retry-after": "20" }));
    client.write(add("a"));
    await stage.advance(100);
    page.wake();
    await stage.advance(19_000);
    expect(sent(stage)).toHaveLength(1);
    await stage.advance(2000);
    expect(sent(stage)).toHaveLength(2);
    expect(client.status.getSnapshot()).toMatchObject({ pending: 0, lastError: null });
  });

  it("R9.4 is woken by the network before its time", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    const { server, client } = await ready(stage, { page });
    server.next("write", ...Array.from({ length: 8 }, () => () => "cut" as const));
    client.write(add("a"));
    await stage.until(() => sent(stage).length === 8);
    await stage.advance(20);
    const before = stage.world.now;
    page.wake();
    await stage.until(() => server.applied.length === 1);
    expect(stage.world.now - before).toBeLessThan(50);
  });

  it("R9.6 an answer lost after the commit: once, and nothing flickers", async () => {
    const { stage, server, client, seen } = await ready();
    server.mute = true;
    server.next("write", (call) => {
      call.commit();
      return "cut";
    });
    const handle = client.write(add("a"));
    const log: unknown[] = [];
    client.record("tasks", "a").subscribe(() => log.push(seen.now()[0]));
    await stage.advance(5000);
    expect(sent(stage)).toEqual([[handle.txId], [handle.txId]]);
    expect(server.get("tasks", "a")?.count).toBe(1);
    await expect(handle.confirmed).resolves.toMatchObject({ txId: handle.txId });
    expect(new Set(log)).toEqual(new Set([1]));
  });

  it("R9.6 a request lost before it arrived is sent again with the same id", async () => {
    const { stage, server, client } = await ready();
    server.next("write", () => "cut");
    const handle = client.write(add("a"));
    await stage.advance(5000);
    expect(sent(stage)).toEqual([[handle.txId], [handle.txId]]);
    expect(server.applied).toEqual([handle.txId]);
  });

  it("R11.1 one that fails unexpectedly on the server holds up nothing behind it", async () => {
    const { stage, server, client } = await ready();
    server.next("write", (call) => {
      const { transactions } = call.body as never as { transactions: Transaction[] };
      const { txId } = transactions[0] as Transaction;
      const results = [{ txId, status: "refused", versions: [], error: problem(500, "internal") }];
      return reply(200, { results, recordMap: {} });
    });
    const handle = client.write(add("a"));
    handle.confirmed.catch(() => {});
    await stage.advance(5000);
    await expect(handle.confirmed).rejects.toMatchObject({ code: "internal" });
    client.write(add("a"));
    await stage.advance(5000);
    expect(server.applied).toHaveLength(1);
    expect(client.rejected.getSnapshot()).toHaveLength(1);
  });

  it("R9.3 stops at the first that comes again, and keeps the order", async () => {
    const { stage, server, client } = await ready();
    let locked = true;
    server.next("write", (call) => {
      const answer = JSON.parse(call.commit().body);
      const { transactions } = call.body as never as { transactions: Transaction[] };
      expect(transactions).toHaveLength(3);
      // The second met a lock; the third was not tried.
      for (const result of answer.results.slice(1)) {
        server.receipts.delete(result.txId);
        Object.assign(result, { status: "retry", versions: [], error: problem(503, "retry") });
      }
      server.applied.length = 1;
      server.records
        .get("tasks")
        ?.set("a", { ...server.get("tasks", "a"), id: "a", version: 2, count: 1 });
      answer.recordMap.tasks.a = server.get("tasks", "a");
      locked = false;
      return reply(200, answer);
    });
    server.mute = true;
    const handles = [1, 2, 3].map(() => client.write(add("a")));
    await stage.until(() => !locked);
    await stage.advance(5000);
    expect(server.applied).toEqual(handles.map(({ txId }) => txId));
    expect(server.get("tasks", "a")?.count).toBe(3);
    expect(client.record<{ count: number }>("tasks", "a").getSnapshot()?.count).toBe(3);
  });
});

describe("R10 requests as a whole", () => {
  it("R10.1, R10.2 one row the server cannot read does not hold the others", async () => {
    const { stage, server, client } = await ready();
    const bad = (body: unknown) => JSON.stringify(body).includes("poison");
    const step = (call: { body: unknown; commit(): ReturnType<typeof reply> }) =>
      bad(call.body) ? refused(400, "bad_request") : call.commit();
    server.next("write", ...Array.from({ length: 10 }, () => step));
    const before = client.write(add("a"));
    const poison = client.write(set("a", "title", "poison"));
    const after = client.write(add("a"));
    await stage.advance(5000);
    expect(server.applied).toEqual([before.txId, after.txId]);
    expect(client.rejected.getSnapshot()).toMatchObject([
      { txId: poison.txId, problem: { status: 400, code: "bad_request" } },
    ]);
    expect(sent(stage).map((batch) => batch.length)).toEqual([3, 1, 1, 1]);
    client.write(add("a"));
    client.write(add("a"));
    await stage.advance();
    expect(sent(stage).at(-1)).toHaveLength(2);
  });

  it("R10.1 413 on the way, without a Problem, is final for a single one only", async () => {
    const { stage, server, client } = await ready();
    const proxy = (call: { body: unknown; commit(): ReturnType<typeof reply> }) =>
      JSON.stringify(call.body).length > 400 ? reply(413, "<html>") : call.commit();
    server.next("write", ...Array.from({ length: 10 }, () => proxy));
    const big = client.write(set("a", "title", "x".repeat(500)));
    const small = client.write(add("a"));
    await stage.advance(5000);
    expect(server.applied).toEqual([small.txId]);
    expect(client.rejected.getSnapshot()).toMatchObject([
      { txId: big.txId, problem: { code: "too_large" } },
    ]);
  });

  it("R10.3 401: asks for another token once, then waits for a sign-in", async () => {
    const stage = new Stage();
    let token = "t-ann";
    const renewed: boolean[] = [];
    const auth = {
      token: ({ renew }: { renew: boolean }) => {
        renewed.push(renew);
        return token;
      },
    };
    const { server, client } = await ready(stage, { auth });
    const first = client.write(add("a"));
    await stage.advance(200);
    renewed.length = 0;
    server.next(
      "write",
      () => refused(401, "expired"),
      () => refused(401, "expired"),
    );
    const second = client.write(add("a"));
    const third = client.write(add("a"));
    await stage.advance(60_000);
    expect(renewed).toEqual([false, true]);
    expect(server.applied).toEqual([first.txId]);
    expect(client.status.getSnapshot()).toMatchObject({
      state: "needs-auth",
      needsAuth: true,
      pending: 2,
    });
    token = "t-ann";
    client.resume();
    await stage.advance(1000);
    expect(server.applied).toEqual([first.txId, second.txId, third.txId]);
    expect(client.status.getSnapshot()).toMatchObject({ state: "online", pending: 0 });
  });

  it("R10.3 401: goes on with the renewed token", async () => {
    const { stage, server, client } = await ready();
    server.next("write", () => refused(401, "expired"));
    client.write(add("a"));
    await stage.advance(200);
    expect(server.applied).toHaveLength(1);
    expect(client.status.getSnapshot().needsAuth).toBe(false);
  });

  it("R10.3 426: keeps the queue and says that the app is too old", async () => {
    const { stage, server, client } = await ready();
    server.next("write", () => refused(426, "upgrade"));
    client.write(add("a"));
    await stage.advance(60_000);
    expect(sent(stage)).toHaveLength(1);
    expect(client.status.getSnapshot()).toMatchObject({
      upgrade: true,
      pending: 1,
      needsAuth: false,
    });
    client.resume();
    await stage.advance();
    expect(client.status.getSnapshot()).toMatchObject({ upgrade: false, pending: 0 });
  });

  it.each([
    ["no JSON", () => reply(200, "<html>sign in to the wifi")],
    ["something else", () => reply(200, { ok: true })],
    ["an empty list", () => reply(200, { results: [], recordMap: {} })],
    [
      "another's results",
      () =>
        reply(200, { results: [{ txId: "x", status: "applied", versions: [] }], recordMap: {} }),
    ],
    ["a page that is not there", () => reply(404, "<html>")],
    ["a gateway that is not there", () => reply(502, "<html>")],
  ])("R10.4 %s is no answer: the write is sent again", async (_name, answer) => {
    const { stage, server, client } = await ready();
    server.next("write", answer);
    const handle = client.write(add("a"));
    await stage.advance(5000);
    expect(server.applied).toEqual([handle.txId]);
    expect(client.rejected.getSnapshot()).toEqual([]);
    expect(client.status.getSnapshot()).toMatchObject({ pending: 0, lastError: null });
  });
});

describe("a long queue", () => {
  it("is stored in one go and read no further than what is sent", async () => {
    const memory = memoryStorage({ durable: true });
    const reads: number[] = [];
    const storage: Storage = {
      ...memory,
      async open(name) {
        const store = await memory.open(name);
        return {
          ...store,
          async all<T>(part: StoreName, most?: number) {
            const found = await store.all<T>(part, most);
            if (part === "queue" && most !== undefined) reads.push(found.length);
            return found;
          },
        };
      },
    };
    const { stage, server, client } = await ready(new Stage(), { storage });
    const sort = vi.spyOn(Array.prototype, "sort");
    const writes = Array.from({ length: 500 }, () => client.write(add("a")));
    await stage.advance(1);
    await Promise.all(writes.map(({ saved }) => saved));
    // Neither the queue nor the record's own is put in order once for each.
    const long = sort.mock.contexts.filter((list) => (list as unknown[]).length >= 400);
    expect(long.length).toBeLessThan(10);
    sort.mockRestore();
    await stage.until(() => client.status.getSnapshot().pending === 0);
    expect(server.get("tasks", "a")?.count).toBe(500);
    expect(server.applied).toEqual(writes.map(({ txId }) => txId));
    expect(Math.max(...reads)).toBe(50);
  });
});

describe("R11 refusals", () => {
  it("R11.1 403 in the middle: the rest goes on, the refused one tells why and survives a reload", async () => {
    const { stage, server, client, seen } = await ready();
    server.rule = (tx) =>
      JSON.stringify(tx).includes("forbidden title")
        ? problem(403, "forbidden_key", { key: "title" })
        : undefined;
    const one = client.write(add("a"));
    const two = client.write(set("a", "title", "forbidden title"));
    const three = client.write(add("a"));
    expect(client.record<{ title: string }>("tasks", "a").getSnapshot()?.title).toBe(
      "forbidden title",
    );
    const failed = two.confirmed.catch((error) => error);
    await stage.advance();
    expect(server.applied).toEqual([one.txId, three.txId]);
    expect(await failed).toBeInstanceOf(RefusedError);
    expect(client.record<{ title: string }>("tasks", "a").getSnapshot()?.title).toBe("A");
    expect(seen.now()).toEqual([2]);
    expect(client.status.getSnapshot()).toMatchObject({ pending: 0, rejected: 1 });
    stage.crash(client);
    const again = stage.open();
    await stage.advance();
    expect(again.rejected.getSnapshot()).toMatchObject([
      { txId: two.txId, problem: { code: "forbidden_key" } },
    ]);
  });

  it("R11.1 409: takes in the record that is in the way", async () => {
    const { stage, server, client } = await ready();
    server.mute = true;
    server.put("tasks", "a", { title: "theirs" });
    client.write(set("a", "title", "mine"), { expect: [{ table: "tasks", id: "a", version: 1 }] });
    await stage.advance();
    expect(client.record<{ title: string }>("tasks", "a").getSnapshot()).toMatchObject({
      title: "theirs",
      version: 2,
    });
    const [entry] = client.rejected.getSnapshot();
    expect(entry?.problem).toMatchObject({ code: "conflict", conflicts: [{ version: 2 }] });
    // Decided upon, and written again.
    const [handle] = await client.retry(entry?.id as string, { expect: null });
    await stage.advance();
    await expect(handle?.confirmed).resolves.toMatchObject({ versions: [{ version: 3 }] });
    expect(client.rejected.getSnapshot()).toEqual([]);
  });

  it("R11.2 what needs a refused create is not sent, and what does not is", async () => {
    const { stage, server, client } = await ready();
    server.rule = (tx) =>
      tx.operations.some((op) => op.type === "create" && op.id === "n1")
        ? problem(403, "forbidden")
        : undefined;
    let answered = false;
    server.next("write", (call) => {
      answered = true;
      return call.commit();
    });
    const made = client.write(create("n1", { title: "new" }));
    await stage.until(() => answered);
    const onIt = client.write(set("n1", "title", "newer"));
    const mention = client.write(set("a", "tags", [{ deep: ["n1"] }]));
    const other = client.write(add("a"));
    const makesIt = client.write([create("n2", { title: "uses n2" }), set("a", "title", "n2")]);
    await stage.advance();
    expect(server.applied).toEqual([other.txId, makesIt.txId]);
    expect(
      client.rejected
        .getSnapshot()
        .map(({ txId, problem: { code, blockedBy } }) => [txId, code, blockedBy]),
    ).toEqual([
      [made.txId, "forbidden", undefined],
      [onIt.txId, "blocked", made.txId],
      [mention.txId, "blocked", made.txId],
    ]);
    expect(client.record("tasks", "n1").getSnapshot()).toBeFalsy();
    // Mended: all three go again, in their order, with new ids.
    server.rule = () => undefined;
    const [first] = client.rejected.getSnapshot();
    const mended = [create("n1", { title: "mended", status: "done" })];
    const retried = await client.retry(first?.id as string, { operations: mended });
    await stage.advance();
    expect(retried).toHaveLength(3);
    expect(server.applied.slice(2)).toEqual(retried.map(({ txId }) => txId));
    expect(server.get("tasks", "n1")).toMatchObject({ title: "newer", status: "done" });
    expect(client.status.getSnapshot()).toMatchObject({ pending: 0, rejected: 0 });
  });

  it("R11.2 a text that is equal to the id is no id", async () => {
    const { stage, server, client } = await ready();
    server.rule = (tx) =>
      tx.operations.some((op) => op.type === "create" && op.table === "boards")
        ? problem(403, "forbidden")
        : undefined;
    let answered = false;
    server.next("write", (call) => {
      answered = true;
      return call.commit();
    });
    const made = client.write({ type: "create", table: "boards", id: "b9", value: {} });
    await stage.until(() => answered);
    const blocked = [
      client.write(set("a", "boardId", "b9")),
      client.write(create("n1", { boardId: "b9" })),
      client.write(set("a", "tags", { deep: ["b9"] })),
      client.write({ type: "listInsert", table: "tasks", id: "a", key: "tags.deep", value: "b9" }),
      client.call("archive", { board: "b9" }),
      client.write({ type: "set", table: "boards", id: "b9", key: "name", value: "B" }),
      // By what is blocked itself.
      client.write(set("n1", "title", "x")),
    ];
    const sent = [
      client.write(set("a", "title", "b9")),
      client.write(create("b9", { title: "a task" })),
      client.write(set("b9", "status", "done")),
    ];
    await stage.advance();
    expect(server.applied).toEqual(sent.map(({ txId }) => txId));
    expect(client.rejected.getSnapshot().map(({ txId }) => txId)).toEqual([
      made.txId,
      ...blocked.map(({ txId }) => txId),
    ]);
  });

  it("R11.2 a create refused because it exists blocks nothing", async () => {
    const { stage, server, client } = await ready();
    server.put("tasks", "n1", { title: "there" });
    server.rule = (tx) =>
      tx.operations[0]?.type === "create" ? problem(409, "exists") : undefined;
    client.write(create("n1", { title: "new" }));
    const onIt = client.write(set("n1", "title", "mine"));
    await stage.advance();
    expect(server.applied).toEqual([onIt.txId]);
  });

  it("R11.3 of two tabs that retry the same, one succeeds", async () => {
    const { stage, server, client } = await ready();
    const other = stage.open();
    server.rule = () => problem(403, "forbidden");
    client.write(add("a"));
    await stage.advance();
    server.rule = () => undefined;
    const [entry] = client.rejected.getSnapshot();
    expect(other.rejected.getSnapshot()).toHaveLength(1);
    const both = await Promise.allSettled([
      client.retry(entry?.id as string),
      other.retry(entry?.id as string),
    ]);
    await stage.advance();
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(server.get("tasks", "a")?.count).toBe(1);
    expect([client, other].map((one) => one.rejected.getSnapshot().length)).toEqual([0, 0]);
  });

  it("R11.4 asks again for the records of a refused write", async () => {
    const { stage, server, client } = await ready();
    server.mute = true;
    server.remove("tasks", "a");
    client.write(add("a"));
    await stage.advance();
    expect(client.record("tasks", "a").getSnapshot()).toBeNull();
  });

  it("discards what the user gives up", async () => {
    const { stage, server, client } = await ready();
    server.rule = () => problem(403, "forbidden");
    client.write(add("a"));
    await stage.advance();
    await client.discard(client.rejected.getSnapshot()[0]?.id as string);
    stage.crash(client);
    const again = stage.open();
    await stage.advance();
    expect(again.rejected.getSnapshot()).toEqual([]);
  });
});

describe("R12 ids", () => {
  it("R12.1 are made in the server's time", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    page.skew = 3 * 86_400_000;
    const { client } = await ready(stage, { page });
    const { txId } = client.write(add("a"));
    const made = Number.parseInt(txId.slice(0, 8) + txId.slice(9, 13), 16);
    expect(Math.abs(made - stage.world.now)).toBeLessThan(2000);
  });

  it("R12.2 what waited for weeks unsent gets a new one, in all tabs", async () => {
    const { stage, server, client } = await ready();
    const other = stage.open();
    await stage.advance();
    server.down = true;
    server.close();
    await stage.advance();
    stage.crash(client);
    stage.crash(other);
    const tabs = [stage.open(), stage.open()];
    await stage.advance(100);
    const handle = tabs[0]?.write(add("a"));
    const first = handle?.txId;
    // Nobody sends while nobody is online; here not even an attempt was made.
    await stage.advance(1);
    for (const tab of tabs) stage.crash(tab);
    stage.world.now += 31 * 86_400_000;
    server.down = false;
    const later = stage.open();
    await stage.advance(5000);
    expect(server.get("tasks", "a")?.count).toBe(1);
    expect(server.applied).not.toContain(first);
    expect(later.status.getSnapshot()).toMatchObject({ pending: 0, rejected: 0 });
  });

  it("R12.2 one that was attempted keeps its id, and 410 puts it into the inbox", async () => {
    const { stage, server, client } = await ready();
    server.next("write", (call) => {
      call.commit();
      return "cut";
    });
    server.mute = true;
    const { txId } = client.write(add("a"));
    await stage.until(() => server.applied.length === 1);
    stage.crash(client);
    stage.world.now += 31 * 86_400_000;
    server.receipts.clear();
    const later = stage.open();
    await stage.advance(5000);
    expect(server.applied).toEqual([txId]);
    expect(later.rejected.getSnapshot()).toMatchObject([{ txId, problem: { code: "too_old" } }]);
  });
});
