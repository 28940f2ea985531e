"""Clients made for another version of the application's schema."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from app import gateway, protocol
from tests.gateway.conftest import Service, token, transaction, until
from tests.gateway.test_socket import KEY

pytestmark = pytest.mark.both_versions

WRITE = "/api/realtime/write"
GET = "/api/realtime/getRecords"
QUERY = "/api/realtime/query"
TASK = "00000000-0000-7000-8000-0000000c0001"
READS = [
    (GET, {"pointers": [{"table": "tasks", "id": TASK}]}),
    (QUERY, {"table": "tasks"}),
]


def titled(title: str) -> dict[str, Any]:
    return transaction(
        {"type": "set", "table": "tasks", "id": TASK, "key": "title", "value": title}
    )


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (None, None),
        ("7", 7),
        (7, 7),
        ("9" * 18, 10**18 - 1),
        *((said, 0) for said in ("", "0", "1.2", "-1", -1, "²", "1_0", " 7", "9" * 19, "x" * 9000)),
    ],
)
def test_what_is_no_number_is_older_than_any(said: str | int | None, number: int | None) -> None:
    assert protocol.schema_number(said) == number


async def test_a_client_too_old_is_426_and_nothing_of_it_is_stored(
    service: Service, run: Callable[..., Any]
) -> None:
    run("select sync.set_schema(7, p_oldest => 5)")
    refused = titled("from an old client")
    # What a client of today could not mean is not looked at either: a refusal would be stored.
    unlike = transaction({"type": "of old"})
    for sent in (refused, {"transactions": [refused]}, unlike, "no json"):
        answer = await service.post(WRITE, sent, Rowcast_Schema="4")
        assert answer.headers["content-type"] == "application/problem+json"
        assert (answer.status_code, answer.json()["code"]) == (426, "upgrade")
    for path, body in READS:
        for more in ({}, {"accept": "application/x-ndjson"}):
            answer = await service.post(path, body, Rowcast_Schema="4", **more)
            assert (answer.status_code, answer.json()["code"]) == (426, "upgrade")
    assert run("select title from public.tasks where id = %s", TASK) != "from an old client"
    assert run("select count(*) from sync_internal.receipts") == 0
    # Once it is updated, its queue goes through as it is.
    answer = await service.post(WRITE, refused, Rowcast_Schema="5")
    assert answer.json()["status"] == "applied"


async def test_who_is_new_enough_or_does_not_say_is_served(
    service: Service, run: Callable[..., Any]
) -> None:
    run("select sync.set_schema(7, p_oldest => 5)")
    for said in ({"Rowcast_Schema": "5"}, {"Rowcast_Schema": "900"}, {}):
        assert (await service.post(WRITE, titled("x"), **said)).status_code == 200
        for path, body in READS:
            assert (await service.post(path, body, **said)).status_code == 200


async def test_a_version_that_only_adds_locks_nobody_out(
    service: Service, run: Callable[..., Any]
) -> None:
    run("select sync.set_schema(7, p_oldest => 5)")
    run("select sync.set_schema(8)")
    assert run("select (sync.describe() ->> 'schema')::bigint") == 8
    assert (await service.post(WRITE, titled("x"), Rowcast_Schema="5")).status_code == 200
    assert (await service.post(WRITE, titled("x"), Rowcast_Schema="4")).status_code == 426


async def test_one_client_too_old_does_not_hold_up_the_batch(
    service: Service, run: Callable[..., Any]
) -> None:
    run("select sync.set_schema(2, p_oldest => 2)")
    answers = await asyncio.gather(
        *(service.post(WRITE, titled("x"), Rowcast_Schema=str(n % 3)) for n in range(30)),
        *(service.post(WRITE, titled("x")) for _ in range(10)),
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses == [426, 426, 200] * 10 + [200] * 10


async def test_a_socket_too_old_closes_4426_at_hello_and_when_the_minimum_rises(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "SWEEP_SECONDS", 0.05)

    async def hello(socket: Any, **more: Any) -> None:
        await socket.send({"type": "hello", "protocol": 1, "token": token(), **more})

    async with service.connect() as old, service.connect() as new, service.connect() as silent:
        await hello(old, schema="1")
        await hello(new, schema=2)
        await hello(silent)
        for socket in (old, new, silent):
            assert (await socket.expect("welcome"))["schema"] == 1
            await socket.subscribe(KEY)
        run("select sync.set_schema(2, p_oldest => 2)")
        assert await old.closed() == 4426
        for socket in (new, silent):
            await socket.pong()
    for said in (1, "1", "old"):
        async with service.connect() as late:
            await hello(late, schema=said)
            assert await late.closed() == 4426
    async with service.connect() as fresh:
        await hello(fresh, schema=2)
        assert (await fresh.expect("welcome"))["schema"] == 2


async def test_a_gateway_that_has_not_heard_yet_refuses_all_the_same(
    service: Service, run: Callable[..., Any]
) -> None:
    await until(lambda: service.gateway.relay.oldest_schema == 1)
    await service.gateway.relay.stop()
    run("select sync.set_schema(3, p_oldest => 3)")
    answer = await service.post(WRITE, json.dumps(titled("x")), Rowcast_Schema="2")
    assert answer.status_code == 426
    assert service.gateway.relay.oldest_schema == 1
