"""Connections: three pools in autocommit, each statement on its own, reconnecting by themselves."""

import asyncio
import logging
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from . import spans
from .errors import Problem, too_many, unavailable

log = logging.getLogger("rowcast.db")

T = TypeVar("T")
Connection = psycopg.AsyncConnection[TupleRow]

CHECKOUT_SECONDS: Final = 4.0
# Giving up early leaves the next try to the next request, so that no backoff outlives an outage.
RECONNECT_SECONDS: Final = 2.0
DOWN_SECONDS: Final = 1.0
# PostgreSQL ends our statements after five: who has not answered by now is not there any more.
SILENT_SECONDS: Final = 7.0
TRIES: Final = 3
MAX_READS_OF_ONE: Final = 256  # under way or waiting
UNCONFIRMED: Final = "SyncRepWaitForLSN"  # of PostgreSQL; the text of its warning is translated


class Unclean(psycopg.OperationalError):
    """A connection came out of the pool with a role still set; it was closed."""


class Unconfirmed(psycopg.OperationalError):
    """Committed here, but the wait for the standby was cancelled: the outcome is not certain."""


class Lane:
    """A pool of connections for one kind of work, so that no kind starves another."""

    def __init__(self, conninfo: str, name: str, size: int, *, prepares: bool = True) -> None:
        self.size = size
        self._drained_at = 0.0
        self._in_use = 0
        self._down_until = 0.0
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            conninfo,
            name=name,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0 if prepares else None,
                "application_name": f"rowcast-{name}",
                "row_factory": tuple_row,
                "connect_timeout": 3,
                # A server that went without a word, as a dead machine does, is given up after five
                # seconds, whether something was sent to it or is awaited from it.
                "tcp_user_timeout": 5000,
                "keepalives_idle": 2,
                "keepalives_interval": 1,
                "keepalives_count": 3,
            },
            min_size=1,
            max_size=size,
            timeout=CHECKOUT_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            open=False,
        )

    async def open(self) -> None:
        """Starts connecting; does not wait for the database."""
        await self._pool.open(wait=False)

    @property
    def waiting(self) -> int:
        """How many wait for a connection."""
        return int(self._pool.get_stats().get("requests_waiting", 0))

    async def close(self) -> None:
        """Closes every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for several statements.

        Raises PoolTimeout after four seconds, and for the second after that at once: in an outage
        nobody queues for what others have just waited for in vain. Where connections are in use it
        is none.
        """
        connection = await self._take()
        try:
            yield connection
        finally:
            await self._give(connection)

    async def _take(self) -> Connection:
        if time.monotonic() < self._down_until:
            raise PoolTimeout("the database could not be reached a moment ago")
        try:
            connection = await self._pool.getconn()
        except PoolTimeout:
            if not self._in_use:
                self._down_until = time.monotonic() + DOWN_SECONDS
            raise
        self._in_use += 1
        return connection

    async def _give(self, connection: Connection) -> None:
        self._in_use -= 1
        await self._pool.putconn(connection)

    async def rows(
        self,
        statement: LiteralString,
        parameters: Sequence[Any] | Mapping[str, Any],
        repeat: bool = True,
    ) -> list[TupleRow]:
        """Runs one statement and returns its rows.

        A connection found dead is replaced and, with `repeat`, the statement is run again: right
        for reads, and for writes since a transaction id takes effect once. Statements select
        under `where current_user = session_user`, hence no row at all means a connection on
        which a role was left set: it is closed and another one is used. A commit whose wait for
        the standby was cancelled counts as success in PostgreSQL, with a warning; here it raises.
        """

        async def work(connection: Connection) -> list[TupleRow]:
            sources: list[str | None] = []

            def note(notice: psycopg.errors.Diagnostic) -> None:
                # A notice is gone when its handler returns.
                sources.append(notice.source_function)

            connection.add_notice_handler(note)
            try:
                cursor = await connection.execute(statement, parameters)
            finally:
                connection.remove_notice_handler(note)
            if UNCONFIRMED in sources:
                raise Unconfirmed("the wait for the standby was cancelled")
            rows = await cursor.fetchall()
            if not rows:
                await connection.close()
                raise Unclean("a role was left set")
            return rows

        with spans.span(named(statement), "client", db_system_name="postgresql"):
            return await self._attempt(work, TRIES if repeat else 1)

    async def value(
        self, statement: LiteralString, parameters: Sequence[Any] | Mapping[str, Any]
    ) -> Any:
        """Runs one statement and returns the first column of its first row."""
        return (await self.rows(statement, parameters))[0][0]

    async def _attempt(self, work: Callable[[Connection], Awaitable[T]], tries: int) -> T:
        for left in reversed(range(tries)):
            connection = await self._take()
            try:
                with watched(connection):
                    return await work(connection)
            except psycopg.OperationalError as exc:
                if connection.closed:
                    await self._refresh()
                if not connection.closed or not left:
                    raise
                log.warning("connection lost class=%s, trying another", type(exc).__name__)
            except psycopg.errors.InsufficientPrivilege:
                # Our login may call all its doors; a role left set may not even find them.
                if not left:
                    raise
                await connection.close()
            finally:
                await self._give(connection)
        raise AssertionError("unreachable")

    async def _refresh(self) -> None:
        """Replaces the idle connections: where one is dead, a restart has killed them all."""
        now = time.monotonic()
        if now - self._drained_at >= 1.0:
            self._drained_at = now
            await self._pool.drain()


