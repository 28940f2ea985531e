import { useCallback, useEffect, useMemo, useRef } from "react";
import type { History, UndoResult } from "../steps.js";
import { useClient } from "./context.js";
import { useReadable } from "./use-readable.js";

/** The steps of this tab. */
export interface UndoRedo extends History {
  /** Takes the last step back; what somebody else has changed since is skipped and named. Null where there is none. */
  readonly undo: () => Promise<UndoResult | null>;
  /** Takes the step that was undone last forth again. */
  readonly redo: () => Promise<UndoResult | null>;
}

/** How steps are taken. */
export interface UndoRedoOptions {
  /** False: Cmd/Ctrl+Z, with Shift, and Ctrl+Y do nothing. */
  keys?: boolean;
  /** Told what each step of this component did, by key too. */
  onStep?: (result: UndoResult) => void;
}

const NOTHING: History = { canUndo: false, canRedo: false };
/** Inputs in which nothing is typed: the browser has nothing to undo there. */
const NO_TEXT = /^(button|checkbox|color|file|image|radio|range|reset|submit)$/;

/**
 * Undo and redo, with their keys: Cmd/Ctrl+Z, with Shift to redo, Ctrl+Y. In a text field these keys are the
 * browser's, which undoes typing. However many components use it, a key takes one step.
 */
export function useUndoRedo({ keys = true, onStep }: UndoRedoOptions = {}): UndoRedo {
  const client = useClient();
  const history = useReadable(client.history, NOTHING);
  const told = useRef(onStep);
  useEffect(() => {
    told.current = onStep;
  });
  const take = useCallback(
    async (step: "undo" | "redo") => {
      const result = await client[step]();
      if (result) told.current?.(result);
      return result;
    },
    [client],
  );
  useEffect(() => {
    if (!keys) return;
    const press = (event: KeyboardEvent) => {
      const step = event.defaultPrevented || isText(event) ? undefined : stepOf(event);
      const { canUndo, canRedo } = client.history.getSnapshot();
      if (!step || !(step === "undo" ? canUndo : canRedo)) return;
      event.preventDefault();
      // A step that cannot be stored stands in the status as the last error.
      take(step).catch(() => {});
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [client, keys, take]);
  return useMemo(
    () => ({ ...history, undo: () => take("undo"), redo: () => take("redo") }),
    [take, history],
  );
}

function stepOf(event: KeyboardEvent): "undo" | "redo" | undefined {
  const { key, code, ctrlKey, metaKey, shiftKey, altKey } = event;
  if (altKey || ctrlKey === metaKey) return undefined;
  // Where the layout has no Latin letters, the place of the key counts.
  const letter = /^[a-z]$/i.test(key) ? key.toLowerCase() : code.replace("Key", "").toLowerCase();
  if (letter === "z") return shiftKey ? "redo" : "undo";
  return letter === "y" && ctrlKey && !shiftKey ? "redo" : undefined;
}

function isText(event: KeyboardEvent): boolean {
  const [target] = event.composedPath();
  if (target instanceof HTMLInputElement) return !NO_TEXT.test(target.type);
  return (
    target instanceof HTMLTextAreaElement ||
    (target instanceof HTMLElement && target.isContentEditable)
  );
}
