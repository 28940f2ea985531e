import { useEffect, useRef } from "react";
import { NetworkError } from "rowcast";
import { type FileUrl, useFileUrl, useUploads } from "rowcast/files/react";
import { useStatus } from "rowcast/react";

/** What the gateway shows in a page. */
const PICTURES = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"];

/** Whether a file of this type is shown in a page. */
export function isPicture(type: string): boolean {
  return PICTURES.includes(type);
}

/** A link to show a picture by; what could not be had without a network is asked for when there is one. */
export function usePicture(table: string, id: string | null): FileUrl {
  const online = useStatus((status) => status.online);
  const found = useFileUrl(useUploads(), table, id);
  const latest = useRef(found);
  useEffect(() => {
    latest.current = found;
  });
  useEffect(() => {
    if (online && latest.current.error instanceof NetworkError) latest.current.refresh();
  }, [online]);
  return found;
}
