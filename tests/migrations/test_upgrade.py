"""Gateways are upgraded one after the other: the database first, under those that still run."""

import asyncio
import json
import re
import shutil
import uuid
from pathlib import Path

import psycopg
import pytest

from app import migrate
from tests.gateway.conftest import ALICE, BOB, Service, settings_for, transaction, until
from tests.gateway.test_socket import KEY, create
from tests.migrations.statements import FOLDER
from tests.postgres import Database
from tests.sql.engine import Background, wait_until

pytestmark = pytest.mark.both_versions

RELEASED = sorted(FOLDER.glob("*.json"))


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The SQL of a later version: a table, a column, and a function that gateways call."""
    folder = tmp_path / "sql"
    shutil.copytree(migrate.sql_folder(), folder)
    (folder / "migrations" / "9999_later.sql").write_text(
        "alter table sync_internal.state add column later integer not null default 0;\n"
        "create table sync_internal.later (id integer primary key);\n"
    )
    status = folder / "functions" / "read" / "gateway_read.sql"
    status.write_text(
        status.read_text().replace(
            "'schema', s.app_schema", "'later', s.later, 'schema', s.app_schema"
        )
    )
    return folder


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_statements_of_released_gateways_are_understood(db: Database, released: Path) -> None:
    gateway, worker = db.connect("rowcast_gateway"), db.connect("rowcast_worker")
    for name, statement in json.loads(released.read_text("utf-8")).items():
        first, *others = re.split(r"%(?:\(\w+\))?[sbt]", statement)
        numbered = first + "".join(f"${number}{text}" for number, text in enumerate(others, 1))
        prepare = f"prepare s_{name.lower()} as {numbered}".encode()
        try:
            try:
                gateway.execute(prepare)
            except psycopg.errors.InsufficientPrivilege:
                # One of the worker's, which are in the same place.
                worker.execute(prepare)
        except psycopg.Error as error:
            pytest.fail(f"{released.stem} {name}: {error}")


def test_every_release_has_its_statements() -> None:
    from app import __version__

    assert __version__ in {path.stem for path in RELEASED}


async def test_gateway_goes_on_while_and_after_the_database_is_migrated(
    db: Database, gateway_dsn: str, newer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load: each write is applied once, the socket stays, and it hears of all of them."""
    written: set[str] = set()
    enough = asyncio.Event()
    async with Service(settings_for(gateway_dsn)) as service:
        await service.ready()

        async def write(user: str) -> None:
            while not enough.is_set():
                task = str(uuid.uuid4())
                body = transaction(create(task))
                while True:
                    answer = await service.post("/api/realtime/write", body, user)
                    if answer.status_code == 200:
                        break
                    # Busy, or a timeout: the same again.
                    assert answer.status_code == 503, answer.text
                written.add(task)

        async with service.socket(BOB) as bob, asyncio.TaskGroup() as group:
            await bob.subscribe(KEY)
            for user in (ALICE, BOB):
                group.create_task(write(user))
            try:
                await until(lambda: len(written) >= 10)
                monkeypatch.setattr(migrate, "__version__", "99.0.0")
                done = await asyncio.to_thread(migrate.migrate, db.dsn(), folder=newer)
                assert done == ["migrations/9999_later.sql"]
                before = len(written)
                await until(lambda: len(written) >= before + 10)
            finally:
                enough.set()
        async with service.socket(BOB) as bob:
            await bob.subscribe(KEY)
            last = str(uuid.uuid4())
            await service.write(create(last))
            await bob.update(f"tasks:{last}")
        assert (await service.http.get("/readyz")).status_code == 200
        answer = await service.post("/api/realtime/query", {"table": "tasks", "limit": 1000}, BOB)
        assert set(answer.json()["ids"]) >= written
    with psycopg.connect(db.dsn()) as conn:
        found = conn.execute("select id::text, version from public.tasks where title = 'new'")
        assert set(dict(found.fetchall()).values()) == {1}


def test_migrate_that_waits_for_a_transaction_holds_up_nobody_else(db: Database) -> None:
    long, other = db.connect(autocommit=False), db.connect()
    long.execute("update public.tasks set title = title || '.'")
    migrating = Background(lambda: migrate.migrate(db.dsn()))
    waits = """
        select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%live_tables%'
    """
    wait_until(lambda: other.execute(waits).fetchone(), "it has tried")
    for _ in range(20):
        other.execute("set statement_timeout = '3s'")
        other.execute("select count(*) from public.tasks")
        other.execute("select sync.status()")
    assert migrating._thread.is_alive()
    long.commit()
    migrating.result()


def test_an_older_migrate_does_not_undo_a_newer_one(db: Database, newer: Path) -> None:
    migrate.migrate(db.dsn(), folder=newer)
    with pytest.raises(migrate.MigrationError, match="newer version"):
        migrate.migrate(db.dsn())
    with psycopg.connect(db.dsn()) as conn:
        assert "later" in str(conn.execute("select sync.gateway_status()").fetchone())
