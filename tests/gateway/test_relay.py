"""The relay: what it does without the doorbell, and with changes that are no list of records."""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from app import calls, relay
from app.bell import asyncpg_servers
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    eventually,
    settings_for,
    until,
)
from tests.gateway.test_socket import KEY, create, put

BOARD_OF_CAROL = "00000000-0000-7000-8000-0000000b0003"


async def test_with_the_doorbell_dead_changes_arrive_by_polling(gateway_dsn: str) -> None:
    settings = settings_for(gateway_dsn, listen_url="host=/nowhere", poll_seconds=0.2)
    async with Service(settings) as service:
        await service.ready()
        async with service.socket(BOB) as bob:
            await bob.subscribe(KEY)
            task = str(uuid.uuid4())
            await service.write(create(task))
            assert (await bob.update(f"tasks:{task}"))["version"] == 1


async def test_the_doorbell_rings_before_the_poll(
    gateway_dsn: str, run: Callable[..., Any]
) -> None:
    async with Service(settings_for(gateway_dsn, poll_seconds=60)) as service:
        await service.ready()
        async with service.socket(BOB) as bob:
            await bob.subscribe(KEY)

            async def rung() -> bool:
                # Again until the listener has connected; no poll comes to help.
                run("update public.tasks set title = title || '.' where board_id = %s", BOARD)
                try:
                    async with asyncio.timeout(1):
                        return bool(await bob.expect("updates"))
                except TimeoutError:
                    return False

            await eventually(rung)


