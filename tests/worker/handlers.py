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


JOBS = {"note": note, "stuck": stuck, "poison": poison, "hopeless": hopeless, "later": later}
