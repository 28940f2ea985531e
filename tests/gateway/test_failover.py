"""A standby is promoted, PostgreSQL crashes, a client was away too long: nobody is left with a
silent "nothing missed".
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from tests.gateway.conftest import (
    ALICE,
    BOB,
    Service,
    Socket,
    eventually,
    settings_for,
    transaction,
)
from tests.gateway.test_kill import kill_all
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database, Server, Standby, second_version
from tests.sql.engine import wait_until

WRITE = "/api/realtime/write"
QUERY = "/api/realtime/query"
BOUND_SECONDS = 10.0


@pytest.fixture(params=["18", "15"])
def primary(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test alone, since it is killed."""
    second = second_version()
    if request.param == "15" and second is None:
        pytest.skip("no second version")
    if request.config.getoption("--pg") not in ("both", request.param):
        pytest.skip("not asked for")
    server = Server(second if request.param == "15" else None)
    yield server
    server.stop()


@pytest.fixture
def db(primary: Server) -> Iterator[Database]:
    """Not dropped at the end: its server may be gone."""
    with contextlib.suppress(psycopg.OperationalError), primary.database() as made:
        yield made


@pytest.fixture
def standby(db: Database) -> Iterator[Standby]:
    """It streams from the primary and has all there is."""
    made = Standby(db.server)

    def streaming() -> bool:
        found = conn.execute("select 1 from pg_stat_replication where state = 'streaming'")
        return found.fetchone() is not None

    try:
        with psycopg.connect(db.dsn(), autocommit=True) as conn:
            wait_until(streaming, "the standby streams")
        yield made
    finally:
        made.stop()


@pytest.fixture
def synchronous(db: Database, standby: Standby) -> None:
    """From now on a commit waits for the standby, where its session asks for it."""
    db.server.run("alter system set synchronous_standby_names = '*'")
    db.server.run("select pg_reload_conf()")
    with psycopg.connect(db.dsn(), autocommit=True) as conn:
        state = "select 1 from pg_stat_replication where sync_state = 'sync'"
        wait_until(lambda: conn.execute(state).fetchone(), "the standby is synchronous")


def either(db: Database, standby: Standby) -> str:
    """A URL with both servers, whichever takes writes."""
    folder = f"{db.server._server.base_dir}/tmp"
    return (
        f"host={folder},{standby.host} user=rowcast_gateway dbname={db.name}"
        " target_session_attrs=read-write options='-c synchronous_commit=on'"
    )


async def kill(server: Server) -> None:
    """All of a server at once, without a chance to tidy up."""
    await asyncio.to_thread(kill_all, server.pid)
    await asyncio.to_thread(server._server.terminate, signal.SIGKILL)


@dataclass
class Writers:
    """Several who send the same again until it is answered."""

    service: Service
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    acknowledged: dict[str, float] = field(default_factory=dict)

    async def write(self, user: str) -> None:
        while not self.stop.is_set():
            task = str(uuid.uuid4())
            body = transaction(create(task))

            async def sent(body: dict[str, Any] = body) -> bool:
                answer = await self.service.post(WRITE, body, user)
                assert answer.status_code in (200, 503), answer.text
                return answer.status_code == 200

            await eventually(sent, 30)
            self.acknowledged[task] = time.monotonic()

    async def more(self, count: int) -> None:
        enough = len(self.acknowledged) + count

        async def grown() -> bool:
            return len(self.acknowledged) >= enough

        await eventually(grown, 30)


