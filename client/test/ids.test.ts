import { expect, test } from "vitest";
import { createIds, derivedIds, ServerClock, timeOfId, wireTime } from "../src/ids.js";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{12}$/;
const START = Date.UTC(2026, 0, 31);

/** Bytes that are all alike. */
const always = (byte: number) => (bytes: Uint8Array) => void bytes.fill(byte);

test("ids are of version 7, and tell when they were made", () => {
  const id = createIds(() => START + 0.7)();
  expect(id).toMatch(UUID);
  expect(id[14]).toBe("7");
  expect(timeOfId(id)).toBe(START);
  expect(timeOfId("00000000-0000-4000-8000-000000000000")).toBeNull();
});

test("each is greater than the one before, within a millisecond and when the clock steps back", () => {
  let now = START;
  const next = createIds(() => now, always(0xff));
  const ids = Array.from({ length: 10_000 }, (_, n) => {
    if (n % 100 === 0) now += n % 300 === 0 ? -5 : 3;
    return next();
  });
  expect(ids).toEqual([...ids].sort());
  expect(new Set(ids).size).toBe(ids.length);
  // Counting on carried them ahead, by no more than there was to count.
  expect(timeOfId(ids.at(-1) as string)).toBeLessThan(START + 200);
});

test("a clock that is set right is believed", () => {
  let now = START + 3_600_000;
  const next = createIds(() => now);
  next();
  now = START;
  expect(timeOfId(next())).toBe(START);
});

test("ids of two devices differ in the same millisecond", () => {
  const [one, other] = [createIds(() => START), createIds(() => START)];
  const ids = Array.from({ length: 500 }, () => [one(), other()]).flat();
  expect(new Set(ids).size).toBe(1000);
});

test("derived ids are the same for the same text, and others for another", () => {
  const of = (text: string) => {
    const next = derivedIds(text);
    return [next("tasks:1:a"), next("tasks:1:b"), next("tasks:2:a")];
  };
  const texts = Array.from(
    { length: 300 },
    (_, n) => `0197a3c4-5b1e-7c3d-8e2f-1a2b3c4d5e6f tasks ${n}`,
  );
  const all = texts.flatMap(of);
  expect(of(texts[0] as string)).toEqual(all.slice(0, 3));
  expect(new Set(all).size).toBe(900);
  for (const id of all) expect(id).toMatch(UUID);
});

test("the clock follows the server's, and small differences do not move it", () => {
  let device = START;
  const clock = new ServerClock(() => device);
  expect(clock.now()).toBe(START);
  // The answer was two seconds on its way there and back.
  device += 2000;
  clock.adjust(wireTime(START + 60_000), 2000);
  expect(clock.now()).toBe(START + 61_000);
  expect(clock.wireNow()).toBe("2026-01-31T00:01:01.000000Z");
  // The header `Date` tells whole seconds.
  clock.adjust(new Date(START + 60_500).toUTCString(), 0, 1000);
  expect(clock.now()).toBe(START + 61_000);
  clock.adjust(new Date(START + 90_000).toUTCString(), 0, 1000);
  expect(clock.now()).toBe(START + 90_000);
  clock.adjust("no time");
  expect(clock.now()).toBe(START + 90_000);
});
