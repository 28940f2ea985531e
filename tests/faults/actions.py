"""What happens in a run of the convergence test: people write, somebody uses psql, things break."""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults.client import Client, Record
from tests.faults.scene import Scene
from tests.faults.world import World

Operation = dict[str, Any]
MOST_TASKS = 300
TEXTS = {"workspaces": "name", "boards": "name", "tasks": "title", "notes": "title"}


@dataclass
class Ledger:
    """What was asked of the counters: by transaction, then by task."""

    increments: dict[str, Counter[str]] = field(default_factory=dict)


class Person:
    """Writes at random through a client, of what the client holds and of what it should not."""

    def __init__(self, client: Client, scene: Scene, ledger: Ledger, rng: random.Random) -> None:
        self._client = client
        self._scene = scene
        self._ledger = ledger
        self._rng = rng
        self._words = 0
        self._choices: list[tuple[Callable[[], list[Operation]], int]] = [
            (self._edit, 24),
            (self._set_now, 3),
            (self._path, 6),
            (self._count, 12),
            (self._list, 8),
            (self._create, 10),
            (self._delete_or_restore, 8),
            (self._move, 8),
            (self._comment, 8),
            (self._note, 8),
            (self._private, 4),
            (self._foreign, 4),
            (self._nonsense, 2),
            (self._call, 1),
            (self._members, 3),
            (self._leave, 1),
        ]

    async def act(self, busy: Callable[[], bool], pause: tuple[float, float]) -> None:
        """Writes until it is no longer busy."""
        makers, weights = zip(*self._choices, strict=True)
        while busy():
            await asyncio.sleep(self._rng.uniform(*pause))
            operations: list[Operation] = []
            for _ in range(self._rng.choice((1, 1, 1, 2, 3))):
                operations += self._rng.choices(makers, weights)[0]()
            if operations:
                self._send(operations)
            if self._rng.random() < 0.03:
                await self._change_keys()

    def _send(self, operations: list[Operation]) -> None:
        transaction: dict[str, Any] = {"txId": self._tx_id(), "operations": operations}
        table, record_id = operations[0].get("table", ""), operations[0].get("id", "")
        target = self._client.records.get((table, record_id))
        if target is not None and self._rng.random() < 0.1:
            version = target["version"] - self._rng.choice((0, 0, 1))
            transaction["expect"] = [{"table": table, "id": record_id, "version": version}]
        counted = Counter[str]()
        for operation in operations:
            if operation["type"] == "increment":
                counted[operation["id"]] += operation["by"]
        if counted:
            self._ledger.increments[transaction["txId"]] = counted
        self._client.write(transaction)

    def _tx_id(self) -> str:
        tail = self._rng.getrandbits(80)
        if self._rng.random() < 0.3:
            return str(uuid.UUID(int=tail << 48 | self._rng.getrandbits(48), version=4))
        number = int(time.time() * 1000) << 80 | tail
        number = number & ~(0xF << 76) | 7 << 76
        return str(uuid.UUID(int=number & ~(0x3 << 62) | 2 << 62))

    async def _change_keys(self) -> None:
        some = self._rng.sample(self._scene.tasks, min(3, len(self._scene.tasks)))
        wanted = self._rng.choice(self._scene.interesting_keys(self._client.user, some))
        if wanted in self._client.keys:
            await self._client.leave(wanted)
        else:
            self._client.want(wanted)

    # --- one thing he may do ---------------------------------------------------------------------

    def _held(self, table: str, also_fixed: bool = False) -> Record | None:
        """A record he holds; not what is to stay as it is, unless that is asked for."""
        scene = self._scene
        left_alone: set[str] = {*scene.private, *scene.private_boards, *scene.private_notebooks}
        if not also_fixed:
            left_alone |= scene.fixed
        found = [
            record
            for (name, record_id), record in self._client.records.items()
            if name == table
            and record_id not in left_alone
            and record.get("notebookId") not in left_alone
            and record.get("boardId") not in left_alone
            and record.get("taskId") not in scene.private_tasks
        ]
        return self._rng.choice(found) if found else None

    def _text(self) -> str:
        self._words += 1
        return f"{self._client.name} {self._words}"

    def _edit(self) -> list[Operation]:
        table = self._rng.choice(("tasks", "tasks", "tasks", "boards", "notes", "workspaces"))
        record = self._held(table)
        if record is None:
            return []
        operations = [_set(table, record["id"], TEXTS[table], self._text())]
        if table == "tasks" and self._rng.random() < 0.5:
            key, value = self._rng.choice(
                [
                    ("status", self._rng.choice(("todo", "in_progress", "done"))),
                    ("priority", self._rng.choice(("low", "high", None))),
                    ("dueDate", self._rng.choice(("2030-01-01", None))),
                    ("assigneeId", self._rng.choice((*self._scene.users, None))),
                    ("description", self._text() * self._rng.choice((1, 50))),
                ]
            )
            operations.append(_set(table, record["id"], key, value))
        return operations

    def _set_now(self) -> list[Operation]:
        record = self._held("tasks")
        key = self._rng.choice(("updatedAt", "deleted"))
        return (
            []
            if record is None
            else [{"type": "set-now", "table": "tasks", "id": record["id"], "key": key}]
        )

    def _path(self) -> list[Operation]:
        record = self._held("tasks")
        key = self._rng.choice(("metadata.a", "metadata.b.c", "metadata.b.d.e", "metadata.n"))
        return (
            []
            if record is None
            else [_set("tasks", record["id"], key, self._rng.choice((1, None, {"x": []})))]
        )

    def _count(self) -> list[Operation]:
        by = self._rng.randint(1, 5)
        counter = self._rng.choice(self._scene.counters)
        key = "metadata.count"
        return [{"type": "increment", "table": "tasks", "id": counter, "key": key, "by": by}]

    def _list(self) -> list[Operation]:
        table = self._rng.choice(("tasks", "notes"))
        record = self._held(table, also_fixed=True)
        if record is None:
            return []
        value = f"tag {self._rng.randint(1, 6)}"
        operation = {"table": table, "id": record["id"], "key": "tags", "value": value}
        if self._rng.random() < 0.3:
            return [{"type": "listRemove", **operation}]
        place = self._rng.choice((None, "prepend", "append", {"after": "tag 1"}, {"before": "no"}))
        return [{"type": "listInsert", **operation, **({"position": place} if place else {})}]

    def _create(self) -> list[Operation]:
        table, parent, key = self._rng.choice(
            (
                ("tasks", "boards", "boardId"),
                ("tasks", "boards", "boardId"),
                ("notes", "notebooks", "notebookId"),
            )
        )
        found = self._held(parent)
        if found is None:
            return []
        made, value = self._scene.new_id(), {key: found["id"], "title": self._text()}
        if self._rng.random() < 0.5:
            return [{"type": "create", "table": table, "id": made, "value": value}]
        return [_set(table, made, name, given) for name, given in {**value, "id": made}.items()]

    def _delete_or_restore(self) -> list[Operation]:
        table = self._rng.choice(("tasks", "tasks", "tasks", "notes", "comments", "boards"))
        record = self._held(table)
        if record is None:
            return []
        kind = "delete" if record.get("deleted") is None else "restore"
        if table == "boards":
            kind = self._rng.choice(("restore", "restore", kind))
        return [{"type": kind, "table": table, "id": record["id"]}]

    def _move(self) -> list[Operation]:
        record, board = self._held("tasks"), self._held("boards")
        if record is None or board is None:
            return []
        return [_set("tasks", record["id"], "boardId", board["id"])]

    def _comment(self) -> list[Operation]:
        record = self._held("tasks")
        if record is None:
            return []
        value = {"taskId": record["id"], "content": self._text()}
        made = self._scene.new_id()
        return [{"type": "create", "table": "comments", "id": made, "value": value}]

    def _note(self) -> list[Operation]:
        record = self._held("notes")
        return [] if record is None else [_set("notes", record["id"], "content", self._text())]

    def _private(self) -> list[Operation]:
        mine = [task for task, user in self._scene.private_tasks.items() if self._is_me(user)]
        canary = f"canary-{self._client.user} {self._text()}"
        return [_set("tasks", self._rng.choice(mine), "title", canary)]

    def _foreign(self) -> list[Operation]:
        others = [t for t, user in self._scene.private_tasks.items() if not self._is_me(user)]
        return [_set("tasks", self._rng.choice(others), "title", "mine now")]

    def _nonsense(self) -> list[Operation]:
        record = self._held("tasks")
        return (
            []
            if record is None
            else [
                self._rng.choice(
                    (
                        _set("tasks", record["id"], "nothing", 1),
                        _set("tasks", record["id"], "status", "unheard of"),
                        _set("tasks", record["id"], "createdBy", self._client.user),
                        _set("tasks", record["id"], "boardId", self._scene.new_id()),
                        {"type": "unheard of", "table": "tasks", "id": record["id"]},
                    )
                )
            ]
        )

    def _call(self) -> list[Operation]:
        board = self._held("boards")
        return (
            []
            if board is None
            else [{"type": "call", "fn": "completeBoard", "args": {"boardId": board["id"]}}]
        )

    def _members(self) -> list[Operation]:
        table, key, owned = self._rng.choice(
            (
                ("workspaces", "memberIds", self._scene.shared),
                ("notebooks", "sharedWith", self._scene.shared_notebooks),
            )
        )
        mine = [record_id for record_id, owner in owned.items() if self._is_me(owner)]
        if not mine:
            return []
        kind = self._rng.choice(("listInsert", "listInsert", "listRemove"))
        other = self._rng.choice([user for user in self._scene.users if not self._is_me(user)])
        where = {"table": table, "id": self._rng.choice(mine)}
        return [{"type": kind, **where, "key": key, "value": other}]

    def _leave(self) -> list[Operation]:
        for (table, record_id), record in self._client.records.items():
            if table in ("workspaceMembers", "notebookMembers") and self._is_me(record["userId"]):
                return [{"type": "delete", "table": table, "id": record_id}]
        return []

    def _is_me(self, user: str) -> bool:
        return user == self._client.user


