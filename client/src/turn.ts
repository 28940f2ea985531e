import type { Runtime } from "./runtime.js";
import type { Tabs } from "./tabs.js";

const BEAT_MS = 3000;
const SILENCE_MS = 10_000;

/** What a tab's turn is about. */
export interface TurnListener {
  /** It is this tab's turn. */
  came(): void;
  /** The other tabs are to hear that this one is there. */
  beat(): void;
  /** Whether something waits for whoever's turn it is. */
  waiting(): boolean;
}

/**
 * Whose turn it is to send: one tab's, which lets itself be heard. Another that somebody looks at takes over from one
 * that has fallen silent.
 */
export class Turn {
  /** Whether it is this tab's. */
  held = false;
  private lastBeat: number;
  private release: (() => void) | undefined;
  private stopTimer: (() => void) | undefined;

  constructor(
    private readonly tabs: Tabs,
    private readonly name: string,
    private readonly runtime: Runtime,
    private readonly listener: TurnListener,
  ) {
    this.lastBeat = runtime.now();
    this.ask(false);
    this.watch();
  }

  /** The tab whose turn it is was heard. */
  heard(): void {
    this.lastBeat = this.runtime.now();
  }

  /** Gives the turn back, or asks for it no more. */
  end(): void {
    this.held = false;
    this.release?.();
    this.stopTimer?.();
  }

  private ask(steal: boolean): void {
    this.release?.();
    this.release = this.tabs.lock(
      this.name,
      steal,
      () => {
        this.held = true;
        this.listener.beat();
        this.listener.came();
      },
      () => {
        this.held = false;
        this.heard();
        this.ask(false);
      },
    );
  }

  private watch(): void {
    this.stopTimer = this.runtime.later(() => {
      if (this.held) this.listener.beat();
      else if (
        this.listener.waiting() &&
        this.runtime.visible() &&
        this.runtime.now() - this.lastBeat > SILENCE_MS
      ) {
        this.heard();
        this.ask(true);
      }
      this.watch();
    }, BEAT_MS);
  }
}
