import { createHash } from "node:crypto";
import { IDBFactory } from "fake-indexeddb";
import { expect, it, vi } from "vitest";
import type { ClientPart, Status } from "../src/client.js";
import { RefusedError, RowcastError } from "../src/errors.js";
import {
  createUploads,
  HASHED_BYTES,
  hashOf,
  indexedDbShelf,
  memoryShelf,
  type OpenShelf,
  plainName,
  plainType,
  type Send,
  type Uploads,
  type UploadsOptions,
} from "../src/files/index.js";
import { Batch, Cell } from "../src/readable.js";
import { StorageFullError } from "../src/storage.js";
import { HttpError, NetworkError } from "../src/transport.js";
import type { Problem } from "../src/wire.gen.js";
import type { Rejected } from "../src/written.js";
import { Browser, Page, settle, World } from "./world.js";

const URL_ = "http://test";

function problem(status: number, code: string): Problem {
  return { type: "about:blank", title: "", status, code } as Problem;
}

/** The gateway and its store as a script: what the rules of docs/how-to/files.md say, and what goes wrong. */
class Server {
  readonly records = new Map<string, { size: number; state: string; sha256?: string }>();
  readonly objects = new Map<string, string>();
  /** What arrived of uploads that broke off. */
  readonly arrived = new Map<string, string>();
  readonly asked: string[] = [];
  /** What a step does in place of the rule; taken away by what it throws. */
  readonly faults: { [step: string]: (() => void) | undefined } = {};
  /** Uploads stop here until they are let go. */
  gate: Promise<void> | undefined;
  sending = 0;
  most = 0;

  create(id: string, value: { size: string; sha256?: string }): void {
    this.fault("create");
    if (this.records.has(id)) throw new RefusedError(problem(409, "exists"));
    const { sha256 } = value;
    this.records.set(id, { size: Number(value.size), state: "pending", ...(sha256 && { sha256 }) });
  }

  async request(path: string, body: unknown): Promise<unknown> {
    const { id, receipt, inline, resume } = body as {
      id: string;
      receipt?: string;
      inline?: boolean;
      resume?: boolean;
    };
    const step = path.split("/").pop() as string;
    this.asked.push(step);
    this.fault(step);
    const record = this.records.get(id);
    if (!record) throw new HttpError(403, problem(403, "forbidden"), undefined);
    if (step === "upload") {
      if (record.state === "ready") throw new HttpError(409, problem(409, "uploaded"), undefined);
      const offset = resume ? (this.arrived.get(id)?.length ?? 0) : 0;
      const url = `/put/${offset}/${id}`;
      return { method: "PUT", url, headers: { "Content-Type": "x/y" }, offset, expiresAt: 0 };
    }
    if (step === "download") return { url: `/get/${id}?inline=${inline}&n=${this.asked.length}` };
    if (!this.objects.has(id)) throw new HttpError(409, problem(409, "missing"), undefined);
    expect(receipt === undefined || receipt === `receipt of ${id}`).toBe(true);
    record.state = "ready";
    this.fault("confirmed");
    return {};
  }

  send: Send = async (url, bytes, headers, progress, signal) => {
    expect(headers).toEqual({ "Content-Type": "x/y" });
    this.asked.push("put");
    this.sending++;
    this.most = Math.max(this.most, this.sending);
    try {
      this.fault("put");
      progress(Math.floor(bytes.size / 2));
      const gone = new Promise<never>((_, reject) => {
        signal.addEventListener("abort", () => reject(new NetworkError("aborted")));
      });
      gone.catch(() => {});
      await Promise.race([this.gate, gone]);
      const id = url.split("/").pop() as string;
      if (this.objects.has(id)) return { status: 409, body: '{"code":"uploaded"}' };
      const offset = Number(url.split("/").at(-2));
      this.objects.set(id, (this.arrived.get(id) ?? "").slice(0, offset) + (await bytes.text()));
      progress(bytes.size);
      this.fault("stored");
      return { status: 200, body: JSON.stringify({ receipt: `receipt of ${id}` }) };
    } finally {
      this.sending--;
    }
  };

  fault(step: string): void {
    const fault = this.faults[step];
    delete this.faults[step];
    fault?.();
  }

