import { defineConfig } from "vitest/config";

const include = ["test/**/*.test.{ts,tsx}"];

// Type tests (*.test-d.ts) are run by `npm run types`.
export default defineConfig({
  resolve: { tsconfigPaths: true },
  test: {
    projects: [
      { extends: true, test: { name: "client", include } },
      {
        extends: true,
        resolve: {
          alias: [
            { find: /^react(?=$|\/)/, replacement: "react18" },
            { find: /^react-dom(?=$|\/)/, replacement: "react-dom18" },
          ],
        },
        test: {
          name: "react 18",
          env: { REACT: "18" },
          include: ["test/react/**/*.test.tsx"],
          setupFiles: ["test/react/react18.ts"],
        },
      },
    ],
  },
});
