import type { Client } from "../client.js";
import { known, RowcastError } from "../errors.js";
import { askedWait, isTransient } from "../http.js";
import { createIds } from "../ids.js";
import type { Json } from "../json.js";
import { Batch, Cell, type Readable } from "../readable.js";
import { backoff, browserRuntime, type Runtime } from "../runtime.js";
import { browserTabs, oneTab, type Tabs } from "../tabs.js";
import { HttpError, NeedsAuthError, NetworkError } from "../transport.js";
import type { FileDownloadAnswer, FileUploadAnswer } from "../wire.gen.js";
import { hashOf, plainName, plainType } from "./prepare.js";
import { browserSend, type Send } from "./send.js";
import { sendBytes } from "./send-bytes.js";
import { indexedDbShelf, type Kept, memoryShelf, type OpenShelf, type Shelf } from "./shelf.js";

/** How far an upload is. `waiting`: for the network, its turn, or its record to be there. */
export type UploadStep = "waiting" | "uploading" | "confirming" | "ready" | "failed" | "aborted";

/** An upload as it stands. */
export interface UploadState {
  /** The id of its record. */
  readonly id: string;
  readonly table: string;
  readonly name: string;
  readonly type: string;
  readonly size: number;
  /** What its record was created with: the parent's id above all. */
  readonly record: { readonly [key: string]: unknown };
  readonly step: UploadStep;
  /** Bytes sent so far. */
  readonly sent: number;
  /** Why it failed, or why it is waiting to be tried again. */
  readonly error: RowcastError | null;
  /** Whether it goes on after a reload. */
  readonly durable: boolean;
}

/** An upload that was added. */
export interface Upload extends Readable<UploadState> {
  readonly id: string;
  /** Resolves when it is ready; rejects where it failed or was aborted. Retried, there is another. */
  readonly done: Promise<void>;
}

/** What uploads are made of. */
export interface UploadsOptions {
  /** The gateway's address; left out, the page's own. */
  url?: string;
  /** How many are sent at a time: 2. */
  parallel?: number;
  /** Where they are kept until confirmed; left out, in IndexedDB, and in memory where that is not to be had. */
  shelf?: OpenShelf;
  /** SHA-256 in hex, or undefined for none; left out, the browser's own, which takes files up to 32 MiB. */
  hash?: (bytes: Blob) => Promise<string | undefined>;
  /** How bytes travel; left out, by XMLHttpRequest. */
  send?: Send;
  /** How tabs meet; left out, by Web Locks. */
  tabs?: Tabs;
  /** Clock, timers and the page. */
  runtime?: Runtime;
}

/** The part of a client that uploads need. */
export type UploadClient = Pick<
  Client,
  "attach" | "discard" | "rejected" | "request" | "status"
> & {
  write(
    operation: object,
    options?: { undo?: boolean },
  ): { readonly saved: Promise<void>; readonly confirmed: Promise<unknown> };
};

/** An upload was given up. */
export class UploadAbortedError extends RowcastError {
  override name = "UploadAbortedError";

  constructor() {
    super("aborted", "The upload was aborted.");
  }
}

interface Job {
  kept: Kept;
  readonly cell: Cell<UploadState>;
  readonly handle: Upload;
  failures: number;
  /** Held by this tab: it alone sends. */
  mine: boolean;
  /** Whether its record may be on the server: the write was confirmed, or is of an earlier page. */
  there: boolean;
  running: AbortController | undefined;
  /** What calls off the next try. */
  pause: (() => void) | undefined;
  unlock: (() => void) | undefined;
  /** Bytes that could not be kept. */
  bytes: Blob | undefined;
  settle: { resolve(): void; reject(error: unknown): void };
}

/** A link to download lives a minute from when it was made; it is given out for less. */
const LINK_MILLISECONDS = 40_000;
const MOST_MISMATCHES = 3;

/** The uploads of one client, and links to what was uploaded. `createUploads` makes it. */
export class Uploads {
  /** Those that are not ready, in the order they were added. */
  readonly all: Readable<readonly UploadState[]>;

