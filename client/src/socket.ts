import type { Http, Pause } from "./http.js";
import type { ServerClock } from "./ids.js";
import { backoff, type Runtime } from "./runtime.js";
import { type Connection, NeedsAuthError, type Transport } from "./transport.js";
import {
  CLOSE_GOING_AWAY,
  CLOSE_SIGN_IN,
  CLOSE_UPGRADE,
  type ClientFrame,
  type FrameId,
  PROTOCOL,
  type ServerFrame,
  type WelcomeFrame,
} from "./wire.gen.js";

/** Where a connection stands. */
export type SocketState = "idle" | "connecting" | "open" | "waiting" | "paused";

/** What the socket tells the rest of the engine. */
export interface SocketListener {
  /** It is open, for the user who was expected. False: it is another user, and the socket is to be closed. */
  welcome(frame: WelcomeFrame): boolean;
  frame(frame: ServerFrame): void;
  /** It was open and is not any more. */
  closed(): void;
  /** Its state has changed. */
  changed(): void;
  paused(why: Pause): void;
  /** Frames for those who look on: sent or received. */
  seen(direction: "in" | "out", frame: ClientFrame | ServerFrame): void;
}

const WELCOME_SECONDS = 15;
const PONG_SECONDS = 10;
/** A renewed token is asked for so long before the old one ends. */
const RENEW_SECONDS = 60;

/** The connection: made again whenever it ends, watched for silence, with a token that is always valid. */
export class Socket {
  state: SocketState = "idle";
  /** Connections that ended since the last one that was opened. */
  failures = 0;
  private connection: Connection | undefined;
  private timers: (() => void)[] = [];
  private renewing = false;
  private firm = false;
  private lastHeard = 0;
  private heartbeat = 20;
  private frames = 0;
  /** Counts connections: what belongs to an earlier one is ignored. */
  private attempt = 0;

  constructor(
    private readonly transport: Transport,
    private readonly http: Http,
    private readonly runtime: Runtime,
    private readonly clock: ServerClock,
    private readonly schema: number | undefined,
    private readonly listener: SocketListener,
  ) {}

  /** Connects, if that is not going on already. */
  start(): void {
    if (this.state === "idle" || this.state === "waiting") void this.connect();
  }

  /** Ends it. */
  stop(state: "idle" | "paused" = "idle"): void {
    const wasOpen = this.state === "open";
    this.leave();
    this.become(state);
    if (wasOpen) this.listener.closed();
  }

  /** Goes on after a pause. */
  resume(): void {
    if (this.state === "paused") this.state = "idle";
    this.renewing = false;
    this.start();
  }

  /** It may be worth trying at once: the network is back, or the page is seen again. */
  wake(): void {
    if (this.state === "waiting" && !this.firm) this.start();
    else if (this.state === "open" && this.silence() > 5000) this.ping();
  }

  /** Sends a frame; false where there is no connection. */
  send(frame: ClientFrame): boolean {
    if (this.state !== "open" || !this.connection) return false;
    this.listener.seen("out", frame);
    this.connection.send(JSON.stringify(frame));
    return true;
  }

  /** An id for a frame. */
  nextId(): FrameId {
    return ++this.frames;
  }

  private become(state: SocketState): void {
    if (this.state === state) return;
    this.state = state;
    this.listener.changed();
  }

  private leave(): void {
    this.attempt++;
    for (const stop of this.timers) stop();
    this.timers = [];
    this.connection?.close();
    this.connection = undefined;
  }

  private later(work: () => void, milliseconds: number): void {
    this.timers.push(this.runtime.later(work, milliseconds));
  }

