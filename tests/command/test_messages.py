"""What the command says where it cannot do as it is told: a message, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command.running import ROOT

NOWHERE = "host=/nowhere"
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
