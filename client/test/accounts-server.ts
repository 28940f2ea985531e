import { type AccountUser, AuthSession, type SessionLocks } from "../src/auth/index.js";

interface Account extends AccountUser {
  password: string;
  disabled?: boolean;
}
/** A session: each refresh replaces its cookie, and the one before is good for a minute. */
interface Session {
  userId: string;
  present: string;
  before: { cookie: string; until: number } | undefined;
}

/** The accounts of a gateway, in memory, by the rules of docs/reference/accounts.md; and what was asked of it. */
export class AccountsServer {
  readonly accounts: Account[] = [];
  readonly mails: { to: string; kind: string; token: string }[] = [];
  readonly asked: string[] = [];
  /** Answers of this instead: by route, each once. */
  readonly next: { [route: string]: (() => Response | Promise<Response>)[] } = {};
  enabled = true;
  providers: object[] = [];
  /** No answer comes. "after": it is lost on its way back. */
  down: false | "before" | "after" = false;
  /** Requests that are so long on their way. */
  readonly slow: (() => Promise<void>)[] = [];
  private readonly sessions: Session[] = [];
  private readonly links = new Map<string, { email: string; password?: string; jar?: Browser }>();
  private count = 0;

  account(email: string, password = "correct horse"): Account {
    const id = `user-${++this.count}`;
    const account = {
      id,
      email,
      password,
      guest: false,
      hasPassword: true,
      providers: [],
      createdAt: "2026-01-01T00:00:00Z",
    };
    this.accounts.push(account);
    return account;
  }

  endSessions(): void {
    this.sessions.splice(0);
  }

  get sessionCount(): number {
    return this.sessions.length;
  }

  /** A session as a provider's sign-in leaves it: in the cookie alone. */
  enterByProvider(browser: Browser, account: Account): void {
    this.open(browser, account);
  }

  async answer(browser: Browser, path: string, body: Record<string, string>): Promise<Response> {
    const route = path.replace(/^.*\/api\/auth\//, "");
    this.asked.push(route);
    // What a browser sends is decided when it sends it.
    const { cookie } = browser;
    const scripted = this.next[route]?.shift();
    if (scripted) return scripted();
    if (this.down === "before") throw new TypeError("Failed to fetch");
    await this.slow.shift()?.();
    const reply = this.serve(browser, cookie, route, body);
    if (this.down) throw new TypeError("Failed to fetch");
    if (reply.cookie !== undefined) browser.cookie = reply.cookie || undefined;
    return reply.response;
  }

  private serve(
    browser: Browser,
    cookie: string | undefined,
    route: string,
    body: Record<string, string>,
  ): { response: Response; cookie?: string } {
    const { email = "", password = "", token = "" } = body;
    if (!this.enabled) return { response: problem(404, "not_found") };
    const found = this.accounts.find((account) => account.email === email.toLowerCase());
    switch (route) {
      case "providers":
        return {
          response: json({ providers: this.providers, guests: true, passwordMinLength: 10 }),
        };
      case "sign-in":
        if (!found || found.password !== password)
          return { response: problem(401, "wrong_credentials") };
        return this.enter(found);
      case "guest": {
        const account = this.account("");
        Object.assign(account, { guest: true, hasPassword: false, email: undefined });
        return this.enter(account);
      }
      case "sign-up":
        if (password.length < 10) return { response: problem(400, "weak_password") };
        this.link("sign_up", { email, password, jar: browser });
        return { response: json({ status: "check_mail" }, 202) };
      case "request-reset":
        if (found) this.link("reset", { email });
        return { response: json({ status: "check_mail" }, 202) };
      case "verify":
      case "reset": {
        const link = this.links.get(token);
        if (!link) return { response: problem(410, "link_spent") };
        if (route === "verify" && link.jar !== browser && password !== link.password) {
          return {
            response: problem(403, password ? "wrong_credentials" : "password_needed"),
          };
        }
        this.links.delete(token);
        const guest = this.accounts.find(
          ({ id, guest }) => guest && id === this.sessionOf(cookie)?.userId,
        );
        const account = guest ?? found ?? this.accounts.find((a) => a.email === link.email);
        const whose = account ?? this.account(link.email);
        Object.assign(whose, {
          email: link.email,
          password: link.password ?? password,
          guest: false,
          hasPassword: true,
        });
        return this.enter(whose);
      }
      case "sign-out":
      case "sign-out-everywhere": {
        const { userId } = this.sessionOf(cookie) ?? {};
        for (const session of [...this.sessions]) {
          if (session.present === cookie || (route !== "sign-out" && session.userId === userId))
            this.sessions.splice(this.sessions.indexOf(session), 1);
        }
        return { response: new Response(null, { status: 204 }), cookie: "" };
      }
    }
    if (!cookie) return { response: problem(401, "unauthorized") };
    const session = this.sessionOf(cookie);
    const account = this.accounts.find(({ id }) => id === session?.userId);
    if (!session || !account) return { response: problem(401, "session_ended") };
    if (account.disabled) return { response: problem(403, "disabled") };
    if (route === "me") return { response: json({ user: shown(account) }) };
    if (route === "change-password") {
      if (body.current !== account.password)
        return { response: problem(403, "wrong_credentials", { detail: "It is wrong" }) };
      account.password = password;
      return { response: this.welcome(account), cookie };
    }
    if (route !== "refresh") return { response: problem(404, "not_found") };
    if (session.present === cookie) {
      session.before = { cookie, until: Date.now() + 60_000 };
      session.present = `${session.userId}:${++this.count}`;
    } else if (session.before?.cookie !== cookie || Date.now() > session.before.until) {
      // A cookie that was replaced: somebody has copied it.
      this.sessions.splice(this.sessions.indexOf(session), 1);
      return { response: problem(401, "session_ended") };
    }
    return { response: this.welcome(account), cookie: session.present };
  }

  private link(kind: string, link: { email: string; password?: string; jar?: Browser }): void {
    const token = `link-${++this.count}`;
    this.links.set(token, link);
    this.mails.push({ to: link.email, kind, token });
  }

  private sessionOf(cookie: string | undefined): Session | undefined {
    return (
      this.sessions.find(
        ({ present, before }) => cookie === present || cookie === before?.cookie,
      ) ?? this.sessions.find(({ userId }) => cookie?.startsWith(`${userId}:`))
    );
  }

  private enter(account: Account): { response: Response; cookie: string } {
    const cookie = `${account.id}:${++this.count}`;
    this.sessions.push({ userId: account.id, present: cookie, before: undefined });
    return { response: this.welcome(account), cookie };
  }

  private open(browser: Browser, account: Account): void {
    browser.cookie = this.enter(account).cookie;
  }

  private welcome(account: Account): Response {
    const part = btoa(JSON.stringify({ sub: account.id, n: ++this.count }));
    const expiresAt = new Date(Date.now() + 600_000).toISOString();
    return json({ token: `x.${part}.x`, expiresAt, user: shown(account) });
  }
}

/** A browser: its cookie, what it keeps, and the locks of its tabs. */
export class Browser {
  cookie: string | undefined;
  readonly kept = new Map<string, string>();
  private readonly tabs: EventTarget[] = [];
  private readonly lock: SessionLocks;

