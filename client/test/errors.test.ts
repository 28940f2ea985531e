import { expect, test } from "vitest";
import { InvalidOperationError, RefusedError, RowcastError } from "../src/errors.js";

test("errors tell what is wrong, where, and what to do", () => {
  const invalid = new InvalidOperationError({
    status: 400,
    code: "unknown_key",
    detail: "There is no such key",
    table: "tasks",
    key: ["data", "a"],
  });
  expect(invalid).toBeInstanceOf(RowcastError);
  expect(invalid.name).toBe("InvalidOperationError");
  expect(invalid.code).toBe("unknown_key");
  expect(invalid.message).toBe(
    "There is no such key (unknown_key, tasks, data.a): keys are camelCase; generate the types again.",
  );
});

test("the server's own words stand first", () => {
  const problem = { type: "about:blank", title: "Bad request", status: 400 };
  expect(
    new RefusedError({ ...problem, code: "negative", detail: "A quantity is not negative" })
      .message,
  ).toBe("A quantity is not negative (negative).");
  expect(new RefusedError({ ...problem, code: "toString" }).message).toBe(
    "It was refused (toString).",
  );
});