  private readonly base: string;
  private readonly parallel: number;
  private readonly hash: (bytes: Blob) => Promise<string | undefined>;
  private readonly send: Send;
  private readonly tabs: Tabs;
  private readonly runtime: Runtime;
  private readonly batch = new Batch(() => {});
  private readonly list: Cell<readonly UploadState[]>;
  private readonly jobs = new Map<string, Job>();
  private readonly links = new Map<string, { url: Promise<string>; until: number }>();
  private readonly ends: (() => void)[] = [];
  private readonly newId: () => string;
  private readonly openShelf: OpenShelf;
  /** Refusals that were seen: they leave the client's list a moment later. */
  private readonly heard = new Set<string>();
  private opened: Promise<Shelf>;
  /** Whose uploads these are; undefined until it is known. */
  private user: string | null | undefined;
  private pending = 0;
  private name = "";
  private closed = false;

  constructor(
    private readonly client: UploadClient,
    options: UploadsOptions = {},
  ) {
    this.base = options.url ?? (typeof location === "undefined" ? "" : location.origin);
    this.parallel = options.parallel ?? 2;
    this.hash = options.hash ?? hashOf;
    this.send = options.send ?? browserSend;
    this.tabs = options.tabs ?? (typeof navigator === "undefined" ? oneTab() : browserTabs());
    this.runtime = options.runtime ?? browserRuntime();
    this.list = new Cell<readonly UploadState[]>(this.batch, []);
    this.all = this.list;
    this.newId = createIds(() => this.runtime.now(), this.runtime.fill);
    this.openShelf = options.shelf ?? defaultShelf();
    this.opened = this.open();
    // Whoever needs it is told where he waits for it.
    this.opened.catch(() => {});
    this.ends.push(
      this.runtime.onWake(() => this.wake()),
      client.status.subscribe(() => this.look()),
      client.rejected.subscribe(() => this.hear()),
    );
    client.attach({ unsent: () => this.unsent(), end: (remove) => this.leave(remove) });
  }

  /**
   * Creates the record of a file and sends its bytes, now or when there is a network. Kept on this device until the
   * server has confirmed it. `values`: the parent's id, and what else the record is to hold.
   */
  add(
    table: string,
    file: Blob & { readonly name?: string },
    values: { readonly [key: string]: Json },
    { id = this.newId(), name = file.name ?? "file" }: { id?: string; name?: string } = {},
  ): Upload {
    const type = plainType(file.type);
    const record = { ...values, name: plainName(name), type, size: String(file.size) };
    const job = this.job({
      id,
      table,
      name: record.name,
      type,
      size: file.size,
      addedAt: this.runtime.now(),
      record,
      created: false,
    });
    void this.take(job, file);
    return job.handle;
  }

  /** The upload of a record, while it is not ready. */
  get(id: string): Upload | undefined {
    return this.jobs.get(id)?.handle;
  }

  /** Tries one that failed again. */
  retry(id: string): Upload | undefined {
    const job = this.jobs.get(id);
    if (!job) return undefined;
    if (job.cell.getSnapshot().step !== "failed") return job.handle;
    const again = this.job(job.kept);
    again.bytes = job.bytes;
    again.mine = job.mine;
    again.unlock = job.unlock;
    // That it exists already is no harm; that it was refused may have passed.
    if (!job.there) void this.create(again);
    else again.there = true;
    this.next();
    return again.handle;
  }

  /** Gives an upload up: its bytes are forgotten, and its record is deleted. */
  async abort(id: string): Promise<void> {
    const job = this.jobs.get(id);
    if (!job) return;
    // Where it failed so, there is no record, or none that could be deleted.
    const forbidden = job.cell.getSnapshot().error?.code === "forbidden";
    this.end(job, "aborted", new UploadAbortedError());
    await (await this.opened).remove(id);
    if (job.kept.created && !forbidden) await this.remove(job);
  }

  /**
   * A link to the bytes of a file, to be used at once: it lives for a minute. `inline`: for an image in a page; else it is
   * saved. `fresh`: not the one that was given out a moment ago. Rejects with HttpError: `forbidden`, `not_ready`,
   * or `deleted`.
   */
  url(
    table: string,
    id: string,
    { inline = false, fresh = false }: { inline?: boolean; fresh?: boolean } = {},
  ): Promise<string> {
    const key = JSON.stringify([table, id, inline]);
    const known = this.links.get(key);
    if (known && !fresh && this.runtime.now() < known.until) return known.url;
    const url = this.client
      .request("/api/files/download", { table, id, inline })
      .then((answer) => this.absolute((answer as FileDownloadAnswer).url));
    const entry = { url, until: this.runtime.now() + LINK_MILLISECONDS };
    this.links.set(key, entry);
    url.catch(() => {
      if (this.links.get(key) === entry) this.links.delete(key);
    });
    return url;
  }

