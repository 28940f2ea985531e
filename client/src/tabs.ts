/** Where messages to the other tabs go. */
export interface Channel {
  /** Tells every other tab, not this one. */
  post(message: unknown): void;
  close(): void;
}

/** What the tabs of one browser share besides storage: a channel and locks. */
export interface Tabs {
  /** Opens a channel. Messages of one tab come in the order they were posted. */
  channel(name: string, listener: (message: unknown) => void): Channel;
  /**
   * Asks for a lock and keeps it until given back. `granted` is called once it is held, `lost` once another tab
   * has taken it away. `steal` takes it from whoever holds it. Gives what gives it back, or stops waiting:
   * neither is called after that.
   */
  lock(name: string, steal: boolean, granted: () => void, lost: () => void): () => void;
}

/** A page alone: messages go nowhere, every lock is free. */
export function oneTab(): Tabs {
  return {
    channel: () => ({ post() {}, close() {} }),
    lock(_name, _steal, granted) {
      let wanted = true;
      queueMicrotask(() => {
        if (wanted) granted();
      });
      return () => {
        wanted = false;
      };
    },
  };
}

/**
 * The tabs of a browser, by BroadcastChannel and Web Locks. Where there are no Web Locks (a page without TLS) every tab
 * sends the shared queue; transactions still take effect once, by their ids.
 */
export function browserTabs(): Tabs {
  const alone = oneTab();
  const locks = typeof navigator === "undefined" ? undefined : navigator.locks;
  return {
    channel(name, listener) {
      if (typeof BroadcastChannel === "undefined") return alone.channel(name, listener);
      const channel = new BroadcastChannel(name);
      channel.onmessage = (event) => listener(event.data);
      return {
        post: (message) => channel.postMessage(message),
        close: () => channel.close(),
      };
    },
    lock(name, steal, granted, lost) {
      if (!locks) return alone.lock(name, steal, granted, lost);
      const waiting = new AbortController();
      let wanted = true;
      let giveBack = () => {};
      const held = new Promise<void>((resolve) => {
        giveBack = resolve;
      });
      locks
        .request(name, steal ? { steal } : { signal: waiting.signal }, () => {
          if (!wanted) return;
          granted();
          return held;
        })
        .catch(() => {
          if (wanted) lost();
        });
      return () => {
        wanted = false;
        waiting.abort();
        giveBack();
      };
    },
  };
}