def stored(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as conn:
        found = conn.execute("select id::text, version from public.tasks where title = 'new'")
        return dict(found.fetchall())


async def listed(service: Service, user: str = BOB) -> set[str]:
    """The ids of all tasks he can read."""
    body = {"table": "tasks", "limit": 1000}
    answer = await service.post(QUERY, body, user)
    assert answer.status_code == 200, answer.text
    return set(answer.json()["ids"])


async def stale(socket: Socket) -> dict[str, Any]:
    """The next `stale`, whatever comes before it."""
    return await socket.expect("stale")


async def told_of_another(socket: Socket, epoch: str) -> None:
    """A socket that comes before the gateway has looked at the promoted server hears it later."""
    now = socket.heard[0]["epoch"]
    while now == epoch:
        now = (await stale(socket)).get("epoch", epoch)


async def eventually_asleep(service: Service) -> None:
    async def asleep() -> bool:
        return service.gateway.relay._asleep

    await eventually(asleep)


@pytest.mark.usefixtures("synchronous")
async def test_promotion_under_load_loses_nothing_acknowledged_and_everybody_is_told(
    db: Database, standby: Standby
) -> None:
    async with Service(settings_for(either(db, standby))) as service:
        await service.ready()
        writers = Writers(service)
        async with asyncio.TaskGroup() as group, service.socket(BOB) as bob:
            before = (await bob.subscribe(KEY))["cursor"]
            epoch = bob.heard[0]["epoch"]
            for user in (ALICE, BOB) * 2:
                group.create_task(writers.write(user))
            try:
                await writers.more(30)
                await kill(db.server)
                await asyncio.to_thread(standby.promote)
                promoted = time.monotonic()
                # The socket was never cut; it is told to read again.
                assert KEY in (await stale(bob))["keys"]
                assert time.monotonic() - promoted < BOUND_SECONDS
                await writers.more(30)
                back = next(at for at in writers.acknowledged.values() if at > promoted)
                assert back - promoted < BOUND_SECONDS
            finally:
                writers.stop.set()
            await bob.expect("updates")
            async with service.socket(BOB) as late:
                await told_of_another(late, epoch)
                assert (await late.subscribe(KEY, cursor=before))["stale"] == [KEY]
        rows = stored(standby.dsn(db.name))
        assert rows.keys() >= writers.acknowledged.keys()
        assert set(rows.values()) == {1}
        assert await listed(service) >= writers.acknowledged.keys()
        # By the bell again, and not by looking.
        relay = service.gateway.relay
        async with service.socket(BOB) as socket:
            await socket.subscribe(KEY)
            await eventually_asleep(service)
            task = str(uuid.uuid4())
            await service.write(create(task))
            assert (await socket.update(f"tasks:{task}"))["version"] == 1
        assert relay.alive


async def test_what_a_promoted_standby_lacks_is_read_anew_and_written_again(
    db: Database, standby: Standby
) -> None:
    """Not synchronous: acknowledged writes are lost, and every cursor that has seen them lies."""
    kept, lost = str(uuid.uuid4()), transaction(create(str(uuid.uuid4())))
    lost_id = lost["operations"][0]["id"]
    async with Service(settings_for(either(db, standby))) as service, service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await service.write(create(kept))
        await bob.update(f"tasks:{kept}")

        async def replayed() -> bool:
            found = await asyncio.to_thread(stored, standby.dsn(db.name))
            return kept in found

        await eventually(replayed)
        await asyncio.to_thread(standby.run, "alter system set primary_conninfo = ''")
        await asyncio.to_thread(standby.run, "select pg_reload_conf()")

        async def cut() -> bool:
            query = "select count(*) from pg_stat_wal_receiver"
            return bool(await asyncio.to_thread(standby.run, query) == 0)

        await eventually(cut)
        assert (await service.post(WRITE, lost)).json()["status"] == "applied"
        title = {"type": "set", "table": "tasks", "id": kept, "key": "title", "value": "newer"}
        await service.write(title)
        assert (await bob.update(f"tasks:{kept}"))["version"] == 2
        ahead = (await bob.pong())["cursor"]

        await kill(db.server)
        await asyncio.to_thread(standby.promote)
        assert KEY in (await stale(bob))["keys"]
        have = {lost_id: 1, kept: 2}
        body = {"table": "tasks", "limit": 1000, "have": have}
        answer = (await service.post(QUERY, body, BOB)).json()
        assert [entry["id"] for entry in answer["gone"]] == [lost_id]
        assert answer["recordMap"]["tasks"][kept]["version"] == 1
        async with service.socket(BOB) as late:
            assert (await late.subscribe(KEY, cursor=ahead))["stale"] == [KEY]
        # The queue of whoever wrote it may still have it; its receipt went with it.
        assert (await service.post(WRITE, lost)).json()["status"] == "applied"
        assert (await bob.update(f"tasks:{lost_id}"))["version"] == 1


class Address:
    """An address that leads to one server after the other, as a load balancer's does."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Its port."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def move(self, folder: str) -> None:
        """From now on it leads to this server; who is connected is cut off."""
        self._folder = folder
        for writer in list(self._writers):
            writer.transport.abort()

    async def close(self) -> None:
        """Ends it and whoever is connected."""
        assert self._server is not None
        self._server.close()
        await self.move(self._folder)
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
        with contextlib.suppress(OSError):
            folder = self._folder
            path = f"{folder}/.s.PGSQL.5432"
            other_reader, other_writer = await asyncio.open_unix_connection(path)
            if folder != self._folder:  # moved meanwhile
                other_writer.transport.abort()
                writer.transport.abort()
                return
            pair = {writer, other_writer}
            self._writers |= pair

            async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                with contextlib.suppress(OSError):
                    while data := await source.read(65536):
                        target.write(data)
                        await target.drain()
                target.transport.abort()

            await asyncio.gather(carry(reader, other_writer), carry(other_reader, writer))
            self._writers -= pair
        writer.transport.abort()


@pytest_asyncio.fixture
async def address(db: Database) -> AsyncIterator[tuple[Address, str]]:
    """An address that leads to the primary, and the URL of the gateway."""
    made = Address(f"{db.server._server.base_dir}/tmp")
    port = await made.open()
    yield made, f"host=127.0.0.1 port={port} user=rowcast_gateway dbname={db.name}"
    await made.close()


async def test_address_that_moves_to_a_standby_before_it_is_promoted(
    standby: Standby, address: tuple[Address, str]
) -> None:
    place, url = address
    async with Service(settings_for(url)) as service, service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        epoch = bob.heard[0]["epoch"]
        # A machine that dies without a word cannot be had here; this is what notices it.
        async with service.gateway.database.feed.connection() as connection:
            with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
                timeout = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert 0 < timeout <= 5000
                idle = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                assert 0 < idle <= 5
        await place.move(standby.host)
        sent = transaction(create(str(uuid.uuid4())))

        async def arrived() -> bool:
            return not (await service.http.get("/readyz")).json()["schema"]

        await eventually(arrived)
        # It takes no writes yet. Nothing is refused for it: all of it may be sent again.
        for path, body in (
            (WRITE, sent),
            (WRITE, {"transactions": [sent]}),
            (QUERY, {"table": "boards"}),
        ):
            answer = await service.post(path, body)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), path
        assert (await service.http.get("/readyz")).status_code == 503
        await asyncio.to_thread(standby.promote)
        promoted = time.monotonic()
        assert KEY in (await stale(bob))["keys"]
        answers: list[httpx.Response] = []

        async def written() -> bool:
            answers.append(await service.post(WRITE, sent))
            return answers[-1].status_code == 200

        await eventually(written)
        assert time.monotonic() - promoted < BOUND_SECONDS
        assert answers[-1].json()["status"] == "applied"
        assert (await bob.update(f"tasks:{sent['operations'][0]['id']}"))["version"] == 1
        async with service.socket(BOB) as late:
            await told_of_another(late, epoch)


async def test_client_resumes_over_a_crash_of_postgres_and_another_gateway(db: Database) -> None:
    """The same history: what was committed while it was away comes, and nothing is read anew."""
    tasks = [str(uuid.uuid4()) for _ in range(3)]
    url = db.dsn("rowcast_gateway")
    async with Service(settings_for(url)) as service, service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        epoch = bob.heard[0]["epoch"]
        await service.write(create(tasks[0]))
        await bob.update(f"tasks:{tasks[0]}")
        cursor = (await bob.pong())["cursor"]
        await service.write(create(tasks[1]))
    await kill(db.server)
    await asyncio.to_thread(db.server._server.start)
    async with Service(settings_for(url)) as service, service.socket(BOB) as bob:
        assert bob.heard[0]["epoch"] == epoch
        subscribed = await bob.subscribe(KEY, cursor=cursor)
        assert "stale" not in subscribed
        missed = [update for frame in bob.heard for update in frame.get("updates", ())]
        assert [update["key"] for update in missed] == [f"tasks:{tasks[1]}"]
        await service.write(create(tasks[2]))
        assert (await bob.update(f"tasks:{tasks[2]}"))["version"] == 1
