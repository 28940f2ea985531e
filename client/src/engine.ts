import type { DebugState, SeenFrame } from "./client.js";
import type { Core } from "./core.js";
import { InvalidOperationError, PendingWritesError, UserChangedError } from "./errors.js";
import { Http, type Pause, userOfToken } from "./http.js";
import { checkTransaction } from "./operations.js";
import { Presence } from "./presence.js";
import { Queue } from "./queue.js";
import { Socket } from "./socket.js";
import type { Change, Storage, Store } from "./storage.js";
import { indexedDbStorage } from "./storage-indexeddb.js";
import { memoryStorage } from "./storage-memory.js";
import { Sync } from "./sync.js";
import { browserTabs, type Channel, oneTab, type Tabs } from "./tabs.js";
import { type Auth, browserTransport, NeedsAuthError } from "./transport.js";
import { Vault } from "./vault.js";
import type {
  ClientFrame,
  Operation,
  RecordVersion,
  ServerFrame,
  WelcomeFrame,
} from "./wire.gen.js";
import type { Written } from "./written.js";

const FRAMES = 50;

/** What loads and stores, sends and listens: everything but what is shown at once. */
export class Engine {
  readonly http: Http;
  readonly socket: Socket;
  readonly sync: Sync;
  readonly queue: Queue;
  readonly presences: Presence;
  vault: Vault | undefined;
  pausedBy: Pause | undefined;
  private readonly url: string;
  private readonly auth: Auth;
  private readonly storage: Storage;
  private readonly givenTabs: Tabs;
  private readonly fixedUser: string | null | undefined;
  private readonly tab: string;
  private readonly ends: (() => void)[] = [];
  private frames: readonly SeenFrame[] = [];
  private channel: Channel | undefined;
  private opening: Promise<void> | undefined;
  private hello: WelcomeFrame | undefined;
  private asked = false;

  constructor(private readonly core: Core) {
    const { cache, clock, options, runtime } = core;
    const { schema } = options.schema;
    this.auth = options.auth;
    this.url = options.url ?? (typeof location === "undefined" ? "" : location.origin);
    this.fixedUser = options.userId;
    this.storage =
      options.storage ?? (typeof indexedDB === "undefined" ? memoryStorage() : indexedDbStorage());
    this.givenTabs = options.tabs ?? browserTabs();
    this.tab = core.newId().slice(-12);
    const transport = options.transport ?? browserTransport(this.url);
    this.http = new Http(transport, this.auth, schema, runtime, clock, (user) => this.isUser(user));
    this.socket = new Socket(transport, this.http, runtime, clock, schema, {
      welcome: (frame) => this.welcome(frame),
      frame: (frame) => this.take(frame),
      closed: () => this.disconnected(),
      changed: () => core.changed(),
      paused: (why) => this.pause(why),
      seen: (direction, frame) => this.see(direction, frame),
    });
    this.sync = new Sync(core, this.http, this.socket, this);
    this.queue = new Queue(core, this.sync, this.http, this);
    this.presences = new Presence(this.socket, cache.batch, runtime, (key) => this.sync.hold(key));
  }

  /** Opens what is kept and connects. */
  start(): void {
    const { core } = this;
    this.ends.push(
      core.runtime.onWake(() => this.wake()),
      core.runtime.onHide(() => void this.vault?.flush().catch(core.failed)),
    );
    core.changed();
    void this.boot();
  }

  /** Something was written. */
  wrote(): void {
    this.queue.added();
  }

  /** It is stored. Now that it is shown, too, there is time to ask that it be kept. */
  stored(): void {
    if (this.asked || !this.vault?.store.durable) return;
    this.asked = true;
    this.core.runtime.persist();
  }

  // --- what the parts ask ---

  /** A key has been joined. */
  joined(key: string): void {
    this.presences.joined(key);
  }

  /** Another tab has signed out and removed everything. */
  signedOut(): void {
    this.pausedBy = "auth";
    void this.end();
  }

  /** Whether a request is likely to arrive. */
  reachable(): boolean {
    return this.socket.state === "open" || (this.http.answered && this.core.runtime.online());
  }

  /** The user whose cookie is sent, where a cookie is. */
  author(): string | undefined {
    return this.auth === "cookie" ? (this.core.user ?? undefined) : undefined;
  }

  // --- what the client asks ---

  /** Queues refused writes again. */
  async retry(
    ids: readonly string[],
    changes?: { operations?: readonly Operation[]; expect?: readonly RecordVersion[] | null },
  ): Promise<Written[]> {
    const operations = changes?.operations;
    if (operations) {
      const tx = { txId: this.core.newId(), operations };
      const problem = checkTransaction(tx, this.core.context(tx.txId));
      if (problem) throw new InvalidOperationError(problem);
    }
    return this.queue.retry(ids, changes);
  }

