import { type Answer, type Entry, type Records, readAnswers, refusalOf } from "./answers.js";
import type { Cache } from "./cache.js";
import type { Core } from "./core.js";
import { RefusedError } from "./errors.js";
import { askedWait, type Http, type Pause, pauseOf } from "./http.js";
import { type ServerClock, timeOfId } from "./ids.js";
import { byteLength, isObject } from "./json.js";
import { blockedBy } from "./needs.js";
import type { Cell } from "./readable.js";
import { backoff, type Runtime } from "./runtime.js";
import type { Pending } from "./slots.js";
import { type Change, StorageError } from "./storage.js";
import type { Sync } from "./sync.js";
import type { Channel, Tabs } from "./tabs.js";
import { NetworkError } from "./transport.js";
import { Turn } from "./turn.js";
import type { Vault } from "./vault.js";
import type { Operation, Problem, RecordVersion, Transaction } from "./wire.gen.js";
import { Outcome, type Receipt, type Rejected, type Written } from "./written.js";

/** A transaction as the queue stores it. */
interface QueueRow {
  tx: Transaction;
  now: string;
  attempted?: true;
}

/** A refused transaction as it is stored, under the key it had in the queue. */
interface InboxRow {
  tx: Transaction;
  problem: Problem;
  at: number;
}

/** When an answer to another tab was asked for: before anything that was read here. */
const FOREIGN = -1;

/** What tabs tell each other. */
type Message =
  | { type: "queued"; rows: [string, QueueRow][]; on: number }
  | { type: "settled"; answers: [string, Answer][] }
  | { type: "renamed"; key: string; txId: string }
  | { type: "inbox" | "beat" | "signed-out" };

/** What the queue needs of the engine around it. */
export interface QueueHost {
  /** Whether something may be sent: it is known who asks, and nothing is paused. */
  ready(): boolean;
  /** Whether a request is likely to arrive. */
  reachable(): boolean;
  pause(why: Pause): void;
  /** Another tab has signed out. */
  signedOut(): void;
  /** The user whose cookie is sent, where a cookie is. */
  author(): string | undefined;
  /** Something was written and is stored. */
  stored(): void;
}

const MAX_TRANSACTIONS = 50;
const MAX_BYTES = 512 * 1024;
/** Receipts are kept for 30 days; what is older than half of that and was never sent gets a new id. */
const HALF_RETENTION = 15 * 86_400_000;
const REMEMBERED = 10_000;

/** Pending transactions: stored, shown in every tab, sent by one of them in order, and what becomes of them. */
export class Queue {
  private readonly cache: Cache;
  private readonly runtime: Runtime;
  private readonly clock: ServerClock;
  private readonly newId: () => string;
  private readonly inbox: Cell<readonly Rejected[]>;
  private readonly written: Map<Pending, Written>;
  private readonly unsaved: Pending[];
  private readonly rows = new Map<string, Pending>();
  /** Keys of rows that were answered, so that a late message does not bring one back. */
  private readonly done = new Set<string>();
  private vault: Vault | undefined;
  private channel: Channel | undefined;
  private turn: Turn | undefined;
  private sending = false;
  private saving = false;
  private stopTimer: (() => void) | undefined;
  private firm = false;
  private failures = 0;
  /** So many transactions are sent one by one: together they were refused. */
  private singly = 0;
  private generation = 0;

  constructor(
    private readonly core: Core,
    private readonly sync: Sync,
    private readonly http: Http,
    private readonly host: QueueHost,
  ) {
    this.cache = core.cache;
    this.runtime = core.runtime;
    this.clock = core.clock;
    this.newId = core.newId;
    this.inbox = core.rejected;
    this.written = core.written;
    this.unsaved = core.unsaved;
  }

  /** Something was written. */
  added(): void {
    if (this.saving) return;
    this.saving = true;
    queueMicrotask(() => this.save());
  }

