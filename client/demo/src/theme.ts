import { useState } from "react";

/** The looks there are. The system's is whichever of the two the device is set to. */
export const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

const KEY = "rowcast-demo:theme";

/** The chosen look, and choosing another. theme.js applies it before the first paint. */
export function useTheme(): [Theme, (theme: Theme) => void] {
  const root = document.documentElement;
  const [theme, setTheme] = useState<Theme>((root.dataset.theme as Theme) ?? "system");
  const choose = (next: Theme) => {
    if (next === "system") {
      delete root.dataset.theme;
      localStorage.removeItem(KEY);
    } else {
      root.dataset.theme = next;
      localStorage.setItem(KEY, next);
    }
    setTheme(next);
  };
  return [theme, choose];
}
