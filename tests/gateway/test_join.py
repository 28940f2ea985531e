"""Joining a key misses nothing that is committed after `subscribed`."""

import asyncio
import contextlib
import uuid

from tests.gateway.conftest import ALICE, BOB, Service, Socket
from tests.gateway.test_socket import create

TIMES = 1000
SOCKETS = 10


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
