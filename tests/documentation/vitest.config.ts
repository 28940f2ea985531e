import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    setupFiles: ["./browser.ts"],
    // One process for all files: most of the time goes into loading.
    isolate: false,
    fileParallelism: false,
    // A page makes its first connection through compilers that are cold.
    testTimeout: 60_000,
  },
});
