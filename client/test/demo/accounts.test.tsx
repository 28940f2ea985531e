// @vitest-environment jsdom
import { act, cleanup, fireEvent, render, screen } from "@testing-library/react";
import { StrictMode } from "react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AccountsServer, Browser, problem } from "../accounts-server.js";

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

let server: AccountsServer;
let browser: Browser;

beforeEach(() => {
  server = new AccountsServer();
  browser = new Browser(server);
  vi.stubGlobal("fetch", browser.fetch);
  vi.resetModules();
  localStorage.clear();
  sessionStorage.clear();
});
afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** The pages, as in a window that was just opened at an address. */
async function open(path: string) {
  history.replaceState(null, "", path);
  const { AccountPages } = await import("../../demo/src/account/pages.js");
  const { useRoute } = await import("../../demo/src/router.js");
  const { useSession } = await import("../../demo/src/session.js");
  function Page() {
    const route = useRoute();
    const session = useSession();
    if (route.app !== "account") return <p>inside as {session?.userId ?? "nobody"}</p>;
    return <AccountPages page={route.page} />;
  }
  await act(async () => {
    render(
      <StrictMode>
        <Page />
      </StrictMode>,
    );
  });
}
const field = (label: string) => screen.getByLabelText<HTMLInputElement>(label);
const type = (label: string, value: string) =>
  act(async () => fireEvent.change(field(label), { target: { value } }));
const press = (name: string | RegExp) =>
  act(async () => fireEvent.click(screen.getByRole("button", { name })));
const alert = () => screen.queryByRole("alert")?.textContent;
/** What a person sees after whatever is under way. */
const seen = (text: RegExp | string) => screen.findByText(text);

async function enter(email: string, password: string) {
  await type("E-mail address", email);
  await type("Password", password);
  await press("Sign in");
}

describe("signing in", () => {
  beforeEach(() => {
    server.account("ann@example.com");
  });

  it("works, with fields that password managers know", async () => {
    await open("/account/sign-in");
    expect(field("E-mail address").autocomplete).toBe("username");
    expect(field("Password").autocomplete).toBe("current-password");
    await press("Show password");
    expect(field("Password").type).toBe("text");
    await enter(" ann@example.com ", "correct horse");
    await seen(/inside as user-/);
    expect(JSON.stringify([{ ...localStorage }, { ...sessionStorage }])).not.toMatch(/x\./);
  });

  it("in vain says the same of everybody, where it can be mended", async () => {
    await open("/account/sign-in");
    for (const email of ["ann@example.com", "nobody@example.com"]) {
      await enter(email, "wrong");
      expect(await screen.findByRole("alert")).toHaveProperty(
        "textContent",
        "Address and password do not match.",
      );
      expect(field("Password").getAttribute("aria-invalid")).toBe("true");
      expect(document.activeElement).toBe(field("Password"));
    }
  });

  it("too often shows how long to wait, and sends nothing meanwhile", async () => {
    await open("/account/sign-in");
    vi.useFakeTimers();
    server.next["sign-in"] = [() => problem(429, "rate_limited", {}, { "retry-after": "125" })];
    await enter("ann@example.com", "correct horse");
    await act(async () => vi.advanceTimersByTime(0));
    expect(alert()).toBe("Too many attempts. You can try again in 3 minutes.");
    await act(async () => vi.advanceTimersByTime(5000));
    const asked = server.asked.length;
    await press("Wait 2:00");
    expect(server.asked).toHaveLength(asked);
    for (let second = 0; second < 120; second++)
      await act(async () => vi.advanceTimersByTime(1000));
    await press("Sign in");
    vi.useRealTimers();
    await seen(/inside as user-/);
  });

  it("without a network says so, and can be tried again", async () => {
    await open("/account/sign-in");
    server.down = "before";
    await enter("ann@example.com", "correct horse");
    expect((await screen.findByRole("alert")).textContent).toMatch(/cannot be reached/);
    server.down = false;
    await press("Sign in");
    await seen(/inside as user-/);
  });

  it("by a provider is there where the server has one, and says why it was in vain", async () => {
    server.providers = [{ id: "p", name: "Example", startUrl: "/api/auth/oidc/p/start" }];
    await open("/account/sign-in#error=oidc_denied");
    expect(screen.getByRole("button", { name: "Sign in with Example" })).toBeTruthy();
    expect(alert()).toMatch(/you declined/);
    expect(location.hash).toBe("");
  });

  it("by a provider ends with the session of the cookie", async () => {
    const [account] = server.accounts;
    if (account) server.enterByProvider(browser, account);
    await open("/account/welcome");
    await seen(/inside as user-/);
  });

  it("offers demo users alone where accounts are not turned on", async () => {
    server.enabled = false;
    await open("/account/sign-in");
    expect(screen.getByRole("button", { name: /^A?alice/ })).toBeTruthy();
    expect(screen.queryByLabelText("Password")).toBe(null);
  });

  it("is not asked of a guest", async () => {
    await open("/account/sign-in");
    await press("Try without an account");
    await seen(/inside as user-/);
  });
});

