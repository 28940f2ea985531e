/** The entries of the package and their sources. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder of the package. */
export const root = new URL("../", import.meta.url);

/** The contents of package.json. */
export const manifest = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));

/** Source file by entry: `.` is src/index.ts, as dist/index.js is built from it. */
export function entries() {
  return Object.fromEntries(
    Object.entries(manifest.exports).map(([entry, { types }]) => [
      entry,
      fileURLToPath(new URL(types.replace("./dist/", "src/").replace(/\.d\.ts$/, ".ts"), root)),
    ]),
  );
}
