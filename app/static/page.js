// The status page: signs in as a demo user, shows a board, and keeps it live.
// A plain example of the protocol: one socket, keys, a cursor, records by version.

const PEOPLE = ["alice", "bob", "carol"];
const COLUMNS = [["todo", "To do"], ["in_progress", "In progress"], ["done", "Done"]];
const API = "/api/realtime/";

const state = {
  user: null, // {name, token, userId}
  records: { workspaces: new Map(), boards: new Map(), tasks: new Map() },
  board: null,
  flash: new Set(),
};

const $ = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// --- requests --------------------------------------------------------------------------------------

async function post(path, body) {
  const headers = { "content-type": "application/json" };
  if (state.user) headers.authorization = `Bearer ${state.user.token}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.detail ?? answer.title), { problem: answer });
  return answer;
}

function uuid7() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  let time = Date.now();
  for (let i = 5; i >= 0; i--, time = Math.floor(time / 256)) bytes[i] = time % 256;
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Writes one transaction. The same id is sent again after a fault, so it takes effect once. */
async function write(...operations) {
  const transaction = { txId: uuid7(), operations };
  note("→", "write", transaction.operations);
  for (let attempt = 0; ; attempt++) {
    try {
      merge((await post(`${API}write`, transaction)).recordMap);
      return;
    } catch (error) {
      const status = error.problem?.status;
      const transient = status === undefined || status === 429 || status >= 500;
      if (!transient || attempt === 4) {
        toast(error.problem?.code ?? "offline", error.message);
        render();
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** attempt));
    }
  }
}

// --- records ---------------------------------------------------------------------------------------

function put(table, record) {
  const records = state.records[table];
  if (!records || (records.get(record.id)?.version ?? 0) > record.version) return;
  if (records.get(record.id)?.version !== record.version) state.flash.add(record.id);
  records.set(record.id, record);
}

function merge(recordMap) {
  for (const [table, records] of Object.entries(recordMap ?? {})) {
    for (const record of Object.values(records)) put(table, record);
  }
  render();
}

function forget() {
  for (const records of Object.values(state.records)) records.clear();
}

/** Applies one element of `updates`; gives the pointer of a record that has to be fetched. */
function apply(update) {
  const [table, encoded] = update.key.split(/:(.*)/s);
  const id = decodeURIComponent(encoded);
  const records = state.records[table];
  if (!records) return null;
  const held = records.get(id);
  if (update.gone) {
    records.delete(id);
  } else if (update.record) {
    put(table, update.record);
  } else if (held && update.version <= held.version) {
    return null;
  } else if (update.patch && held && held.version === (update.from ?? update.version - 1)) {
    put(table, { ...held, ...update.patch, version: update.version });
  } else {
    return { table, id };
  }
  return null;
}

async function fetchRecords(pointers) {
  const answer = await post(`${API}getRecords`, { pointers });
  for (const { table, id } of answer.gone) state.records[table]?.delete(id);
  merge(answer.recordMap);
}

/** Reads a table again; what is not in the answer, of those `covered`, is not there any more. */
async function load(table, where, covered = () => true) {
  const found = new Set();
  let after;
  do {
    const answer = await post(`${API}query`, { table, where, limit: 1000, after });
    answer.ids.forEach((id) => found.add(id));
    for (const record of Object.values(answer.recordMap[table] ?? {})) put(table, record);
    after = answer.next;
  } while (after);
  for (const record of state.records[table].values()) {
    if (covered(record) && !found.has(record.id)) state.records[table].delete(record.id);
  }
}

async function reload(keys) {
  const tables = new Set(keys.map((key) => key.split(/[:?]/)[0]));
  const everything = tables.has("workspaceMembers"); // I was let in or put out somewhere
  if (everything || tables.has("workspaces")) await load("workspaces");
  if (everything || tables.has("boards")) await load("boards");
  chooseBoard();
  if (state.board && (everything || tables.has("boards") || tables.has("tasks"))) {
    const boardId = state.board;
    await load("tasks", { boardId }, (task) => task.boardId === boardId);
  }
  state.flash.clear();
  render();
}

// --- the socket ------------------------------------------------------------------------------------

class Live {
  constructor(token) {
    this.token = token;
    this.keys = new Set();
    this.fresh = new Map(); // keys to be read once they are joined, by subscribe id
    this.cursor = null;
    this.epoch = null;
    this.attempt = 0;
    this.number = 0;
    this.stopped = false;
    this.open();
  }

  open() {
    badge("joining", "connecting");
    const address = new URL(`${API}socket`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.heard = Date.now();
    this.socket.onopen = () => this.send({ type: "hello", protocol: 1, token: this.token });
    this.socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    this.socket.onclose = (event) => this.closed(event);
  }

  send(frame) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    if (frame.type !== "ping") note("→", frame.type, { ...frame, type: undefined, token: undefined });
    this.socket.send(JSON.stringify(frame));
  }

  /** Keys held before are resumed at the cursor; fresh ones begin now and are read after that. */
  join(keys, cursor) {
    const id = ++this.number;
    if (!cursor) this.fresh.set(id, keys);
    this.send({ type: "subscribe", id, keys, ...(cursor && { cursor }) });
  }

  subscribe(key) {
    if (this.keys.has(key)) return;
    this.keys.add(key);
    this.join([key]);
  }

  unsubscribe(key) {
    this.keys.delete(key);
    this.send({ type: "unsubscribe", id: ++this.number, keys: [key] });
  }

  receive(frame) {
    if (this.stopped) return;
    this.heard = Date.now();
    if (frame.type !== "pong") note("←", frame.type, { ...frame, type: undefined });
    switch (frame.type) {
      case "welcome":
        this.attempt = 0;
        this.fresh.clear();
        if (this.epoch && this.epoch !== frame.epoch) forget(); // another history: versions may be lower
        this.epoch = frame.epoch;
        clearInterval(this.pulse);
        this.pulse = setInterval(() => this.beat(frame.heartbeat * 1000), 1000);
        this.join([...this.keys], this.cursor);
        break;
      case "subscribed":
        badge("live", "live");
        this.reread([...(this.fresh.get(frame.id) ?? []), ...(frame.stale ?? [])]);
        this.fresh.delete(frame.id);
        this.moved(frame.cursor);
        break;
      case "updates": {
        const missing = frame.updates.map(apply).filter(Boolean);
        if (frame.updates.some((update) => update.key.startsWith("workspaceMembers:"))) {
          this.reread(["workspaceMembers"]);
        }
        if (missing.length) void this.read(() => fetchRecords(missing));
        chooseBoard();
        render();
        this.moved(frame.cursor);
        break;
      }
      case "stale":
        this.reread(frame.keys);
        break;
      case "pong":
        this.moved(frame.cursor);
        break;
      case "error":
        toast(frame.code, frame.message);
        if (frame.id !== undefined) this.socket.close(); // a join that failed: begin again, later
        break;
    }
  }

  reread(keys) {
    if (keys.length) void this.read(() => reload(keys));
  }

  /** A read that fails is tried again by a new connection, which starts from the old cursor. */
  async read(action) {
    try {
      await action();
    } catch (error) {
      if (this.stopped) return;
      if (error.problem?.status === 401) return signOut("Sign in again");
      this.cursor = null;
      this.socket.close();
    }
  }

  moved(cursor) {
    this.cursor = cursor;
  }

  beat(heartbeat) {
    const silence = Date.now() - this.heard;
    if (silence > heartbeat + 10_000) this.socket.close();
    else if (silence > heartbeat) this.send({ type: "ping" });
  }

  closed(event) {
    clearInterval(this.pulse);
    if (this.stopped) return;
    note("×", `closed ${event.code}`, event.reason);
    if (event.code === 4401) return signOut(event.reason || "Sign in again");
    const wait = Math.min(5000, 250 * 2 ** this.attempt++) * (0.5 + Math.random() / 2);
    badge("lost", "reconnecting");
    this.timer = setTimeout(() => this.open(), wait);
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    this.socket.close();
  }
}

let live = null;

// --- signing in and out ----------------------------------------------------------------------------

async function signIn(name) {
  try {
    const answer = await post("/api/auth/dev-sign-in", { user: name });
    start({ name, ...answer });
  } catch (error) {
    toast("Not signed in", error.problem?.status === 404
      ? "The development sign-in is off: start with `make run`, or set ROWCAST_DEV_SIGN_IN."
      : error.message);
  }
}

function start(user) {
  live?.stop();
  state.user = user;
  state.board = null;
  forget();
  // Of this window alone, so that two windows can be two people.
  sessionStorage.setItem("user", JSON.stringify(user));
  $("frames").replaceChildren();
  live = new Live(user.token);
  ["workspaces", "boards", `workspaceMembers?userId=${user.userId}`].forEach((key) => live.keys.add(key));
  render();
}

function signOut(reason) {
  live?.stop();
  live = null;
  state.user = null;
  sessionStorage.removeItem("user");
  badge("off", "not connected");
  if (reason) toast("Signed out", reason);
  render();
}

// --- the screen ------------------------------------------------------------------------------------

function badge(name, text) {
  $("badge").dataset.state = name;
  $("badge").textContent = text;
}

function note(direction, kind, content) {
  const time = new Date().toLocaleTimeString([], { hour12: false });
  const text = `${kind} ${content === undefined ? "" : JSON.stringify(content)}`;
  $("frames").prepend(element("li", {},
    element("span", { textContent: time }),
    element("span", { textContent: direction }),
    element("span", { textContent: text.length > 400 ? `${text.slice(0, 400)}…` : text })));
  while ($("frames").childElementCount > 40) $("frames").lastElementChild.remove();
}

function toast(title, text) {
  const made = element("div", { className: "toast" }, element("b", { textContent: title }), text ?? "");
  $("toasts").append(made);
  setTimeout(() => made.remove(), 6000);
}

const alive = (record) => !record.deleted;
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
// Nulls last, ties by id: the order PostgreSQL answers in.
const byPlace = (a, b) => compare(a.orderKey ?? "\uffff", b.orderKey ?? "\uffff") || compare(a.id, b.id);

function boardsShown() {
  return [...state.records.boards.values()].filter(alive)
    .filter((board) => state.records.workspaces.has(board.workspaceId)).sort(byPlace);
}

function chooseBoard(wanted) {
  const boards = boardsShown();
  const next = boards.find((board) => board.id === (wanted ?? state.board)) ?? boards[0];
  if (next?.id === state.board) return;
  if (state.board) live.unsubscribe(`tasks?boardId=${state.board}`);
  state.records.tasks.clear();
  state.board = next?.id ?? null;
  if (next) live.subscribe(`tasks?boardId=${next.id}`);
  render();
}

function render() {
  const { user } = state;
  $("people").replaceChildren(...PEOPLE.map((name) => element("button", {
    textContent: name, type: "button", "aria-pressed": String(user?.name === name), onclick: () => signIn(name),
  })));
  $("welcome").hidden = Boolean(user);
  $("app").hidden = $("wire").hidden = !user;
  document.title = user ? `${user.name} · Rowcast` : "Rowcast";
  if (!user) return;
  renderBoards();
  renderTasks();
}

function renderBoards() {
  const parts = [];
  for (const workspace of [...state.records.workspaces.values()].filter(alive).sort((a, b) => compare(a.name, b.name))) {
    const owner = workspace.ownerId === state.user.userId ? "yours" : "shared with you";
    parts.push(element("h3", { textContent: `${workspace.name} (${owner})` }));
    for (const board of boardsShown().filter((shown) => shown.workspaceId === workspace.id)) {
      parts.push(element("button", {
        textContent: board.name, type: "button", "aria-current": String(board.id === state.board),
        onclick: () => chooseBoard(board.id),
      }));
    }
  }
  if (!parts.length) parts.push(element("p", { textContent: "No workspace yet." }));
  $("boards").replaceChildren(...parts);
  const board = state.records.boards.get(state.board);
  $("board").hidden = !board;
  $("board-name").textContent = board?.name ?? "";
  $("board-about").textContent = board?.description ?? "";
}

function renderTasks() {
  // What is being typed stays: a change from elsewhere must not take the field away.
  const focus = document.activeElement;
  const typing = focus?.dataset?.field && { field: focus.dataset.field, value: focus.value, at: focus.selectionStart };
  const tasks = [...state.records.tasks.values()].filter((task) => alive(task) && task.boardId === state.board).sort(byPlace);
  $("columns").replaceChildren(...COLUMNS.map(([status, name], position) => {
    const shown = tasks.filter((task) => task.status === status);
    return element("section", { className: "column" },
      element("h3", {}, name, element("span", { textContent: shown.length })),
      element("ul", {}, ...shown.map((task) => card(task, position))));
  }));
  state.flash.clear();
  if (typing) {
    const field = document.querySelector(`[data-field="${typing.field}"]`);
    if (field) {
      field.value = typing.value;
      field.focus();
      field.setSelectionRange(typing.at, typing.at);
    }
  }
}

function card(task, position) {
  const at = { table: "tasks", id: task.id };
  const title = element("input", {
    className: "title", value: task.title, "aria-label": "Title", "data-field": `title-${task.id}`, maxLength: 500,
    onkeydown: (event) => {
      if (event.key === "Escape") event.target.value = task.title;
      if (event.key === "Enter" || event.key === "Escape") event.target.blur();
    },
    onblur: (event) => {
      const value = event.target.value.trim();
      if (event.target.isConnected && value && value !== task.title) {
        void write({ type: "set", ...at, key: "title", value });
      }
    },
  });
  const tags = element("div", { className: "tags" },
    ...task.tags.map((tag) => element("button", {
      textContent: tag, type: "button", title: "Remove this tag",
      onclick: () => write({ type: "listRemove", ...at, key: "tags", value: tag }),
    })),
    element("input", {
      placeholder: "+ tag", "aria-label": "Add a tag", "data-field": `tag-${task.id}`, maxLength: 40,
      onkeydown: (event) => {
        const value = event.target.value.trim();
        if (event.key !== "Enter" || !value) return;
        event.target.value = "";
        void write({ type: "listInsert", ...at, key: "tags", value });
      },
    }));
  const move = (to, sign, label) => element("button", {
    textContent: sign, type: "button", title: label, "aria-label": label,
    onclick: () => write({ type: "set", ...at, key: "status", value: COLUMNS[to][0] }),
  });
  const actions = element("div", { className: "actions" },
    ...(position > 0 ? [move(position - 1, "←", `Move to ${COLUMNS[position - 1][1]}`)] : []),
    ...(position < COLUMNS.length - 1 ? [move(position + 1, "→", `Move to ${COLUMNS[position + 1][1]}`)] : []),
    element("button", {
      textContent: "Delete", type: "button", onclick: () => write({ type: "delete", ...at }),
    }),
    element("span", { className: "version", title: "Version of this row", textContent: `v${task.version}` }));
  const flash = state.flash.has(task.id) ? " flash" : "";
  return element("li", { className: `task${flash}`, "data-id": task.id }, title, tags, actions);
}

$("add").addEventListener("submit", (event) => {
  event.preventDefault();
  const title = $("add-title").value.trim();
  if (!title) return;
  $("add-title").value = "";
  void write({ type: "create", table: "tasks", id: uuid7(), value: { boardId: state.board, title } });
});

const remembered = sessionStorage.getItem("user");
if (remembered) start(JSON.parse(remembered));
else render();