def _set(table: str, record_id: str, key: str, value: Any) -> Operation:
    return {"type": "set", "table": table, "id": record_id, "key": key, "value": value}


class Psql:
    """Somebody who knows nothing of Rowcast changes the tables by plain SQL."""

    def __init__(self, world: World, scene: Scene, rng: random.Random) -> None:
        self._world = world
        self._scene = scene
        self._rng = rng
        self._words = 0
        self._version = 1_000_000_000
        self._choices: list[tuple[Callable[[], Awaitable[object]], int]] = [
            (self._edit, 20),
            (self._secret, 6),
            (self._bulk, 4),
            (self._hard_delete, 6),
            (self._again, 3),
            (self._move, 6),
            (self._insert, 8),
            (self._members, 6),
            (self._rename_id, 1),
            (self._prune, 2),
            (self._truncate, 1),
            (self._board, 2),
        ]

    async def act(self, busy: Callable[[], bool], pause: tuple[float, float]) -> None:
        """Works until it is no longer busy."""
        doers, weights = zip(*self._choices, strict=True)
        while busy():
            await asyncio.sleep(self._rng.uniform(*pause))
            await self._rng.choices(doers, weights)[0]()

    async def dawdle(self, busy: Callable[[], bool]) -> None:
        """Keeps transactions open while others commit: order of commit is not order of writing."""
        while busy():
            try:
                connection = await self._world.connect()
            except psycopg.Error:
                await asyncio.sleep(0.1)
                continue
            try:
                async with connection.transaction():
                    await connection.execute(
                        "update public.tasks set title = %s where id = %s",
                        [self._text(), self._rng.choice(self._scene.tasks)],
                    )
                    await asyncio.sleep(self._rng.uniform(0.1, 1.5))
            except psycopg.Error:
                pass
            finally:
                await connection.close()
            await asyncio.sleep(self._rng.uniform(0.1, 0.5))

    def _text(self) -> str:
        self._words += 1
        return f"psql {self._words}"

    def _shared(self) -> tuple[str, str, str]:
        """Table of members, its column for what they share, and one such thing."""
        if self._rng.random() < 0.7:
            one = self._rng.choice(list(self._scene.shared))
            return "workspace_members", "workspace_id", one
        return (
            "notebook_members",
            "notebook_id",
            self._rng.choice(list(self._scene.shared_notebooks)),
        )

    @property
    def _fixed(self) -> list[str]:
        return list(self._scene.fixed)

    async def _edit(self) -> object:
        return await self._world.sql(
            "update public.tasks set title = %s where id in ("
            " select id from public.tasks where not id = any (%s::uuid[])"
            " order by md5(id::text || %s) limit %s)",
            [self._text(), self._fixed, self._text(), self._rng.choice((1, 1, 2, 5))],
        )

    async def _secret(self) -> object:
        return await self._world.sql(
            "update public.tasks set internal_note = 'canary-column ' || %s where id = %s",
            [self._text(), self._rng.choice((*self._scene.tasks, *self._scene.counters))],
        )

    async def _bulk(self) -> object:
        return await self._world.sql(
            "update public.tasks set priority = %s, internal_note = 'canary-column ' || id",
            [self._rng.choice(("low", "medium", "high"))],
        )

    async def _hard_delete(self) -> object:
        table = self._rng.choice(("tasks", "comments", "notes"))
        return await self._world.sql(
            f"delete from public.{table} where id in (select id from public.{table}"
            " where not id = any (%s::uuid[]) order by md5(id::text || %s) limit 1)",
            [self._fixed, self._text()],
        )

    async def _again(self) -> object:
        """Deleted and made again under the same id in one commit: its version falls.

        No two lives of a record share a version, since `have` tells them apart by that alone.
        """
        found = await self._world.sql(
            "select id from public.tasks where not id = any (%s::uuid[])"
            " order by md5(id::text || %s) limit 1",
            [self._fixed, self._text()],
        )
        if not found:
            return None
        board = self._rng.choice(list(self._scene.boards))
        self._version -= 1000
        # Without parameters: several statements are one transaction then.
        return await self._world.sql(
            f"delete from public.tasks where id = '{found[0]['id']}';"
            " insert into public.tasks (id, board_id, title, created_by, version) values"
            f" ('{found[0]['id']}', '{board}', '{self._text()}', '{self._scene.users[0]}',"
            f" {self._version})"
        )

    async def _move(self) -> object:
        return await self._world.sql(
            "update public.tasks set board_id = %s where id = ("
            " select id from public.tasks where not id = any (%s::uuid[])"
            " order by md5(id::text || %s) limit 1)",
            [self._rng.choice(list(self._scene.boards)), self._fixed, self._text()],
        )

    async def _insert(self) -> object:
        return await self._world.sql(
            "insert into public.tasks (board_id, title, created_by) values (%s, %s, %s)",
            [
                self._rng.choice(list(self._scene.boards)),
                self._text(),
                self._rng.choice(self._scene.users),
            ],
        )

    async def _members(self) -> object:
        """In the membership table itself, past the list that feeds it."""
        table, column, shared = self._shared()
        if self._rng.random() < 0.5:
            return await self._world.sql(
                f"delete from public.{table} where {column} = %s and user_id = %s"
                " and role <> 'owner'",
                [shared, self._rng.choice(self._scene.users)],
            )
        return await self._world.sql(
            f"insert into public.{table} ({column}, user_id) values (%s, %s)"
            " on conflict do nothing",
            [shared, self._rng.choice(self._scene.users)],
        )

    async def _rename_id(self) -> object:
        return await self._world.sql(
            "update public.comments set id = gen_random_uuid() where id = ("
            " select id from public.comments order by md5(id::text || %s) limit 1)",
            [self._text()],
        )

    async def _prune(self) -> object:
        return await self._world.sql(
            "delete from public.tasks where id in ("
            " select id from public.tasks where not id = any (%s::uuid[])"
            " order by created_at desc offset %s)",
            [self._fixed, MOST_TASKS],
        )

    async def _truncate(self) -> object:
        return await self._world.sql("truncate public.comments")

    async def _board(self) -> object:
        """A board changes hands with all that is on it."""
        return await self._world.sql(
            "update public.boards set workspace_id = %s where id = %s",
            [
                self._rng.choice(list(self._scene.shared)),
                self._rng.choice(list(self._scene.boards)),
            ],
        )


