import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    setupFiles: ["./browser.ts"],
    // A page makes its first connection through compilers that are cold.
    testTimeout: 60_000,
  },
});