  /** Forgets all uploads and their bytes on this device, as the client's signOut does. */
  async clear(): Promise<void> {
    for (const job of [...this.jobs.values()]) this.end(job, "aborted", new UploadAbortedError());
    await (await this.opened).clear();
  }

  /** Lets go of everything; what is kept stays, and goes on the next time. The end of the client does it. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const end of this.ends) end();
    this.stop();
  }

  // --- inside ---

  /** Nothing goes on in this page. */
  private stop(): void {
    for (const job of this.jobs.values()) {
      job.pause?.();
      job.running?.abort();
      job.unlock?.();
    }
    this.jobs.clear();
    this.links.clear();
    this.tell();
    this.opened.then((shelf) => shelf.close()).catch(() => {});
  }

  /** How many files would be lost: of all tabs, where they are kept. */
  private async unsent(): Promise<number> {
    const ids = new Set(this.jobs.keys());
    // Before the user is known nothing is kept of him.
    const kept = this.user === undefined ? [] : await this.kept().catch(() => []);
    for (const { id } of kept) ids.add(id);
    return ids.size;
  }

  private async kept(): Promise<Kept[]> {
    return (await this.opened).all();
  }

  /** The client has ended. */
  private async leave(remove: boolean): Promise<void> {
    const { opened } = this;
    this.close();
    // What cannot be removed is no reason to stay.
    if (remove && this.user !== undefined)
      await opened.then((shelf) => shelf.destroy()).catch(() => {});
  }

  /** Another user's uploads are not this one's. */
  private look(): void {
    const { userId, pending } = this.client.status.getSnapshot();
    if (this.user !== undefined && userId !== undefined && userId !== this.user) {
      this.stop();
      this.user = undefined;
      this.opened = this.open();
      this.opened.catch(() => {});
    }
    // The write that creates its record may have been among those that were answered now.
    if (pending < this.pending)
      this.wake((job) => job.cell.getSnapshot().error?.code === "forbidden");
    this.pending = pending;
    this.next();
  }

  /** What the server refused to create is shown here, and nowhere else. */
  private hear(): void {
    for (const { id: entry, operations, error } of this.client.rejected.getSnapshot()) {
      const [create] = operations;
      const job = create?.type === "create" ? this.jobs.get(create.id) : undefined;
      if (!job || operations.length > 1 || this.heard.has(entry)) continue;
      this.heard.add(entry);
      this.client.discard(entry).catch(() => {});
      // By an earlier page, whose end came between the write and the note of it.
      if (error.code === "exists") continue;
      // After a reload it is tried again, and its reason known again.
      job.kept = { ...job.kept, created: false };
      this.opened
        .then(async (shelf) => {
          if (!this.over(job)) await shelf.put(job.kept);
        })
        .catch(() => {});
      this.fail(job, error);
    }
  }

  /** Whose uploads they are is known first; then what an earlier page has left goes on. */
  private async open(): Promise<Shelf> {
    const user = await this.whose();
    this.user = user;
    this.name = `rowcast-files:${this.base}:${user === null ? "" : `=${user}`}`;
    const opened = await this.openShelf(this.name).catch(() => memoryShelf()(this.name));
    const left = (await opened.all()).sort((a, b) => a.addedAt - b.addedAt);
    for (const kept of left) {
      if (this.closed || this.user !== user || this.jobs.has(kept.id)) continue;
      const job = this.job(kept, true);
      job.there = kept.created;
      this.lock(job, async () => {
        // Another tab may have sent it meanwhile.
        if (!(await opened.all()).some(({ id }) => id === kept.id)) this.end(job, "ready", null);
        else if (!kept.created) await this.create(job);
      });
    }
    this.hear();
    return opened;
  }

  private whose(): Promise<string | null> {
    const { status } = this.client;
    return new Promise((resolve) => {
      let end = () => {};
      const look = () => {
        const { userId } = status.getSnapshot();
        if (userId === undefined) return;
        end();
        resolve(userId);
      };
      end = status.subscribe(look);
      look();
    });
  }

