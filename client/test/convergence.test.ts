import fc from "fast-check";
import { describe, it } from "vitest";
import { command, Game } from "./game.js";

// Many clients, a server, and everything that goes wrong between them. In the end everybody sees what the server has,
// every write that was stored took effect once or lies in an inbox, and in the order it was made.

const RUNS = Number(process.env.ROWCAST_RUNS ?? 60);
const SEED = Number(process.env.ROWCAST_SEED ?? Math.floor(Math.random() * 2 ** 31));

describe("clients that lose replies, connections and pages", () => {
  it(`converge (seed ${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(command, { minLength: 5, maxLength: 80 }),
        async (seed, commands) => {
          const game = new Game(seed);
          for (const one of commands) await game.play(one);
          await game.heal();
          game.check();
          // Every page ends, something happens, and what was stored goes on from there.
          for (const at of [0, 1, 2]) game.end(at);
          for (const one of commands) if (one.kind.startsWith("sql")) await game.play(one);
          for (const at of [0, 1, 2]) game.begin(at);
          await game.heal();
          game.check();
          await Promise.all(game.tabs.map(({ client }) => game.stage.crash(client)));
        },
      ),
      { seed: SEED, numRuns: RUNS, interruptAfterTimeLimit: 240_000 },
    );
  }, 300_000);
});
