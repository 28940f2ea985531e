import { expect, it } from "vitest";
import { createOrg, invite, moveDeal, pipeline } from "./crm";
import { Pipeline } from "./pipeline";
import { ALICE, BOB, CAROL, clientOf, done, refusal, show, until, watch } from "./users";

it("knows workspaces, roles and stages", async () => {
  const [alice, bob, carol] = [clientOf("alice"), clientOf("bob"), clientOf("carol")];
  const { orgId, written } = createOrg(alice, "Acme", ALICE);
  await written.confirmed;
  const other = createOrg(carol, "Elsewhere", CAROL);
  await other.written.confirmed;
  expect(await refusal(invite(bob, orgId, BOB, "owner"))).toBe("forbidden");
  await invite(alice, orgId, BOB, "team").confirmed;
  expect(await refusal(invite(bob, orgId, CAROL, "team"))).toBe("forbidden");

  const [company, deal, small] = ["", "", ""].map(() => crypto.randomUUID()) as [
    string,
    string,
    string,
  ];
  await done(bob, [
    { type: "create", table: "companies", id: company, value: { orgId, name: "Initech" } },
    {
      type: "create",
      table: "deals",
      id: deal,
      value: { orgId, companyId: company, title: "Printers", amount: "12000.10" },
    },
    {
      type: "create",
      table: "deals",
      id: small,
      value: { orgId, companyId: company, title: "Paper", amount: "90.00" },
    },
  ]);
  await done(alice, {
    type: "create",
    table: "dealTerms",
    id: deal,
    value: { orgId, discount: 5 },
  });
  const hers = show(alice, <Pipeline orgId={orgId} />);
  const his = show(bob, <Pipeline orgId={orgId} />);
  const both = "Printers: 12000.10 -5 %Paper: 90.00 ";
  await until(() => expect(hers.container.textContent).toBe(both));
  await until(() => expect(his.container.textContent).toBe(both.replace("-5 %", "")));
  const terms = watch(bob.record("dealTerms", deal));
  await until(() => expect(terms()).toBeNull());
  const large = watch(pipeline(bob, orgId, ["lead", "offer"]));
  await until(() => expect(large().data.map(({ title }) => title)).toEqual(["Printers"]));

  // stages move by the function alone, and end
  const stage = { type: "set", table: "deals", id: deal, key: "stage", value: "won" };
  await expect(async () => bob.write(stage as never)).rejects.toThrow();
  expect(await moveDeal(bob, deal, "won")).toBe("lead");
  await until(() => expect(hers.container.textContent).toBe("Paper: 90.00 "));
  await expect(moveDeal(bob, deal, "lead")).rejects.toMatchObject({ code: "deal_closed" });
  await expect(moveDeal(carol, small, "won")).rejects.toMatchObject({ code: "forbidden" });

  // the other workspace: neither seen, nor mixed up
  const foreign = watch(carol.query("deals", { orgId }));
  await until(() => expect(foreign().status).toBe("live"));
  expect(foreign().data).toEqual([]);
  const value = { orgId: other.orgId, companyId: company, title: "Stolen" };
  const mixed = { type: "create", table: "deals", id: crypto.randomUUID(), value } as const;
  expect(await refusal(carol.write(mixed))).toBe("forbidden");
  const discount = { type: "set", table: "dealTerms", id: deal, key: "discount" } as const;
  expect(await refusal(bob.write({ ...discount, value: 50 }))).toBe("forbidden");

  // who is sent away
  const members = watch(alice.query("orgMembers", { orgId, userId: BOB }));
  await until(() => expect(members().data).toHaveLength(1));
  await done(alice, { type: "delete", table: "orgMembers", id: members().data[0]?.id ?? "" });
  await until(() => expect(his.container.textContent).toBe(""));
});
