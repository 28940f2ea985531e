"""NDJSON streams: a reader who is slow, stops or leaves holds nothing for long."""

import asyncio
import contextlib
import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from app import db, streams
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    Service,
    eventually,
    settings_for,
    token,
    until,
)

QUERY = "/api/realtime/query"
BODY = json.dumps({"table": "tasks", "where": {"boardId": BOARD}})
SLOTS = 4  # of a pool of eight, and half of them for one user


@pytest.fixture
def large(run: Callable[..., Any]) -> None:
    """Far more than what the buffers of a connection take."""
    run(
        "insert into public.tasks (id, board_id, title, created_by, description)"
        " select gen_random_uuid(), %s, 'task ' || n, %s, repeat('x', 2000)"
        " from generate_series(1, 8000) n",
        BOARD,
        ALICE,
    )


@pytest_asyncio.fixture
async def patient(gateway_dsn: str, large: None) -> AsyncIterator[Service]:
    """A gateway whose kernel does not cut who stops reading: only the gateway itself does."""
    async with Service(settings_for(gateway_dsn)) as running:
        running.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        await running.ready()
        yield running


class Reader:
    """A stream over a bare connection, read only when told to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.read = 0

    async def take(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            part = await loop.sock_recv(self._connection, size)
        self.read += len(part)
        return part

    async def cut(self) -> bool:
        """Whether the rest ends before the last chunk that HTTP/1.1 ends an answer with."""
        last = b""
        with contextlib.suppress(ConnectionResetError):
            while part := await self.take(1 << 20):
                last = (last + part)[-5:]
        return last != b"0\r\n\r\n"


@contextlib.asynccontextmanager
async def stream(service: Service, user: str = ALICE) -> AsyncIterator[Reader]:
    """Asks for a stream and reads the beginning of the answer."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.setblocking(False)
        await loop.sock_connect(connection, service.listener.getsockname()[:2])
        request = (
            f"POST {QUERY} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"authorization: Bearer {token(user)}\r\n"
            f"accept: application/x-ndjson\r\ncontent-length: {len(BODY)}\r\n\r\n{BODY}"
        )
        await loop.sock_sendall(connection, request.encode())
        reader = Reader(connection)
        assert b" 200 " in await reader.take(512)
        yield reader


def held(run: Callable[..., Any]) -> int:
    """Connections of the gateway in an open transaction."""
    found: int = run(
        "select count(*) from pg_stat_activity where application_name = 'rowcast-work'"
        " and xact_start is not null and datname = %s",
        run("select current_database()"),
    )
    return found


async def ask(service: Service, user: str = ALICE) -> Any:
    return await service.post(QUERY, BODY, user, accept="application/x-ndjson")


async def test_a_reader_who_stops_is_cut_and_holds_no_connection(
    patient: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STREAM_PART_SECONDS", 1)
    async with stream(patient) as stopped:
        await until(lambda: held(run) == 1)
        await until(lambda: held(run) == 0)
        assert await stopped.cut()
    assert len((await ask(patient)).text.splitlines()) > 8000


async def test_a_slow_reader_who_keeps_to_the_time_gets_everything(
    patient: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STREAM_PART_SECONDS", 5)
    async with stream(patient) as slow:
        await until(lambda: held(run) == 1)
        assert not await slow.cut()
        assert slow.read > 16_000_000


async def test_streams_of_one_user_are_bounded_and_others_get_theirs(
    patient: Service, run: Callable[..., Any]
) -> None:
    async with contextlib.AsyncExitStack() as open_streams:
        for _ in range(SLOTS // 2):
            await open_streams.enter_async_context(stream(patient))
        answer = await ask(patient)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert answer.headers["retry-after"] == "1"
        # Another token is not another user, and pages are no streams.
        again = await patient.post(
            QUERY,
            BODY,
            None,
            accept="application/x-ndjson",
            authorization=f"Bearer {token(ALICE, jti=str(uuid.uuid4()))}",
        )
        assert again.status_code == 429
        assert (await patient.post(QUERY, BODY)).status_code == 200
        assert (await ask(patient, BOB)).status_code == 200
    await until(lambda: held(run) == 0)
    assert (await ask(patient)).status_code == 200


async def test_streams_of_all_are_bounded(
    patient: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "CHECKOUT_SECONDS", 0.2)
    users = [ALICE, BOB, str(uuid.uuid4())]
    run(
        "create policy third on public.tasks for select to authenticated"
        f" using ((select auth.uid()) = '{users[2]}')"
    )
    async with contextlib.AsyncExitStack() as open_streams:
        for user in (ALICE, ALICE, BOB, BOB):
            await open_streams.enter_async_context(stream(patient, user))
        answer = await ask(patient, users[2])
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"

    async def free() -> bool:
        return bool((await ask(patient, users[2])).status_code == 200)

    await eventually(free)
