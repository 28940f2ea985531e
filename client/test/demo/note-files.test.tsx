// @vitest-environment jsdom
import { cleanup, render } from "@testing-library/react";
import { afterEach, describe, expect, it, vi } from "vitest";
import { fileAt, referenceTo, withoutFile } from "../../demo/src/notes/note-files.js";
import { toHtml, toNodes } from "../../demo/src/notes/preview.js";

vi.mock("../../src/files/react/index.js", () => ({ useUploads: () => ({}) }));
vi.mock("../../demo/src/notes/picture.js", () => ({
  Picture: ({ id, words }: { id: string; words: string }) => <i data-picture={id}>{words}</i>,
}));

const ID = "01a22c8b-8515-72b0-80f7-97ef1f606ed9";
const OTHER = "01a22c8b-8515-72b0-80f7-97ef1f606eda";
const NAMES = [
  "Plan.pdf",
  "",
  "a]b[c.png",
  "**bold** _it_ `code` ~~no~~ <b>&amp;",
  "![x](files/y)",
  "back\\slash\\",
  "two\nlines\tof it",
  "http://example.com and a@b.example",
  "🚢 [1]",
];

afterEach(cleanup);

const shown = (text: string) => render(toNodes(toHtml(text))).container;

describe("files in the text of a note", () => {
  it.each(NAMES)("stand there under their names: %j", (name) => {
    const words = name.replace(/\s+/g, " ");
    const picture = shown(`before ${referenceTo(ID, name, true)} after`);
    expect(picture.querySelector(`[data-picture="${ID}"]`)?.textContent).toBe(words);
    const link = shown(`before ${referenceTo(ID, name, false)} after`);
    expect(link.querySelector("button")?.textContent).toBe(words);
    expect(link.textContent).toBe(`before ${words} after`);
    expect(link.querySelectorAll("a, b, strong, em, code, del")).toHaveLength(0);
  });

  it.each(NAMES)("go without a trace, and others stay: %j", (name) => {
    const mine = referenceTo(ID, name, true);
    const other = referenceTo(OTHER, name, false);
    expect(withoutFile(`a\n${mine}\nb ${other}${mine} c`, ID)).toBe(`a\nb ${other} c`);
    expect(withoutFile(other, ID)).toBe(other);
  });

  it("are told by their address, and by no other", () => {
    expect(fileAt(`files/${ID}`)).toBe(ID);
    for (const address of [`/files/${ID}`, `files/${ID}/x`, `files/${ID.toUpperCase()}`, "files/1"])
      expect(fileAt(address)).toBeUndefined();
  });
});

describe("Markdown as elements", () => {
  it("is what it says", () => {
    const page = shown(
      '# T\n\n- [x] done\n\n3. c\n\n| a | b |\n|:-:|--:|\n| 1 | 2 |\n\n`x` [y](/z "t")',
    );
    expect(page.querySelector("h1")?.textContent).toBe("T");
    const box = page.querySelector<HTMLInputElement>("input");
    expect([box?.type, box?.checked, box?.disabled]).toEqual(["checkbox", true, true]);
    expect(page.querySelector("ol")?.start).toBe(3);
    expect([...page.querySelectorAll("td")].map((cell) => cell.align)).toEqual(["center", "right"]);
    const link = page.querySelector("a");
    expect([link?.getAttribute("href"), link?.title]).toEqual(["/z", "t"]);
  });

  it("loads no picture of another place: one goes there, or does not", () => {
    const page = shown("![far](https://example.com/x.png) ![](https://example.com/y.png) ![](<>)");
    expect(page.querySelectorAll("img")).toHaveLength(0);
    const links = [...page.querySelectorAll("a")];
    expect(links.map(({ textContent, rel }) => [textContent, rel])).toEqual([
      ["far", "noreferrer"],
      ["https://example.com/y.png", "noreferrer"],
    ]);
  });

  it.each([
    "<script>alert(1)</script>",
    "<iframe src=x></iframe> <style>*{}</style> <form action=x><button>y</button></form>",
  ])("shows HTML as text: %s", (text) => {
    const page = shown(text);
    expect(page.querySelectorAll("script, iframe, style, form, button")).toHaveLength(0);
    expect(page.textContent).toContain("<");
  });

  it("takes over only what it knows, should HTML come through", () => {
    const page = render(
      toNodes('<p onclick="x()" style="color:red" class="c">a<video src="x">b</video></p>'),
    ).container;
    const [paragraph] = page.children;
    expect(paragraph?.outerHTML).toBe('<p class="c">ab</p>');
  });
});
