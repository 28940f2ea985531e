import { useEffect, useId, useSyncExternalStore } from "react";
import { IconButton } from "./icon.js";

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly action?: { label: string; run(): void } | undefined;
}

const SHOWN_MS = 6000;
const listeners = new Set<() => void>();
let toasts: readonly Toast[] = [];
let announced = "";
let last = 0;
/** Where they can appear, the uppermost last: below a dialog nothing can be pressed, and nothing is read out. */
let places: readonly string[] = [];

/** Says something at the edge of the window, perhaps with something to do about it. */
export function notify(
  text: string,
  { action, lasting = false }: { action?: Toast["action"]; lasting?: boolean } = {},
): void {
  last++;
  const toast = { id: last, text, action };
  toasts = [...toasts.filter((other) => other.text !== text), toast];
  tell();
  if (!lasting) setTimeout(() => dismiss(toast.id), SHOWN_MS);
}

/** A part of the app cannot be had: the page is older than the files of its server, or there is no network. */
export function notifyNotLoaded(): void {
  const action = { label: "Reload", run: () => location.reload() };
  notify("A part of the app could not be loaded.", { action, lasting: true });
}

/** Says something to those who use a screen reader. */
export function announce(text: string): void {
  // The same text twice is said once: an invisible character makes it another.
  announced = text === announced ? `${text}\u200b` : text;
  tell();
}

/** Where both appear: on the page, or in a dialog above it. */
export function Toasts({ above = false }: { above?: boolean }) {
  const place = useId();
  useEffect(() => {
    places = above ? [...places, place] : [place, ...places];
    tell();
    return () => {
      places = places.filter((other) => other !== place);
      tell();
    };
  }, [place, above]);
  const here = useSyncExternalStore(subscribe, () => places.at(-1) === place);
  const shown = useSyncExternalStore(subscribe, () => toasts);
  const text = useSyncExternalStore(subscribe, () => announced);
  if (!here) return null;
  return (
    <>
      <p className="visually-hidden" role="status" aria-live="polite">
        {text}
      </p>
      <div className="toasts" role="status">
        {shown.map(({ id, text: said, action }) => (
          <div key={id} className="toast">
            <span>{said}</span>
            {action && (
              <button
                type="button"
                className="link"
                onClick={() => {
                  dismiss(id);
                  action.run();
                }}
              >
                {action.label}
              </button>
            )}
            <IconButton icon="close" label="Dismiss" onClick={() => dismiss(id)} />
          </div>
        ))}
      </div>
    </>
  );
}

function dismiss(id: number): void {
  toasts = toasts.filter((toast) => toast.id !== id);
  tell();
}

function tell(): void {
  for (const listener of listeners) listener();
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
