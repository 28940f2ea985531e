"""`rowcast run` as a person meets it: a process, its output, and what kill -9 does to its parts."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from app import embedded
from tests.command.running import PATIENCE_SECONDS, ROOT, Running, start, stop, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the gateway in /proc")


def test_run_is_ready_with_demo_users_and_stops_clean(running: Running, home: Path) -> None:
    assert running.is_ready()
    request = urllib.request.Request(
        running.url + "/api/auth/dev-sign-in",
        data=b'{"user": "alice"}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        assert json.load(answer)["userId"] == "00000000-0000-7000-8000-00000000a11c"
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert stop(running, signal.SIGTERM) == 0
    assert embedded.running_dsn(home) is None


def test_second_run_keeps_the_data_and_the_secret(running: Running, home: Path) -> None:
    secret = (home / "secret").read_text()
    assert stop(running, signal.SIGINT) == 0
    again = start(home)
    assert again.is_ready()
    assert (home / "secret").read_text() == secret
    stop(again, signal.SIGTERM)


@linux
def test_killed_gateway_comes_back(running: Running) -> None:
    (killed,) = running.children()
    os.kill(killed, signal.SIGKILL)
    # The socket stays open meanwhile: the request waits rather than fails.
    wait_for(running.is_ready)
    assert running.children() != [killed]


@linux
def test_jobs_are_done_and_a_killed_worker_comes_back(running: Running, home: Path) -> None:
    admin = embedded.running_dsn(home)
    assert admin is not None

    def job() -> None:
        with psycopg.connect(admin) as conn:
            conn.execute("select jobs.enqueue('prune')")

    def left() -> int:
        with psycopg.connect(admin) as conn:
            return len(conn.execute("select from jobs.list()").fetchall())

    job()
    wait_for(lambda: not left())
    (killed,) = running.children("worker")
    os.kill(killed, signal.SIGKILL)
    job()
    wait_for(lambda: not left())
    (again,) = running.children("worker")
    assert again != killed
    assert stop(running, signal.SIGTERM) == 0
    assert not Path(f"/proc/{again}").exists()


def test_killed_postgres_comes_back(running: Running) -> None:
    killed = running.postmaster()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: running.postmaster() not in (None, killed) and running.is_ready())


@linux
def test_killed_run_ends_its_gateway_and_the_next_run_works(running: Running, home: Path) -> None:
    (gateway,) = running.children()
    stop(running, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{gateway}").exists())
    again = start(home)
    assert again.is_ready()
    stop(again, signal.SIGTERM)


def test_taken_port_is_said_in_words(running: Running, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "app", "run"],
        cwd=ROOT,
        env={**os.environ, "PORT": port, "ROWCAST_DATA_DIR": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"port {port}" in second.stderr
    assert "Traceback" not in second.stderr
    assert embedded.reset(tmp_path / "other")


def test_tail_prints_changes_of_any_writer(running: Running, home: Path) -> None:
    environment = {**os.environ, "ROWCAST_DATA_DIR": str(home)}
    tail = subprocess.Popen(
        [sys.executable, "-m", "app", "tail"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    with tail.stdout, tail.stderr:
        assert "Waiting" in tail.stderr.readline()
        update = "update public.workspaces set name = 'Renamed' where name = 'Demo'"
        subprocess.run(
            [sys.executable, "-m", "app", "psql", "-c", update],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
        line = tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(PATIENCE_SECONDS) == 0
    assert "workspaces:" in line
    assert '"Renamed"' in line
