"""The doorbell of a gateway: hears NOTIFY, and tells writers when they need not ring.

A committing NOTIFY holds a lock of the whole cluster over the flush of its commit, so writers ring
only for relays that sleep. Which do is a bit each, kept by `sync.gateway_bell`; the protocol is in
docs/explanation/doorbell.md, and tests/sql/feed/test_bell_model.py tries all its interleavings.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
import asyncpg_listen
from psycopg.conninfo import conninfo_to_dict

from . import calls

log = logging.getLogger("rowcast.bell")

T = TypeVar("T")

CHANNEL: Final = "rowcast"
CONNECT_SECONDS: Final = 3.0
# Together below five seconds: that is how long a line may be dead without a word.
CHECK_SECONDS: Final = 1.5
ANSWER_SECONDS: Final = 1.5
STEADY_SECONDS: Final = 10.0  # a line that held this long is opened again without delay


@dataclass(eq=False, slots=True)
class _Line:
    """Two connections, for better or worse. `listener` runs nothing else, since a statement may
    hold back what it hears; `keeper` holds our bit by a session lock.
    """

    listener: Any
    keeper: Any
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    keeping: asyncio.Lock = field(default_factory=asyncio.Lock)
    bit: int | None = None
    fence: int | None = None


class _Listener(asyncpg.Connection):  # type: ignore[misc, unused-ignore]
    """A connection that says when LISTEN has been committed: what rang before is in the feed."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.listens = asyncio.Event()

    async def add_listener(self, channel: str, callback: Any) -> None:
        await super().add_listener(channel, callback)
        self.listens.set()