  constructor(readonly server: AccountsServer) {
    let last: Promise<unknown> = Promise.resolve();
    this.lock = {
      request: (_name, granted) => {
        const mine = last.then(granted, granted);
        last = mine.catch(() => {});
        return mine;
      },
    };
  }

  /** A tab with the session in it. `locks: false`: as on a page without TLS. */
  tab({ locks = true } = {}): AuthSession {
    const events = new EventTarget();
    this.tabs.push(events);
    return new AuthSession({
      url: "",
      fetch: this.fetch,
      events,
      storage: {
        getItem: (key) => this.kept.get(key) ?? null,
        setItem: (key, value) => {
          this.kept.set(key, value);
          for (const other of this.tabs) {
            if (other !== events)
              other.dispatchEvent(Object.assign(new Event("storage"), { key, newValue: value }));
          }
        },
      },
      ...(locks ? { locks: this.lock } : { locks: alone() }),
    });
  }

  /** The network is back. */
  online(): void {
    for (const tab of this.tabs) tab.dispatchEvent(new Event("online"));
  }

  fetch: typeof fetch = async (input, init) => {
    const body = typeof init?.body === "string" ? JSON.parse(init.body) : {};
    return this.server.answer(this, String(input), body);
  };
}

/** No locks between tabs; one after the other within one. */
function alone(): SessionLocks {
  let last: Promise<unknown> = Promise.resolve();
  return {
    request: (_name, granted) => {
      const mine = last.then(granted, granted);
      last = mine.catch(() => {});
      return mine;
    },
  };
}

/** A refusal. */
export function problem(
  status: number,
  code: string,
  more: object = {},
  headers: Record<string, string> = {},
): Response {
  return json({ status, code, title: code, ...more }, status, headers);
}

function json(value: object, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(value), { status, headers });
}

function shown({ password: _, disabled: __, ...user }: Account): AccountUser {
  return JSON.parse(JSON.stringify(user));
}
