import { describe, expect, it } from "vitest";
import { create, rows, Stage, set, watch } from "./harness.js";

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
});
