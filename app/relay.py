"""Carries committed changes from the feed to the hub: wake up, read, ask who may see, send.

The doorbell (NOTIFY) is a hint and nothing more: the feed is read at least once a second, after
every reconnect, and until it is empty, so every promise holds with NOTIFY dead.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import asyncpg_listen
import psycopg
from psycopg.conninfo import conninfo_to_dict

from . import calls, metrics
from .cursors import Cursors
from .db import Lane
from .delivery import Answer, Change, Delivery, interests, read_change, send_stale, wanted_records
from .errors import from_database
from .hub import Hub, Interest, Subscriber
from .protocol import MAX_KEYS, dumps

log = logging.getLogger("rowcast.relay")

CHANNEL: Final = "rowcast"
LISTENER_CHECK_SECONDS: Final = 3.0  # a half-open listener is noticed within twice this
RECONNECT_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 3600.0
FINGERPRINT_SECONDS: Final = 1.0  # a changed policy or grant is noticed within this and a poll
SPACING_SECONDS: Final = 0.005
STOP_AGAIN_SECONDS: Final = 0.2


class Relay:
    """One per gateway. `start` it, `wake` it, `stop` it; it survives restarts of PostgreSQL."""

    def __init__(
        self,
        hub: Hub,
        lane: Lane,
        cursors: Cursors,
        listen_conninfo: str | None,
        poll_seconds: float,
    ) -> None:
        self._hub = hub
        self._lane = lane
        self._cursors = cursors
        self._listen_conninfo = listen_conninfo
        self._poll_seconds = poll_seconds
        self._bell = asyncio.Event()
        self._drained_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._fingerprint: str | None = None
        self._fingerprint_at = -FINGERPRINT_SECONDS
        self._status: dict[str, Any] = {}
        self._looked = False
        self._listening = False
        self.epoch: str | None = None
        self.ready = asyncio.Event()

    def start(self) -> None:
        """Starts reading; returns at once, also when there is no database yet."""
        self._keep(self._read_forever())
        self._keep(self._prune_forever())
        if self._listen_conninfo is not None:
            self._keep(self._listen_forever(self._listen_conninfo))

    async def stop(self) -> None:
        """Ends the tasks."""
        # Again until it helps: a wait that ends in the same moment swallows its cancellation
        # (asyncio.wait_for up to Python 3.11, the pool's wait for a connection).
        while tasks := set(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_AGAIN_SECONDS)

    def wake(self) -> None:
        """There may be something in the feed."""
        self._bell.set()

    def committed(self) -> None:
        """Says that this gateway has committed: for while nobody listens to the doorbell."""
        if not self._listening:
            self._ring()

    def _ring(self) -> None:
        # Without sockets there is nobody to hurry for; the poll keeps the place in the feed.
        if len(self._hub):
            self._bell.set()

    @property
    def schema_version(self) -> int:
        """The version of the application's schema; 0 before it was first read."""
        return int(self._status.get("schema", 0))

    @property
    def oldest_schema(self) -> int:
        """The oldest a client may have been made for."""
        return int(self._status.get("oldestSchema", 0))

    @property
    def idle_seconds(self) -> float:
        """Seconds since the feed was last read to its end."""
        return time.monotonic() - self._drained_at

    @property
    def alive(self) -> bool:
        """Whether the feed was read to its end lately."""
        return self.ready.is_set() and self.idle_seconds < ALIVE_SECONDS + self._poll_seconds

    # --- reading ---------------------------------------------------------------------------------

    async def _read_forever(self) -> None:
        while True:
            self._bell.clear()
            try:
                # One read takes all there is; what is committed from now on rings again.
                await self.read()
                self._drained_at = time.monotonic()
            except psycopg.errors.QueryCanceled:
                # More than can be read in the time of a statement: the same would take as long
                # again, so everybody reads anew.
                log.warning("feed too long to read")
                self._hub.cursor = None
                continue
            except psycopg.Error as exc:
                log.warning("feed not read sqlstate=%s class=%s", exc.sqlstate, type(exc).__name__)
                self._looked = False
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            except Exception as exc:  # noqa: BLE001
                # A payload of another form must not end the relay: it begins anew instead.
                log.error("feed not understood class=%s", type(exc).__name__)
                self._hub.cursor = None
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._bell.wait()
            except TimeoutError:
                continue
            # Rings right after a read wait for each other: under load a wake-up carries more.
            rested = time.monotonic() - self._drained_at
            await asyncio.sleep(max(0.0, SPACING_SECONDS - rested))

    async def read(self) -> None:
        """Reads once and delivers. Raises psycopg.Error, in which case nothing was delivered and
        the same is read again.
        """
        look = time.monotonic() - self._fingerprint_at >= FINGERPRINT_SECONDS
        # Also once a second: a lost connection is replaced without a word, perhaps by one to a
        # server that was promoted.
        if look or not self._looked:
            await self._look_at_server()
        await self._prove()
        answer = json.loads(await calls.changes(self._lane, self._hub.cursor, look))
        if look:
            self._fingerprint_at = time.monotonic()
        cursor: str = answer["cursor"]
        changes, tables = _sort(answer)
        metrics.changes.add(len(changes))
        answers = await self._ask_all(changes)
        # From here on nothing waits: what is stale is said before a cursor claims it was sent.
        self._notice_state(answer)
        for table in tables:
            for subscriber, keys in self._hub.of_table(table).items():
                send_stale(subscriber, keys, "bulk")
        Delivery(changes, answers, self._cursors.seal).send(self._hub, cursor)
        self.ready.set()

    async def _look_at_server(self) -> None:
        """A restore or a promotion makes another history of the feed."""
        status = json.loads(await calls.status(self._lane))
        if status.get("epoch") != status.get("storedEpoch", status.get("epoch")):
            await calls.settle(self._lane)
        self._status, self._looked = status, True
        self._cursors.use(bytes.fromhex(status["cursorKey"]))

    def _notice_state(self, answer: Mapping[str, Any]) -> None:
        epoch, fingerprint = str(answer.get("epoch")), answer.get("fingerprint")
        # Only now, after the new cursor was taken: what is read sooner could miss a change.
        if self._hub.cursor is None or answer.get("stale") or self.epoch not in (None, epoch):
            self._everything_stale("behind")
        elif fingerprint is not None and self._fingerprint not in (None, fingerprint):
            self._looked = False
            # A policy, a grant, a function or a membership of roles changed: who sees what may
            # be another matter now.
            self._everything_stale("schema")
        self.epoch = epoch
        if fingerprint is not None:
            self._fingerprint = fingerprint

    def _everything_stale(self, reason: str) -> None:
        for subscriber in list(self._hub.subscribers):
            send_stale(subscriber, list(subscriber.keys), reason)

    # --- asking and sending ----------------------------------------------------------------------

    async def _ask_all(self, changes: Sequence[Change]) -> dict[str, Answer]:
        """What each identity with an interested socket may see of these changes."""
        answers: dict[str, Answer] = {}
        asking = asyncio.Semaphore(self._lane.size)
        # Sockets come, and change their identity, while PostgreSQL is asked: ask for those too.
        while missing := {
            identity: interest
            for identity, interest in interests(self._hub, changes).items()
            if identity not in answers
        }:
            asked = await asyncio.gather(
                *(self._ask(interest, changes, asking) for interest in missing.values())
            )
            answers.update(zip(missing, asked, strict=True))
        return answers

    async def _ask(
        self, interest: Interest, changes: Sequence[Change], asking: asyncio.Semaphore
    ) -> Answer:
        """What one identity may see now: one statement for all its records, decided by RLS."""
        async with asking:
            try:
                refs = {table: sorted(ids) for table, ids in interest.refs.items()}
                metrics.probes.add()
                raw = json.loads(
                    await calls.visible(self._lane, interest.claims, dumps(refs).decode())
                )
                hidden = raw.pop("hidden", None) or {}
                answer = Answer(visible=raw, hidden=hidden, asked=interest.refs)
                wanted = wanted_records(changes, answer)
                if wanted:
                    text = dumps(wanted).decode()
                    records = await calls.records_for(self._lane, interest.claims, text)
                    answer.add_records(wanted, json.loads(records))
            except psycopg.Error as exc:
                problem = from_database(exc)
                if problem.code == "unavailable":
                    raise
                log.warning("access not known sqlstate=%s", exc.sqlstate)
                return Answer(failed=True)
            return answer

    async def _prove(self) -> None:
        """Asks for the evidence of keys that were told to read again. Raises psycopg.Error."""
        waiting: dict[str, list[Subscriber]] = {}
        for subscriber in self._hub.subscribers:
            if subscriber.unproven:
                waiting.setdefault(subscriber.identity, []).append(subscriber)
        for subscribers in waiting.values():
            keys = sorted(set().union(*(subscriber.unproven for subscriber in subscribers)))
            for start in range(0, len(keys), MAX_KEYS):
                part = keys[start : start + MAX_KEYS]
                text = await calls.subscribe(self._lane, subscribers[0].claims, part, None)
                proven = set(json.loads(text)["evidence"])
                for subscriber in subscribers:
                    for key in subscriber.unproven.intersection(part):
                        if key in proven and key in subscriber.keys:
                            subscriber.keys[key] = True
                    subscriber.unproven.difference_update(part)

    # --- retention -------------------------------------------------------------------------------

    async def _prune_forever(self) -> None:
        while True:
            await self.ready.wait()
            try:
                await calls.prune(self._lane)
            except psycopg.Error as exc:
                # Nothing is lost by pruning later; several gateways do it in turn.
                log.warning("not pruned sqlstate=%s", exc.sqlstate)
            await asyncio.sleep(PRUNE_SECONDS)

    # --- the doorbell ----------------------------------------------------------------------------

    async def _listen_forever(self, conninfo: str) -> None:
        async def ring(_: asyncpg_listen.NotificationOrTimeout) -> None:
            self._ring()

        listener = asyncpg_listen.NotificationListener(self._connecting(conninfo), 0)
        while True:
            try:
                await listener.run(
                    {CHANNEL: ring},
                    policy=asyncpg_listen.ListenPolicy.LAST,
                    notification_timeout=LISTENER_CHECK_SECONDS,
                )
            except Exception as exc:  # noqa: BLE001
                log.warning("listener ended class=%s", type(exc).__name__)
            await asyncio.sleep(RECONNECT_SECONDS)

    def _connecting(self, conninfo: str) -> Callable[[], Any]:
        parameters = asyncpg_parameters(conninfo)

        async def connect() -> Any:
            self._listening = False
            # Bounded pauses of our own: the library's grow without end.
            while True:
                try:
                    connection = await asyncpg.connect(**parameters, timeout=3)
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(RECONNECT_SECONDS)
                    continue
                # Whatever rang while nobody listened is in the feed.
                self.wake()
                self._listening = True
                return connection

        return connect

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def asyncpg_parameters(conninfo: str) -> dict[str, Any]:
    """A libpq URL or `key=value` string as the arguments of `asyncpg.connect`."""
    names = {
        "host": "host",
        "port": "port",
        "user": "user",
        "password": "password",
        "dbname": "database",
        "passfile": "passfile",
        "sslmode": "ssl",
    }
    given = conninfo_to_dict(conninfo)
    parameters: dict[str, Any] = {
        ours: given[theirs] for theirs, ours in names.items() if given.get(theirs) is not None
    }
    if "port" in parameters:
        parameters["port"] = int(parameters["port"])
    parameters["server_settings"] = {"application_name": "rowcast-listen"}
    return parameters


def _sort(answer: Mapping[str, Any]) -> tuple[list[Change], list[str]]:
    """The changes of records, and the tables of which only is known that much has changed."""
    tables = dict.fromkeys(answer.get("behind") or ())
    changes = []
    for raw in answer.get("changes") or ():
        if raw["kind"] in ("insert", "update", "delete"):
            changes.append(read_change(raw))
        else:
            tables[raw["table"]] = None
    return changes, list(tables)
