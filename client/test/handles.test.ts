import { expect, it } from "vitest";
import { Stage, watch } from "./harness.js";

it("a handle that was let go of and the one that came after it are one query", async () => {
  const stage = new Stage();
  stage.server.put("tasks", "a", { title: "A", boardId: "b1" });
  const client = stage.open();
  const first = client.query("tasks", { boardId: "b1" });
  watch(first).end();
  await stage.advance(20_000);
  const second = client.query("tasks", { boardId: "b1" });
  const later = watch(second);
  await stage.until(() => second.getSnapshot().status === "live");
  const again = watch(first);
  expect(first.getSnapshot()).toBe(second.getSnapshot());
  // As long as one of them is looked at.
  again.end();
  await stage.advance(20_000);
  stage.server.stale(["tasks?boardId=b1"]);
  stage.server.put("tasks", "b", { title: "B", boardId: "b1" });
  await stage.advance(1000);
  expect(second.getSnapshot()).toMatchObject({ status: "live" });
  expect(second.getSnapshot().data).toHaveLength(2);
  later.end();
});