  /** The next time, this happens at a step. */
  once(step: string, error: Error): void {
    this.faults[step] = () => {
      throw error;
    };
  }
}

/** A page with a client whose writes are applied at once, and its uploads. */
class Stage {
  readonly page: Page;
  readonly status: Cell<Status>;
  readonly rejected = new Cell<readonly Rejected[]>(new Batch(() => {}), []);
  readonly discarded: string[] = [];
  part: ClientPart | undefined;
  readonly written: object[] = [];
  uploads: Uploads;
  private hash: string | undefined;

  constructor(
    readonly server: Server,
    readonly world: World,
    options: UploadsOptions = {},
    browser = new Browser(world),
    userId: string | false = "ann",
  ) {
    this.page = new Page(world);
    const status = {
      userId: userId || undefined,
      pending: 0,
      needsAuth: false,
      online: true,
    } as unknown as Status;
    this.status = new Cell(new Batch(() => {}), status);
    this.uploads = createUploads(
      {
        status: this.status,
        rejected: this.rejected,
        attach: (part) => {
          this.part = part;
        },
        discard: async (id) => {
          this.discarded.push(id as string);
        },
        request: (path, body) => server.request(path, body),
        write: (operation) => {
          this.written.push(operation);
          const { type, id, value } = operation as {
            type: string;
            id: string;
            value: { size: string };
          };
          const confirmed = settle(1).then(() => {
            if (type === "create") server.create(id, value);
            else server.records.delete(id);
          });
          return { saved: Promise.resolve(), confirmed };
        },
      },
      {
        url: URL_,
        // The browser's own takes time of the real clock.
        hash: async () => this.hash,
        send: server.send,
        runtime: this.page,
        tabs: browser.tabs,
        shelf: memoryShelf(),
        ...options,
      },
    );
  }

  /** Adds a file to the task. */
  add(text = "hello", name = "a.txt") {
    this.hash = createHash("sha256").update(text).digest("hex");
    return this.uploads.add("taskFiles", new File([text], name, { type: "text/plain" }), {
      taskId: "t",
    });
  }

  say(change: Partial<Status>): void {
    this.status.set({ ...this.status.getSnapshot(), ...change });
  }
}

function stage(options?: UploadsOptions): Stage {
  return new Stage(new Server(), new World(), options);
}

it("a file is created, sent and confirmed", async () => {
  const page = stage();
  const { server, world } = page;
  const upload = page.add();
  const seen: (string | number)[] = [];
  upload.subscribe(() => {
    const { step, sent } = upload.getSnapshot();
    seen.push(step, sent);
  });
  expect(page.uploads.all.getSnapshot()).toHaveLength(1);
  await world.until(() => upload.getSnapshot().step === "ready");
  await upload.done;
  expect(page.written).toEqual([
    {
      type: "create",
      table: "taskFiles",
      id: upload.id,
      value: {
        taskId: "t",
        name: "a.txt",
        type: "text/plain",
        size: "5",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
      },
    },
  ]);
  expect(server.objects.get(upload.id)).toBe("hello");
  expect(server.asked).toEqual(["upload", "put", "confirm"]);
  expect(seen).toContain("uploading");
  expect(seen).toContain(2);
  expect(page.uploads.all.getSnapshot()).toEqual([]);
  expect(page.uploads.get(upload.id)).toBeUndefined();
});

it("what passes is tried again, later each time", async () => {
  for (const step of ["upload", "put", "stored", "confirm", "confirmed"]) {
    const page = stage();
    page.server.once(step, new NetworkError("gone"));
    const upload = page.add();
    await page.world.until(() => upload.getSnapshot().error !== null);
    expect(upload.getSnapshot().step).toBe("waiting");
    await page.world.until(() => upload.getSnapshot().step === "ready");
    expect(page.server.objects.get(upload.id)).toBe("hello");
  }
  const page = stage();
  page.server.once("upload", new HttpError(503, problem(503, "store"), 20));
  const upload = page.add();
  await page.world.until(() => upload.getSnapshot().error !== null);
  await page.world.advance(19_000);
  expect(page.server.asked).toEqual(["upload"]);
  await page.world.until(() => upload.getSnapshot().step === "ready");
});

