// The service worker: keeps the shell, the files of one build, so that the apps open without a network. Data is none
// of its business: that is in IndexedDB, and nothing below /api/ is touched. vite.config.ts fills in the two names.

const BUILD = "__BUILD__";
const FILES = "__FILES__";
const CACHE = `shell-${BUILD}`;
const PAGE = "/index.html";

self.addEventListener("install", (event) => {
  // Past the HTTP cache: what is kept for long must be of this build.
  const requests = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith("shell-") && name !== CACHE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      // The page that brought the first worker is not its own yet: without this it would be told of no new build.
      .then(() => self.clients.claim()),
  );
});

// A new build waits until the user says so: open pages need the files of theirs.
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== location.origin) return;
  const page = request.mode === "navigate" && /^\/(tasks|notes|account)?(\/|$)/.test(url.pathname);
  const file = page ? PAGE : url.pathname;
  if (!FILES.includes(file)) return;
  event.respondWith(
    caches
      .open(CACHE)
      .then((cache) => cache.match(file))
      .then((kept) => kept ?? fetch(request)),
  );
});
