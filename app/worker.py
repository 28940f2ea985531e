"""`rowcast worker`: takes jobs from the queue and does them, several at once.

pgqueuer takes jobs, keeps their lease and hears of new ones; what becomes of a job is decided by
the SQL functions of schema `jobs`, named in worker_calls.py. A worker is there as long as a
session of it holds an advisory lock: when it is killed PostgreSQL knows at once, and others get
its jobs.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import signal
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import timedelta
from socket import socket as Socket  # noqa: N812
from typing import Any, Final

import asyncpg
import orjson
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
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from . import fitness, logs, metrics, worker_calls
from .bell import CONNECT_SECONDS, asyncpg_servers, pause
from .config import Settings
from .jobs import Code, Hopeless, Job, Later
from .monitor import monitored

log = logging.getLogger("rowcast.worker")

FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a line that was cut at an unlucky byte
)
SCHEMA: Final = "jobs"
TICK_SECONDS: Final = 2.0
POLL_SECONDS: Final = 2.0
STATEMENT_SECONDS: Final = 10.0
# For a worker whose machine went without a word: its lock stays until its connection times out.
LEASE_SECONDS: Final = 30.0
LISTEN_SECONDS: Final = 5.0
STEADY_SECONDS: Final = 10.0
GIVE_BACK_SECONDS: Final = 5.0
HUSH_SECONDS: Final = 0.01
GATHER_SECONDS: Final = 0.03
LONG_SECONDS: Final = 2.0
READY_SECONDS: Final = 15.0  # since the queue was last looked after, which has ten to fail
DEPTH_TICKS: Final = 5  # counting takes as long as the queue is
# Answers that would be the same again; the others of 4xx are about the moment.
PASSING: Final = frozenset({"PT408", "PT425", "PT429"})


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
    """Listens with reason: any role of the database can NOTIFY."""

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Passes on that there is something to look for, once for many: pgqueuer looks as often as
        it hears, four statements each time. What cancels jobs is not passed on.
        """
        loop = asyncio.get_running_loop()
        due: asyncio.TimerHandle | None = None
        passed = 0.0

        def ring(payload: str) -> None:
            nonlocal due, passed
            due, passed = None, loop.time()
            callback(payload)

        def heard(payload: str | bytes | bytearray) -> None:
            nonlocal due
            with contextlib.suppress(ValueError, AttributeError, TypeError):
                said = json.loads(payload).get("type")
                if said == "health_check_event":
                    callback(payload)
                elif said == "table_changed_event" and due is None:
                    due = loop.call_at(passed + HUSH_SECONDS, ring, str(payload))

        await super().add_listener(channel, heard)

    async def __aexit__(self, *_: object) -> None:
        """The pool ends with its session: nothing is said on a connection that may be broken."""