class Bell:
    """`opened` is called when it listens (again): what rang before is in the feed; `rung` at each
    ring. Nothing here raises where PostgreSQL is away: then it is not `open`, and has no bit set.
    """

    def __init__(
        self, conninfo: str | None, opened: Callable[[], None], rung: Callable[[], None]
    ) -> None:
        self._conninfo = conninfo
        self._opened = opened
        self._rung = rung
        self._line: _Line | None = None

    @property
    def open(self) -> bool:
        """Whether somebody listens."""
        return self._line is not None

    @property
    def bit(self) -> int | None:
        """The number of our bit, where writers may ring for us."""
        return self._line.bit if self._line is not None else None

    def armed(self, bits: int) -> bool:
        """Whether writers who look now ring for us; `bits` as the feed was read with."""
        line = self._line
        return line is not None and line.fence is not None and bool(bits >> (line.bit or 0) & 1)

    def wakes(self, bits: int, oldest: int) -> bool:
        """Whether all that is committed after the feed was read with these `bits` rings for us;
        `oldest` is the first transaction that was running then.
        """
        line = self._line
        return self.armed(bits) and line is not None and oldest > (line.fence or oldest)

    async def arm(self) -> None:
        """Has writers ring for us. In vain now and then: ask `armed` after the next read."""
        line = self._line
        if line is None:
            return
        line.fence = None
        bit = await self._call(line, lambda: calls.ring(line.keeper, True, ANSWER_SECONDS))
        if bit is None:
            return
        line.bit = bit
        # In a transaction of its own, after the bit was set.
        line.fence = await self._call(line, lambda: calls.fence(line.keeper, ANSWER_SECONDS))

    async def disarm(self) -> None:
        """Has writers not ring for us any more."""
        line = self._line
        if line is None or line.bit is None:
            return
        line.fence = None
        if await self._call(line, lambda: calls.ring(line.keeper, False, ANSWER_SECONDS)) is None:
            return
        line.bit = None

    async def hold(self) -> None:
        """Opens the line, and again whenever it ends."""
        if self._conninfo is None:
            return
        servers = asyncpg_servers(self._conninfo)
        tries = 0
        while True:
            started = time.monotonic()
            for parameters in servers:
                try:
                    await self._hold_once(parameters)
                except Exception as exc:  # noqa: BLE001
                    # Whatever a line ends with that was cut at an unlucky byte: there is another.
                    log.info("doorbell not open class=%s", type(exc).__name__)
            tries = 0 if time.monotonic() - started > STEADY_SECONDS else tries + 1
            await asyncio.sleep(pause(tries))

    async def _hold_once(self, parameters: dict[str, Any]) -> None:
        async with contextlib.AsyncExitStack() as ends:

            async def connect(name: str) -> Any:
                settings = {"application_name": f"rowcast-{name}"}
                connection = await asyncpg.connect(
                    **parameters,
                    server_settings=settings,
                    timeout=CONNECT_SECONDS,
                    connection_class=_Listener,
                )
                ends.callback(connection.terminate)
                return connection

            line = _Line(await connect("listen"), await connect("bell"))
            for connection in (line.listener, line.keeper):
                connection.add_termination_listener(lambda _: line.lost.set())
            listening = asyncio.create_task(self._listen(line))
            ends.callback(listening.cancel)
            async with asyncio.timeout(CONNECT_SECONDS):
                await line.listener.listens.wait()
            self._line = line
            self._opened()
            try:
                await self._watch(line)
            except asyncio.CancelledError:
                # Nobody has to ring for a gateway that stops.
                await self.disarm()
                raise
            finally:
                self._line = None

    async def _listen(self, line: _Line) -> None:
        """Hears what rings, and whether the peer still answers, until the line is lost."""
        offered = [line.listener]

        async def connect() -> Any:
            # One connection a line: the next belongs to the next line.
            if not offered:
                line.lost.set()
                await asyncio.Event().wait()
            return offered.pop()

        async def ring(heard: asyncpg_listen.NotificationOrTimeout) -> None:
            if isinstance(heard, asyncpg_listen.Notification):
                self._rung()

        await asyncpg_listen.NotificationListener(connect, reconnect_delay=0).run(
            {CHANNEL: ring},
            policy=asyncpg_listen.ListenPolicy.LAST,
            # It asks the peer for a sign of life three times in this.
            notification_timeout=3 * CHECK_SECONDS,
        )

    async def _watch(self, line: _Line) -> None:
        """Ends with the line. A peer that went without a word is one that does not answer."""
        while not line.lost.is_set():
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await line.lost.wait()
            except TimeoutError:
                await self._call(line, lambda: calls.check(line.keeper, ANSWER_SECONDS))
        log.warning("doorbell lost")

    async def _call(self, line: _Line, work: Callable[[], Awaitable[T]]) -> T | None:
        """One statement of the keeper; if it fails the line is lost."""
        async with line.keeping:
            if line.lost.is_set():
                return None
            try:
                return await work()
            except Exception as exc:  # noqa: BLE001
                log.warning("doorbell class=%s", type(exc).__name__)
                line.lost.set()
                return None


def pause(tries: int) -> float:
    """Seconds before another try: after a restart not everybody comes at once, and nobody late."""
    return random.uniform(0.1, 1.0) * (0.25, 0.5, 1.0, 2.0)[min(tries, 3)]  # noqa: S311


def asyncpg_servers(conninfo: str) -> list[dict[str, Any]]:
    """A libpq URL or `key=value` string as arguments of `asyncpg.connect`, for each server named.

    One by one, since asyncpg has one timeout for all: a server that is down without a word would
    use up that of the next.
    """
    names = {
        "user": "user",
        "password": "password",
        "dbname": "database",
        "passfile": "passfile",
        "sslmode": "ssl",
        "target_session_attrs": "target_session_attrs",
    }
    given = conninfo_to_dict(conninfo)
    shared = {
        ours: given[theirs] for theirs, ours in names.items() if given.get(theirs) is not None
    }
    hosts = str(given["host"]).split(",") if given.get("host") else []
    ports = (
        [int(port or 5432) for port in str(given["port"]).split(",")] if given.get("port") else []
    )
    servers: list[dict[str, Any]] = [{"host": host, **shared} for host in hosts] or [shared]
    if ports:
        # One for all, or one for each.
        every = ports * len(servers) if len(ports) == 1 else ports
        for server, port in zip(servers, every, strict=True):
            server["port"] = port
    return servers
