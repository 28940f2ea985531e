"""Joining a key misses nothing that is committed after `subscribed`, nor while it was asked for."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app import calls
from tests.faults.client import Client
from tests.gateway.conftest import ALICE, BOARD, BOB, Service, Socket, token, until
from tests.gateway.test_audiences import BOARD_OF_CAROL, OTHER_BOARD
from tests.gateway.test_socket import KEY, create

TIMES = 1000
SOCKETS = 10


async def test_who_loses_access_while_he_joins_is_told_to_read_again(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked, go_on = calls.subscribe, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> str:
        answer = await real(*arguments)
        asked.set()
        await go_on.wait()
        return answer

    async with service.socket(BOB) as bob:
        monkeypatch.setattr(calls, "subscribe", slow)
        joining = asyncio.create_task(bob.subscribe(KEY))
        await asked.wait()
        run("delete from public.workspace_members where user_id = %s and role = 'member'", BOB)
        await service.caught_up()
        go_on.set()
        await joining
        assert KEY in (await bob.expect("stale"))["keys"]


class Held:
    """The relay's readings of the feed, which wait while they are held: before they see anything,
    or `after`.
    """

    def __init__(
        self, service: Service, monkeypatch: pytest.MonkeyPatch, *, after: bool = False
    ) -> None:
        self._service, self._after = service, after
        self._real, self._go_on = calls.changes, asyncio.Event()
        self._go_on.set()
        self._seen = asyncio.Event()
        monkeypatch.setattr(calls, "changes", self._changes)

    async def _changes(self, *arguments: Any) -> str:
        if not self._after:
            await self._go_on.wait()
        answer: str = await self._real(*arguments)
        self._seen.set()
        await self._go_on.wait()
        return answer

    async def hold(self) -> None:
        self._go_on.clear()
        self._seen.clear()
        self._service.gateway.relay.wake()
        if self._after:
            await self._seen.wait()

    async def let_go(self) -> None:
        self._go_on.set()
        await self._service.caught_up()


@contextlib.asynccontextmanager
async def at_rest(service: Service, key: str) -> AsyncIterator[Client]:
    """Bob with one key, who has read and joined it."""
    port = int(service.url.rpartition(":")[2])
    client = Client("bob", BOB, token(BOB), port, random.Random(0))
    client.want(key)
    client.open()
    try:
        await until(lambda: client.unrest is None)
        await service.caught_up()
        yield client
        assert not client.faults
    finally:
        await client.close()


@pytest.mark.parametrize("another", [False, True])
async def test_what_was_read_and_lost_between_two_readings_is_told_by_joining_again(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """The relay sees at once that a row came under his key and that it left again, and cannot ask
    any more whether he saw it between: it must say nothing, since he might have no right to hear.
    He himself has read the row by then, and asks what became of it. `another` has come under the
    key when he asks, so that he is known to see something there.
    """
    key, task = f"tasks?assigneeId={BOB}", str(uuid.uuid4())
    run("update public.tasks set assignee_id = null")
    async with at_rest(service, key) as client:
        held = Held(service, monkeypatch)
        await held.hold()
        run(
            "insert into public.tasks (id, board_id, title, assignee_id, created_by) "
            "values (%s, %s, 'for a moment', %s, %s)",
            task,
            BOARD,
            BOB,
            ALICE,
        )
        client.reread()
        await until(lambda: task in client.view(key))
        run("update public.tasks set board_id = %s where id = %s", BOARD_OF_CAROL, task)
        if another:
            run(
                "insert into public.tasks (board_id, title, assignee_id, created_by) "
                "values (%s, 'another', %s, %s)",
                OTHER_BOARD,
                BOB,
                ALICE,
            )
        await held.let_go()
        await until(lambda: client.unrest is None and task not in client.view(key))
        assert len(client.view(key)) == another


@pytest.mark.parametrize("apart", [False, True])
async def test_rights_that_came_back_between_two_readings_are_told_by_joining_again(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """He reads while his rights are away, and PostgreSQL is asked what he sees when he has them
    again: nothing was lost, it seems. `apart`: what gave them back is in the next reading only, and
    he asks before the first one has begun.
    """
    key = f"tasks?boardId={BOARD}"
    async with at_rest(service, key) as client:
        seen = client.view(key)
        assert seen
        held = Held(service, monkeypatch, after=apart)
        await held.hold()
        remove = "update public.workspaces set member_ids = member_ids - %s"
        give = "update public.workspaces set member_ids = member_ids || to_jsonb(%s::text)"
        where = " where id = (select workspace_id from public.boards where id = %s)"
        run(remove + where, BOB, BOARD)
        client.reread()
        await until(lambda: not client.view(key))
        if apart:
            real = calls.views

            async def late(*arguments: Any) -> str:
                """What is asked after the reading was made finds more than is in it."""
                monkeypatch.setattr(calls, "views", real)
                run(give + where, BOB, BOARD)
                return await real(*arguments)

            monkeypatch.setattr(calls, "views", late)
        else:
            run(give + where, BOB, BOARD)
        await held.let_go()
        await until(lambda: client.unrest is None and client.view(key) == seen)


async def test_joining_again_says_nothing_of_what_is_hidden(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pretends to have found something hears no more than who did not, also while
    PostgreSQL is asked about him.
    """
    real, go_on = calls.views, asyncio.Event()
    go_on.set()

    async def held(*arguments: Any) -> str:
        await go_on.wait()
        return await real(*arguments)

    monkeypatch.setattr(calls, "views", held)
    board, tasks = f"tasks?boardId={BOARD_OF_CAROL}", [str(uuid.uuid4()) for _ in range(2)]
    keys = (board, *(f"tasks:{task}" for task in tasks))
    run(
        "insert into public.tasks (id, board_id, title, created_by) "
        "select task, %s, 'hidden', %s from unnest(%s::uuid[]) task",
        BOARD_OF_CAROL,
        ALICE,
        tasks,
    )
    await service.caught_up()
    async with service.socket(BOB) as bob, service.socket(BOB) as other:
        old = (await bob.subscribe(*keys))["cursor"]
        await other.subscribe(*keys)
        run("delete from public.tasks where id = %s", tasks[0])
        await service.caught_up()
        go_on.clear()
        bob.heard.clear()
        other.heard.clear()
        found, empty = await asyncio.gather(
            bob.subscribe(*keys, cursor=old), other.subscribe(*keys, cursor=old, empty=True)
        )
        run("delete from public.tasks where id = %s", tasks[1])
        go_on.set()
        await service.caught_up()
        await bob.unsubscribe(*keys)
        await other.unsubscribe(*keys)
        assert found["stale"] == list(keys)
        assert "stale" not in empty
        assert found["versions"] == empty["versions"] == {}
        for socket in (bob, other):
            assert [frame["type"] for frame in socket.heard] == ["subscribed", "unsubscribed"]