  private async connect(): Promise<void> {
    this.leave();
    const attempt = this.attempt;
    this.become("connecting");
    let token: string | undefined;
    try {
      token = await this.http.token(this.renewing);
    } catch (error) {
      if (attempt !== this.attempt) return;
      if (error instanceof NeedsAuthError) this.pause("auth");
      else this.wait();
      return;
    }
    if (attempt !== this.attempt) return;
    this.later(() => this.wait(), WELCOME_SECONDS * 1000);
    const began = this.runtime.now();
    const mine = () => attempt === this.attempt;
    this.connection = this.transport.connect("/api/realtime/socket", {
      opened: () => {
        if (!mine()) return;
        const hello: ClientFrame = { type: "hello", protocol: PROTOCOL };
        if (this.schema !== undefined) hello.schema = this.schema;
        if (token !== undefined) hello.token = token;
        this.listener.seen("out", hello);
        this.connection?.send(JSON.stringify(hello));
      },
      message: (text) => {
        if (mine()) this.receive(text, began);
      },
      closed: (code, reason) => {
        if (mine()) this.ended(code, reason);
      },
    });
  }

  private receive(text: string, began: number): void {
    this.lastHeard = this.runtime.now();
    let frame: ServerFrame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof frame?.type !== "string") return;
    this.listener.seen("in", frame);
    if (frame.type === "welcome") {
      if (this.state !== "connecting") return;
      this.opened(frame, this.lastHeard - began);
    } else if (this.state === "open") {
      if (frame.type === "authed") this.renewBefore(frame.expiresAt);
      this.listener.frame(frame);
    }
  }

  private opened(frame: WelcomeFrame, roundTrip: number): void {
    for (const stop of this.timers) stop();
    this.timers = [];
    this.clock.adjust(frame.serverTime, roundTrip);
    this.heartbeat = frame.heartbeat || this.heartbeat;
    this.failures = 0;
    this.renewing = false;
    this.become("open");
    if (!this.listener.welcome(frame)) return;
    this.watch();
    this.renewBefore(frame.expiresAt);
  }

  private silence(): number {
    return this.runtime.now() - this.lastHeard;
  }

  /** Asks after a heartbeat of silence. */
  private watch(): void {
    const silent = this.heartbeat * 1000;
    this.later(
      () => {
        if (this.silence() >= silent) this.ping();
        else this.watch();
      },
      Math.max(silent - this.silence(), 1),
    );
  }

  private ping(): void {
    const asked = this.runtime.now();
    this.send({ type: "ping" });
    this.later(() => {
      if (this.lastHeard < asked) this.wait();
      else this.watch();
    }, PONG_SECONDS * 1000);
  }

  private renewBefore(expiresAt: string | undefined): void {
    const left = expiresAt ? Date.parse(expiresAt) - this.clock.now() : Number.NaN;
    if (!(left > 0)) return;
    const attempt = this.attempt;
    this.later(
      async () => {
        const token = await this.http.token(true).catch(() => undefined);
        if (token !== undefined && attempt === this.attempt) this.send({ type: "auth", token });
      },
      Math.min(Math.max(left - RENEW_SECONDS * 1000, left / 2), 2 ** 31 - 1),
    );
  }

  private ended(code: number, reason: string): void {
    if (code === CLOSE_UPGRADE) this.pause("upgrade");
    else if (code === CLOSE_SIGN_IN && this.renewing) this.pause("auth");
    else if (code === CLOSE_SIGN_IN) {
      this.renewing = true;
      this.wait(0);
    } else {
      const [, seconds] = /; retry-after=([\d.]+)$/.exec(reason) ?? [];
      // A drain without a time is still no failure of this client's: a short random wait.
      if (seconds !== undefined) this.wait(Number(seconds) * 1000);
      else this.wait(code === CLOSE_GOING_AWAY ? backoff(this.runtime, 1) : undefined);
    }
  }

  private pause(why: Pause): void {
    this.stop("paused");
    this.listener.paused(why);
  }

  /** Connects again after a while: so long, or a random time that grows with each failure. */
  private wait(milliseconds?: number): void {
    const wasOpen = this.state === "open";
    this.leave();
    this.firm = milliseconds !== undefined && milliseconds > 0;
    this.later(() => this.start(), milliseconds ?? backoff(this.runtime, this.failures));
    this.failures++;
    this.become("waiting");
    if (wasOpen) this.listener.closed();
  }
}
