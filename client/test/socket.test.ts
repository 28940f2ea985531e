import { describe, expect, it } from "vitest";
import { add, rows, Stage, watch } from "./harness.js";
import { Page } from "./world.js";

const hellos = (stage: Stage) =>
  stage.server.frames.flatMap(({ frame }) => (frame.type === "hello" ? [frame] : []));
const pings = (stage: Stage) =>
  stage.server.frames.filter(({ frame }) => frame.type === "ping").length;

async function ready(options: Parameters<Stage["open"]>[0] = {}) {
  const stage = new Stage();
  const client = stage.open(options);
  await stage.advance(100);
  expect(client.status.getSnapshot()).toMatchObject({ state: "online", online: true });
  return { stage, server: stage.server, client };
}

describe("R16 the connection", () => {
  it("says hello with token, protocol and schema", async () => {
    const { stage } = await ready();
    expect(hellos(stage)).toEqual([{ type: "hello", protocol: 1, schema: 3, token: "t-ann" }]);
  });

  it("R16.1 asks after a heartbeat of silence, and not while frames come", async () => {
    const { stage, server, client } = await ready();
    rows(client.query("tasks", {}));
    await stage.advance(25_000);
    expect(pings(stage)).toBe(1);
    for (let n = 0; n < 6; n++) {
      server.put("tasks", "a", { title: `${n}` });
      await stage.advance(10_000);
    }
    expect(pings(stage)).toBe(1);
  });

  it("R16.1 a line that went dead without a word is noticed, and what was missed comes", async () => {
    const { stage, server, client } = await ready();
    const seen = rows(client.query("tasks", {}));
    await stage.advance(100);
    for (const peer of server.peers) peer.open = false;
    server.peers.clear();
    server.put("tasks", "a", { title: "missed" });
    await stage.advance(29_000);
    expect(seen.now()).toEqual([]);
    await stage.advance(3000);
    expect(seen.now()).toEqual(["missed"]);
    expect(hellos(stage)).toHaveLength(2);
  });

  it("R16.1 is asked at once when the page is seen again", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    stage.open({ page });
    await stage.advance(15_000);
    const before = pings(stage);
    page.wake();
    await stage.advance(100);
    expect(pings(stage)).toBe(before + 1);
  });

  it("R16.2 reconnects after random times that double up to 30 s, and at once when woken", async () => {
    const stage = new Stage();
    const page = new Page(stage.world);
    const tries: number[] = [];
    const transport = stage.server.transport();
    const client = stage.open({
      page,
      transport: {
        ...transport,
        connect: (path, events) => {
          tries.push(stage.world.now);
          return transport.connect(path, events);
        },
      },
    });
    await stage.advance(100);
    stage.server.down = true;
    stage.server.close();
    await stage.advance(600_000);
    const waits = tries.slice(1).map((at, n) => at - (tries[n] as number));
    expect(tries.length).toBeGreaterThan(20);
    waits.slice(1).forEach((wait, n) => {
      expect(wait).toBeLessThan(Math.min(30_000, 500 * 2 ** n) + 20);
    });
    expect(client.status.getSnapshot()).toMatchObject({ state: "offline", online: false });
    stage.server.down = false;
    page.wake();
    await stage.advance(50);
    expect(client.status.getSnapshot().online).toBe(true);
  });

  it.each([
    [1001, "stopping; retry-after=7.5"],
    [4429, "too many sockets; retry-after=7.5"],
  ])("R16.2 after %i waits as long as the reason says, whoever wakes it", async (code, reason) => {
    const stage = new Stage();
    const page = new Page(stage.world);
    stage.open({ page });
    await stage.advance(100);
    stage.server.close(code, reason);
    await stage.advance(100);
    page.wake();
    await stage.advance(7000);
    expect(hellos(stage)).toHaveLength(1);
    await stage.advance(1000);
    expect(hellos(stage)).toHaveLength(2);
  });

  it("R16.3 4401: renews the token once, then needs a sign-in, which resume goes on from", async () => {
    const stage = new Stage();
    const asked: boolean[] = [];
    let token = "t-ann";
    const auth = {
      token: ({ renew }: { renew: boolean }) => {
        asked.push(renew);
        return token;
      },
    };
    const page = new Page(stage.world);
    const client = stage.open({ auth, page });
    await stage.advance(100);
    stage.server.close(4401, "the token has expired");
    await stage.advance(100);
    expect(client.status.getSnapshot()).toMatchObject({ state: "online" });
    expect(asked.at(-1)).toBe(true);
    stage.server.userOf = (given) => (given === "t-ann" ? undefined : given.slice(2));
    stage.server.close(4401, "the session has ended");
    await stage.advance(60_000);
    expect(client.status.getSnapshot()).toMatchObject({
      state: "needs-auth",
      lastError: { code: "needs_auth" },
    });
    const before = hellos(stage).length;
    await stage.advance(60_000);
    expect(hellos(stage)).toHaveLength(before);
    client.write(add("a"));
    // Somebody looks at the page again: it is tried, and says nothing else in between.
    const log = watch(client.status);
    page.wake();
    await stage.advance(1000);
    expect(hellos(stage).length).toBeGreaterThan(before);
    expect(log.shown.every(({ state }) => state === "needs-auth")).toBe(true);
    token = "t-ann2";
    stage.server.userOf = () => "ann";
    client.resume();
    await stage.advance(100);
    expect(client.status.getSnapshot()).toMatchObject({
      state: "online",
      needsAuth: false,
      lastError: null,
    });
  });

  it("R16.3 4426: the app is too old; nothing is tried until resume", async () => {
    const { stage, server, client } = await ready();
    server.close(4426, "too old");
    await stage.advance(120_000);
    expect(client.status.getSnapshot()).toMatchObject({ state: "offline", upgrade: true });
    expect(hellos(stage)).toHaveLength(1);
  });

  it("R16.3 renews a token before it ends, on the same connection", async () => {
    const stage = new Stage();
    const { server } = stage;
    let tokens = 0;
    stage.open({ auth: { token: () => `t-ann${tokens++ ? tokens : ""}` } });
    server.userOf = () => "ann";
    server.expires = 600;
    await stage.advance(530_000);
    expect(server.frames.filter(({ frame }) => frame.type === "auth")).toEqual([]);
    await stage.advance(20_000);
    expect(server.frames.filter(({ frame }) => frame.type === "auth")).toMatchObject([
      { frame: { token: "t-ann3" } },
    ]);
    expect(hellos(stage)).toHaveLength(1);
    await stage.advance(600_000);
    expect(server.frames.filter(({ frame }) => frame.type === "auth")).toHaveLength(2);
  });

  it("tries again where no token could be had", async () => {
    const stage = new Stage();
    let failures = 3;
    const auth = {
      token: () => {
        if (failures-- > 0) throw new Error("the sign-in server is down");
        return "t-ann";
      },
    };
    const client = stage.open({ auth, userId: "ann" });
    await stage.until(() => client.status.getSnapshot().online);
    expect(client.status.getSnapshot().needsAuth).toBe(false);
  });

  it("connects again after 15 s without a welcome", async () => {
    const stage = new Stage();
    stage.server.expires = -1;
    stage.open();
    await stage.advance(20_000);
    expect(hellos(stage).length).toBeGreaterThan(1);
  });

  it("survives frames that are none", async () => {
    const { stage, server, client } = await ready();
    for (const peer of server.peers) {
      for (const text of [
        "",
        "null",
        "7",
        "[]",
        '{"type":7}',
        '{"type":"news from a later version"}',
      ])
        peer.events.message(text);
    }
    const seen = rows(client.query("tasks", {}));
    server.put("tasks", "a", { title: "still here" });
    await stage.advance(100);
    expect(seen.now()).toEqual(["still here"]);
  });
});

