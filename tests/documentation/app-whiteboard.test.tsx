import { fireEvent } from "@testing-library/react";
import { expect, it } from "vitest";
import { BOB, clientOf, done, refusal, show, until, watch } from "./users";
import { add, moveBy, paint, sectorsOf } from "./whiteboard";
import { Whiteboard } from "./whiteboard-view";

it("moves many small things", async () => {
  const [alice, bob] = [clientOf("alice"), clientOf("bob")];
  const board = crypto.randomUUID();
  await done(alice, { type: "create", table: "whiteboards", id: board, value: { name: "Ideas" } });
  const member = { type: "listInsert", table: "whiteboards", id: board, key: "memberIds" } as const;
  await done(alice, { ...member, value: BOB });
  const made = [add(alice, board, "box", 100, 100), add(alice, board, "box", -100, 200)];
  await Promise.all(made.map(({ written }) => written.confirmed));
  const [near, left] = made.map(({ id }) => id) as [string, string];

  const view = { left: 0, top: 0, right: 1999, bottom: 1999 };
  expect(sectorsOf(board, view)).toEqual([`${board}/0/0`]);
  expect(sectorsOf(board, { ...view, left: -1 })).toHaveLength(2);
  const hers = show(alice, <Whiteboard boardId={board} view={view} />);
  const his = show(bob, <Whiteboard boardId={board} view={view} />);
  const x = ({ page }: typeof his, id: string) => page.queryByTestId(id)?.getAttribute("x");
  await until(() => expect(x(his, near)).toBe("100"));
  expect(x(his, left)).toBeUndefined();

  // a drag is seen before it is written
  const whole = watch(bob.query("shapes", { boardId: board }));
  await until(() => expect(whole().data).toHaveLength(2));
  await until(() => expect(x(hers, near)).toBe("100"));
  fireEvent.pointerDown(hers.page.getByTestId(near));
  const svg = hers.container.querySelector("svg") as SVGElement;
  const dragged = new window.MouseEvent("pointermove", { bubbles: true });
  Object.defineProperty(dragged, "movementX", { value: 50 });
  Object.defineProperty(dragged, "movementY", { value: 0 });
  fireEvent(svg, dragged);
  await until(() => expect(x(his, near)).toBe("150"));
  expect(whole().data.find(({ id }) => id === near)?.x).toBe(100);
  fireEvent.pointerUp(svg);
  await until(() => expect(whole().data.find(({ id }) => id === near)?.x).toBe(150));
  await until(() => expect(x(his, near)).toBe("150"));

  // a selection, across sectors, in one step
  await moveBy(bob, whole().data, 1900, 0).confirmed;
  await until(() => expect([x(hers, near), x(hers, left)]).toEqual([undefined, "1800"]));
  await bob.undo();
  await until(() => expect([x(hers, near), x(hers, left)]).toEqual(["150", undefined]));

  // two parts of one style
  const text = { type: "set", table: "shapes", id: near, key: "style.text", value: "Hi" } as const;
  await Promise.all([paint(alice, near, "red").confirmed, bob.write(text).confirmed]);
  const style = () => whole().data.find(({ id }) => id === near)?.style;
  await until(() => expect(style()).toEqual({ colour: "red", text: "Hi" }));

  // a sector that is not the place's, and a view that is too large
  const wrong = { type: "set", table: "shapes", id: near, key: "x", value: 9000 } as const;
  expect(await refusal(bob.write(wrong))).toBe("check_failed");
  const all = sectorsOf(board, { left: 0, top: 0, right: 20_000, bottom: 20_000 });
  expect(all.length).toBeGreaterThan(100);
  const large = watch(bob.query("shapes", { sector: { in: all } }));
  await until(() => expect(large()).toMatchObject({ status: "cached", data: [{ id: near }] }));
});
