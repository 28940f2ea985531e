// @vitest-environment jsdom
import { act, fireEvent, screen } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type Field, useField, useRecord, useUndoRedo, useWrite } from "../../src/react/index.js";
import type { UndoResult } from "../../src/steps.js";
import { StorageFullError } from "../../src/storage.js";
import { memoryStorage } from "../../src/storage-memory.js";
import type { TestServer } from "../../src/testing/index.js";
import { open, serve, set, settle } from "./app.js";

describe("useWrite", () => {
  it("shows what is typed before the event ends: React never puts the old value back", async () => {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    let renders = 0;
    function Title() {
      renders++;
      const write = useWrite();
      const title = useRecord("tasks", "a")?.title;
      return (
        <input
          value={String(title ?? "")}
          onChange={({ target }) => void write(set("a", "title", target.value))}
        />
      );
    }
    open(server, <Title />);
    await settle(server);
    const input = screen.getByRole<HTMLInputElement>("textbox");
    const value = vi.spyOn(input, "value", "set");
    const before = renders;
    fireEvent.change(input, { target: { value: "Ab" } });
    expect([input.value, renders]).toEqual(["Ab", before + 1]);
    await settle(server);
    expect(value.mock.calls).toEqual([]);
  });
});

describe("useField", () => {
  let server: TestServer;
  let field: Field<unknown>;
  const shown: unknown[] = [];

  beforeEach(() => {
    vi.useFakeTimers();
    shown.length = 0;
    server = serve({
      tasks: [
        { id: "a", title: "A", meta: { color: "red" } },
        { id: "b", title: "B" },
      ],
    });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function Title({
    id = "a",
    k = "title",
    debounce,
  }: {
    id?: string;
    k?: string;
    debounce?: number;
  }) {
    field = useField("tasks", id, k, debounce === undefined ? {} : { debounce });
    shown.push(field.value);
    return (
      <input
        value={String(field.value ?? "")}
        onChange={(event) => field.setValue(event.target.value)}
        onBlur={field.onBlur}
      />
    );
  }
  const input = () => screen.getByRole<HTMLInputElement>("textbox");
  const type = (value: string) => fireEvent.change(input(), { target: { value } });
  const writes = () => server.requests.filter(({ kind }) => kind === "write").length;
  const pass = (milliseconds: number) => act(() => vi.advanceTimersByTimeAsync(milliseconds));

  it("writes after a pause, once for all that was typed, and never shows an old value", async () => {
    open(server, <Title />, { strict: true });
    await settle(server);
    shown.length = 0;
    for (const text of ["Ab", "Abc", "Abcd"]) {
      type(text);
      expect(input().value).toBe(text);
      expect(field).toMatchObject({ dirty: true, remote: "A" });
      await pass(200);
    }
    expect(writes()).toBe(0);
    await pass(100);
    await settle(server);
    expect(writes()).toBe(1);
    expect(server.get("tasks", "a")?.title).toBe("Abcd");
    expect(field).toMatchObject({ value: "Abcd", dirty: false, remote: "Abcd" });
    const log = shown.filter((value, at) => value !== shown[at - 1]);
    expect(log).toEqual(["Ab", "Abc", "Abcd"]);
  });

  it("does not write over a draft what others write, and shows it where there is none", async () => {
    open(server, <Title />);
    await settle(server);
    server.put("tasks", { id: "a", title: "theirs" });
    await settle(server);
    expect(input().value).toBe("theirs");
    type("mine");
    server.put("tasks", { id: "a", title: "theirs again" });
    await settle(server);
    expect(input().value).toBe("mine");
    expect(field).toMatchObject({ dirty: true, remote: "theirs again" });
    act(() => field.discard());
    expect(input().value).toBe("theirs again");
    await pass(1000);
    expect(writes()).toBe(0);
  });

  it("writes at once on blur, when the page is left, and when it is hidden", async () => {
    open(server, <Title />);
    await settle(server);
    type("blurred");
    fireEvent.blur(input());
    await settle(server);
    expect(server.get("tasks", "a")?.title).toBe("blurred");
    type("left");
    act(() => void dispatchEvent(new Event("pagehide")));
    await settle(server);
    expect(server.get("tasks", "a")?.title).toBe("left");
    type("hidden");
    vi.spyOn(document, "visibilityState", "get").mockReturnValue("hidden");
    act(() => void document.dispatchEvent(new Event("visibilitychange")));
    vi.restoreAllMocks();
    await settle(server);
    expect(server.get("tasks", "a")?.title).toBe("hidden");
    await pass(1000);
    expect(writes()).toBe(3);
  });

  it("writes when the component goes away, and when it turns to another record", async () => {
    const page = open(server, <Title />);
    await settle(server);
    type("first");
    page.show(<Title id="b" />);
    await settle(server);
    expect(input().value).toBe("B");
    expect(server.get("tasks", "a")?.title).toBe("first");
    type("second");
    page.show(<p />);
    await settle(server);
    expect(server.get("tasks", "b")?.title).toBe("second");
  });

  it("edits inside jsonb, waits as long as it is told, and takes a function", async () => {
    open(server, <Title k="meta.color" debounce={1000} />);
    await settle(server);
    expect(input().value).toBe("red");
    act(() => field.setValue((old) => `${old}dish`));
    await pass(999);
    expect(writes()).toBe(0);
    await pass(1);
    await settle(server);
    expect(server.get("tasks", "a")?.meta).toEqual({ color: "reddish" });
  });

  it("writes nothing where the draft is what is there", async () => {
    open(server, <Title />);
    await settle(server);
    type("AB");
    type("A");
    await pass(1000);
    expect(writes()).toBe(0);
    expect(field.dirty).toBe(false);
  });

  it("keeps a draft that cannot be written, with the reason", async () => {
    open(server, <Title />);
    await settle(server);
    const long = "x".repeat(41);
    type(long);
    await pass(300);
    expect(input().value).toBe(long);
    expect(field).toMatchObject({ dirty: true, error: { code: "wrong_type" } });
    type("short");
    expect(field.error).toBeUndefined();
    await pass(300);
    await settle(server);
    expect(server.get("tasks", "a")?.title).toBe("short");
  });

  it("keeps a draft that the device has no room for", async () => {
    const memory = memoryStorage();
    let full = false;
    const storage = {
      ...memory,
      open: async (name: string) => {
        const store = await memory.open(name);
        return {
          ...store,
          append: async (...args: Parameters<typeof store.append>) => {
            if (full) throw new StorageFullError();
            return store.append(...args);
          },
        };
      },
    };
    open(server, <Title />, { storage });
    await settle(server);
    full = true;
    type("much");
    await pass(300);
    await settle(server);
    expect(input().value).toBe("much");
    expect(field).toMatchObject({ dirty: true, error: { code: "storage_full" } });
    full = false;
    act(() => void field.flush());
    await settle(server);
    expect(server.get("tasks", "a")?.title).toBe("much");
    expect(field).toMatchObject({ dirty: false, error: undefined });
  });

  it("renders only when its own value changes", async () => {
    open(server, <Title />);
    await settle(server);
    shown.length = 0;
    server.put("tasks", { id: "a", position: 3, meta: {} });
    await settle(server);
    expect(shown).toEqual([]);
  });

  it("leaves a draft of a record that is gone to the inbox", async () => {
    const { client } = open(server, <Title />);
    await settle(server);
    type("too late");
    server.remove("tasks", "a");
    await settle(server);
    expect(input().value).toBe("too late");
    await pass(300);
    await settle(server);
    expect(client.rejected.getSnapshot()).toMatchObject([
      { operations: [{ type: "set", value: "too late" }], problem: { code: "forbidden" } },
    ]);
  });
});

describe("useUndoRedo", () => {
  const steps: UndoResult[] = [];

  function Buttons({ keys = true }: { keys?: boolean }) {
    const { undo, redo, canUndo, canRedo } = useUndoRedo({
      keys,
      onStep: (result) => steps.push(result),
    });
    return (
      <>
        <button type="button" disabled={!canUndo} onClick={undo}>
          undo
        </button>
        <button type="button" disabled={!canRedo} onClick={redo}>
          redo
        </button>
        <textarea />
        <input type="checkbox" />
        <div contentEditable suppressContentEditableWarning data-testid="rich" />
      </>
    );
  }
  const press = (key: string, more: object = {}, target: Element = document.body) =>
    !fireEvent.keyDown(target, { key, code: `Key${key.toUpperCase()}`, ...more });

  async function edited(keys = true, twice = false) {
    const server = serve({ tasks: [{ id: "a", title: "A" }] });
    const page = open(
      server,
      <>
        <Buttons keys={keys} />
        {twice && <Buttons />}
      </>,
    );
    const end = page.client.query("tasks").subscribe(() => {});
    await settle(server);
    act(() => {
      page.client.write(set("a", "title", "B"));
      page.client.write(set("a", "position", 1));
    });
    await settle(server);
    const now = async () => {
      await settle(server);
      const task = server.get("tasks", "a");
      return [task?.title, task?.position];
    };
    return { ...page, server, now, end };
  }

  it("has buttons that know whether there is something to do", async () => {
    const { now } = await edited();
    const [undo, redo] = screen.getAllByRole<HTMLButtonElement>("button");
    expect([undo?.disabled, redo?.disabled]).toEqual([false, true]);
    fireEvent.click(undo as HTMLElement);
    expect(await now()).toEqual(["B", null]);
    fireEvent.click(undo as HTMLElement);
    expect(await now()).toEqual(["A", null]);
    expect([undo?.disabled, redo?.disabled]).toEqual([true, false]);
    fireEvent.click(redo as HTMLElement);
    expect(await now()).toEqual(["B", null]);
  });

  it("tells what a step did, taken by button or by key", async () => {
    const { server, now } = await edited();
    steps.length = 0;
    press("z", { ctrlKey: true });
    expect(await now()).toEqual(["B", null]);
    server.put("tasks", { id: "a", title: "C" });
    await settle(server);
    press("z", { ctrlKey: true });
    expect(await now()).toEqual(["C", null]);
    expect(steps.map(({ skipped }) => skipped)).toEqual([
      [],
      [{ table: "tasks", id: "a", key: ["title"] }],
    ]);
    fireEvent.click(screen.getAllByRole("button")[1] as HTMLElement);
    expect(await now()).toEqual(["C", 1]);
    expect(steps.length).toBe(3);
  });

  it("has the keys of every platform", async () => {
    const { now } = await edited();
    expect(press("z", { ctrlKey: true })).toBe(true);
    expect(await now()).toEqual(["B", null]);
    expect(press("z", { metaKey: true })).toBe(true);
    expect(await now()).toEqual(["A", null]);
    expect(press("Z", { metaKey: true, shiftKey: true })).toBe(true);
    expect(await now()).toEqual(["B", null]);
    expect(press("y", { ctrlKey: true })).toBe(true);
    expect(await now()).toEqual(["B", 1]);
    // A layout without Latin letters.
    expect(press("я", { ctrlKey: true, code: "KeyZ" })).toBe(true);
    expect(await now()).toEqual(["B", null]);
  });

  it("leaves other keys alone, and its own where there is nothing to do", async () => {
    const { now } = await edited();
    expect(press("z")).toBe(false);
    expect(press("z", { ctrlKey: true, altKey: true })).toBe(false);
    expect(press("z", { ctrlKey: true, metaKey: true })).toBe(false);
    expect(press("y", { metaKey: true })).toBe(false);
    expect(press("y", { ctrlKey: true })).toBe(false);
    expect(await now()).toEqual(["B", 1]);
  });

  it("leaves typing to the browser", async () => {
    const { now, container } = await edited();
    const [text, check] = ["textarea", "input"].map((name) => container.querySelector(name));
    const rich = screen.getByTestId("rich");
    Object.defineProperty(rich, "isContentEditable", { value: true });
    expect(press("z", { ctrlKey: true }, text as Element)).toBe(false);
    expect(press("z", { ctrlKey: true }, rich)).toBe(false);
    expect(await now()).toEqual(["B", 1]);
    expect(press("z", { ctrlKey: true }, check as Element)).toBe(true);
    expect(await now()).toEqual(["B", null]);
  });

  it("takes one step for a key however many components use it, and none where it is told so", async () => {
    const two = await edited(true, true);
    press("z", { ctrlKey: true });
    expect(await two.now()).toEqual(["B", null]);
    two.unmount();
    const off = await edited(false);
    expect(press("z", { ctrlKey: true })).toBe(false);
    expect(await off.now()).toEqual(["B", 1]);
  });
});
