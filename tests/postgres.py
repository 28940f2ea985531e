"""PostgreSQL servers and databases for tests; the only module that knows testing.postgresql.

One server a process and version, all with a template database that was migrated once with the
example apps, and a clone of it per test (about 20 ms, since nothing is flushed).
"""

import fcntl
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import testing.postgresql  # type: ignore[import-untyped, unused-ignore]
from psycopg import sql

from app import migrate
from app.binaries import Binaries, find_binaries, run_as, server_user

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
TEMPLATE = "template_rowcast"
PREPARED = "ROWCAST_TEST_PREPARED"  # in the environment: the folder that processes of a run share

# A clone of the template is about a thousand files: in memory where there is room for both servers.
MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes; a run of the whole suite takes at most a quarter of it

# Nothing here outlives the run. Several hundred connections: the tests of the gateway open many.
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "deadlock_timeout": "100ms",
}

# Runs before exec, so that the server is not root even where the test run is.
BECOME = (
    "import os, sys; user, group = map(int, sys.argv[1:3]); os.setgroups([]); os.setgid(group); "
    "os.setuid(user); os.execv(sys.argv[3], sys.argv[3:])"
)


class Postgresql(testing.postgresql.Postgresql):  # type: ignore[misc, unused-ignore]
    """The stock class made to work as root and on Unix sockets alone."""

    user = server_user()
    binaries: Binaries
    prepared: Path | None

    def initialize_database(self) -> None:
        data = Path(self.base_dir) / "data"
        if self.user is not None:
            for path in (Path(self.base_dir), data, Path(self.base_dir) / "tmp"):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        if self.prepared is not None:
            subprocess.run(["cp", "-a", f"{self.prepared}/.", str(data)], check=True)
            return
        command = [self.initdb, "-D", str(data), "--no-sync", "-U", "postgres", "-A", "trust"]
        run_as(self.user, [*command, *self.binaries.locale])

    def get_server_commandline(self) -> list[str]:
        command: list[str] = super().get_server_commandline()
        if self.user is None:
            return command
        ids = (str(self.user.pw_uid), str(self.user.pw_gid))
        return [sys.executable, "-c", BECOME, *ids, *command]

    def dsn(self, **kwargs: Any) -> dict[str, Any]:
        """What pg8000 needs while the base class waits for the server."""
        socket = f"{self.base_dir}/tmp/.s.PGSQL.{self.settings['port']}"
        return {"user": "postgres", "database": "postgres", "unix_sock": socket, **kwargs}


def _room() -> Path | None:
    """Where the files of a server go: memory, else the usual folder for temporary files."""
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
        return MEMORY
    return None


def prepared_data(binaries: Binaries) -> Path:
    """The data of a server that has the template, made by the first process of the run to ask."""
    shared = Path(os.environ[PREPARED])
    made = shared / binaries.version
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            server = Server(binaries.folder, prepared=False)
            migrate.create_database(server.dsn(), TEMPLATE)
            migrate.migrate(server.dsn(TEMPLATE), examples=True)
            # A third of it is what migrating has left behind, which each clone would copy.
            with psycopg.connect(server.dsn(TEMPLATE), autocommit=True) as conn:
                conn.execute("vacuum full")
            server.stop(keep=made)
    return made


@contextmanager
def sharing() -> Iterator[None]:
    """One folder for what the processes of a run share; it is gone with the first of them."""
    if PREPARED in os.environ:
        yield
        return
    os.environ[PREPARED] = tempfile.mkdtemp(prefix="rowcast-prepared-", dir=_room())
    try:
        yield
    finally:
        shutil.rmtree(os.environ.pop(PREPARED))


