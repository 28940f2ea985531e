"""Presence and broadcasts: who sees whom, across gateways, and for how long."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from app import presence, signals
from app.relay import Relay
from tests.gateway.conftest import (
    ALICE,
    BOB,
    CAROL,
    Service,
    Socket,
    eventually,
    settings_for,
    until,
)
from tests.gateway.test_restart import down, own_db, own_pg, restartable, up
from tests.postgres import Database, Server

__all__ = ["own_db", "own_pg", "restartable"]

KEY = "tasks:00000000-0000-7000-8000-0000000c0001"
OTHER_KEY = "tasks:00000000-0000-7000-8000-0000000c0002"
REVOKE = "update workspaces set member_ids = '[]' where name = 'Demo'"
COUNT = "select count(*) from sync_internal.signals"


@pytest_asyncio.fixture
async def second(service: Service, gateway_dsn: str) -> AsyncIterator[Service]:
    """Another gateway on the same database; both know of each other."""
    async with Service(settings_for(gateway_dsn)) as running:
        await running.ready()
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times a few times shorter."""
    for module in (presence, signals):
        monkeypatch.setattr(module, "REFRESH_SECONDS", 0.2)
        monkeypatch.setattr(module, "SILENCE_SECONDS", 1.5)
    monkeypatch.setattr(signals, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(signals, "GAP_SECONDS", 0.5)
    monkeypatch.setattr(signals, "READ_SECONDS", 0.2)


@contextlib.asynccontextmanager
async def joined(service: Service, user: str, *keys: str) -> AsyncIterator[Socket]:
    """A socket subscribed to keys."""
    async with service.socket(user) as socket:
        await socket.subscribe(*(keys or (KEY,)))
        yield socket


async def present(socket: Socket, key: str = KEY, **state: Any) -> None:
    await socket.send({"type": "presence", "key": key, "state": state or None})


async def said(socket: Socket, event: str, payload: Any = None, key: str = KEY) -> None:
    await socket.send({"type": "broadcast", "key": key, "event": event, "payload": payload})


async def sees(socket: Socket, user: str | None, state: Any, key: str = KEY) -> dict[str, Any]:
    """The next frame in which a peer of this user has this state."""
    while True:
        frame = await socket.expect("presence")
        for peer in frame["peers"]:
            if (frame["key"], peer["userId"], peer["state"]) == (key, user, state):
                return frame


async def refusal(socket: Socket) -> str:
    code: str = (await socket.expect("error"))["code"]
    return code


def heard(socket: Socket) -> list[dict[str, Any]]:
    return [frame for frame in socket.heard if frame["type"] in ("presence", "broadcast")]


async def settled(*services: Service) -> None:
    """Waits until each gateway has made two more turns: what was said before has arrived."""
    for service in services:
        made = service.gateway.signals
        for _ in range(2):
            before = made._read_at
            made.fed()
            await until(lambda made=made, before=before: made._read_at > before)  # type: ignore[misc]


async def acquainted(*services: Service) -> None:
    """Waits until each of two gateways with listeners knows of the other."""
    known = [service.gateway.signals for service in services]
    # Sooner than they would say it again by themselves.
    await until(lambda: all(made._others for made in known), 2.5)


# --- on one gateway ------------------------------------------------------------------------------


async def test_peers_see_each_other_come_change_and_leave(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        await present(alice, cursor=1)
        first = await sees(bob, ALICE, {"cursor": 1})
        assert first["full"] is True
        assert first["key"] == KEY
        await present(bob, cursor=7)
        await sees(alice, BOB, {"cursor": 7})
        await present(alice, cursor=2)
        changed = await sees(bob, ALICE, {"cursor": 2})
        assert "full" not in changed
        assert changed["peers"][0]["peer"] == first["peers"][0]["peer"]
        await present(alice)
        await sees(bob, ALICE, None)


async def test_nobody_sees_himself_but_another_socket_of_his(service: Service) -> None:
    async with joined(service, ALICE) as one, joined(service, ALICE) as two:
        await present(one, n=1)
        await sees(two, ALICE, {"n": 1})
        await present(two, n=2)
        await sees(one, ALICE, {"n": 2})
        assert len(heard(one)) == 1


async def test_a_newcomer_is_told_of_all_who_are_there(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        await present(alice, n=1)
        await present(bob, n=2)
        await sees(alice, BOB, {"n": 2})
        async with joined(service, BOB) as newcomer:
            frame = await newcomer.expect("presence")
            assert frame["full"] is True
            assert [peer["state"] for peer in frame["peers"]] == [{"n": 1}, {"n": 2}]


async def test_leaving_a_key_ends_its_presence(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})
        await alice.unsubscribe(KEY)
        await sees(bob, ALICE, None)
        await present(bob, n=2)
        await present(alice, n=3)
        assert await refusal(alice) == "not_subscribed"
        assert heard(alice) == []


async def test_a_socket_that_is_cut_is_gone(service: Service) -> None:
    async with joined(service, BOB) as bob:
        async with service.socket(ALICE) as alice:
            await alice.subscribe(KEY)
            await present(alice, n=1)
            await sees(bob, ALICE, {"n": 1})
            alice.connection.transport.abort()
        await sees(bob, ALICE, None)


async def test_a_state_that_is_not_said_again_expires(gateway_dsn: str) -> None:
    async with (
        Service(settings_for(gateway_dsn, heartbeat_seconds=0.3)) as service,
        joined(service, ALICE) as alice,
        joined(service, BOB) as bob,
    ):
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})
        await sees(bob, ALICE, None)


