"""The WebSocket's conversation: hello, keys, joins, limits, ends."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import Any

import pytest
import websockets

from app import main, protocol
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    eventually,
    settings_for,
    token,
    until,
)

KEY = f"tasks?boardId={BOARD}"


def create(task: str, **values: Any) -> dict[str, Any]:
    return {
        "type": "create",
        "table": "tasks",
        "id": task,
        "value": {"boardId": BOARD, "title": "new", **values},
    }


def put(task: str, title: str) -> dict[str, Any]:
    return {"type": "set", "table": "tasks", "id": task, "key": "title", "value": title}


async def hello(service: Service, **frame: Any) -> int:
    """The close code after this first frame."""
    async with service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, **frame})
        return await socket.closed()


# --- hello ---------------------------------------------------------------------------------------


async def test_welcome_says_who_and_what(service: Service) -> None:
    async with service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": token(), "client": {"x": 1}})
        welcome = await socket.expect("welcome")
    assert welcome["userId"] == ALICE
    assert welcome["role"] == "authenticated"
    assert welcome["protocol"] == 1
    assert welcome["heartbeat"] == service.gateway.settings.heartbeat_seconds
    assert welcome["limits"] == {"keys": 2000, "frame": 65536}
    assert welcome["epoch"]
    assert welcome["schema"]
    assert welcome["serverTime"].endswith("Z")
    assert welcome["expiresAt"].endswith("Z")


@pytest.mark.parametrize(
    "first",
    [
        '{"type":"ping"}',
        '{"type":"subscribe","id":1,"keys":[]}',
        "nothing",
        '{"type":"hello"}',
        '{"type":"tomorrow"}',
        json.dumps({"type": "hello", "protocol": 1, "client": "x" * 5000}),
        b"\0\1",
    ],
)
async def test_another_first_frame_closes_4400(service: Service, first: str | bytes) -> None:
    async with service.connect() as socket:
        await socket.connection.send(first)
        assert await socket.closed() == 4400


async def test_silence_closes_4400(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HELLO_SECONDS", 0.05)
    async with service.connect() as socket:
        assert await socket.closed() == 4400


async def test_no_token_or_a_bad_one_closes_4401(service: Service) -> None:
    assert await hello(service) == 4401
    assert await hello(service, token="x") == 4401
    assert await hello(service, token=token(seconds=-60)) == 4401
    assert await hello(service, token=token(role="service_role")) == 4401


async def test_another_protocol_version_closes_4426(service: Service) -> None:
    async with service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 2, "token": token()})
        assert await socket.closed() == 4426


async def test_a_foreign_origin_closes_4403(service: Service) -> None:
    async with service.connect(origin="https://evil.example") as socket:
        assert await socket.closed() == 4403
    async with service.connect(origin=service.url) as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": token()})
        await socket.expect("welcome")


async def test_a_cookie_is_enough_from_our_own_origin_alone(service: Service) -> None:
    cookie = {"Cookie": f"rowcast_session={token()}"}
    async with service.connect(additional_headers=cookie) as socket:
        await socket.send({"type": "hello", "protocol": 1})
        assert await socket.closed() == 4403
    async with service.connect(additional_headers=cookie, origin=service.url) as socket:
        await socket.send({"type": "hello", "protocol": 1})
        assert (await socket.expect("welcome"))["userId"] == ALICE


async def test_nobody_is_welcome_as_anon_where_allowed(gateway_dsn: str) -> None:
    async with (
        Service(settings_for(gateway_dsn, allow_anon=True)) as service,
        service.connect() as socket,
    ):
        await socket.send({"type": "hello", "protocol": 1})
        welcome = await socket.expect("welcome")
        assert (welcome["userId"], welcome["role"]) == (None, "anon")
        await socket.subscribe("tasks")


# --- time ----------------------------------------------------------------------------------------


async def test_an_expired_token_closes_4401_at_its_time(service: Service) -> None:
    async with service.socket(seconds=2) as socket:
        assert await socket.closed() == 4401


async def test_a_renewed_token_keeps_the_socket(service: Service) -> None:
    async with service.socket(seconds=2) as socket:
        first = service.gateway.hub.subscribers.copy().pop()
        await socket.send({"type": "auth", "token": token(seconds=300, org="new")})
        authed = await socket.expect("authed")
        assert authed["expiresAt"] > socket.heard[0]["expiresAt"]
        assert json.loads(first.reader.claims or "")["org"] == "new"
        await socket.pong()


@pytest.mark.parametrize("other", [token(BOB), "x"])
async def test_another_user_or_a_bad_token_closes_4401(service: Service, other: str) -> None:
    async with service.socket() as socket:
        await socket.send({"type": "auth", "token": other})
        assert await socket.closed() == 4401


@pytest.fixture
def open_to_team(run: Callable[..., Any]) -> None:
    """Whoever carries the claim `team` sees all tasks."""
    run(
        "create policy team on public.tasks for select to authenticated"
        " using ((select auth.jwt()) ->> 'team' = 'x')"
    )


async def test_who_comes_back_with_other_claims_is_told(service: Service) -> None:
    """A resume goes by the feed, which says nothing of what a token says no more."""

    async def rights(**claims: Any) -> str:
        async with service.connect() as socket:
            await socket.send({"type": "hello", "protocol": 1, "token": token(BOB, **claims)})
            return str((await socket.expect("welcome"))["rights"])

    before = await rights(seconds=500, jti="a")
    assert await rights(seconds=600, jti="b") == before
    assert await rights(team="red") != before


@pytest.mark.usefixtures("open_to_team")
async def test_renewed_claims_that_show_more_make_the_keys_stale(service: Service) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(CAROL) as carol:
        await carol.subscribe(KEY, f"tasks:{task}")
        await carol.send({"type": "auth", "token": token(CAROL, team="x")})
        assert (await carol.expect("authed"))["rights"] != carol.heard[0]["rights"]
        stale = await carol.expect("stale")
        assert (sorted(stale["keys"]), stale["reason"]) == ([f"tasks:{task}", KEY], "access")
        await service.write({"type": "delete", "table": "tasks", "id": task})
        assert (await carol.update(f"tasks:{task}"))["version"] == 2


@pytest.mark.usefixtures("open_to_team")
async def test_renewed_claims_that_show_less_end_what_was_seen(
    service: Service, run: Callable[..., Any]
) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(CAROL, team="x") as carol, service.socket(ALICE) as alice:
        await carol.subscribe(KEY, f"tasks:{task}", "tasks")
        await alice.subscribe(KEY)
        await carol.send({"type": "auth", "token": token(CAROL, team="y")})
        stale = await carol.expect("stale")
        assert sorted(stale["keys"]) == ["tasks", f"tasks:{task}", KEY]
        said = len(carol.heard)
        await service.write(put(task, "hidden from carol"))
        run("delete from public.tasks where id = %s", task)
        while (await alice.expect("stale"))["keys"] != [KEY]:
            pass
        await carol.pong()
        # Not even that something is gone: these rows are no longer hers to hear of.
        kinds = [frame["type"] for frame in carol.heard[said:]]
        assert kinds in (["pong"], ["stale", "pong"])
        assert all(frame.get("keys", ["tasks"]) == ["tasks"] for frame in carol.heard[said:])


@pytest.mark.usefixtures("open_to_team")
async def test_what_renewed_claims_still_show_is_gone_when_it_goes(
    service: Service, run: Callable[..., Any]
) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(CAROL) as carol:
        await carol.subscribe(f"tasks:{task}")
        relay = service.gateway.relay
        await relay.stop()  # what is deleted now is asked about too late
        await carol.send({"type": "auth", "token": token(CAROL, team="x")})
        await carol.expect("stale")
        run("delete from public.tasks where id = %s", task)
        relay.start()
        assert (await carol.update(f"tasks:{task}"))["gone"] is True


async def test_a_renewed_token_with_the_same_claims_makes_nothing_stale(service: Service) -> None:
    async with service.socket(groups=["a"], jti="1") as socket:
        await socket.subscribe(KEY)
        await socket.send({"type": "auth", "token": token(seconds=900, groups=["a"], jti="2")})
        assert (await socket.expect("authed"))["rights"] == socket.heard[0]["rights"]
        await socket.pong()
        assert {frame["type"] for frame in socket.heard[2:]} == {"authed", "pong"}


# --- keys and changes ----------------------------------------------------------------------------


@pytest.mark.both_versions
async def test_two_users_see_each_others_change_and_a_stranger_does_not(service: Service) -> None:
    task = str(uuid.uuid4())
    async with (
        service.socket(ALICE) as alice,
        service.socket(BOB) as bob,
        service.socket(CAROL) as carol,
    ):
        for socket in (alice, bob, carol):
            await socket.subscribe(KEY, f"tasks:{task}", "tasks")
        answer = await service.write(create(task), user=ALICE)
        for socket in (alice, bob):
            update = await socket.update(f"tasks:{task}")
            assert update["record"] == answer["recordMap"]["tasks"][task]
            assert update["txId"] == answer["txId"]
        await service.write(put(task, "by bob"), user=BOB)
        update = await alice.update(f"tasks:{task}")
        assert update["version"] == 2
        assert update["patch"]["title"] == "by bob"
        await bob.update(f"tasks:{task}")
        opened = service.gateway.cursors.open
        assert opened((await carol.pong())["cursor"]) == opened((await alice.pong())["cursor"])
        assert {frame["type"] for frame in carol.heard} == {"welcome", "subscribed", "pong"}


@pytest.mark.both_versions
async def test_plain_sql_arrives_like_any_write(service: Service, run: Callable[..., Any]) -> None:
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        run("update public.tasks set title = 'from psql' where board_id = %s", BOARD)
        updates = (await bob.expect("updates"))["updates"]
        assert {update["patch"]["title"] for update in updates} == {"from psql"}
        count = run("select count(*) from public.tasks where board_id = %s", BOARD)
        assert len(updates) == count


async def test_versions_name_readable_records_alone(service: Service) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    async with service.socket(ALICE) as alice, service.socket(CAROL) as carol:
        absent = f"tasks:{uuid.uuid4()}"
        seen = await alice.subscribe(f"tasks:{task}", absent, KEY)
        assert seen["versions"] == {f"tasks:{task}": 1}
        assert "errors" not in seen
        hidden = await carol.subscribe(f"tasks:{task}", absent)
        assert hidden["versions"] == {}
        assert "errors" not in hidden


async def test_an_absent_record_delivers_once_it_is_there(service: Service) -> None:
    task = str(uuid.uuid4())
    async with service.socket(BOB) as bob:
        await bob.subscribe(f"tasks:{task}")
        await service.write(create(task))
        assert (await bob.update(f"tasks:{task}"))["version"] == 1


async def test_bad_keys_are_errors_and_the_others_live(service: Service) -> None:
    async with service.socket() as socket:
        keys = ["none", "tasks?title=x", "tasks:a b", "", "x" * 300, KEY]
        answer = await socket.subscribe(*keys)
        assert {error["key"]: error["code"] for error in answer["errors"]} == {
            "none": "unknown_table",
            "tasks?title=x": "unknown_collection",
            "tasks:a b": "bad_key",
            "": "bad_key",
            "x" * 256: "bad_key",
        }
        (subscriber,) = service.gateway.hub.subscribers
        assert set(subscriber.keys) == {KEY}


async def test_2000_keys_are_the_most(service: Service) -> None:
    async with service.socket() as socket:
        keys = [f"tasks:{uuid.UUID(int=number)}" for number in range(2003)]
        for start in range(0, 2000, 500):
            assert "errors" not in await socket.subscribe(*keys[start : start + 500])
        answer = await socket.subscribe(*keys[1999:])
        assert {error["code"] for error in answer["errors"]} == {"too_many_keys"}
        assert len(answer["errors"]) == 3
        await socket.unsubscribe(*keys[:10])
        assert "errors" not in await socket.subscribe(*keys[2000:])


async def test_nothing_comes_after_unsubscribed(service: Service) -> None:
    task = str(uuid.uuid4())
    async with service.socket() as socket, service.socket() as witness:
        await socket.subscribe(KEY)
        await witness.subscribe(KEY)
        await socket.unsubscribe(KEY)
        await service.write(create(task))
        await witness.update(f"tasks:{task}")
        await socket.pong()
        assert not [frame for frame in socket.heard if frame["type"] == "updates"]


@pytest.mark.both_versions
async def test_a_resume_hears_of_everything_missed_once_joined(service: Service) -> None:
    missed, later = str(uuid.uuid4()), str(uuid.uuid4())
    async with service.socket() as socket:
        cursor = (await socket.subscribe(KEY))["cursor"]
    await service.write(create(missed))
    await service.write(put(missed, "changed"))
    async with service.socket() as socket:
        answer = await socket.subscribe(KEY, cursor=cursor)
        replayed = [u for frame in socket.heard for u in frame.get("updates", [])]
        assert {update["key"] for update in replayed} == {f"tasks:{missed}"}
        assert max(update["version"] for update in replayed) == 2
        assert socket.heard[-1] == answer
        await service.write(create(later))
        assert (await socket.update(f"tasks:{later}"))["version"] == 1


async def test_a_replay_tells_hidden_and_absent_records_alike(service: Service) -> None:
    hidden, absent = str(uuid.uuid4()), str(uuid.uuid4())
    async with service.socket(CAROL) as socket:
        cursor = (await socket.subscribe("boards"))["cursor"]
    await service.write(create(hidden))
    await service.write(put(hidden, "more"))
    await service.caught_up()
    heard = []
    for task in (hidden, absent):
        async with service.socket(CAROL) as socket:
            await socket.subscribe(f"tasks:{task}", "tasks", cursor=cursor)
            opened = service.gateway.cursors.open
            frames = [
                frame | {"cursor": opened(frame["cursor"])} if "cursor" in frame else frame
                for frame in socket.heard[1:]
            ]
            heard.append(json.dumps(frames).replace(task, "it"))
    assert heard[0] == heard[1]


@pytest.mark.parametrize("cursor", ["nonsense", "v1.0.1..", "x" * 5000])
async def test_an_unusable_cursor_makes_the_keys_stale(service: Service, cursor: str) -> None:
    async with service.socket() as socket:
        answer = await socket.subscribe(KEY, "tasks", cursor=cursor)
        assert sorted(answer["stale"]) == ["tasks", KEY]


async def test_joining_a_key_does_not_move_the_cursor_of_the_others(service: Service) -> None:
    task = str(uuid.uuid4())
    async with service.socket() as socket:
        await socket.subscribe(KEY)
        relay = service.gateway.relay
        await relay.stop()  # from here on the hub stands still
        await service.write(create(task))
        before = (await socket.pong())["cursor"]
        joined = await socket.subscribe("boards", cursor=before)
        opened = service.gateway.cursors.open
        assert opened(joined["cursor"]) == opened(before)
        relay.start()
        assert (await socket.update(f"tasks:{task}"))["version"] == 1


async def test_a_change_during_a_join_comes_after_subscribed(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import calls

    task, asked = str(uuid.uuid4()), asyncio.Event()
    real = calls.subscribe
    go_on = asyncio.Event()

    async def slow(*arguments: Any) -> str:
        answer = await real(*arguments)  # the snapshot is taken; the change comes behind it
        asked.set()
        await go_on.wait()
        return answer

    async with service.socket() as socket, service.socket() as witness:
        await witness.subscribe(KEY)
        await socket.subscribe("boards")
        monkeypatch.setattr(calls, "subscribe", slow)
        await socket.send({"type": "subscribe", "id": "joining", "keys": [KEY]})
        await asked.wait()
        await service.write(create(task))
        await witness.update(f"tasks:{task}")
        go_on.set()
        subscribed = await socket.expect("subscribed")
        assert not [frame for frame in socket.heard if frame["type"] == "updates"]
        update = await socket.expect("updates")
        assert update["updates"][0]["key"] == f"tasks:{task}"
        opened = service.gateway.cursors.open
        assert opened(update["cursor"]) != opened(subscribed["cursor"])


# --- frames --------------------------------------------------------------------------------------


async def test_malformed_frames_are_errors_and_five_in_a_row_close_4400(service: Service) -> None:
    bad = ["nothing", "[]", '{"type":1}', '{"type":"subscribe","id":9,"keys":1}', "[" * 5000]
    async with service.socket() as socket:
        for text in bad[:4]:
            await socket.send(text)
            assert (await socket.expect("error"))["code"] == "bad_frame"
        assert socket.heard[-1]["id"] == 9
        await socket.pong()
        for text in bad:
            await socket.send(text)
        assert await socket.closed() == 4400


async def test_binary_frames_are_malformed(service: Service) -> None:
    async with service.socket() as socket:
        await socket.connection.send(b"\xff\x00")
        assert (await socket.expect("error"))["code"] == "bad_frame"


async def test_unknown_frames_are_ignored(service: Service) -> None:
    async with service.socket() as socket:
        await socket.send({"type": "tomorrow", "x": 1})
        await socket.pong()
        assert [frame["type"] for frame in socket.heard] == ["welcome", "pong"]


async def test_frames_beyond_64_kib_end_the_socket(service: Service) -> None:
    async with service.socket() as socket:
        await socket.send(json.dumps({"type": "ping", "x": "y" * 70_000}))
        assert await socket.closed() == 4400


async def test_an_idle_socket_advances_by_pong(service: Service) -> None:
    async with service.socket(CAROL) as carol:
        opened = service.gateway.cursors.open
        first = opened((await carol.subscribe("tasks"))["cursor"])
        await service.write(create(str(uuid.uuid4())))
        await until(lambda: service.gateway.hub.cursor != first)
        moved = opened((await carol.pong())["cursor"])
        assert moved != first
        assert moved == service.gateway.hub.cursor


async def test_a_peer_that_went_silent_is_closed(gateway_dsn: str) -> None:
    beat: dict[str, Any] = {"ws": main.Protocol, "ws_ping_interval": 0.2, "ws_ping_timeout": 0.1}
    async with Service(settings_for(gateway_dsn), **beat) as service:
        await service.ready()
        async with service.socket() as silent, service.socket(BOB) as bob:
            silent.connection.transport.pause_reading()
            await until(lambda: len(service.gateway.outlets) == 1)
            await bob.pong()
            silent.connection.transport.resume_reading()
            assert await silent.closed() == 1011


async def test_a_peer_whose_frames_have_to_wait_is_not_silent(
    gateway_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overdue = 0
    judge = main.Protocol.keepalive_timeout

    def count(connection: main.Protocol) -> None:
        nonlocal overdue
        overdue += 1
        judge(connection)

    monkeypatch.setattr(main.Protocol, "keepalive_timeout", count)
    beat: dict[str, Any] = {"ws": main.Protocol, "ws_ping_interval": 0.2, "ws_ping_timeout": 0.1}
    async with Service(settings_for(gateway_dsn, pool_size=2), **beat) as service:
        await service.ready()
        async with service.socket() as socket:
            async with service.gateway.database.joins:
                for number in range(2):
                    await socket.send({"type": "subscribe", "id": number, "keys": [KEY]})
                await until(lambda: overdue > 2)
            for number in range(2):
                assert (await socket.expect("subscribed"))["id"] == number
            await socket.pong()


async def test_the_end_of_a_socket_leaves_nothing(service: Service) -> None:
    async with service.socket() as socket:
        await socket.subscribe(KEY, "boards")
    gateway = service.gateway
    await until(lambda: not gateway.outlets and not len(gateway.hub) and not gateway.hub.key_count)


@pytest.mark.parametrize("rows", ["all of a board", "one"])
async def test_a_reader_who_is_too_slow_is_closed_4408(
    gateway_dsn: str, run: Callable[..., Any], rows: str
) -> None:
    """One edit goes straight to the transport of each socket, several are put together for each."""
    async with Service(settings_for(gateway_dsn, socket_buffer_bytes=65536)) as service:
        await service.ready()
        async with service.connect(max_queue=1, max_size=None) as slow:
            await slow.send({"type": "hello", "protocol": 1, "token": token()})
            await slow.expect("welcome")
            await slow.subscribe(KEY)
            (outlet,) = service.gateway.outlets
            slow.connection.transport.pause_reading()
            more = (
                "update public.tasks set description = md5(random()::text) || repeat('x', 60000)"
                " where board_id = %s"
            )
            if rows == "one":
                more += " and id = (select min(id::text)::uuid from tasks where board_id = %s)"
            boards = [BOARD] * more.count("%s")

            async def dropped() -> bool:
                cursor = service.gateway.hub.cursor
                run(more, *boards)
                await until(lambda: service.gateway.hub.cursor != cursor)
                return outlet.closing

            await eventually(dropped)
            slow.connection.transport.resume_reading()
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await slow.receive()
            assert slow.connection.close_code == 4408


async def test_small_frames_are_sent_without_delay(service: Service) -> None:
    async with service.socket():
        (outlet,) = service.gateway.outlets
        assert outlet._transport is not None
        connection = outlet._transport.get_extra_info("socket")
        assert connection.getsockopt(IPPROTO_TCP, TCP_NODELAY)


async def test_frames_go_straight_to_the_transport(service: Service) -> None:
    async with service.socket():
        (outlet,) = service.gateway.outlets
        assert isinstance(outlet._transport, asyncio.Transport)


async def test_a_hundred_sockets_get_one_change(service: Service) -> None:
    task = str(uuid.uuid4())
    async with contextlib.AsyncExitStack() as stack:
        users = [ALICE, BOB] * 50
        sockets = [await stack.enter_async_context(service.socket(user)) for user in users]
        for socket in sockets:
            await socket.subscribe(KEY)
        await service.write(create(task))
        for socket in sockets:
            assert (await socket.update(f"tasks:{task}"))["version"] == 1


async def test_stopping_sends_sockets_away_1001_and_finishes_writes(service: Service) -> None:
    task = str(uuid.uuid4())
    async with service.socket() as socket:
        writing = asyncio.create_task(service.write(create(task)))
        await until(lambda: service.gateway.writes._tasks != set() or writing.done())
        await service.stop()
        assert await socket.closed() == 1001
        assert (await writing)["status"] == "applied"
