import { type ReactNode, useEffect, useId, useRef } from "react";
import { IconButton } from "./icon.js";

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
  useEffect(() => {
    ref.current?.showModal();
  }, []);
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: Escape is the key for it
    <dialog
      ref={ref}
      className={sheet ? "sheet" : "box"}
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClick={(event) => {
        if (event.target === event.currentTarget) onClose();
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
    </dialog>
  );
}
