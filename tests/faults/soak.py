"""`make soak`: the convergence test for as long as one likes.

SOAK_SECONDS (600), SOAK_SEED (a new one) and SOAK_FAULTS (all; names separated by commas, or
`none`) say how long, from where and under what. Ends with status 1 where something diverged.
What the processes print is in a file that is named then.
"""

import asyncio
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.convergence import Pace, running
from tests.faults.oracle import Diverged

PACE = Pace(seconds=20, people=(0.02, 0.25), psql=(0.05, 0.4), chaos=(0.3, 2.0))


async def soak(folder: Path, seconds: float, seed: str, kinds: list[str]) -> None:
    """Rounds until the time is over. Raises Diverged."""
    began = time.monotonic()
    async with running(folder, seed) as run:
        chosen = list(run.chaos.faults) if kinds == ["all"] else kinds
        while time.monotonic() - began < seconds:
            report = await run.round(PACE, chosen)
            print(
                f"{time.monotonic() - began:6.0f} s  {report.writes} writes, "
                f"{sum(run.chaos.counts.values())} faults in all, {report.told} records told, "
                f"at rest after {report.rest_seconds:.1f} s  {dict(report.statuses)}",
                flush=True,
            )


def main() -> int:
    seed = os.environ.get("SOAK_SEED") or secrets.token_hex(4)
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    kinds = (os.environ.get("SOAK_FAULTS") or "all").split(",")
    print(f"seed {seed}, {seconds:.0f} s", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="rowcast-soak-") as folder,
        tempfile.NamedTemporaryFile(prefix="rowcast-soak-", suffix=".log", delete=False) as log,
    ):
        # What is killed complains at length.
        os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            asyncio.run(
                soak(Path(folder) / "data", seconds, seed, [] if kinds == ["none"] else kinds)
            )
        except Diverged as diverged:
            print(f"diverged: {diverged}\nprinted by the processes: {log.name}", flush=True)
            return 1
    Path(log.name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
