"""A small HTTP load generator: keep-alive connections, one request in flight on each."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import cast

from .stage import latencies

Ask = Callable[[], bytes]


def request(path: str, bearer: str, body: bytes, accept: str = "application/json") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n"
        f"Content-Type: application/json\r\nAccept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """Asks again as soon as it is answered, until told to stop. Answers have a Content-Length."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._buffer = b""
        self._sent_at = 0.0
        self.taken: list[float] = []
        self.failed: list[bytes] = []
        self.stopping = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has its own class
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        start = self._buffer.lower().find(b"content-length:", 0, end)
        length = int(self._buffer[start + 15 : self._buffer.find(b"\r\n", start)])
        if len(self._buffer) < end + 4 + length:
            return
        self.taken.append((time.perf_counter() - self._sent_at) * 1000)
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            self.failed.append(self._buffer)
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        if self.stopping:
            self._transport.close()
            return
        message = self._ask()
        self._sent_at = time.perf_counter()
        self._transport.write(message)


def generate(port: int, asks: list[Ask], seconds: float) -> dict[str, float]:
    """One connection for each of `asks`; gives answers a second and latencies in ms.

    RuntimeError if an answer was not 200.
    """
    loop: asyncio.AbstractEventLoop
    try:
        import uvloop

        loop = uvloop.new_event_loop()
    except ImportError:
        loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        return loop.run_until_complete(_generate(port, asks, seconds))


async def _generate(port: int, asks: list[Ask], seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda ask=ask: Client(ask), "127.0.0.1", port))[1]  # type: ignore[misc]
        for ask in asks
    ]
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopping = True
    answered = sum(len(client.taken) for client in clients)
    elapsed = time.perf_counter() - started
    await asyncio.wait([client.done for client in clients], timeout=10)
    failed = [answer for client in clients for answer in client.failed]
    if failed:
        raise RuntimeError(f"{len(failed)} answers were not 200, such as {failed[0][-500:]!r}")
    taken = [time for client in clients for time in client.taken]
    return {"tps": answered / elapsed, **latencies(taken)}