async def test_of_many_states_the_last_one_counts_and_few_are_sent(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        for number in range(500):
            await present(alice, n=number)
        await sees(bob, ALICE, {"n": 499})
        assert len(heard(bob)) < 60
        assert await alice.pong()
        assert [frame for frame in alice.heard if frame["type"] == "error"] == []


async def test_broadcasts_reach_the_others_in_order(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        for number in range(5):
            await said(alice, "poke", {"n": number})
        for number in range(5):
            assert await bob.expect("broadcast") == {
                "type": "broadcast",
                "key": KEY,
                "event": "poke",
                "payload": {"n": number},
                "from": ALICE,
            }
        await said(bob, "back", [1, "ü", None])
        assert (await alice.expect("broadcast"))["payload"] == [1, "ü", None]
        assert len(heard(alice)) == 1


async def test_too_many_broadcasts_are_refused(service: Service) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        for _ in range(60):
            await said(alice, "poke")
        assert await refusal(alice) == "rate"
        for _ in range(20):
            await bob.expect("broadcast")
        await alice.pong()
        await bob.pong()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "presence", "key": KEY, "state": {"x": "y" * 4096}}, "too_large"),
        ({"type": "broadcast", "key": KEY, "event": "e", "payload": "y" * 16384}, "too_large"),
        ({"type": "presence", "key": OTHER_KEY, "state": {}}, "not_subscribed"),
        ({"type": "broadcast", "key": OTHER_KEY, "event": "e"}, "not_subscribed"),
        ({"type": "presence", "key": "boards", "state": {}}, "bad_key"),
        ({"type": "presence", "key": KEY, "state": [1]}, "bad_frame"),
        ({"type": "presence", "key": KEY}, "bad_frame"),
        ({"type": "broadcast", "key": KEY, "event": ""}, "bad_frame"),
        ({"type": "broadcast", "key": KEY, "event": "e" * 129}, "bad_frame"),
        (f'{{"type":"presence","key":"{KEY}","state":{{"n":1e999}}}}', "bad_frame"),
        (f'{{"type":"presence","key":"{KEY}","state":{{"n":"\\ud800"}}}}', "bad_frame"),
        (f'{{"type":"broadcast","key":"{KEY}","event":"\\ud800"}}', "bad_frame"),
    ],
)
async def test_what_cannot_be_passed_on_is_refused(service: Service, frame: Any, code: str) -> None:
    async with joined(service, ALICE) as alice:
        await alice.send(frame)
        assert await refusal(alice) == code
        assert await alice.pong()


