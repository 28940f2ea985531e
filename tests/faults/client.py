"""A simulated client: the client's side of the protocol, with server records alone.

It follows the rules of the protocol's client literally, so that what it holds at rest is what any
correct client would hold: snapshot by query with `have`, subscription by cursor, patches only onto
the version they continue, stale keys read again, late replies never restoring what is gone.
There is no overlay of pending writes; these wait in a queue and are sent until they are answered.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import unquote

import httpx
import websockets
from websockets.asyncio.client import ClientConnection, connect

Ref = tuple[str, str]
"""Wire name of a table, and an id."""
Record = dict[str, Any]
Witness = Callable[[str, bytes], None]
"""Told of every byte a client receives: the user, then the text of a body or a frame."""

PAGE = 1000
FETCH_AT_ONCE = 100
SEND_AT_ONCE = 8
HTTP_SECONDS = 4.0
PONG_SECONDS = 2.0
OPEN_SECONDS = 4.0
PAUSE_SECONDS = (0.02, 0.3)
REMEMBERED = 30
RETRIED = frozenset({401, 408, 425, 426, 429})


class Step(Enum):
    """How far a key has come. One that was read again is joined again, from there on."""

    COLD = "not read yet"
    READ = "read, not joined yet"
    LIVE = "joined"


@dataclass(eq=False)
class Key:
    """A key the client wants. `stale_at`: when it was last told to read it again."""

    text: str
    step: Step = Step.COLD
    cursor: str | None = None
    stale: bool = False
    stale_at: int = 0
    job: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        table, mark, rest = self.text.partition("?")
        self.column, _, value = rest.partition("=")
        self.value = unquote(value)
        self.record_id = ""
        if not mark:
            table, _, record_id = self.text.partition(":")
            self.record_id = unquote(record_id)
        self.table = table

    def covers(self, ref: Ref, record: Record) -> bool:
        """Whether a record, as it stands, belongs to this key."""
        if ref[0] != self.table:
            return False
        if self.record_id:
            return ref[1] == self.record_id
        return not self.column or record.get(self.column) == self.value

    def shows(self, ref: Ref, record: Record) -> bool:
        """Whether the record is in the key's result: a query leaves soft-deleted ones out."""
        return self.covers(ref, record) and (bool(self.record_id) or record.get("deleted") is None)


@dataclass(eq=False)
class Session:
    """One socket: what was asked on it, and whether its cursor may be kept."""

    socket: ClientConnection
    asked: dict[int, list[Key]] = field(default_factory=dict)
    resumed: bool = False


@dataclass
class Outcome:
    """How a transaction ended."""

    status: str
    code: str | None
    answered_at: float


