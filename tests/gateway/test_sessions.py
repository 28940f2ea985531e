"""Sessions that were ended: every door refuses their tokens, and their sockets are closed."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from app import calls
from app.db import Lane
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    Service,
    settings_for,
    token,
    transaction,
)
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database

pytestmark = pytest.mark.both_versions

BOUND_SECONDS = 5.0
SIGN_IN = 4401
Run = Callable[..., Any]


def since(seconds: float) -> dict[str, Any]:
    """The claim of a token issued so long ago."""
    return {"iat": time.time() - seconds}


async def status(service: Service, path: str, body: Any, **claims: Any) -> int:
    """What a request with such a token of Alice's is answered with."""
    bearer = f"Bearer {token(ALICE, **claims)}"
    answer = await service.post(path, body, authorization=bearer)
    if answer.status_code == 401:
        assert answer.json()["code"] == "unauthorized"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code


async def doors(service: Service, **claims: Any) -> set[int]:
    """What each door for requests answers."""
    stream = await service.http.post(
        "/api/realtime/query",
        json={"table": "boards"},
        headers={
            "authorization": f"Bearer {token(ALICE, **claims)}",
            "accept": "application/x-ndjson",
        },
    )
    return {
        await status(service, "/api/realtime/query", {"table": "boards"}, **claims),
        await status(
            service,
            "/api/realtime/getRecords",
            {"pointers": [{"table": "boards", "id": BOARD}]},
            **claims,
        ),
        await status(
            service, "/api/realtime/write", transaction(create(str(uuid.uuid4()))), **claims
        ),
        stream.status_code,
    }


async def refused(service: Service, **claims: Any) -> bool:
    """Whether a socket with such a token is not welcomed."""
    async with service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": token(ALICE, **claims)})
        await socket.connection.wait_closed()
        return socket.connection.close_code == SIGN_IN and not socket.heard


@pytest.mark.parametrize("ending", ["end_sessions", "disable_user"])
async def test_ended_session_is_refused_everywhere_and_its_sockets_are_closed(
    service: Service, run: Run, ending: str
) -> None:
    old = since(60)
    assert await doors(service, **old) == {200}
    async with (
        service.socket(ALICE, **old) as one,
        service.socket(ALICE, **old) as other,
        service.socket(BOB) as bob,
    ):
        await one.subscribe(KEY)
        await bob.subscribe(KEY)
        began = time.monotonic()
        run(f"select sync.{ending}(%s)", ALICE)
        # Not a moment in which a door lets him in, whatever the relay has heard.
        assert await doors(service, **old) == {401}
        assert await one.closed() == SIGN_IN
        assert await other.closed() == SIGN_IN
        assert time.monotonic() - began < BOUND_SECONDS
        assert await refused(service, **old)
        await service.write(create(str(uuid.uuid4())), user=BOB)
        assert (await bob.expect("updates"))["updates"]
    assert not [r for r in service.gateway.hub.readers.values() if r.user_id == ALICE]


async def test_doors_refuse_before_the_relay_has_read(service: Service, run: Run) -> None:
    await service.gateway.relay.stop()
    run("select sync.end_sessions(%s)", ALICE)
    old = since(60)
    assert await doors(service, **old) == {401}
    assert await refused(service, **old)


async def test_who_signs_in_again_is_served_and_keeps_his_socket(
    service: Service, run: Run
) -> None:
    run("select sync.end_sessions(%s)", ALICE)
    new = {"iat": time.time() + 1}
    async with service.socket(ALICE, **since(-1)) as socket:
        await socket.subscribe(KEY)
        assert await doors(service, **new) == {200}
        async with service.socket(ALICE, **since(-2)) as other:
            # What ended before it was read cannot end what came after.
            await service.caught_up()
            assert (await socket.pong())["cursor"]
            assert (await other.pong())["cursor"]


@pytest.mark.parametrize("iat", [None, "now", True, 4102444800], ids=str)
async def test_token_that_does_not_say_when_it_was_issued_counts_as_old(
    service: Service, run: Run, iat: Any
) -> None:
    run("select sync.end_sessions(%s)", ALICE)
    assert await doors(service, iat=iat) == {401}
    assert await refused(service, iat=iat)


async def test_disabled_user_is_served_again_once_enabled(service: Service, run: Run) -> None:
    run("select sync.disable_user(%s)", ALICE)
    assert await doors(service, iat=time.time() + 5) == {401}
    assert await refused(service, iat=time.time() + 5)
    run("select sync.enable_user(%s)", ALICE)
    assert await doors(service, **since(60)) == {401}
    assert await doors(service, iat=time.time() + 5) == {200}


