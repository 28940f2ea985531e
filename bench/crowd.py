"""Many sockets in a process of their own: `Crowd` commands it, `python -m bench.crowd` is it.

Commands and answers are a line of JSON each. Times are those of the monotonic clock, which all
processes of a machine share.
"""

import asyncio
import json
import random
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Self, cast

HANDSHAKE = (
    b"GET /api/realtime/socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
MARK = re.compile(rb'"title":"mark (\d+)')
CURSOR = re.compile(rb'"cursor":"([^"]+)"')
RETRY_SECONDS = 0.5  # a client without a socket waits a random part of it, then of twice as much
LONGEST_RETRY_SECONDS = 5.0


class Crowd:
    """The parent's side. Ends the process on leaving the `with` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(10)

    def ask(self, do: str, **more: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"the crowd failed: {answer['error']}")
        return answer.get("answer")

    def open(self, port: int, sockets: Iterable[tuple[str, list[str]]], bare: bool = False) -> None:
        """Opens a socket for each token and its keys, and waits until all are subscribed.

        `bare`: sockets of a twin, which says nothing but what it is told to deliver.
        """
        self.ask("open", port=port, sockets=list(sockets), bare=bare)


class Socket(asyncio.Protocol):
    """One client: handshake, hello, subscribe; afterwards it only listens."""

    def __init__(self, home: "Home", token: str, keys: list[str], bare: bool) -> None:
        self.home = home
        self.token = token
        self.keys = keys
        self.bare = bare
        self.live = False
        self.upgraded = False
        self.data_at = 0.0
        self.word_at = 0.0
        self.closed_at = 0.0
        self.tries = 0
        self.last = b""
        self.cursor: str | None = None
        self._buffer = b""

    async def connect(self) -> None:
        self.upgraded, self._buffer = False, b""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self.home.port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(HANDSHAKE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = time.monotonic()
        if self.live:
            self.live = False
            self.home.lost(self)
        elif self.home.persistent:
            self.home.retry(self)

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self.upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self.upgraded = True
            data = data[end + 4 :]
            if self.bare:
                self.home.joined(self)
            else:
                self.say({"type": "hello", "protocol": 1, "token": self.token})
        self._read(data)

    def _read(self, data: bytes) -> None:
        """Takes the whole frames out of what has come."""
        start, size = 0, len(data)
        while size - start >= 2:
            length, head = data[start + 1], 2
            if length >= 126 and size - start < 10:
                break
            if length == 126:
                length, head = int.from_bytes(data[start + 2 : start + 4]), 4
            elif length == 127:
                length, head = int.from_bytes(data[start + 2 : start + 10]), 10
            end = start + head + length
            if end > size:
                break
            kind = data[start] & 15
            if kind == 1:
                self.frame(data[start + head : end])
            elif kind == 9:
                self.transport.write(_frame(10, data[start + head : end]))
            elif kind == 8:
                self.transport.close()
            start = end
        if start < size:
            self._buffer = data[start:]

    def frame(self, payload: bytes) -> None:
        if self.live:
            self.home.heard(self, payload)
            return
        message = json.loads(payload)
        if message["type"] == "welcome":
            frame: dict[str, object] = {"type": "subscribe", "id": 1, "keys": self.keys}
            if self.cursor is not None:
                frame["cursor"] = self.cursor
            self.say(frame)
        elif message["type"] == "subscribed":
            self.last = payload
            self.home.joined(self)
        else:
            self.home.heard(self, payload)

    def say(self, message: object) -> None:
        self.transport.write(_frame(1, json.dumps(message).encode()))


class Home:
    """Everything in the process of the crowd."""

    def __init__(self) -> None:
        self.port = 0
        self.sockets: list[Socket] = []
        self.persistent = False
        self.what = "count"
        self.frames = 0
        self.last = b""
        self.last_at = 0.0
        self.marks: dict[int, float] = {}
        self.live = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def joined(self, socket: Socket) -> None:
        socket.live, socket.tries = True, 0
        self.live += 1
        self.last_at = time.monotonic()
        self._changed.set()

    def lost(self, socket: Socket) -> None:
        self.live -= 1
        self._changed.set()
        if self.persistent:
            found = CURSOR.search(socket.last)
            socket.cursor = found[1].decode() if found else None
            self.retry(socket)

    def retry(self, socket: Socket) -> None:
        pause = min(RETRY_SECONDS * 2**socket.tries, LONGEST_RETRY_SECONDS)
        socket.tries += 1

        async def work() -> None:
            await asyncio.sleep(random.uniform(0, pause))
            try:
                await socket.connect()
            except OSError:
                self.retry(socket)

        task = asyncio.ensure_future(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def heard(self, socket: Socket, payload: bytes) -> None:
        self.frames += 1
        if self.what == "count":
            if self.frames % len(self.sockets) == 0:
                self.last = payload
                self.last_at = time.monotonic()
                self._changed.set()
            return
        now = self.last_at = time.monotonic()
        if self.what == "changes":
            # One frame may carry several of them.
            self.frames += payload.count(b'"title"') - 1
            self._changed.set()
        elif self.what == "marks":
            # Where several writes come in one frame it counts for each of them.
            found = MARK.findall(payload)
            self.frames += len(found) - 1
            for mark in found:
                self.marks[int(mark)] = now
            self._changed.set()
        elif self.what == "rights":
            if b'"title"' in payload:
                socket.data_at = now
            elif b'"stale"' in payload or b'"gone"' in payload:
                socket.word_at = now
                self._changed.set()

    async def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def open(self, port: int, sockets: list[tuple[str, list[str]]], bare: bool) -> None:
        self.port = port
        for token, keys in sockets:
            socket = Socket(self, token, keys, bare)
            await socket.connect()
            self.sockets.append(socket)
            wanted = len(self.sockets) - 50  # so many may be on their way
            await self.until(lambda wanted=wanted: self.live > wanted)
        await self.current()

    async def watch(self, what: str) -> None:
        self.what, self.frames, self.marks = what, 0, {}

    async def heard_last(self) -> str:
        return self.last.decode()

    async def wave(self, count: int) -> float:
        """When so many frames (or changes, where those are counted) had come since `watch`."""
        await self.until(lambda: self.frames >= count)
        return self.last_at

    async def marked(self, count: int) -> dict[int, float]:
        """When the last socket heard of each mark."""
        await self.until(
            lambda: self.frames >= count * len(self.sockets) and len(self.marks) == count
        )
        return self.marks

    async def rights(self, number: int) -> tuple[float, float]:
        """When this socket last heard of the board, and when that it has to read again."""
        socket = self.sockets[number]
        await self.until(lambda: socket.word_at > 0)
        await asyncio.sleep(0.5)  # what would come after it
        return socket.data_at, socket.word_at

    async def closed(self, numbers: list[int]) -> float:
        """When the last of these sockets was closed."""
        sockets = [self.sockets[number] for number in numbers]
        await self.until(lambda: all(socket.closed_at > 0 for socket in sockets))
        return max(socket.closed_at for socket in sockets)

    async def persist(self) -> None:
        """From now on lost sockets are opened again."""
        self.persistent = True

    async def current(self) -> float:
        """When all were subscribed."""
        await self.until(lambda: self.live == len(self.sockets))
        return self.last_at

    async def ping(self) -> float:
        """Seconds until all have their pong."""
        await self.watch("count")
        started = time.monotonic()
        for socket in self.sockets:
            socket.say({"type": "ping"})
        return await self.wave(len(self.sockets)) - started


def _frame(kind: int, payload: bytes) -> bytes:
    """Masked, as a client has to, with the mask that changes nothing."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BBI", 0x80 | kind, 0x80 | size, 0) + payload
    return struct.pack("!BBHI", 0x80 | kind, 0xFE, size, 0) + payload


async def serve() -> None:
    home, loop = Home(), asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        command = json.loads(line)
        do = command.pop("do")
        try:
            answer = {"answer": await getattr(home, do)(**command)}
        except (OSError, TimeoutError) as exc:
            answer = {"error": f"{do}: {exc!r}, {home.live} of {len(home.sockets)} live"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve())
    except ImportError:
        asyncio.run(serve())