it("a link that was refused is asked for anew", async () => {
  const page = stage();
  const { send } = page.server;
  let refused = 0;
  const uploads = new Stage(page.server, page.world, {
    send: async (...sent) =>
      refused++ ? send(...sent) : { status: 403, body: '{"code":"bad_link"}' },
  });
  const upload = uploads.add();
  await page.world.until(() => upload.getSnapshot().step === "ready");
  expect(page.server.asked).toEqual(["upload", "upload", "put", "confirm"]);
});

it("an object that a bucket has already is confirmed without a receipt", async () => {
  const page = stage();
  const { server, world } = page;
  const upload = new Stage(server, world, {
    send: async (url) => {
      server.objects.set(url.split("/").pop() as string, "hello");
      return { status: 412, body: "<Error/>" };
    },
  }).add();
  await world.until(() => upload.getSnapshot().step === "ready");
});

it("what does not pass fails, says why, and can be retried", async () => {
  const page = stage();
  page.server.once("create", new RefusedError(problem(422, "quota")));
  const upload = page.add();
  await page.world.until(() => upload.getSnapshot().step === "failed");
  await expect(upload.done).rejects.toMatchObject({ code: "quota" });
  expect(upload.getSnapshot().error?.code).toBe("quota");
  expect(page.server.asked).toEqual([]);
  const again = page.uploads.retry(upload.id);
  await page.world.until(() => again?.getSnapshot().step === "ready");
  await again?.done;
});

it("who lost access is told so", async () => {
  const page = stage();
  const upload = page.add();
  page.server.faults.upload = () => page.server.records.clear();
  await page.world.until(() => upload.getSnapshot().step === "failed");
  expect(upload.getSnapshot().error?.code).toBe("forbidden");
});

it("other bytes than those sent end it after a few tries", async () => {
  const page = stage();
  const { server } = page;
  const failing = new Stage(server, page.world, {
    send: async () => ({ status: 409, body: '{"code":"mismatch"}' }),
  });
  const upload = failing.add();
  await page.world.until(() => upload.getSnapshot().step === "failed");
  expect(server.asked.filter((step) => step === "upload")).toHaveLength(3);
});

it("nothing is sent without a network, and at once when there is one", async () => {
  const page = stage();
  page.page.isOnline = false;
  const upload = page.add();
  await page.world.advance(60_000);
  expect(page.server.asked).toEqual([]);
  expect(upload.getSnapshot().step).toBe("waiting");
  page.page.isOnline = true;
  page.page.wake();
  await page.world.until(() => upload.getSnapshot().step === "ready", 10);
});

it("nothing is sent before the user is known, or after his session ended", async () => {
  const page = new Stage(new Server(), new World(), {}, undefined, false);
  const upload = page.add();
  await page.world.advance(10_000);
  expect(page.written).toEqual([]);
  page.say({ userId: "ann", needsAuth: true });
  await page.world.advance(10_000);
  expect(page.server.asked).toEqual([]);
  page.say({ needsAuth: false });
  await page.world.until(() => upload.getSnapshot().step === "ready");
});

it("two are sent at a time, in their order", async () => {
  const page = stage();
  let open = () => {};
  page.server.gate = new Promise((resolve) => {
    open = resolve;
  });
  const uploads = [1, 2, 3, 4].map((n) => page.add(`${n}`));
  await page.world.advance(1000);
  expect(uploads.map((upload) => upload.getSnapshot().step)).toEqual([
    "uploading",
    "uploading",
    "waiting",
    "waiting",
  ]);
  open();
  await page.world.until(() => uploads.every((one) => one.getSnapshot().step === "ready"));
  expect(page.server.most).toBe(2);
});

it("an upload that stands still is given up and begun anew", async () => {
  const page = stage();
  page.server.gate = new Promise(() => {});
  const upload = page.add();
  await page.world.advance(59_000);
  expect(upload.getSnapshot().step).toBe("uploading");
  page.server.gate = undefined;
  await page.world.until(() => upload.getSnapshot().step === "ready");
  expect(page.server.asked.filter((step) => step === "put")).toHaveLength(2);
});

