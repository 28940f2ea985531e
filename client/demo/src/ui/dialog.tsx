import { type ReactNode, useId, useLayoutEffect, useRef } from "react";
import { IconButton } from "./icon.js";
import { Toasts } from "./toasts.js";

/**
 * A dialog above the page: the browser keeps the focus in it, closes it on Escape and gives the focus back. `sheet`
 * stands at the right edge, and fills a phone.
 */
export function Dialog({
  title,
  onClose,
  sheet = false,
  actions,
  children,
}: {
  title: string;
  onClose: () => void;
  sheet?: boolean;
  /** What stands beside the title. */
  actions?: ReactNode;
  children: ReactNode;
}) {
  const ref = useRef<HTMLDialogElement>(null);
  const name = useId();
  /** Whether the press began outside: selecting text may end there. */
  const outside = useRef(false);
  useLayoutEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    (dialog?.querySelector<HTMLElement>(".first-focus") ?? dialog)?.focus();
    // Closed while it is still in the page, it gives the focus back.
    return () => dialog?.close();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape is the key for it
    <dialog
      ref={ref}
      tabIndex={-1}
      className={sheet ? "sheet" : "box"}
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onPointerDown={(event) => {
        outside.current = event.target === event.currentTarget;
      }}
      onClick={(event) => {
        if (outside.current && event.target === event.currentTarget) onClose();
      }}
    >
      <div className="dialog-content">
        <header className="dialog-head">
          <h2 id={name}>{title}</h2>
          {actions}
          <IconButton icon="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
      <Toasts above />
    </dialog>
  );
}
