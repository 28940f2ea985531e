"""The parts of one gateway process, put together: pools, write queue, relay, hub, sockets."""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import psycopg

from . import calls, fitness, metrics
from .auth import Verifier
from .config import Settings
from .cursors import Cursors
from .db import CHECKOUT_SECONDS, Database
from .files import Files
from .fitness import Unfit
from .hub import Hub
from .limits import Limits
from .outlet import Outlet
from .passwords import Passwords
from .protocol import GOING_AWAY, OUTDATED, SESSION_ENDED, SIGN_IN, UPGRADE, later
from .relay import Relay
from .signals import Signals
from .tokens import Signer
from .writes import Writes

log = logging.getLogger("rowcast.gateway")

SWEEP_SECONDS: Final = 3.0
READY_SECONDS: Final = 2.0
# Sockets that were sent away come back to other gateways, who have to greet them.
RETURNS_PER_SECOND: Final = 200
LONGEST_SPREAD_SECONDS: Final = 30.0
# Where each stands in what `sync.status` says.
OVERVIEW: Final = {
    metrics.feed_bytes: ("feed", "bytes"),
    metrics.feed_seconds: ("feed", "oldestSeconds"),
    metrics.receipts_bytes: ("receipts", "bytes"),
    metrics.receipts_seconds: ("receipts", "oldestSeconds"),
    metrics.relays_asleep: ("bell", "asleep"),
    metrics.relays_awake: ("bell", "awake"),
}


