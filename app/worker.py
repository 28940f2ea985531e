"""`rowcast worker`: takes jobs from the queue and does them, several at once.

pgqueuer takes jobs, keeps their lease and hears of new ones; what becomes of a job is decided by
the SQL functions of schema `jobs`, which calls.py names. A worker is there as long as a session of
it holds an advisory lock: when it is killed PostgreSQL knows at once, and others get its jobs.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import signal
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from socket import socket as Socket  # noqa: N812
from typing import Any, Final

import asyncpg
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.executors import AbstractEntrypointExecutor, EntrypointExecutorParameters
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain import errors, models, types
from pgqueuer.domain.settings import DBSettings
from pgqueuer.ports.driver import NotifyCallback
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from . import calls, fitness, logs, metrics
from .bell import CONNECT_SECONDS, FAILURES, asyncpg_servers, pause
from .config import Settings
from .jobs import Code, Hopeless, Job, Later
from .monitor import monitored

log = logging.getLogger("rowcast.worker")

SCHEMA: Final = "jobs"
TICK_SECONDS: Final = 2.0
POLL_SECONDS: Final = 5.0
STATEMENT_SECONDS: Final = 10.0
# For a worker whose machine went without a word: its lock stays until its connection times out.
LEASE_SECONDS: Final = 30.0
LISTEN_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
GIVE_BACK_SECONDS: Final = 5.0
READY_SECONDS: Final = 15.0  # since the queue was last looked after, which has ten to fail
DEPTH_TICKS: Final = 5  # counting takes as long as the queue is
# Answers that would be the same again; the others of 4xx are about the moment.
PASSING: Final = frozenset({"PT408", "PT425", "PT429"})
HEARD: Final = frozenset({"table_changed_event", "health_check_event"})


class Names(DBSettings):
    """What pgqueuer's objects are called here, whatever the environment says: it would listen to
    a variable CHANNEL.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments alone."""
        return (init_settings,)


def names() -> DBSettings:
    """The names of pgqueuer's objects in our schema."""
    return Names(db_schema=SCHEMA)


class Driver(AsyncpgPoolDriver):
    """Any role of the database can NOTIFY: what cancels jobs is not believed."""

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Listens, and passes on what says that there is something to look for."""

        def heard(payload: str | bytes | bytearray) -> None:
            with contextlib.suppress(ValueError, AttributeError, TypeError):
                if json.loads(payload).get("type") in HEARD:
                    callback(payload)

        await super().add_listener(channel, heard)

    async def __aexit__(self, *_: object) -> None:
        """The pool ends with its session: nothing is said on a connection that may be broken."""


class Ledger(Queries):
    """pgqueuer's statements, but for the end of an attempt."""

    def __init__(self, pool: Any, session: "Session") -> None:
        found = names()
        super().__init__(
            Driver(pool),
            qbe=QueryBuilderEnvironment(found),
            qbq=QueryQueueBuilder(found),
            qbs=QuerySchedulerBuilder(found),
        )
        self._pool = pool
        self._session = session

    async def log_jobs(
        self,
        job_status: list[tuple[models.Job, types.JOB_STATUS, models.TracebackRecord | None]],
    ) -> None:
        """Says what became of attempts. Called again with the same where this fails."""
        found = [self._outcome(job.id, status, why) for job, status, why in job_status]
        outcomes = [one for one in found if "outcome" in one]
        if outcomes:
            await calls.job_settle(self._pool, self._session.id, outcomes)
        for job, _, _ in job_status:
            self._session.outcomes.pop(job.id, None)

    def _outcome(
        self, id_: int, status: types.JOB_STATUS, why: models.TracebackRecord | None
    ) -> dict[str, Any]:
        known = self._session.outcomes.get(id_)
        if known is None:
            known = (
                {"outcome": "left"}
                if status == "canceled"
                else {"outcome": "failed", "error": why.exception_type if why else status}
            )
        return {"id": id_, **known}


@dataclass
class Session:
    """The time from one connection to its loss. `outcomes` are those not yet noted in SQL."""

    id: Any
    pool: Any
    code: Mapping[str, Code]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    doing: int = 0


