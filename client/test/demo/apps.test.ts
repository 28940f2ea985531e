import type { Rejected } from "rowcast";
import { describe, expect, it } from "vitest";
import { describe as describeWrite, reason } from "../../demo/src/describe.js";
import { toHtml } from "../../demo/src/notes/preview.js";
import { href, parse, type Route } from "../../demo/src/router.js";
import type { Task } from "../../demo/src/schema.gen.js";
import { daysUntil, dueText } from "../../demo/src/tasks/due.js";
import { matches, NO_FILTERS } from "../../demo/src/tasks/filters.js";
import { ago } from "../../demo/src/ui/time.js";
import { movedCaret } from "../../demo/src/ui/use-steady-caret.js";

describe("addresses", () => {
  it.each<[string, Route]>([
    ["/tasks", { app: "tasks", boardId: undefined, taskId: undefined }],
    ["/tasks/b", { app: "tasks", boardId: "b", taskId: undefined }],
    ["/tasks/b/t", { app: "tasks", boardId: "b", taskId: "t" }],
    ["/notes/n/o", { app: "notes", notebookId: "n", noteId: "o" }],
  ])("%s leads there and back", (path, route) => {
    expect(parse(path)).toEqual(route);
    expect(href(route)).toBe(path);
  });

  it("lead to the tasks where they are none", () => {
    for (const path of ["/", "", "/nowhere"]) expect(parse(path)).toMatchObject({ app: "tasks" });
  });
});

describe("Markdown", () => {
  it("is shown", () => {
    expect(toHtml("**a** ~~b~~\n\n- [x] c")).toMatch(/<strong>a<\/strong> <del>b<\/del>/);
  });

  // A note may have been written by somebody else.
  it.each([
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a <b onclick=alert(1)>c</b>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java\nscript:alert(1))",
    "[a](&#106;avascript:alert(1))",
    "![a](javascript:alert(1))",
    "<javascript:alert(1)>",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a]: javascript:alert(1)\n\n[a]",
    "[^1]\n\n[^1]: <img src=x onerror=alert(1)>",
    "| a |\n|---|\n| <svg onload=alert(1)> |",
  ])("runs nothing: %s", (text) => {
    for (const tag of tagsOf(toHtml(text))) {
      expect(tag).not.toMatch(/^<(script|svg|iframe|object)/i);
      expect(tag).not.toMatch(/\son\w+\s*=/i);
      expect(tag).not.toMatch(/(href|src)="\s*(javascript|data|vbscript):/i);
    }
  });
});

/** The tags of a piece of HTML. What looks like one in its text is escaped. */
function tagsOf(html: string): readonly string[] {
  return html.match(/<[a-z][^>]*>/gi) ?? [];
}

const task = (changes: Partial<Task>): Task =>
  ({
    id: "t",
    title: "Plant tomatoes",
    description: null,
    tags: [],
    assigneeId: null,
    priority: null,
    dueDate: null,
    ...changes,
  }) as unknown as Task;

describe("filters", () => {
  it("show all at first", () => {
    expect(matches(task({}), NO_FILTERS)).toBe(true);
  });

  it("find words in title, description and tags, in any case", () => {
    const found = task({ description: "After the frost", tags: ["spring"] });
    for (const text of ["TOMA", "frost", "spring"]) {
      expect(matches(found, { ...NO_FILTERS, text })).toBe(true);
    }
    expect(matches(found, { ...NO_FILTERS, text: "potato" })).toBe(false);
  });

  it("know nobody from anybody", () => {
    expect(matches(task({}), { ...NO_FILTERS, assignee: "none" })).toBe(true);
    expect(matches(task({ assigneeId: "a" }), { ...NO_FILTERS, assignee: "none" })).toBe(false);
    expect(matches(task({ assigneeId: "a" }), { ...NO_FILTERS, assignee: "a" })).toBe(true);
  });

  it("must all hold", () => {
    const filters = { ...NO_FILTERS, priority: "high", tag: "spring" };
    expect(matches(task({ priority: "high", tags: ["spring"] }), filters)).toBe(true);
    expect(matches(task({ priority: "high" }), filters)).toBe(false);
  });

  it("leave out what has no date where a date is asked for", () => {
    expect(matches(task({}), { ...NO_FILTERS, due: "overdue" })).toBe(false);
    expect(matches(task({ dueDate: "2000-01-01" }), { ...NO_FILTERS, due: "overdue" })).toBe(true);
    expect(matches(task({ dueDate: "2000-01-01" }), { ...NO_FILTERS, due: "week" })).toBe(false);
  });
});

