"""Carries committed changes from the feed to the hub: wake up, read, ask who may see, send.

The doorbell (NOTIFY) is a hint and nothing more: the feed is read at least once a second, after
every reconnect, and until it is empty, so every promise holds with NOTIFY dead. While much is
committed the feed is read every few milliseconds, and nobody has to ring.
"""

import asyncio
import json
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import psycopg

from . import calls, metrics
from .bell import Bell, pause
from .cursors import Cursors
from .db import Lane
from .delivery import Change, Delivery, read_change, send_stale
from .hub import Hub, Reader
from .protocol import loads
from .rights import Rights, named

log = logging.getLogger("rowcast.relay")

ALIVE_SECONDS: Final = 5.0
PRUNE_SECONDS: Final = 3600.0
REPORT_SECONDS: Final = 1.0
OVERVIEW_SECONDS: Final = 5.0
FINGERPRINT_SECONDS: Final = 0.5  # a changed policy or grant is noticed within this
SPACING_SECONDS: Final = 0.005  # between reads while nobody rings, and at most else
REST: Final = 0.25  # of what a read took, before the next
STOP_AGAIN_SECONDS: Final = 0.2
SESSION_ENDS: Final = "sync_internal.session_ends"  # as the feed names it
FENCE_SECONDS: Final = 0.25  # longest wait for a long transaction, which may not ring
# Commits a second. A ring for each costs nothing below, half of the speed of writers far above.
BUSY: Final = 300
CALM: Final = 150
PACE_SECONDS: Final = 0.25


class Pace:
    """How much is committed: `busy` from `BUSY` commits a second on until it is below `CALM`."""

    def __init__(self) -> None:
        self.busy = False
        self._rate = 0.0
        self._at = 0.0

    def note(self, commits: float, now: float) -> None:
        """Counts what was read just `now`, in seconds of any clock."""
        self._rate *= math.exp((self._at - now) / PACE_SECONDS)
        self._rate += commits / PACE_SECONDS
        self._at = now
        self.busy = self._rate > (CALM if self.busy else BUSY)


