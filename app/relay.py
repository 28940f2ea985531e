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
from .access import EVERYONE, Policies
from .db import Lane
from .delivery import Answer, Change, Delivery, Refs, gone_frame, read_change, send_stale
from .errors import from_database
from .hub import Hub, Reader, RowClass, is_record_key, table_of
from .protocol import dumps

log = logging.getLogger("rowcast.relay")

Views = dict[Reader, dict[str, tuple[RowClass, ...] | None]]
"""Per reader and key the classes readable under it; None: too many."""

CHANNEL: Final = "rowcast"
LISTENER_CHECK_SECONDS: Final = 3.0  # a half-open listener is noticed within twice this
RECONNECT_SECONDS: Final = 0.5
ALIVE_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 3600.0
FINGERPRINT_SECONDS: Final = 0.5  # a changed policy or grant is noticed within this
VIEW_READERS: Final = 100  # asked in one statement about their keys
VIEW_KEYS: Final = 200
PROBE_READERS: Final = 500
SPACING_SECONDS: Final = 0.005


class Relay:
    """One per gateway. `start` it, `wake` it, `stop` it; it survives restarts of PostgreSQL."""

    def __init__(
        self, hub: Hub, lane: Lane, listen_conninfo: str | None, poll_seconds: float
    ) -> None:
        self._hub = hub
        self._lane = lane
        self._listen_conninfo = listen_conninfo
        self._poll_seconds = poll_seconds
        self._bell = asyncio.Event()
        self._drained_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._policies = Policies()
        self._asking = asyncio.Semaphore(lane.size)
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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
    def schema_version(self) -> str:
        """The version of the schema in the database; empty before it was first read."""
        return str(self._status.get("schemaVersion", ""))

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
            since_look = time.monotonic() - self._fingerprint_at
            pause = min(self._poll_seconds, max(0.0, FINGERPRINT_SECONDS - since_look))
            try:
                async with asyncio.timeout(pause):
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
        # Also once in a while: a lost connection is replaced without a word, perhaps by one to a
        # server that was promoted.
        if look or not self._looked:
            await self._look_at_server()
        # Before the changes are read: what ends after this was seen by it.
        proven = await self._ask_views(self._unproven())
        answer = json.loads(await calls.changes(self._lane, self._hub.cursor, look))
        if look:
            await self._look_at_policies(answer["fingerprint"])
            self._fingerprint_at = time.monotonic()
        cursor: str = answer["cursor"]
        changes, tables = _sort(answer, self._hub)
        metrics.changes.add(len(changes))
        touched = self._touch(self._policies.touched(answer.get("changes") or ()))
        seen = await self._ask_views(touched)
        self._learn(seen)
        delivery = Delivery(self._hub, self._policies, changes)
        await self._ask_all(delivery, cursor)
        # From here on nothing waits: what is stale is said before a cursor claims it was sent.
        self._notice_state(answer)
        for table in tables:
            for subscriber, keys in self._hub.of_table(table).items():
                send_stale(subscriber, keys, "bulk")
        self._tell_flips(seen, cursor)
        self._keep_views(proven)
        delivery.send(cursor)
        self._stop_assuming(proven)
        self.ready.set()

    async def _look_at_server(self) -> None:
        """A restore or a promotion makes another history of the feed."""
        status = json.loads(await calls.status(self._lane))
        if status.get("epoch") != status.get("storedEpoch", status.get("epoch")):
            await calls.settle(self._lane)
        self._status, self._looked = status, True

    async def _look_at_policies(self, fingerprint: str) -> None:
        """A policy, a grant, a function or a membership of roles may have changed: then no answer
        holds any more, and everybody reads again.
        """
        before = self._policies.fingerprint
        if fingerprint == before:
            return
        policies = Policies(json.loads(await calls.policies(self._lane)))
        await calls.note_policies(self._lane, policies.fingerprint or "")
        self._policies = policies
        self._looked = False
        self._hub.forget_all()
        if before is not None:
            self._everything_stale("schema")

    def _notice_state(self, answer: Mapping[str, Any]) -> None:
        epoch = str(answer.get("epoch"))
        # Only now, after the new cursor was taken: what is read sooner could miss a change.
        if self._hub.cursor is None or answer.get("stale") or self.epoch not in (None, epoch):
            self._hub.forget_all()
            self._everything_stale("behind")
        self.epoch = epoch

    def _everything_stale(self, reason: str) -> None:
        for subscriber in list(self._hub.subscribers):
            send_stale(subscriber, list(subscriber.keys), reason)

    # --- who may see what ------------------------------------------------------------------------

    async def _ask_all(self, delivery: Delivery, cursor: str) -> None:
        """Asks until nothing is missing. Sockets come, and change their identity, meanwhile."""
        while True:
            unknown, uncached = delivery.unknown(), delivery.uncached()
            gained = {} if unknown else delivery.gained()
            if not unknown and not uncached and not gained:
                return
            await asyncio.gather(
                *(self._probe(delivery, *group, cursor) for group in _alike(unknown)),
                *(self._ask_each(delivery, reader, refs) for reader, refs in uncached.items()),
                *(self._fetch(delivery, reader, refs) for reader, refs in gained.items()),
            )

    async def _probe(
        self, delivery: Delivery, readers: Sequence[Reader], refs: Refs, cursor: str
    ) -> None:
        """Which of these records each of these readers sees: one statement for all of them."""
        metrics.probes.add(len(readers))
        claims = [reader.claims for reader in readers]
        try:
            async with self._asking:
                raw = await calls.probe(self._lane, claims, _refs_text(refs), cursor)
        except psycopg.Error as exc:
            _unless_unavailable(exc)
            if len(readers) == 1:
                delivery.fail(readers[0])
            else:
                # One who cannot be asked must not cost the others their answer.
                await asyncio.gather(
                    *(self._probe(delivery, [reader], refs, cursor) for reader in readers)
                )
            return
        answer = json.loads(raw)
        overtaken = {table: set(ids) for table, ids in answer["overtaken"].items()}
        for reader, seen in zip(readers, answer["seen"], strict=True):
            ids_seen = {table: set(ids) for table, ids in seen.items()}
            delivery.learn(reader, refs, ids_seen, overtaken)

    async def _ask_each(self, delivery: Delivery, reader: Reader, refs: Refs) -> None:
        """Where no answer holds for a class: what a reader sees of each record, decided by RLS."""
        async with self._asking:
            metrics.probes.add()
            try:
                raw = json.loads(await calls.visible(self._lane, reader.claims, _refs_text(refs)))
                hidden = raw.pop("hidden", None) or {}
                answer = Answer(visible=raw, hidden=hidden, asked=refs)
                wanted = delivery.wanted(answer)
                if wanted:
                    records = await calls.records_for(self._lane, reader.claims, _refs_text(wanted))
                    answer.add_records(wanted, json.loads(records))
            except psycopg.Error as exc:
                _unless_unavailable(exc)
                answer = Answer(failed=True)
        delivery.answer(reader, answer)

    async def _fetch(self, delivery: Delivery, reader: Reader, refs: Refs) -> None:
        """Current contents of what came into a reader's sight."""
        answer = Answer()
        async with self._asking:
            try:
                records = await calls.records_for(self._lane, reader.claims, _refs_text(refs))
            except psycopg.Error as exc:
                _unless_unavailable(exc)
                delivery.fail(reader)
                return
        answer.add_records(refs, json.loads(records))
        delivery.fetched(reader, answer)

    # --- what changes who may see what -----------------------------------------------------------

    def _touch(self, tables: Mapping[str, set[str] | None]) -> dict[Reader, set[str]]:
        """Forgets the answers that may have changed. Returns the keys to be looked at again."""
        found: dict[Reader, set[str]] = {}
        for table, users in tables.items():
            for reader in self._hub.readers.values():
                if users is not EVERYONE and reader.user_id not in users:
                    continue
                reader.forget(table)
                keys = {key for key, _ in reader.views_of(table)}
                if keys:
                    found.setdefault(reader, set()).update(keys)
        return found

    def found(self, reader: Reader, views: Mapping[str, Sequence[str] | None]) -> None:
        """Takes in the classes a subscription found readable under its keys."""
        for key, texts in views.items():
            view = reader.views.get(key)
            if view is None:
                continue
            classes = self._hub.row_classes(key, texts)
            if classes is None:
                view.classes = None
                continue
            for row_class in classes:
                view.add(row_class)
            if (table_of(key), reader.role) in self._policies.cacheable:
                reader.learn_all(classes)

    def opaque(self, reader: Reader) -> list[str]:
        """The tables of which is not known what changes his access to them."""
        return self._policies.opaque(reader.role)

    def _unproven(self) -> dict[Reader, set[str]]:
        return {
            reader: set(reader.unproven) for reader in self._hub.readers.values() if reader.unproven
        }

    async def _ask_views(self, asked: Mapping[Reader, set[str]]) -> Views:
        """The classes each reader may see under each of these keys now. Raises psycopg.Error."""
        parts: list[list[tuple[Reader, list[str]]]] = [[]]
        for reader, keys in asked.items():
            ordered = sorted(keys)
            for start in range(0, len(ordered), VIEW_KEYS):
                if len(parts[-1]) >= VIEW_READERS:
                    parts.append([])
                parts[-1].append((reader, ordered[start : start + VIEW_KEYS]))
        found: Views = {}
        for answers in await asyncio.gather(*(self._ask_part(part) for part in parts if part)):
            for reader, classes in answers:
                found.setdefault(reader, {}).update(classes)
        return found

    async def _ask_part(
        self, part: Sequence[tuple[Reader, list[str]]]
    ) -> list[tuple[Reader, dict[str, tuple[RowClass, ...] | None]]]:
        metrics.probes.add(len(part))
        text = dumps([keys for _, keys in part]).decode()
        try:
            async with self._asking:
                raw = await calls.views(self._lane, [reader.claims for reader, _ in part], text)
        except psycopg.Error as exc:
            _unless_unavailable(exc)
            if len(part) == 1:
                reader, keys = part[0]
                return [(reader, dict.fromkeys(keys))]
            alone = await asyncio.gather(*(self._ask_part([one]) for one in part))
            return [answer for answers in alone for answer in answers]
        return [
            (reader, {key: self._hub.row_classes(key, answer.get(key, [])) for key in keys})
            for (reader, keys), answer in zip(part, json.loads(raw), strict=True)
        ]

    def _learn(self, seen: Views) -> None:
        """What was found under a key is readable, whatever else is."""
        for reader, views in seen.items():
            for key, classes in views.items():
                if (table_of(key), reader.role) in self._policies.cacheable:
                    reader.learn_all(classes or ())

    def _tell_flips(self, seen: Views, cursor: str) -> None:
        """Who sees something else than before under a key reads it again; a record he has lost is
        gone.
        """
        flipped: dict[str, set[Reader]] = {}
        lost: dict[str, set[Reader]] = {}
        for reader, classes in seen.items():
            for key, now in classes.items():
                view = reader.views.get(key)
                if view is None:
                    continue
                certain = (table_of(key), reader.role) in self._policies.cacheable
                if certain and view.classes is not None and now is not None:
                    if set(view.classes) == set(now):
                        continue
                    if is_record_key(key) and not now:
                        lost.setdefault(key, set()).add(reader)
                        view.classes = ()
                        continue
                flipped.setdefault(key, set()).add(reader)
        for key, readers in flipped.items():
            for subscriber in self._hub.sockets_of(readers, key):
                send_stale(subscriber, [key], "access")
        for key, readers in lost.items():
            frame = gone_frame(key, self._hub.cursor or cursor)
            for subscriber in self._hub.sockets_of(readers, key):
                subscriber.send(frame)

    def _keep_views(self, proven: Views) -> None:
        for reader, classes in proven.items():
            for key, now in classes.items():
                view = reader.views.get(key)
                if view is not None:
                    view.classes = now
                    reader.unproven.discard(key)

    def _stop_assuming(self, proven: Views) -> None:
        for reader, classes in proven.items():
            for key in classes:
                view = reader.views.get(key)
                if view is not None and key not in reader.unproven:
                    view.assumed = False

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