  /** Sends a request of the app's. */
  request(path: string, body: unknown): Promise<unknown> {
    if (this.pausedBy === "auth") throw new NeedsAuthError();
    return this.http.post(path, body);
  }

  /** Goes on after a new sign-in, or an update. */
  resume(): void {
    const { core } = this;
    if (!core.closed && !(core.lastError instanceof UserChangedError)) this.socket.resume();
  }

  /** Removes what is kept of the user, in all tabs, and ends. */
  async signOut(pending: "ask" | "keep" | "discard"): Promise<void> {
    await this.opening;
    await this.queue.saved();
    const { core, vault } = this;
    let files = 0;
    for (const part of core.parts) files += await part.unsent();
    const rejected = core.rejected.getSnapshot().length;
    const count = core.cache.pending.length;
    const unsent = count + rejected + files > 0;
    if (unsent && pending === "ask") throw new PendingWritesError(count, rejected, files);
    const keep = unsent && pending === "keep";
    this.queue.tellSignedOut();
    await this.end(!keep);
    await this.remember(undefined);
    if (!vault) return;
    const { store } = vault;
    // What is being written must not come after.
    await vault.flush().catch(() => {});
    if (keep) {
      const changes: Change[] = [];
      for (const name of ["records", "keys", "queries", "meta"] as const) {
        for (const [key] of await store.all(name)) changes.push({ store: name, key, remove: true });
      }
      await store.commit(changes, { strict: true });
    }
    store.close();
    if (!keep) await this.storage.remove(this.namespace());
  }

  /** Stores what is to be stored, and ends. */
  async close(): Promise<void> {
    await this.opening;
    await this.queue.saved();
    const { core, vault } = this;
    await vault?.flush().catch(core.failed);
    await this.end();
    vault?.store.close();
  }

  // --- the beginning and the end ---

  /** Finds out whose data to open, opens it, and connects. */
  private async boot(): Promise<void> {
    const user = await this.whoIs().catch(this.core.failed);
    if (this.core.closed) return;
    if (user !== undefined) await this.open(user);
    if (!this.core.closed && !this.pausedBy) this.socket.start();
  }

  private async whoIs(): Promise<string | null | undefined> {
    if (this.auth !== "cookie") {
      const asked = this.http.token(false);
      if (this.fixedUser === undefined) {
        // Offline a token may not be to be had: then it is the last user.
        const token = await asked.catch(() => undefined);
        if (this.http.named) return token === undefined ? null : userOfToken(token);
      } else {
        asked.then(
          () => this.sync.retryNow(),
          () => {},
        );
      }
    }
    return this.fixedUser === undefined ? this.remembered() : this.fixedUser;
  }

  private namespace(user = this.core.user): string {
    return `rowcast:${this.url}:${typeof user === "string" ? `=${user}` : ""}`;
  }

  private async remembered(): Promise<string | null | undefined> {
    const store = await this.storage.open(`rowcast:${this.url}`);
    const user = await store.get<{ id: string | null }>("meta", "user");
    store.close();
    return user?.id;
  }

  private async remember(id: string | null | undefined): Promise<void> {
    try {
      const store = await this.storage.open(`rowcast:${this.url}`);
      const what = id === undefined ? { remove: true as const } : { value: { id } };
      await store.commit([{ store: "meta", key: "user", ...what }]);
      store.close();
    } catch (error) {
      this.core.failed(error);
    }
  }

  /** Opens what is kept of a user. */
  private open(user: string | null): Promise<void> {
    this.core.user = user;
    this.core.cache.setUser(user);
    this.core.changed();
    const opening = this.openStore(user).catch(this.core.failed);
    this.opening = opening;
    return opening;
  }

  private async openStore(user: string | null): Promise<void> {
    const name = this.namespace(user);
    const mine = () => !this.core.closed && this.core.user === user;
    let store: Store;
    try {
      store = await this.storage.open(name);
    } catch (error) {
      // A private window: everything works, for as long as the page is there.
      this.core.failed(error);
      store = await memoryStorage().open(name);
    }
    if (!mine()) return store.close();
    const vault = new Vault(store, this.tab, this.core.runtime, this.core.failed);
    // Without a shared storage every tab has a queue of its own.
    const tabs = store.durable ? this.givenTabs : oneTab();
    store.onRemoved?.(() => {
      if (mine()) this.signedOut();
    });
    await this.queue.open(vault, tabs, name);
    const loaded = await vault.load();
    if (!mine()) return store.close();
    this.vault = vault;
    this.sync.open(vault, loaded);
    this.channel = tabs.channel(`rowcast:${this.url}`, (message) => this.hearUser(message));
    this.channel.post({ user });
    this.queue.start(tabs, name);
    await this.remember(user);
    if (this.hello) this.begin(this.hello);
    this.core.changed();
  }

