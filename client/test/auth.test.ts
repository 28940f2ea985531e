import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AuthError } from "../src/auth/index.js";
import { AccountsServer, Browser, problem } from "./accounts-server.js";

let server: AccountsServer;
let browser: Browser;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.parse("2026-03-01T12:00:00Z") });
  server = new AccountsServer();
  browser = new Browser(server);
  server.account("ann@example.com");
});
afterEach(() => {
  vi.useRealTimers();
});

const later = (seconds: number) => vi.setSystemTime(Date.now() + seconds * 1000);
const signIn = async (tab = browser.tab()) => {
  await tab.signIn("ann@example.com", "correct horse");
  return tab;
};

describe("a token", () => {
  it("is had from the sign-in, kept in memory alone, and renewed before it ends", async () => {
    const tab = await signIn();
    const first = await tab.token();
    expect(await tab.token()).toBe(first);
    expect([...browser.kept.values()].join()).not.toContain(first);
    later(545);
    const second = await tab.token();
    expect(second).not.toBe(first);
    expect(await tab.token({ renew: true })).not.toBe(second);
    expect(server.asked.filter((route) => route === "refresh")).toHaveLength(2);
  });

  it("is asked for once by all who need it at the same time", async () => {
    const tab = await signIn();
    const tokens = await Promise.all([1, 2, 3].map(() => tab.token({ renew: true })));
    expect(new Set(tokens).size).toBe(1);
    expect(server.asked).toEqual(["sign-in", "refresh"]);
  });

  it("ends by the server's clock, whatever this one says", async () => {
    const tab = browser.tab();
    const answer = server.answer.bind(server);
    vi.spyOn(server, "answer").mockImplementation(async (...asked) => {
      const reply = await answer(...asked);
      // The server is an hour behind.
      const date = new Date(Date.now() - 3_600_000);
      const body = await reply.json();
      body.expiresAt = new Date(date.getTime() + 600_000).toISOString();
      return new Response(JSON.stringify(body), { headers: { date: date.toUTCString() } });
    });
    await signIn(tab);
    const token = await tab.token();
    later(500);
    expect(await tab.token()).toBe(token);
    later(60);
    expect(await tab.token()).not.toBe(token);
  });

  it("that is still good is given where no other can be had", async () => {
    const tab = await signIn();
    const token = await tab.token();
    server.down = "before";
    later(560);
    expect(await tab.token()).toBe(token);
    await expect(tab.token({ renew: true })).rejects.toMatchObject({ code: "network", status: 0 });
    later(60);
    await expect(tab.token()).rejects.toThrow(AuthError);
    expect(tab.getSnapshot()).toMatchObject({ user: { email: "ann@example.com" }, ended: null });
  });
});

describe("tabs", () => {
  it("that renew at once stay signed in, even where one is slow", async () => {
    const tabs = [await signIn(), browser.tab(), browser.tab()];
    later(3600);
    // So slow that the others would have replaced its cookie twice.
    server.slow.push(async () => {
      for (let turn = 0; turn < 100; turn++) await Promise.resolve();
    });
    const renewals = tabs.map(async (tab) => {
      await tab.token();
      return tab.token({ renew: true });
    });
    expect((await Promise.all(renewals)).every(Boolean)).toBe(true);
    expect(server.sessionCount).toBe(1);
  });

  it("without locks stay signed in by the server's grace", async () => {
    const tabs = [await signIn(browser.tab({ locks: false })), browser.tab({ locks: false })];
    later(3600);
    const tokens = await Promise.all(tabs.map((tab) => tab.token()));
    expect(tokens.every(Boolean)).toBe(true);
    later(3600);
    expect(await tabs[1]?.token()).toBeTruthy();
  });

  it("hear of a sign-in, another user, and a sign-out", async () => {
    const other = browser.tab();
    const heard = vi.fn();
    other.subscribe(heard);
    const tab = await signIn();
    expect(other.getSnapshot().user?.email).toBe("ann@example.com");
    expect(await other.token()).toBeTruthy();
    server.account("ben@example.com");
    await tab.signIn("ben@example.com", "correct horse");
    expect(other.getSnapshot().user?.email).toBe("ben@example.com");
    const [, part = ""] = (await other.token())?.split(".") ?? [];
    expect(JSON.parse(atob(part)).sub).toBe(other.getSnapshot().user?.id);
    await tab.signOut();
    expect(other.getSnapshot().user).toBe(null);
    expect(await other.token()).toBe(null);
    expect(heard).toHaveBeenCalledTimes(3);
  });

  it("do not sign in again by what was under way when another signed out", async () => {
    const tab = await signIn();
    const other = browser.tab();
    let go = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    server.next.refresh = [
      async () => {
        await gate;
        return server.answer(browser, "/api/auth/refresh", {});
      },
    ];
    const token = other.token();
    await Promise.resolve();
    const out = tab.signOut();
    go();
    expect(await token).toBe(null);
    expect(await out).toBe(true);
    expect(other.getSnapshot().user).toBe(null);
    expect(server.sessionCount).toBe(0);
    expect(browser.cookie).toBeUndefined();
  });
});

