// @vitest-environment jsdom
import { act, render } from "@testing-library/react";
import { StrictMode } from "react";
import { expect, it, vi } from "vitest";
import type { Status } from "../../src/client.js";
import { createUploads, memoryShelf, type Send, type Uploads } from "../../src/files/index.js";
import { type UploadHook, useFileUrl, useUpload, useUploads } from "../../src/files/react/index.js";
import { createClient, memoryStorage } from "../../src/index.js";
import { RowcastProvider } from "../../src/react/index.js";
import { Batch, Cell } from "../../src/readable.js";
import { oneTab } from "../../src/tabs.js";
import { settle as turns } from "../world.js";

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: true });

function make(send: Send, refuse: (path: string) => void = () => {}): Uploads {
  let links = 0;
  return createUploads(
    {
      status: new Cell(new Batch(() => {}), { userId: "ann" } as unknown as Status),
      rejected: new Cell(new Batch(() => {}), []),
      attach() {},
      discard: async () => {},
      request: async (path) => {
        refuse(path);
        return { url: `/link/${++links}`, headers: {}, offset: 0 };
      },
      write: () => ({ saved: Promise.resolve(), confirmed: Promise.resolve() }),
    },
    { url: "http://test", send, shelf: memoryShelf(), tabs: oneTab(), hash: async () => undefined },
  );
}

const settle = () => act(() => turns(10));

it("uploads of one parent are shown while they are under way", async () => {
  let arrived = () => {};
  const uploads = make(async (_url, bytes, _headers, progress) => {
    progress(2);
    await new Promise<void>((resolve) => {
      arrived = resolve;
    });
    return { status: 200, body: `{"receipt":"${bytes.size}"}` };
  });
  let hook: UploadHook | undefined;
  function Shown({ task }: { task: string }) {
    hook = useUpload(uploads, "taskFiles", { taskId: task });
    return hook.uploads.map(({ id, name, sent, size, step }) => (
      <p key={id}>{`${name} ${sent}/${size} ${step}`}</p>
    ));
  }
  const page = render(<Shown task="a" />);
  const { add } = hook as UploadHook;
  act(() => {
    add(new File(["hello"], "x.txt"));
    uploads.add("taskFiles", new File(["other"], "y.txt"), { taskId: "b" });
  });
  await settle();
  expect(page.container.textContent).toBe("x.txt 2/5 uploading");
  page.rerender(<Shown task="a" />);
  expect(hook?.add).toBe(add);
  page.rerender(<Shown task="b" />);
  expect(page.container.textContent).toContain("y.txt");
  page.rerender(<Shown task="a" />);
  act(() => hook?.abort(uploads.all.getSnapshot()[0]?.id ?? ""));
  await settle();
  expect(page.container.textContent).toBe("");
  act(() => {
    arrived();
    uploads.close();
  });
});

it("a link is asked for once, and anew on request", async () => {
  let refused = false;
  const uploads = make(
    async () => ({ status: 500, body: "" }),
    () => {
      if (refused) throw new Error("no");
    },
  );
  let again = () => {};
  function Picture({ id }: { id: string | null }) {
    const { url, error, refresh } = useFileUrl(uploads, "taskFiles", id);
    again = refresh;
    return <i>{error ? error.message : (url ?? "none")}</i>;
  }
  const page = render(<Picture id={null} />);
  await settle();
  expect(page.container.textContent).toBe("none");
  page.rerender(<Picture id="f" />);
  await settle();
  expect(page.container.textContent).toBe("http://test/link/1");
  page.rerender(<Picture id="f" />);
  await settle();
  expect(page.container.textContent).toBe("http://test/link/1");
  act(() => again());
  await settle();
  expect(page.container.textContent).toBe("http://test/link/2");
  refused = true;
  page.rerender(<Picture id="other" />);
  await settle();
  expect(page.container.textContent).toBe("no");
  uploads.close();
});

it("what a new link does not show either is unreadable", async () => {
  const uploads = make(async () => ({ status: 500, body: "" }));
  let again = () => {};
  function Picture() {
    const { url, error, refresh } = useFileUrl(uploads, "taskFiles", "f");
    again = refresh;
    return <i>{error ? error.code : (url ?? "none")}</i>;
  }
  const page = render(<Picture />);
  await settle();
  act(() => again());
  await settle();
  expect(page.container.textContent).toBe("http://test/link/2");
  act(() => again());
  await settle();
  expect(page.container.textContent).toBe("unreadable");
  // As when there is a network again.
  act(() => again());
  await settle();
  expect(page.container.textContent).toBe("http://test/link/3");
  // An old link is asked for anew, however often.
  const now = vi.spyOn(Date, "now").mockImplementation(() => performance.timeOrigin + 1e12);
  act(() => again());
  await settle();
  expect(page.container.textContent).toBe("http://test/link/4");
  now.mockRestore();
  uploads.close();
});

it("a client has one list of uploads, which another user's has not, and which ends with it", async () => {
  const seen: Uploads[] = [];
  function Shown() {
    const uploads = useUploads("http://test");
    if (!seen.includes(uploads)) seen.push(uploads);
    return useUpload(uploads, "taskFiles", {}).uploads.map(({ id, name }) => (
      <p key={id}>{name}</p>
    ));
  }
  const create = (userId: string | null) =>
    createClient({
      url: "http://test",
      schema: { schema: 1, tables: {}, functions: {} },
      userId,
      auth: { token: () => null },
      storage: memoryStorage(),
      tabs: oneTab(),
      transport: {
        post: () => new Promise(() => {}),
        connect: () => ({ send() {}, close() {} }),
      },
    });
  const app = (user: string) => (
    <StrictMode>
      <RowcastProvider user={user} create={create}>
        <Shown />
        <Shown />
      </RowcastProvider>
    </StrictMode>
  );
  const page = render(app("ann"));
  await settle();
  expect(seen).toHaveLength(1);
  act(() => void seen[0]?.add("taskFiles", new File(["x"], "ann.txt"), {}));
  await settle();
  expect(page.container.textContent).toBe("ann.txtann.txt");
  page.rerender(app("bob"));
  await settle();
  await settle();
  expect(page.container.textContent).toBe("");
  expect(seen).toHaveLength(2);
  await vi.waitFor(() => expect(seen[0]?.all.getSnapshot()).toEqual([]));
  page.unmount();
});
