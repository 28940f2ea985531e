import { describe, expect, it } from "vitest";
import { InvalidOperationError, InvalidQueryError } from "../src/errors.js";
import { create, rows, Stage, set, watch } from "./harness.js";
import { problem } from "./scripted-server.js";

describe("a client", () => {
  it("loads a query, keeps it live, and writes", async () => {
    const stage = new Stage();
    stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
    const client = stage.open();
    const query = client.query("tasks", { boardId: "b1" }, { orderBy: [{ key: "title" }] });
    const seen = rows(query);
    await stage.until(() => query.getSnapshot().status === "live");
    expect(seen.now()).toEqual(["A"]);
    stage.server.put("tasks", "b", { title: "B", boardId: "b1" });
    await stage.until(() => seen.now().length === 2);
    const handle = client.write(set("a", "title", "C"));
    expect(seen.now()).toEqual(["B", "C"]);
    await stage.advance(100);
    await expect(handle.confirmed).resolves.toMatchObject({ versions: [{ id: "a", version: 2 }] });
    expect(client.status.getSnapshot()).toMatchObject({ state: "online", pending: 0 });
    expect(stage.server.get("tasks", "a")?.title).toBe("C");
  });

  it("loads one record, shows null where it is not there, and what is created", async () => {
    const stage = new Stage();
    const client = stage.open();
    const log = watch(client.record("tasks", "x"));
    await stage.advance();
    expect(log.shown).toEqual([undefined, null]);
    client.write(create("x", { title: "X" }));
    expect(client.record("tasks", "x").getSnapshot()).toMatchObject({ title: "X", version: 0 });
    await stage.advance();
    expect(log.shown.at(-1)).toMatchObject({ title: "X", version: 1, createdBy: "ann" });
  });

  it("refuses in place what is not well formed, and shows nothing of it", async () => {
    const stage = new Stage();
    const client = stage.open();
    await stage.advance();
    const wrong: [object, string][] = [
      [{ type: "set", table: "nothing", id: "a", key: "title", value: "x" }, "unknown_table"],
      [set("a", "nothing", "x"), "unknown_key"],
      [set("a", "position", "not a number"), "wrong_type"],
      [{ type: "call", fn: "nothing" }, "unknown_function"],
    ];
    for (const [operation, code] of wrong) {
      expect(() => client.write([create("b"), operation] as never)).toThrow(
        expect.objectContaining({ name: "InvalidOperationError", code }),
      );
    }
    expect(() => client.query("nothing")).toThrow(InvalidQueryError);
    expect(() => client.query("tasks", { nothing: 1 } as never)).toThrow(InvalidQueryError);
    // Also where a query is in use that is written alike.
    for (const where of [{}, { position: null }]) client.query("tasks", where).subscribe(() => {});
    for (const value of [undefined, {}, { eq: undefined }, Number.NaN, 1n, () => {}]) {
      expect(() => client.query("tasks", { position: value } as never)).toThrow(InvalidQueryError);
    }
    expect(client.record("tasks", "b").getSnapshot()).toBeUndefined();
    expect(client.status.getSnapshot().pending).toBe(0);
    stage.server.rule = () => problem(403, "forbidden");
    client.write(create("b"));
    await stage.advance();
    const [entry] = client.rejected.getSnapshot();
    const again = client.retry(entry?.id as string, {
      operations: [set("b", "nothing", 1)] as never,
    });
    await expect(again).rejects.toBeInstanceOf(InvalidOperationError);
    expect(client.rejected.getSnapshot()).toHaveLength(1);
  });

  it("keeps a write as it was made, whatever becomes of the caller's objects", async () => {
    const stage = new Stage();
    const client = stage.open();
    await stage.advance();
    const tags = ["x"];
    client.write(create("b", { tags }));
    tags.push("y");
    await stage.advance();
    expect(stage.server.get("tasks", "b")?.tags).toEqual(["x"]);
  });

  it("calls functions in their turn, and gives what they gave", async () => {
    const stage = new Stage();
    const client = stage.open();
    await stage.advance();
    const handles = [client.write(create("b")), client.call("archive", { board: "b1" })];
    await stage.advance();
    expect(stage.server.applied).toEqual(handles.map(({ txId }) => txId));
    await expect(handles[1]?.confirmed).resolves.toMatchObject({ values: [null] });
    expect(client.history.getSnapshot().canUndo).toBe(true);
  });
});
