import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Client } from "../src/client.js";
import { add, create, Stage, set } from "./harness.js";
import { Browser, Page } from "./world.js";

const SEED = Number(process.env.ROWCAST_SEED ?? Math.floor(Math.random() * 2 ** 31));

describe("R17 no flicker", () => {
  it(`R17.1 a counter that only rises never shows less, whatever is lost, late or told twice (seed ${SEED})`, async () => {
    const step = fc.record({
      kind: fc.constantFrom(
        "add",
        "add",
        "add",
        "wait",
        "cut",
        "lost",
        "busy",
        "slow",
        "drop",
        "bare",
        "patch",
        "record",
        "use",
      ),
      tab: fc.nat(2),
      a: fc.nat(100),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(step, { minLength: 3, maxLength: 40 }),
        async (seed, steps) => {
          const stage = new Stage(seed);
          const { server, world } = stage;
          server.delay = () => 1 + Math.floor(world.random() * (world.random() < 0.2 ? 800 : 40));
          server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
          const shared = new Browser(world, () => 1 + Math.floor(world.random() * 60));
          const tabs = [stage.open({ tabs: shared.tabs }), stage.open({ tabs: shared.tabs })];
          // A third, of somebody else.
          tabs.push(
            stage.open({
              user: "bob",
              userId: "bob",
              tabs: new Browser(world).tabs,
              page: new Page(world),
            }),
          );
          const shown: number[][] = [[], [], []];
          tabs.forEach((tab, at) => {
            const record = tab.record<{ count: number }>("tasks", "a");
            record.subscribe(() => {
              const count = record.getSnapshot()?.count;
              if (count !== undefined) shown[at]?.push(count);
            });
          });
          await stage.advance(3000);
          let written = 0;
          for (const { kind, tab, a } of steps) {
            const client = tabs[tab] as Client;
            const look = () =>
              shown[tab]?.push(
                client.record<{ count: number }>("tasks", "a").getSnapshot()?.count ?? 0,
              );
            if (kind === "add") {
              client.write(add("a"));
              look();
              written++;
            } else if (kind === "wait") await stage.advance(a * 3);
            else if (kind === "cut") {
              server.next("write", (call) => {
                call.commit();
                return "cut";
              });
            } else if (kind === "lost") server.next("write", () => "cut");
            else if (kind === "busy")
              server.next("write", () => ({ status: 503, header: () => null, body: "" }));
            else if (kind === "slow") {
              server.next(a % 2 ? "write" : "getRecords", async (call) => {
                const answer = call.commit();
                await new Promise<void>((resolve) => world.later(resolve, a * 20));
                return answer;
              });
            } else if (kind === "drop") server.close();
            else if (kind === "use") client.query("tasks", { boardId: "b1" }).subscribe(() => {});
            else server.shape = kind as "bare";
          }
          await stage.until(
            () => tabs.every((tab) => tab.status.getSnapshot().pending === 0),
            300_000,
          );
          await stage.advance(20_000);
          for (const [at, log] of shown.entries()) {
            expect(log, `tab ${at}`).toEqual([...log].sort((x, y) => x - y));
            expect(log.at(-1) ?? 0).toBe(written);
          }
          for (const tab of tabs) stage.crash(tab);
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  }, 120_000);

  it("R17.1 an edit is shown once and stays, by every order of echo and answer", async () => {
    for (const late of ["echo", "answer"] as const) {
      for (const shape of ["patch", "record", "bare"] as const) {
        const stage = new Stage();
        const { server } = stage;
        server.put("tasks", "a", { title: "old", boardId: "b1" });
        server.shape = shape;
        const client = stage.open();
        const query = client.query("tasks", { boardId: "b1" });
        const log: unknown[] = [];
        query.subscribe(() =>
          log.push(
            query
              .getSnapshot()
              .data.map(({ title }) => title)
              .join(),
          ),
        );
        await stage.advance();
        log.length = 0;
        server.next("write", async (call) => {
          if (late === "echo") server.mute = true;
          const answer = call.commit();
          server.mute = false;
          if (late === "answer")
            await new Promise<void>((resolve) => stage.world.later(resolve, 500));
          else
            stage.world.later(
              () =>
                server.tell({
                  type: "updates",
                  cursor: server.cursor,
                  updates: [
                    { key: "tasks:a", version: 2, record: server.get("tasks", "a") as never },
                  ],
                }),
              300,
            );
          return answer;
        });
        client.write([set("a", "title", "new"), create("b", { title: "made", boardId: "b1" })]);
        await stage.advance(2000);
        expect(new Set(log), `${late} ${shape}`).toEqual(new Set(["new,made"]));
        expect(client.status.getSnapshot().pending).toBe(0);
      }
    }
  });

  it("R17.1 what is made new stays, though a read on the way did not find it", async () => {
    for (const late of [50, 150, 250]) {
      const stage = new Stage();
      const { server, world } = stage;
      const client = stage.open();
      client.query("tasks", { boardId: "b1" }).subscribe(() => {});
      await stage.advance();
      const wait = (ms: number) => new Promise<void>((resolve) => world.later(resolve, ms));
      server.next("getRecords", async (call) => {
        const answer = call.commit();
        await wait(late);
        return answer;
      });
      server.next("write", async (call) => {
        await wait(100);
        server.mute = true;
        const answer = call.commit();
        server.mute = false;
        await wait(100);
        return answer;
      });
      client.write(create("b", { title: "made", boardId: "b1" }));
      const record = client.record("tasks", "b");
      const log: unknown[] = [];
      record.subscribe(() => log.push(record.getSnapshot()?.title));
      await stage.advance(5000);
      expect(new Set(log), `answered after ${late}`).toEqual(new Set(log.length ? ["made"] : []));
      expect(record.getSnapshot()).toMatchObject({ title: "made", version: 1 });
      expect(client.status.getSnapshot().pending).toBe(0);
    }
  });

  it("R2.7 another tab's write is not shown twice, though a read knew of it before that tab told", async () => {
    const stage = new Stage();
    const { server, world } = stage;
    server.put("tasks", "a", { title: "A", boardId: "b1", count: 0 });
    const shared = new Browser(world, () => 300);
    const [one, other] = [stage.open({ tabs: shared.tabs }), stage.open({ tabs: shared.tabs })];
    const record = other.record<{ count: number }>("tasks", "a");
    record.subscribe(() => log.push(record.getSnapshot()?.count));
    const log: unknown[] = [];
    await stage.advance(3000);
    log.length = 0;
    server.mute = true;
    one.write(add("a"));
    await stage.advance(100);
    expect(server.get("tasks", "a")).toMatchObject({ count: 1 });
    other.query("tasks", { boardId: "b1" }).subscribe(() => {});
    await stage.advance(20_000);
    expect(log).toEqual([1]);
    expect(other.status.getSnapshot().pending).toBe(0);
  });
});