class Gateway:
    """Everything routes and sockets need. Construct it anywhere, `start` it inside the loop."""

    def __init__(self, settings: Settings) -> None:
        if settings.database_url is None:
            raise ValueError("the gateway needs ROWCAST_DATABASE_URL")
        self.settings = settings
        self.verifier = Verifier(settings)
        self.database = Database(
            settings.database_url, settings.pool_size, prepares=settings.prepared_statements
        )
        self.hub = Hub()
        self.cursors = Cursors()
        self.relay = Relay(
            self.hub,
            self.database.feed,
            self.database.aside,
            self.cursors,
            settings.listener_url,
            settings.poll_seconds,
        )
        self.signals = Signals(self.hub, self.database.aside, settings.heartbeat_seconds)
        self.relay.read_on = self.signals.fed
        self.relay.all_ended = self.verifier.recall
        self.verifier.withdrawn = self._close_withdrawn
        self.writes = Writes(self.database.work, committed=self.relay.committed)
        self.limits = Limits(settings)
        self.files = Files(settings, self.database)
        self.signer = Signer(settings)
        self.passwords = Passwords(settings.password_threads) if settings.accounts else None
        self.greeting = asyncio.Semaphore(settings.greetings)
        self.outlets: set[Outlet] = set()
        self.draining = False
        self._fit = asyncio.Event()
        self._fit.set()
        self._drained_by = 0.0
        self._asking: asyncio.Task[dict[str, bool]] | None = None
        self._examiner: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        metrics.sockets.read = lambda: len(self.outlets)
        metrics.writes_waiting.read = lambda: self.writes.waiting
        metrics.connections_waiting.read = lambda: self.database.work.waiting
        metrics.horizon.read = lambda: self.relay.horizon_seconds
        metrics.keys.read = lambda: self.hub.key_count
        metrics.relay_lag.read = lambda: self.relay.idle_seconds
        for gauge, path in OVERVIEW.items():
            gauge.read = partial(self._seen, *path)
        metrics.relays_behind.read = self._most_behind

    async def examine(self, unfit: Callable[[Unfit], None]) -> None:
        """Serves nobody until the database has been found fit. Where it is there but is not, says
        so to `unfit`. Call it inside the loop, before `start`.
        """
        self._fit.clear()

        async def look() -> None:
            await fitness.look(self.database.work, self.settings, unfit)
            self._fit.set()

        await self.database.open()
        self._examiner = asyncio.create_task(look())

    async def fit(self) -> bool:
        """Whether the database has been found fit. Waits for that a while: after a start it is a
        matter of a moment, which nobody has to notice.
        """
        if not self._fit.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKOUT_SECONDS):
                    await self._fit.wait()
        return self._fit.is_set()

    async def start(self) -> None:
        """Starts pools and relay; does not wait for the database."""
        await self.database.open()
        self.relay.start()
        self.signals.start()
        self._sweeper = asyncio.create_task(self._sweep_forever())
        self._keeper = asyncio.create_task(self.verifier.keep_keys())
        self.files.start()

    async def stop(self) -> None:
        """Drains, then ends everything."""
        await self.drain()
        await self.signals.stop()
        await self.relay.stop()
        for task in (self._sweeper, self._keeper, self._examiner):
            if task is not None:
                task.cancel()
        self.files.stop()
        if self.passwords is not None:
            self.passwords.close()
        await self.database.close()

    async def drain(self) -> None:
        """Sends every socket away (1001, each with a time of its own to come back after) and
        finishes the writes taken, within `drain_seconds` of the first call.
        """
        if not self.draining:
            self.draining = True
            self._drained_by = time.monotonic() + self.settings.drain_seconds
        outlets = list(self.outlets)
        for outlet in outlets:
            outlet.close(GOING_AWAY, self.farewell(len(outlets)))
        try:
            async with asyncio.timeout(self.drain_seconds_left):
                for outlet in outlets:
                    await outlet.closed()
                await self.writes.idle()
        except TimeoutError:
            log.warning("not everything was finished in time")

    @property
    def drain_seconds_left(self) -> float:
        """How long what is under way may still take; all of it before `drain`."""
        if not self.draining:
            return self.settings.drain_seconds
        return max(0.0, self._drained_by - time.monotonic())

    def farewell(self, sockets: int) -> str:
        """The reason of a close, with a time to come back after that differs for each."""
        spread = min(LONGEST_SPREAD_SECONDS, 1 + sockets / RETURNS_PER_SECOND)
        return later("the server is stopping", random.uniform(0, spread))  # noqa: S311

    async def readiness(self) -> dict[str, bool]:
        """Whether the database answers, its schema is current, the relay reads the feed."""
        # Anybody may ask: however many do, one statement answers them.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, bool]:
        database = schema = False
        try:
            async with asyncio.timeout(READY_SECONDS):
                # Not in the queue of requests: one that is busy is not to be left for others,
                # who are busy then.
                state = json.loads(await calls.status(self.database.aside))
            database, schema = True, bool(state.get("ready"))
        except (psycopg.Error, TimeoutError) as exc:
            log.info("not ready class=%s", type(exc).__name__)
        return {
            "database": database,
            "schema": schema and self._fit.is_set(),
            "relay": self.relay.alive,
            "accepting": not self.draining,
        }

    def outdated(self, schema: int | None) -> bool:
        """Whether a socket's client has to be updated. Requests are refused by PostgreSQL itself:
        what is known here may be a moment old, and a write refused in its place would be lost.
        """
        return schema is not None and schema < self.relay.oldest_schema

    async def sealed(self, answer: str) -> str:
        """An answer to a read, its cursor made opaque. Raises psycopg.Error."""
        if not self.cursors.ready:  # nothing was heard of the relay so far
            status = json.loads(await calls.status(self.database.work))
            self.cursors.use(bytes.fromhex(status["cursorKey"]))
        return self.cursors.seal_answer(answer)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for outlet in list(self.outlets):
                outlet.sweep(now)
                if self.outdated(outlet.schema):
                    outlet.close(UPGRADE, OUTDATED)

    def _close_withdrawn(self) -> None:
        for outlet in list(self.outlets):
            if not self.verifier.holds(outlet.key):
                outlet.close(SIGN_IN, SESSION_ENDED)

    def _seen(self, part: str, name: str) -> float | None:
        value: float | None = self.relay.overview.get(part, {}).get(name)
        return value

    def _most_behind(self) -> float | None:
        relays = self.relay.overview.get("relays")
        return max((relay["behindSeconds"] for relay in relays), default=None) if relays else None