describe("a session", () => {
  it("outlives a start without a network", async () => {
    await signIn();
    later(7200);
    server.down = "before";
    const tab = browser.tab();
    expect(tab.getSnapshot().user?.email).toBe("ann@example.com");
    await expect(tab.token()).rejects.toMatchObject({ code: "network" });
    expect(tab.getSnapshot().ended).toBe(null);
    server.down = false;
    expect(await tab.token()).toBeTruthy();
  });

  it("outlives a reply that was lost", async () => {
    const tab = await signIn();
    later(3600);
    server.down = "after";
    await expect(tab.token()).rejects.toThrow();
    server.down = false;
    later(30);
    expect(await tab.token()).toBeTruthy();
  });

  it.each(["503", "429"])("outlives %s", async (status) => {
    const tab = await signIn();
    server.next.refresh = [
      () => problem(Number(status), "rate_limited", {}, { "retry-after": "7" }),
    ];
    await expect(tab.token({ renew: true })).rejects.toMatchObject({ retryAfter: 7 });
    expect(await tab.token({ renew: true })).toBeTruthy();
  });

  it("that ended elsewhere waits for its user, in all tabs", async () => {
    const tab = await signIn();
    const other = browser.tab();
    server.endSessions();
    expect(await tab.token({ renew: true })).toBe(null);
    for (const each of [tab, other]) {
      expect(each.getSnapshot()).toMatchObject({
        user: { email: "ann@example.com" },
        ended: "session_ended",
      });
    }
    const asked = server.asked.length;
    expect(await other.token()).toBe(null);
    expect(server.asked).toHaveLength(asked);
    await other.signIn("ann@example.com", "correct horse");
    expect(tab.getSnapshot().ended).toBe(null);
    expect(await tab.token()).toBeTruthy();
  });

  it("of a disabled user has ended", async () => {
    const tab = await signIn();
    Object.assign(server.accounts[0] ?? {}, { disabled: true });
    expect(await tab.token({ renew: true })).toBe(null);
    expect(tab.getSnapshot().ended).toBe("disabled");
  });

  it("is taken up from the cookie; without one nobody is there, and it is not asked again", async () => {
    const tab = browser.tab();
    expect(tab.getSnapshot().user).toBe(undefined);
    expect(await tab.restore()).toBe(null);
    expect(browser.tab().getSnapshot().user).toBe(null);
    const [account] = server.accounts;
    if (account) server.enterByProvider(browser, account);
    expect(await tab.restore()).toMatchObject({ email: "ann@example.com" });
    expect(await tab.token()).toBeTruthy();
  });
});

describe("signing out", () => {
  it("without a network is done as soon as there is one", async () => {
    const tab = await signIn();
    server.down = "before";
    expect(await tab.signOut({ everywhere: true })).toBe(false);
    expect(tab.getSnapshot().user).toBe(null);
    expect(server.sessionCount).toBe(1);
    server.down = false;
    browser.online();
    await vi.waitFor(() => expect(browser.cookie).toBeUndefined());
    expect(server.sessionCount).toBe(0);
    expect(server.asked.filter((route) => route === "sign-out-everywhere").length).toBe(2);
  });

  it("that the server has not heard of is done before anybody signs in", async () => {
    const tab = await signIn();
    server.down = "before";
    await tab.signOut();
    server.down = false;
    const next = browser.tab();
    expect(await next.restore()).toBe(null);
    await signIn(next);
    expect(server.sessionCount).toBe(1);
    expect(server.asked.indexOf("sign-out")).toBeGreaterThan(0);
  });
});

describe("ways in", () => {
  it("are told, and that there are none", async () => {
    expect(await browser.tab().ways()).toMatchObject({ guests: true, passwordMinLength: 10 });
    server.enabled = false;
    expect(await browser.tab().ways()).toBe(null);
  });

  it("by a link of a mail, in another browser with the password", async () => {
    await browser.tab().signUp("new@example.com", "long enough");
    const { token = "" } = server.mails[0] ?? {};
    const elsewhere = new Browser(server).tab();
    await expect(elsewhere.verify(token)).rejects.toMatchObject({
      status: 403,
      code: "password_needed",
    });
    expect(await elsewhere.verify(token, "long enough")).toMatchObject({
      email: "new@example.com",
    });
    await expect(browser.tab().verify(token)).rejects.toMatchObject({ code: "link_spent" });
  });

  it("keep a guest who he is", async () => {
    const tab = browser.tab();
    const { id } = await tab.guest();
    await tab.signUp("guest@example.com", "long enough");
    expect(await tab.verify(server.mails[0]?.token ?? "")).toMatchObject({ id, guest: false });
  });

  it("by a provider are a page elsewhere", async () => {
    const went = vi.fn();
    const startUrl = "/api/auth/oidc/p/start";
    await browser.tab().signInBy({ id: "p", name: "P", startUrl }, "/account/in?a=b", went);
    expect(went).toHaveBeenCalledWith(`${startUrl}?next=%2Faccount%2Fin%3Fa%3Db`);
  });

  it("say why not", async () => {
    const tab = browser.tab();
    await expect(tab.signIn("ann@example.com", "wrong")).rejects.toMatchObject({
      code: "wrong_credentials",
      status: 401,
    });
    expect(tab.getSnapshot().user).toBe(undefined);
    server.next["sign-in"] = [() => new Response("<html>", { status: 502 })];
    await expect(tab.signIn("a@b", "c")).rejects.toMatchObject({ code: "http", status: 502 });
    server.next["sign-in"] = [() => new Response("<html>")];
    await expect(tab.signIn("a@b", "c")).rejects.toMatchObject({ code: "network" });
  });
});
