"""What the code of a job is given, and how it says that it failed. `worker.py` runs it.

A module named in ROWCAST_WORKER_MODULES has `JOBS`, a mapping from kinds to such code:

    async def greet(job: Job) -> None:
        async with job.as_user() as connection:
            await connection.execute("select public.greet($1)", job.payload["name"])

    JOBS = {"greet": greet}
"""

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from . import worker_calls

LONGEST: Final = 366 * 86400.0


class Hopeless(Exception):
    """Trying again would not help: the job is held at once."""


class Later(Exception):
    """The attempt failed, and the next one is due in so many seconds."""

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(message)
        self.seconds = min(max(0.0, float(seconds)), LONGEST)


class Pool(Protocol):
    """Where a job gets a connection from: asyncpg's pool."""

    def acquire(self) -> Any: ...


@dataclass(frozen=True)
class Job:
    """An attempt at a job.

    Whatever it does may have been done before, by an attempt that was broken off: it has to be
    harmless to repeat. `id` is the same in each attempt.
    """

    id: int
    kind: str
    payload: Any
    claims: Mapping[str, Any] | None
    attempt: int
    timeout_seconds: float
    pool: Pool = field(repr=False)
    control: Pool = field(repr=False)
    worker: Any = field(repr=False, default=None)

    @asynccontextmanager
    async def as_user(self) -> AsyncIterator[Any]:
        """An asyncpg connection in a transaction, as the user who has started the job: what he may
        read and write is decided by policies, now. As `anon` where nobody has.
        """
        async with self.pool.acquire() as connection, connection.transaction():
            await worker_calls.job_assume(connection, self.claims)
            yield connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """An asyncpg connection as the worker itself, each statement on its own."""
        async with self.pool.acquire() as connection:
            yield connection

    async def progress(self, share: float, message: str | None = None) -> None:
        """Shows whoever watches the job how far it is, from 0 to 1, with a line for people."""
        async with self.control.acquire() as connection:
            await worker_calls.job_progress(connection, self.id, self.worker, share, message)


Code = Callable[[Job], Awaitable[Any]]
"""Does a job. What it returns, if anything, is the result of a watched one, as JSON."""

NAME: Final = "JOBS"


class ModuleError(Exception):
    """A module of jobs cannot be used; the message says why."""


def load(modules: Iterable[str]) -> dict[str, Code]:
    """The code of these modules by kind. Raises ModuleError."""
    found: dict[str, Code] = {}
    for name in modules:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise ModuleError(f"ROWCAST_WORKER_MODULES: {error}") from error
        jobs = getattr(module, NAME, None)
        if not isinstance(jobs, Mapping):
            raise ModuleError(f"ROWCAST_WORKER_MODULES: {name} has no mapping {NAME}")
        found.update(jobs)
    return found
