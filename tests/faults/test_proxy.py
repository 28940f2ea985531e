"""The proxy does what the tests of faults rely on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from tests.faults.proxy import Proxy, tcp

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]
HALF_OPEN_SECONDS = 0.2


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """In front of a server that answers each line with the same line."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy(tcp(server.sockets[0].getsockname()[1])) as made:
        yield made
    server.close()


@pytest_asyncio.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Connect]:
    """Connects through the proxy; closed at the end."""
    opened: list[asyncio.StreamWriter] = []

    async def open_one() -> Streams:
        streams = await asyncio.open_connection("127.0.0.1", proxy.port)
        opened.append(streams[1])
        return streams

    yield open_one
    for writer in opened:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in opened), return_exceptions=True)


async def said(streams: Streams, line: bytes = b"hello\n") -> bytes:
    """What comes back; nothing where the connection ended."""
    streams[1].write(line)
    async with asyncio.timeout(5):
        return await streams[0].readline()


async def is_silent(streams: Streams) -> bool:
    """Whether the connection is open and nothing comes back."""
    streams[1].write(b"anybody?\n")
    try:
        async with asyncio.timeout(HALF_OPEN_SECONDS):
            return await streams[0].readline() == b"never"
    except TimeoutError:
        return not streams[0].at_eof()


async def test_bytes_pass_both_ways_and_an_end_is_passed_on(proxy: Proxy, connect: Connect) -> None:
    streams = await connect()
    assert await said(streams, b"x" * 50_000 + b"\n") == b"x" * 50_000 + b"\n"
    streams[1].close()
    async with asyncio.timeout(5):
        while proxy.open_links:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_cut_resets_connections_and_lets_new_ones_through(
    proxy: Proxy, connect: Connect
) -> None:
    streams = await connect()
    assert await said(streams) == b"hello\n"
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await said(streams)
    assert await said(await connect()) == b"hello\n"


async def test_refused_until_healed(proxy: Proxy, connect: Connect) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await said(await connect())
    proxy.heal()
    assert await said(await connect()) == b"hello\n"


async def test_bytes_wait_for_the_delay(proxy: Proxy, connect: Connect) -> None:
    streams = await connect()
    proxy.delay_seconds = 0.1
    began = time.monotonic()
    assert await said(streams) == b"hello\n"
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_half_open_connection_stays_open_and_silent(
    proxy: Proxy, connect: Connect, direction: str
) -> None:
    streams = await connect()
    assert await said(streams) == b"hello\n"
    proxy.half_open(direction)
    assert await is_silent(streams)
    assert await said(await connect()) == b"hello\n"
    proxy.half_open(direction, new_ones=True)
    later = await connect()
    assert await is_silent(later)
    proxy.heal()
    assert await is_silent(later)
    assert await said(await connect()) == b"hello\n"