async def test_nul_and_other_odd_text_passes_unharmed(service: Service, second: Service) -> None:
    odd = 'a\0b"\\\n\u2028\U0001f600'
    async with joined(service, ALICE) as alice, joined(second, BOB) as bob:
        await acquainted(service, second)
        await present(alice, **{odd: odd})
        await sees(bob, ALICE, {odd: odd})
        await said(alice, odd, {odd: odd})
        frame = await bob.expect("broadcast")
        assert (frame["event"], frame["payload"]) == (odd, {odd: odd})


async def test_a_socket_has_states_under_so_many_keys_alone(service: Service) -> None:
    keys = [f"tasks:00000000-0000-7000-8000-0000000d{n:04}" for n in range(33)]
    async with joined(service, ALICE, *keys) as alice:
        for key in keys:
            await present(alice, key, n=1)
        assert await refusal(alice) == "too_many_keys"
        await present(alice, keys[0])
        (peer,) = service.gateway.signals.presence._peers.values()
        await until(lambda: len(peer.present) == 31)
        await present(alice, keys[32], n=1)
        assert await alice.pong()
        assert [frame["type"] for frame in alice.heard].count("error") == 1


# --- who may -------------------------------------------------------------------------------------


async def test_a_stranger_neither_hears_nor_is_heard(service: Service, second: Service) -> None:
    async with (
        joined(service, ALICE) as alice,
        joined(second, BOB) as bob,
        joined(service, CAROL) as near,
        joined(second, CAROL) as far,
    ):
        await acquainted(service, second)
        for carol in (near, far):
            await present(carol, n=0)
            await said(carol, "hello")
            assert await refusal(carol) == "forbidden"
        await present(alice, n=1)
        await said(alice, "poke")
        await sees(bob, ALICE, {"n": 1})
        await bob.expect("broadcast")
        await settled(service, second)
        for carol in (near, far):
            await carol.pong()
            assert heard(carol) == []
        for friend in (alice, bob):
            await friend.pong()
            assert CAROL not in json.dumps(friend.heard)


async def test_a_reader_who_loses_the_record_neither_sees_nor_is_seen(
    service: Service, second: Service, run: Callable[..., Any]
) -> None:
    async with (
        joined(service, ALICE) as alice,
        joined(service, BOB) as near,
        joined(second, BOB) as far,
    ):
        await acquainted(service, second)
        await present(alice, n=1)
        for bob in (near, far):
            await sees(bob, ALICE, {"n": 1})
            await present(bob, n=2)
            await sees(alice, BOB, {"n": 2})
        run(REVOKE)
        async with asyncio.timeout(2):
            left: set[str] = set()
            while len(left) < 2:
                peers = (await alice.expect("presence"))["peers"]
                left |= {peer["peer"] for peer in peers if peer["state"] is None}
            for bob in (near, far):
                while (await bob.expect("presence"))["peers"]:
                    pass
                assert bob.heard[-1] == {"type": "presence", "key": KEY, "peers": [], "full": True}
                bob.heard.clear()
        await present(alice, n=3)
        await said(alice, "secret")
        await said(far, "still here?")
        assert await refusal(far) == "forbidden"
        await settled(service, second)
        for bob in (near, far):
            await bob.pong()
            assert heard(bob) == []


async def test_a_record_that_becomes_readable_shows_its_peers(
    service: Service, run: Callable[..., Any]
) -> None:
    async with joined(service, ALICE) as alice, joined(service, CAROL) as carol:
        await present(alice, n=1)
        await present(carol, n=2)
        await settled(service)
        run(
            "update workspaces set member_ids = member_ids || to_jsonb(%s::text)"
            " where name = 'Demo'",
            CAROL,
        )
        assert (await sees(carol, ALICE, {"n": 1}))["full"] is True
        await sees(alice, CAROL, {"n": 2})


