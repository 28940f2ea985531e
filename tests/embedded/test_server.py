"""The embedded server: as the user of this run, whoever that is, and as root where it can be."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from app import embedded, migrate
from app.binaries import EmbeddedError, find_binaries, server_user
from tests.postgres import DEBIAN_15

PATIENCE_SECONDS = 30

# Starts a server, says so and waits to be killed.
LAUNCHER = """
import signal, sys
from pathlib import Path
from app.embedded import Server
server = Server(Path(sys.argv[1]))
server.start()
print("ready", flush=True)
signal.pause()
"""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)  # polls a process that is not ours to wait for


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A data folder; pytest's are closed to other users, so as root the data is led away."""
    path = tmp_path / "data"
    yield path
    embedded.reset(path)


@pytest.fixture
def server(home: Path) -> Iterator[embedded.Server]:
    made = embedded.Server(home)
    made.start()
    yield made
    made.stop()


def query(server: embedded.Server, statement: str) -> object:
    with psycopg.connect(server.dsn(database="postgres"), autocommit=True) as conn:
        row = conn.execute(statement.encode()).fetchone()
        return row[0] if row else None


def postmaster(home: Path) -> int:
    left = embedded.read_pid_file((home / "postgres").resolve())
    assert left is not None
    return left.pid


def answers(server: embedded.Server) -> bool:
    try:
        return query(server, "select 1") == 1
    except psycopg.OperationalError:
        return False


def test_data_is_kept_between_runs(server: embedded.Server, home: Path) -> None:
    assert migrate.create_database(server.dsn(database="postgres"), "kept")
    server.stop()
    again = embedded.Server(home)
    again.start()
    assert not migrate.create_database(again.dsn(database="postgres"), "kept")
    again.stop()


def test_server_is_embedded_18_in_utc_and_code_point_order(server: embedded.Server) -> None:
    assert server.binaries.major == 18
    assert query(server, "show timezone") == "UTC"
    assert query(server, "select 'Z' < 'a'") is True
    assert query(server, "select upper('é')") == "É"


def test_listens_on_a_private_socket_and_no_port(server: embedded.Server) -> None:
    assert query(server, "show listen_addresses") == ""
    folder = Path(str(query(server, "show unix_socket_directories")))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(str(folder / ".s.PGSQL.5432")) <= embedded.SOCKET_PATH_LIMIT
    server.stop()
    assert not folder.exists()


def test_stop_ends_the_server_and_may_be_repeated(server: embedded.Server, home: Path) -> None:
    assert embedded.running_dsn(home) is not None
    server.stop()
    server.stop()
    assert embedded.running_dsn(home) is None


def test_second_launcher_on_the_same_folder_is_refused(server: embedded.Server, home: Path) -> None:
    second = embedded.Server(home)
    with pytest.raises(EmbeddedError, match=f"process {os.getpid()}"):
        second.start()
    assert answers(server)


def test_reset_is_refused_while_in_use(server: embedded.Server, home: Path) -> None:
    with pytest.raises(EmbeddedError, match="in use"):
        embedded.reset(home)
    assert answers(server)


def test_reset_deletes_everything(server: embedded.Server, home: Path) -> None:
    data = server.data
    server.stop()
    assert embedded.reset(home)
    assert not home.exists()
    assert not data.exists()
    assert not embedded.reset(home)


def test_reset_keeps_a_link_and_empties_what_it_leads_to(tmp_path: Path) -> None:
    elsewhere, home = tmp_path / "elsewhere", tmp_path / "data"
    elsewhere.mkdir()
    home.symlink_to(elsewhere)
    for name in ("lock", "secret"):
        (home / name).touch()
    assert embedded.reset(home)
    assert home.is_symlink()
    assert list(elsewhere.iterdir()) == []


def test_reset_leaves_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(EmbeddedError, match="nothing was deleted"):
        embedded.reset(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_data_of_another_major_version_is_refused(server: embedded.Server, home: Path) -> None:
    server.stop()
    (server.data / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match=r"data of PostgreSQL 15.*ROWCAST_POSTGRES_BIN"):
        embedded.Server(home).start()
    (server.data / "PG_VERSION").write_text("18\n")


def test_killed_server_comes_back(server: embedded.Server, home: Path) -> None:
    killed = postmaster(home)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: answers(server) and postmaster(home) != killed)


def test_killed_launcher_leaves_nothing_that_hinders(home: Path) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(home)], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    with launcher.stdout as output:
        assert output.readline() == "ready\n"
    launcher.kill()
    launcher.wait()
    left = (home / "sockets").resolve()
    server = embedded.Server(home)
    server.start()
    assert answers(server)
    server.stop()
    assert not left.exists()


def test_server_that_outlived_its_launcher_is_taken_over(
    server: embedded.Server, home: Path
) -> None:
    outlived = postmaster(home)
    # What kill -9 does where the kernel does not end the child with its parent.
    child, server._child = server._child, None
    server._stopping.set()
    assert server._lock is not None
    server._lock.close()
    successor = embedded.Server(home)
    successor.start()
    assert postmaster(home) == outlived
    assert answers(successor)
    successor.stop()
    assert embedded.running_dsn(home) is None
    assert child is not None
    child.wait(PATIENCE_SECONDS)


def test_number_of_a_dead_server_given_to_another_process_is_no_server(
    server: embedded.Server, home: Path
) -> None:
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    server.stop()
    with subprocess.Popen(["sleep", "60"]) as bystander:
        lines[0] = str(bystander.pid)
        (server.data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        again = embedded.Server(home)
        again.start()
        assert answers(again)
        again.stop()
        assert bystander.poll() is None
        bystander.kill()


def test_interrupted_initialisation_is_begun_again(home: Path) -> None:
    server = embedded.Server(home)
    partial = server.data.with_name("postgres.partial")
    partial.mkdir(parents=True)
    (partial / "PG_VERSION").touch()
    (home / "lock").touch()
    server.start()
    assert answers(server)
    server.stop()


def test_folder_without_binaries_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="ROWCAST_POSTGRES_BIN"):
        embedded.Server(home, tmp_path).start()


def test_named_folder_is_preferred(tmp_path: Path) -> None:
    own = find_binaries(None, server_user()).folder
    program = tmp_path / "postgres"
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.3'\n")
    program.chmod(0o755)
    found = find_binaries(tmp_path, None)
    assert (found.folder, found.version) == (tmp_path, "17.3")
    assert own != tmp_path


@pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="needs Debian's PostgreSQL 15")
def test_server_of_version_15(home: Path) -> None:
    server = embedded.Server(home, DEBIAN_15)
    server.start()
    assert server.binaries.major == 15
    assert query(server, "select 'Z' < 'a'") is True
    server.stop()


def test_long_folder_of_temporary_files_still_gives_a_short_socket(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    server = embedded.Server(home)
    server.start()
    assert answers(server)
    server.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_hands_the_server_to_another_user(server: embedded.Server, home: Path) -> None:
    assert Path(f"/proc/{postmaster(home)}").stat().st_uid != 0
    assert server.data.stat().st_uid != 0


def test_socket_folder_is_reused_after_a_crash(server: embedded.Server, home: Path) -> None:
    folder = server.dsn().split()[0]
    os.kill(postmaster(home), signal.SIGKILL)
    wait_for(lambda: answers(server))
    assert server.dsn().split()[0] == folder
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{folder.removeprefix('host=')}/.s.PGSQL.5432")
