import { configure, render, within } from "@testing-library/react";
import type { ReactNode } from "react";
import {
  type Client,
  createClient,
  memoryStorage,
  type Operation,
  type Readable,
  RefusedError,
} from "rowcast";
import { RowcastProvider } from "rowcast/react";
import { afterAll, expect, vi } from "vitest";
import { schema } from "./schema.gen";

export const ALICE = "00000000-0000-7000-8000-00000000a11c";
export const BOB = "00000000-0000-7000-8000-000000000b0b";
export const CAROL = "00000000-0000-7000-8000-00000000ca01";

const url = process.env.GATEWAY as string;
const opened: Client[] = [];
configure({ asyncUtilTimeout: 20_000 });
afterAll(async () => {
  await Promise.all(opened.map((client) => client.close()));
});

/** A client of a demo user, on a device of its own. */
export function clientOf(user: "alice" | "bob" | "carol"): Client {
  const token = async () => {
    const body = JSON.stringify({ user });
    const answer = await fetch(`${url}/api/auth/dev-sign-in`, { method: "POST", body });
    return (await answer.json()).token as string;
  };
  const client = createClient({ url, schema, auth: { token }, storage: memoryStorage() });
  opened.push(client);
  return client;
}

/** What is there, as long as it is looked at. */
export function watch<T>(readable: Readable<T>): () => T {
  readable.subscribe(() => {});
  return () => readable.getSnapshot();
}

/** Waits until something holds. */
export const until = (holds: () => void) => vi.waitFor(holds, { timeout: 20_000, interval: 10 });

/** Shows a part of a page to somebody. */
export function show(client: Client, children: ReactNode) {
  const { container } = render(<RowcastProvider client={client}>{children}</RowcastProvider>);
  return { container, page: within(container) };
}

/** Waits for the refusal of a write, and gives its code. */
export async function refusal(written: { confirmed: Promise<unknown> }): Promise<string> {
  const error = await written.confirmed.then(
    () => expect.fail("it was not refused"),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(RefusedError);
  return error.code;
}

/** Writes, as no step of undo, and waits for the confirmation. */
export const done = (client: Client, operations: Operation | Operation[]) =>
  client.write(operations, { undo: false }).confirmed;
