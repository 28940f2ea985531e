import { notify } from "./ui/toasts.js";

/** Keeps the shell for offline use, and offers a new build when there is one. */
export function registerWorker() {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return; // not to be had on plain http from another machine
  // The first worker of a browser takes over a page that is of the same build.
  let controlled = serviceWorker.controller !== null;
  serviceWorker.addEventListener("controllerchange", () => {
    if (controlled) location.reload();
    controlled = true;
  });
  const registered = serviceWorker.register("/sw.js").then((registration) => {
    const offer = () => {
      const { waiting } = registration;
      if (!waiting || !serviceWorker.controller) return;
      notify("There is a new version.", {
        lasting: true,
        action: { label: "Reload", run: () => waiting.postMessage("take over") },
      });
    };
    offer();
    registration.addEventListener("updatefound", () => {
      const { installing } = registration;
      installing?.addEventListener("statechange", () => {
        if (installing.state === "installed") offer();
      });
    });
    // A window that stays open for days.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") registration.update().catch(() => {});
    });
  });
  // Without it the apps need a network to open; a private window has none.
  registered.catch(() => {});
}
