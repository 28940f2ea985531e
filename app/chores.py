"""The code of Rowcast's own kinds of job."""

import functools
from typing import Any

from . import calls, files
from .config import Settings
from .jobs import Code, Job


def code(settings: Settings, conninfo: str) -> dict[str, Code]:
    """What a worker with these settings can do, by kind."""
    return {
        "prune": _prune,
        "sweep": functools.partial(_sweep, settings, conninfo),
    }


async def _prune(job: Job) -> None:
    """Ends what is older than the retention."""
    async with job.connection() as connection:
        await calls.job_prune(connection)


async def _sweep(settings: Settings, conninfo: str, _: Job) -> Any:
    """Removes files that were abandoned or deleted long ago. Orphans are for `rowcast sweep`: only
    its caller knows that the store is this database's alone.
    """
    await files.sweep_once(settings, conninfo, orphans=False)
