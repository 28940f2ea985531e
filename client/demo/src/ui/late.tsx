import { type ComponentType, lazy } from "react";

/**
 * A component whose code is loaded when it is first shown. Where that fails, as when a page is older than the files
 * of its server, a word stands in its place and the page goes on.
 */
export function late<Props extends object>(load: () => Promise<ComponentType<Props>>) {
  return lazy(async () => ({ default: await load().catch((): ComponentType<Props> => NotLoaded) }));
}

function NotLoaded() {
  return (
    <p className="soft not-loaded">
      This part could not be loaded.{" "}
      <button type="button" onClick={() => location.reload()}>
        Reload
      </button>
    </p>
  );
}