@dataclass
class Attempt(AbstractEntrypointExecutor):
    """Does jobs of one kind. Never raises: an outcome is noted for each."""

    session: Session

    async def execute(self, job: models.Job, context: models.Context) -> None:
        """One attempt at a job."""
        del context
        began = time.monotonic()
        self.session.doing += 1
        try:
            found = await self._outcome(job)
        finally:
            self.session.doing -= 1
        self.session.outcomes[job.id] = found
        if (outcome := found.get("outcome", "left")) != "left":
            kind = str(job.entrypoint)
            metrics.job_attempts.add(kind=kind, outcome=outcome)
            metrics.job_seconds.observe(time.monotonic() - began, kind=kind)

    async def _outcome(self, queued: models.Job) -> dict[str, Any]:
        session, kind = self.session, str(queued.entrypoint)
        if session.stopping.is_set() or session.over.is_set():
            return {"outcome": "left"}
        try:
            begun = await calls.job_begin(session.pool, queued.id, session.id)
        except FAILURES as error:
            log.warning("job kind=%s id=%s not begun: %s", kind, queued.id, _said(error))
            return {"outcome": "left"}
        if begun is None:
            return {}  # it is not ours, or held from now on
        seconds: float = begun["timeoutSeconds"]
        if begun["sql"]:
            work: Awaitable[Any] = calls.job_call(session.pool, queued.id, session.id, seconds)
        else:
            work = self.session.code[kind](
                Job(
                    queued.id,
                    kind,
                    begun["payload"],
                    begun["claims"],
                    begun["attempt"],
                    session.pool,
                    session.id,
                )
            )
        doing = asyncio.ensure_future(work)
        over = asyncio.ensure_future(session.over.wait())
        try:
            await asyncio.wait({doing, over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                doing.cancel()
                await asyncio.wait({doing}, timeout=GIVE_BACK_SECONDS)
        finally:
            over.cancel()
        return self._found(queued.id, kind, doing, seconds)

    def _found(
        self, id_: int, kind: str, doing: "asyncio.Future[Any]", seconds: float
    ) -> dict[str, Any]:
        if not doing.done() or doing.cancelled():
            if self.session.over.is_set():
                return {"outcome": "returned"}
            log.warning("job kind=%s id=%s took longer than %.0f s", kind, id_, seconds)
            return {"outcome": "failed", "error": f"took longer than {seconds:.0f} s"}
        error = doing.exception()
        if error is None:
            result = doing.result()
            return {"outcome": "done", **({} if result is None else {"result": result})}
        if isinstance(error, FAILURES) and self.session.over.is_set():
            return {"outcome": "returned"}
        log.warning("job kind=%s id=%s failed: %s", kind, id_, _said(error))
        said: dict[str, Any] = {"outcome": "failed", "error": f"{_said(error)}: {error}"[:1000]}
        state = str(getattr(error, "sqlstate", None) or "")
        if isinstance(error, Hopeless) or (state.startswith("PT4") and state not in PASSING):
            said["final"] = True
        if isinstance(error, Later):
            said["delaySeconds"] = error.seconds
        return said


class Worker:
    """Does jobs until `stop`, whatever becomes of its connections."""

    def __init__(self, settings: Settings, conninfo: str, code: Mapping[str, Code]) -> None:
        self._settings = settings
        self._servers = asyncpg_servers(conninfo)
        self._code = code
        self._stopping = asyncio.Event()
        self._session: Session | None = None
        self._looked_at = time.monotonic()
        self._depth: list[tuple[str, str, int, float]] = []
        self._examined = False
        metrics.jobs.read = lambda: {
            (("kind", kind), ("state", state)): count for kind, state, count, _ in self._depth
        }
        metrics.jobs_late.read = lambda: {
            (("kind", kind),): late for kind, state, _, late in self._depth if state == "queued"
        }
        metrics.jobs_doing.read = lambda: self._session.doing if self._session else 0
        metrics.worker_idle.read = lambda: time.monotonic() - self._looked_at

    def state(self) -> dict[str, bool]:
        """Whether it has a connection and looks after the queue, and takes jobs."""
        alive = time.monotonic() - self._looked_at < READY_SECONDS
        return {
            "database": self._session is not None and alive,
            "accepting": not self._stopping.is_set(),
        }

    def stop(self) -> None:
        """Takes no more; what is under way gets `drain_seconds`, and is given back then."""
        self._stopping.set()

    async def run(self) -> None:
        """Returns after `stop`. Raises Unfit where the database must not be worked on."""
        tries = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            for parameters in self._servers:
                try:
                    await self._serve(parameters)
                except (*FAILURES, asyncpg.InternalClientError, errors.PgqException) as error:
                    log.warning("no connection, or lost: %s", _said(error))
                if self._stopping.is_set():
                    return
            tries = 0 if time.monotonic() - started > STEADY_SECONDS else tries + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause(tries)):
                    await self._stopping.wait()

    async def _serve(self, parameters: dict[str, Any]) -> None:
        """One session. Raises what asyncpg raises, and PgqException."""
        async with contextlib.AsyncExitStack() as ends:
            parameters = {
                **parameters,
                "timeout": CONNECT_SECONDS,
                "command_timeout": STATEMENT_SECONDS,
                "server_settings": {"application_name": "rowcast-worker"},
            }
            keeper = await asyncpg.connect(**parameters)
            ends.callback(keeper.terminate)
            await self._examine(keeper)
            at_once = self._settings.worker_jobs
            pool = await asyncpg.create_pool(**parameters, min_size=1, max_size=at_once + 3)
            ends.callback(pool.terminate)
            session = Session(None, pool, self._code)
            manager = QueueManager(Ledger(pool, session))
            session.id = manager.queue_manager_id
            keeper.add_termination_listener(lambda _: session.over.set())
            await calls.job_worker(keeper, session.id)
            await self._register(manager, session)
            self._session = session
            ends.callback(self._forget)
            running = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=POLL_SECONDS),
                    batch_size=max(1, at_once // 2),
                    max_concurrent_tasks=max(2, at_once),
                    heartbeat_timeout=timedelta(seconds=LEASE_SECONDS),
                    log_aggregation_interval=timedelta(0),
                )
            )
            log.info("worker ready")
            others = [
                asyncio.create_task(self._keep(manager, session)),
                asyncio.create_task(session.over.wait()),
                asyncio.create_task(self._stopping.wait()),
            ]
            try:
                await asyncio.wait({running, *others}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for other in others:
                    other.cancel()
                await self._wind_up(manager, session, running)
            for done in (running, others[0]):
                if done.done() and not done.cancelled():
                    done.result()

    async def _wind_up(
        self, manager: QueueManager, session: Session, running: "asyncio.Task[None]"
    ) -> None:
        session.stopping.set()
        manager.shutdown.set()
        if not session.over.is_set():
            await asyncio.wait({running}, timeout=self._settings.drain_seconds)
        session.over.set()
        await asyncio.wait({running}, timeout=2 * GIVE_BACK_SECONDS)
        if not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=GIVE_BACK_SECONDS)

    async def _keep(self, manager: QueueManager, session: Session) -> None:
        """Looks after the queue, and whether notifications arrive. Raises what asyncpg raises, and
        PgqException.
        """
        for tick in itertools.count():
            if tick % DEPTH_TICKS == 0:
                # What is slow here is no reason to begin anew.
                with contextlib.suppress(TimeoutError, asyncpg.QueryCanceledError):
                    self._depth = await calls.job_depth(session.pool)
            await asyncio.sleep(TICK_SECONDS)
            await self._register(manager, session)
            await manager.listener_healthy(timedelta(seconds=LISTEN_SECONDS))

    async def _examine(self, keeper: Any) -> None:
        """Before the first job. Raises Unfit, and what asyncpg raises."""
        if self._examined:
            return
        try:
            state = await calls.job_status(keeper)
        except asyncpg.PostgresError as error:
            fitness.check_installed(error.sqlstate)
            raise
        fitness.check_version(state.get("version"), state.get("migration"))
        if self._settings.env == "production":
            fitness.check_findings(await calls.job_doctor(keeper))
        self._examined = True

    def _forget(self) -> None:
        self._session, self._depth = None, []

    async def _register(self, manager: QueueManager, session: Session) -> None:
        """Lets the manager take the kinds there are, as far as there is code for them."""
        known = manager.entrypoint_registry
        kinds = await calls.job_tick(session.pool)
        self._looked_at = time.monotonic()
        for kind in kinds:
            name = types.QueueEntrypoint(kind["kind"])
            if not kind["sql"] and name not in self._code:
                known.pop(name, None)
                continue
            known[name] = Attempt(
                EntrypointExecutorParameters(concurrency_limit=kind["concurrency"], func=_unused),
                session,
            )


async def _unused(_: models.Job) -> None:
    """pgqueuer wants a function; `Attempt` has its own."""


def _said(error: BaseException) -> str:
    """Nothing of its message, which may hold row data."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f' {state}' if state else ''}"


def run(
    settings: Settings, conninfo: str, code: Mapping[str, Code], listener: Socket | None = None
) -> None:
    """Works until SIGTERM or SIGINT, then ends what is under way or gives it back. With a listener
    it says how it is meanwhile. Raises Unfit.
    """
    fitness.check_settings(settings)

    async def work() -> None:
        worker = Worker(settings, conninfo, code)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(name, worker.stop)
        loop.set_exception_handler(logs.unhandled)
        async with monitored(listener, worker.state) if listener else contextlib.nullcontext():
            await worker.run()

    # Of pgqueuer nothing: it would log payloads and messages of errors. What matters is said here.
    logging.getLogger("pgqueuer").setLevel(logging.CRITICAL + 1)
    asyncio.run(work())
