/** Every entry of package.json has a source, and every export of it says in a comment what it is. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { entries, root } from "./entries.js";

const configPath = fileURLToPath(new URL("tsconfig.json", root));
const config = ts.parseJsonConfigFileContent(
  ts.readConfigFile(configPath, (path) => readFileSync(path, "utf8")).config,
  ts.sys,
  fileURLToPath(root),
);
const complaints = [];
const sources = Object.entries(entries()).filter(([entry, source]) => {
  if (!existsSync(source)) complaints.push(`${entry}: package.json names it, ${source} is missing`);
  return existsSync(source);
});
const program = ts.createProgram(
  sources.map(([, source]) => source),
  config.options,
);
const checker = program.getTypeChecker();

for (const [entry, source] of sources) {
  const file = checker.getSymbolAtLocation(program.getSourceFile(source));
  for (const exported of file ? checker.getExportsOfModule(file) : []) {
    const symbol =
      exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
    if (!ts.displayPartsToString(symbol.getDocumentationComment(checker)).trim()) {
      complaints.push(`${entry}: ${exported.name} has no doc comment`);
    }
  }
}
for (const complaint of complaints) console.error(complaint);
process.exit(complaints.length ? 1 : 0);
