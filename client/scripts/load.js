/** Every entry of what was built loads in Node, where there is no page: as when a server renders. */
import { entries, manifest } from "./entries.js";

for (const entry of Object.keys(entries())) {
  await import(entry.replace(".", manifest.name));
}