async def test_an_anonymous_reader_is_a_peer_without_a_name(
    gateway_dsn: str, run: Callable[..., Any]
) -> None:
    run("grant usage on schema public to anon; grant select on tasks to anon")
    run("create policy tasks_for_all on tasks for select to anon using (true)")
    run("select sync.refresh()")
    async with (
        Service(settings_for(gateway_dsn, allow_anon=True)) as service,
        joined(service, ALICE) as alice,
        service.connect() as nobody,
    ):
        await nobody.send({"type": "hello", "protocol": 1})
        await nobody.expect("welcome")
        await nobody.subscribe(KEY)
        await present(nobody, n=1)
        await sees(alice, None, {"n": 1})
        await said(nobody, "poke")
        assert (await alice.expect("broadcast"))["from"] is None


async def test_claims_that_policies_choke_on_hide_nobody_else(
    service: Service, run: Callable[..., Any]
) -> None:
    run(
        "create policy chokes on tasks as restrictive for select to authenticated"
        " using (((select auth.jwt()) ->> 'level')::integer > 0)"
    )
    async with (
        service.socket(ALICE, level="1") as alice,
        service.socket(BOB, level="2") as bob,
        service.socket(BOB, level="many") as broken,
    ):
        # He may not even be able to subscribe; where he is, he hears nothing.
        await broken.send({"type": "subscribe", "id": 1, "keys": [KEY]})
        await alice.subscribe(KEY)
        await bob.subscribe(KEY)
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})


