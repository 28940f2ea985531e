import { Cache } from "../src/cache.js";
import type { RecordData } from "../src/json.js";
import { LiveQuery } from "../src/query.js";
import { schema } from "./scripted-server.js";

export const COUNT = 10_000;

/** A cache of ten thousand tasks on fifty boards. */
export function filled() {
  const cache = new Cache(schema, {
    now: () => 0,
    want: () => {},
    dirty: () => {},
    changed: () => {},
    covers: () => true,
    staleSince: () => false,
  });
  for (let at = 0; at < COUNT; at++) {
    const id = `t${String(at).padStart(5, "0")}`;
    const record: RecordData = {
      id,
      version: 1,
      title: `Task ${at}`,
      status: at % 3 ? "todo" : "done",
      boardId: `b${at % 50}`,
      assignee: `u${at % 20}`,
      position: at,
      count: 0,
      tags: [],
      deletedAt: null,
      updatedAt: null,
      createdBy: null,
    };
    cache.takeRead(cache.slot("tasks", id), record, cache.next());
  }
  cache.settle();
  const use = (where: object, more: object = {}) => {
    const query = new LiveQuery(
      { table: "tasks", where: where as never, ...more },
      cache.table("tasks").schema,
    );
    cache.attach(query);
    return query;
  };
  return { cache, use };
}
