"""A steady load beside the convergence test: so many writes a second, each sent until answered.

Writers count up numbers on tasks of a board of their own, so that what was lost or done twice is
seen in a sum. One client holds that board like any other.
"""

import asyncio
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.faults.client import RETRIED
from tests.faults.oracle import Diverged
from tests.faults.scene import Scene
from tests.faults.world import World, token

WRITERS = 48
TASKS_EACH = 4
ANSWER_SECONDS = 4.0


class Load:
    """`build`, then `act` as often as one likes, and `check` at rest."""

    def __init__(self, world: World, scene: Scene, rng: random.Random) -> None:
        self._world = world
        self._scene = scene
        self._rng = rng
        self.user = scene.new_id()
        self.board = scene.new_id()
        self._token = token(self.user)
        self._tasks = [scene.new_id() for _ in range(WRITERS * TASKS_EACH)]
        self._applied = Counter[str]()
        self.milliseconds: list[float] = []
        self._refused: list[str] = []
        self.repeats = 0
        self.seconds = 0.0

    @property
    def writes(self) -> int:
        """How many were applied."""
        return self._applied.total()

    async def build(self) -> None:
        """A workspace with one board, all of it the writers' own."""
        workspace = self._scene.new_id()
        await self._world.rows(
            "insert into public.workspaces (id, name, owner_id) values (%s, 'load', %s)",
            [workspace, self.user],
        )
        await self._world.rows(
            "insert into public.boards (id, workspace_id, name, created_by)"
            " values (%s, %s, 'load', %s)",
            [self.board, workspace, self.user],
        )
        await self._world.rows(
            "insert into public.tasks (id, board_id, title, created_by)"
            " select t, %s, 'load', %s from unnest(%s::uuid[]) t",
            [self.board, self.user, self._tasks],
        )
        self._scene.fixed.update(self._tasks)

    async def act(self, busy: Callable[[], bool], rate: float) -> None:
        """So many writes a second while it is busy. What an outage holds up is made up for."""
        began = time.monotonic()
        numbers = iter(range(1 << 60))

        async def write_on(writer: int) -> None:
            line = Line(self._world.ports, writer)
            try:
                while True:
                    due = began + next(numbers) / rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    if not busy():
                        return
                    await self._write(line, writer)
            finally:
                line.close()

        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(write_on(writer))
        self.seconds += time.monotonic() - began

    async def _write(self, line: "Line", writer: int) -> None:
        task = self._tasks[writer * TASKS_EACH + self._rng.randrange(TASKS_EACH)]
        counted = {"type": "increment", "table": "tasks", "id": task}
        operation = {**counted, "key": "metadata.count", "by": 1}
        body = json.dumps({"txId": self._tx_id(), "operations": [operation]}).encode()
        began = time.monotonic()
        while True:
            status, answer = await line.ask("/api/realtime/write", self._token, body)
            if status == 200:
                break
            if status and status < 500 and status not in RETRIED:
                self._refused.append(f"{status} {answer!r}")
                return
            self.repeats += 1
            await asyncio.sleep(self._rng.uniform(0.05, 0.3))
        self._applied[task] += 1
        self.milliseconds.append((time.monotonic() - began) * 1000)

    def _tx_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    async def check(self) -> None:
        """Each took effect, and once. Raises Diverged. Call it at rest."""
        if self._refused:
            raise Diverged(f"writes of the load were refused: {self._refused[:3]}")
        rows = await self._world.rows(
            "select id::text, coalesce((metadata ->> 'count')::int, 0) as n from public.tasks"
            " where board_id = %s",
            [self.board],
        )
        wrong = {row["id"]: row["n"] for row in rows if row["n"] != self._applied[row["id"]]}
        if wrong or len(rows) != len(self._tasks):
            raise Diverged(f"of the load's {len(rows)} tasks {len(wrong)} count wrong: {wrong}")
        (row,) = await self._world.rows(
            "select count(*) as n from sync_internal.receipts where author = %s", [self.user]
        )
        if row["n"] != self.writes:
            raise Diverged(f"{self.writes} writes of the load have {row['n']} receipts")


class Line:
    """A connection to one gateway after the other, one request at a time."""

    def __init__(self, ports: list[int], number: int) -> None:
        self._ports = ports
        self._number = number
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, bearer: str, body: bytes) -> tuple[int, Any]:
        """Status and body of the answer; 0 where there was none."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._streams is None:
                    port = self._ports[self._number % len(self._ports)]
                    self._streams = await asyncio.open_connection("127.0.0.1", port)
                reader, writer = self._streams
                writer.write(
                    f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n"
                    "Content-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                )
                writer.write(body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].partition("\r\n")[0])
                return int(head.split(" ", 2)[1]), await reader.readexactly(length)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            self._number += 1
            return 0, error

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
