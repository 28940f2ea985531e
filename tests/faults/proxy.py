"""A TCP proxy in the test's own loop that delays, cuts, refuses and swallows on command.

It stands where a network would: between clients and gateway, and between gateway and PostgreSQL.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

Target = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
CHUNK = 64 * 1024


@dataclass(eq=False)
class Link:
    """One proxied connection. `deaf` holds the directions whose bytes are swallowed for ever."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    deaf: set[str] = field(default_factory=set)
    left: bool = False  # by one side

    def abort(self) -> None:
        """Ends both sides by a reset, as a crashed machine or a firewall does."""
        for writer in (self.near, self.far):
            peer = writer.get_extra_info("socket")
            if peer is not None and peer.family != socket.AF_UNIX and peer.fileno() >= 0:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Listens on loopback and passes connections on to `target`.

    Directions are "up" (to the target) and "down". A connection that once lost bytes is never
    mended: it stays silent, with both sockets open, until somebody notices.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[Link] = set()
        self._refusing = False
        self._swallowing: frozenset[str] = frozenset()
        self.delay_seconds = 0.0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def open_links(self) -> int:
        """How many connections are open, silent ones included."""
        return len(self._links)

    def cut(self) -> None:
        """Resets every connection; new ones are passed on."""
        for link in list(self._links):
            link.abort()

    def refuse(self) -> None:
        """Resets every connection, and each new one until `heal`."""
        self._refusing = True
        self.cut()

    def half_open(self, *directions: str, new_ones: bool = False) -> None:
        """From now on swallows what goes in these directions, sockets staying open.

        The connections there are stay so for ever; those made later only with `new_ones`, until
        `heal`.
        """
        for link in self._links:
            link.deaf.update(directions)
        if new_ones:
            self._swallowing = frozenset(directions)

    def heal(self) -> None:
        """New connections pass, at once. Those half open stay half open."""
        self._refusing = False
        self._swallowing = frozenset()
        self.delay_seconds = 0.0

    def bury(self) -> None:
        """Ends what one side has left, which the other has not heard: as its keepalives do."""
        for link in list(self._links):
            if link.left:
                link.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._refusing:
                Link(writer, writer).abort()
                return
            try:
                far_reader, far_writer = await self._target()
            except OSError:
                Link(writer, writer).abort()
                return
            link = Link(writer, far_writer, set(self._swallowing))
            self._links.add(link)
            try:
                await asyncio.gather(
                    self._pump(link, reader, far_writer, "up"),
                    self._pump(link, far_reader, writer, "down"),
                )
            finally:
                link.abort()
                self._links.discard(link)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if way not in link.deaf:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        # The end of one side is the end of the other, but where nothing is heard any more.
        link.left = True
        if way not in link.deaf:
            link.abort()


def tcp(port: int) -> Target:
    """A target on loopback."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    return connect


def unix(path: Callable[[], str]) -> Target:
    """A target behind a Unix socket, whose path is asked for at each connection."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(path())

    return connect
