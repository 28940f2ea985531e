"""Everybody ends up with the truth, whatever broke meanwhile. `make soak`: the same for longer."""

import secrets
from pathlib import Path

import pytest

from tests.faults.convergence import Pace, running
from tests.postgres import second_version

# Those that leave connections half open take the time it takes to notice them: see the soak, and
# test_half_open.py.
KINDS = [
    "client cut",
    "client delay",
    "client half open down",
    "client refused",
    "one client cut",
    "database cut",
    "database delay",
    "gateway killed",
    "postgres killed",
]
PACE = Pace(seconds=5, people=(0.02, 0.2), psql=(0.03, 0.2), chaos=(0.1, 0.5))


@pytest.mark.faults
async def test_everybody_ends_up_with_the_truth(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = secrets.token_hex(4)
    print(f"seed {seed}")
    chosen = second_version() if request.config.getoption("--pg") == "15" else None
    async with running(tmp_path / "data", seed, gateways=2, postgres_bin=chosen) as run:
        report = await run.round(PACE, KINDS)
        assert report.writes > 50
        assert report.told > 500
        assert len(run.chaos.counts) > 3
