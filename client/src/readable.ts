/** Something to look at and to be told of: what `useSyncExternalStore` takes. */
export interface Readable<T> {
  /** Calls back after the snapshot has changed, once for all changes made together. Gives what ends it. */
  subscribe(listener: () => void): () => void;
  /** What is there now: the same object until something in it changes. */
  getSnapshot(): T;
}

/** Those who want to be told of one thing. */
export type Listeners = Set<() => void>;

/** Tells listeners in the next microtask, each once, however often something changed before. */
export class Batch {
  private readonly waiting = new Set<Listeners>();
  private scheduled = false;
  /** What came first has been told at once; what follows waits. */
  private told = false;

  /** `before`: what has to be up to date first. */
  constructor(private readonly before: () => void) {}

  /** Makes sure that the batch is run. */
  schedule(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => this.run());
  }

  /** What these listen to has changed. */
  changed(listeners: Listeners): void {
    if (!listeners.size) return;
    this.waiting.add(listeners);
    this.schedule();
  }

  /**
   * Tells of what a user has just done without waiting, once in a turn: what shows it is then there before the handler of
   * the event ends. (React puts the old value back into an input, and the caret behind it, where it is not.)
   */
  tellNow(): void {
    if (this.told) return;
    this.told = true;
    this.schedule();
    this.tell();
  }

  private run(): void {
    this.scheduled = this.told = false;
    this.tell();
  }

  private tell(): void {
    this.before();
    const told = [...this.waiting].flatMap((listeners) => [...listeners]);
    this.waiting.clear();
    for (const listener of told) {
      try {
        listener();
      } catch (error) {
        // Somebody else's mistake must not keep the others from hearing.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/** Adds a listener; gives what takes it away. */
export function listen(listeners: Listeners, listener: () => void): () => void {
  // A function of its own, so that one subscribed twice is told twice and ends one at a time.
  const own = () => listener();
  listeners.add(own);
  return () => {
    listeners.delete(own);
  };
}

/** A value that can be looked at. */
export class Cell<T> implements Readable<T> {
  private readonly listeners: Listeners = new Set();

  constructor(
    private readonly batch: Batch,
    private value: T,
  ) {}

  subscribe = (listener: () => void): (() => void) => listen(this.listeners, listener);
  getSnapshot = (): T => this.value;

  /** Replaces the value. */
  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    this.batch.changed(this.listeners);
  }
}
