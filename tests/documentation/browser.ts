import { IDBKeyRange, indexedDB } from "fake-indexeddb";
import { JSDOM } from "jsdom";
import { setGlobalOrigin, WebSocket } from "undici";

// What vitest calls a browser has events that Node's fetch and WebSocket cannot tell of: here they stay Node's.
const { window } = new JSDOM("", { url: "http://localhost" });
globalThis.WebSocket ??= WebSocket as unknown as typeof globalThis.WebSocket; // Node 20 has none
const given = new Set(Object.getOwnPropertyNames(globalThis));
const listening = ["addEventListener", "removeEventListener", "dispatchEvent"];
for (const name of [...Object.getOwnPropertyNames(window), ...listening, "navigator"]) {
  if (given.has(name) && name !== "navigator") continue;
  const value = window[name as keyof typeof window];
  const isMethod = typeof value === "function" && /^[a-z]/.test(name);
  Object.defineProperty(globalThis, name, {
    value: isMethod ? (value as () => void).bind(window) : value,
    configurable: true,
    writable: true,
  });
}
Object.assign(globalThis, { window, indexedDB, IDBKeyRange });

/** Opens the page at another address, from where requests come then. */
export function visit(url: string): void {
  setGlobalOrigin(url);
  Object.defineProperty(globalThis, "location", { value: new URL(url) });
}
