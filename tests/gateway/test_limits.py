"""What one user or one address may ask for, and what happens beyond it."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg_pool import PoolTimeout
from pydantic import ValidationError

from app import db as db_module
from app import limits
from app.config import Settings
from app.limits import Bucket, Buckets, Places, address_of
from tests.gateway.conftest import (
    ALICE,
    BOB,
    Service,
    Socket,
    eventually,
    settings_for,
    token,
    transaction,
    until,
)
from tests.postgres import Database

WAIT = re.compile(r"; retry-after=(\d+\.\d)$")
BODY = {"table": "boards"}


def served(dsn: str, **given: Any) -> Service:
    return Service(settings_for(dsn, **given))


async def asked(service: Service, user: str = ALICE, **headers: str) -> httpx.Response:
    return await service.post("/api/realtime/query", BODY, user, **headers)


async def ended(socket: Socket) -> tuple[int, float]:
    """The close code, and the seconds to wait."""
    code = await socket.closed()
    found = WAIT.search(socket.connection.close_reason or "")
    assert found is not None
    return code, float(found.group(1))


# --- counting ------------------------------------------------------------------------------------


def test_a_bucket_gives_its_rate_and_keeps_its_burst() -> None:
    bucket = Bucket(rate=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(0.25) == 0.25
    assert [bucket.take(1), bucket.take(1)] == [0, 0]
    assert bucket.take(1) == 0.5
    assert [bucket.take(100) for _ in range(4)] == [0, 0, 0, 0.5]


def test_buckets_are_of_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    buckets = Buckets(0.1)
    assert buckets.take("busy", 0) == 0
    for name in "abcdefg":
        assert buckets.take(name, 0) == 0
        assert buckets.take("busy", 0) > 0
    assert len(buckets) == 3


def test_without_a_limit_nothing_is_kept() -> None:
    buckets = Buckets(0)
    assert [buckets.take("a", 0) for _ in range(100)] == [0] * 100
    assert len(buckets) == 0


def test_places_are_given_back_and_forgotten() -> None:
    places = Places(2)
    assert [places.enter("a"), places.enter("a"), places.enter("a"), places.enter("b")] == [
        True,
        True,
        False,
        True,
    ]
    places.leave("a")
    assert places.enter("a")
    for name in "aab":
        places.leave(name)
    assert len(places) == 0


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_addresses_of_one_customer_count_together(host: str | None, address: str) -> None:
    assert address_of(host) == address


# --- over HTTP -----------------------------------------------------------------------------------


async def test_a_user_who_asks_too_often_is_told_when_to_come_again(
    gateway_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BURST_SECONDS", 1)
    async with served(gateway_dsn, user_requests_per_second=0.5) as service:
        assert (await asked(service)).status_code == 200
        refused = await asked(service)
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        problem = refused.json()
        assert problem["code"] == "rate_limited"
        assert refused.headers["retry-after"] == str(problem["retryAfter"])
        assert 1 <= problem["retryAfter"] <= 2
        # Another user is not concerned, and writing counts like reading.
        assert (await asked(service, BOB)).status_code == 200
        write = await service.post("/api/realtime/write", {"transactions": []})
        assert write.status_code == 429

        async def served_again() -> bool:
            return (await asked(service)).status_code == 200

        await eventually(served_again)


async def test_an_address_that_asks_too_often_is_refused_whoever_signs_in(
    gateway_dsn: str,
) -> None:
    async with served(gateway_dsn, address_requests_per_second=0.2) as service:
        assert (await asked(service)).status_code == 200
        assert (await asked(service, BOB)).status_code == 429
        sign_in = await service.post("/api/auth/dev-sign-in", {"user": "alice"}, None)
        assert sign_in.status_code == 429
        # Health checks and pages are no requests of anybody.
        assert (await service.http.get("/healthz")).status_code == 200
        assert (await service.http.get("/metrics")).status_code == 200


async def test_forwarded_addresses_count_only_from_trusted_proxies(gateway_dsn: str) -> None:
    one = {"x_forwarded_for": "192.0.2.1"}
    two = {"x_forwarded_for": "198.51.100.9, 192.0.2.2"}
    forged = {"x_forwarded_for": "192.0.2.77, 192.0.2.2"}
    async with served(
        gateway_dsn, address_requests_per_second=0.2, trusted_proxies="127.0.0.0/8"
    ) as service:
        assert (await asked(service, **one)).status_code == 200
        assert (await asked(service, **two)).status_code == 200
        # What the proxy itself has seen counts, not what it was told.
        assert (await asked(service, **forged)).status_code == 429
    async with served(gateway_dsn, address_requests_per_second=0.2) as service:
        assert (await asked(service, **one)).status_code == 200
        assert (await asked(service, **two)).status_code == 429


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="does not appear to be"):
        Settings(trusted_proxies=("everybody",))


# --- reads of one user and others ---------------------------------------------------------------


@pytest.fixture
def locked(db: Database) -> Iterator[psycopg.Connection[Any]]:
    """While its transaction is open, reads of notes wait."""
    with psycopg.connect(db.dsn()) as conn:
        conn.execute("lock table public.notes in access exclusive mode")
        yield conn


async def test_reads_of_one_user_hold_up_himself_alone(
    service: Service, locked: psycopg.Connection[Any]
) -> None:
    async with asyncio.TaskGroup() as tasks:
        slow = [
            tasks.create_task(service.post("/api/realtime/query", {"table": "notes"}))
            for _ in range(service.gateway.settings.pool_size * 2)
        ]
        reads = service.gateway.database.reads
        await until(lambda: reads._of[f"user {ALICE}"] == len(slow))
        assert (await asked(service, BOB)).status_code == 200
        assert (await service.post("/api/realtime/write", transaction(), BOB)).status_code == 400
        assert not any(task.done() for task in slow)
        locked.rollback()
    assert {task.result().status_code for task in slow} == {200}
    assert not reads._of
    assert not reads._own


async def test_a_read_that_waits_too_long_for_its_readers_others_is_429(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_module, "CHECKOUT_SECONDS", 0.05)
    reads = service.gateway.database.reads
    async with reads.turn(f"user {ALICE}"), reads.turn(f"user {ALICE}"):
        refused = await asked(service)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        assert (await asked(service, BOB)).status_code == 200
        monkeypatch.setattr(db_module, "MAX_READS_OF_ONE", 2)
        monkeypatch.setattr(db_module, "CHECKOUT_SECONDS", 60)
        assert (await asked(service)).status_code == 429
    assert (await asked(service)).status_code == 200


async def test_connections_all_in_use_are_no_outage(
    gateway_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db_module, "CHECKOUT_SECONDS", 1)
    lane = db_module.Lane(gateway_dsn, "test", 1)
    await lane.open()
    try:
        async with lane.connection():
            with pytest.raises(PoolTimeout):
                await lane.value("select 1", ())
        assert await lane.value("select 1", ()) == 1
    finally:
        await lane.close()


# --- over the socket -----------------------------------------------------------------------------


async def test_a_user_has_so_many_sockets(gateway_dsn: str) -> None:
    async with served(gateway_dsn, user_sockets=2) as service:
        async with (
            service.socket(ALICE),
            service.socket(BOB),
            service.socket(ALICE),
            service.connect() as third,
        ):
            await third.send({"type": "hello", "protocol": 1, "token": token(ALICE)})
            assert await ended(third) == (4429, 30.0)
            assert third.heard == []
        await until(lambda: not len(service.gateway.limits.user_sockets))
        async with service.socket(ALICE):
            pass


async def test_an_address_has_so_many_sockets_even_silent_ones(gateway_dsn: str) -> None:
    async with served(gateway_dsn, address_sockets=2) as service:
        async with service.connect(), service.socket(ALICE), service.connect() as third:
            assert await ended(third) == (4429, 30.0)
        await until(lambda: not len(service.gateway.limits.address_sockets))
        async with service.socket(ALICE):
            pass


async def test_too_many_subscriptions_close_the_socket(gateway_dsn: str) -> None:
    async with (
        served(gateway_dsn, user_subscriptions_per_second=1) as service,
        service.socket(ALICE) as socket,
        service.socket(ALICE) as other,
    ):
        for number in range(5):
            await (socket, other)[number % 2].subscribe("boards")
        await socket.send({"type": "subscribe", "id": 9, "keys": ["boards"]})
        code, seconds = await ended(socket)
        assert code == 4429
        assert 0 < seconds <= 1
        async with service.socket(BOB) as bob:
            await bob.subscribe("boards")


# --- storms --------------------------------------------------------------------------------------


async def test_only_so_many_sockets_are_greeted_at_once(gateway_dsn: str) -> None:
    async with served(gateway_dsn, greetings=1) as service, asyncio.TaskGroup() as tasks:
        gateway = service.gateway
        verify, gate = gateway.verifier.verify, asyncio.Event()

        async def slow(presented: str) -> Any:
            await gate.wait()
            return await verify(presented)

        gateway.verifier.verify = slow  # type: ignore[method-assign, assignment]
        tasks.create_task(welcomed(service))
        await until(lambda: gateway.greeting.locked() and len(gateway.outlets) == 1)
        for _ in range(2):
            tasks.create_task(welcomed(service))
        # They are not even accepted.
        await until(lambda: len(gateway.greeting._waiters or ()) == 2)
        assert len(gateway.outlets) == 1
        gate.set()


async def welcomed(service: Service) -> None:
    async with service.socket(ALICE):
        pass


async def test_silent_sockets_hold_up_no_greeting(gateway_dsn: str) -> None:
    async with (
        served(gateway_dsn, greetings=1) as service,
        service.connect(),
        service.connect(),
        service.socket(ALICE),
    ):
        assert len(service.gateway.outlets) == 3


async def test_subscriptions_leave_connections_for_everybody_else(gateway_dsn: str) -> None:
    async with (
        served(gateway_dsn, pool_size=2) as service,
        service.socket(ALICE) as one,
        service.socket(BOB) as two,
    ):
        joins = service.gateway.database.joins
        async with joins:
            for socket in (one, two):
                await socket.send({"type": "subscribe", "id": 1, "keys": ["boards"]})
            await until(lambda: len(joins._waiters or ()) == 2)
            assert (await asked(service)).status_code == 200
        for socket in (one, two):
            await socket.expect("subscribed")


async def test_sockets_sent_away_are_told_to_come_back_one_after_the_other(
    gateway_dsn: str,
) -> None:
    async with served(gateway_dsn) as service, contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(service.socket(ALICE)) for _ in range(12)]
        await service.stop()
        ends = [await ended(socket) for socket in sockets]
    assert {code for code, _ in ends} == {1001}
    waits = [seconds for _, seconds in ends]
    assert 0 <= min(waits) < max(waits) <= 1.1
    assert len(set(waits)) > 3