it("an aborted upload stops, is forgotten, and takes its record with it", async () => {
  const shelf = memoryShelf();
  const page = stage({ shelf });
  page.server.gate = new Promise(() => {});
  const upload = page.add();
  await page.world.until(() => upload.getSnapshot().step === "uploading");
  await page.uploads.abort(upload.id);
  await page.world.advance(120_000);
  expect(upload.getSnapshot().step).toBe("aborted");
  await expect(upload.done).rejects.toMatchObject({ code: "aborted" });
  expect(page.server.sending).toBe(0);
  expect(page.written.at(-1)).toEqual({ type: "delete", table: "taskFiles", id: upload.id });
  expect(await (await shelf(`rowcast-files:${URL_}:=ann`)).all()).toEqual([]);
  await page.uploads.abort("nothing");
});

it("what has arrived is not sent again, in this page and after a reload", async () => {
  const shelf = memoryShelf();
  const page = stage({ shelf });
  const { server, world } = page;
  let first = true;
  const sent: number[] = [];
  const send: Send = (url, bytes, ...rest) => {
    sent.push(bytes.size);
    if (!first) return server.send(url, bytes, ...rest);
    first = false;
    server.arrived.set(url.split("/").pop() as string, "some ");
    return Promise.reject(new NetworkError("gone"));
  };
  const uploads = new Stage(server, world, { shelf, send });
  const upload = uploads.add("some bytes");
  const seen: number[] = [];
  upload.subscribe(() => seen.push(upload.getSnapshot().sent));
  await world.until(() => upload.getSnapshot().step === "ready");
  expect(server.objects.get(upload.id)).toBe("some bytes");
  expect(sent).toEqual([10, 5]);
  expect(seen).toContain(7);
  expect(Math.max(...seen)).toBe(10);
});

it("a link whose beginning is gone meanwhile, and a bucket written at once, are asked again", async () => {
  for (const body of ['{"code":"moved_on"}', "<Error>ConditionalRequestConflict</Error>"]) {
    const page = stage();
    const { server, world } = page;
    let refused = 0;
    const upload = new Stage(server, world, {
      send: async (...sent) => (refused++ ? server.send(...sent) : { status: 409, body }),
    }).add();
    await world.until(() => upload.getSnapshot().step === "ready");
  }
});

it("what one user added is not sent as another who signs in meanwhile, and goes on as his", async () => {
  const shelf = memoryShelf();
  const page = stage({ shelf });
  const { server, world } = page;
  server.gate = new Promise(() => {});
  const upload = page.add("of ann");
  await world.until(() => upload.getSnapshot().step === "uploading");
  page.say({ userId: "bob" });
  await world.until(() => page.uploads.all.getSnapshot().length === 0);
  server.gate = undefined;
  const asked = server.asked.length;
  await world.advance(120_000);
  expect(server.asked).toHaveLength(asked);
  expect(server.sending).toBe(0);
  const of = page.add("of bob");
  await world.until(() => of.getSnapshot().step === "ready");
  page.say({ userId: "ann" });
  await world.until(() => server.objects.has(upload.id));
  await world.until(() => page.uploads.all.getSnapshot().length === 0);
});

for (const [name, make] of [
  ["memory", () => memoryShelf()],
  ["IndexedDB", () => indexedDbShelf(new IDBFactory())],
] as [string, () => OpenShelf][]) {
  it(`after a reload it goes on, from ${name}`, async () => {
    const shelf = make();
    const server = new Server();
    const world = new World();
    world.rounds = 30;
    const browser = new Browser(world);
    const first = new Stage(server, world, { shelf }, browser);
    server.gate = new Promise(() => {});
    const upload = first.add("some bytes");
    await world.until(() => upload.getSnapshot().step === "uploading");
    expect(upload.getSnapshot().durable).toBe(name === "IndexedDB");
    first.uploads.close();
    server.gate = undefined;
    const second = new Stage(server, world, { shelf }, browser);
    await world.until(() => second.uploads.all.getSnapshot().length === 1);
    const left = second.uploads.get(upload.id);
    expect(left?.getSnapshot()).toMatchObject({ name: "a.txt", size: 10, durable: true });
    await world.until(() => left?.getSnapshot().step === "ready");
    expect(server.objects.get(upload.id)).toBe("some bytes");
    expect(second.written).toEqual([]);
    const third = new Stage(server, world, { shelf }, browser);
    await world.advance(10_000);
    expect(third.uploads.all.getSnapshot()).toEqual([]);
  });
}

