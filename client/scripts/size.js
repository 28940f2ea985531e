/**
 * What an app that uses everything of an entry downloads: bundled, minified, each file gzipped. `start`: what the entry
 * imports statically, all of which is there before the app runs. `total`: with what the package loads by itself later.
 * Both fail above these figures, which may only be lowered.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { entries, manifest } from "./entries.js";

const KB = 1024;
const HELPER = "export const __vitePreload = (load) => load();";
const BUDGETS = {
  core: { parts: ["."], start: 18, total: 35.5 },
  "core and react": { parts: [".", "./react"], start: 20, total: 37.75 },
};
const sources = entries();
let failed = false;

for (const [name, { parts, ...most }] of Object.entries(BUDGETS)) {
  const missing = parts.filter((entry) => !existsSync(sources[entry]));
  if (missing.length > 0) {
    console.error(`${name}: ${missing.map((entry) => sources[entry])} is missing`);
    failed = true;
    continue;
  }
  const { first, later } = await bundle(parts.map((entry) => sources[entry]));
  const start = sum(first);
  const total = start + sum(later);
  failed ||= start > most.start || total > most.total;
  console.log(
    `${name}: ${told(start, most.start)}; with all that is loaded later ${told(total, most.total)}`,
  );
  for (const { name: chunk, size } of later) console.log(`  later: ${chunk} ${size.toFixed(2)} KB`);
}
process.exit(failed ? 1 : 0);

function sum(chunks) {
  return chunks.reduce((all, { size }) => all + size, 0);
}

function told(size, most) {
  return `${size.toFixed(2)} KB gzipped of at most ${most}${size > most ? ": TOO LARGE" : ""}`;
}

/** As long as with a hash of what is in it, and as hard to compress, but the same after every change. */
function stableName({ name }) {
  const hash = createHash("sha256").update(name).digest("base64url").slice(0, 8);
  return `assets/${name.replace(/\W/g, "_")}-${hash}.js`;
}

/** The files of a module that exports everything of these, without what the app brings itself. */
async function bundle(files) {
  const id = "virtual:everything";
  const text = files.map((file) => `export * from ${JSON.stringify(file)};`).join("\n");
  const { output } = await build({
    configFile: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    plugins: [
      {
        name: "everything",
        enforce: "pre",
        resolveId: (asked) => (asked === id ? `\0${id}` : undefined),
        // Vite's own helper for `import()` is no part of the package: an app has it once, or another bundler.
        load: (asked) => ({ [`\0${id}`]: text, "\0vite/preload-helper.js": HELPER })[asked],
      },
    ],
    build: {
      write: false,
      minify: true,
      target: "es2022",
      modulePreload: false,
      rolldownOptions: {
        input: id,
        preserveEntrySignatures: "allow-extension",
        output: { entryFileNames: stableName, chunkFileNames: stableName },
        external: Object.keys(manifest.peerDependencies).map((name) => new RegExp(`^${name}(/|$)`)),
      },
    },
  });
  const chunks = new Map(
    output.filter(({ type }) => type === "chunk").map((chunk) => [chunk.fileName, chunk]),
  );
  const first = new Set([...chunks.values()].filter(({ isEntry }) => isEntry));
  // A set that grows while it is walked: what is imported by what is there.
  for (const { imports } of first)
    for (const name of imports) if (chunks.has(name)) first.add(chunks.get(name));
  const measured = (some) =>
    some.map(({ name, code }) => ({ name, size: gzipSync(code, { level: 9 }).length / KB }));
  return {
    first: measured([...first]),
    later: measured([...chunks.values()].filter((chunk) => !first.has(chunk))),
  };
}