  /** Stores what was written meanwhile, all in one commit. */
  private async save(): Promise<void> {
    const { vault, generation } = this;
    const some = vault ? this.unsaved.splice(0) : [];
    if (!vault || !some.length) {
      this.saving = false;
      return;
    }
    try {
      const rows = some.map(rowOf);
      const keys = await vault.append(rows);
      if (generation !== this.generation) return;
      this.stored(some, keys);
      this.tellQueued(keys, rows);
      this.host.stored();
      this.core.changed();
      this.wake();
    } catch (error) {
      if (generation !== this.generation) return;
      for (const pending of some) {
        this.cache.remove(pending, true);
        this.fail(pending, error);
      }
      this.core.failed(error);
    }
    await this.save();
  }

  private stored(some: readonly Pending[], keys: readonly string[]): void {
    // One may have been found in the queue meanwhile.
    const found = some.filter(({ key }) => key === undefined);
    for (const [at, key] of keys.entries()) {
      const pending = some[at] as Pending;
      pending.key ??= key;
      // Another tab sends it when it likes.
      pending.uncertain ||= !this.turn?.held;
      this.rows.set(key, pending);
      this.written.get(pending)?.saved.settle();
    }
    if (found.length) this.cache.store(found);
  }

  private fail(pending: Pending, error: unknown): void {
    const written = this.written.get(pending);
    this.written.delete(pending);
    written?.saved.fail(error);
    written?.confirmed.fail(error);
    this.core.steps.ended(pending, true);
    this.core.changed();
  }

  // --- opening, other tabs ---

  /** Takes over the queue of a user: shows what is in it and listens to the other tabs. Nothing is sent before `start`. */
  async open(vault: Vault, tabs: Tabs, name: string): Promise<void> {
    const { generation } = this;
    this.channel = tabs.channel(name, (message) => {
      if (generation !== this.generation || !isObject(message)) return;
      // What comes before the rows are read is looked at after that.
      if (early) early.push(message as unknown as Message);
      else this.hear(message as unknown as Message);
    });
    let early: Message[] | undefined = [];
    const queue = await vault.store.all<QueueRow>("queue");
    await this.readInbox(vault);
    if (generation !== this.generation) return;
    this.vault = vault;
    for (const [key, row] of queue) this.adopt(key, row);
    const missed = early;
    early = undefined;
    for (const message of missed) this.hear(message);
  }

  /** Stores what was written meanwhile, and sends once it is this tab's turn. */
  start(tabs: Tabs, name: string): void {
    this.turn = new Turn(tabs, `${name}:sender`, this.runtime, {
      came: () => void this.reconcile().then(() => this.wake()),
      beat: () => this.post({ type: "beat" }),
      waiting: () => this.rows.size > 0,
    });
    this.saving = true;
    void this.save();
  }

  /** Resolves when all that was written is stored or has failed. */
  async saved(): Promise<void> {
    await Promise.allSettled([...this.written.values()].map(({ saved }) => saved.get()));
  }

  /** Lets go of the queue; what is not stored yet has failed. */
  close(): void {
    this.generation++;
    this.turn?.end();
    this.stopTimer?.();
    this.channel?.close();
    this.vault = this.channel = this.turn = this.stopTimer = undefined;
    this.sending = this.saving = this.firm = false;
    this.failures = this.singly = 0;
    for (const pending of this.unsaved.splice(0)) {
      this.fail(pending, new StorageError("The client was closed before that"));
    }
    const closed = new StorageError("The client was closed; the change stays queued");
    for (const { saved, confirmed } of this.written.values()) {
      saved.fail(closed);
      confirmed.fail(closed);
    }
    this.written.clear();
    this.rows.clear();
    this.done.clear();
    this.inbox.set([]);
  }

  /** Tells the other tabs that the user has signed out. */
  tellSignedOut(): void {
    this.post({ type: "signed-out" });
  }

