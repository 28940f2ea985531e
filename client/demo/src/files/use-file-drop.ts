import { type RefObject, useEffect, useRef, useState } from "react";
import { notify } from "../ui/toasts.js";

/**
 * Takes files that are dropped on an element, or pasted in it. True while some are held above it. Text that is pasted
 * stays text, though a spreadsheet puts a picture of it beside.
 */
export function useFileDrop(
  ref: RefObject<HTMLElement | null>,
  take: (files: File[]) => void,
  { within }: { within?: string } = {},
): boolean {
  const [over, setOver] = useState(false);
  const latest = useRef(take);
  useEffect(() => {
    latest.current = take;
  });
  useEffect(() => {
    const element = within ? ref.current?.closest<HTMLElement>(within) : ref.current;
    if (!element) return;
    const hold = (event: DragEvent) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.dataTransfer) event.dataTransfer.dropEffect = "copy";
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (!element.contains(event.relatedTarget as Node | null)) setOver(false);
    };
    const drop = (event: DragEvent) => {
      setOver(false);
      if (!holdsFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      give(event.dataTransfer, latest.current);
    };
    const paste = (event: ClipboardEvent) => {
      const { clipboardData } = event;
      if (!clipboardData?.files.length || clipboardData.types.includes("text/plain")) return;
      event.preventDefault();
      give(clipboardData, latest.current);
    };
    element.addEventListener("dragover", hold);
    element.addEventListener("dragleave", leave);
    element.addEventListener("drop", drop);
    element.addEventListener("paste", paste);
    return () => {
      element.removeEventListener("dragover", hold);
      element.removeEventListener("dragleave", leave);
      element.removeEventListener("drop", drop);
      element.removeEventListener("paste", paste);
    };
  }, [ref, within]);
  return over;
}

/** A file that is dropped beside would be opened by the browser, in place of the app. */
export function ignoreStrayDrops(): void {
  const ignore = (event: DragEvent) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = "none";
  };
  addEventListener("dragover", ignore);
  addEventListener("drop", ignore);
}

function holdsFiles({ dataTransfer }: DragEvent): boolean {
  return dataTransfer?.types.includes("Files") === true;
}

function give(from: DataTransfer | null, take: (files: File[]) => void): void {
  const items = [...(from?.items ?? [])].filter(({ kind }) => kind === "file");
  // A folder looks like a file that cannot be read.
  const isFolder = (item: DataTransferItem) => item.webkitGetAsEntry?.()?.isDirectory === true;
  const files = items.flatMap((item) => (isFolder(item) ? [] : (item.getAsFile() ?? [])));
  if (items.some(isFolder)) notify("A folder cannot be uploaded. Choose the files in it.");
  if (files.length) take(files);
}
