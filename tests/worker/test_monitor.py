"""What a worker does not start with, or on; and how it says that it is well."""

import secrets
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from app import migrate, serve
from app.config import DEVELOPMENT
from tests.postgres import Database
from tests.sql.engine import ALICE, wait_until
from tests.worker.process import PATIENCE_SECONDS, Worker, working
from tests.worker.test_worker import KILL, SETUP, enqueue, states

GOOD = secrets.token_hex(32)
MIGRATIONS = [step.name for step in migrate.steps(migrate.sql_folder()) if step.is_migration]


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    conn = db.connect()
    conn.execute(SETUP.encode())
    conn.execute("delete from jobs.schedules")
    return conn


def refusal(db: Database, **settings: str) -> str:
    """What a worker says that ends by itself."""
    worker = Worker(db, **{"ROWCAST_ENV": "production", "ROWCAST_JWT_SECRET": GOOD, **settings})
    try:
        assert worker.process.wait(PATIENCE_SECONDS) == 1
        return worker.log
    finally:
        worker.end()


@pytest.mark.parametrize(
    "secret",
    [DEVELOPMENT + GOOD, "change-me-" + GOOD, "a" * 64],
    ids=["of development", "a placeholder", "one letter"],
)
def test_secrets_of_development_are_refused(db: Database, secret: str) -> None:
    """The links in mails are made with it."""
    said = refusal(db, ROWCAST_JWT_SECRET=secret)
    assert "ROWCAST_ENV=development" in said
    assert secret not in said


@pytest.mark.both_versions
@pytest.mark.parametrize(
    "older",
    [
        "update sync_internal.state set schema_version = '0.0.9'",
        f"delete from sync_internal.migrations where name = '{max(MIGRATIONS)}'",
    ],
    ids=["version", "migration"],
)
def test_older_database_is_refused_with_the_command_to_run(
    db: Database, conn: psycopg.Connection, older: str
) -> None:
    conn.execute(older.encode())
    for env in ("production", "development"):
        assert "run `rowcast migrate`" in refusal(db, ROWCAST_ENV=env)


def test_database_without_rowcast_is_refused_with_the_command_to_run(empty_db: Database) -> None:
    migrate.migrate(empty_db.dsn())  # the roles, where this is the first test of its server
    migrate.remove(empty_db.dsn())
    assert "run `rowcast migrate`" in refusal(empty_db)


def test_error_of_the_doctor_is_refused_in_production_alone(
    db: Database, conn: psycopg.Connection
) -> None:
    conn.execute("alter table public.tasks disable row level security")
    assert "row_security_off public.tasks" in refusal(db)
    enqueue(conn, "note")
    with working(db):
        wait_until(lambda: not states(conn), "it is done")


def test_newer_database_and_another_epoch_are_worked_on(
    db: Database, conn: psycopg.Connection
) -> None:
    conn.execute("update sync_internal.state set schema_version = '99.0.0', epoch = 'another'")
    enqueue(conn, "note")
    with working(db, ROWCAST_ENV="production", ROWCAST_JWT_SECRET=GOOD):
        wait_until(lambda: not states(conn), "it is done")


@pytest.fixture
def port() -> str:
    with serve.listen("127.0.0.1", 0) as listener:
        return str(listener.getsockname()[1])


def asked(port: str) -> Callable[[str], tuple[int, Any]]:
    """Asks the worker; 0 while it does not answer."""

    def ask(path: str) -> tuple[int, Any]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json() if path == "/readyz" else answer.text

    return ask


def test_worker_says_how_it_is(db: Database, conn: psycopg.Connection, port: str) -> None:
    ask = asked(port)
    name = db.name
    with working(db, ROWCAST_WORKER_PORT=port, ROWCAST_DRAIN_SECONDS="60") as worker:
        wait_until(lambda: ask("/readyz")[0] == 200, "it is ready")
        assert ask("/healthz")[0] == 200
        # The database goes, and comes back.
        conn.execute(f"alter database {name} connection limit 0".encode())
        conn.execute(KILL.encode())
        wait_until(
            lambda: ask("/readyz") == (503, {"ready": False, "database": False, "accepting": True}),
            "it is not",
        )
        assert ask("/healthz")[0] == 200
        conn.execute(f"alter database {name} connection limit -1".encode())
        wait_until(lambda: ask("/readyz")[0] == 200, "it is again")
        # One that winds up says so.
        enqueue(conn, "stuck", ALICE)
        wait_until(lambda: "rowcast_worker_jobs 1" in ask("/metrics")[1], "it has a job")
        worker.process.terminate()
        wait_until(lambda: ask("/readyz")[0] == 503, "it takes no more")
        assert ask("/readyz")[1]["accepting"] is False


def test_port_that_is_taken_is_said(db: Database) -> None:
    with serve.listen("127.0.0.1", 0) as listener:
        said = refusal(db, ROWCAST_WORKER_PORT=str(listener.getsockname()[1]))
    assert "ROWCAST_WORKER_PORT" in said
