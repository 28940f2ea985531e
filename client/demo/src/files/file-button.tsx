import { type Ref, useRef } from "react";
import { Icon, type IconName } from "../ui/icon.js";

/** A button that lets people choose files. */
export function FileButton({
  label,
  icon,
  words = true,
  accept,
  multiple = true,
  disabled = false,
  ref,
  onFiles,
}: {
  label: string;
  icon: IconName;
  /** Whether the label is seen beside the icon. */
  words?: boolean;
  accept?: string;
  multiple?: boolean;
  disabled?: boolean;
  ref?: Ref<HTMLButtonElement>;
  onFiles: (files: File[]) => void;
}) {
  const input = useRef<HTMLInputElement>(null);
  return (
    <>
      <button
        ref={ref}
        type="button"
        disabled={disabled}
        className={words ? "quiet" : "icon-button"}
        aria-label={words ? undefined : label}
        title={words ? undefined : label}
        onClick={() => input.current?.click()}
      >
        <Icon name={icon} size={words ? 16 : 18} /> {words && label}
      </button>
      <input
        ref={input}
        type="file"
        multiple={multiple}
        hidden
        accept={accept}
        onChange={({ currentTarget }) => {
          const files = [...(currentTarget.files ?? [])];
          // The same file may be chosen again.
          currentTarget.value = "";
          if (files.length) onFiles(files);
        }}
      />
    </>
  );
}
