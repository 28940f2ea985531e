import { defineConfig } from "vitest/config";

// Type tests (*.test-d.ts) are run by `npm run types`.
export default defineConfig({
  resolve: { tsconfigPaths: true },
  test: { include: ["test/**/*.test.{ts,tsx}"] },
});
