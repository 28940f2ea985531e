import { micromark } from "micromark";
import { gfm, gfmHtml } from "micromark-extension-gfm";
import { createElement, Fragment, type ReactNode, useDeferredValue, useMemo } from "react";
import { useUploads } from "rowcast/files/react";
import { download } from "../files/file-rows.js";
import { fileAt } from "./note-files.js";
import { Picture } from "./picture.js";

/** What Markdown looks like. Typing goes before: a long text is made when there is time. */
export default function Preview({ text }: { text: string }) {
  const shown = useDeferredValue(text);
  const content = useMemo(() => toNodes(toHtml(shown)), [shown]);
  return (
    <section className="preview" aria-label="Preview">
      {content}
    </section>
  );
}

/**
 * Somebody else may have written the text. micromark shows HTML in it as text and drops links and pictures with
 * `javascript:` and the like, unless told otherwise; besides, the content security policy lets no script in the page run.
 */
export function toHtml(text: string): string {
  return micromark(text, { extensions: [gfm()], htmlExtensions: [gfmHtml()] });
}

/** What Markdown is made of, and what of it is taken over. */
const TAGS = new Set(
  "a blockquote br code del em h1 h2 h3 h4 h5 h6 hr input li ol p pre section strong sup table tbody td th thead tr ul".split(
    " ",
  ),
);
const ATTRIBUTES: { readonly [name: string]: string } = {
  align: "align",
  "aria-describedby": "aria-describedby",
  "aria-label": "aria-label",
  class: "className",
  href: "href",
  id: "id",
  start: "start",
  title: "title",
  type: "type",
};
const ROWS = new Set(["TABLE", "THEAD", "TBODY", "TR"]);

/** The same as elements of React, so that pictures can be components. Nothing is loaded on the way. */
export function toNodes(html: string): ReactNode {
  return createElement(Fragment, null, ...inside(parse(html)));
}

function parse(html: string): Node {
  return new DOMParser().parseFromString(html, "text/html").body;
}

function inside(parent: Node): ReactNode[] {
  return [...parent.childNodes].map(toNode);
}

function toNode(node: Node): ReactNode {
  if (!(node instanceof Element)) {
    // React takes no spaces between the rows of a table.
    return ROWS.has(node.parentNode?.nodeName ?? "") ? null : node.textContent;
  }
  const tag = node.localName;
  if (tag === "img") return picture(node.getAttribute("src") ?? "", node.getAttribute("alt") ?? "");
  const file = fileAt(node.getAttribute("href") ?? "");
  if (tag === "a" && file) return <FileLink id={file} name={node.textContent ?? ""} />;
  if (!TAGS.has(tag)) return node.textContent;
  const given = Object.entries(ATTRIBUTES).flatMap(([name, prop]) => {
    const value = node.getAttribute(name);
    return value === null ? [] : [[prop, value]];
  });
  const box = tag === "input" && { checked: node.hasAttribute("checked"), disabled: true };
  return createElement(tag, { ...Object.fromEntries(given), ...box }, ...inside(node));
}

function picture(address: string, words: string): ReactNode {
  const file = fileAt(address);
  if (file) return <Picture id={file} words={words} />;
  if (!address) return words;
  // Pictures of other places would tell them who reads: one goes there, or does not.
  return (
    <a href={address} rel="noreferrer">
      {words || address}
    </a>
  );
}

function FileLink({ id, name }: { id: string; name: string }) {
  const uploads = useUploads();
  return (
    <button
      type="button"
      className="link"
      title="Download"
      onClick={() => download(uploads, "noteFiles", id, name)}
    >
      {name}
    </button>
  );
}