  private job(kept: Kept, durable = false): Job {
    let settle: Job["settle"] = { resolve() {}, reject() {} };
    const done = new Promise<void>((resolve, reject) => {
      settle = { resolve, reject };
    });
    // It stands in the state, too.
    done.catch(() => {});
    const { id, table, name, type, size, record } = kept;
    const cell = new Cell<UploadState>(this.batch, {
      id,
      table,
      name,
      type,
      size,
      record,
      step: "waiting",
      sent: 0,
      error: null,
      durable,
    });
    const { subscribe, getSnapshot } = cell;
    const job: Job = {
      kept,
      cell,
      handle: { id, done, subscribe, getSnapshot },
      failures: 0,
      mine: false,
      there: false,
      running: undefined,
      pause: undefined,
      unlock: undefined,
      bytes: undefined,
      settle,
    };
    this.jobs.set(id, job);
    this.tell();
    return job;
  }

  /** Keeps the bytes, then writes the record. */
  private async take(job: Job, file: Blob): Promise<void> {
    job.bytes = file;
    try {
      const shelf = await this.opened;
      const sha256 = await this.hash(file);
      if (sha256) job.kept = { ...job.kept, record: { ...job.kept.record, sha256 } };
      if (this.over(job)) return;
      // The lock is named after the shelf, so that it has to be open.
      this.lock(job);
      await shelf.put(job.kept, file).then(
        () => {
          if (shelf.durable) this.set(job, { durable: true });
          job.bytes = shelf.durable ? undefined : file;
        },
        // No room: it is sent all the same, while the page is there.
        () => {},
      );
      await this.create(job);
    } catch (error) {
      this.fail(job, error);
    }
  }

  private async create(job: Job): Promise<void> {
    if (this.over(job)) return;
    const { id, table, record } = job.kept;
    try {
      const write = this.client.write(
        { type: "create", table, id, value: record },
        { undo: false },
      );
      // Whoever awaits the first alone would leave the other unheard.
      write.confirmed.catch(() => {});
      await write.saved;
      job.kept = { ...job.kept, created: true };
      // Aborted before there was anything to delete.
      if (!this.closed && job.cell.getSnapshot().step === "aborted") return void this.remove(job);
      const shelf = await this.opened;
      if (!this.over(job)) await shelf.put(job.kept).catch(() => {});
      await write.confirmed;
    } catch (error) {
      // Of an earlier page, whose end came between the write and the note of it.
      if ((error as RowcastError).code !== "exists") {
        this.fail(job, error);
        return;
      }
    }
    job.there = true;
    this.next();
  }

  private async remove({ kept: { table, id } }: Job): Promise<void> {
    await this.client.write({ type: "delete", table, id }, { undo: false }).saved;
  }

  private lock(job: Job, held: () => Promise<void> = async () => {}): void {
    job.unlock = this.tabs.lock(
      `${this.name}:${job.kept.id}`,
      false,
      () => {
        held().then(
          () => {
            // Retried meanwhile, another is in its place.
            const present = this.jobs.get(job.kept.id);
            if (present) present.mine = true;
            this.next();
          },
          (error) => this.fail(job, error),
        );
      },
      () => {},
    );
  }

  private wake(which: (job: Job) => boolean = () => true): void {
    for (const job of this.jobs.values()) {
      if (!which(job)) continue;
      job.pause?.();
      job.pause = undefined;
    }
    this.next();
  }

  /** Starts what can be started. */
  private next(): void {
    if (this.closed || !this.runtime.online()) return;
    const { userId, needsAuth } = this.client.status.getSnapshot();
    if (userId === undefined || needsAuth) return;
    let running = [...this.jobs.values()].filter((job) => job.running).length;
    for (const job of this.jobs.values()) {
      if (running >= this.parallel) return;
      const { step } = job.cell.getSnapshot();
      if (job.running || job.pause || !job.mine || !job.there || step !== "waiting") continue;
      running++;
      job.running = new AbortController();
      void this.run(job, job.running);
    }
  }

