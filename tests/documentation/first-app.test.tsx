import { cleanup, configure, fireEvent, render, waitFor, within } from "@testing-library/react";
import { createClient } from "rowcast";
import { afterAll, beforeAll, expect, it } from "vitest";
import { visit } from "./browser";
import { Network } from "./network";
import { App } from "./src/app";
import { schema } from "./src/schema.gen";
import { type Person, tokenOf } from "./src/session";

const network = new Network(process.env.GATEWAY as string);

beforeAll(async () => {
  configure({ asyncUtilTimeout: 20_000 });
  visit(await network.open());
});

afterAll(async () => {
  cleanup();
  await network.close();
});

/** A window of somebody, and what he does and sees in it. */
function open(person: Person) {
  const { container, unmount } = render(<App person={person} />);
  const page = within(container);
  return {
    unmount,
    press: async (name: string) => {
      await waitFor(() =>
        expect(page.getByRole("button", { name })).toHaveProperty("disabled", false),
      );
      fireEvent.click(page.getByRole("button", { name }));
    },
    tick: async (name: RegExp) => fireEvent.click(await page.findByRole("checkbox", { name })),
    type: async (name: string, value: string) => {
      const field = await page.findByRole("textbox", { name });
      fireEvent.change(field, { target: { value } });
      fireEvent.blur(field);
    },
    value: (name: string) => (page.getByRole("textbox", { name }) as HTMLInputElement).value,
    sees: (text: string | RegExp) => waitFor(() => expect(container.textContent).toMatch(text)),
    seesNo: (text: string | RegExp) =>
      waitFor(() => expect(container.textContent).not.toMatch(text)),
  };
}

it("does what the tutorial promises", async () => {
  const alice = open("alice");
  const bob = open("bob");

  // 2: sharing, and who is here
  await alice.press("New list");
  await bob.sees("bob, online");
  await bob.seesNo("Groceries");
  await alice.press("Share with bob");
  await bob.press("Groceries");
  await alice.sees("Here too: bob");
  await bob.sees("Here too: alice");

  // 3: both at once
  await alice.type("What to buy", "milk");
  await alice.press("Add");
  await bob.sees("1 milk");
  await Promise.all([alice.press("More milk"), bob.press("More milk")]);
  await alice.sees("3 milk");
  await bob.sees("3 milk");
  await bob.tick(/milk/);
  await alice.sees(/, 0 waiting/);

  // 4: refused, with the reason
  await bob.type("Name", "Mine");
  await bob.sees("Refused: ");
  await waitFor(() => expect(bob.value("Name")).toBe("Groceries"));
  await bob.press("Forget it");
  await bob.seesNo("Refused: ");

  // 5: undo
  await alice.press("Delete milk");
  await bob.seesNo("3 milk");
  await alice.press("Undo");
  await bob.sees("3 milk");

  // 6: without a network
  network.unplug();
  await alice.sees("offline");
  await alice.type("What to buy", "bread");
  await alice.press("Add");
  await alice.sees("1 bread");
  await alice.sees("1 waiting");
  alice.unmount();
  const again = open("alice");
  await again.press("Groceries");
  await again.sees("3 milk");
  await again.sees("1 bread");
  await again.sees("offline, 1 waiting");
  network.plug();
  await again.sees("online, 0 waiting");
  await bob.sees("1 bread");

  // 7: who loses access
  await again.press("Do not share with bob");
  await bob.sees("There is no such list, or not for you.");
  await bob.seesNo("bread");

  // 8: and a stranger
  const carol = open("carol");
  await carol.sees("carol, online");
  const client = createClient({ schema, auth: { token: () => tokenOf("carol") } });
  const lists = client.query("lists");
  lists.subscribe(() => {});
  await waitFor(() => expect(lists.getSnapshot()).toMatchObject({ status: "live", data: [] }));
  await carol.seesNo("Groceries");
  await client.close();
});
