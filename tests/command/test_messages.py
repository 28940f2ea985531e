"""What the command says where it cannot do as it is told: a message, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command.running import ROOT

NOWHERE = "host=/nowhere"
PSQL = """#!/bin/sh
echo "$@"
echo "password $PGPASSWORD"
"""
SECRET = "s" * 32


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        ("serve", {}, "ROWCAST_DATABASE_URL"),
        ("serve", {"ROWCAST_DATABASE_URL": NOWHERE}, "nobody could sign in"),
        (
            "serve",
            {
                "ROWCAST_DATABASE_URL": NOWHERE,
                "ROWCAST_JWT_SECRET": SECRET,
                "ROWCAST_JWT_ALGORITHMS": "RS256",
            },
            "nobody could sign in",
        ),
        ("serve", {"ROWCAST_JWT_SECRET_FILE": "/nowhere"}, "/nowhere: No such file"),
        ("serve", {"ROWCAST_DATABASE_URL_FILE": "/dev/null"}, "/dev/null is empty"),
        (
            "serve",
            {"ROWCAST_JWT_SECRET": SECRET, "ROWCAST_JWT_SECRET_FILE": "/nowhere"},
            "keep one",
        ),
        ("serve", {"ROWCAST_JWT_JWKS_URL": "nowhere"}, "ROWCAST_JWT_JWKS_URL"),
        ("serve", {"PORT": "many"}, "PORT"),
        ("doctor", {"ROWCAST_MIGRATE_URL": "postgres//me:zzpassword@db/app"}, "MIGRATE_URL must"),
        ("worker", {"ROWCAST_WORKER_URL": "host='db password=zzpassword"}, "WORKER_URL must"),
        ("run", {"ROWCAST_DATA_DIR": "/dev/null"}, "/dev/null"),
        ("reset --yes", {"ROWCAST_DATA_DIR": "/dev/null"}, "/dev/null"),
    ],
)
def test_failure_is_one_message(
    tmp_path: Path, command: str, environment: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", *command.split()],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "COLUMNS": "500", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error:")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "zzpassword" not in done.stderr


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:zz%40top@db:5433/app?sslmode=require", "host=db user=me password=zz@top"],
)
def test_password_is_not_among_the_arguments_of_psql(tmp_path: Path, url: str) -> None:
    """Everybody on the machine can see those."""
    psql = tmp_path / "psql"
    psql.write_text(PSQL)
    psql.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "app", "psql", "-c", "select 1"],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "ROWCAST_MIGRATE_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments, password = done.stdout.splitlines()
    assert "zz" not in arguments
    assert "host=db" in arguments
    assert arguments.endswith("-c select 1")
    assert password == "password zz@top"
