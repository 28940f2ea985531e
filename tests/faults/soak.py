"""`make soak`: the convergence test under load for as long as one likes, and what must not grow.

SOAK_SECONDS (600), SOAK_WRITES (500 a second, beside what people and psql write), SOAK_SEED (a new
one) and SOAK_FAULTS (kills, cuts and delays; names separated by commas, `all` or `none`) say how
long, how much, from where and under what. A connection that is half open takes the seconds it takes
to notice it, so those are for a run without load: SOAK_WRITES=0 SOAK_FAULTS=all.

Ends with status 1 where something diverged or a bound does not hold. Its figures go to
bench/RESULTS.md where it ran under load for ten minutes or longer. What the processes print is in a
file that is named where something was wrong.
"""

import asyncio
import datetime as dt
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import results
from tests.faults.convergence import Pace, Run, running
from tests.faults.load import Load
from tests.faults.oracle import Diverged
from tests.faults.vitals import Vitals

PACE = Pace(seconds=30, people=(0.1, 0.6), psql=(0.1, 0.6), chaos=(2.0, 8.0))
FULL_SECONDS = 600
KILLS = (
    "gateway killed,postgres killed,backend killed,database cut,database delay,client cut,"
    "client delay,client refused,one client cut"
)
SPARED = 1  # the gateway that is never killed: what leaks shows there


@dataclass(frozen=True)
class Plan:
    """What the environment asks for."""

    seed: str
    seconds: float
    rate: float
    faults: list[str]

    @classmethod
    def read(cls) -> "Plan":
        faults = (os.environ.get("SOAK_FAULTS") or KILLS).split(",")
        return cls(
            os.environ.get("SOAK_SEED") or secrets.token_hex(4),
            float(os.environ.get("SOAK_SECONDS") or FULL_SECONDS),
            float(os.environ.get("SOAK_WRITES") or 500),
            [] if faults == ["none"] else faults,
        )


async def soak(folder: Path, plan: Plan) -> list[results.Bound]:
    """Rounds until the time is over. Raises Diverged."""
    async with running(folder, plan.seed) as run:
        run.chaos.spared = {SPARED}
        load = await run.bear(plan.rate) if plan.rate else None
        vitals = Vitals(run.world, SPARED)
        faults = list(run.chaos.faults) if plan.faults == ["all"] else plan.faults
        began = time.monotonic()
        async with vitals.watching():
            while time.monotonic() - began < plan.seconds or len(vitals.samples) < 2:
                report = await run.round(PACE, faults)
                if load is not None:
                    await load.check()
                sample = await vitals.look()
                print(
                    f"{time.monotonic() - began:6.0f} s  {load.writes if load else 0} writes of "
                    f"the load, {report.writes} others, {run.chaos.counts.total()} faults in all, "
                    f"{report.told} records told, at rest after {report.rest_seconds:.1f} s, "
                    f"{sample}",
                    flush=True,
                )
        return _figures(run, load, vitals, plan)


def _figures(run: Run, load: Load | None, vitals: Vitals, plan: Plan) -> list[results.Bound]:
    faults = results.Bound("faults", run.chaos.counts.total(), None, None)
    loaded = [] if load is None else vitals.of_load(load, plan.rate)
    return [*loaded, *vitals.bounds(), faults]


def report(figures: list[results.Bound], plan: Plan) -> None:
    """Writes the section of bench/RESULTS.md."""
    lines = [
        f"Written by `make soak`: {plan.rate:.0f} writes a second for {plan.seconds / 60:.0f}"
        " minutes, with people, psql",
        "and faults beside them: gateways, backends and PostgreSQL killed, connections cut,",
        "refused and delayed. At each rest every client holds what a plain SELECT gives its user,",
        "every write has its receipt, and the sums are right. Growth is from the end of the first",
        "round on.",
        "",
        f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}, seed {plan.seed}",
        f"- machine: {results.machine()}, shared by clients, proxies and servers",
        "",
        *results.bounds(figures),
    ]
    results.write_section("Under load and faults", lines)


def main() -> int:
    plan = Plan.read()
    print(f"seed {plan.seed}, {plan.seconds:.0f} s, {plan.rate:.0f} writes/s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="rowcast-soak-") as folder,
        tempfile.NamedTemporaryFile(prefix="rowcast-soak-", suffix=".log", delete=False) as log,
    ):
        # What is killed complains at length.
        os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            figures = asyncio.run(soak(Path(folder) / "data", plan))
        except Diverged as diverged:
            print(f"diverged: {diverged}\nprinted by the processes: {log.name}")
            return 1
    print("\n".join(results.bounds(figures)), flush=True)
    if plan.rate and plan.seconds >= FULL_SECONDS:
        report(figures, plan)
    if not all(figure.holds for figure in figures):
        print(f"a bound does not hold; printed by the processes: {log.name}")
        return 1
    Path(log.name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