class Server:
    """One running server: makes databases, and knows the folder of its programs."""

    def __init__(self, folder: Path | None, *, prepared: bool = True) -> None:
        self.binaries = find_binaries(folder, server_user())
        self.version = self.binaries.version
        self._number = itertools.count()
        programs = {name: str(self.binaries.folder / name) for name in ("initdb", "postgres")}
        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        data = prepared_data(self.binaries) if prepared else None
        kind = type("Postgresql", (Postgresql,), {"binaries": self.binaries, "prepared": data})
        self._folder = tempfile.mkdtemp(prefix="rowcast-test-", dir=_room())
        self._server = kind(**programs, postgres_args=options, port=5432, base_dir=self._folder)
        self._connection: psycopg.Connection | None = None

    def stop(self, keep: Path | None = None) -> None:
        """Its data are gone with it, or moved to `keep`."""
        if self._connection is not None:
            self._connection.close()
        self._server.stop()
        if keep is not None:
            subprocess.run(["mv", f"{self._folder}/data", str(keep)], check=True)
        shutil.rmtree(self._folder)

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        pid: int = self._server.server_pid
        return pid

    @property
    def log(self) -> str:
        text: str = self._server.read_bootlog()
        return text

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"host={self._server.base_dir}/tmp user={user} dbname={database}"

    def run(self, statement: LiteralString, *names: str) -> None:
        """A statement on the database postgres, with names for its placeholders."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _manage(self, statement: LiteralString, *names: str) -> None:
        """As `run`, on a connection that is kept: every test makes and drops a database."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.dsn(), autocommit=True)
        command = sql.SQL(statement).format(*map(sql.Identifier, names))
        try:
            self._connection.execute(command)
        except psycopg.OperationalError:
            # A test may have ended the server, which is there again.
            if not self._connection.closed:
                raise
            self.run(statement, *names)

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator["Database"]:
        """A database of its own, dropped at the end: a clone of the template, or an empty one."""
        name = f"test_{next(self._number)}"
        template = "template0" if empty else TEMPLATE
        self._manage("create database {} template {} strategy file_copy", name, template)
        made = Database(self, name)
        try:
            yield made
        finally:
            made.close()
            self._manage("drop database {} with (force)", name)


class Standby:
    """A streaming copy of a server, until it is promoted; with `streams=False` a backup of it that
    is restored at once, and goes its own way from there.
    """

    def __init__(self, server: Server, *, streams: bool = True) -> None:
        programs = server.binaries.folder
        self._folder = Path(tempfile.mkdtemp(prefix="standby-", dir=_room()))
        user = server_user()
        if user is not None:
            os.chown(self._folder, user.pw_uid, user.pw_gid)
        data = self._folder / "data"
        copy = [str(programs / "pg_basebackup"), "-D", str(data), "--checkpoint=fast"]
        run_as(user, [*copy, "--no-sync", "-d", server.dsn(), *(["-R"] if streams else [])])
        if not streams:
            (data / "recovery.signal").touch()
        own = {**SETTINGS, "port": "5432", "unix_socket_directories": str(self._folder)}
        if not streams:
            own["restore_command"] = "false"  # all there is came with the backup
        command = [str(programs / "postgres"), "-D", str(data)]
        command += [word for name, value in own.items() for word in ("-c", f"{name}={value}")]
        if user is not None:
            command = [sys.executable, "-c", BECOME, str(user.pw_uid), str(user.pw_gid), *command]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdout=quiet, stderr=quiet)

    @property
    def host(self) -> str:
        """The folder of its socket."""
        return str(self._folder)

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"host={self.host} user={user} dbname={database}"

    def run(self, statement: LiteralString) -> Any:
        """A statement on the database postgres; the first column of its row, if it has one."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            cursor = conn.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]

    def promote(self) -> None:
        """Makes it a primary; returns when it takes writes."""
        assert self.run("select pg_promote()")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)


class Database:
    """A database of one test; what was connected through it is closed at its end."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._connections: list[psycopg.Connection] = []

    def dsn(self, user: str = "postgres") -> str:
        return self.server.dsn(self.name, user)

    def connect(self, user: str = "postgres", *, autocommit: bool = True) -> psycopg.Connection:
        conn = psycopg.connect(self.dsn(user), autocommit=autocommit)
        self._connections.append(conn)
        return conn

    def close(self) -> None:
        for conn in self._connections:
            conn.close()
        self._connections.clear()

    def psql(self, script: str) -> str:
        """Runs a script with psql and returns what it printed; RuntimeError with its complaint."""
        done = subprocess.run(
            [str(self.server.binaries.folder / "psql"), "--no-psqlrc", "--quiet", self.dsn()],
            input=script,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout + done.stderr

    def dump(self) -> str:
        """The schema as pg_dump prints it, owners and grants included, without its random parts."""
        program = self.server.binaries.folder / "pg_dump"
        text = run_as(None, [str(program), "--schema-only", f"--dbname={self.dsn()}"])
        return re.sub(r"^\\(un)?restrict .*$", "", text, flags=re.MULTILINE)


def second_version() -> Path | None:
    """The other PostgreSQL to test on: ROWCAST_TEST_POSTGRES_BIN, else Debian's 15."""
    named = os.environ.get("ROWCAST_TEST_POSTGRES_BIN")
    if named:
        return Path(named)
    return DEBIAN_15 if (DEBIAN_15 / "postgres").is_file() else None