async def test_a_session_that_has_ended_hides_nobody_else(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the moment before its socket is closed, too."""
    kept = asyncio.Event()

    async def keep(*_: Any) -> None:
        kept.set()

    monkeypatch.setattr(Relay, "_end_sessions", keep)
    async with (
        joined(service, ALICE) as alice,
        joined(service, BOB) as bob,
        joined(service, CAROL),
    ):
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})
        run("select sync.disable_user(%s)", CAROL)
        kept.clear()
        await kept.wait()
        monkeypatch.setattr(presence, "OLD_SECONDS", 0)
        await present(alice, n=2)
        await sees(bob, ALICE, {"n": 2})


# --- across gateways -----------------------------------------------------------------------------


async def test_peers_on_two_gateways_see_and_hear_each_other(
    service: Service, second: Service, run: Callable[..., Any]
) -> None:
    run("delete from sync_internal.changes")
    async with joined(service, ALICE) as alice:
        await present(alice, n=1)
        async with joined(second, BOB) as bob:
            # At once, not when it is told again.
            async with asyncio.timeout(2):
                assert (await sees(bob, ALICE, {"n": 1}))["full"] is True
            await present(bob, n=2)
            await sees(alice, BOB, {"n": 2})
            await said(bob, "poke", 1)
            assert (await alice.expect("broadcast"))["from"] == BOB
            await present(alice, n=3)
            await sees(bob, ALICE, {"n": 3})
        await sees(alice, BOB, None)
    assert run("select count(*) from sync_internal.changes") == 0


async def test_what_was_told_before_is_not_broadcast_to_a_gateway_that_comes(
    service: Service, second: Service
) -> None:
    async with joined(service, ALICE) as alice, joined(second, BOB) as bob:
        await acquainted(service, second)
        await said(alice, "old")
        await bob.expect("broadcast")
        await bob.unsubscribe(KEY)
        await until(lambda: second.gateway.signals._cursor is None)
        await bob.subscribe(KEY)
        await acquainted(service, second)
        await said(alice, "new")
        assert (await bob.expect("broadcast"))["event"] == "new"


async def test_a_gateway_without_listeners_costs_nothing(
    service: Service, second: Service, run: Callable[..., Any]
) -> None:
    async with joined(service, ALICE, "tasks") as alice, joined(second, BOB, "tasks"):
        await service.write(
            {"type": "set", "table": "tasks", "id": KEY[6:], "key": "title", "value": "x"}
        )
        await alice.update(KEY)
        assert run(COUNT) == 0
        assert service.gateway.signals._read_at == float("-inf")


async def test_a_lone_gateway_says_only_that_it_is_there(
    service: Service, run: Callable[..., Any]
) -> None:
    async with joined(service, ALICE) as alice, joined(service, BOB) as bob:
        for number in range(10):
            await present(alice, n=number)
            await sees(bob, ALICE, {"n": number})
        bodies = run("select string_agg(distinct body, ' ') from sync_internal.signals")
        assert bodies == "{}"


async def test_a_gateway_that_stops_says_goodbye(service: Service, second: Service) -> None:
    async with joined(service, ALICE) as alice:
        async with joined(second, BOB) as bob:
            await acquainted(service, second)
            await present(bob, n=1)
            await sees(alice, BOB, {"n": 1})
            await second.stop()
            await sees(alice, BOB, None)
        await until(lambda: not service.gateway.signals._others, 3)


async def test_a_gateway_that_died_takes_its_peers_with_it(
    service: Service, second: Service, quick: None
) -> None:
    async with joined(service, ALICE) as alice, joined(second, BOB) as bob:
        await acquainted(service, second)
        await present(bob, n=1)
        await sees(alice, BOB, {"n": 1})
        task = second.gateway.signals._task
        assert task is not None
        task.cancel()
        await sees(alice, BOB, None)
        await until(lambda: not service.gateway.signals._others)


async def test_a_silent_but_living_gateway_keeps_its_peers(
    service: Service, second: Service, quick: None
) -> None:
    """Refreshes alone, for longer than the time after which silence means death."""
    async with joined(service, ALICE) as alice, joined(second, BOB) as bob:
        await acquainted(service, second)
        await present(bob, n=1)
        await sees(alice, BOB, {"n": 1})
        (foreign,) = service.gateway.signals.presence._rooms[KEY].foreign.values()
        told_at = foreign.told_at
        await until(lambda: foreign.told_at > told_at + 2.5)
        await alice.pong()
        assert len(heard(alice)) == 1


async def test_presence_heals_after_a_crash_of_postgres(
    restartable: Service, own_db: Database, own_pg: Server
) -> None:
    dsn = own_db.dsn("rowcast_gateway")
    async with (
        Service(settings_for(dsn)) as second,
        joined(restartable, ALICE) as alice,
        joined(second, BOB) as bob,
    ):
        await acquainted(restartable, second)
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})
        # One of its processes: the server throws all out, empties what is not logged, goes on.
        with own_db.connect() as conn:
            row = conn.execute(
                "select pid from pg_stat_activity where backend_type = 'walwriter'"
            ).fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGKILL)

        async def heard_again() -> bool:
            await said(bob, "poke")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await alice.expect("broadcast")
                    return True
            return False

        await eventually(heard_again)
        async with joined(second, BOB) as newcomer:
            await sees(newcomer, ALICE, {"n": 1})
        # Nobody was thought to have left meanwhile.
        assert all(
            peer["state"] is not None for frame in heard(bob) for peer in frame.get("peers", ())
        )


async def test_an_outage_of_postgres_sends_nobody_away(
    restartable: Service, own_db: Database, own_pg: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (presence, signals):
        # Longer than both take to be back.
        monkeypatch.setattr(module, "SILENCE_SECONDS", 5.0)
        monkeypatch.setattr(module, "REFRESH_SECONDS", 0.5)
    async with (
        Service(settings_for(own_db.dsn("rowcast_gateway"))) as second,
        joined(restartable, ALICE) as alice,
        joined(second, BOB) as bob,
    ):
        await acquainted(restartable, second)
        await present(alice, n=1)
        await sees(bob, ALICE, {"n": 1})
        made = second.gateway.signals
        await down(own_pg)
        dark = made._read_at
        loop = asyncio.get_running_loop()
        await until(lambda: loop.time() > dark + 6)
        await up(own_pg)
        await until(lambda: made._read_at > dark)
        await present(alice, n=2)
        await sees(bob, ALICE, {"n": 2})
        assert all(
            peer["state"] is not None for frame in heard(bob) for peer in frame.get("peers", ())
        )