it("a page that ends before the record is written, or its note, writes it after a reload", async () => {
  for (const known of [false, true]) {
    const shelf = memoryShelf();
    const kept = await shelf(`rowcast-files:${URL_}:=ann`);
    const record = { taskId: "t", name: "a", type: "x/y", size: "2" };
    const entry = { id: "f", table: "taskFiles", name: "a", type: "x/y", size: 2, addedAt: 1 };
    await kept.put({ ...entry, record, created: false }, new Blob(["hi"]));
    const page = stage({ shelf });
    if (known) page.server.create("f", record);
    await page.world.until(() => page.server.objects.has("f"));
    await page.world.until(() => page.uploads.all.getSnapshot().length === 0);
    expect(page.server.records.get("f")?.state).toBe("ready");
  }
});

it("a write of an earlier page that is still on its way is waited for", async () => {
  const shelf = memoryShelf();
  const kept = await shelf(`rowcast-files:${URL_}:=ann`);
  const record = { taskId: "t", name: "a", type: "x/y", size: "2" };
  const entry = { id: "f", table: "taskFiles", name: "a", type: "x/y", size: 2, addedAt: 1 };
  await kept.put({ ...entry, record, created: true }, new Blob(["hi"]));
  const page = stage({ shelf });
  page.say({ pending: 1 });
  await page.world.advance(300_000);
  expect(page.uploads.get("f")?.getSnapshot().step).toBe("waiting");
  page.server.create("f", record);
  page.say({ pending: 0 });
  await page.world.until(() => page.uploads.all.getSnapshot().length === 0, 10);
});

it("two tabs send a file once; the second goes on where the first is closed", async () => {
  const shelf = memoryShelf();
  const server = new Server();
  const world = new World();
  const browser = new Browser(world);
  const first = new Stage(server, world, { shelf }, browser);
  server.gate = new Promise(() => {});
  const upload = first.add();
  await world.until(() => upload.getSnapshot().step === "uploading");
  const second = new Stage(server, world, { shelf }, browser);
  await world.advance(30_000);
  expect(server.most).toBe(1);
  expect(second.uploads.get(upload.id)?.getSnapshot().step).toBe("waiting");
  server.gate = undefined;
  first.uploads.close();
  await world.until(() => second.uploads.all.getSnapshot().length === 0);
  expect(server.objects.size).toBe(1);
});

it("a tab that waited learns that another has sent it", async () => {
  const shelf = memoryShelf();
  const server = new Server();
  const world = new World();
  const browser = new Browser(world);
  const first = new Stage(server, world, { shelf }, browser);
  let open = () => {};
  server.gate = new Promise((resolve) => {
    open = resolve;
  });
  const upload = first.add();
  await world.until(() => upload.getSnapshot().step === "uploading");
  const second = new Stage(server, world, { shelf }, browser);
  await world.advance(1000);
  const other = second.uploads.get(upload.id);
  open();
  await world.until(() => other?.getSnapshot().step === "ready");
  expect(server.asked.filter((step) => step === "put")).toHaveLength(1);
});

it("a device without room sends all the same, while the page is there", async () => {
  const page = stage({
    shelf: async (name) => ({
      ...(await memoryShelf()(name)),
      durable: true,
      put: () => Promise.reject(new StorageFullError()),
    }),
  });
  const upload = page.add();
  await page.world.until(() => upload.getSnapshot().step === "ready");
  expect(upload.getSnapshot().durable).toBe(false);
});

it("another user's uploads are not his, and clear forgets one's own", async () => {
  const shelf = indexedDbShelf(new IDBFactory());
  const server = new Server();
  const world = new World();
  world.rounds = 30;
  const browser = new Browser(world);
  server.gate = new Promise(() => {});
  const ann = new Stage(server, world, { shelf }, browser);
  const upload = ann.add();
  await world.until(() => upload.getSnapshot().step === "uploading");
  const bob = new Stage(server, world, { shelf }, browser, "bob");
  await world.advance(1000);
  expect(bob.uploads.all.getSnapshot()).toEqual([]);
  await ann.uploads.clear();
  expect(ann.uploads.all.getSnapshot()).toEqual([]);
  expect(await (await shelf(`rowcast-files:${URL_}:=ann`)).all()).toEqual([]);
  expect(await (await shelf(`rowcast-files:${URL_}:=ann`)).bytes(upload.id)).toBeUndefined();
});