async def test_renewing_with_an_ended_token_closes_the_socket(service: Service, run: Run) -> None:
    async with service.socket(ALICE, iat=time.time() + 5) as socket:
        run("select sync.end_sessions(%s)", ALICE)
        await service.caught_up()
        await socket.send({"type": "auth", "token": token(ALICE, **since(60))})
        assert await socket.closed() == SIGN_IN
        assert "authed" not in {frame["type"] for frame in socket.heard}


async def test_ended_session_among_many_writes_refuses_that_one_alone(
    service: Service, run: Run
) -> None:
    run("select sync.end_sessions(%s)", ALICE)
    old = f"Bearer {token(ALICE, **since(60))}"
    ids = [str(uuid.uuid4()) for _ in range(12)]

    async def write(number: int) -> int:
        body = transaction(create(ids[number]))
        named = {"authorization": old} if number % 2 else {}
        user = BOB
        return (await service.post("/api/realtime/write", body, user, **named)).status_code

    assert await asyncio.gather(*map(write, range(12))) == [200, 401] * 6
    count = "select count(*) from public.tasks where id = any (%s::uuid[])"
    assert run(count, ids) == 6
    assert run("select count(*) from sync_internal.receipts") == 6


async def test_reader_whose_session_has_ended_does_not_cost_others_their_answer(
    service: Service, run: Run
) -> None:
    """He may still be there when a change is read together with the news of his end."""
    async with service.socket(ALICE, **since(60)) as alice, service.socket(BOB) as bob:
        await alice.subscribe(KEY)
        await bob.subscribe(KEY)
        task = str(uuid.uuid4())
        run(
            f"""
            do $$ begin
                perform sync.end_sessions('{ALICE}');
                insert into public.tasks (id, board_id, title, created_by)
                values ('{task}', '{BOARD}', 'x', '{BOB}');
            end $$
            """
        )
        assert (await bob.update(f"tasks:{task}"))["version"] == 1
        assert await alice.closed() == SIGN_IN
        assert f"tasks:{task}" not in str(alice.heard)


async def test_sockets_are_closed_by_every_gateway_and_without_the_doorbell(
    gateway_dsn: str, run: Run
) -> None:
    deaf = settings_for(gateway_dsn, listen_url="host=/nowhere dbname=none")
    async with Service(settings_for(gateway_dsn)) as one, Service(deaf) as two:
        await one.ready()
        await two.ready()
        async with one.socket(ALICE) as first, two.socket(ALICE) as second:
            began = time.monotonic()
            run("select sync.disable_user(%s)", ALICE)
            assert {await first.closed(), await second.closed()} == {SIGN_IN}
            assert time.monotonic() - began < BOUND_SECONDS


@pytest.mark.parametrize("how", ["too much", "another history"])
async def test_sockets_are_closed_also_where_the_feed_does_not_tell(
    service: Service, run: Run, how: str
) -> None:
    async with service.socket(ALICE, **since(60)) as alice, service.socket(BOB) as bob:
        await alice.subscribe(KEY)
        if how == "too much":
            run("select sync.configure('max_changes_read', 3)")
            run(
                f"""
                do $$ begin
                    perform sync.end_sessions('{ALICE}');
                    for i in 1 .. 5 loop
                        update public.tasks set title = title || i where board_id = '{BOARD}';
                    end loop;
                end $$
                """
            )
        else:
            run(f"do $$ begin perform sync.end_sessions('{ALICE}'), sync.new_epoch(); end $$")
        assert await alice.closed() == SIGN_IN
        assert (await bob.pong())["cursor"]


async def test_user_ends_his_own_sessions(service: Service, db: Database) -> None:
    async with service.socket(ALICE, **since(60)) as socket, service.socket(BOB) as bob:
        with psycopg.connect(db.dsn()) as conn:
            conn.execute("select sync.act_as(%s)", [ALICE])
            conn.execute("select sync.sign_out()")
        assert await socket.closed() == SIGN_IN
        assert await doors(service, **since(60)) == {401}
        assert (await bob.pong())["cursor"]


@pytest.mark.parametrize("frame", ["hello", "auth"])
async def test_session_that_ends_right_after_it_was_asked_for_is_closed(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    """PostgreSQL answered that it counts, and before that arrives the relay has read its end."""
    ask = calls.sessions

    async def late(lane: Lane, claims: list[str]) -> list[bool]:
        monkeypatch.setattr(calls, "sessions", ask)
        answer = await ask(lane, claims)
        assert answer == [True]
        await asyncio.to_thread(run, "select sync.end_sessions(%s)", ALICE)
        await service.caught_up()
        return answer

    async with service.connect() as socket:
        if frame == "auth":
            await socket.send({"type": "hello", "protocol": 1, "token": token(ALICE, **since(60))})
            await socket.expect("welcome")
        monkeypatch.setattr(calls, "sessions", late)
        await socket.send({"type": frame, "protocol": 1, "token": token(ALICE, **since(30))})
        assert await socket.closed() == SIGN_IN
    assert not service.gateway.hub.readers
