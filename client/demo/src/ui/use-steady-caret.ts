import { useLayoutEffect, useRef } from "react";

/**
 * Keeps the caret where it is when somebody else changes a text in which it stands: by itself it jumps to the end.
 * `own`: the change was made by typing here, and the browser has moved the caret.
 */
export function useSteadyCaret(value: string, own: boolean) {
  const ref = useRef<HTMLTextAreaElement>(null);
  const last = useRef({ value, start: 0, end: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    const { value: before, start, end } = last.current;
    last.current.value = value;
    if (!element || own || value === before || document.activeElement !== element) return;
    element.setSelectionRange(movedCaret(before, value, start), movedCaret(before, value, end));
  }, [value, own]);
  const onSelect = () => {
    const element = ref.current;
    if (!element) return;
    last.current.start = element.selectionStart;
    last.current.end = element.selectionEnd;
  };
  return { ref, onSelect };
}

/** Where a caret stands after a text has changed in one place. */
export function movedCaret(before: string, after: string, caret: number): number {
  let same = 0;
  while (same < caret && before[same] === after[same]) same++;
  if (same === caret) return caret;
  const fromEnd = before.length - caret;
  let tail = 0;
  const most = Math.min(fromEnd, after.length - same);
  while (tail < most && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  // Behind the change it stays as far from the end as it was; inside, it goes to where the change ends.
  return tail === fromEnd ? after.length - fromEnd : after.length - tail;
}

/** Writes at the caret, as if it had been typed. */
export function insertText(area: HTMLTextAreaElement, text: string): void {
  area.focus();
  // By the browser, so that its undo knows of it; where it does not, as before it could.
  if (document.execCommand("insertText", false, text)) return;
  area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
  area.dispatchEvent(new Event("input", { bubbles: true }));
}
