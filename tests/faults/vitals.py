"""What must not grow in a long run, measured at rest and, for what fills, all the time."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.results import Bound
from tests.faults.load import Load
from tests.faults.world import POOL_SIZE, World

MIB = 1024 * 1024
LOOK_SECONDS = 1.0
# A gateway's connections: requests, relay, what may wait, the doorbell's two.
SESSIONS = POOL_SIZE + 2 + 2 + 2

QUEUE = "select pg_notification_queue_usage() as queue"
SESSIONS_NOW = """
select count(*) as sessions from pg_stat_activity
where usename = 'rowcast_gateway' and datname = current_database()
"""
SIZES = """
select
    (
        select sum(pg_total_relation_size(i.inhrelid))::bigint
        from pg_inherits i where i.inhparent = 'sync_internal.changes'::regclass
    ) as feed,
    (select count(*) from sync_internal.changes) as changes,
    pg_total_relation_size('sync_internal.receipts') as receipts,
    pg_total_relation_size('public.tasks') as tasks,
    (
        select sum(pg_total_relation_size(c.oid))::bigint from pg_class c
        where c.relkind in ('r', 'm') and c.oid >= 16384
    ) as total,
    (
        select count(*) from pg_stat_activity
        where usename = 'rowcast_gateway' and datname = current_database()
    ) as sessions,
    pg_notification_queue_usage() as queue
"""


@dataclass
class Sample:
    """At rest. Bytes, and numbers of connections and open files."""

    memory: int
    files: int
    sessions: int
    changes: int
    feed: int
    receipts: int
    tasks: int
    others: int


@dataclass
class Vitals:
    """`look` at each rest, `watching` meanwhile. Memory is that of a gateway nobody kills."""

    world: World
    gateway: int
    samples: list[Sample] = field(default_factory=list)
    queue: float = 0.0

    async def look(self) -> Sample:
        """Takes a sample."""
        await self._settle()
        (row,) = await self.world.rows(SIZES)
        child = self.world.gateways[self.gateway]._child
        assert child is not None
        place = Path(f"/proc/{child.pid}")
        said = dict(
            line.split(":", 1)
            for line in (place / "status").read_text().splitlines()
            if ":" in line
        )
        sample = Sample(
            memory=int(said["VmRSS"].split()[0]) * 1024,
            files=await self._files(place),
            sessions=row["sessions"],
            changes=row["changes"],
            feed=row["feed"],
            receipts=row["receipts"],
            tasks=row["tasks"],
            others=row["total"] - row["feed"] - row["receipts"] - row["tasks"],
        )
        self.queue = max(self.queue, row["queue"])
        self.samples.append(sample)
        return sample

    async def _settle(self) -> None:
        """Until PostgreSQL has heard of what proxies have swallowed."""
        for proxy in self.world.proxies:
            proxy.bury()
        for _ in range(100):
            if await self._sessions() <= self.world.database_proxy.open_links:
                return
            await asyncio.sleep(0.1)

    async def _files(self, place: Path) -> int:
        """Once connections that wait for another request are closed, which takes five seconds."""
        fewest = len(list((place / "fd").iterdir()))
        for _ in range(60):
            await asyncio.sleep(0.1)
            fewest = min(fewest, len(list((place / "fd").iterdir())))
        return fewest

    async def _sessions(self) -> int:
        (row,) = await self.world.rows(SESSIONS_NOW)
        return int(row["sessions"])

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks once a second at what may fill in between."""

        async def look() -> None:
            while True:
                for row in await self.world.sql(QUEUE) or ():
                    self.queue = max(self.queue, row["queue"])
                await asyncio.sleep(LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking

    def of_load(self, load: Load, rate: float) -> list[Bound]:
        """How the load fared, with its bounds."""
        taken = statistics.quantiles(load.milliseconds, n=100)
        return [
            Bound(
                "writes a second, outages included", load.writes / load.seconds, 0.9 * rate, None
            ),
            Bound("writes lost, or done twice, of", load.writes, None, None, "0 of {:,.0f}"),
            Bound("answered after, p50", taken[49], None, None, "{:.0f} ms"),
            Bound("answered after, p99, outages included", taken[98], None, None, "{:.0f} ms"),
            Bound("sent again", load.repeats, None, None),
        ]

    def bounds(self) -> list[Bound]:
        """What must not grow, with its bounds. Growth is from the end of the first round on."""
        first, last = self.samples[0], self.samples[-1]
        kept = (last.feed + last.receipts) / last.changes
        return [
            Bound("memory of a gateway, MiB", last.memory / MIB, None, None),
            Bound("its growth, MiB", (last.memory - first.memory) / MIB, None, 24),
            Bound("growth of its open files", last.files - first.files, None, 8),
            Bound(
                "connections of all gateways, at most",
                max(sample.sessions for sample in self.samples),
                None,
                SESSIONS * len(self.world.gateways),
            ),
            Bound(
                "queue of notifications, share filled at most", self.queue, None, 0.001, "{:.6f}"
            ),
            Bound("table of the written rows, MiB", last.tasks / MIB, None, None),
            Bound("its growth, MiB", (last.tasks - first.tasks) / MIB, None, 16),
            Bound("growth of all other tables, MiB", (last.others - first.others) / MIB, None, 16),
            Bound("feed and receipts of a change, until pruned, bytes", kept, None, 2048),
        ]
