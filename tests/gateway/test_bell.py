"""The gateway's side of the doorbell: when writers ring, and lines that are lost without a word."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import asyncpg
import psycopg
import pytest
import pytest_asyncio

from app import calls
from app.bell import pause
from app.relay import BUSY, CALM, Pace
from tests.gateway.conftest import BOARD, BOB, Service, Socket, settings_for, until
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database

LATE = 60.0  # seconds between polls: whatever arrives was not found by polling


@pytest.fixture
def bits(run: Callable[..., Any]) -> Callable[[], int]:
    return lambda: int(run("select last_value from sync_internal.bell"))


@pytest_asyncio.fixture
async def silent(gateway_dsn: str) -> AsyncIterator[Service]:
    """A gateway that nothing but the doorbell wakes in time."""
    async with Service(settings_for(gateway_dsn, poll_seconds=LATE)) as running:
        await running.ready()
        yield running


async def asleep(service: Service) -> None:
    """Waits until the relay waits for a ring."""
    relay = service.gateway.relay
    await until(lambda: relay._asleep)


async def heard(socket: Socket, run: Callable[..., Any]) -> None:
    """A task made by plain SQL reaches the socket."""
    task = str(uuid.uuid4())
    run(
        "insert into public.tasks (id, board_id, title, created_by) values (%s, %s, 'x', %s)",
        task,
        BOARD,
        BOB,
    )
    assert (await socket.update(f"tasks:{task}"))["version"] == 1


# When writers ring


async def test_writers_ring_from_the_first_socket_on(
    silent: Service, bits: Callable[[], int], run: Callable[..., Any]
) -> None:
    assert bits() == 0
    async with silent.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await asleep(silent)
        assert bits() == 1
        for _ in range(3):
            await heard(bob, run)
            await asleep(silent)


async def test_writers_need_not_ring_when_the_last_socket_has_gone(
    service: Service, bits: Callable[[], int]
) -> None:
    async with service.socket(BOB):
        await asleep(service)
        assert bits() == 1
    await until(lambda: bits() == 0)


async def test_a_gateway_that_stops_takes_its_bit_along(
    gateway_dsn: str, bits: Callable[[], int]
) -> None:
    async with Service(settings_for(gateway_dsn, poll_seconds=LATE)) as service:
        await service.ready()
        async with service.socket(BOB):
            await asleep(service)
    assert bits() == 0


async def test_two_gateways_hear_the_same_writer(
    silent: Service, gateway_dsn: str, bits: Callable[[], int], run: Callable[..., Any]
) -> None:
    async with Service(settings_for(gateway_dsn, poll_seconds=LATE)) as other:
        await other.ready()
        async with silent.socket(BOB) as one, other.socket(BOB) as two:
            await one.subscribe(KEY)
            await two.subscribe(KEY)
            await asleep(silent)
            await asleep(other)
            assert bits() == 0b11
            task = str(uuid.uuid4())
            await silent.write(create(task))
            for socket in (one, two):
                assert (await socket.update(f"tasks:{task}"))["version"] == 1


async def test_under_load_nobody_rings_and_all_is_delivered(
    silent: Service, db: Database, bits: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is that runs this.
    monkeypatch.setattr("app.relay.BUSY", 20)
    monkeypatch.setattr("app.relay.CALM", 10)
    title, stop = "update public.tasks set title = %s where id = %s", asyncio.Event()
    task = "00000000-0000-7000-8000-0000000c0001"

    def write() -> int:
        count = 0
        with psycopg.connect(db.dsn(), autocommit=True) as conn:
            while not stop.is_set():
                count += 1
                conn.execute(title, (f"{count}", task))
        return count

    async with silent.socket(BOB) as bob:
        await bob.subscribe(f"tasks:{task}")
        await asleep(silent)
        writing = asyncio.create_task(asyncio.to_thread(write))
        await until(lambda: bits() == 0)
        stop.set()
        count = await writing
        # It is quiet again: the last one needs no ring, and afterwards they do.
        titles: list[str] = []
        while f"{count}" not in titles:
            updates = (await bob.expect("updates"))["updates"]
            titles += [update["patch"]["title"] for update in updates]
        assert titles == [f"{number}" for number in range(1, count + 1)]
        await until(lambda: bits() == 1)


async def test_a_cleared_bit_is_set_again(
    service: Service, bits: Callable[[], int], run: Callable[..., Any]
) -> None:
    async with service.socket(BOB):
        await asleep(service)
        run("select setval('sync_internal.bell', 0)")
        await until(lambda: bits() == 1)


async def test_a_writer_who_looked_too_early_is_heard(silent: Service, db: Database) -> None:
    task = str(uuid.uuid4())
    writer = db.connect(autocommit=False)
    writer.execute(
        "insert into public.tasks (id, board_id, title, created_by) values (%s, %s, 'x', %s)",
        [task, BOARD, BOB],
    )
    async with silent.socket(BOB) as bob:
        await bob.subscribe(KEY)
        relay = silent.gateway.relay
        await until(lambda: relay._fencing > 0.1)
        assert not relay._asleep
        writer.commit()
        assert (await bob.update(f"tasks:{task}"))["version"] == 1
        await asleep(silent)


async def test_where_no_bit_can_be_had_changes_arrive_all_the_same(
    gateway_dsn: str, run: Callable[..., Any]
) -> None:
    run("select pg_advisory_lock(7215605, n) from generate_series(0, 62) n")
    async with Service(settings_for(gateway_dsn)) as service, service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await heard(bob, run)


def test_pace_is_busy_from_many_commits_on_until_there_are_few() -> None:
    pace, now = Pace(), 0.0

    def after(rate: float) -> bool:
        nonlocal now
        for _ in range(400):
            now += 0.005
            pace.note(rate * 0.005, now)
        return pace.busy

    assert not after(BUSY * 0.8)
    assert after(BUSY * 1.2)
    assert after((BUSY + CALM) / 2)
    assert not after(CALM * 0.8)
    assert not after((BUSY + CALM) / 2)
    # A batch at once is many; a moment later it is forgotten.
    pace.note(100, now)
    assert pace.busy
    pace.note(0, now + 1)
    assert not pace.busy


# Lost lines


@pytest.mark.parametrize("which", ["rowcast-listen", "rowcast-bell"])
async def test_a_lost_line_is_opened_again_and_nothing_is_missed(
    silent: Service, run: Callable[..., Any], which: str
) -> None:
    ended = (
        "select count(*) from (select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = %s and datname = current_database()) t"
    )
    async with silent.socket(BOB) as bob:
        await bob.subscribe(KEY)
        for _ in range(2):
            await asleep(silent)
            line = silent.gateway.relay._bell._line
            assert run(ended, which) == 1
            # Whether it is committed before or after the line is open again.
            await heard(bob, run)
            await until(lambda line=line: silent.gateway.relay._bell._line not in (None, line))  # type: ignore[misc]
        await asleep(silent)
        await heard(bob, run)


class Proxy:
    """A way to PostgreSQL that can go quiet: connections stay open, and nothing comes through."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder = folder
        self._target = target
        self._frozen: set[asyncio.StreamWriter] = set()
        self._open: list[set[asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self._folder / ".s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in set().union(*self._open):
            writer.close()
        for task in self._tasks:
            task.cancel()

    def freeze(self, number: int) -> None:
        """From now on nothing passes on this connection, counted from 0."""
        self._frozen |= self._open[number]

    async def _serve(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_unix_connection(self._target)
        self._open.append({to_near, to_far})
        for source, sink in ((near, to_far), (far, to_near)):
            task = asyncio.create_task(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await source.read(65536):
                if sink not in self._frozen:
                    sink.write(block)
            if sink not in self._frozen:
                sink.close()


@pytest.fixture
def proxy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("p")


@pytest.mark.parametrize("which", [0, 1], ids=["rowcast-listen", "rowcast-bell"])
async def test_a_half_open_line_is_noticed_within_five_seconds(
    gateway_dsn: str, proxy_folder: Path, run: Callable[..., Any], which: int
) -> None:
    folder = psycopg.conninfo.conninfo_to_dict(gateway_dsn)["host"]
    listen_url = gateway_dsn.replace(str(folder), str(proxy_folder))
    async with Proxy(proxy_folder, f"{folder}/.s.PGSQL.5432") as proxy:
        settings = settings_for(gateway_dsn, listen_url=listen_url, poll_seconds=LATE)
        async with Service(settings) as service:
            await service.ready()
            async with service.socket(BOB) as bob:
                await bob.subscribe(KEY)
                await asleep(service)
                line, began = service.gateway.relay._bell._line, time.monotonic()
                proxy.freeze(which)
                await heard(bob, run)
                await until(lambda: service.gateway.relay._bell._line not in (None, line))
                assert time.monotonic() - began < 5
                await asleep(service)
                await heard(bob, run)


@pytest.mark.parametrize("statement", ["ring", "fence", "check"])
@pytest.mark.parametrize("fault", [asyncpg.InternalClientError("no result"), IndexError("cut")])
async def test_a_line_that_ends_with_whatever_error_is_opened_again(
    silent: Service,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    fault: Exception,
) -> None:
    """A server that is killed may leave half an answer, which asyncpg takes for its own fault."""
    real, faults = getattr(calls, statement), [fault]

    async def garbled(*given: Any) -> Any:
        if faults:
            raise faults.pop()
        return await real(*given)

    async with silent.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await asleep(silent)
        monkeypatch.setattr(calls, statement, garbled)
        line = silent.gateway.relay._bell._line
        assert line is not None
        line.fence = None  # it has to ring again
        run("update public.tasks set title = 'heard' where board_id = %s", BOARD)
        silent.gateway.relay.wake()
        await until(lambda: not faults)
        await until(lambda: silent.gateway.relay._bell._line not in (None, line))
        await asleep(silent)
        await heard(bob, run)


def test_reconnects_are_spread_and_bounded() -> None:
    for tries in (0, 1, 2, 3, 10, 1000):
        waits = [pause(tries) for _ in range(200)]
        assert len(set(waits)) > 100
        assert 0.02 < min(waits) <= max(waits) <= 2
    assert max(pause(0) for _ in range(200)) < max(pause(3) for _ in range(200)) / 2
