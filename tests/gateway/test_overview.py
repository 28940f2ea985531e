"""What a gateway tells of the database and of itself: `sync.status` and the metrics."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.gateway.conftest import ALICE, Service, eventually, settings_for
from tests.gateway.test_socket import KEY
from tests.postgres import Database

pytestmark = pytest.mark.both_versions

Run = Callable[..., Any]


def relays(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run("select sync.status() -> 'relays'")
    return found


async def metrics(service: Service) -> dict[str, float]:
    """The samples without labels."""
    lines = (await service.http.get("/metrics")).text.splitlines()
    pairs = (line.split(" ") for line in lines if not line.startswith("#") and "{" not in line)
    return {name: float(value) for name, value in pairs}


async def test_each_gateway_says_where_it_is(gateway_dsn: str, run: Run) -> None:
    async with Service(settings_for(gateway_dsn)) as one, Service(settings_for(gateway_dsn)) as two:

        async def seen() -> bool:
            return len(relays(run)) == 2

        await eventually(seen)
        assert all(0 <= relay["behindSeconds"] < 5 for relay in relays(run))
        assert not any(relay["asleep"] for relay in relays(run))
        async with one.socket(ALICE) as socket:
            await socket.subscribe(KEY)

            async def asleep() -> bool:
                return [relay["asleep"] for relay in relays(run)].count(True) == 1

            await eventually(asleep)
            before = min(int(relay["readBefore"]) for relay in relays(run))
            run("update public.tasks set title = title || 'x'")

            async def moved() -> bool:
                return min(int(relay["readBefore"]) for relay in relays(run)) > before

            await eventually(moved)
        assert two.gateway.relay.alive


async def test_relay_that_cannot_read_is_seen_to_fall_behind(
    gateway_dsn: str, db: Database, run: Run
) -> None:
    """Its gateway still runs and says so."""
    impatient = f"{gateway_dsn} options='-c lock_timeout=200ms'"

    async def behind() -> bool:
        query = "select max(extract(epoch from said_at - read_at)) from sync_internal.relays"
        return float(run(query) or 0) > 2

    async def caught_up() -> bool:
        found = relays(run)
        return len(found) == 1 and found[0]["behindSeconds"] < 2

    async with Service(settings_for(impatient)):
        await eventually(caught_up)
        with db.connect(autocommit=False) as holder:
            holder.execute("lock table sync_internal.changes in access exclusive mode")
            await eventually(behind)
            holder.rollback()
        await eventually(caught_up)


async def test_metrics_tell_of_the_database(service: Service, run: Run) -> None:
    run("update public.tasks set title = title || 'x'")
    gauges = {
        "rowcast_feed_bytes",
        "rowcast_feed_oldest_seconds",
        "rowcast_receipts_bytes",
        "rowcast_relays_asleep",
        "rowcast_relays_awake",
        "rowcast_relays_behind_seconds",
    }

    async def told() -> bool:
        return gauges <= (await metrics(service)).keys()

    await eventually(told)
    found = await metrics(service)
    assert found["rowcast_feed_bytes"] > 8192
    assert found["rowcast_relays_asleep"] + found["rowcast_relays_awake"] == 1
    assert 0 <= found["rowcast_relays_behind_seconds"] < 10
