/**
 * What an app that uses everything of an entry downloads: bundled, minified, gzipped. `aim` is where it is to get,
 * `most` what fails: it may only be lowered.
 */
import { existsSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "vite";
import { entries, manifest } from "./entries.js";

const KB = 1024;
const BUDGETS = {
  core: { parts: ["."], aim: 20, most: 32 },
  "core and react": { parts: [".", "./react"], aim: 25, most: 34 },
};
const sources = entries();
let failed = false;

for (const [name, { parts, aim, most }] of Object.entries(BUDGETS)) {
  const missing = parts.filter((entry) => !existsSync(sources[entry]));
  if (missing.length > 0) {
    console.error(`${name}: ${missing.map((entry) => sources[entry])} is missing`);
    failed = true;
    continue;
  }
  const code = await bundle(parts.map((entry) => sources[entry]));
  const size = gzipSync(code, { level: 9 }).length / KB;
  failed ||= size > most;
  const verdict = size <= aim ? "fits" : size <= most ? `above the aim of ${aim}` : "TOO LARGE";
  console.log(`${name}: ${size.toFixed(2)} KB gzipped of at most ${most}: ${verdict}`);
}
process.exit(failed ? 1 : 0);

/** The code of a module that exports everything of these, without what the app brings itself. */
async function bundle(files) {
  const id = "virtual:everything";
  const text = files.map((file) => `export * from ${JSON.stringify(file)};`).join("\n");
  const output = await build({
    configFile: false,
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    plugins: [
      {
        name: "everything",
        resolveId: (asked) => (asked === id ? `\0${id}` : undefined),
        load: (asked) => (asked === `\0${id}` ? text : undefined),
      },
    ],
    build: {
      write: false,
      minify: true,
      target: "es2022",
      modulePreload: false,
      rolldownOptions: {
        input: id,
        preserveEntrySignatures: "strict",
        external: Object.keys(manifest.peerDependencies).map((name) => new RegExp(`^${name}(/|$)`)),
      },
    },
  });
  return output.output.map((chunk) => chunk.code ?? "").join("");
}