class Chaos:
    """Breaks one thing after the other and mends it again."""

    def __init__(self, world: World, clients: list[Client], rng: random.Random) -> None:
        self._world = world
        self._clients = clients
        self._rng = rng
        self.counts = Counter[str]()
        self.spared: set[int] = set()  # gateways that are not killed
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "client cut": self._cut_clients,
            "client delay": self._delay_clients,
            "client half open up": lambda: self._half_open_clients("up"),
            "client half open down": lambda: self._half_open_clients("down"),
            "client refused": self._refuse_clients,
            "one client cut": self._cut_one,
            "database cut": self._cut_database,
            "database delay": self._delay_database,
            "database half open up": lambda: self._half_open_database("up"),
            "database half open down": lambda: self._half_open_database("down"),
            "database refused": self._refuse_database,
            "gateway killed": self._kill_gateway,
            "postgres killed": self._kill_postgres,
            "backend killed": self._world.kill_backend,
        }

    async def act(
        self, busy: Callable[[], bool], pause: tuple[float, float], kinds: list[str]
    ) -> None:
        """Every kind once in a random order, again and again, until it is no longer busy."""
        left: list[str] = []
        while busy():
            await asyncio.sleep(self._rng.uniform(*pause))
            if not left:
                left = self._rng.sample(kinds, len(kinds))
            if busy():
                kind = left.pop()
                self.counts[kind] += 1
                await self.faults[kind]()
                self._world.heal()

    async def _last(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    async def _cut_clients(self) -> None:
        self._rng.choice(self._world.client_proxies).cut()

    async def _cut_one(self) -> None:
        self._rng.choice(self._clients).disconnect()

    async def _delay_clients(self) -> None:
        self._rng.choice(self._world.client_proxies).delay_seconds = self._rng.uniform(0.02, 0.2)
        await self._last()

    async def _half_open_clients(self, direction: str) -> None:
        proxy = self._rng.choice(self._world.client_proxies)
        proxy.half_open(direction, new_ones=self._rng.random() < 0.3)
        await self._last()

    async def _refuse_clients(self) -> None:
        self._rng.choice(self._world.client_proxies).refuse()
        await self._last()

    async def _cut_database(self) -> None:
        self._world.database_proxy.cut()

    async def _delay_database(self) -> None:
        self._world.database_proxy.delay_seconds = self._rng.uniform(0.005, 0.05)
        await self._last()

    async def _half_open_database(self, direction: str) -> None:
        self._world.database_proxy.half_open(direction, new_ones=self._rng.random() < 0.3)
        await self._last()

    async def _refuse_database(self) -> None:
        self._world.database_proxy.refuse()
        await self._last()

    async def _kill_gateway(self) -> None:
        mortal = sorted({*range(len(self._world.gateways))} - self.spared)
        self._world.kill_gateway(self._rng.choice(mortal))

    async def _kill_postgres(self) -> None:
        self._world.kill_postgres()