it("links to download are asked for once in a while, and anew after a refusal", async () => {
  const page = stage();
  page.server.records.set("f", { size: 1, state: "ready" });
  const first = await page.uploads.url("taskFiles", "f");
  expect(first).toBe(`${URL_}/get/f?inline=false&n=1`);
  expect(await page.uploads.url("taskFiles", "f")).toBe(first);
  expect(await page.uploads.url("taskFiles", "f", { inline: true })).toContain("inline=true");
  expect(await page.uploads.url("taskFiles", "f", { fresh: true })).not.toBe(first);
  await page.world.advance(41_000);
  expect(await page.uploads.url("taskFiles", "f")).not.toBe(first);
  await expect(page.uploads.url("taskFiles", "no")).rejects.toMatchObject({ code: "forbidden" });
  page.server.records.set("no", { size: 1, state: "ready" });
  await page.uploads.url("taskFiles", "no");
});

it("names and types are made as the server takes them", () => {
  for (const [given, plain] of [
    ["My #1 Pic.PNG", "My #1 Pic.PNG"],
    ["../../etc/passwd", ".._.._etc_passwd"],
    ["a\r\nb\u202ec", "a__b_c"],
    ["", "file"],
    ["..", "file"],
    ["\ud800x", "_x"],
    [`${"x".repeat(300)}.tar.gz`, `${"x".repeat(252)}.gz`],
    ["ä".repeat(300), "ä".repeat(255)],
  ] as const) {
    expect(plainName(given)).toBe(plain);
  }
  expect(plainType("Text/HTML; charset=utf-8")).toBe("text/html");
  for (const type of ["", "x", "a/b/c", "a/b\n"].slice(0, 3)) {
    expect(plainType(type)).toBe("application/octet-stream");
  }
});

it("large files are not hashed here, nor where there is no hash", async () => {
  const digest = createHash("sha256").update("hello").digest("hex");
  expect(await hashOf(new Blob(["hello"]))).toBe(digest);
  expect(await hashOf({ size: HASHED_BYTES + 1 } as Blob)).toBeUndefined();
  vi.stubGlobal("crypto", {});
  try {
    expect(await hashOf(new Blob(["hello"]))).toBeUndefined();
  } finally {
    vi.unstubAllGlobals();
  }
});

it("a mistake of the app's own is told, not swallowed", async () => {
  const page = stage();
  page.server.faults.create = () => {
    throw new RowcastError("closed", "The client was closed.");
  };
  const upload = page.add();
  await page.world.until(() => upload.getSnapshot().step === "failed");
  expect(upload.getSnapshot().error?.code).toBe("closed");
});

it("signing out takes uploads along, and the end of the client leaves them for the next time", async () => {
  for (const remove of [true, false]) {
    const factory = new IDBFactory();
    const shelf = indexedDbShelf(factory);
    const server = new Server();
    const world = new World();
    world.rounds = 30;
    server.gate = new Promise(() => {});
    const browser = new Browser(world);
    const page = new Stage(server, world, { shelf }, browser);
    expect(await page.part?.unsent()).toBe(0);
    const upload = page.add();
    await world.until(() => upload.getSnapshot().step === "uploading");
    const beside = new Stage(server, world, { shelf }, browser);
    await world.until(() => beside.uploads.all.getSnapshot().length === 1);
    const elsewhere = new Stage(server, world, { shelf: memoryShelf() }, undefined, "bob");
    expect(await page.part?.unsent()).toBe(1);
    expect(await beside.part?.unsent()).toBe(1);
    expect(await elsewhere.part?.unsent()).toBe(0);
    await beside.part?.end(false);
    await page.part?.end(remove);
    await world.advance(10);
    expect(page.uploads.all.getSnapshot()).toEqual([]);
    expect(server.sending).toBe(0);
    expect((await factory.databases()).length).toBe(remove ? 0 : 1);
    const next = new Stage(server, world, { shelf });
    await world.advance(1000);
    expect(next.uploads.all.getSnapshot()).toHaveLength(remove ? 0 : 1);
  }
});