  private async run(job: Job, running: AbortController): Promise<void> {
    const { table, id } = job.kept;
    try {
      const bytes = job.bytes ?? (await (await this.opened).bytes(id));
      if (this.over(job)) return;
      if (!bytes) throw new RowcastError("lost", "The bytes are not on this device any more.");
      const receipt = await this.transfer(job, bytes, running.signal);
      if (running.signal.aborted) return;
      this.set(job, { step: "confirming" });
      await this.client.request("/api/files/confirm", { table, id, ...(receipt && { receipt }) });
      job.running = undefined;
      this.end(job, "ready", null);
      await (await this.opened).remove(id);
    } catch (error) {
      if (job.running === running) job.running = undefined;
      if (!running.signal.aborted || !this.over(job)) this.failed(job, error);
    }
    this.next();
  }

  /** Sends the bytes, unless they are there already. The receipt, where there is one. */
  private async transfer(job: Job, bytes: Blob, signal: AbortSignal): Promise<string | undefined> {
    const { table, id } = job.kept;
    let link: FileUploadAnswer;
    try {
      const body = { table, id, resume: true };
      link = (await this.client.request("/api/files/upload", body)) as FileUploadAnswer;
    } catch (error) {
      if ((error as RowcastError).code === "uploaded") return undefined;
      throw error;
    }
    if (signal.aborted) throw new UploadAbortedError();
    const { offset } = link;
    this.set(job, { step: "uploading", sent: offset, error: null });
    return sendBytes(link, this.absolute(link.url), bytes, {
      send: this.send,
      runtime: this.runtime,
      signal,
      progress: (sent) => {
        if (!this.over(job)) this.set(job, { sent: Math.min(sent, job.kept.size) });
      },
    });
  }

  /** Decides whether something passes. */
  private failed(job: Job, error: unknown): void {
    if (this.closed || this.over(job)) return;
    const { code } = error as RowcastError;
    job.failures++;
    const again =
      error instanceof NetworkError ||
      error instanceof NeedsAuthError ||
      (error instanceof HttpError && isTransient(error.status)) ||
      // Confirmed too early, or the sweep of an object that nobody wants: it is sent again.
      (code === "missing" && job.failures < 10) ||
      (code === "mismatch" && job.failures < MOST_MISMATCHES) ||
      // The write that creates it is of an earlier page and may still be on its way.
      (code === "forbidden" && (job.failures < 3 || this.client.status.getSnapshot().pending > 0));
    if (!again) {
      this.fail(job, error);
      return;
    }
    this.set(job, { step: "waiting", sent: 0, error: known(error) });
    const wait = askedWait(error) || backoff(this.runtime, job.failures);
    job.pause = this.runtime.later(() => {
      job.pause = undefined;
      this.next();
    }, wait);
  }

  private fail(job: Job, error: unknown): void {
    if (this.closed || this.over(job)) return;
    job.running?.abort();
    job.running = undefined;
    this.set(job, { step: "failed", sent: 0, error: known(error) });
    job.settle.reject(error);
    this.next();
  }

  private end(job: Job, step: "ready" | "aborted", error: RowcastError | null): void {
    if (this.over(job)) return;
    this.jobs.delete(job.kept.id);
    job.pause?.();
    job.running?.abort();
    this.set(job, { step, error, sent: step === "ready" ? job.kept.size : 0 });
    if (error) job.settle.reject(error);
    else job.settle.resolve();
    job.unlock?.();
    this.tell();
    this.next();
  }

  /** Whether another, or nothing, is in its place. */
  private over(job: Job): boolean {
    return this.jobs.get(job.kept.id) !== job;
  }

  private set(job: Job, change: Partial<UploadState>): void {
    job.cell.set({ ...job.cell.getSnapshot(), ...change });
    this.tell();
  }

  private tell(): void {
    this.list.set([...this.jobs.values()].map((job) => job.cell.getSnapshot()));
  }

  private absolute(url: string): string {
    return url.startsWith("/") ? this.base.replace(/\/+$/, "") + url : url;
  }
}

function defaultShelf(): OpenShelf {
  return typeof indexedDB === "undefined" ? memoryShelf() : indexedDbShelf();
}

/** Makes the uploads of a client; what an earlier page has left goes on. One for each client. */
export function createUploads(client: UploadClient, options?: UploadsOptions): Uploads {
  return new Uploads(client, options);
}
