import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

export default defineConfig({
  root: path("."),
  plugins: [react(), shell(), compressed()],
  resolve: {
    // In an app of yours these come from node_modules.
    alias: [
      { find: /^rowcast$/, replacement: path("../src/index.ts") },
      { find: /^rowcast\/(.*)$/, replacement: path("../src/$1/index.ts") },
    ],
  },
  build: {
    outDir: path("dist"),
    emptyOutDir: true,
    target: "es2022",
    // What can be inlined as data: the content security policy would have to allow.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: { "/api": { target: "http://localhost:8000", ws: true } },
  },
});

/** Writes sw.js: the service worker, with the names of all files of this build. */
function shell(): Plugin {
  return {
    name: "shell",
    apply: "build",
    async closeBundle() {
      const dist = path("dist");
      const found = await readdir(dist, { recursive: true, withFileTypes: true });
      const files = found
        .filter((entry) => entry.isFile() && entry.name !== "sw.js")
        .map((entry) => join(entry.parentPath, entry.name))
        .sort();
      const hash = createHash("sha256");
      for (const file of files) hash.update(relative(dist, file)).update(await readFile(file));
      const urls = files.map((file) => `/${relative(dist, file)}`);
      const source = readFileSync(path("src/sw.js"), "utf8")
        .replace('"__BUILD__"', JSON.stringify(hash.digest("hex").slice(0, 16)))
        .replace('"__FILES__"', JSON.stringify(urls, null, 2));
      await writeFile(join(dist, "sw.js"), source);
    },
  };
}

/** Writes each text once more as .br and .gz, which the gateway sends: where it is smaller. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    closeBundle: {
      // After the service worker, which is to name the files alone.
      sequential: true,
      order: "post",
      async handler() {
        const dist = path("dist");
        for (const entry of await readdir(dist, { recursive: true, withFileTypes: true })) {
          if (!entry.isFile() || !/\.(js|css|html|svg|webmanifest)$/.test(entry.name)) continue;
          const file = join(entry.parentPath, entry.name);
          const text = await readFile(file);
          const forms = { br: promisify(brotliCompress), gz: promisify(gzip) };
          for (const [end, compress] of Object.entries(forms)) {
            const bytes = await compress(text);
            if (bytes.length < text.length) await writeFile(`${file}.${end}`, bytes);
          }
        }
      },
    },
  };
}
