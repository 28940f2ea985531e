import { useEffect, useMemo } from "react";
import type { WriteHandle } from "../client.js";
import { known, type RowcastError } from "../errors.js";
import { equalJson, type Json } from "../json.js";
import { readPath } from "../paths.js";
import { type Listeners, listen, type Readable } from "../readable.js";
import type { KeyPath, TableFor, TableName, ValueAt } from "../types.js";
import type { Path } from "../wire.gen.js";
import { type Untyped, useReadable, useUntyped } from "./use-readable.js";

/** One value being edited. */
export interface Field<V> {
  /** What to show: the draft, else what the record holds; undefined where there is none. */
  readonly value: V | undefined;
  /** Whether there is a draft that is not written yet. */
  readonly dirty: boolean;
  /** What the record holds, whatever the draft says. */
  readonly remote: V | undefined;
  /** Why the draft could not be written. It is kept. */
  readonly error: RowcastError | undefined;
  /** Changes the draft; it is written after a pause. A function is given the present value. */
  readonly setValue: {
    (change: (value: V | undefined) => V): void;
    (value: V): void;
  };
  /** Writes the draft now; null where there is nothing to write. */
  readonly flush: () => WriteHandle | null;
  /** Forgets the draft. */
  readonly discard: () => void;
  /** For the element's `onBlur`: writes the draft now. */
  readonly onBlur: () => void;
}

/** How a field is written. */
export interface FieldOptions {
  /** Milliseconds without a change after which the draft is written; left out, 300. */
  debounce?: number;
}

interface Draft {
  value: Json | undefined;
  /** Who has made it: nobody else writes it. */
  user: string | null | undefined;
}

const EMPTY: Field<Json> = {
  value: undefined,
  dirty: false,
  remote: undefined,
  error: undefined,
  setValue() {},
  flush: () => null,
  discard() {},
  onBlur() {},
};

/** A draft of one value and when it is written. */
class FieldStore implements Readable<Field<Json>> {
  debounce = 300;
  private readonly record: ReturnType<Untyped["record"]>;
  private readonly path: readonly string[];
  private readonly listeners: Listeners = new Set();
  private draft: Draft | undefined;
  private error: RowcastError | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private state: Field<Json> | undefined;

  constructor(
    private readonly client: Untyped,
    private readonly table: string,
    private readonly id: string,
    private readonly key: Path,
  ) {
    this.record = client.record(table, id);
    this.path = typeof key === "string" ? key.split(".") : key;
  }

  subscribe = (listener: () => void) => {
    const ends = [this.record.subscribe(listener), listen(this.listeners, listener)];
    const hide = () => {
      if (document.visibilityState === "hidden") this.flush();
    };
    addEventListener("pagehide", this.flush);
    document.addEventListener("visibilitychange", hide);
    return () => {
      removeEventListener("pagehide", this.flush);
      document.removeEventListener("visibilitychange", hide);
      for (const end of ends) end();
      if (!this.listeners.size) this.flush();
    };
  };

  getSnapshot = (): Field<Json> => {
    const { draft, error, state } = this;
    const remote = this.remote();
    const value = draft ? draft.value : remote;
    const dirty = draft !== undefined;
    if (
      state?.dirty === dirty &&
      state.error === error &&
      equalJson(state.remote, remote) &&
      equalJson(state.value, value)
    ) {
      return state;
    }
    const { setValue, flush, discard, onBlur } = this;
    this.state = { value, dirty, remote, error, setValue, flush, discard, onBlur };
    return this.state;
  };

  private readonly setValue = (next: Json | ((value: Json | undefined) => Json)): void => {
    const value = typeof next === "function" ? next(this.getSnapshot().value) : next;
    this.draft = { value, user: this.draft ? this.draft.user : this.user() };
    this.error = undefined;
    clearTimeout(this.timer);
    this.timer = setTimeout(this.flush, this.debounce);
    this.tell();
  };

  private readonly flush = (): WriteHandle | null => {
    const { draft, client, table, id, key } = this;
    clearTimeout(this.timer);
    if (!draft) return null;
    this.draft = this.error = undefined;
    let handle: WriteHandle | null = null;
    const { value } = draft;
    const known = draft.user === undefined || draft.user === this.user();
    if (known && !equalJson(value, this.remote())) {
      try {
        const operation = { type: "set", table, id, key };
        handle = client.write(value === undefined ? operation : { ...operation, value });
        handle.saved.catch((error) => this.failed(draft, error));
      } catch (error) {
        this.failed(draft, error);
      }
    }
    this.tell();
    return handle;
  };

  private readonly discard = (): void => {
    clearTimeout(this.timer);
    this.draft = this.error = undefined;
    this.tell();
  };

  private readonly onBlur = (): void => void this.flush();

  /** What could not be written is a draft again, unless there is a newer one. */
  private failed(draft: Draft, error: unknown): void {
    this.draft ??= draft;
    this.error = known(error);
    this.tell();
  }

  private remote(): Json | undefined {
    const record = this.record.getSnapshot();
    return record ? readPath(record, this.path) : undefined;
  }

  private user(): string | null | undefined {
    return this.client.status.getSnapshot().userId;
  }

  private tell(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

/**
 * One value of a record as a form edits it. Typing changes a local draft; it is written after a pause, on blur, when
 * the component goes away and when the page does. What others write shows at once, but never over a draft.
 *
 *     const title = useField("tasks", id, "title");
 *     <input value={title.value ?? ""} onChange={(e) => title.setValue(e.target.value)} onBlur={title.onBlur} />
 */
export function useField<T extends TableName, const P extends KeyPath<T>>(
  table: T,
  id: string,
  key: P,
  options?: FieldOptions,
): Field<ValueAt<T, P>>;
export function useField<T extends object = never, K extends keyof T & string = keyof T & string>(
  table: TableFor<T>,
  id: string,
  key: K,
  options?: FieldOptions,
): Field<T[K]>;
export function useField(table: string, id: string, key: Path, options?: FieldOptions): unknown {
  const client = useUntyped();
  const text = JSON.stringify(key);
  const field = useMemo(
    () => new FieldStore(client, table, id, JSON.parse(text)),
    [client, table, id, text],
  );
  const debounce = options?.debounce ?? 300;
  useEffect(() => {
    field.debounce = debounce;
  }, [field, debounce]);
  return useReadable(field, EMPTY);
}
