const PATHS = {
  board: "M3 4h4v12H3zM8.5 4h4v8h-4zM14 4h3v5h-3z",
  calendar: "M4 5h12v11H4zM4 8.5h12M7 3v3M13 3v3",
  check: "M4 10.5l4 4 8-9",
  chevron: "M7 4l6 6-6 6",
  back: "M12 4l-6 6 6 6",
  clip: "M14.5 8.5l-5.3 5.3a2.6 2.6 0 0 1-3.7-3.7l6-6a1.8 1.8 0 0 1 2.5 2.5l-5.7 5.7a.9.9 0 0 1-1.2-1.2l5-5",
  close: "M5 5l10 10M15 5L5 15",
  cloudOff:
    "M3 3l14 14M6 15h8.5M7 7.2A4.5 4.5 0 0 0 5.8 15M9.5 6a4.5 4.5 0 0 1 5 4.2A2.6 2.6 0 0 1 16.6 14",
  comment: "M4 4.5h12v9H9.5L6 16.5v-3H4z",
  down: "M10 4v12M5 11l5 5 5-5",
  eye: "M2.5 10S5 5 10 5s7.5 5 7.5 5-2.5 5-7.5 5-7.5-5-7.5-5zM10 8a2 2 0 1 0 0 4 2 2 0 0 0 0-4z",
  filter: "M3 5h14M6 10h8M8.5 15h3",
  image: "M3.5 4h13v12h-13zM3.5 13.5l3.5-3.5 3 3 2.5-2.5 4 4M13 7.5h.01",
  menu: "M3 6h14M3 10h14M3 14h14",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  note: "M5 3h7l3 3v11H5zM8 9h4M8 12h4",
  notebook: "M5 3h10v14H5zM8 3v14",
  pen: "M4 16l1-4 8-8 3 3-8 8z",
  pin: "M8 3h4l-.6 5L14 11H6l2.6-3zM10 11v6",
  plus: "M10 4v12M4 10h12",
  redo: "M15.5 7H8a4 4 0 0 0 0 8h4M12.5 4l3 3-3 3",
  search: "M9 4a5 5 0 1 0 0 10A5 5 0 0 0 9 4zM13 13l4 4",
  share:
    "M7.5 9a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM3 16c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M15 7v6M12 10h6",
  sync: "M16 8a6 6 0 0 0-11-1M4 12a6 6 0 0 0 11 1M5 3v4h4M15 17v-4h-4",
  tag: "M3.5 3.5H10l6.5 6.5-6.5 6.5L3.5 10zM7 7h.01",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10.5h6.6L14 6",
  undo: "M4.5 7H12a4 4 0 0 1 0 8H8M7.5 4l-3 3 3 3",
  up: "M10 16V4M5 9l5-5 5 5",
  warning: "M10 3.5l7 12.5H3zM10 8v4M10 14h.01",
} as const;

/** The name of an icon. */
export type IconName = keyof typeof PATHS;

/** An icon, which says nothing by itself: give its button a name. */
export function Icon({ name, size = 18 }: { name: IconName; size?: number }) {
  return (
    <svg
      className={`icon icon-${name}`}
      width={size}
      height={size}
      viewBox="0 0 20 20"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A button that is nothing but an icon. `label` is what it does. */
export function IconButton({
  icon,
  label,
  className = "",
  ...rest
}: { icon: IconName; label: string } & React.ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button
      type="button"
      {...rest}
      className={`icon-button ${className}`}
      aria-label={label}
      title={label}
    >
      <Icon name={icon} />
    </button>
  );
}