  /** Asks storage what the queue and the inbox are: messages may have been missed while the page was frozen. */
  async reconcile(): Promise<void> {
    const { vault, generation } = this;
    if (!vault) return;
    const known = [...this.rows.keys()];
    const rows = new Map(await vault.store.all<QueueRow>("queue"));
    await this.readInbox(vault);
    if (generation !== this.generation) return;
    for (const [key, row] of rows) this.adopt(key, row);
    for (const key of known) {
      const pending = this.rows.get(key);
      if (rows.has(key) || !pending) continue;
      const refused = this.inbox.getSnapshot().find(({ id }) => id === key);
      if (refused) this.settle(key, pending, { problem: refused.problem });
      else {
        // Applied, and nobody is left to say how: what is read from now on contains it.
        const tick = this.cache.next();
        for (const part of pending.parts) {
          part.since = tick;
          this.cache.want(part.slot);
        }
        const { txId } = pending.tx;
        this.settle(key, pending, { receipt: { txId, versions: [], values: [] }, records: [] });
      }
    }
    this.core.changed();
  }

  private async readInbox(vault = this.vault): Promise<void> {
    if (!vault) return;
    const rows = await vault.store.all<InboxRow>("inbox");
    if (this.vault && this.vault !== vault) return;
    this.inbox.set(
      rows.map(([id, { tx, problem, at }]) => ({
        id,
        txId: tx.txId,
        operations: tx.operations,
        ...(tx.expect && { expect: tx.expect }),
        problem,
        error: new RefusedError(problem),
        at,
      })),
    );
    this.core.changed();
  }

  private adopt(key: string, row: QueueRow, on = Infinity): Pending | undefined {
    const known = this.rows.get(key);
    if (known || this.done.has(key)) return known;
    // Stored by this tab a moment ago, and read before that was told.
    const own = this.cache.pending.find(
      (one) => one.key === undefined && one.tx.txId === row.tx.txId,
    );
    if (own) this.stored([own], [key]);
    else {
      const pending = this.cache.add(row.tx, row.now, key, row.attempted);
      pending.uncertain ||= !this.turn?.held;
      for (const part of pending.parts) part.doubted = part.slot.answeredOn >= on;
      this.rows.set(key, pending);
      this.core.changed();
    }
    return this.rows.get(key);
  }

  /** Before they are sent: what was answered sooner does not contain them. */
  private tellQueued(keys: readonly string[], rows: readonly QueueRow[]): void {
    this.post({
      type: "queued",
      rows: keys.map((key, at) => [key, rows[at] as QueueRow]),
      on: this.runtime.now(),
    });
  }

  private post(message: Message): void {
    this.channel?.post(message);
  }

  private hear(message: Message): void {
    switch (message.type) {
      case "queued":
        for (const [key, row] of message.rows) this.adopt(key, row, message.on);
        this.wake();
        break;
      case "settled":
        for (const [key, answer] of message.answers) this.settleForeign(key, answer);
        if (message.answers.some(([, answer]) => "problem" in answer)) void this.readInbox();
        break;
      case "renamed": {
        const pending = this.rows.get(message.key);
        if (pending) pending.tx = { ...pending.tx, txId: message.txId };
        break;
      }
      case "inbox":
        void this.readInbox();
        break;
      case "beat":
        this.turn?.heard();
        break;
      case "signed-out":
        this.host.signedOut();
    }
  }

  private settleForeign(key: string, answer: Answer): void {
    const pending = this.rows.get(key);
    if (!pending) {
      this.remember(key);
      return;
    }
    if ("receipt" in answer) {
      this.contain(pending, answer.records, FOREIGN);
      this.take(answer.receipt, answer.records, FOREIGN);
    }
    this.settle(key, pending, answer);
    this.core.changed();
  }

  // --- sending ---

  /** There may be something to send, or a reason to try again before the timer says so. */
  wake(): void {
    if (this.firm || this.sending || !this.turn?.held) return;
    this.stopTimer?.();
    this.stopTimer = undefined;
    void this.send();
  }

