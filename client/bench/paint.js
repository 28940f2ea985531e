/**
 * From the key to the pixels: how long an edit takes to be painted in a browser with 5 000 tasks loaded, with the real
 * gateway and database. `npm run bench:paint`, after `make install`; writes RESULTS.md beside this file.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { cpus, loadavg, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "vite";

const TASKS = 5000;
const PAGES = 7;
const EDITS = 20;
const BOARD = "00000000-0000-7000-8000-0000000b0002";
const FRAME = 1000 / 60;
const path = (name) => fileURLToPath(new URL(name, import.meta.url));

const python = process.env.PYTHON ?? path("../../.venv/bin/python");
// The browser is driven by what the tests of Python bring along.
const driver = execFileSync(python, ["-c", "import playwright; print(playwright.__path__[0])"], {
  encoding: "utf8",
}).trim();
const { chromium } = await import(pathToFileURL(join(driver, "driver/package/index.mjs")).href);

const folder = await mkdtemp(join(tmpdir(), "rowcast-paint-"));
const port = await freePort();
const origin = `http://localhost:${port}`;
const server = spawn(python, ["-m", "app", "run"], {
  cwd: path("../.."),
  env: { ...process.env, PORT: String(port), ROWCAST_DATA_DIR: join(folder, "data") },
  stdio: ["ignore", "ignore", "inherit"],
});
const ended = new Promise((resolve) => server.once("exit", resolve));
try {
  const [files] = await Promise.all([bundle(), answering()]);
  await fill();
  const text = table(await measure(files));
  await writeFile(path("RESULTS.md"), text);
  console.info(text);
} finally {
  server.kill("SIGINT");
  await ended;
  await rm(folder, { recursive: true, force: true });
}

function freePort() {
  return new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** The page as apps are built, with React as users have it: its first file, and those it fetches. Gives their folder. */
async function bundle() {
  await build({
    configFile: false,
    root: path("."),
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"production"' },
    resolve: {
      alias: [
        { find: /^rowcast$/, replacement: path("../src/index.ts") },
        { find: /^rowcast\/(.*)$/, replacement: path("../src/$1/index.ts") },
      ],
    },
    build: {
      outDir: join(folder, "dist"),
      target: "es2022",
      lib: { entry: path("paint/main.tsx"), formats: ["es"], fileName: "main" },
    },
  });
  return join(folder, "dist");
}

async function answering() {
  for (;;) {
    if (server.exitCode !== null) throw new Error(`rowcast run ended with ${server.exitCode}`);
    const answer = await fetch(`${origin}/readyz`).catch(() => undefined);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function ask(address, body, token) {
  const answer = await fetch(origin + address, {
    method: "POST",
    headers: token ? { authorization: `Bearer ${token}` } : {},
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${address}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function fill() {
  const { token } = await ask("/api/auth/dev-sign-in", { user: "alice" });
  for (let made = 0; made < TASKS; made += 100) {
    const operations = Array.from({ length: 100 }, (_, n) => ({
      type: "create",
      table: "tasks",
      id: crypto.randomUUID(),
      value: {
        boardId: BOARD,
        title: `Task ${made + n}`,
        orderKey: `a${String(made + n).padStart(5, "0")}`,
      },
    }));
    await ask("/api/realtime/write", { txId: crypto.randomUUID(), operations }, token);
  }
}

async function measure(files) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
    ],
  });
  try {
    const pages = [];
    const twins = [];
    // By turns, so that what else the machine does falls on both.
    while (pages.length < PAGES) {
      pages.push(await edit(browser, files, `board=${BOARD}`));
      twins.push(await edit(browser, files, `twin=${TASKS}`));
    }
    return { version: browser.version(), pages, twins };
  } finally {
    await browser.close();
  }
}

/** What a page that is opened anew says of each of its edits. */
async function edit(browser, files, what) {
  // The page is handed over here, so that Chromium does not see that it is of this machine.
  const context = await browser.newContext({ permissions: ["local-network-access"] });
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(error));
  const html = `<!doctype html><title>paint</title><body><script type="module" src="/bench/main.js"></script>`;
  await page.route("**/bench/page*", (route) =>
    route.fulfill({ contentType: "text/html", body: html }),
  );
  await page.route("**/bench/*.js", (route) =>
    route.fulfill({ path: join(files, basename(route.request().url())) }),
  );
  await context.request.post(`${origin}/api/auth/dev-sign-in`, {
    data: { user: "alice" },
    headers: { origin },
  });
  await page.goto(`${origin}/bench/page?${what}`);
  await page.waitForFunction(
    (most) => Number(document.querySelector("main")?.dataset.loaded) >= most,
    TASKS,
  );
  await page.locator("input").nth(3).focus();
  for (let n = 0; n < EDITS; n++) {
    await page.keyboard.type("x");
    await page.waitForFunction((count) => window.edits.length >= count, n + 1);
  }
  const edits = await page.evaluate(() => window.edits);
  await context.close();
  return edits;
}

function table({ version, pages, twins }) {
  const ms = (value) => `${value.toFixed(1)} ms`;
  const row = (what, some, name) => {
    const times = some.map((one) => one[name]).sort((a, b) => a - b);
    const [median, worst] = [times[times.length >> 1], times.at(-1)];
    return `| ${what} | ${ms(median)} | ${(median / FRAME).toFixed(2)} | ${ms(worst)} |`;
  };
  const rows = (whose, all) => {
    const first = all.map((edits) => edits[0]);
    const more = all.flatMap((edits) => edits.slice(1));
    return [
      row(`${whose}, the first edit of a page, to the commit`, first, "commit"),
      row(`${whose}, the first edit of a page, to after the paint`, first, "paint"),
      row(`${whose}, each later one, to the commit`, more, "commit"),
      row(`${whose}, each later one, to after the paint`, more, "paint"),
    ];
  };
  return `# From the key to the pixels

Written by \`npm run bench:paint\`: ${TASKS} tasks of a board in one query, fifty of them on the page as inputs, Chromium
without a screen, the real gateway and database on the same machine; ${PAGES} pages one after the other, ${EDITS} edits each. An edit is written by \`useWrite\` and shown by
\`useRecords\`. The twin is the same page with the tasks in React's own state, opened by turns with it: what browser and React
take by themselves. The paint waits for the next frame of 60 a second, up to a whole frame; the commit of React does not.
The aim is below 16 ms.

- date: ${new Date().toISOString().slice(0, 10)}
- machine: ${cpus()[0]?.model}, ${cpus().length} cores, shared by browser and servers; ${loadavg()[0].toFixed(1)} processes wanted one when it ended
- Chromium ${version}

| from the input event | median | frames | worst |
| --- | --- | --- | --- |
${[...rows("Rowcast", pages), ...rows("twin", twins)].join("\n")}
`;
}
