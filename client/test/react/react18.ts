/**
 * Makes `react` and `react-dom` mean React 18 in what Node loads by itself: the testing library and React's own
 * packages. What vitest loads is renamed in its configuration.
 */
import Module from "node:module";

const names: { [name: string]: string } = { react: "react18", "react-dom": "react-dom18" };
const loader = Module as unknown as {
  _resolveFilename(request: string, ...more: unknown[]): string;
};
const resolve = loader._resolveFilename;
loader._resolveFilename = (request, ...more) => {
  const [, name = "", rest = ""] = /^([^/]+)(\/.*)?$/.exec(request) ?? [];
  return resolve.call(loader, names[name] ? names[name] + rest : request, ...more);
};
