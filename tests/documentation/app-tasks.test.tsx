import { expect, it } from "vitest";
import { Column, Mine, move } from "./todos";
import { ALICE, BOB, CAROL, clientOf, done, refusal, show, until, watch } from "./users";

it("moves, assigns and shows tasks to the members of a project", async () => {
  const [alice, bob, carol] = [clientOf("alice"), clientOf("bob"), clientOf("carol")];
  const project = crypto.randomUUID();
  const ids = ["a", "b", "c"].map(() => crypto.randomUUID()) as [string, string, string];
  const column = show(bob, <Column projectId={project} status="todo" />);
  const doing = show(bob, <Column projectId={project} status="doing" />);
  const mine = show(bob, <Mine userId={BOB} />);

  await done(alice, [
    { type: "create", table: "projects", id: project, value: { name: "Launch" } },
    ...ids.map(
      (id, at) =>
        ({
          type: "create",
          table: "todos",
          id,
          value: { projectId: project, title: "abc"[at] ?? "", place: `a${at}` },
        }) as const,
    ),
  ]);
  const member = { table: "projects", id: project, key: "memberIds", value: BOB } as const;
  await done(alice, { ...member, type: "listInsert" });
  await until(() => expect(column.container.textContent).toBe("a b c "));

  // c between a and b, then two into the same gap
  const at = (place: string) => ({ place }) as never;
  await move(bob, ids[2], "todo", at("a0"), at("a1")).confirmed;
  await until(() => expect(column.container.textContent).toBe("a c b "));
  await move(alice, ids[0], "todo", at("a1"), at("a1")).confirmed;
  await until(() => expect(column.container.textContent).toBe("c b a "));
  await move(alice, ids[1], "doing", undefined, undefined).confirmed;
  await until(() => expect(doing.container.textContent).toBe("b "));

  // assignment: only to who sees it
  const assign = { type: "set", table: "todos", id: ids[0], key: "assigneeId" } as const;
  expect(await refusal(alice.write({ ...assign, value: CAROL }))).toBe("forbidden");
  await done(alice, { ...assign, value: BOB });
  await until(() => expect(mine.container.textContent).toBe("a"));
  await done(bob, { ...assign, value: ALICE });
  await until(() => expect(mine.container.textContent).toBe(""));

  // the owner alone says who is a member
  expect(await refusal(bob.write({ ...member, type: "listRemove" }))).toBe("forbidden");
  await done(alice, { ...member, type: "listRemove" });
  await until(() => expect(column.container.textContent).toBe(""));
  const hers = watch(carol.query("todos", { projectId: project }));
  await until(() => expect(hers()).toMatchObject({ status: "live", data: [] }));
});
