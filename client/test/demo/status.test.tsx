// @vitest-environment jsdom
import { act } from "@testing-library/react";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { StatusBar } from "../../demo/src/status.js";
import { open, serve, settle } from "../react/app.js";

/** How long what is not saved yet is not worth a word. */
const PATIENCE_MS = 500;
const rename = { type: "set", table: "boards", id: "b", key: "name", value: "Garden" } as const;

// No time passes but what a test lets pass.
beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => void vi.useRealTimers());

/** The bar, and what its badge has said since. */
async function show({ strict = false } = {}) {
  const server = serve({ boards: [{ id: "b", name: "Yard" }] });
  const page = open(server, <StatusBar />, { strict });
  await settle(server);
  const said: string[] = [];
  const look = () => {
    const text = page.container.querySelector("[role=status]")?.textContent.trim();
    if (text !== undefined && text !== said.at(-1)) said.push(text);
  };
  look();
  new MutationObserver(look).observe(page.container, {
    subtree: true,
    childList: true,
    characterData: true,
  });
  const pass = (ms: number) => act(() => vi.advanceTimersByTimeAsync(ms));
  return { server, client: page.client, said, pass };
}

describe("the badge", () => {
  it("does not speak of what is saved at once", async () => {
    const { server, client, said, pass } = await show();
    const release = server.hold("write");
    act(() => void client.write(rename));
    await settle(server);
    await pass(PATIENCE_MS - 1);
    release();
    await settle(server);
    await pass(PATIENCE_MS);
    expect(said).toEqual(["Saved"]);
  });

  it("speaks of what takes longer", async () => {
    const { server, client, said, pass } = await show();
    const release = server.hold("write");
    act(() => void client.write(rename));
    await settle(server);
    await pass(PATIENCE_MS);
    expect(said).toEqual(["Saved", "Saving 1 change"]);
    release();
    await settle(server);
    expect(said).toEqual(["Saved", "Saving 1 change", "Saved"]);
  });

  it.each([false, true])(
    "never calls saved what has waited for the network, however soon that is back (strict: %s)",
    async (strict) => {
      const { server, client, said, pass } = await show({ strict });
      const release = server.hold("write");
      act(() => server.setOnline(false));
      await settle(server);
      act(() => void client.write(rename));
      await settle(server);
      act(() => server.setOnline(true));
      await settle(server);
      await pass(PATIENCE_MS - 1);
      expect(said).toEqual(["Saved", "Offline", "Offline1 change waiting", "Saving 1 change"]);
      release();
      await settle(server);
      expect(said.slice(4)).toEqual(["Saved"]);
    },
  );
});