  private async send(): Promise<void> {
    const { generation } = this;
    this.sending = true;
    let error: unknown;
    try {
      while (generation === this.generation && this.turn?.held && this.host.ready()) {
        if (!(await this.sendSome(generation))) break;
        this.failures = 0;
        this.core.failed(undefined);
      }
    } catch (cause) {
      error = cause;
    }
    if (generation !== this.generation) return;
    this.sending = false;
    if (error !== undefined) this.later(error);
    this.core.changed();
  }

  /** Sends one request; false where there was nothing to send. Rejects where it is to be tried again later. */
  private async sendSome(generation: number): Promise<boolean> {
    const vault = this.vault as Vault;
    // From storage, not from memory: what other tabs have appended is there even where their message is not.
    const some = (most: number) => vault.store.all<QueueRow>("queue", most);
    let stored = await some(MAX_TRANSACTIONS);
    // Answered all of them, and not out of storage: what follows is behind.
    if (stored.length === MAX_TRANSACTIONS && stored.every(([key]) => this.done.has(key))) {
      stored = await some(MAX_TRANSACTIONS + this.done.size);
    }
    if (generation !== this.generation) return false;
    const batch: Entry[] = [];
    let bytes = 0;
    for (const [key, row] of stored) {
      const pending = this.adopt(key, row);
      if (!pending) continue;
      pending.attempted ||= row.attempted ?? false;
      bytes += byteLength(JSON.stringify(pending.tx));
      const full = batch.length >= (this.singly ? 1 : MAX_TRANSACTIONS) || bytes > MAX_BYTES;
      if (batch.length && full) break;
      batch.push([key, pending]);
    }
    if (!batch.length) return false;
    this.probe(batch);
    await this.attempt(vault, batch);
    if (generation !== this.generation) return false;
    const author = this.host.author();
    const sent = this.cache.next();
    let body: unknown;
    try {
      body = await this.http.post("/api/realtime/write", {
        transactions: batch.map(([, { tx }]) => (author ? { ...tx, authorId: author } : tx)),
      });
    } catch (error) {
      if (generation !== this.generation) return false;
      const problem = refusalOf(error, batch.length);
      if (!problem) throw error;
      if (batch.length > 1) this.singly = batch.length;
      else {
        this.singly = Math.max(0, this.singly - 1);
        await this.settleAll(vault, [[batch[0] as Entry, { problem }]]);
      }
      return true;
    }
    if (generation !== this.generation) return false;
    this.singly = Math.max(0, this.singly - batch.length);
    await this.takeAnswer(vault, batch, body, sent);
    return true;
  }

  /**
   * What was never sent can be given another id, however long it waits. So nothing is sent on the off chance: where
   * neither the socket nor the last request has found the server, a harmless read asks first.
   */
  private probe(batch: readonly Entry[]): void {
    if (this.host.reachable() || batch.every(([, { attempted }]) => attempted)) return;
    const [part] = batch.flatMap(([, { parts }]) => parts);
    if (!part) return;
    this.sync.want(part.slot);
    throw new NetworkError("No answer came");
  }

  /** Before it is sent for the first time, a row says so; one that waited long gets another id. */
  private async attempt(vault: Vault, batch: readonly Entry[]): Promise<void> {
    const changes: Change[] = [];
    const renamed: Message[] = [];
    for (const [key, pending] of batch) {
      pending.uncertain = true;
      if (pending.attempted) continue;
      const made = timeOfId(pending.tx.txId);
      if (made !== null && made < this.clock.now() - HALF_RETENTION) {
        pending.tx = { ...pending.tx, txId: this.newId() };
        renamed.push({ type: "renamed", key, txId: pending.tx.txId });
      }
      pending.attempted = true;
      changes.push({ store: "queue", key, value: rowOf(pending) });
    }
    // Should this not be stored, the worst is a row that is taken for a fresh one after weeks.
    await vault.store.commit(changes).catch(this.core.failed);
    for (const message of renamed) this.post(message);
  }

