import { expect, it } from "vitest";
import { compute, fill, insertColumn, paste } from "./sheet";
import { Sheet } from "./sheet-view";
import { BOB, CAROL, clientOf, done, refusal, show, until, watch } from "./users";

it("merges cells, and computes from what is there", async () => {
  const [alice, bob, carol] = [clientOf("alice"), clientOf("bob"), clientOf("carol")];
  const [sheet, row] = [crypto.randomUUID(), crypto.randomUUID()];
  await done(alice, [
    { type: "create", table: "sheets", id: sheet, value: { name: "Costs", columns: ["a", "b"] } },
    { type: "create", table: "sheetRows", id: row, value: { sheetId: sheet, place: "a0" } },
  ]);
  const member = { type: "listInsert", table: "sheets", id: sheet, key: "memberIds" } as const;
  await done(alice, { ...member, value: BOB });
  const his = show(bob, <Sheet id={sheet} />);
  const shown = () => [...his.container.querySelectorAll("input")].map(({ value }) => value);
  await until(() => expect(shown()).toEqual(["", ""]));

  // two cells of one row, at once
  await Promise.all([fill(alice, row, "a", 2).confirmed, fill(bob, row, "b", 3).confirmed]);
  await until(() => expect(shown()).toEqual(["2", "3"]));

  // two columns beside the same one
  const [one, two] = [insertColumn(alice, sheet, "a", "X"), insertColumn(bob, sheet, "a", "Y")];
  await Promise.all([one.written.confirmed, two.written.confirmed]);
  const held = watch(bob.record("sheets", sheet));
  await until(() => expect(held()?.columns).toHaveLength(4));
  expect(held()?.columns.at(0)).toBe("a");
  expect(held()?.columns.at(-1)).toBe("b");
  expect(held()?.titles).toEqual({ [one.column]: "X", [two.column]: "Y" });

  // a result that rests on what is not there any more is computed again
  const rows = watch(alice.query("sheetRows", { sheetId: sheet }));
  await until(() => expect(rows().data[0]?.cells).toMatchObject({ a: 2, b: 3 }));
  const old = rows().data[0] as ReturnType<typeof rows>["data"][number];
  await fill(bob, row, "a", 10).confirmed;
  const sum = (cells: Record<string, string | number>) => Number(cells.a) + Number(cells.b);
  await compute(alice, old, "sum", sum);
  await until(() => expect(rows().data[0]?.cells.sum).toBe(13));
  expect(alice.rejected.getSnapshot()).toEqual([]);

  // many cells: several transactions, one step
  const cells = Array.from({ length: 700 }, (_, at) => ({ row, column: `c${at}`, value: "x" }));
  paste(alice, cells);
  await until(() => expect(Object.keys(rows().data[0]?.cells ?? {})).toHaveLength(703));
  await alice.undo();
  const seen = watch(bob.query("sheetRows", { sheetId: sheet }));
  await until(() => expect(alice.status.getSnapshot().pending).toBe(0));
  await until(() =>
    expect(Object.keys(seen().data[0]?.cells ?? {}).sort()).toEqual(["a", "b", "sum"]),
  );

  await fill(bob, row, "sum", null).confirmed;
  await until(() => expect(rows().data[0]?.cells).toEqual({ a: 10, b: 3 }));
  expect(await refusal(fill(carol, row, "a", 1))).toBe("forbidden");
  expect(await refusal(carol.write({ ...member, value: CAROL }))).toBe("forbidden");
});