class Relay:
    """One per gateway. `start` it, `wake` it, `stop` it; it survives restarts of PostgreSQL."""

    def __init__(
        self,
        hub: Hub,
        lane: Lane,
        aside: Lane,
        cursors: Cursors,
        listen_conninfo: str | None,
        poll_seconds: float,
    ) -> None:
        self._hub = hub
        self._lane = lane
        self._aside = aside
        self._cursors = cursors
        self._poll_seconds = poll_seconds
        # Containers may share name and process number.
        self._name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._awake = asyncio.Event()
        self._bell = Bell(listen_conninfo, opened=self.wake, rung=self._ring)
        self._pace = Pace()
        self._asleep = False  # until somebody rings
        self._fencing = 0.0
        self._bits = 0
        self._oldest = 0
        self._oldest_since: float | None = None
        self._rung_at: float | None = None
        self._drained_at = 0.0
        self._spacing = SPACING_SECONDS
        self._begun = self._ended = 0  # the numbers of readings
        self._turn = asyncio.Event()  # when the one under way has ended
        self._tasks: set[asyncio.Task[None]] = set()
        self.rights = Rights(hub, lane)
        self._fingerprint_at = -FINGERPRINT_SECONDS
        self._status: dict[str, Any] = {}
        self._looked = False
        self._put_off = False
        self.epoch: str | None = None
        self.overview: dict[str, Any] = {}
        self.ready = asyncio.Event()
        self.read_on: Callable[[], None] = lambda: None
        """Called after each reading, the only sign that somebody has rung."""
        self.all_ended: Callable[[], None] = lambda: None
        """Called when everybody's sessions have ended, or may have."""

    def start(self) -> None:
        """Starts reading; returns at once, also when there is no database yet."""
        self._keep(self._read_forever())
        self._keep(self._prune_forever())
        self._keep(self._report_forever())
        self._keep(self._look_forever())
        self._keep(self._bell.hold())

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
        self._awake.set()

    async def settle(self) -> None:
        """Waits until whatever is committed by now was told, and what PostgreSQL may have thought
        of when it was asked about that: two readings from now on.
        """
        for _ in range(2):
            begun = self._begun
            while self._ended <= begun:
                self.wake()
                await self._turn.wait()

    def committed(self) -> None:
        """Says that this gateway has committed: for while the doorbell would not tell."""
        if not self._asleep:
            self._ring()

    def _ring(self) -> None:
        # Without sockets there is nobody to hurry for; the poll keeps the place in the feed.
        if len(self._hub):
            if self._rung_at is None:
                self._rung_at = time.monotonic()
            self._awake.set()

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
    def horizon_seconds(self) -> float:
        """How long the oldest transaction that writes has been seen running; 0: none is."""
        return time.monotonic() - self._oldest_since if self._oldest_since is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the feed was read to its end lately."""
        return self.ready.is_set() and self.idle_seconds < ALIVE_SECONDS + self._poll_seconds

    # --- reading ---------------------------------------------------------------------------------

    async def _read_forever(self) -> None:
        while True:
            self._awake.clear()
            started = time.monotonic()
            rung_at, self._rung_at = self._rung_at, None
            self._begun += 1
            try:
                # One read takes all there is; what is committed from now on is for the next.
                await self.read(rung=rung_at is not None)
                if self._put_off:
                    self._awake.set()
                self._drained_at = time.monotonic()
                self._ended = self._begun
                self._turn.set()
                self._turn = asyncio.Event()
                if rung_at is not None:
                    metrics.bell_seconds.observe(self._drained_at - rung_at)
                self._spacing = min(SPACING_SECONDS, (self._drained_at - started) * REST)
                self.read_on()
            except psycopg.errors.QueryCanceled:
                # More than can be read in the time of a statement: the same would take as long
                # again, so everybody reads anew.
                log.warning("feed too long to read")
                self._hub.cursor = None
                continue
            except psycopg.Error as exc:
                log.warning("feed not read sqlstate=%s class=%s", exc.sqlstate, type(exc).__name__)
                self._looked = False
                await asyncio.sleep(pause(1))
                continue
            except Exception as exc:  # noqa: BLE001
                # A payload of another form must not end the relay: it begins anew instead.
                log.error("feed not understood class=%s", type(exc).__name__)
                self._hub.cursor = None
                await asyncio.sleep(pause(1))
                continue
            await self._rest()

    async def _rest(self) -> None:
        """Waits until it is time to read again."""
        until_look = FINGERPRINT_SECONDS - (time.monotonic() - self._fingerprint_at)
        patience = min(await self._patience(), max(SPACING_SECONDS, until_look))
        try:
            async with asyncio.timeout(patience):
                await self._awake.wait()
        except TimeoutError:
            return
        finally:
            self._asleep = False
        # Rings right after a read wait for each other, a part of what it took: under load a wake-up
        # carries more, and alone nobody waits.
        rested = time.monotonic() - self._drained_at
        if rested < self._spacing:
            await asyncio.sleep(self._spacing - rested)

    async def _patience(self) -> float:
        """How long nothing has to be read unless somebody rings. Has writers ring, or not."""
        fencing, self._fencing = self._fencing, 0.0
        if not len(self._hub) or self._pace.busy:
            await self._bell.disarm()
            return SPACING_SECONDS if len(self._hub) else self._poll_seconds
        if not self._bell.open or self._bell.wakes(self._bits, self._oldest):
            self._asleep = self._bell.open
            return self._poll_seconds
        if not self._bell.armed(self._bits):
            await self._bell.arm()
        # Who looked before may still be about to commit, without a ring.
        self._fencing = min(fencing * 2 or SPACING_SECONDS, FENCE_SECONDS)
        return min(self._fencing, self._poll_seconds)

    async def read(self, *, rung: bool = False) -> None:
        """Reads once and delivers. Raises psycopg.Error, in which case nothing was delivered and
        the same is read again. `rung`: somebody waits for it, so that a look at the policies is
        put off, once, until he has heard.
        """
        due = time.monotonic() - self._fingerprint_at >= FINGERPRINT_SECONDS
        look = due and not (rung and not self._put_off)
        self._put_off = due and not look
        # Also once in a while: a lost connection is replaced without a word, perhaps by one to a
        # server that was promoted.
        if look or not self._looked:
            await self._look_at_server()
        # Before there is a cursor: it must not lie before the news of the policies.
        if self.rights.policies.fingerprint is None:
            await self.rights.load()
        taken, more = self.rights.take_unproven()
        try:
            await self._read_and_tell(look, taken)
        except BaseException:
            self.rights.put_back(taken)
            raise
        if more:
            self.wake()
        self.ready.set()

    async def _read_and_tell(self, look: bool, unproven: Mapping[Reader, set[str]]) -> None:
        # Before the changes are read: what ends after this was seen by it.
        proven = await self.rights.ask_views(unproven)
        answer = loads(await calls.changes(self._lane, self._hub.cursor, look))
        if look:
            if await self.rights.look(answer["fingerprint"]):
                self._looked = False
                self._everything_stale("schema")
            self._fingerprint_at = time.monotonic()
        cursor: str = answer["cursor"]
        read_at = time.monotonic()
        self._note_oldest(answer)
        self._bits = answer["bell"]
        await self._end_sessions(answer)
        changes, tables = _sort(answer, self._hub)
        self._pace.note(_commits(answer), time.monotonic())
        metrics.changes.add(len(changes))
        touched = self.rights.touch(
            self.rights.policies.touched(answer.get("changes") or (), answer.get("behind") or ())
        )
        seen = await self.rights.ask_views(touched)
        self.rights.learn(seen)
        delivery = Delivery(self._hub, self.rights.policies, changes, self._cursors.seal)
        too_much = delivery.keys_of_too_much()
        if too_much:
            delivery = Delivery(self._hub, self.rights.policies, (), self._cursors.seal)
        await self.rights.ask_all(delivery, cursor)
        # From here on nothing waits: what is stale is said before a cursor claims it was sent.
        self._notice_state(answer)
        for table in tables:
            for subscriber, keys in self._hub.of_table(table).items():
                send_stale(subscriber, keys, "bulk")
        for key in too_much:
            for subscriber in self._hub.sockets_with(key):
                send_stale(subscriber, [key], "bulk")
        self.rights.tell_flips(
            seen, lambda: self._cursors.seal(self._hub.cursor or cursor), upto=cursor
        )
        self.rights.keep_views(proven)
        delivery.send(cursor)
        for age in _ages(answer):
            metrics.delivery_seconds.observe(age + time.monotonic() - read_at)
        self.rights.stop_assuming(proven)

    def _note_oldest(self, answer: Mapping[str, Any]) -> None:
        oldest = answer["xmin"]
        # A database of an older version does not say.
        if oldest >= answer.get("xmax", oldest):
            self._oldest_since = None
        elif self._oldest_since is None or oldest != self._oldest:
            self._oldest_since = time.monotonic()
        self._oldest = oldest

    async def _look_at_server(self) -> None:
        """A restore or a promotion makes another history of the feed."""
        status = json.loads(await calls.status(self._lane))
        if status.get("epoch") != status.get("storedEpoch", status.get("epoch")):
            await calls.settle(self._lane)
        self._status, self._looked = status, True
        self._cursors.use(bytes.fromhex(status["cursorKey"]))

    async def _end_sessions(self, answer: Mapping[str, Any]) -> None:
        """Closes the sockets whose tokens do not count any more, before anything else is asked for
        them. Who has signed in again meanwhile keeps his.
        """
        unknown = self._is_anew(answer) or SESSION_ENDS in (answer.get("behind") or ())
        users = {
            raw["patch"]["user"] for raw in answer.get("changes") or () if raw["kind"] == "session"
        }
        if not unknown and not users:
            return
        unknown = unknown or "" in users  # of everybody
        if unknown:
            self.all_ended()
        asked = [
            (reader, reader.claims)
            for reader in self._hub.readers.values()
            if reader.claims is not None and (unknown or named(reader, users))
        ]
        if not asked:
            return
        counts = await calls.sessions(self._lane, [claims for _, claims in asked])
        for (reader, _), still in zip(asked, counts, strict=True):
            if not still:
                self._hub.end(reader)

    def _is_anew(self, answer: Mapping[str, Any]) -> bool:
        """Whether changes may have been missed."""
        epoch = str(answer.get("epoch"))
        return (
            self._hub.cursor is None or bool(answer.get("stale")) or self.epoch not in (None, epoch)
        )

    def _notice_state(self, answer: Mapping[str, Any]) -> None:
        # Only now, after the new cursor was taken: what is read sooner could miss a change.
        epoch = str(answer.get("epoch"))
        if self._is_anew(answer):
            self._hub.forget_all()
            self._hub.begin_anew(answer["cursor"])
            self._everything_stale("behind", None if epoch == self.epoch else epoch)
        self.epoch = epoch

    def _everything_stale(self, reason: str, epoch: str | None = None) -> None:
        for subscriber in list(self._hub.subscribers):
            if subscriber.greeted:
                send_stale(subscriber, list(subscriber.keys), reason, epoch=epoch)

    # --- retention -------------------------------------------------------------------------------

    async def _prune_forever(self) -> None:
        while True:
            await self.ready.wait()
            try:
                await calls.prune(self._aside)
            except psycopg.Error as exc:
                # Nothing is lost by pruning later; several gateways do it in turn.
                log.warning("not pruned sqlstate=%s", exc.sqlstate)
            await asyncio.sleep(PRUNE_SECONDS)

    # --- where it is -----------------------------------------------------------------------------

    async def _report_forever(self) -> None:
        """Says once a second where it is in the feed, for `sync.status`."""
        while True:
            await self.ready.wait()
            cursor = self._hub.cursor
            if cursor is not None:
                try:
                    await calls.report(
                        self._aside, self._name, cursor, self.idle_seconds, self._bell.bit
                    )
                except psycopg.Error as exc:
                    log.info("place in the feed not said sqlstate=%s", exc.sqlstate)
            await asyncio.sleep(REPORT_SECONDS)

    async def _look_forever(self) -> None:
        """Keeps what is known of the database as a whole: whoever asks for metrics waits for
        nothing, and keeps nobody busy.
        """
        while True:
            try:
                self.overview = await calls.overview(self._aside)
            except psycopg.Error as exc:
                self.overview = {}
                log.info("nothing known of the database sqlstate=%s", exc.sqlstate)
            await asyncio.sleep(OVERVIEW_SECONDS)

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _commits(answer: Mapping[str, Any]) -> float:
    """How many transactions were read; of more than are listed, many."""
    if answer.get("behind"):
        return BUSY
    return len({raw.get("xid") for raw in answer.get("changes") or ()})


def _ages(answer: Mapping[str, Any]) -> Iterator[float]:
    """How old each of the transactions read was when PostgreSQL had read it, in seconds."""
    if "now" not in answer:
        return  # a database of an older version
    now = datetime.fromisoformat(answer["now"])
    began = {raw.get("xid"): raw["at"] for raw in answer.get("changes") or ()}
    for at in began.values():
        yield max(0.0, (now - datetime.fromisoformat(at)).total_seconds())


def _sort(answer: Mapping[str, Any], hub: Hub) -> tuple[list[Change], list[str]]:
    """The changes of records, and the tables of which only is known that much has changed: of
    those no change is told, since the record may stand in another class by now.
    """
    told = answer.get("changes") or ()
    tables = dict.fromkeys(answer.get("behind") or ())
    tables |= {raw["table"]: None for raw in told if raw["kind"] in ("bulk", "truncate")}
    changes = [
        read_change(raw, hub)
        for raw in told
        if raw["kind"] in ("insert", "update", "delete") and raw["table"] not in tables
    ]
    return changes, list(tables)
