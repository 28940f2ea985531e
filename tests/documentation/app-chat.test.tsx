import { fireEvent } from "@testing-library/react";
import { expect, it } from "vitest";
import { archive } from "./archive";
import { Channel, createChannel, markRead, unread } from "./chat";
import { ALICE, BOB, clientOf, done, refusal, show, until, watch } from "./users";

it("pages back, and lives at its end", async () => {
  const [alice, bob, carol] = [clientOf("alice"), clientOf("bob"), clientOf("carol")];
  const { channelId, written } = createChannel(alice, "General", ALICE);
  await written.confirmed;
  for (let number = 1; number <= 7; number++) {
    const value = { channelId, body: `m${number}` };
    await done(alice, { type: "create", table: "messages", id: crypto.randomUUID(), value });
  }
  const membership = crypto.randomUUID();
  const member = { type: "create", table: "channelMembers", id: membership } as const;
  expect(await refusal(bob.write({ ...member, value: { channelId, userId: BOB } }))).toBe(
    "forbidden",
  );
  const hers = show(alice, <Channel channelId={channelId} pageSize={3} />);
  const his = show(bob, <Channel channelId={channelId} pageSize={3} />);
  await done(alice, { ...member, value: { channelId, userId: BOB } });

  const texts = ({ container }: typeof his) =>
    [...container.querySelectorAll("li")].map((item) => item.textContent).join(" ");
  await until(() => expect(texts(his)).toBe("m5 m6 m7"));
  fireEvent.click(his.page.getByText("Older"));
  await until(() => expect(texts(his)).toBe("m2 m3 m4 m5 m6 m7"));
  fireEvent.click(his.page.getByText("Older"));
  await until(() => expect(texts(his)).toBe("m1 m2 m3 m4 m5 m6 m7"));
  await until(() => expect(his.page.queryByText("Older")).toBeNull());

  // typing shows, and goes with the message
  const input = hers.page.getByRole("textbox");
  fireEvent.change(input, { target: { value: "m8" } });
  await until(() => expect(his.container.textContent).toContain("Somebody is typing"));
  fireEvent.click(hers.page.getByText("Send"));
  await until(() => expect(texts(his)).toBe("m1 m2 m3 m4 m5 m6 m7 m8"));
  await until(() => expect(his.container.textContent).not.toContain("Somebody is typing"));
  await until(() => expect(texts(hers)).toBe("m6 m7 m8"));
  expect(alice.history.getSnapshot().canUndo).toBe(false);

  // what is unread
  await markRead(bob, membership).confirmed;
  const row = watch(bob.record("channelMembers", membership));
  await until(() => expect(row()?.readAt).toBeTruthy());
  const news = watch(unread(bob, channelId, row()?.readAt ?? null));
  const value = { channelId, body: "m9" };
  await done(alice, { type: "create", table: "messages", id: crypto.randomUUID(), value });
  await until(() => expect(news().data.map(({ body }) => body)).toEqual(["m9"]));

  // the archive, once
  const { queryFn } = archive(bob, channelId, "m");
  const first = await queryFn({ signal: new AbortController().signal, pageParam: null });
  expect(first.rows).toHaveLength(9);

  // who is no member, and who leaves
  const stranger = watch(carol.query("messages", { channelId }));
  await until(() => expect(stranger().status).toBe("live"));
  expect(stranger().data).toEqual([]);
  await done(bob, { type: "delete", table: "channelMembers", id: membership });
  await until(() => expect(texts(his)).toBe(""));
});
