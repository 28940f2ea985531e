"""A backup is restored, as docs/how-to/backup.md says: nobody believes what it does not hold."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from app import fitness, migrate
from app.binaries import run_as
from tests.gateway.conftest import BOB, Service, settings_for, transaction
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database, Standby
from tests.sql.engine import wait_until

pytestmark = pytest.mark.both_versions

WRITE = "/api/realtime/write"
QUERY = "/api/realtime/query"

Backup = Callable[[], "Restore"]
Restore = Callable[[], str]
"""Restores the backup; where the gateway connects then."""


@pytest.fixture(params=["pg_dump", "pg_basebackup"])
def backup(request: pytest.FixtureRequest, db: Database, tmp_path: Path) -> Iterator[Backup]:
    """Makes a backup of the database."""
    with contextlib.ExitStack() as ends:

        def dump() -> Restore:
            file = str(tmp_path / "backup")
            programs = db.server.binaries.folder
            given = ["--format=custom", f"--file={file}", f"--dbname={db.dsn()}"]
            run_as(None, [str(programs / "pg_dump"), *given])

            def restore() -> str:
                made = ends.enter_context(db.server.database(empty=True))
                into = ["--exit-on-error", f"--dbname={made.dsn()}", file]
                run_as(None, [str(programs / "pg_restore"), *into])
                assert migrate.migrate(made.dsn()) == []
                with psycopg.connect(made.dsn()) as conn:
                    # What is set for a role in a database is not in its dump.
                    row = conn.execute(
                        "select count(*) from pg_db_role_setting s join pg_database d"
                        " on d.oid = s.setdatabase where d.datname = current_database()"
                    ).fetchone()
                assert row is not None
                assert row[0] == 2
                return made.dsn("rowcast_gateway")

            return restore

        def copy() -> Restore:
            made = Standby(db.server, streams=False)
            ends.callback(made.stop)

            def writable() -> bool:
                with contextlib.suppress(psycopg.OperationalError):
                    return made.run("select pg_is_in_recovery()") is False
                return False

            wait_until(writable, "the backup is restored")

            def restore() -> str:
                migrate.migrate(made.dsn(db.name))
                return made.dsn(db.name, "rowcast_gateway")

            return restore

        yield dump if request.param == "pg_dump" else copy


async def test_clients_ahead_of_a_restored_backup_read_anew_and_send_again(
    db: Database, gateway_dsn: str, backup: Backup
) -> None:
    kept = str(uuid.uuid4())
    before, after = transaction(create(kept)), transaction(create(str(uuid.uuid4())))
    lost = after["operations"][0]["id"]
    async with Service(settings_for(gateway_dsn)) as service:
        await service.ready()
        async with service.socket(BOB) as bob:
            epoch = bob.heard[0]["epoch"]
            await bob.subscribe(KEY)
            assert (await service.post(WRITE, before)).json()["status"] == "applied"
            await bob.update(f"tasks:{kept}")
            restore = await asyncio.to_thread(backup)
            assert (await service.post(WRITE, after)).json()["status"] == "applied"
            newer = {"type": "set", "table": "tasks", "id": kept, "key": "title", "value": "newer"}
            await service.write(newer)
            while (await bob.update(f"tasks:{kept}"))["version"] < 2:
                pass
            ahead = (await bob.pong())["cursor"]
    dsn = await asyncio.to_thread(restore)
    settings = settings_for(dsn, env="production")
    async with Service(settings) as service:
        await service.ready()
        await fitness.check_database(service.gateway.database.work, settings)
        async with service.socket(BOB) as bob:
            assert bob.heard[0]["epoch"] != epoch
            assert (await bob.subscribe(KEY, cursor=ahead))["stale"] == [KEY]
            body = {"table": "tasks", "limit": 1000, "have": {lost: 1, kept: 2}}
            answer = (await service.post(QUERY, body, BOB)).json()
            assert [entry["id"] for entry in answer["gone"]] == [lost]
            record = answer["recordMap"]["tasks"][kept]
            assert record["version"] == 1
            assert "newer" not in str(record)
            # What is still queued takes effect once, whichever side of the backup it was on.
            assert (await service.post(WRITE, before)).json()["status"] == "duplicate"
            assert (await service.post(WRITE, after)).json()["status"] == "applied"
            assert (await bob.update(f"tasks:{lost}"))["version"] == 1
