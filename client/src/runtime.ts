import type { FillRandom } from "./ids.js";

/** Everything the engine knows of the world outside: clock, timers, chance, and the page it lives in. */
export interface Runtime {
  /** The device's clock, in milliseconds since 1970. */
  now(): number;
  /** Between 0 and 1, for jitter. */
  random(): number;
  /** Fills bytes at random, for ids. */
  fill: FillRandom;
  /** Runs something once, later. Gives what calls it off. */
  later(work: () => void, milliseconds: number): () => void;
  /** Whether somebody can see the page. */
  visible(): boolean;
  /** False where the device itself knows that it has no network. */
  online(): boolean;
  /** Calls back when it is worth trying again: network there, page visible, page taken out of the cache. */
  onWake(listener: () => void): () => void;
  /** Calls back when the page may be about to end. */
  onHide(listener: () => void): () => void;
  /** Whether the user is asked before the page ends. */
  holdPage(on: boolean): void;
  /** Asks that the device keep what is stored. */
  persist(): void;
}

/** The runtime of browsers; in Node, React Native and workers what is missing there is left out. */
export function browserRuntime(): Runtime {
  const page = typeof document === "undefined" ? undefined : document;
  const target = typeof addEventListener === "function" ? globalThis : undefined;
  const listen = (pairs: [EventTarget | undefined, string][], listener: () => void) => {
    for (const [on, name] of pairs) on?.addEventListener(name, listener);
    return () => {
      for (const [on, name] of pairs) on?.removeEventListener(name, listener);
    };
  };
  const ask = (event: Event) => event.preventDefault();
  return {
    now: () => Date.now(),
    random: () => Math.random(),
    fill: (bytes) => crypto.getRandomValues(bytes),
    later(work, milliseconds) {
      const timer = setTimeout(work, milliseconds);
      return () => clearTimeout(timer);
    },
    visible: () => page?.visibilityState !== "hidden",
    online: () => typeof navigator === "undefined" || navigator.onLine !== false,
    onWake: (listener) =>
      listen(
        [
          [target, "online"],
          [target, "pageshow"],
          [page, "visibilitychange"],
        ],
        () => {
          if (page?.visibilityState !== "hidden") listener();
        },
      ),
    onHide: (listener) =>
      listen(
        [
          [target, "pagehide"],
          [page, "visibilitychange"],
        ],
        () => {
          if (!page || page.visibilityState === "hidden") listener();
        },
      ),
    holdPage: (on) => target?.[`${on ? "add" : "remove"}EventListener`]("beforeunload", ask),
    persist() {
      if (typeof navigator !== "undefined") navigator.storage?.persist?.().catch(() => {});
    },
  };
}

/** A random time below a bound that doubles with each failure: full jitter. Milliseconds. */
export function backoff(runtime: Runtime, failures: number, first = 500, most = 30_000): number {
  return runtime.random() * Math.min(most, first * 2 ** Math.min(failures, 16));
}