@pytest.mark.parametrize("followed", [True, False])
async def test_joining_again_comes_to_an_end(
    service: Service, run: Callable[..., Any], followed: bool
) -> None:
    """Also where a resume is always told to read again, and while others go on in the dark."""
    if not followed:
        run(
            "create function public.unknown() returns boolean language plpgsql volatile"
            " as 'begin return true; end'"
        )
        run("alter policy tasks_select on public.tasks using (public.unknown())")
    port = int(service.url.rpartition(":")[2])
    client = Client("bob", BOB, token(BOB), port, random.Random(0))
    read = client._read_pages

    async def disturbed(key: Any) -> Any:
        """Between each read and the joining that follows it something happens that he must not
        hear of.
        """
        answer = await read(key)
        if not followed:
            return answer
        hidden = str(uuid.uuid4())
        run(
            "insert into public.tasks (id, board_id, title, created_by) values (%s, %s, '', %s)",
            hidden,
            BOARD_OF_CAROL,
            ALICE,
        )
        run("delete from public.tasks where id = %s", hidden)
        run(
            "insert into public.boards (id, workspace_id, name, created_by) "
            "select gen_random_uuid(), workspace_id, 'other', created_by from public.boards "
            "where id = %s",
            BOARD_OF_CAROL,
        )
        return answer

    client._read_pages = disturbed  # type: ignore[method-assign]
    client.want("tasks")
    client.open()
    try:
        await until(lambda: client.unrest is None)
        client.reread()
        await until(lambda: client.unrest is None)
        assert client.view("tasks")
        assert not client.faults
    finally:
        await client.close()


async def test_a_write_immediately_after_subscribed_is_never_missed(service: Service) -> None:
    async def join_and_write(socket: Socket, number: int) -> None:
        task, person = str(uuid.uuid4()), str(uuid.uuid4())
        key = (f"tasks:{task}", f"tasks?assigneeId={person}", "tasks")[number % 3]
        await socket.subscribe(key)
        writing = asyncio.create_task(service.write(create(task, assigneeId=person)))
        assert (await socket.update(f"tasks:{task}"))["version"] == 1
        await writing
        socket.heard.clear()
        await socket.unsubscribe(key)

    async def again_and_again(socket: Socket) -> None:
        for number in range(TIMES // SOCKETS):
            await join_and_write(socket, number)

    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(service.socket((ALICE, BOB)[number % 2]))
            for number in range(SOCKETS)
        ]
        async with asyncio.TaskGroup() as group:
            for socket in sockets:
                group.create_task(again_and_again(socket))
