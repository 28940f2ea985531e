"""The doorbell and the poll, many times over: no write after a rest is left lying."""

import asyncio
import contextlib
import itertools
import time
from typing import Any

import psycopg
import pytest

from tests.gateway.conftest import BOB, DEADLINE_SECONDS, Service, Socket, settings_for, until
from tests.postgres import Database

TASK = "00000000-0000-7000-8000-0000000c0001"
RECORD = f"tasks:{TASK}"
TOUCH = "update public.tasks set title = %s where id = %s returning version"
ROUNDS = 1000
NEVER_SECONDS = 60.0  # the longest poll there is: what it brings comes after the deadline

pytestmark = pytest.mark.both_versions


async def writer(db: Database) -> psycopg.AsyncConnection[Any]:
    """Plain SQL, beside the gateway."""
    return await psycopg.AsyncConnection.connect(db.dsn(), autocommit=True)


async def rested(service: Service, since: float) -> None:
    """Waits until the relay has read the feed to its end after `since`, and rests."""
    relay = service.gateway.relay
    await until(lambda: relay.idle_seconds < time.monotonic() - since)


async def write(connection: psycopg.AsyncConnection[Any], title: str) -> int:
    """Commits a change of the task; its version."""
    row = await (await connection.execute(TOUCH, (title, TASK))).fetchone()
    assert row is not None
    return int(row[0])


async def heard(socket: Socket, version: int) -> list[int]:
    """Waits for this version of the task; all that came until then."""
    versions: list[int] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while version not in versions:
            updates = (await socket.expect("updates"))["updates"]
            versions += [update["version"] for update in updates]
    return versions


async def bell_works(socket: Socket, connection: psycopg.AsyncConnection[Any]) -> None:
    """Writes until the listener is there and brings it at once."""
    for number in itertools.count():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await heard(socket, await write(connection, f"warm {number}"))
                return


async def test_a_thousand_writes_after_a_rest_are_each_brought_by_the_bell(
    gateway_dsn: str, db: Database
) -> None:
    async with Service(settings_for(gateway_dsn, poll_seconds=NEVER_SECONDS)) as service:
        await service.ready()
        async with await writer(db) as connection, service.socket(BOB) as bob:
            await bob.subscribe(RECORD)
            await bell_works(bob, connection)
            latest = 0.0
            for number in range(ROUNDS):
                began = time.monotonic()
                await heard(bob, await write(connection, f"round {number}"))
                latest = max(latest, time.monotonic() - began)
                await rested(service, began)
            # Not one had to wait for the time that polling takes by default.
            assert latest < 1, f"the latest came after {latest:.2f} s"


async def test_a_thousand_writes_arrive_by_polling_alone(gateway_dsn: str, db: Database) -> None:
    settings = settings_for(gateway_dsn, listen_url="host=/nowhere", poll_seconds=0.01)
    async with Service(settings) as service:
        await service.ready()
        async with await writer(db) as connection, service.socket(BOB) as bob:
            await bob.subscribe(RECORD)
            written = [await write(connection, f"round {number}") for number in range(ROUNDS)]
            assert await heard(bob, written[-1]) == written