  private async takeAnswer(
    vault: Vault,
    batch: readonly Entry[],
    body: unknown,
    sent: number,
  ): Promise<void> {
    const { ended, later } = readAnswers(batch, body);
    for (const [[, pending], answer] of ended) {
      if ("receipt" in answer) this.contain(pending, answer.records, sent);
    }
    for (const [, answer] of ended) {
      if ("receipt" in answer) this.take(answer.receipt, answer.records, sent);
      else if (answer.problem.recordMap) this.cache.takeMap(answer.problem.recordMap, sent);
    }
    if (ended.length) await this.settleAll(vault, ended);
    if (later === undefined) return;
    if (ended.length) this.failures = 0;
    throw later;
  }

  /**
   * The records of an answer contain the transaction, whatever versions it had when it was applied. Those of another
   * epoch, perhaps, count for nothing: what is heard from now on contains it.
   */
  private contain({ parts, tx }: Pending, records: Records, sent: number): void {
    const since = this.cache.next();
    for (const part of parts) {
      const { table, id } = part.slot;
      const [, , record] = records.find((one) => one[0] === table.name && one[1] === id) ?? [];
      if (sent < this.cache.epochAt) part.since = since;
      else this.cache.contain(tx.txId, part.slot, Number(record?.version ?? 0));
    }
  }

  /** Takes in the records of an answer, asked for at a tick. */
  private take({ txId }: Receipt, records: Records, sent: number): void {
    for (const [table, id, record] of records) {
      const slot = this.cache.slotOf(table, id);
      if (!slot) continue;
      const foreign = sent === FOREIGN;
      if (foreign && (!record || slot.old)) this.cache.want(slot);
      else this.sync.takePointed(slot, record, sent, txId);
    }
  }

  /** Answered transactions leave the queue, refused ones for the inbox, together with the records the answers brought. */
  private async settleAll(vault: Vault, ended: readonly [Entry, Answer][]): Promise<void> {
    const all = [...ended, ...this.blocked(ended)];
    const changes: Change[] = [];
    for (const [[key, pending], answer] of all) {
      changes.push({ store: "queue", key, remove: true });
      if ("problem" in answer) {
        const { tx } = pending;
        const { recordMap: _, ...problem } = answer.problem;
        const row: InboxRow = { tx, problem: problem as Problem, at: this.runtime.now() };
        changes.push({ store: "inbox", key, value: row });
      }
    }
    for (const [[key, pending], answer] of all) {
      if ("problem" in answer) this.doubt(pending);
      this.settle(key, pending, answer, true);
    }
    await vault.flush(changes).catch(this.core.failed);
    this.post({ type: "settled", answers: all.map(([[key], answer]) => [key, answer]) });
    if (all.some(([, answer]) => "problem" in answer)) await this.readInbox(vault);
    for (const [[, pending], answer] of all) this.tell(pending, answer);
    this.core.changed();
  }

  /** What was refused may be so because what is held is out of date. */
  private doubt(pending: Pending): void {
    for (const { slot } of pending.parts) if (slot.server) this.cache.want(slot);
  }

  private settle(key: string, pending: Pending, answer: Answer, quiet = false): void {
    this.rows.delete(key);
    this.remember(key);
    const refused = "problem" in answer;
    this.cache.remove(pending, refused);
    this.core.steps.ended(pending, refused);
    if (!quiet) this.tell(pending, answer);
  }

  private tell(pending: Pending, answer: Answer): void {
    const written = this.written.get(pending);
    this.written.delete(pending);
    if ("receipt" in answer) written?.confirmed.settle(answer.receipt);
    else written?.confirmed.fail(new RefusedError(answer.problem));
  }

