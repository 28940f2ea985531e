import { fireEvent } from "@testing-library/react";
import { expect, it } from "vitest";
import { createPage, Found, Page, replace } from "./notes";
import { BOB, clientOf, done, refusal, show, until, watch } from "./users";

it("keeps two writers apart", async () => {
  const [alice, bob, carol] = [clientOf("alice"), clientOf("bob"), clientOf("carol")];
  const { page, first, written } = createPage(alice, "Soup recipes", "Onions");
  await written.confirmed;
  const sharing = { table: "pages", id: page, key: "sharedWith", value: BOB } as const;
  await done(alice, { ...sharing, type: "listInsert" });

  // what is being typed is not overwritten, and neither is lost
  const second = crypto.randomUUID();
  await done(alice, {
    type: "create",
    table: "paragraphs",
    id: second,
    value: { pageId: page, place: "a1", body: "Salt" },
  });
  const hers = show(alice, <Page id={page} />);
  const his = show(bob, <Page id={page} />);
  const texts = ({ container }: typeof hers) =>
    [...container.querySelectorAll("textarea")].map(({ value }) => value);
  await until(() => expect(texts(his)).toEqual(["Onions", "Salt"]));
  await until(() => expect(texts(hers)).toEqual(["Onions", "Salt"]));
  const field = his.container.querySelector("textarea") as HTMLTextAreaElement;
  fireEvent.change(field, { target: { value: "Onions, sliced" } });
  await done(alice, {
    type: "set",
    table: "paragraphs",
    id: second,
    key: "body",
    value: "Pepper",
  });
  await until(() => expect(texts(his)).toEqual(["Onions, sliced", "Pepper"]));
  fireEvent.blur(field);
  await until(() => expect(texts(hers)).toEqual(["Onions, sliced", "Pepper"]));

  // over what somebody has written since: refused
  const known = watch(alice.record("paragraphs", first));
  await until(() => expect(known()?.version).toBe(2));
  expect(await refusal(replace(alice, first, 1, "Leeks"))).toBe("conflict");
  await replace(alice, first, 2, "Leeks").confirmed;
  await until(() => expect(texts(his)).toEqual(["Leeks", "Pepper"]));

  // search, and the bin
  await done(alice, { type: "listInsert", table: "pages", id: page, key: "tags", value: "soup" });
  const found = show(bob, <Found tag="soup" word="recipe" />);
  await until(() => expect(found.container.textContent).toBe("Soup recipes"));
  const bin = alice.write({ type: "delete", table: "pages", id: page });
  await bin.confirmed;
  await until(() => expect(found.container.textContent).toBe(""));
  await alice.undo();
  await until(() => expect(found.container.textContent).toBe("Soup recipes"));

  // the length is said in words
  const long = "x".repeat(20_001);
  expect(await refusal(replace(alice, second, 2, long))).toBe("check_failed");
  const stranger = watch(carol.record("pages", page));
  await until(() => expect(stranger()).toBeNull());
});