  /** Another tab has opened another user's data: a cookie may be his from now on. */
  private hearUser(message: unknown): void {
    const { user } = message as { user: string | null };
    if (this.auth !== "cookie" || user === this.core.user) return;
    this.hello = undefined;
    this.socket.stop();
    this.socket.start();
  }

  private isUser(user: string | null): boolean {
    return this.core.user === undefined || this.core.user === user;
  }

  /**
   * Whether the server may be asked: what it answers is for this user. Where the token does not say whose it is, as a
   * cookie never does, the welcome of this connection must have said it.
   */
  ready(): boolean {
    if (this.core.closed || this.pausedBy || !this.vault) return false;
    return this.hello !== undefined || this.http.named;
  }

  private welcome(frame: WelcomeFrame): boolean {
    if (this.core.user !== undefined && frame.userId !== this.core.user) {
      this.userChanged(frame);
      return !this.pausedBy;
    }
    this.hello = frame;
    this.pausedBy = undefined;
    this.core.failed(undefined);
    if (this.core.user === undefined) void this.open(frame.userId);
    else if (this.vault) this.begin(frame);
    return true;
  }

  /** The connection is open and the storage, too. */
  private begin(frame: WelcomeFrame): void {
    if (this.socket.state !== "open") return;
    this.presences.opened(frame.heartbeat);
    this.sync.opened(frame.epoch, frame.rights);
    this.queue.wake();
  }

  private disconnected(): void {
    this.hello = undefined;
    this.sync.closed();
    this.presences.closed();
  }

  /** Nothing of the one user is shown to the other. Who was only remembered makes room for him. */
  private userChanged(frame: WelcomeFrame): void {
    const remembered = this.fixedUser === undefined && this.auth === "cookie";
    this.shut();
    if (remembered) {
      this.hello = frame;
      void this.open(frame.userId);
      return;
    }
    this.core.failed(new UserChangedError(frame.userId));
    this.pausedBy = "auth";
    this.socket.stop("paused");
    this.core.changed();
  }

  /** Closes the storage and forgets what was read from it. */
  private shut(): void {
    const { vault } = this;
    this.vault = undefined;
    this.hello = undefined;
    vault?.close();
    this.channel?.close();
    this.channel = undefined;
    this.queue.close();
    this.core.steps.clear();
    this.presences.clear();
    this.core.cache.clear();
    this.sync.close();
  }

  /** The client does nothing any more; `remove` tells what ends with it to keep nothing. */
  end(remove = false): Promise<unknown> | undefined {
    if (this.core.closed) return undefined;
    const ended = this.core.shut(remove);
    for (const end of this.ends) end();
    this.socket.stop();
    this.shut();
    this.core.changed();
    return ended;
  }

  private take(frame: ServerFrame): void {
    if (frame.type === "presence") this.presences.take(frame);
    else if (frame.type === "broadcast") this.presences.hear(frame);
    else this.sync.take(frame);
  }

  private wake(): void {
    if (this.core.closed) return;
    if (this.pausedBy === "auth") this.resume();
    this.socket.wake();
    this.sync.retryNow();
    void this.queue
      .reconcile()
      .catch(this.core.failed)
      .then(() => this.queue.wake());
  }

  pause(why: Pause): void {
    if (this.pausedBy) return;
    this.pausedBy = why;
    if (why === "auth" && !this.core.lastError) this.core.lastError = new NeedsAuthError();
    this.socket.stop("paused");
    this.core.changed();
  }

  private see(direction: "in" | "out", frame: ClientFrame | ServerFrame): void {
    // Tokens are nobody's to look at.
    const shown = "token" in frame ? { ...frame, token: "..." } : frame;
    const seen = { at: this.core.runtime.now(), direction, frame: shown };
    this.frames = [...this.frames.slice(1 - FRAMES), seen];
    this.core.stir();
  }

  describe(): DebugState {
    return {
      socket: this.socket.state,
      userId: this.core.user,
      epoch: this.vault?.epoch,
      cursor: this.vault?.cursor,
      ...this.sync.describe(),
      pending: this.core.cache.pending.map(({ tx: { txId, operations }, attempted }) => ({
        txId,
        operations,
        attempted,
      })),
      rejected: this.core.rejected.getSnapshot(),
      frames: this.frames,
    };
  }
}