@lru_cache(maxsize=256)
def named(statement: str) -> str:
    """The function that a statement calls, for whoever reads a trace."""
    found = re.search(r"\b(?:sync|accounts|sync_internal)\.\w+(?=\()", statement)
    return found[0] if found else "statement"


class Streams:
    """Who may stream: so many at once, and nobody more than `of_one` of these, by default half."""

    def __init__(self, size: int, of_one: int | None = None) -> None:
        self._of_one = of_one or max(1, size // 2)
        self._free = asyncio.Semaphore(size)
        self._of: Counter[str] = Counter()

    @asynccontextmanager
    async def slot(self, author: str) -> AsyncIterator[None]:
        """Raises 429 where this author has his share, 503 where none gets free in four seconds."""
        if self._of[author] >= self._of_one:
            raise too_many("You have as many streams open as one may; finish one")
        self._of[author] += 1
        try:
            async with _within(
                self._free, unavailable("Too many streams are being read; try again")
            ):
                yield
        finally:
            self._of[author] -= 1
            if not self._of[author]:
                del self._of[author]


class Turns:
    """Who may read: so many at once, and of one reader so many. His others wait for him alone, so
    that who asks for much is slow only to himself.
    """

    def __init__(self, size: int, of_one: int) -> None:
        self._of_one = of_one
        self._free = asyncio.Semaphore(size)
        self._own: dict[str, asyncio.Semaphore] = {}
        self._of: Counter[str] = Counter()  # under way or waiting

    @asynccontextmanager
    async def turn(self, reader: str) -> AsyncIterator[None]:
        """Raises 429 where too many of this reader wait, or one for four seconds for his others;
        503 where it waits that long for those of everybody.
        """
        refusal = too_many("Too many of your reads are waiting; send the same again")
        if self._of[reader] >= MAX_READS_OF_ONE:
            raise refusal
        self._of[reader] += 1
        own = self._own.setdefault(reader, asyncio.Semaphore(self._of_one))
        try:
            async with (
                _within(own, refusal),
                _within(self._free, unavailable("Too many reads are waiting; try again")),
            ):
                yield
        finally:
            self._of[reader] -= 1
            if not self._of[reader]:
                del self._of[reader], self._own[reader]


@asynccontextmanager
async def _within(places: asyncio.Semaphore, refusal: Problem) -> AsyncIterator[None]:
    """One of the places. Raises `refusal` where none gets free in four seconds."""
    try:
        async with asyncio.timeout(CHECKOUT_SECONDS):
            await places.acquire()
    except TimeoutError:
        raise refusal from None
    try:
        yield
    finally:
        places.release()


@asynccontextmanager
async def transaction(connection: Connection) -> AsyncIterator[None]:
    """A transaction on a connection that may fall silent."""
    made = connection.transaction()
    with watched(connection):
        await made.__aenter__()
    try:
        yield
    finally:
        with watched(connection):
            await made.__aexit__(*sys.exc_info())


class watched:  # noqa: N801  used as a function
    """What waits on this connection hears that it is lost where nothing comes for seven seconds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._silent = loop.call_later(SILENT_SECONDS, _sever, self._connection)

    def __exit__(self, *_: object) -> None:
        self._silent.cancel()


def _sever(connection: Connection) -> None:
    """Ends a connection on which nothing comes any more, though it is open: whoever waits on it
    hears that it is lost. Cancelling would not do, since the driver then waits for the server.
    """
    log.warning("connection silent for %.0f s", SILENT_SECONDS)
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as below:
            below.shutdown(socket.SHUT_RDWR)


class Database:
    """`work` serves requests, `feed` the relay and its access checks, `aside` what may wait:
    presence, reports, pruning.
    """

    def __init__(self, conninfo: str, pool_size: int, *, prepares: bool = True) -> None:
        self.work = Lane(conninfo, "work", pool_size, prepares=prepares)
        self.feed = Lane(conninfo, "feed", 2, prepares=prepares)
        self.aside = Lane(conninfo, "aside", 2, prepares=prepares)
        # A stream holds its connection as long as its reader takes: never more than half of them.
        self.streams = Streams(max(1, pool_size // 2))
        # However many pages are asked for, two connections are left to the rest.
        self.reads = Turns(max(1, pool_size - 2), max(1, pool_size // 4))
        # After a restart everybody subscribes at once; others get to read and write meanwhile.
        self.joins = asyncio.Semaphore(max(1, pool_size // 2))

    async def open(self) -> None:
        """Starts the pools; does not wait for the database."""
        await self.work.open()
        await self.feed.open()
        await self.aside.open()

    async def close(self) -> None:
        """Closes the pools."""
        await self.work.close()
        await self.feed.close()
        await self.aside.close()
