// Renders /api/openapi.json for people.

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

/** Text with `code` marked as such. */
function prose(text) {
  return (text ?? "").split(/`([^`]+)`/).map((part, n) => (n % 2 ? element("code", { textContent: part }) : part));
}

/** A schema in one line, with links to the ones it names. */
function type(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["any JSON"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [element("a", { href: `#${name}`, textContent: name })];
  }
  const options = schema.oneOf ?? schema.anyOf;
  if (options) return options.flatMap((option, n) => (n ? [" or ", ...type(option)] : type(option)));
  if (schema.const !== undefined) return [element("code", { textContent: JSON.stringify(schema.const) })];
  if (schema.enum) return schema.enum.flatMap((value, n) => [n ? " or " : "", element("code", { textContent: JSON.stringify(value) })]);
  if (schema.type === "array") return ["list of ", ...type(schema.items)];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["object of ", ...type(schema.additionalProperties)];
  }
  return [schema.type ?? "any JSON"];
}

function content(body) {
  return Object.entries(body?.content ?? {}).flatMap(([media, { schema }], n) => [
    ...(n ? [element("br")] : []), ...type(schema), ` as ${media}`,
  ]);
}

function operation(path, method, details) {
  const rows = [];
  if (details.requestBody) rows.push(["body", content(details.requestBody)]);
  for (const parameter of details.parameters ?? []) rows.push([`header ${parameter.name}`, prose(parameter.description)]);
  for (const [status, answer] of Object.entries(details.responses)) {
    const shape = content(answer);
    rows.push([status, [...prose(answer.description), ...(shape.length ? [": ", ...shape] : [])]]);
  }
  return element("article", { className: "operation" },
    element("h3", {}, element("span", { className: "method", textContent: method.toUpperCase() }),
      element("code", { textContent: path }), details.summary),
    element("p", {}, ...prose(details.description)),
    table(rows));
}

function table(rows) {
  return element("table", {}, ...rows.map(([name, cells]) =>
    element("tr", {}, element("td", {}, name), element("td", {}, ...cells))));
}

function schema(name, details) {
  const required = new Set(details.required);
  const rows = Object.entries(details.properties ?? {}).map(([property, shape]) => [
    element("code", { textContent: property, className: required.has(property) ? "" : "optional" }),
    [...type(shape), ...(required.has(property) ? [] : [element("span", { className: "optional", textContent: ", optional" })]),
      ...(shape.description ? [". ", ...prose(shape.description)] : [])],
  ]);
  return element("article", { className: "schema", id: name },
    element("h3", { textContent: name }),
    ...(details.description ? [element("p", {}, ...prose(details.description))] : []),
    rows.length ? table(rows) : element("p", {}, ...type(details)));
}

const document_ = await (await fetch("/api/openapi.json")).json();
document.getElementById("version").textContent = document_.info.version;
document.getElementById("operations").append(...Object.entries(document_.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, details]) => operation(path, method, details))));
document.getElementById("schemas").append(...Object.entries(document_.components.schemas).map(([name, details]) =>
  schema(name, details)));
if (location.hash) document.querySelector(location.hash)?.scrollIntoView();
