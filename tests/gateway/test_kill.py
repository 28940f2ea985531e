"""`kill -9` under load: what was acknowledged is there exactly once, and a retry answers the same.

Every transaction adds one to two counters and puts a word of its own into a list, so that neither a
lost one nor one that took effect twice can hide.
"""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app import embedded, migrate
from tests.gateway.conftest import (
    ALICE,
    BOB,
    Process,
    Service,
    eventually,
    settings_for,
    token,
    transaction,
)
from tests.gateway.test_socket import create
from tests.postgres import Database

WRITE = "/api/realtime/write"
SHARED = "00000000-0000-7000-8000-0000000c0001"
WRITERS = (ALICE, BOB, ALICE, BOB, ALICE, BOB)
KILLS = 3
BETWEEN = 40  # transactions acknowledged before the next kill
PATIENCE_SECONDS = 30.0

Post = Callable[[dict[str, Any], str], Awaitable[httpx.Response]]


def counted(task: str, path: str) -> dict[str, Any]:
    return {"type": "increment", "table": "tasks", "id": task, "key": path, "by": 1}


@dataclass
class Load:
    """Several writers who send the same again until it is answered, and what they were told."""

    post: Post
    own: list[str] = field(default_factory=lambda: [str(uuid.uuid4()) for _ in WRITERS])
    sent: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    retried: int = 0

    async def deliver(self, body: dict[str, Any], user: str) -> dict[str, Any]:
        """The answer, however often it takes."""
        answer: dict[str, Any] = {}

        async def attempt() -> bool:
            try:
                reply = await self.post(body, user)
            except httpx.TransportError:
                self.retried += 1
                return False
            if reply.status_code == 503:
                self.retried += 1
                return False
            assert reply.status_code == 200, reply.text
            answer.update(reply.json())
            return True

        await eventually(attempt, PATIENCE_SECONDS)
        return answer

    async def write(self, number: int, stop: asyncio.Event) -> None:
        user, own = WRITERS[number], self.own[number]
        await self.deliver(transaction(create(own)), user)
        while not stop.is_set():
            word = str(uuid.uuid4())
            body = transaction(
                counted(own, "metadata.count"),
                counted(SHARED, "metadata.count"),
                {"type": "listInsert", "table": "tasks", "id": own, "key": "tags", "value": word},
                tx_id=word,
            )
            self.sent[word] = user, body
            self.told[word] = await self.deliver(body, user)

    async def run(self, kill: Callable[[], Awaitable[None]]) -> None:
        """Writes, with kills in between, until some were acknowledged after the last one."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for number in range(len(WRITERS)):
                group.create_task(self.write(number, stop))
            try:
                for _ in range(KILLS):
                    await self.more()
                    await kill()
                await self.more()
            finally:
                stop.set()

    async def more(self) -> None:
        enough = len(self.told) + BETWEEN

        async def grown() -> bool:
            return len(self.told) >= enough

        await eventually(grown, PATIENCE_SECONDS)

    async def check(self, dsn: str) -> None:
        """Everything acknowledged took effect once, has one receipt, and answers the same."""
        before = state(dsn, self.own)
        for word, (user, body) in self.sent.items():
            again = [await self.deliver(body, user) for _ in range(2)]
            assert [answer["status"] for answer in again] == ["duplicate"] * 2
            assert again[0] == again[1]
            assert again[0]["versions"] == self.told[word]["versions"]
            assert again[0]["txId"] == word
        assert state(dsn, self.own) == before
        assert self.told.keys() == self.sent.keys()
        assert before.shared == len(self.told)
        assert sum(before.counts.values()) == len(self.told)
        assert before.words.keys() == self.told.keys()
        assert set(before.words.values()) == {1}
        assert before.counts == before.lists
        # Created once, then one version for each transaction and none beside.
        assert before.versions == {task: count + 1 for task, count in before.counts.items()}
        assert self.told.keys() <= before.receipts.keys()
        assert set(before.receipts.values()) == {1}
        assert len(before.receipts) == len(self.told) + len(WRITERS)


@dataclass
class State:
    """What is stored: counters, words and how often each, versions, receipts."""

    shared: int
    counts: dict[str, int]
    lists: dict[str, int]
    versions: dict[str, int]
    words: Counter[str]
    receipts: Counter[str]


def state(dsn: str, own: list[str]) -> State:
    with psycopg.connect(dsn) as connection:
        shared = connection.execute(
            "select (metadata ->> 'count')::integer from public.tasks where id = %s", [SHARED]
        ).fetchone()
        assert shared is not None
        rows = connection.execute(
            "select id::text, (metadata ->> 'count')::integer, tags, version"
            " from public.tasks where id = any (%s::uuid[])",
            [own],
        ).fetchall()
        receipts = connection.execute("select tx_id::text from sync_internal.receipts").fetchall()
    return State(
        shared[0],
        {row[0]: row[1] for row in rows},
        {row[0]: len(row[2]) for row in rows},
        {row[0]: row[3] for row in rows},
        Counter(word for row in rows for word in row[2]),
        Counter(row[0] for row in receipts),
    )


# --- the gateway ---------------------------------------------------------------------------------


async def test_kill_9_of_the_gateway_under_load(process: tuple[Process, str], db: Database) -> None:
    gateway, address = process
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=5) as http:

        async def post(body: dict[str, Any], user: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {token(user)}"}
            return await http.post(WRITE, content=json.dumps(body), headers=headers)

        async def kill() -> None:
            await asyncio.to_thread(gateway.end, signal.SIGKILL)
            gateway.start()

        load = Load(post)
        await load.run(kill)
        assert load.retried >= KILLS
        await load.check(db.dsn())


# --- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[embedded.Server]:
    """A server as `rowcast run` starts it: every commit flushed, watched, brought back."""
    server = embedded.Server(tmp_path / "data")
    server.start()
    migrate.create_database(server.dsn(database="postgres"), embedded.DATABASE)
    migrate.migrate(server.dsn(), examples=True)
    yield server
    server.stop()
    embedded.reset(tmp_path / "data")


def kill_all(postmaster: int) -> None:
    """The postmaster first, so that it cannot tidy up, then all it had started."""
    try:
        listed = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    except OSError:
        listed = []
    for pid in (postmaster, *map(int, listed)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_kill_9_of_postgres_under_load(durable: embedded.Server) -> None:
    with psycopg.connect(durable.dsn()) as connection:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            row = connection.execute("select current_setting(%s)", [name]).fetchone()
            assert row == ("on",)

    killed: list[int] = []
    async with Service(settings_for(durable.dsn("rowcast_gateway"))) as service:
        await service.ready()

        async def post(body: dict[str, Any], user: str) -> httpx.Response:
            return await service.post(WRITE, body, user)

        async def kill() -> None:
            left = embedded.read_pid_file(durable.data)
            assert left is not None
            killed.append(left.pid)
            kill_all(left.pid)

        load = Load(post)
        await load.run(kill)
        assert len(set(killed)) == KILLS
        await load.check(durable.dsn())

        async def ready() -> bool:
            return (await service.http.get("/readyz")).status_code == 200

        await eventually(ready)