async def test_who_waits_for_a_change_does_not_wait_for_a_look_at_the_policies(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is put off until he has heard, but no further than the next read."""
    monkeypatch.setattr(relay, "FINGERPRINT_SECONDS", 0.0)
    reads: list[tuple[bool, int]] = []
    changes = calls.changes

    async def note(lane: Any, cursor: str | None, look: bool) -> str:
        text = await changes(lane, cursor, look)
        reads.append((look, len(json.loads(text)["changes"])))
        return text

    monkeypatch.setattr(calls, "changes", note)
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        for number in range(10):
            run("update public.tasks set title = %s where board_id = %s", f"{number}", BOARD)
            await bob.expect("updates")
    looks = [look for look, _ in reads]
    assert any(found and not look for look, found in reads)
    assert all(one or two for one, two in itertools.pairwise(looks))


@pytest.mark.both_versions
async def test_truncate_makes_the_tables_keys_stale(
    service: Service, run: Callable[..., Any]
) -> None:
    async with service.socket() as socket:
        await socket.subscribe(KEY, "tasks", "boards")
        run("truncate public.tasks cascade")
        stale = await socket.expect("stale")
        assert (sorted(stale["keys"]), stale["reason"]) == (["tasks", KEY], "bulk")


async def test_a_new_policy_makes_everything_stale(
    service: Service, run: Callable[..., Any]
) -> None:
    async with service.socket() as socket:
        await socket.subscribe(KEY, "boards")
        run("create policy extra on public.boards for select to authenticated using (false)")
        stale = await socket.expect("stale")
        assert (sorted(stale["keys"]), stale["reason"]) == (["boards", KEY], "schema")


async def test_a_new_epoch_makes_everything_stale(
    service: Service, run: Callable[..., Any]
) -> None:
    """And says so to whoever stays: equal versions may be other contents now."""
    async with service.socket() as socket, service.socket() as idle:
        cursor = (await socket.subscribe(KEY))["cursor"]
        epoch = socket.heard[0]["epoch"]
        run("select sync.new_epoch()")
        stale = await socket.expect("stale")
        assert (stale["keys"], stale["reason"]) == ([KEY], "behind")
        assert stale["epoch"] not in (None, epoch)
        assert await idle.expect("stale") == {**stale, "keys": []}
        answer = await socket.subscribe(KEY, cursor=cursor)
        assert answer["stale"] == [KEY]
        async with service.socket() as late:
            assert late.heard[0]["epoch"] == stale["epoch"]


@pytest.mark.both_versions
async def test_a_record_moved_out_of_sight_is_gone_by_any_key_and_comes_to_those_who_see_it_now(
    service: Service, run: Callable[..., Any]
) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with (
        service.socket(ALICE) as record,
        service.socket(ALICE) as collection,
        service.socket(CAROL) as carol,
    ):
        await record.subscribe(f"tasks:{task}")
        await collection.subscribe(KEY)
        await carol.subscribe(f"tasks?boardId={BOARD_OF_CAROL}")
        run("update public.tasks set board_id = %s where id = %s", BOARD_OF_CAROL, task)
        assert await record.update(f"tasks:{task}") == {"key": f"tasks:{task}", "gone": True}
        assert await collection.update(f"tasks:{task}") == {"key": f"tasks:{task}", "gone": True}
        gained = await carol.update(f"tasks:{task}")
        assert gained["record"]["title"] == "new"


async def test_a_hard_delete_is_gone_for_who_could_read_it(
    service: Service, run: Callable[..., Any]
) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(BOB) as bob, service.socket(CAROL) as carol:
        await bob.subscribe(f"tasks:{task}")
        await carol.subscribe(f"tasks:{task}", KEY)
        run("delete from public.tasks where id = %s", task)
        assert (await bob.update(f"tasks:{task}"))["gone"] is True
        await carol.pong()
        assert {frame["type"] for frame in carol.heard} == {"welcome", "subscribed", "pong"}


@pytest.mark.both_versions
async def test_who_lost_access_hears_no_more(service: Service, run: Callable[..., Any]) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        await bob.subscribe(KEY, f"tasks:{task}")
        await alice.subscribe(KEY)
        run("update public.workspaces set member_ids = '[]' where owner_id = %s", ALICE)
        await service.write(put(task, "after"))
        await alice.update(f"tasks:{task}")
        await bob.pong()
        assert "after" not in json.dumps(bob.heard)


async def test_several_transactions_of_a_wake_up_share_a_frame(service: Service) -> None:
    relay, tasks = service.gateway.relay, [str(uuid.uuid4()) for _ in range(3)]
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await relay.stop()
        for task in tasks:
            await service.write(create(task))
        relay.start()
        frame = await bob.expect("updates")
        assert [update["key"] for update in frame["updates"]] == [f"tasks:{t}" for t in tasks]


async def test_a_read_that_fails_is_repeated_and_loses_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = calls.probe, [psycopg.OperationalError("gone"), psycopg.OperationalError()]

    async def failing(*arguments: Any) -> str:
        if failures:
            raise failures.pop()
        return await real(*arguments)

    monkeypatch.setattr(calls, "probe", failing)
    task = str(uuid.uuid4())
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        service.gateway.hub.forget_all()
        await service.write(create(task))
        assert (await bob.update(f"tasks:{task}"))["version"] == 1
        assert not failures


async def test_an_identity_that_cannot_be_asked_is_told_to_read_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calls.probe

    async def failing(lane: Any, claims: list[str], refs: str, cursor: str) -> str:
        if BOB in str(claims):
            raise psycopg.errors.QueryCanceled("timeout")
        return await real(lane, claims, refs, cursor)

    monkeypatch.setattr(calls, "probe", failing)
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        await bob.subscribe(KEY)
        await alice.subscribe(KEY)
        service.gateway.hub.forget_all()
        task = str(uuid.uuid4())
        await service.write(create(task))
        assert (await bob.expect("stale"))["keys"] == [KEY]
        assert (await alice.update(f"tasks:{task}"))["version"] == 1


async def test_a_feed_that_is_not_understood_makes_everything_stale_and_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = calls.changes
    broken = ["nothing", "{}"]

    async def garbled(*arguments: Any) -> str:
        return broken.pop() if broken else await real(*arguments)

    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        monkeypatch.setattr(calls, "changes", garbled)
        service.gateway.relay.wake()
        assert (await bob.expect("stale"))["reason"] == "behind"
        await until(lambda: not broken and service.gateway.hub.cursor is not None)
        task = str(uuid.uuid4())
        await service.write(create(task))
        assert (await bob.update(f"tasks:{task}"))["version"] == 1


async def test_stopping_ends_also_where_a_cancellation_is_swallowed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, waiting = calls.changes, asyncio.Event()

    async def stubborn(*arguments: Any) -> str:
        waiting.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        monkeypatch.setattr(calls, "changes", real)
        return await real(*arguments)

    monkeypatch.setattr(calls, "changes", stubborn)
    service.gateway.relay.wake()
    await waiting.wait()
    stopped = asyncio.create_task(service.gateway.relay.stop())
    await until(stopped.done)


def test_connection_strings_of_libpq_are_understood() -> None:
    (given,) = asyncpg_servers("host=/run/x user=u dbname=d")
    assert given["host"] == "/run/x"
    (given,) = asyncpg_servers("postgresql://u:p%40@db.example:6432/d?sslmode=require")
    assert given["host"] == "db.example"
    assert given["port"] == 6432
    assert given["password"] == "p@"
    assert given["database"] == "d"
    assert given["ssl"] == "require"
    several = "postgresql://u@one:1,two:2/d?target_session_attrs=read-write"
    assert [
        (server["host"], server["port"], server["target_session_attrs"])
        for server in asyncpg_servers(several)
    ] == [("one", 1, "read-write"), ("two", 2, "read-write")]
    assert [server["port"] for server in asyncpg_servers("host=one,two port=6432")] == [6432] * 2
    assert asyncpg_servers("dbname=d user=u") == [{"database": "d", "user": "u"}]


@pytest.mark.parametrize("levels", [3, 300, 3000])
async def test_a_row_that_nests_very_deep_holds_up_nobody(
    service: Service, run: Callable[..., Any], levels: int
) -> None:
    await service.ready()
    deep, other, made = (str(uuid.uuid4()) for _ in range(3))
    await service.write(create(deep))
    await service.write(create(other))
    await service.caught_up()
    async with service.socket(BOB) as bob:
        cursor = (await bob.subscribe(KEY))["cursor"]
        nested = '{"a":' + "[" * levels + "]" * levels + "}"
        run(
            f"""
            update public.tasks set metadata = '{nested}' where id = '{deep}';
            update public.tasks set title = 'seen' where id = '{other}';
            insert into public.tasks (id, board_id, title, metadata, created_by)
            values ('{made}', '{BOARD}', 'made', '{nested}', '{ALICE}');
            """
        )
        updates: dict[str, Any] = {}
        while (
            f"tasks:{made}" not in updates
        ):  # the three come in one frame, those before perhaps not
            frame = await bob.expect("updates")
            updates |= {update["key"]: update for update in frame["updates"]}
    # Nobody was told to read everything again.
    assert not [frame for frame in bob.heard if frame["type"] == "stale"]
    if levels == 3000:
        assert updates[f"tasks:{deep}"].keys() <= {"key", "version", "txId"}
        assert updates[f"tasks:{made}"].keys() <= {"key", "version", "txId"}
    assert updates[f"tasks:{deep}"]["version"] == 2
    assert updates[f"tasks:{other}"]["patch"]["title"] == "seen"
    async with service.socket(BOB) as bob:
        missed = await bob.subscribe(KEY, cursor=cursor)
        assert missed.get("stale") is None
        told = [update for frame in bob.heard for update in frame.get("updates", ())]
        assert {f"tasks:{deep}", f"tasks:{other}", f"tasks:{made}"} <= {u["key"] for u in told}
