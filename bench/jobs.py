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

from .results import Figure, interleave
from .stage import Say, Stage

JOBS_A_RUN = 1500
WAIT_SECONDS = 0.02
LIMIT_SECONDS = 120

SETUP = (
    "select jobs.allow(k) from unnest(array['bench', 'bench_raises']) k",
    "select jobs.allow('bench_hangs', p_timeout_seconds => 3600)",
    "delete from jobs.schedules",
)
PUT = "select jobs.enqueue(%s) from generate_series(1, %s)"
LEFT = "select count(*) from jobs.pgqueuer where entrypoint = 'bench'"


def poison(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """1500 jobs that wait for something, by one worker of ten at once: alone, beside one that fails
    at every attempt, and beside one that never ends.
    """
    say("jobs beside poison")
    with stage.connect(stage.admin) as admin:
        for statement in SETUP:
            admin.execute(statement.encode())

        def beside(*others: str) -> dict[str, float]:
            admin.execute("truncate jobs.pgqueuer")
            for other in others:
                admin.execute(PUT, (other, 1))
            with _worker(stage):
                _until(admin, "select count(*) from jobs.workers", 1)
                if "bench_hangs" in others:
                    _until(admin, "select count(*) from jobs.list('running')", 1)
                began = time.monotonic()
                admin.execute(PUT, ("bench", JOBS_A_RUN))
                _until(admin, LEFT, 0)
                taken = time.monotonic() - began
            admin.execute("truncate jobs.workers")
            return {"rate": JOBS_A_RUN / taken}

        alone, raises, hangs = interleave(
            3 * longer,
            lambda: beside(),
            lambda: beside("bench_raises"),
            lambda: beside("bench_hangs"),
        )
    return [
        _figure("jobs beside one that fails, beside none", alone, raises),
        _figure("jobs beside one that hangs, beside none", alone, hangs),
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


def _until(admin: psycopg.Connection, query: str, number: int) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        row = admin.execute(query.encode()).fetchone()
        if row is not None and row[0] == number:
            return
        time.sleep(0.01)
    raise RuntimeError(f"still not {number}: {query}")


async def _waits(_: Job) -> None:
    await asyncio.sleep(WAIT_SECONDS)


async def _raises(_: Job) -> None:
    raise ValueError


async def _hangs(_: Job) -> None:
    await asyncio.Event().wait()


JOBS = {"bench": _waits, "bench_raises": _raises, "bench_hangs": _hangs}