class Client:
    """`open` it, `want` keys, `write` transactions; `records` is what it holds."""

    def __init__(
        self,
        name: str,
        user: str,
        token: str,
        port: int,
        rng: random.Random,
        witness: Witness = lambda user, text: None,
    ) -> None:
        self.name = name
        self.user = user
        self._token = token
        self._port = port
        self._rng = rng
        self._witness = witness
        self.records: dict[Ref, Record] = {}
        self.keys: dict[str, Key] = {}
        self.queue: deque[dict[str, Any]] = deque()
        self.outcomes: dict[str, Outcome] = {}
        self.events: dict[Ref, deque[str]] = {}
        self.faults: list[str] = []
        self.cursor: str | None = None
        self.epoch: str | None = None
        self._session: Session | None = None
        self._clock = 0
        self._number = 0
        # Per record: when a frame or a later read last told of it, when it was lost, the version
        # at which it left everything wanted, and whether its version is of a former epoch.
        self._touched: dict[Ref, int] = {}
        self._gone: dict[Ref, int] = {}
        self._left: dict[Ref, int] = {}
        self._doubtful: set[Ref] = set()
        self._wanted: set[Ref] = set()
        self._fetching = False
        self._fetch_bell = asyncio.Event()
        self._write_bell = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/api/realtime",
            timeout=HTTP_SECONDS,
            headers={"authorization": f"Bearer {token}"},
        )

    # --- what a test asks of it ------------------------------------------------------------------

    def open(self) -> None:
        """Starts its work, which goes on until `close`."""
        for work in (self._live_forever, self._fetch_forever, self._send_forever):
            self._run(work())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def want(self, *texts: str) -> None:
        """Reads and joins keys."""
        for text in texts:
            if text not in self.keys:
                self.keys[text] = Key(text)
                self._schedule(self.keys[text])

    async def leave(self, *texts: str) -> None:
        """Leaves keys and forgets what no other key covers."""
        left = [text for text in texts if self.keys.pop(text, None) is not None]
        if left and self._session is not None:
            await self._say(self._session, "unsubscribe", keys=left)
        for ref in list(self.records):
            self._drop_unless_covered(ref)

    def write(self, transaction: dict[str, Any]) -> None:
        """Puts a transaction into the queue."""
        self.queue.append(transaction)
        self._write_bell.set()

    def reread(self) -> None:
        """Reads everything again, as if it had been told to."""
        self._mark_stale(list(self.keys), "asked")

    def disconnect(self) -> None:
        """Cuts its own socket, without a farewell."""
        if self._session is not None:
            self._session.socket.transport.abort()

    def view(self, text: str) -> dict[str, Record]:
        """The result of a key, by id."""
        key = self.keys[text]
        return {ref[1]: r for ref, r in self.records.items() if key.shows(ref, r)}

    @property
    def unrest(self) -> str | None:
        """What is still under way; None at rest."""
        if self.queue:
            return f"{len(self.queue)} writes wait"
        if self._session is None or not self._session.resumed:
            return "not connected"
        for key in self.keys.values():
            if key.step is not Step.LIVE or key.stale or key.job is not None:
                return f"{key.text}: {key.step.value}{', stale' if key.stale else ''}"
        if self._wanted or self._fetching:
            return f"fetches {len(self._wanted)} records"
        return None

    def history(self, ref: Ref) -> list[str]:
        """The last things it heard and did about a record."""
        return list(self.events.get(ref, ()))

    # --- the socket ------------------------------------------------------------------------------

    async def _live_forever(self) -> None:
        url = f"ws://127.0.0.1:{self._port}/api/realtime/socket"
        while True:
            with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
                async with connect(
                    url, open_timeout=OPEN_SECONDS, close_timeout=0.1, ping_interval=None
                ) as socket:
                    await self._live(Session(socket))
            self._session = None
            await self._pause()

    async def _live(self, session: Session) -> None:
        hello = {"type": "hello", "protocol": 1, "token": self._token}
        await session.socket.send(json.dumps(hello))
        welcome = await self._receive(session, OPEN_SECONDS)
        if welcome["type"] != "welcome":
            self.faults.append(f"first frame {welcome}")
            return
        if welcome["epoch"] != self.epoch:
            self._begin_epoch(welcome["epoch"])
        self._session = session
        joined = [key for key in self.keys.values() if key.step is Step.LIVE]
        session.resumed = not joined
        if joined:
            await self._join(session, joined, self.cursor)
        for key in list(self.keys.values()):
            if key.step is Step.READ:
                await self._join(session, [key], key.cursor)
        heartbeat = float(welcome["heartbeat"])
        while True:
            try:
                frame = await self._receive(session, heartbeat)
            except TimeoutError:
                await self._say(session, "ping")
                frame = await self._receive(session, PONG_SECONDS)
            if not await self._take_frame(session, frame):
                return

    async def _receive(self, session: Session, seconds: float) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            text = await session.socket.recv()
        data = text.encode() if isinstance(text, str) else text
        self._witness(self.user, data)
        frame: dict[str, Any] = json.loads(data)
        return frame

    async def _take_frame(self, session: Session, frame: dict[str, Any]) -> bool:
        """Returns False where the socket has to be made anew."""
        match frame["type"]:
            case "updates":
                for element in frame["updates"]:
                    self._hear(element)
                if session.resumed:
                    self.cursor = frame["cursor"]
            case "pong":
                if session.resumed and frame["cursor"] is not None:
                    self.cursor = frame["cursor"]
            case "stale":
                if frame.get("epoch", self.epoch) != self.epoch:
                    self._begin_epoch(frame["epoch"], joined=True)
                self._mark_stale(frame["keys"], frame["reason"])
            case "subscribed":
                self._joined(session, frame)
            case "error":
                # A subscription that failed: everything is as it was before.
                return False
        return True

    async def _join(self, session: Session, keys: list[Key], cursor: str | None) -> None:
        self._number += 1
        session.asked[self._number] = keys
        await self._say(
            session,
            "subscribe",
            id=self._number,
            keys=[key.text for key in keys],
            empty=not any(key.covers(*held) for key in keys for held in self.records.items()),
            **({"cursor": cursor} if cursor is not None else {}),
        )

    def _joined(self, session: Session, frame: dict[str, Any]) -> None:
        keys = session.asked.pop(frame["id"])
        session.resumed = True
        self.cursor = frame["cursor"]
        for key in keys:
            key.step = Step.LIVE
            key.cursor = None
        if frame.get("errors"):
            self.faults.append(f"keys refused {frame['errors']}")
        for text, version in frame["versions"].items():
            ref = key_ref(text)
            if text in self.keys and self._version(ref) != version:
                self._fetch(ref)
        self._mark_stale(frame.get("stale") or (), "join")

    async def _say(self, session: Session, kind: str, **members: Any) -> None:
        if kind == "unsubscribe":
            self._number += 1
            members["id"] = self._number
        with contextlib.suppress(websockets.ConnectionClosed):
            await session.socket.send(json.dumps({"type": kind, **members}))

    def _begin_epoch(self, epoch: str, *, joined: bool = False) -> None:
        """Another history: no cursor counts, and what is held stays until it is read again. Keys
        that are `joined` stay so.
        """
        self.epoch = epoch
        self.cursor = None
        self._doubtful = set(self.records)
        self._left.clear()
        for key in self.keys.values():
            if not joined:
                key.step = Step.COLD
            key.stale_at = self._tick()
            self._schedule(key)

    # --- what it hears ---------------------------------------------------------------------------

    def _hear(self, element: dict[str, Any]) -> None:
        """One element of an `updates` frame."""
        ref = key_ref(element["key"])
        self._note(ref, "hears", element)
        self._touched[ref] = self._tick()
        if element.get("gone"):
            self._lose(ref)
            return
        version, held = element["version"], self._version(ref)
        if "record" in element:
            if held is None or version >= held:
                self._put(ref, element["record"])
        elif held is not None and version <= held:
            pass
        elif "patch" in element and held == element.get("from", version - 1):
            patched = {**self.records[ref], **element["patch"], "version": version}
            self._put(ref, patched)
        elif self._covers_or_unknown(ref):
            self._fetch(ref)

    def _covers_or_unknown(self, ref: Ref) -> bool:
        """A record that is not held may belong to any key of its table."""
        return any(key.table == ref[0] for key in self.keys.values())

    def _mark_stale(self, texts: Iterable[str], reason: str) -> None:
        for text in texts:
            key = self.keys.get(text)
            if key is not None:
                self._note((key.table, ""), "stale", {"key": text, "reason": reason})
                key.stale = True
                key.stale_at = self._tick()
                self._schedule(key)

    # --- what it reads ---------------------------------------------------------------------------

    def _schedule(self, key: Key) -> None:
        if key.job is None:
            key.job = self._run(self._read(key))

    async def _read(self, key: Key) -> None:
        """Reads a key until it is read as it was last told to, then joins it."""
        try:
            while self.keys.get(key.text) is key and (key.stale or key.step is Step.COLD):
                sent = self._tick()
                answer = await (self._read_record(key) if key.record_id else self._read_pages(key))
                if answer is None:
                    await self._pause()
                    continue
                if self.keys.get(key.text) is not key:
                    break
                self._apply(answer, sent)
                if key.stale_at > sent:
                    continue
                key.stale = False
                key.step = Step.READ
                key.cursor = answer["cursor"]
                if self._session is not None:
                    await self._join(self._session, [key], key.cursor)
        finally:
            key.job = None

    async def _read_record(self, key: Key) -> dict[str, Any] | None:
        pointer: dict[str, Any] = {"table": key.table, "id": key.record_id}
        version = self._version((key.table, key.record_id))
        if version is not None:
            pointer["version"] = version
        return await self._ask("getRecords", {"pointers": [pointer]})

    async def _read_pages(self, key: Key) -> dict[str, Any] | None:
        """All pages; the first one's cursor. None where one could not be had."""
        held = {
            ref[1]: self._version(ref) or 0 for ref, r in self.records.items() if key.covers(ref, r)
        }
        body: dict[str, Any] = {"table": key.table, "limit": PAGE, "have": held}
        if key.column:
            body["where"] = {key.column: key.value}
        whole = await self._ask("query", body)
        page = whole
        while whole is not None and page is not None and page.get("next"):
            page = await self._ask("query", {**body, "after": page["next"]})
            if page is None:
                return None
            for table, records in page["recordMap"].items():
                whole["recordMap"].setdefault(table, {}).update(records)
            whole["gone"] += page["gone"]
        return whole

    def _apply(self, answer: dict[str, Any], sent: int) -> None:
        """A reply to a read that was sent at `sent`."""
        for table, records in answer["recordMap"].items():
            for record_id, record in records.items():
                self._take((table, record_id), record, sent)
        for pointer in answer.get("gone") or ():
            ref = (pointer["table"], pointer["id"])
            if self._touched.get(ref, 0) > sent:
                if ref in self.records:
                    self._fetch(ref)
                continue
            self._note(ref, "reads gone", {"sent": sent})
            self._lose(ref, sent)

    def _take(self, ref: Ref, record: Record, sent: int, ack: bool = False) -> None:
        """A record of a reply. It replaces what is held whatever its version, unless the record
        was heard of since; an acknowledgement only ever goes on.
        """
        self._note(ref, "acked" if ack else "reads", {"version": record["version"], "sent": sent})
        covering = [key for key in self.keys.values() if key.covers(ref, record)]
        if self._gone.get(ref, 0) > sent:
            if covering:
                self._fetch(ref)
            return
        if ref not in self.records and any(key.stale_at > sent for key in covering):
            return
        if ack or self._touched.get(ref, 0) > sent:
            least = self._version(ref)
            if record["version"] <= (self._left.get(ref, 0) if least is None else least):
                return
        self._touched[ref] = max(self._touched.get(ref, 0), sent)
        self._put(ref, record)

    def _put(self, ref: Ref, record: Record) -> None:
        self.records[ref] = record
        self._doubtful.discard(ref)
        self._left.pop(ref, None)
        self._drop_unless_covered(ref)

    def _drop_unless_covered(self, ref: Ref) -> None:
        record = self.records[ref]
        if not any(key.covers(ref, record) for key in self.keys.values()):
            self._note(ref, "leaves", {"version": record["version"]})
            self._left[ref] = record["version"]
            del self.records[ref]

    def _lose(self, ref: Ref, at: int | None = None) -> None:
        self.records.pop(ref, None)
        self._doubtful.discard(ref)
        self._left.pop(ref, None)
        self._gone[ref] = max(self._gone.get(ref, 0), self._clock if at is None else at)

    def _version(self, ref: Ref) -> int | None:
        """The version held; 0 for one of a former epoch; None where nothing is held."""
        record = self.records.get(ref)
        if record is None:
            return None
        return 0 if ref in self._doubtful else int(record["version"])

    def _fetch(self, ref: Ref) -> None:
        self._wanted.add(ref)
        self._fetch_bell.set()

    async def _fetch_forever(self) -> None:
        while True:
            await self._fetch_bell.wait()
            self._fetch_bell.clear()
            while self._wanted:
                refs = [self._wanted.pop() for _ in range(min(FETCH_AT_ONCE, len(self._wanted)))]
                self._fetching = True
                sent = self._tick()
                pointers = [{"table": table, "id": record_id} for table, record_id in refs]
                answer = await self._ask("getRecords", {"pointers": pointers})
                if answer is None:
                    self._wanted.update(refs)
                    await self._pause()
                else:
                    self._apply(answer, sent)
                self._fetching = False

    # --- what it writes --------------------------------------------------------------------------

    async def _send_forever(self) -> None:
        most = SEND_AT_ONCE
        while True:
            await self._write_bell.wait()
            self._write_bell.clear()
            while self.queue:
                batch = [self.queue[i] for i in range(min(len(self.queue), most))]
                single = len(batch) == 1
                sent = self._tick()
                status, answer = await self._post(
                    "write", batch[0] if single else {"transactions": batch}
                )
                if status == 200 and answer is not None:
                    most = self._rng.randint(1, SEND_AT_ONCE)
                    results = [answer] if single else answer["results"]
                    if not self._answered(batch, results, answer.get("recordMap") or {}, sent):
                        await self._pause()
                elif status == 0 or status >= 500 or status in RETRIED:
                    await self._pause()
                elif single:
                    self._settle(batch[0], "refused", (answer or {}).get("code"))
                else:
                    most = 1  # one of them cannot be read: each gets its own answer

    def _answered(
        self,
        batch: list[dict[str, Any]],
        results: list[dict[str, Any]],
        record_map: dict[str, Any],
        sent: int,
    ) -> bool:
        """Takes in the answers. Returns False where some have to be sent again."""
        for table, records in record_map.items():
            for record_id, record in records.items():
                self._take((table, record_id), record, sent, ack=True)
        for transaction, result in zip(batch, results, strict=True):
            if result["txId"] != transaction["txId"]:
                self.faults.append(f"answer for {result['txId']}, sent {transaction['txId']}")
            if result["status"] == "retry":
                return False
            self._settle(transaction, result["status"], (result.get("error") or {}).get("code"))
        return True

    def _settle(self, transaction: dict[str, Any], status: str, code: str | None) -> None:
        assert self.queue.popleft() is transaction
        self.outcomes[transaction["txId"]] = Outcome(status, code, time.time())

    # --- in and out ------------------------------------------------------------------------------

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """A read; None where it has to be tried again."""
        status, answer = await self._post(path, body)
        if status not in (0, 200) and status < 500:
            self.faults.append(f"{path} {json.dumps(body)[:200]}: {status} {answer}")
        return answer if status == 200 else None

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        """Status and body; 0 where no whole answer came."""
        try:
            response = await self._http.post(path, content=json.dumps(body))
        except httpx.TransportError:
            return 0, None
        self._witness(self.user, response.content)
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code if response.status_code >= 500 else 0, None

    async def _pause(self) -> None:
        await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _note(self, ref: Ref, what: str, about: dict[str, Any]) -> None:
        kept = self.events.get(ref)
        if kept is None:
            kept = self.events[ref] = deque(maxlen=REMEMBERED)
        kept.append(f"{time.time():.3f} @{self._clock} {what} {json.dumps(about)[:300]}")

    def _run(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except Exception as exc:
                self.faults.append(f"{type(exc).__name__}: {exc}")
                raise

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def key_ref(key: str) -> Ref:
    """What a record key names."""
    table, _, record_id = key.partition(":")
    return table, unquote(record_id)
