"""PostgreSQL goes away, or the gateway is killed: what was promised stays, and all comes back."""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
import websockets

from tests.gateway.conftest import (
    ALICE,
    BOB,
    Process,
    Service,
    eventually,
    settings_for,
    token,
    transaction,
    until,
)
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database, Server

WRITE = "/api/realtime/write"
GET = "/api/realtime/getRecords"


@pytest.fixture
def own_pg() -> Iterator[Server]:
    """A server of this test alone, since it is stopped."""
    server = Server(None)
    yield server
    server._server.start()
    server.stop()


@pytest.fixture
def own_db(own_pg: Server) -> Iterator[Database]:
    with own_pg.database() as made:
        yield made
        own_pg._server.start()


@pytest_asyncio.fixture
async def restartable(own_db: Database) -> AsyncIterator[Service]:
    async with Service(settings_for(own_db.dsn("rowcast_gateway"))) as running:
        await running.ready()
        yield running


async def down(server: Server) -> None:
    await asyncio.to_thread(server._server.terminate, signal.SIGINT)


async def up(server: Server) -> None:
    await asyncio.to_thread(server._server.start)


async def test_an_outage_is_503_and_the_service_comes_back_by_itself(
    restartable: Service, own_pg: Server
) -> None:
    missed = str(uuid.uuid4())
    async with restartable.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await down(own_pg)
        answer = await restartable.post(WRITE, transaction(create(missed)))
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]
        assert answer.json()["code"] in ("unavailable", "retry")
        ready = await restartable.http.get("/readyz")
        assert (ready.status_code, ready.json()["database"]) == (503, False)
        assert (await restartable.http.get("/healthz")).status_code == 200

        await up(own_pg)

        async def written() -> bool:
            return (await restartable.post(WRITE, transaction(create(missed)))).status_code == 200

        await eventually(written)
        # The socket was never cut, and the relay went on from its cursor.
        assert (await bob.update(f"tasks:{missed}"))["version"] == 1

        async def is_ready() -> bool:
            return (await restartable.http.get("/readyz")).status_code == 200

        await eventually(is_ready)


async def test_after_a_crash_of_postgres_the_doorbell_wakes_the_relay(
    own_db: Database, own_pg: Server
) -> None:
    settings = settings_for(own_db.dsn("rowcast_gateway"), poll_seconds=60)
    async with Service(settings) as service, service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        relay = service.gateway.relay
        for _ in range(2):
            await until(lambda: relay._asleep)
            before = relay._bell._line
            # Without a checkpoint: what it starts with comes from the log alone.
            await asyncio.to_thread(own_pg._server.terminate, signal.SIGQUIT)
            await up(own_pg)
            await until(lambda: relay._bell._line not in (None, before))  # noqa: B023
            await until(lambda: relay._asleep)
            task = str(uuid.uuid4())
            with psycopg.connect(own_db.dsn()) as connection:
                connection.execute(
                    "insert into public.tasks (id, board_id, title, created_by)"
                    " values (%s, %s, 'x', %s)",
                    [task, KEY.partition("=")[2], ALICE],
                )
            assert (await bob.update(f"tasks:{task}"))["version"] == 1


async def test_a_gateway_starts_before_its_database(own_db: Database, own_pg: Server) -> None:
    await down(own_pg)
    async with Service(settings_for(own_db.dsn("rowcast_gateway"))) as service:
        assert (await service.http.get("/healthz")).status_code == 200
        assert (await service.http.get("/readyz")).status_code == 503
        await up(own_pg)
        await service.ready()
        answer = await service.post("/api/realtime/query", {"table": "boards"})
        assert answer.status_code == 200


async def writer(post: Any, stop: asyncio.Event, acknowledged: dict[str, str], user: str) -> None:
    """Writes until told to stop; what fails is sent again with the same transaction id."""
    while not stop.is_set():
        task = str(uuid.uuid4())
        body = transaction(create(task))

        async def sent(task: str = task, body: dict[str, Any] = body) -> bool:
            try:
                answer = await post(body, user)
            except httpx.TransportError:
                return False
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                acknowledged[task] = answer.json()["status"]
            return bool(answer.status_code == 200)

        await eventually(sent, 30)


def stored(database: Database) -> dict[str, int]:
    with psycopg.connect(database.dsn()) as connection:
        found = connection.execute("select id::text, version from public.tasks where title = 'new'")
        return dict(found.fetchall())


async def test_crashes_of_postgres_under_load_lose_and_double_nothing(
    restartable: Service, own_db: Database
) -> None:
    stop, acknowledged = asyncio.Event(), dict[str, str]()

    async def post(body: dict[str, Any], user: str) -> httpx.Response:
        return await restartable.post(WRITE, body, user)

    writers = [
        asyncio.create_task(writer(post, stop, acknowledged, user)) for user in (ALICE, BOB) * 4
    ]
    for _ in range(3):
        before = len(acknowledged)
        await eventually(_grown(acknowledged, before + 50), 30)
        with contextlib.suppress(psycopg.OperationalError):
            crash = own_db.connect()
            crash.execute("select 1")
            # A backend killed hard makes PostgreSQL restart itself with crash recovery.
            os.kill(crash.info.backend_pid, signal.SIGKILL)
    await eventually(_grown(acknowledged, len(acknowledged) + 50), 30)
    stop.set()
    await asyncio.gather(*writers)
    rows = stored(own_db)
    assert set(acknowledged) == set(rows)
    assert set(rows.values()) == {1}


def _grown(counted: dict[str, str], size: int) -> Any:
    async def check() -> bool:
        return len(counted) >= size

    return check


async def test_a_client_resumes_at_another_gateway_by_its_cursor(
    process: tuple[Process, str], db: Database
) -> None:
    gateway, address = process
    url = f"ws://{address}/api/realtime/socket"
    missed = str(uuid.uuid4())

    async def joined(cursor: str | None) -> tuple[websockets.ClientConnection, list[Any]]:
        socket = await websockets.connect(url)
        await socket.send(json.dumps({"type": "hello", "protocol": 1, "token": token()}))
        frame = {"type": "subscribe", "id": 1, "keys": [KEY]}
        await socket.send(json.dumps({**frame, "cursor": cursor} if cursor else frame))
        heard = [json.loads(await socket.recv())]
        while heard[-1]["type"] != "subscribed":
            heard.append(json.loads(await socket.recv()))
        return socket, heard

    async with asyncio.timeout(30):
        first, heard = await joined(None)
        cursor = heard[-1]["cursor"]
        await asyncio.to_thread(gateway.end, signal.SIGKILL)
        with pytest.raises(websockets.ConnectionClosed):
            await first.recv()
        db.connect().execute(
            "insert into public.tasks (id, board_id, title, created_by) values (%s, %s, 'x', %s)",
            [missed, KEY.partition("=")[2], ALICE],
        )
        gateway.start()
        second, heard = await joined(cursor)
        updates = [update for frame in heard for update in frame.get("updates", [])]
        assert [update["key"] for update in updates] == [f"tasks:{missed}"]
        await second.close()


async def test_sigterm_drains_and_ends(process: tuple[Process, str]) -> None:
    gateway, address = process
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=f"http://{address}") as http:

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready, 30)
        async with websockets.connect(f"ws://{address}/api/realtime/socket") as socket:
            await socket.send(json.dumps({"type": "hello", "protocol": 1, "token": token()}))
            assert json.loads(await socket.recv())["type"] == "welcome"
            ended = asyncio.create_task(asyncio.to_thread(gateway.end, signal.SIGTERM))
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1001
        assert await ended in (0, -signal.SIGTERM)
