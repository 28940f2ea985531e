"""What jobs that fail cost the others."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from app.jobs import Job
from app.worker import LONG_SECONDS

from .results import Figure, interleave
from .stage import Say, Stage

# Half of what ten places do at once is left over: one job more does not begin another 100 ms.
JOBS_A_ROUND = 115
# So long that they wait for places: where it is for the processor, one less costs nothing.
WAIT_SECONDS = 0.1
GATE = 7
LIMIT_SECONDS = 120

SETUP = (
    "select jobs.allow(k) from unnest(array['bench', 'bench_raises']) k",
    "select jobs.allow('bench_hangs', p_timeout_seconds => 3600)",
    "delete from jobs.schedules",
)
PUT = "select jobs.enqueue(%s) from generate_series(1, %s)"
LEFT = "select count(*) from jobs.pgqueuer where entrypoint = %s"
RUNNING = "select count(*) from jobs.list('running')"


def poison(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """115 jobs that wait 100 ms each, by one worker of ten at once: alone, beside one that fails at
    every attempt, and beside one that never ends, from when it is one that takes long.
    """
    say("jobs beside poison")
    with stage.connect(stage.admin) as admin, stage.connect(stage.admin) as gate:
        for statement in SETUP:
            admin.execute(statement.encode())

        def jobs() -> dict[str, float]:
            began = time.monotonic()
            admin.execute(PUT, ("bench", JOBS_A_ROUND))
            _until(admin, LEFT, 0, "bench")
            return {"rate": JOBS_A_ROUND / (time.monotonic() - began)}

        def beside_failing() -> dict[str, float]:
            admin.execute(PUT, ("bench_raises", 1))
            found = jobs()
            admin.execute("delete from jobs.pgqueuer where status <> 'picked'")
            return found

        def beside_hanging() -> dict[str, float]:
            gate.execute("select pg_advisory_lock(%s)", (GATE,))
            admin.execute(PUT, ("bench_hangs", 1))
            _until(admin, RUNNING, 1)
            time.sleep(LONG_SECONDS)  # until it counts as one that hangs
            found = jobs()
            gate.execute("select pg_advisory_unlock(%s)", (GATE,))
            _until(admin, LEFT, 0, "bench_hangs")
            return found

        with _worker(stage):
            jobs()
            alone, failing, hanging = interleave(11 * longer, jobs, beside_failing, beside_hanging)
    return [
        _figure("jobs beside one that fails, beside none", alone, failing),
        _figure("jobs beside one that hangs, beside none", alone, hanging),
    ]


def _figure(name: str, twin: dict[str, float], ours: dict[str, float]) -> Figure:
    return Figure(
        name,
        f"{twin['rate']:.0f}/s",
        f"{ours['rate']:.0f}/s",
        ours["rate"] / twin["rate"],
        at_least=0.9,
    )


@contextmanager
def _worker(stage: Stage) -> Iterator[None]:
    environment = {
        **os.environ,
        "ROWCAST_WORKER_URL": stage.server.dsn("rowcast_worker"),
        "ROWCAST_WORKER_MODULES": __name__,
        "ROWCAST_DRAIN_SECONDS": "0",
        "ROWCAST_LOG_LEVEL": "error",
    }
    worker = subprocess.Popen([sys.executable, "-m", "app", "worker"], env=environment)
    try:
        yield
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(LIMIT_SECONDS)


def _until(admin: psycopg.Connection, query: str, number: int, *given: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        row = admin.execute(query.encode(), given).fetchone()
        if row is not None and row[0] == number:
            return
        time.sleep(0.01)  # polls what is said to nobody
    raise RuntimeError(f"still not {number}: {query}")


async def _waits(_: Job) -> None:
    await asyncio.sleep(WAIT_SECONDS)


async def _raises(_: Job) -> None:
    raise ValueError


async def _hangs(job: Job) -> None:
    async with job.connection() as connection:
        await connection.execute(
            "select pg_advisory_lock_shared($1), pg_advisory_unlock_shared($1)", GATE, timeout=3600
        )


JOBS = {"bench": _waits, "bench_raises": _raises, "bench_hangs": _hangs}
