"""Joining a key misses nothing that is committed after `subscribed`, nor while it was asked for."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from app import calls
from tests.gateway.conftest import ALICE, BOB, Service, Socket
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
