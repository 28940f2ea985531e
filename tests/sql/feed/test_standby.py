"""A standby makes no cursors: its snapshots list no running transactions."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.binaries import run_as, server_user
from tests.postgres import BECOME, Database
from tests.sql.engine import wait_until


@pytest.fixture
def standby(db: Database) -> Iterator[str]:
    """Where a standby of the test's server listens."""
    server = db.server
    program = server.binaries.folder / "pg_basebackup"
    if not program.is_file():
        pytest.skip("no pg_basebackup beside this server")
    user = server_user()
    folder = Path(tempfile.mkdtemp(prefix="standby-"))
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    run_as(
        user,
        [
            str(program),
            "-D",
            str(folder / "data"),
            "-R",
            "--checkpoint=fast",
            "--no-sync",
            "-d",
            server.dsn(),
        ],
    )
    command = [
        str(server.binaries.folder / "postgres"), "-D", str(folder / "data"), "-p", "5432",
        "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=", "-c", "fsync=off",
        "-c", "max_connections=300",
    ]  # fmt: skip
    if user is not None:
        command = [sys.executable, "-c", BECOME, str(user.pw_uid), str(user.pw_gid), *command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    dsn = f"host={folder} dbname={db.name} user=rowcast_gateway"

    def ready() -> bool:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(ready, "the standby accepts connections")
        yield dsn
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def test_standby_gives_no_cursor(standby: str) -> None:
    with psycopg.connect(standby, autocommit=True) as conn:
        for statement in (
            "select sync.gateway_changes(null)",
            "select sync.gateway_changes('v1..1..')",
            "select sync.gateway_subscribe(null, '{tasks}', null)",
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute(statement)
        status = conn.execute("select sync.gateway_status()::json ->> 'ready'").fetchone()
        assert status == ("false",)