describe("R20 presence", () => {
  const peer = (name: string, state: object | null) => ({
    peer: name,
    userId: "bob",
    state: state as never,
  });

  it("R20.1 is said after each join and once a heartbeat, and left", async () => {
    const { stage, server, client } = await ready();
    const said = () =>
      server.frames.flatMap(({ frame }) => (frame.type === "presence" ? [frame.state] : []));
    client.setPresence("tasks:a", { x: 1 });
    await stage.advance(1000);
    expect(said().at(-1)).toEqual({ x: 1 });
    const first = said().length;
    await stage.advance(20_000);
    expect(said()).toHaveLength(first + 1);
    server.close();
    await stage.advance(5000);
    expect(said().length).toBeGreaterThan(first + 1);
    client.setPresence("tasks:a", null);
    const last = said().length;
    await stage.advance(60_000);
    expect(said().slice(last)).toEqual([null]);
  });

  it("R20.1 shows who has come, changed and left; nobody without a connection", async () => {
    const { stage, server, client } = await ready();
    const peers = client.presence("tasks:a");
    const end = peers.subscribe(() => {});
    await stage.advance(100);
    server.tell({
      type: "presence",
      key: "tasks:a",
      peers: [peer("p", { x: 1 }), peer("q", {})],
      full: true,
    });
    server.tell({
      type: "presence",
      key: "tasks:a",
      peers: [peer("p", { x: 2 }), peer("q", null)],
    });
    await stage.advance(100);
    expect(peers.getSnapshot()).toEqual([peer("p", { x: 2 })]);
    server.tell({ type: "presence", key: "tasks:a", peers: [peer("r", {})], full: true });
    await stage.advance(100);
    expect(peers.getSnapshot()).toEqual([peer("r", {})]);
    server.down = true;
    server.close();
    await stage.advance(100);
    expect(peers.getSnapshot()).toEqual([]);
    end();
  });

  it("hears events of others, and sends its own while connected", async () => {
    const { stage, server, client } = await ready();
    const heard: unknown[] = [];
    const end = client.onBroadcast("tasks:a", (event) => heard.push(event));
    await stage.advance(100);
    server.tell({ type: "broadcast", key: "tasks:a", event: "ping", payload: 1, from: "bob" });
    server.tell({ type: "broadcast", key: "tasks:b", event: "ping", payload: 2, from: "bob" });
    await stage.advance(100);
    end();
    server.tell({ type: "broadcast", key: "tasks:a", event: "ping", payload: 3, from: "bob" });
    await stage.advance(100);
    expect(heard).toEqual([{ key: "tasks:a", event: "ping", payload: 1, from: "bob" }]);
    expect(client.broadcast("tasks:a", "e", { y: 1 })).toBe(true);
    server.down = true;
    server.close();
    await stage.advance(100);
    expect(client.broadcast("tasks:a", "e")).toBe(false);
  });
});
