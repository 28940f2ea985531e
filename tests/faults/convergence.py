"""The convergence test: people write, psql writes, things break; at rest everybody holds the truth.

A run is rounds of work under faults, each followed by rest and by every check there is. The seed
decides who is there and what is tried; when it happens is up to the machine.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.actions import Chaos, Ledger, Person, Psql
from tests.faults.client import Client
from tests.faults.load import Load
from tests.faults.oracle import Diverged, Secrecy, Truth, check_receipts, difference, explain
from tests.faults.scene import Scene
from tests.faults.world import World, token

CLIENTS = 10  # two of the users have two devices
# A run that has not come to rest by then has failed: a second is the rule, but a busy machine may
# take half a minute to come back from its faults.
REST_SECONDS = 90.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Pace:
    """How busy a round is: its length, and pauses between what people, psql and chaos do."""

    seconds: float
    people: tuple[float, float]
    psql: tuple[float, float]
    chaos: tuple[float, float]


@dataclass
class Report:
    """What a round did, for the line that tells of it."""

    writes: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    told: int = 0
    rest_seconds: float = 0.0


class Run:
    """One installation with its clients. Make it by `running`, then do `round` after `round`."""

    def __init__(self, world: World, seed: str) -> None:
        self.world = world
        self.seed = seed
        self.scene = Scene(self._rng("scene"))
        self.secrecy = Secrecy()
        self.ledger = Ledger()
        self.clients: list[Client] = []
        self.chaos = Chaos(world, self.clients, self._rng("chaos"))
        self._truth = Truth(world)
        self._people: list[Person] = []
        self._psql: Psql | None = None
        self._load: Load | None = None
        self._rate = 0.0

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    async def begin(self) -> None:
        """Builds the scene and lets everybody in."""
        await self.scene.build(self.world)
        rng = self._rng("keys")
        for number in range(CLIENTS):
            user = self.scene.users[number % len(self.scene.users)]
            name = f"client {number}"
            port = self.world.ports[number % len(self.world.ports)]
            client = Client(name, user, token(user), port, self._rng(name), self.secrecy.hear)
            some = rng.sample(self.scene.tasks, 3)
            choice = self.scene.interesting_keys(user, some)
            client.want("workspaces", "notebooks", f"workspaceMembers?userId={user}")
            client.want(*rng.sample(choice, min(12, len(choice))))
            client.open()
            self.clients.append(client)
            self._people.append(
                Person(client, self.scene, self.ledger, self._rng(f"person {number}"))
            )
        self._psql = Psql(self.world, self.scene, self._rng("psql"))
        await self.rest()

    async def bear(self, rate: float) -> Load:
        """From now on rounds have so many writes a second besides, by `Load`."""
        self._rate, self._load = rate, Load(self.world, self.scene, self._rng("load"))
        await self._load.build()
        user, rng = self._load.user, self._rng("load's client")
        client = Client("load", user, token(user), self.world.ports[-1], rng, self.secrecy.hear)
        client.want(f"tasks?boardId={self._load.board}")
        client.open()
        self.clients.append(client)
        return self._load

    async def end(self) -> None:
        for client in self.clients:
            await client.close()

    async def round(self, pace: Pace, kinds: list[str]) -> Report:
        """Work under these kinds of faults, then rest, then every check. Raises Diverged."""
        assert self._psql is not None
        until = time.monotonic() + pace.seconds

        def busy() -> bool:
            return time.monotonic() < until

        before = sum(len(client.outcomes) for client in self.clients)
        async with asyncio.TaskGroup() as group:
            for person in self._people:
                group.create_task(person.act(busy, pace.people))
            group.create_task(self._psql.act(busy, pace.psql))
            group.create_task(self._psql.dawdle(busy))
            if self._load is not None:
                group.create_task(self._load.act(busy, self._rate))
            if kinds:
                group.create_task(self.chaos.act(busy, pace.chaos, kinds))
        self.world.heal()
        report = Report(rest_seconds=await self.rest())
        but = self._load.user if self._load is not None else ""
        await check_receipts(self.world, self.clients, self.ledger, but)
        report.told = await self.secrecy.check(self.world)
        report.statuses = Counter(
            outcome.status for client in self.clients for outcome in client.outcomes.values()
        )
        report.writes = sum(len(client.outcomes) for client in self.clients) - before
        return report

    async def rest(self) -> float:
        """Waits until every client holds the truth. Returns the seconds it took."""
        began = time.monotonic()
        while True:
            self._fail_on_faults()
            found = await self._difference()
            if found is None:
                return time.monotonic() - began
            if time.monotonic() - began > REST_SECONDS:
                raise Diverged(found)
            await asyncio.sleep(LOOK_SECONDS)

    async def _difference(self) -> str | None:
        for client in self.clients:
            if (unrest := client.unrest) is not None:
                return f"{client.name} does not come to rest: {unrest}"
        try:
            truth = await self._truth.of({client.user for client in self.clients})
        except OSError as error:
            return f"no database: {error}"
        for client in self.clients:
            found = difference(client, truth[client.user])
            if found is not None:
                return await explain(self.world, client, *found)
        return None

    def _fail_on_faults(self) -> None:
        for client in self.clients:
            if client.faults:
                raise Diverged(f"{client.name}: {client.faults[:3]}")


@contextlib.asynccontextmanager
async def running(
    home: Path, seed: str, gateways: int = 2, postgres_bin: Path | None = None
) -> AsyncIterator[Run]:
    """A run in a folder of its own. What fails in it says its seed."""
    async with World(home, gateways, postgres_bin) as world:
        run = Run(world, seed)
        try:
            await run.begin()
            yield run
        except Diverged as error:
            raise Diverged(f"seed {seed}: {error}") from None
        finally:
            await run.end()
