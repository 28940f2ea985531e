"""Code of jobs for the tests of the worker; the table `public.trace` shows what it did."""

import asyncio
from typing import Any

from app.jobs import Hopeless, Job, Later


async def note(job: Job) -> Any:
    async with job.as_user() as connection:
        await connection.execute(
            "insert into public.trace (job, what, by) values ($1, $2, auth.uid())",
            job.id,
            job.payload["what"],
        )
    return {"noted": job.payload["what"]}


async def stuck(job: Job) -> None:
    """Notes that it has begun, and never ends."""
    await note(job)
    await job.progress(0.25, "a quarter")
    await asyncio.Event().wait()


async def poison(job: Job) -> None:
    raise ValueError("secret of a row")


async def hopeless(job: Job) -> None:
    raise Hopeless("never")


async def later(job: Job) -> None:
    raise Later(86400)


async def unsayable(job: Job) -> Any:
    """Has a result or an error that cannot be noted."""
    if job.payload["what"] == "error":
        raise Hopeless("\0\ud800")
    return {"set": {1}, "nul": "\0", "surrogate": "\ud800"}[job.payload["what"]]


async def gated(job: Job) -> None:
    """Notes that it has begun, and ends when the test lets it."""
    await note(job)
    async with job.connection() as connection:
        await connection.execute("select pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7)")
    await note(job)


JOBS = {
    "note": note,
    "stuck": stuck,
    "poison": poison,
    "hopeless": hopeless,
    "later": later,
    "unsayable": unsayable,
    "gated": gated,
}