it("signing out does not wait for a user who is not known", async () => {
  const page = new Stage(new Server(), new World(), {}, undefined, false);
  page.add();
  expect(await page.part?.unsent()).toBe(1);
  await page.part?.end(true);
});

it("where the client goes over to another user, so do its uploads", async () => {
  const shelf = memoryShelf();
  const page = stage({ shelf });
  page.server.gate = new Promise(() => {});
  const upload = page.add();
  page.server.records.set("f", { size: 1, state: "ready" });
  const link = await page.uploads.url("taskFiles", "f");
  await page.world.until(() => upload.getSnapshot().step === "uploading");
  page.say({ userId: "bob" });
  await page.world.advance(1000);
  expect(page.uploads.all.getSnapshot()).toEqual([]);
  expect(page.server.sending).toBe(0);
  expect(await page.uploads.url("taskFiles", "f")).not.toBe(link);
  page.server.gate = undefined;
  const other = page.add("other");
  await page.world.until(() => other.getSnapshot().step === "ready");
  expect(page.server.objects.has(upload.id)).toBe(false);
  page.say({ userId: "ann" });
  await page.world.until(() => page.server.objects.has(upload.id));
});

it("a refused file is told of here alone, after a reload too", async () => {
  const shelf = memoryShelf();
  const server = new Server();
  const world = new World();
  const browser = new Browser(world);
  const first = new Stage(server, world, { shelf }, browser);
  const error = new RefusedError(problem(422, "quota"));
  const refuse = (page: Stage, id: string, told = error) => {
    const operation = { type: "create", table: "taskFiles", id, value: {} } as const;
    page.rejected.set([
      { id: "r1", txId: "t", operations: [operation], problem: told.problem, error: told, at: 0 },
    ]);
  };
  server.once("create", error);
  const upload = first.add();
  await world.until(() => upload.getSnapshot().step === "failed");
  refuse(first, "another");
  await world.advance(10);
  refuse(first, upload.id);
  await world.advance(10);
  expect(first.discarded).toEqual(["r1"]);
  first.uploads.close();
  server.once("create", error);
  const second = new Stage(server, world, { shelf }, browser);
  await world.until(() => second.uploads.get(upload.id)?.getSnapshot().step === "failed");
  expect(second.uploads.get(upload.id)?.getSnapshot().error?.code).toBe("quota");
  refuse(second, upload.id);
  await world.advance(10);
  // Cancelled, it leaves nothing to delete.
  await second.uploads.abort(upload.id);
  expect(second.written.map((operation) => (operation as { type: string }).type)).toEqual([
    "create",
  ]);
  const third = new Stage(server, world, { shelf }, browser);
  const there = third.add("x");
  await world.until(() => there.getSnapshot().step === "ready");
  refuse(third, there.id);
  await world.advance(10);
  expect(third.discarded).toEqual([]);
});

it("a refusal that an earlier page did not live to hear is told", async () => {
  const shelf = memoryShelf();
  const kept = await shelf(`rowcast-files:${URL_}:=ann`);
  const record = { taskId: "t", name: "a", type: "x/y", size: "2" };
  const entry = { id: "f", table: "taskFiles", name: "a", type: "x/y", size: 2, addedAt: 1 };
  await kept.put({ ...entry, record, created: true }, new Blob(["hi"]));
  const page = stage({ shelf });
  const error = new RefusedError(problem(413, "too_large"));
  const operation = { type: "create", table: "taskFiles", id: "f", value: {} } as const;
  page.rejected.set([
    { id: "r", txId: "t", operations: [operation], problem: error.problem, error, at: 0 },
  ]);
  await page.world.until(() => page.uploads.get("f")?.getSnapshot().step === "failed");
  expect(page.uploads.get("f")?.getSnapshot().error?.code).toBe("too_large");
  expect(page.discarded).toEqual(["r"]);
});

it("what is aborted while its record is being written leaves none behind", async () => {
  const page = stage();
  const upload = page.add();
  await page.world.until(() => page.written.length === 1);
  const gone = page.uploads.abort(upload.id);
  await page.world.advance(1000);
  await gone;
  expect(page.written.at(-1)).toEqual({ type: "delete", table: "taskFiles", id: upload.id });
  expect(page.server.asked).toEqual([]);
});
