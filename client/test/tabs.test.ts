import { describe, expect, it } from "vitest";
import type { Transaction } from "../src/wire.gen.js";
import { add, create, rows, Stage, set, watch } from "./harness.js";
import { problem } from "./scripted-server.js";
import { Page, slowStorage } from "./world.js";

const senders = (stage: Stage) => stage.server.requests("write").length;

/** Two tabs of one browser that both show one task. */
async function two(stage = new Stage()) {
  stage.server.put("tasks", "a", { title: "A", boardId: "b1", count: 0, tags: [] });
  const pages = [new Page(stage.world), new Page(stage.world)] as const;
  const [one, other] = [stage.open({ page: pages[0] }), stage.open({ page: pages[1] })];
  const seen = [one, other].map((tab) => rows(tab.query("tasks", { boardId: "b1" }), "count"));
  await stage.advance();
  return {
    stage,
    server: stage.server,
    pages,
    one,
    other,
    seen,
    now: () => seen.map((log) => log.now()),
  };
}

describe("R13 two tabs", () => {
  it("R13.1 show each other's writes at once, offline, in one order", async () => {
    const { stage, server, one, other, now } = await two();
    server.down = true;
    server.close();
    one.write(set("a", "title", "first"));
    other.write(set("a", "title", "second"));
    one.write(add("a"));
    other.write(add("a"));
    await stage.advance(100);
    expect(now()).toEqual([[2], [2]]);
    for (const tab of [one, other]) {
      expect(tab.status.getSnapshot().pending).toBe(4);
      expect(tab.record("tasks", "a").getSnapshot()).toMatchObject({ title: "second" });
    }
    server.down = false;
    await stage.advance(20_000);
    expect(server.applied).toHaveLength(4);
    expect(server.get("tasks", "a")).toMatchObject({ title: "second", count: 2 });
    for (const tab of [one, other]) expect(tab.status.getSnapshot().pending).toBe(0);
  });

  it("R9.2 one of them sends, and each hears of its own", async () => {
    const { stage, server, one, other, now } = await two();
    const handles = [one.write(add("a")), other.write(add("a"))];
    await stage.advance(500);
    for (const handle of handles)
      await expect(handle.confirmed).resolves.toMatchObject({ txId: handle.txId });
    expect(server.calls.filter(({ path }) => path.endsWith("write")).length).toBe(senders(stage));
    expect(new Set(server.applied).size).toBe(2);
    expect(now()).toEqual([[2], [2]]);
  });

  it("R13.2 refusals are told, and the inbox is one", async () => {
    const { stage, server, one, other, now } = await two();
    server.rule = () => problem(403, "forbidden");
    const { confirmed, txId } = other.write(add("a"));
    confirmed.catch(() => {});
    await stage.advance(500);
    await expect(confirmed).rejects.toMatchObject({ problem: { code: "forbidden" } });
    expect(now()).toEqual([[0], [0]]);
    for (const tab of [one, other]) expect(tab.rejected.getSnapshot()).toMatchObject([{ txId }]);
    await one.discard(one.rejected.getSnapshot()[0]?.id as string);
    await stage.advance(100);
    expect(other.rejected.getSnapshot()).toEqual([]);
  });

  it("R9.2 the lock passes on when its tab ends", async () => {
    const { stage, server, one, other } = await two();
    server.down = true;
    server.close();
    one.write(add("a"));
    await stage.advance(100);
    await Promise.all([one.close(), stage.advance(1000)]);
    server.down = false;
    await stage.advance(20_000);
    expect(server.applied).toHaveLength(1);
    expect(other.status.getSnapshot().pending).toBe(0);
  });

  it("R9.2 a visible tab takes the lock from one that has fallen silent; nothing is sent twice", async () => {
    const { stage, server, pages, one, other, now } = await two();
    // The first tab holds the lock and is frozen in the middle of a request.
    let release = () => {};
    server.next("write", async (call) => {
      const answer = call.commit();
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return answer;
    });
    one.write(add("a"));
    await stage.advance(50);
    pages[0].freeze();
    pages[0].isVisible = false;
    const second = other.write(add("a"));
    await stage.advance(8000);
    expect(server.applied).toHaveLength(1);
    await stage.advance(8000);
    await expect(second.confirmed).resolves.toBeDefined();
    expect(server.applied).toHaveLength(2);
    expect(server.get("tasks", "a")?.count).toBe(2);
    // It wakes up, hears the late answer, and everything is as it was.
    pages[0].thaw();
    release();
    await stage.advance(15_000);
    expect(now()).toEqual([[2], [2]]);
    expect(one.status.getSnapshot().pending).toBe(0);
    expect(server.applied).toHaveLength(2);
  });

  it("R9.2 a hidden tab does not steal", async () => {
    const { stage, server, pages, other } = await two();
    pages[0].freeze();
    pages[1].isVisible = false;
    other.write(add("a"));
    await stage.advance(60_000);
    // The frozen tab's timers stand still, but it hears the message and sends.
    expect(server.applied.length).toBeLessThanOrEqual(1);
    expect(stage.browser.steals).toBe(0);
  });

  it("R13.2 messages that were lost are made up for when the page is seen again", async () => {
    const { stage, server, pages, one, other, seen } = await two();
    server.mute = true;
    stage.browser.deaf = true;
    one.write(add("a"));
    await stage.advance(500);
    expect(seen[1]?.now()).toEqual([0]);
    server.mute = false;
    const lost = other.write(add("a"));
    await stage.advance(500);
    // Sent by the other tab, which read it from storage.
    stage.browser.deaf = false;
    pages[0].wake();
    pages[1].wake();
    await stage.advance(500);
    await expect(lost.confirmed).resolves.toMatchObject({ txId: lost.txId });
    expect(server.get("tasks", "a")?.count).toBe(2);
    expect(seen.map((log) => log.now())).toEqual([[2], [2]]);
    expect(other.status.getSnapshot().pending).toBe(0);
  });

  it("R13.2 what is told while a tab opens is not missed", async () => {
    const { stage, server, one } = await two();
    const slow = slowStorage(stage.world, stage.storage, () => 100);
    server.delay = () => 300;
    const late = stage.open({ storage: slow });
    // The queue is read at 100 ms; the write is stored, told and answered while the rest is still being read.
    const handle = one.write(add("a"));
    await stage.advance(150);
    const other = one.write(add("a"));
    await stage.advance(5000);
    await Promise.all([handle.confirmed, other.confirmed]);
    expect(late.status.getSnapshot().pending).toBe(0);
    expect(late.record("tasks", "a").getSnapshot()).toMatchObject({ count: 2 });
  });

  it("R13.3 a message that comes after the answer brings nothing back", async () => {
    const { stage, one, seen } = await two();
    one.write(add("a"));
    await stage.advance(500);
    const queued = stage.browser.messages.find(
      (message) => (message as { type: string }).type === "queued",
    );
    stage.browser.say("rowcast:http://test:=ann", queued);
    await stage.advance(500);
    expect(seen.map((log) => log.now())).toEqual([[1], [1]]);
    expect(one.status.getSnapshot().pending).toBe(0);
  });

  it("R4.7 the answer to another tab does not replace what was read here meanwhile", async () => {
    const stage = new Stage();
    const { server, one, other } = await two(stage);
    other.query("tasks", { boardId: "b1" });
    server.mute = true;
    const handle = one.write(set("a", "title", "from the first tab"));
    // The answer is told late; until then the second tab reads something newer.
    stage.browser.lag = 500;
    await stage.advance(50);
    server.put("tasks", "a", { title: "newer" });
    await Promise.all([other.query("tasks", { boardId: "b1" }).refetch(), stage.advance(100)]);
    expect(other.record("tasks", "a").getSnapshot()).toMatchObject({ title: "newer" });
    await stage.advance(1000);
    await handle.confirmed;
    expect(other.record("tasks", "a").getSnapshot()).toMatchObject({ title: "newer", version: 3 });
  });

  it("R12.2 a new id is told to the tab that wrote", async () => {
    const stage = new Stage();
    stage.server.down = true;
    const [one, other] = [stage.open(), stage.open()];
    await stage.advance(100);
    const handle = other.write(create("x", { title: "X" }));
    const before = handle.txId;
    await stage.advance(100);
    stage.world.now += 20 * 86_400_000;
    stage.server.down = false;
    await stage.advance(40_000);
    expect(handle.txId).not.toBe(before);
    await expect(handle.confirmed).resolves.toMatchObject({ txId: handle.txId });
    expect(stage.server.applied).toEqual([handle.txId]);
    expect(one.status.getSnapshot().pending).toBe(0);
  });

  it("R1.1 a write of another tab shows in its place in the queue", async () => {
    const stage = new Stage();
    const { server, one, other } = await two(stage);
    server.down = true;
    server.close();
    const log = watch(other.record<{ title: string }>("tasks", "a"));
    one.write(set("a", "title", "first"));
    await stage.advance(0);
    other.write(set("a", "title", "second"));
    await stage.advance(100);
    expect(log.shown.map((row) => row?.title)).toEqual(["A", "second"]);
    const bodies = server.requests("write") as never as { transactions: Transaction[] }[];
    expect(bodies).toEqual([]);
  });
});
