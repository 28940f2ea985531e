"""The server, the data and the gateway that everything is measured on."""

import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt
import psycopg

from app import migrate, serve
from app.embedded import DATABASE, Server

HERE = Path(__file__).parent
GATEWAY = "rowcast_gateway"
TASKS = 100_000
LOADER = 900_000  # the number of the user who reads 10 000 tasks
SECRET = secrets.token_hex(32)


def uid(number: int) -> str:
    """The id of the task, user, board or workspace of this number; see data.sql."""
    return f"00000000-0000-7000-8000-00000{1_000_000 + number}"


def member_of(task: int, which: int) -> int:
    """The number of a user who may edit this task."""
    return task // 1000 * 20 + which % 20


def new_id() -> str:
    """A uuid of version 7."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    tail = secrets.token_hex(10)
    return f"{stamp[:8]}-{stamp[8:]}-7{tail[:3]}-8{tail[3:6]}-{tail[6:18]}"


def claims(user: int) -> dict[str, object]:
    return {"sub": uid(user), "role": "authenticated", "exp": int(time.time()) + 3600}


def token(user: int) -> str:
    return jwt.encode(claims(user), SECRET, algorithm="HS256")


@dataclass(frozen=True)
class Stage:
    server: Server

    @property
    def dsn(self) -> str:
        """As the gateway's login."""
        return self.server.dsn(GATEWAY)

    @property
    def admin(self) -> str:
        return self.server.dsn()

    @property
    def postgres(self) -> str:
        return self.server.binaries.version

    def connect(self, dsn: str | None = None) -> psycopg.Connection:
        return psycopg.connect(dsn or self.dsn, autocommit=True, prepare_threshold=0)

    def pgbench(
        self, script: str, clients: int, seconds: float, dsn: str | None = None
    ) -> dict[str, float]:
        """Runs a script of this folder; gives tps and latencies in ms. RuntimeError if it fails."""
        stamp = f"{time.time_ns() // 1_000_000:012x}"
        with tempfile.TemporaryDirectory() as folder:
            command = [
                str(self.server.binaries.folder / "pgbench"),
                "--no-vacuum",
                f"--client={clients}",
                f"--jobs={min(clients, 2)}",
                f"--time={max(1, round(seconds))}",
                f"--define=now={stamp[:8]}-{stamp[8:]}",
                f"--file={HERE / script}",
                "--log",
                f"--log-prefix={folder}/log",
                dsn or self.dsn,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
            if done.returncode != 0 or found is None:
                raise RuntimeError(f"pgbench failed:\n{done.stderr}")
            taken = [
                int(line.split()[2]) / 1000
                for log in Path(folder).iterdir()
                for line in log.read_text().splitlines()
            ]
        return {"tps": float(found[1]), **latencies(taken)}

    @contextmanager
    def gateway(self, **settings: str) -> Iterator["Running"]:
        """A gateway process on a free port; `settings`: further ones by their variables."""
        listener = serve.listen("127.0.0.1", 0)
        gateway = serve.Gateway(
            listener,
            {
                "ROWCAST_DATABASE_URL": self.dsn,
                "ROWCAST_ENV": "development",
                "ROWCAST_JWT_SECRET": SECRET,
                "ROWCAST_LOG_LEVEL": "warning",
                **settings,
            },
        )
        try:
            gateway.start()
            yield Running(
                listener.getsockname()[1], _child_listening_on(listener.fileno()), gateway.start
            )
        finally:
            gateway.stop(15)
            listener.close()


@dataclass(frozen=True)
class Running:
    port: int
    pid: int | None
    again: Callable[[], None]
    """Starts it anew after its process has ended."""

    def memory_kib(self, field: str) -> int | None:
        """VmRSS or VmHWM of the process; None where the system does not tell."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        return int(re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]

    def reset_peak(self) -> None:
        """Makes VmHWM begin anew."""
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")
        except OSError:
            return


def latencies(taken: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    cuts = statistics.quantiles(taken, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def cpu_us(pid: int) -> float:
    """CPU time a process has used so far; 0 where the system does not tell."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000
    except OSError:
        return 0.0


@contextmanager
def stage(say: "Say") -> Iterator[Stage]:
    """A server with the data, on a disk that keeps what is flushed; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="rowcast-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    server = Server(folder)
    try:
        say("starting PostgreSQL")
        server.start()
        migrate.create_database(server.dsn(database="postgres"), DATABASE)
        migrate.migrate(server.dsn(), examples=True)
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            for name in ("data.sql", "twins.sql"):
                say(f"running {name}")
                conn.execute((HERE / name).read_bytes())
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")
        yield Stage(server)
    finally:
        data = server.data
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
        if not data.is_relative_to(folder):
            shutil.rmtree(data.parent, ignore_errors=True)


class Say:
    """Progress, on standard error, a line each."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, text: str) -> None:
        os.write(2, f"{time.monotonic() - self.started:5.0f} s  {text}\n".encode())


def one_write(task: int, title: str) -> list[dict[str, object]]:
    """The operations of the transaction that most figures are about."""
    return [
        {"type": "set", "table": "tasks", "id": uid(task), "key": "title", "value": title},
        {"type": "set-now", "table": "tasks", "id": uid(task), "key": "updatedAt"},
    ]


def ten_writes(tasks: list[int], text: str) -> list[dict[str, object]]:
    """Ten operations on three tasks, the same as bench.hand_three makes."""

    def op(kind: str, which: int, key: str, **more: object) -> dict[str, object]:
        return {"type": kind, "table": "tasks", "id": uid(tasks[which]), "key": key, **more}

    return [
        op("set", 0, "title", value=text),
        op("set", 0, "status", value="done"),
        op("set-now", 0, "updatedAt"),
        op("set", 1, "title", value=text),
        op("listInsert", 1, "tags", value=text),
        op("set-now", 1, "updatedAt"),
        op("set", 2, "title", value=text),
        op("set", 2, "description", value=text),
        op("set", 2, "metadata.points", value=5),
        op("set-now", 2, "updatedAt"),
    ]


def body(task: int, title: str) -> bytes:
    return json.dumps({"txId": new_id(), "operations": one_write(task, title)}).encode()


def _child_listening_on(number: int) -> int | None:
    """The process id of the gateway: our child that inherited the listening socket."""
    try:
        wanted = Path(f"/proc/self/fd/{number}").readlink()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            fds = Path(f"/proc/{child}/fd")
            if any(fd.readlink() == wanted for fd in fds.iterdir()):
                return int(child)
    except OSError:
        return None
    return None
