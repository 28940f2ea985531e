"""Two gateways on one database: one keeps answers by classes of rows, the other asks PostgreSQL for
each change and each user. Whatever happens, their clients hold the same.
"""

import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.faults.client import Client
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    settings_for,
    token,
    until,
)
from tests.postgres import Database

STEPS = 60
WORKSPACE = "00000000-0000-7000-8000-0000000a0001"
USERS = {"alice": ALICE, "bob": BOB, "carol": CAROL}


class Story:
    """Random changes of rows and rights, by plain SQL."""

    def __init__(self, run: Callable[..., Any], seed: int) -> None:
        self._run = run
        self._random = random.Random(seed)
        self.boards: list[str] = run("select array_agg(id::text order by id) from public.boards")
        self._workspaces: list[str] = run(
            "select array_agg(id::text order by id) from public.workspaces"
        )
        self.told: list[str] = []

    def step(self) -> bool:
        """Does something. Returns whether it changed rights through another table."""
        name, statement, *values = self._random.choice(self._choices())
        self.told.append(f"{name} {values}")
        self._run(statement, *values)
        return name in ("member", "no member", "board moves")

    def _choices(self) -> list[tuple[Any, ...]]:
        pick = self._random.choice
        task = self._run("select id::text from public.tasks order by random() limit 1")
        user, board, workspace = (
            pick(list(USERS.values())),
            pick(self.boards),
            pick(self._workspaces),
        )
        word = f"word {self._random.randrange(1000)}"
        return [
            ("edit", "update public.tasks set title = %s where id = %s", word, task),
            ("edit", "update public.tasks set title = %s where id = %s", word, task),
            (
                "create",
                "insert into public.tasks (id, board_id, title, created_by) "
                "values (%s, %s, %s, %s)",
                str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
                board,
                word,
                ALICE,
            ),
            ("move", "update public.tasks set board_id = %s where id = %s", board, task),
            ("soft delete", "update public.tasks set deleted = now() where id = %s", task),
            ("restore", "update public.tasks set deleted = null where id = %s", task),
            ("delete", "delete from public.tasks where id = %s", task),
            ("bulk", "update public.tasks set title = title || '.' where board_id = %s", board),
            (
                "member",
                "insert into public.workspace_members (workspace_id, user_id) values (%s, %s) "
                "on conflict do nothing",
                workspace,
                user,
            ),
            (
                "no member",
                "delete from public.workspace_members where workspace_id = %s and user_id = %s "
                "and role = 'member'",
                workspace,
                user,
            ),
            (
                "board moves",
                "update public.boards set workspace_id = %s where id = %s",
                workspace,
                board,
            ),
        ]


@asynccontextmanager
async def clients(service: Service, keys: list[str]) -> AsyncIterator[dict[str, Client]]:
    """A client per user, all with the same keys."""
    port = service.listener.getsockname()[1]
    opened = {
        name: Client(name, user, token(user), port, random.Random(0))
        for name, user in USERS.items()
    }
    for client in opened.values():
        client.open()
        client.want(*keys)
    try:
        yield opened
    finally:
        for client in opened.values():
            await client.close()


@pytest.mark.both_versions
async def test_answers_by_class_and_answers_one_by_one_show_the_same(
    db: Database, gateway_dsn: str, run: Callable[..., Any]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    story = Story(run, seed)
    keys = [
        "tasks",
        "boards",
        f"tasks?boardId={BOARD}",
        *(f"tasks?boardId={b}" for b in story.boards[:2]),
    ]
    async with (
        Service(settings_for(gateway_dsn)) as quick,
        Service(settings_for(gateway_dsn)) as oracle,
    ):
        rights = oracle.gateway.relay.rights
        load = rights.load

        async def load_and_trust_nothing() -> None:
            await load()
            rights.policies.cacheable.clear()

        rights.load = load_and_trust_nothing  # type: ignore[method-assign]
        await quick.ready()
        await oracle.ready()
        rights.policies.cacheable.clear()
        assert quick.gateway.relay.rights.policies.cacheable
        async with clients(quick, keys) as mine, clients(oracle, keys) as theirs:
            for number in range(STEPS):
                other_rights = story.step()
                await quick.caught_up()
                await oracle.caught_up()
                if other_rights:
                    # Of these the oracle knows nothing: it is asked each time.
                    for client in theirs.values():
                        client.reread()

                def differing() -> list[str]:
                    return [
                        f"{name} {key}"
                        for name in USERS
                        for key in keys
                        if mine[name].view(key) != theirs[name].view(key)
                    ]

                def at_rest() -> bool:
                    everybody = [*mine.values(), *theirs.values()]
                    return all(each.unrest is None for each in everybody) and not differing()

                try:
                    await until(at_rest)
                except TimeoutError:
                    pytest.fail(
                        f"seed {seed}, step {number}: {differing()} after {story.told[-5:]}"
                    )
            assert not rights.policies.cacheable
