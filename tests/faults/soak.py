"""`make soak`: the convergence test for as long as one likes.

SOAK_SECONDS (600) and SOAK_SEED (a new one) say how long and from where. Ends with 1 where
something diverged.
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


async def soak(seconds: float, seed: str, kinds: list[str] | None) -> None:
    """Rounds until the time is over. Raises Diverged."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rowcast-soak-") as folder:
        async with running(Path(folder) / "data", seed) as run:
            chosen = list(run.chaos.faults) if kinds is None else kinds
            while time.monotonic() - began < seconds:
                report = await run.round(PACE, chosen)
                faults = sum(run.chaos.counts.values())
                print(
                    f"{time.monotonic() - began:6.0f} s  {report.writes} writes, {faults} faults in all, "
                    f"{report.told} records told, at rest after {report.rest_seconds:.1f} s  "
                    f"{dict(report.statuses)}",
                    flush=True,
                )


def main() -> int:
    seed = os.environ.get("SOAK_SEED") or secrets.token_hex(4)
    seconds = float(os.environ.get("SOAK_SECONDS") or 600)
    kinds = os.environ.get("SOAK_FAULTS")
    print(f"seed {seed}, {seconds:.0f} s", flush=True)
    try:
        asyncio.run(soak(seconds, seed, kinds.split(",") if kinds else [] if kinds == "" else None))
    except Diverged as diverged:
        print(f"diverged: {diverged}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
