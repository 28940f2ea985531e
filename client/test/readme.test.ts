import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { createTestServer } from "../src/testing/index.js";

const read = (name: string) => readFileSync(new URL(name, import.meta.url), "utf8");
const lines = (text: string) => text.split("\n").map((line) => line.trim());
const blocks = [...read("../README.md").matchAll(/```tsx\n(.*?)```/gs)].map(([, code]) => code);

it("the examples of README.md are those that are type checked", () => {
  const checked = new Set(lines(read("registered/readme.test-d.tsx")));
  expect(blocks).toHaveLength(7);
  const strange = lines(blocks.join("\n")).filter(
    (line) => !checked.has(line) && !line.startsWith("import ") && !checked.has(`export ${line}`),
  );
  expect(strange).toEqual([]);
});

it("the test in README.md runs", async () => {
  // By a name the compiler does not follow: the file registers its tables for the whole program.
  const { schema } = await import(`${"../demo/src/schema.gen"}.ts`);
  const run = new Function(
    "createTestServer",
    "schema",
    "expect",
    `return (async () => {${blocks.find((block) => block?.includes("createTestServer("))}})();`,
  );
  await run(createTestServer, schema, expect);
});
