"""The embedded PostgreSQL server: initialises, starts, watches and stops it.

One running launcher owns a data folder, by a lock file in it. The server listens on a Unix socket
in a private folder and on no TCP port; whoever can enter that folder is trusted.
"""

import ctypes
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psycopg

from .binaries import EmbeddedError, find_binaries, run_as, server_user

DATABASE = "rowcast"
SOCKET_PATH_LIMIT = 103  # bytes of sun_path on macOS; Linux has 107
START_SECONDS = 60  # crash recovery of a development database ends long before
STOP_SECONDS = 20
RESTART_PAUSE_SECONDS = 0.5
POLL_SECONDS = 0.02
LOG_LIMIT_BYTES = 10 * 1024 * 1024
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Server:
    """A PostgreSQL server over the data folder `home`: `start`, use `dsn`, `stop`.

    On Linux the server ends with the thread that started it, even by kill -9: start it from one
    that lives as long as the server shall.
    """

    def __init__(self, home: Path, postgres_bin: Path | None = None) -> None:
        self.home = home.absolute()
        self._bin_folder = postgres_bin
        self._user = server_user()
        self._lock: IO[str] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    def dsn(self, user: str = "postgres", database: str = DATABASE) -> str:
        """The libpq connection string for a login. Only valid once started."""
        return f"host={self._sockets} user={user} dbname={database}"

    @property
    def data(self) -> Path:
        """PGDATA: in `home`; where that is closed to the server's user a link leads away."""
        return (self.home / "postgres").resolve()

    def start(self) -> None:
        """Brings the server up, initialising its data at first.

        A server that outlived a killed launcher is taken over. Raises EmbeddedError.
        """
        self.binaries = find_binaries(self._bin_folder, self._user)
        try:
            self.home.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock = lock_home(self.home)
            self._place_data()
            self._check_version()
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            self._take_over_or_launch()
        except PermissionError as error:
            self.stop()
            raise EmbeddedError(
                f"{error.filename}: permission denied. The data folder belongs to another user: "
                "run as that user or choose another ROWCAST_DATA_DIR"
            ) from None
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="postgres-watch", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Harmless when not running."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        if self._lock is not None:
            stop_server(self.data, self._child)
        self._child = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            (self.home / "sockets").unlink(missing_ok=True)
            self._sockets = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _place_data(self) -> None:
        link = self.home / "postgres"
        if self._user is None or link.is_symlink() or link.exists():
            return
        try:
            run_as(self._user, ["/bin/sh", "-c", 'cd "$0"', str(self.home)])
        except EmbeddedError:
            key = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
            away = Path("/var/lib/rowcast") / key
            away.mkdir(mode=0o755, parents=True, exist_ok=True)
            link.symlink_to(away / "postgres")

    def _check_version(self) -> None:
        try:
            found = (self.data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            return
        if found != str(self.binaries.major):
            raise EmbeddedError(
                f"{self.home} holds data of PostgreSQL {found}, but the server to run is "
                f"{self.binaries.version} ({self.binaries.folder}). Point ROWCAST_POSTGRES_BIN at "
                f"binaries of version {found}, move the data with pg_dump, choose another "
                "ROWCAST_DATA_DIR, or delete it with `make reset`."
            )

    def _initialise(self) -> None:
        """initdb beside the final place, then a rename: a killed attempt leaves nothing."""
        partial = self.data.with_name("postgres.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(partial, self._user.pw_uid, self._user.pw_gid)
        initdb = [str(self.binaries.folder / "initdb"), "-D", str(partial)]
        run_as(self._user, [*initdb, "-U", "postgres", "-A", "trust", *self.binaries.locale])
        partial.rename(self.data)

    def _take_over_or_launch(self) -> None:
        left = read_pid_file(self.data)
        if left is not None and left.is_running:
            self._sockets = left.sockets
            try:
                self._wait_until_ready(left)
            except EmbeddedError:
                stop_server(self.data, None)
            else:
                return
        elif left is not None:
            # Another process may have the number by now, which Postgres would take for a server.
            (self.data / "postmaster.pid").unlink()
        self._sockets = self._socket_folder()
        self._launch()

    def _socket_folder(self) -> Path:
        """A private folder with a short path; the link in `home` to it outlives a kill."""
        link = self.home / "sockets"
        owner = self._user.pw_uid if self._user else os.geteuid()
        if link.is_dir():
            found = link.stat()
            if found.st_uid == owner and found.st_mode & 0o777 == 0o700:
                return link.resolve()
        link.unlink(missing_ok=True)
        base = tempfile.gettempdir()
        if len(f"{base}/rowcast-12345678/.s.PGSQL.5432.lock".encode()) > SOCKET_PATH_LIMIT:
            base = "/tmp"  # noqa: S108  mkdtemp makes a private folder in it
        made = Path(tempfile.mkdtemp(prefix="rowcast-", dir=base))
        if self._user is not None:
            os.chown(made, self._user.pw_uid, self._user.pw_gid)
        link.symlink_to(made)
        return made

    def _launch(self) -> None:
        log = self.home / "postgres.log"
        too_long = log.exists() and log.stat().st_size > LOG_LIMIT_BYTES
        argv = [str(self.binaries.folder / "postgres"), "-D", str(self.data)]
        for setting in (
            "listen_addresses=",
            f"unix_socket_directories={self._sockets}",
            "unix_socket_permissions=0700",
            "port=5432",
            "timezone=UTC",
            "log_timezone=UTC",
        ):
            argv += ["-c", setting]
        with log.open("wb" if too_long else "ab") as output:
            self._child = subprocess.Popen(
                argv,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=Become(self._user, os.getpid()),  # noqa: PLW1509  system calls only
            )
        self._wait_until_ready(self._child)

    def _wait_until_ready(self, server: "subprocess.Popen[bytes] | PidFile") -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.dsn(database="postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                late = self._stopping.is_set() or time.monotonic() > deadline
                if late or has_ended(server):
                    said = self._last_log(error)
                    raise EmbeddedError(f"PostgreSQL did not start: {said}") from None
            time.sleep(POLL_SECONDS)  # a server that starts has nothing to wait on

    def _last_log(self, error: Exception) -> str:
        try:
            lines = (self.home / "postgres.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join([str(error).strip(), f"{self.home}/postgres.log ends with:", *lines[-8:]])

    def _watch(self) -> None:
        """Starts the server again when it ended though nobody asked, for example by kill -9."""
        server = self._child or read_pid_file(self.data)
        while not self._stopping.wait(RESTART_PAUSE_SECONDS):
            if server is not None and not has_ended(server):
                continue
            try:
                self._launch()
            except EmbeddedError as error:
                # The backends of a killed postmaster hold its shared memory for a moment.
                print(f"rowcast: {error}; trying again", file=sys.stderr)
            server = self._child


class Become:
    """Runs in the child between fork and exec: drops root and, on Linux, ends with its parent.

    The order matters: the kernel forgets the death signal when the user changes.
    """

    def __init__(self, user: pwd.struct_passwd | None, parent: int) -> None:
        self._user = user
        self._parent = parent
        self._prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def __call__(self) -> None:
        os.umask(0o077)
        if self._user is not None:
            os.setgroups([])
            os.setgid(self._user.pw_gid)
            os.setuid(self._user.pw_uid)
        if self._prctl is not None:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != self._parent:
                os._exit(1)


@dataclass(frozen=True)
class PidFile:
    """What postmaster.pid says: the process, its data folder and its socket folder."""

    pid: int
    data: Path
    sockets: Path | None

    @property
    def is_running(self) -> bool:
        """Whether that process is a server over this folder; numbers are given out again."""
        try:
            if Path("/proc/self/cwd").exists():
                return Path(f"/proc/{self.pid}/cwd").readlink() == self.data
            command = ["ps", "-o", "command=", "-p", str(self.pid)]
            shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            return str(self.data) in shown
        except OSError:
            return False


def read_pid_file(data: Path) -> PidFile | None:
    """Reads `data`/postmaster.pid; None where it is absent or empty."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return PidFile(pid, data, Path(lines[4]) if len(lines) > 4 and lines[4] else None)


def running_dsn(home: Path, user: str = "postgres") -> str | None:
    """How to reach the server another process runs over this data folder, if one does."""
    running = read_pid_file((home / "postgres").resolve())
    if running is None or running.sockets is None or not running.is_running:
        return None
    return f"host={running.sockets} user={user} dbname={DATABASE}"


def has_ended(server: subprocess.Popen[bytes] | PidFile) -> bool:
    """Whether the process is gone, be it our child or not."""
    if isinstance(server, PidFile):
        return not server.is_running
    return server.poll() is not None


def lock_home(home: Path) -> IO[str]:
    """Takes the data folder for this process. EmbeddedError names the one that has it."""
    lock = (home / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read().strip()
        lock.close()
        raise EmbeddedError(
            f"{home} is in use by another rowcast (process {owner}); stop it, or choose another "
            "ROWCAST_DATA_DIR"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def stop_server(data: Path, child: subprocess.Popen[bytes] | None) -> None:
    """Ends the server over `data`: fast shutdown, after STOP_SECONDS an immediate one."""
    server = child or read_pid_file(data)
    if server is None:
        return
    for request in (signal.SIGINT, signal.SIGQUIT):
        deadline = time.monotonic() + STOP_SECONDS
        if not has_ended(server):
            os.kill(server.pid, request)
        while not has_ended(server):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)  # the process may not be our child: nothing to wait on
        else:
            return


def reset(home: Path) -> bool:
    """Deletes the data folder and stops a server left over on it. False if there was none.

    Raises EmbeddedError while another rowcast uses it.
    """
    if not home.exists():
        return False
    home = home.absolute()
    if any(home.iterdir()) and not (home / "lock").exists():
        raise EmbeddedError(f"{home} is not a data folder of rowcast; nothing was deleted")
    with lock_home(home):
        link = home / "postgres"
        stop_server(link.resolve(), None)
        if link.is_symlink():
            shutil.rmtree(link.resolve().parent, ignore_errors=True)
        shutil.rmtree((home / "sockets").resolve(), ignore_errors=True)
        shutil.rmtree(home.resolve())
        if home.is_symlink():  # somebody wants the data elsewhere, the next time too
            home.resolve().mkdir()
    return True