class Ledger(Queries):
    """pgqueuer's statements, but for the end of an attempt and for signs of life."""

    def __init__(self, session: "Session") -> None:
        found = names()
        super().__init__(
            Driver(session.control),
            qbe=QueryBuilderEnvironment(found),
            qbq=QueryQueueBuilder(found),
            qbs=QuerySchedulerBuilder(found),
        )
        self._session = session

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[types.QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: types.QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[models.Job]:
        """Takes jobs for the places there are, and for those of jobs that take long: what hangs is
        in nobody's way before its time is up.
        """
        if global_concurrency_limit is not None:
            global_concurrency_limit += self._session.spare(global_concurrency_limit)
        return await super().dequeue(
            batch_size, entrypoints, queue_manager_id, global_concurrency_limit, heartbeat_timeout
        )

    async def update_heartbeat(self, job_ids: list[types.JobId]) -> None:
        """Signs of life of jobs under way; pgqueuer's own would wait for those that SQL does."""
        await worker_calls.job_beat(self._session.control, self._session.id, job_ids)

    async def log_jobs(
        self,
        job_status: list[tuple[models.Job, types.JOB_STATUS, models.TracebackRecord | None]],
    ) -> None:
        """Says what became of attempts where `Attempt` could not. Called again with the same where
        it fails.
        """
        await self._session.note([job.id for job, _, _ in job_status])


@dataclass
class Session:
    """The time from one connection to its loss. `outcomes` are those not yet noted in SQL. Jobs use
    `pool`, so that none of them keeps the others from `control`: taking, signs of life, the end.
    """

    id: Any
    keeper: Any
    control: Any
    pool: Any
    code: Mapping[str, Code]
    batch: int
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: dict[int, dict[str, Any]] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)
    gathered: list[int] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    noting: "asyncio.Task[None] | None" = None

    def spare(self, places: int) -> int:
        """How many more jobs are taken than there are places: one for each that takes long, up to
        half of the places.
        """
        before = time.monotonic() - LONG_SECONDS
        return min(sum(began < before for began in self.began.values()), extra(places))

    async def note_soon(self, job: int) -> None:
        """Notes an outcome with those of the next few milliseconds, as many as are taken at once.
        pgqueuer would wait for as many for up to 100 ms, in which nobody had their places; it tries
        again where this fails.
        """
        self.gathered.append(job)
        if self.noting is None:
            self.noting = asyncio.create_task(self._note_gathered())
        if len(self.gathered) >= self.batch:
            self.enough.set()
        await asyncio.shield(self.noting)

    async def _note_gathered(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                await self.enough.wait()
        jobs, self.gathered, self.noting = self.gathered, [], None
        self.enough.clear()
        with contextlib.suppress(*FAILURES):
            await self.note(jobs)

    async def note(self, jobs: list[int]) -> None:
        """Notes what is not yet of these jobs: what was said is not said twice, to a later attempt
        at the same job. Raises what asyncpg raises.
        """
        outcomes = [self.outcomes[job] for job in jobs if job in self.outcomes]
        try:
            await self._settle(outcomes)
        except asyncpg.PostgresError:
            # One that cannot be noted, or not now, is in nobody's way.
            failed: BaseException | None = None
            for one in outcomes:
                try:
                    await self._settle([one])
                except asyncpg.PostgresError as error:
                    failed = error
            if failed is not None:
                raise failed from None

    async def _settle(self, outcomes: list[dict[str, Any]]) -> None:
        if outcomes:
            await worker_calls.job_settle(self.control, self.id, outcomes)
        for one in outcomes:
            # By now it may have been taken again, and have another.
            if self.outcomes.get(one["id"]) is one:
                del self.outcomes[one["id"]]


@dataclass
class Attempt(AbstractEntrypointExecutor):
    """Does jobs of one kind. Never raises: an outcome is noted for each. `running`: the manager's,
    which takes none of these again.
    """

    session: Session
    running: MutableMapping[types.JobId, models.Context]

    async def execute(self, job: models.Job, context: models.Context) -> None:
        """One attempt at a job."""
        del context
        began = time.monotonic()
        self.session.began[job.id] = began
        try:
            found = await self._outcome(job)
        finally:
            self.session.began.pop(job.id, None)
        # It may be taken again from here on, by this worker too.
        self.running.pop(job.id, None)
        if found is None:
            return
        self.session.outcomes[job.id] = {"id": job.id, **found}
        await self.session.note_soon(job.id)
        if found["outcome"] != "left":
            kind = str(job.entrypoint)
            metrics.job_attempts.add(kind=kind, outcome=found["outcome"])
            metrics.job_seconds.observe(time.monotonic() - began, kind=kind)

    async def _outcome(self, queued: models.Job) -> dict[str, Any] | None:
        session, kind = self.session, str(queued.entrypoint)
        if session.stopping.is_set() or session.over.is_set():
            return {"outcome": "left"}
        try:
            begun = await worker_calls.job_begin(session.control, queued.id, session.id)
        except FAILURES as error:
            log.warning("job kind=%s id=%s not begun: %s", kind, queued.id, _said(error))
            return {"outcome": "left"}
        if begun is None:
            return None  # it is not ours, held from now on, or aside
        seconds: float = begun["timeoutSeconds"]
        doing = asyncio.ensure_future(self._do(queued.id, kind, begun))
        over = asyncio.ensure_future(session.over.wait())
        try:
            await asyncio.wait({doing, over}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            late = not doing.done()
            if late:
                doing.cancel()
                await asyncio.wait({doing}, timeout=GIVE_BACK_SECONDS)
        finally:
            over.cancel()
        if late and (not doing.done() or doing.cancelled()):
            if session.over.is_set():
                return {"outcome": "returned"}
            log.warning("job kind=%s id=%s took longer than %.0f s", kind, queued.id, seconds)
            return {"outcome": "failed", "error": f"took longer than {seconds:.0f} s"}
        try:
            return {"outcome": "done", **_result(doing.result())}
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            return self._failure(queued.id, kind, error)

    async def _do(self, id_: int, kind: str, begun: dict[str, Any]) -> Any:
        session = self.session
        if begun["sql"]:
            seconds = begun["timeoutSeconds"]
            return await worker_calls.job_call(session.pool, id_, session.id, seconds)
        job = Job(
            id_,
            kind,
            begun["payload"],
            begun["claims"],
            begun["attempt"],
            begun["timeoutSeconds"],
            session.pool,
            session.control,
            session.id,
        )
        return await session.code[kind](job)

    def _failure(self, id_: int, kind: str, error: BaseException) -> dict[str, Any]:
        if isinstance(error, FAILURES) and self.session.over.is_set():
            return {"outcome": "returned"}
        log.warning("job kind=%s id=%s failed: %s", kind, id_, _said(error))
        # As PostgreSQL takes it: what cannot be noted would be done for ever.
        text = f"{_said(error)}: {error}"[:1000].replace("\0", "")
        said: dict[str, Any] = {
            "outcome": "failed",
            "error": text.encode("utf-8", "replace").decode(),
        }
        state = str(getattr(error, "sqlstate", None) or "")
        if isinstance(error, Hopeless) or (state.startswith("PT4") and state not in PASSING):
            said["final"] = True
        if isinstance(error, Later):
            said["delaySeconds"] = error.seconds
        return said


def extra(places: int) -> int:
    """How many jobs a worker takes at most beside those it has places for."""
    return places // 2


def _result(given: Any) -> dict[str, Any]:
    """Raises Hopeless for what is no JSON: the work would be the same again."""
    if given is None:
        return {}
    try:
        if b"\\u0000" not in orjson.dumps(given):
            return {"result": given}
    except TypeError:
        pass
    raise Hopeless("its result is no JSON that PostgreSQL takes")


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
            (("kind", kind),): late
            for kind, state, _, late in self._depth
            # Mails wait as they were told to where no server is set.
            if state == "queued" and (kind != "mail" or settings.smtp_url is not None)
        }
        metrics.jobs_doing.read = lambda: len(self._session.began) if self._session else 0
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
                except (*FAILURES, errors.PgqException) as error:
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
            control = await asyncpg.create_pool(**parameters, min_size=1, max_size=4)
            ends.callback(control.terminate)
            most = at_once + extra(at_once) + 2
            pool = await asyncpg.create_pool(**parameters, min_size=0, max_size=most)
            ends.callback(pool.terminate)
            session = Session(None, keeper, control, pool, self._code, max(1, at_once // 2))
            manager = QueueManager(Ledger(session), types.Channel(names().channel))
            session.id = manager.queue_manager_id
            keeper.add_termination_listener(lambda _: session.over.set())
            await worker_calls.job_worker(keeper, session.id)
            await self._register(manager, session)
            self._session = session
            ends.callback(self._forget)
            running = asyncio.create_task(
                manager.run(
                    dequeue_timeout=timedelta(seconds=POLL_SECONDS),
                    batch_size=session.batch,
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
                    self._depth = await worker_calls.job_depth(session.control)
            await asyncio.sleep(TICK_SECONDS)
            await self._register(manager, session)
            await manager.listener_healthy(timedelta(seconds=LISTEN_SECONDS))

    async def _examine(self, keeper: Any) -> None:
        """Before the first job. Raises Unfit, and what asyncpg raises."""
        if self._examined:
            return
        try:
            state = await worker_calls.job_status(keeper)
        except asyncpg.PostgresError as error:
            fitness.check_installed(error.sqlstate)
            raise
        fitness.check_version(state.get("version"), state.get("migration"))
        if self._settings.env == "production":
            fitness.check_findings(await worker_calls.job_doctor(keeper))
        self._examined = True

    def _forget(self) -> None:
        self._session, self._depth = None, []

    async def _register(self, manager: QueueManager, session: Session) -> None:
        """Lets the manager take the kinds there are, as far as there is code for them."""
        known = manager.entrypoint_registry
        # On the connection with the lock: one that is dead without a word is found out.
        kinds = await worker_calls.job_tick(session.keeper)
        self._looked_at = time.monotonic()
        for kind in kinds:
            name = types.QueueEntrypoint(kind["kind"])
            if not kind["sql"] and name not in self._code:
                known.pop(name, None)
                continue
            known[name] = Attempt(
                EntrypointExecutorParameters(concurrency_limit=kind["concurrency"], func=_unused),
                session,
                manager.job_context,
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
