"""What a gateway does not serve with, or on; and that a newer database will do."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import __version__, fitness, migrate, serve
from app.config import DEVELOPMENT, Settings
from tests.gateway.conftest import Service, eventually, settings_for
from tests.postgres import Database, Server
from tests.worker.process import Worker

ROOT = Path(__file__).parents[2]
GOOD = secrets.token_hex(32)
MIGRATIONS = [step.name for step in migrate.steps(migrate.sql_folder()) if step.is_migration]


def served(dsn: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`rowcast serve`, which has to end by itself."""
    settings = {"ROWCAST_DATABASE_URL": dsn, "ROWCAST_JWT_SECRET": GOOD, "PORT": "0", **more}
    return subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "COLUMNS": "500", **settings},
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "given",
    [
        {"dev_sign_in": True, "jwt_secret": GOOD},
        {"jwt_secret": DEVELOPMENT + GOOD},
        {"jwt_secret": "change-me-" + GOOD},
        {"jwt_secret": "a" * 64},
        {"jwt_secret": GOOD, "jwt_previous_secrets": DEVELOPMENT + GOOD},
    ],
)
def test_settings_of_development_are_refused_elsewhere(given: dict[str, Any]) -> None:
    with pytest.raises(fitness.Unfit, match="ROWCAST_ENV=development") as caught:
        fitness.check_settings(Settings(**given))
    assert GOOD not in str(caught.value)
    fitness.check_settings(Settings(**given, env="development"))


def test_a_random_secret_is_accepted() -> None:
    for make in (secrets.token_hex, secrets.token_urlsafe):
        fitness.check_settings(Settings(jwt_secret=make(32)))


def test_development_sign_in_ends_the_command(gateway_dsn: str) -> None:
    done = served(gateway_dsn, ROWCAST_DEV_SIGN_IN="true")
    assert done.returncode == 1
    assert "ROWCAST_DEV_SIGN_IN" in done.stderr


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
    run: Callable[..., Any], gateway_dsn: str, older: str
) -> None:
    run(older)
    for env in ("production", "development"):
        done = served(gateway_dsn, ROWCAST_ENV=env)
        assert done.returncode == 1
        assert "run `rowcast migrate`" in done.stderr


def test_database_without_rowcast_is_refused_with_the_command_to_run(empty_db: Database) -> None:
    migrate.migrate(empty_db.dsn())  # the roles, where this is the first test of its server
    migrate.remove(empty_db.dsn())
    done = served(empty_db.dsn("rowcast_gateway"))
    assert done.returncode == 1
    assert "run `rowcast migrate`" in done.stderr


@pytest.mark.both_versions
def test_error_of_the_doctor_is_refused_in_production_alone(
    run: Callable[..., Any], gateway_dsn: str
) -> None:
    run("alter table public.tasks disable row level security")
    done = served(gateway_dsn)
    assert done.returncode == 1
    assert "row_security_off public.tasks" in done.stderr

    async def served_in_development() -> None:
        async with Service(settings_for(gateway_dsn, env="development")) as service:
            lane = service.gateway.database.work
            await fitness.check_database(lane, service.gateway.settings)

    asyncio.run(served_in_development())


@pytest.mark.parametrize("program", ["gateway", "worker"])
def test_doctor_of_a_large_schema_has_its_time(
    run: Callable[..., Any], db: Database, gateway_dsn: str, program: str
) -> None:
    """Longer than statements of requests, which would be tried for ever."""
    run(
        """
        create or replace function sync.doctor()
        returns table (severity text, code text, object text, message text, fix text)
        language sql volatile security definer set search_path = pg_catalog, pg_temp
        begin atomic select 'error', 'has', current_setting('statement_timeout'), '', ''; end
        """
    )
    if program == "gateway":
        said = served(gateway_dsn).stderr
    else:
        worker = Worker(db, ROWCAST_ENV="production")
        worker.process.wait(60)
        said = worker.log
        worker.end()
    assert "has 1min" in said


async def test_newer_database_is_served(run: Callable[..., Any], gateway_dsn: str) -> None:
    run("update sync_internal.state set schema_version = '99.0.0'")
    run(
        "insert into sync_internal.migrations (name, checksum) values ('migrations/9999_x.sql', '')"
    )
    async with Service(settings_for(gateway_dsn, env="production")) as service:
        await fitness.check_database(service.gateway.database.work, service.gateway.settings)


def test_versions_compare_by_number() -> None:
    assert fitness.numbers("0.9.9") < fitness.numbers("0.10.0") < fitness.numbers("1.0.0")
    assert fitness.numbers("") < fitness.numbers(__version__)


async def test_nobody_is_served_before_the_database_was_examined(pg: Server, db: Database) -> None:
    """It is away at first: the gateway is up, says no, and looks as soon as it is there."""
    later = f"{db.name}_later"
    listener = serve.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "serve",
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "ROWCAST_DATABASE_URL": pg.dsn(later, "rowcast_gateway"),
            "ROWCAST_JWT_SECRET": GOOD,
            "PORT": str(port),
        },
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

            async def alive() -> bool:
                try:
                    return (await http.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == 200

            await eventually(alive, 30)
            assert (await http.get("/readyz")).status_code == 503
            refused = await http.post("/api/realtime/query", json={"table": "tasks"})
            assert refused.status_code == 503
            assert refused.json()["code"] == "unavailable"
            db.close()
            await asyncio.to_thread(pg.run, "create database {} template {}", later, db.name)
            await eventually(ready, 30)
            answered = await http.post("/api/realtime/query", json={"table": "tasks"})
            assert answered.status_code == 401
    finally:
        child.terminate()
        assert child.stderr is not None
        said = (await child.stderr.read()).decode()
        await child.wait()
        await asyncio.to_thread(pg.run, "drop database if exists {} with (force)", later)
    # Where nobody reads along, each message is a line of JSON.
    lines = [json.loads(line) for line in said.splitlines()]
    assert {line["level"] for line in lines} >= {"info"}