describe("dates", () => {
  const now = new Date(2026, 2, 28, 23, 59); // the clocks change in the night in Europe

  it("count the days of the calendar, whatever the hour", () => {
    expect(daysUntil("2026-03-28", now)).toBe(0);
    expect(daysUntil("2026-03-29", now)).toBe(1);
    expect(daysUntil("2026-03-30", now)).toBe(2);
    expect(daysUntil("2026-03-27", new Date(2026, 2, 28, 0, 0))).toBe(-1);
  });

  it("are said in a word", () => {
    expect(dueText("2026-03-28", now)).toBe("Today");
    expect(dueText("2026-03-29", now)).toBe("Tomorrow");
    expect(dueText("2026-03-27", now)).toBe("Yesterday");
    expect(dueText("2027-05-01", now)).toMatch(/2027/);
  });

  it("of the past are said as how long ago", () => {
    const at = Date.parse("2026-03-28T12:00:00Z");
    expect(ago("2026-03-28T11:59:30.000000Z", at)).toBe("just now");
    expect(ago("2026-03-28T12:00:30.000000Z", at)).toBe("just now"); // a clock that is behind
    expect(ago("2026-03-28T10:30:00.000000Z", at)).toMatch(/1/);
  });
});

describe("the caret in a text that somebody else changes", () => {
  /** The caret is where the bar is. */
  const move = (before: string, after: string) => {
    const caret = before.indexOf("|");
    const moved = movedCaret(before.replace("|", ""), after.replace("|", ""), caret);
    return `${after.replace("|", "").slice(0, moved)}|${after.replace("|", "").slice(moved)}`;
  };
  it.each([
    ["a change behind it", "one| two", "one| two three"],
    ["a change before it", "one two| three", "zero one two| three"],
    ["a change right at it", "one| three", "one| two three"],
    ["what stands around it is taken away", "one tw|o three", "one | three"],
    ["all is another text", "abc|d", "xyz|"],
    ["all is taken away", "abc|d", "|"],
    ["repeated letters", "aaaa|", "aaaa|aa"],
  ])("stays: %s", (_what, before, after) => {
    expect(move(before, after)).toBe(after);
  });
});

describe("a refused write", () => {
  const write = (...operations: object[]) => describeWrite({ operations } as unknown as Rejected);

  it("is told in words", () => {
    const at = { table: "tasks", id: "t" };
    expect(write({ type: "create", ...at, value: { title: "Soup" } })).toBe("New task “Soup”");
    expect(
      write(
        { type: "set", ...at, key: "status", value: "done" },
        { type: "set", ...at, key: "orderKey", value: "a0" },
      ),
    ).toBe("Status of a task: “done”, place of a task");
    const long = { type: "set", table: "notes", id: "n", key: "content", value: "🚢".repeat(81) };
    expect(write(long)).toBe(`Content of a note: “${"🚢".repeat(80)} …”`);
    expect(write({ type: "delete", ...at })).toBe("Delete task");
    expect(write({ type: "call", fn: "findPerson" })).toBe("Call findPerson");
  });

  it("has a reason", () => {
    const problem = {
      type: "about:blank",
      title: "Not allowed",
      status: 400,
      code: "check_failed",
    };
    expect(reason({ ...problem, detail: "A name is too long." })).toBe("A name is too long.");
    expect(reason({ ...problem, code: "forbidden" })).toMatch(/may not/);
  });
});