describe("signing up", () => {
  it("is ended by the mail's link, whose token leaves the address bar", async () => {
    await open("/account/sign-up");
    expect(field("Password").autocomplete).toBe("new-password");
    expect(field("Password").minLength).toBe(10);
    await type("E-mail address", "new@example.com");
    await type("Password", "long enough");
    await press("Create account");
    await seen("new@example.com");
    const link = server.mails[0]?.token ?? "";
    cleanup();
    vi.resetModules();
    await open(`/account/verify#token=${link}`);
    await seen(/inside as user-/);
    expect(location.hash).toBe("");
    expect(server.asked.filter((route) => route === "verify")).toHaveLength(1);
  });

  it("says what is wrong with a password", async () => {
    await open("/account/sign-up");
    server.next["sign-up"] = [() => problem(400, "weak_password")];
    await type("E-mail address", "new@example.com");
    await type("Password", "new@example.com");
    await press("Create account");
    expect((await screen.findByRole("alert")).textContent).toMatch(/Choose another password/);
    expect(document.activeElement).toBe(field("Password"));
  });

  it("goes on in the window that waits when the link is opened in another", async () => {
    await open("/account/sign-up");
    await type("E-mail address", "new@example.com");
    await type("Password", "long enough");
    await press("Create account");
    await seen("new@example.com");
    const other = browser.tab();
    await other.verify(server.mails[0]?.token ?? "");
    const [[key, newValue] = ["", ""]] = browser.kept;
    localStorage.setItem(key, newValue);
    await act(async () => dispatchEvent(new StorageEvent("storage", { key, newValue })));
    await seen(/inside as user-/);
  });

  it("from another browser needs the password", async () => {
    await new Browser(server).tab().signUp("new@example.com", "long enough");
    await open(`/account/verify#token=${server.mails[0]?.token}`);
    await seen(/You signed up in another browser/);
    await type("Password", "not this one");
    await press("Confirm");
    expect((await screen.findByRole("alert")).textContent).toBe("This is not the right password.");
    await type("Password", "long enough");
    await press("Confirm");
    await seen(/inside as user-/);
  });

  it("by a link that was used leads on", async () => {
    await open("/account/verify#token=used");
    expect((await screen.findByRole("alert")).textContent).toMatch(/has been used/);
    expect(screen.getByRole("link", { name: "Sign in" })).toBeTruthy();
  });

  it("by a link with nothing in it says so", async () => {
    await open("/account/verify");
    await seen(/exactly as it is in the mail/);
  });
});

describe("a forgotten password", () => {
  it("is answered alike for everybody, and set by the link", async () => {
    server.account("ann@example.com");
    for (const email of ["nobody@example.com", "ann@example.com"]) {
      await open("/account/forgot");
      await type("E-mail address", email);
      await press("Send the link");
      await seen(/If there is an account with the address/);
      cleanup();
    }
    expect(server.mails).toHaveLength(1);
    await open(`/account/reset#token=${server.mails[0]?.token}`);
    await type("New password", "another horse");
    await press("Set the password");
    await seen(/inside as user-/);
    expect(server.accounts[0]?.password).toBe("another horse");
  });
});
