import { type FormEvent, useState } from "react";
import { Dialog } from "./dialog.js";

/** Asks for a name. */
export function NameDialog({
  title,
  value: before = "",
  button,
  maxLength = 200,
  onSave,
  onClose,
}: {
  title: string;
  value?: string;
  button: string;
  maxLength?: number;
  onSave: (name: string) => void;
  onClose: () => void;
}) {
  const [value, setValue] = useState(before);
  const save = (event: FormEvent) => {
    event.preventDefault();
    const name = value.trim();
    if (name && name !== before) onSave(name);
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={save}>
        <input
          className="wide first-focus"
          value={value}
          maxLength={maxLength}
          aria-label="Name"
          required
          onChange={(event) => setValue(event.target.value)}
        />
        <footer className="dialog-foot">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="primary">
            {button}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
