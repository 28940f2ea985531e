"""Who hears of what when rights change: answers kept for a class of rows, and what ends them."""

import asyncio
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from app import calls, metrics, rights
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    Socket,
    settings_for,
    token,
    transaction,
    until,
)
from tests.postgres import Database

KEY = f"tasks?boardId={BOARD}"
WORKSPACE = "00000000-0000-7000-8000-0000000a0001"
BOARD_OF_CAROL = "00000000-0000-7000-8000-0000000b0003"

pytestmark = pytest.mark.both_versions


def put(table: str, record: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": "set", "table": table, "id": record, "key": key, "value": value}


def create(task: str) -> dict[str, Any]:
    value = {"boardId": BOARD, "title": "new"}
    return {"type": "create", "table": "tasks", "id": task, "value": value}


async def members(service: Service, *users: str) -> None:
    await service.write(put("workspaces", WORKSPACE, "memberIds", list(users)))


async def stale_keys(socket: Socket, *keys: str) -> set[str]:
    """Waits until all these keys were told to be read again; the reasons given."""
    while True:
        told: dict[str, str] = {}
        for frame in socket.heard:
            if frame["type"] == "stale":
                told |= dict.fromkeys(frame["keys"], frame["reason"])
        if told.keys() >= set(keys):
            return {told[key] for key in keys}
        await socket.expect("stale")


async def test_an_ordinary_edit_asks_nothing(service: Service) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(BOB) as bob, service.socket(CAROL) as carol:
        await bob.subscribe(KEY)
        await carol.subscribe(KEY)
        await service.write(put("tasks", task, "title", "one"))
        await bob.update(f"tasks:{task}")
        asked = metrics.probes.value()
        for title in ("two", "three"):
            await service.write(put("tasks", task, "title", title))
            assert (await bob.update(f"tasks:{task}"))["patch"]["title"] == title
        assert metrics.probes.value() == asked
        await carol.pong()
        assert {frame["type"] for frame in carol.heard} == {"welcome", "subscribed", "pong"}


async def test_an_idle_screen_of_a_removed_member_is_purged(service: Service) -> None:
    task = str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        await bob.subscribe(KEY, f"tasks:{task}", "boards", "comments")
        await alice.subscribe(KEY)
        await members(service)
        assert await bob.update(f"tasks:{task}") == {"key": f"tasks:{task}", "gone": True}
        assert await stale_keys(bob, KEY, "boards") == {"access"}
        await alice.pong()
        assert "stale" not in {frame["type"] for frame in alice.heard}


async def test_a_new_member_is_told_of_what_he_sees_now(service: Service) -> None:
    async with service.socket(CAROL) as carol, service.socket(BOB) as bob:
        await carol.subscribe(KEY, "workspaces", f"boards:{BOARD}")
        await bob.subscribe(KEY)
        await members(service, BOB, CAROL)
        assert await stale_keys(carol, KEY, f"boards:{BOARD}") == {"access"}
        task = str(uuid.uuid4())
        await service.write(create(task))
        assert (await carol.update(f"tasks:{task}"))["record"]["title"] == "new"
        await bob.update(f"tasks:{task}")
        assert "stale" not in {frame["type"] for frame in bob.heard}


async def test_only_the_users_named_by_a_membership_are_asked_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = calls.views

    async def views(lane: Any, claims: list[str], keys: str) -> str:
        asked.extend(claims)
        return await real(lane, claims, keys)

    monkeypatch.setattr(calls, "views", views)
    async with (
        service.socket(ALICE) as alice,
        service.socket(BOB) as bob,
        service.socket(CAROL) as carol,
    ):
        for socket in (alice, bob, carol):
            await socket.subscribe(KEY)
        await members(service, BOB, CAROL)
        await stale_keys(carol, KEY)
        assert all(CAROL in claims for claims in asked)


async def test_a_board_moved_to_another_workspace_takes_its_tasks_along(
    service: Service, run: Callable[..., Any]
) -> None:
    other = str(uuid.uuid4())
    run("insert into public.workspaces (id, name, owner_id) values (%s, 'x', %s)", other, ALICE)
    await service.caught_up()
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        await bob.subscribe(KEY)
        await alice.subscribe(KEY)
        run("update public.boards set workspace_id = %s where id = %s", other, BOARD)
        assert await stale_keys(bob, KEY) == {"access"}
        task = str(uuid.uuid4())
        await service.write(create(task))
        await alice.update(f"tasks:{task}")
        await bob.pong()
        assert task not in json.dumps(bob.heard)


async def test_a_changed_policy_ends_every_answer(
    service: Service, run: Callable[..., Any]
) -> None:
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        run("alter policy tasks_select on public.tasks using (false)")
        frame = await bob.expect("stale")
        assert (frame["keys"], frame["reason"]) == ([KEY], "schema")
        task = str(uuid.uuid4())
        run(
            "insert into public.tasks (id, board_id, title, created_by) values (%s, %s, 'x', %s)",
            task,
            BOARD,
            ALICE,
        )
        await service.caught_up()
        await bob.pong()
        assert task not in json.dumps(bob.heard)


async def test_rights_changed_while_he_was_away_are_told_at_resume(service: Service) -> None:
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        away = (await bob.subscribe(KEY, "boards"))["cursor"]
        stays = (await alice.subscribe(KEY, "boards"))["cursor"]
    await members(service)
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        assert set((await bob.subscribe(KEY, "boards", cursor=away))["stale"]) == {KEY, "boards"}
        assert "stale" not in await alice.subscribe(KEY, "boards", cursor=stays)


async def test_policies_changed_while_no_gateway_ran_are_told_at_resume(
    gateway_dsn: str, run: Callable[..., Any]
) -> None:
    async with Service(settings_for(gateway_dsn)) as service:
        await service.ready()
        async with service.socket(BOB) as bob:
            away = (await bob.subscribe(KEY))["cursor"]
    run("alter policy tasks_select on public.tasks using (board_id is not null)")
    async with Service(settings_for(gateway_dsn)) as service:
        await service.ready()
        async with service.socket(BOB) as bob:
            assert (await bob.subscribe(KEY, cursor=away))["stale"] == [KEY]


async def test_a_policy_that_cannot_be_followed_is_asked_for_each_change(
    service: Service, run: Callable[..., Any]
) -> None:
    run(
        "create function public.opaque() returns boolean language plpgsql volatile as "
        "'begin return true; end'"
    )
    run("alter policy tasks_select on public.tasks using (public.opaque())")
    run("select sync.refresh('public.tasks')")
    async with service.socket(CAROL) as carol:
        cursor = (await carol.subscribe(KEY))["cursor"]
        await service.caught_up()
        task = str(uuid.uuid4())
        await service.write(create(task))
        await carol.update(f"tasks:{task}")
        run(
            "create or replace function public.opaque() returns boolean language plpgsql "
            "volatile as 'begin return false; end'"
        )
        await service.post("/api/realtime/write", transaction(put("tasks", task, "title", "x")))
    async with service.socket(CAROL) as carol:
        assert KEY in (await carol.subscribe(KEY, cursor=cursor))["stale"]


async def test_what_a_second_tab_finds_is_told_to_the_first(
    service: Service, run: Callable[..., Any]
) -> None:
    async with service.socket(CAROL) as one, service.socket(CAROL) as two:
        await one.subscribe(KEY)
        await service.gateway.relay.stop()  # the second asks before the relay has read
        run(
            "insert into public.workspace_members (workspace_id, user_id) values (%s, %s)",
            WORKSPACE,
            CAROL,
        )
        await two.subscribe(KEY)
        service.gateway.relay.start()
        assert await stale_keys(one, KEY) == {"access"}


@pytest.mark.parametrize("same", [True, False], ids=["renewed", "other rights"])
async def test_a_token_renewed_while_he_is_asked_loses_no_flip(
    service: Service, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    real, asked, renewed = calls.views, asyncio.Event(), asyncio.Event()

    async def views(lane: Any, claims: list[str], keys: str) -> str:
        answer = await real(lane, claims, keys)
        if BOB in str(claims) and not asked.is_set():
            asked.set()
            await renewed.wait()
        return answer

    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        await service.caught_up()
        monkeypatch.setattr(calls, "views", views)
        writing = asyncio.create_task(members(service))
        await asked.wait()
        more = {} if same else {"team": "x"}
        await bob.send({"type": "auth", "token": token(BOB, seconds=900, **more)})
        await bob.expect("authed")
        renewed.set()
        await writing
        assert await stale_keys(bob, KEY) == {"access"}


async def test_rights_lost_right_after_being_told_to_read_again_are_told(
    service: Service, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    """What was asked before a grant must not stand for what he has read after it."""
    real, grants = calls.views, [CAROL]

    async def views(lane: Any, claims: list[str], keys: str) -> str:
        answer = await real(lane, claims, keys)
        if CAROL in str(claims) and grants:
            run(
                "insert into public.workspace_members (workspace_id, user_id) values (%s, %s)",
                WORKSPACE,
                grants.pop(),
            )
        return answer

    async with service.socket(CAROL) as carol:
        await carol.subscribe(KEY)
        await service.caught_up()
        (reader,) = service.gateway.hub.readers.values()
        monkeypatch.setattr(calls, "views", views)
        reader.unproven.add(KEY)
        service.gateway.relay.wake()
        assert await stale_keys(carol, KEY) == {"access"}
        await until(lambda: not reader.unproven)
        carol.heard.clear()
        run(
            "delete from public.workspace_members where user_id = %s and workspace_id = %s",
            CAROL,
            WORKSPACE,
        )
        assert await stale_keys(carol, KEY) == {"access"}


async def test_views_are_asked_for_a_bounded_number_at_a_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = calls.views, list[int]()

    async def views(lane: Any, claims: list[str], keys: str) -> str:
        asked.append(len(claims))
        return await real(lane, claims, keys)

    monkeypatch.setattr(rights, "UNPROVEN_KEYS", 2)
    async with (
        service.socket(ALICE) as one,
        service.socket(BOB) as two,
        service.socket(CAROL) as three,
    ):
        for socket in (one, two, three):
            await socket.subscribe(KEY)
        await service.caught_up()
        readers = list(service.gateway.hub.readers.values())
        monkeypatch.setattr(calls, "views", views)
        for reader in readers:
            reader.unproven.add(KEY)
        service.gateway.relay.wake()
        await until(lambda: sum(asked) == len(readers))
        assert asked == [2, 1]


async def test_a_user_written_in_large_letters_loses_his_rights_like_any_other(
    service: Service,
) -> None:
    async with service.socket(BOB.upper()) as bob:
        await bob.subscribe(KEY)
        await members(service)
        assert await stale_keys(bob, KEY) == {"access"}


@pytest.mark.parametrize("when", ["in the same transaction", "before it is asked"])
async def test_a_record_moved_in_bulk_says_nothing_of_the_class_it_left(
    service: Service, db: Database, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What Carol sees of it is asked after it has come to her, without a word of where it was."""
    real, at_once = calls.probe, when == "in the same transaction"
    moved = asyncio.Event()
    conn = db.connect(autocommit=False)

    def move() -> None:
        conn.execute("update public.tasks set board_id = %s", (BOARD_OF_CAROL,))
        moved.set()

    async def probe(*arguments: Any) -> str:
        if not moved.is_set():
            move()
            conn.commit()
        return await real(*arguments)

    task, other = str(uuid.uuid4()), str(uuid.uuid4())
    await service.write(create(task))
    await service.caught_up()
    conn.execute("select sync.configure('max_changes_per_statement', 1)")
    conn.commit()
    async with service.socket(CAROL) as carol:
        await carol.subscribe("tasks")
        await service.caught_up()
        monkeypatch.setattr(calls, "probe", probe)
        conn.execute("update public.tasks set title = 'x' where id = %s", (task,))
        if at_once:
            move()
        conn.commit()
        assert "bulk" in await stale_keys(carol, "tasks")
        assert moved.is_set()
        await service.write(create(other))
        await service.caught_up()
        await carol.pong()
        assert other not in json.dumps(carol.heard)