  private remember(key: string): void {
    this.done.add(key);
    const [oldest = key] = this.done;
    if (this.done.size > REMEMBERED) this.done.delete(oldest);
  }

  /** Queued transactions that need a record whose create was refused just now: they are not sent. */
  private blocked(ended: readonly [Entry, Answer][]): [Entry, Answer][] {
    const refused = ended.filter(
      ([, answer]) => "problem" in answer && answer.problem.code !== "exists",
    );
    if (!refused.length) return [];
    const gone = new Set(ended.map(([[key]]) => key));
    return blockedBy(
      refused.map(([[, { tx }]]) => tx),
      this.cache.pending.filter(({ key }) => key !== undefined && !gone.has(key)),
      this.cache.schema,
    ).map(([pending, blockedBy]) => {
      const problem: Problem = {
        type: "about:blank",
        title: "Blocked",
        status: 424,
        code: "blocked",
        blockedBy,
      };
      return [[pending.key as string, pending], { problem }];
    });
  }

  /** Tries again after a while, unless everything is paused. */
  private later(error: unknown): void {
    this.core.failed(error);
    const why = pauseOf(error);
    if (why) {
      this.host.pause(why);
      return;
    }
    const asked = askedWait(error);
    const wait = Math.max(asked, backoff(this.runtime, this.failures++));
    this.firm = asked > 0;
    this.stopTimer?.();
    this.stopTimer = this.runtime.later(() => {
      this.firm = false;
      this.wake();
    }, wait);
  }

  // --- the inbox ---

  /**
   * Queues refused transactions again, with new ids and in their old order, together with those they blocked.
   * `changes` replaces operations or expectations of a single one.
   */
  async retry(
    ids: readonly string[],
    changes: { operations?: readonly Operation[]; expect?: readonly RecordVersion[] | null } = {},
  ): Promise<Written[]> {
    const { vault } = this;
    if (!vault) throw new StorageError("The client is not open");
    const all = this.inbox.getSnapshot();
    const chosen = new Set(ids);
    // Those that were blocked come after what blocked them.
    for (const { id, problem } of all) {
      const { blockedBy } = problem;
      if (blockedBy && all.some((one) => chosen.has(one.id) && one.txId === blockedBy))
        chosen.add(id);
    }
    const entries = all.filter(({ id }) => chosen.has(id));
    if (!entries.length) return [];
    const now = this.clock.wireNow();
    const rows = entries.map(({ id, operations, expect }): QueueRow => {
      const edited = ids.length === 1 && id === ids[0] ? changes : {};
      const tx: Transaction = { txId: this.newId(), operations: edited.operations ?? operations };
      const wanted = edited.expect === undefined ? expect : edited.expect;
      if (wanted) tx.expect = wanted;
      return { tx, now };
    });
    const keys = await vault.append(
      rows,
      entries.map(({ id }) => ({
        store: "inbox",
        key: id,
        revise(stored) {
          // Another tab was faster.
          if (!stored) throw new StorageError("It is not there any more");
          return undefined;
        },
      })),
    );
    const written = keys.map((key, at) => {
      const pending = this.adopt(key, rows[at] as QueueRow) as Pending;
      const one = { pending, saved: new Outcome<void>(), confirmed: new Outcome<Receipt>() };
      one.saved.settle();
      this.written.set(pending, one);
      return one;
    });
    this.tellQueued(keys, rows);
    this.post({ type: "inbox" });
    await this.readInbox(vault);
    this.wake();
    return written;
  }

  /** Forgets a refused transaction. */
  async discard(ids: readonly string[]): Promise<void> {
    const { vault } = this;
    if (!vault) return;
    await vault.flush(ids.map((key) => ({ store: "inbox", key, remove: true })));
    this.post({ type: "inbox" });
    await this.readInbox(vault);
  }
}

function rowOf({ tx, now, attempted }: Pending): QueueRow {
  return { tx, now, ...(attempted && { attempted }) };
}
