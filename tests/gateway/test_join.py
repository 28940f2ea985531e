"""Joining a key misses nothing that is committed after `subscribed`, nor while it was asked for."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from app import calls
from tests.faults.client import Client
from tests.gateway.conftest import ALICE, BOARD, BOB, Service, Socket, token, until
from tests.gateway.test_access import BOARD_OF_CAROL
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


async def test_what_was_read_and_lost_between_two_readings_is_told_by_joining_again(
    service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay sees at once that a row came under his key and that it left again, and cannot ask
    any more whether he saw it between: it must say nothing, since he might have no right to hear.
    He himself has read the row by then, and asks what became of it.
    """
    key, task = f"tasks?assigneeId={BOB}", str(uuid.uuid4())
    real, go_on = calls.changes, asyncio.Event()
    go_on.set()

    async def held(*arguments: Any) -> str:
        await go_on.wait()
        return await real(*arguments)

    run("update public.tasks set assignee_id = null")
    port = int(service.url.rpartition(":")[2])
    client = Client("bob", BOB, token(BOB), port, random.Random(0))
    client.want(key)
    client.open()
    try:
        await until(lambda: client.unrest is None)
        await service.caught_up()
        monkeypatch.setattr(calls, "changes", held)
        go_on.clear()
        service.gateway.relay.wake()
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
        go_on.set()
        await service.caught_up()
        await until(lambda: client.unrest is None and task not in client.view(key))
        print(client.history(("tasks", task)), client.history(("tasks", "")))
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
