"""`rowcast worker` as a process of a test."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.postgres import Database

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30


class Worker:
    """A running worker, and what it logs."""

    def __init__(self, db: Database, **settings: str) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"],
            cwd=ROOT,
            env={
                **os.environ,
                "ROWCAST_WORKER_URL": db.dsn("rowcast_worker"),
                "ROWCAST_WORKER_MODULES": "tests.worker.handlers",
                "ROWCAST_ENV": "development",
                "ROWCAST_LOG_LEVEL": "debug",
                "CHANNEL": "somewhere_else",
                **settings,
            },
            stderr=self._log,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def stop(self) -> int:
        """Asks it to stop, and gives its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._log.close()

    def peak_mb(self) -> int:
        """The most memory it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    @property
    def log(self) -> str:
        # Its place is the worker's, too, which writes there.
        number = self._log.fileno()
        return os.pread(number, os.fstat(number).st_size, 0).decode()


@contextmanager
def working(db: Database, **settings: str) -> Iterator[Worker]:
    """A worker for as long as this lasts."""
    worker = Worker(db, **settings)
    try:
        yield worker
    except BaseException:
        print(worker.log)
        raise
    finally:
        worker.end()