def _sort(answer: Mapping[str, Any], hub: Hub) -> tuple[list[Change], list[str]]:
    """The changes of records, and the tables of which only is known that much has changed."""
    tables = dict.fromkeys(answer.get("behind") or ())
    changes = []
    for raw in answer.get("changes") or ():
        if raw["kind"] in ("insert", "update", "delete"):
            changes.append(read_change(raw, hub))
        elif raw["kind"] in ("bulk", "truncate"):
            tables[raw["table"]] = None
    return changes, list(tables)


def _alike(asked: Mapping[Reader, Refs]) -> list[tuple[list[Reader], Refs]]:
    """Readers of whom the same is asked, a statement's worth at a time."""
    groups: dict[str, tuple[list[Reader], Refs]] = {}
    for reader, refs in asked.items():
        groups.setdefault(_refs_text(refs), ([], refs))[0].append(reader)
    return [
        (readers[start : start + PROBE_READERS], refs)
        for readers, refs in groups.values()
        for start in range(0, len(readers), PROBE_READERS)
    ]


def _refs_text(refs: Refs) -> str:
    return dumps({table: sorted(refs[table]) for table in sorted(refs)}).decode()


def _unless_unavailable(exc: psycopg.Error) -> None:
    """Raises it again if the database cannot be reached: then everything is asked again."""
    if from_database(exc).code == "unavailable":
        raise exc
    log.warning("access not known sqlstate=%s", exc.sqlstate)
