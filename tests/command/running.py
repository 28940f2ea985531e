"""`rowcast run` as a process of a test."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app import embedded

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30


@dataclass
class Running:
    process: subprocess.Popen[str]
    home: Path
    url: str

    def get(self, path: str) -> object:
        with urllib.request.urlopen(self.url + path, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def is_ready(self) -> bool:
        try:
            self.get("/readyz")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def children(self, command: str = "serve") -> list[int]:
        """The gateways, or who runs another command; of whichever thread."""
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        listed = b" ".join(_content(thread / "children") for thread in threads)
        commands = {int(child): Path(f"/proc/{int(child)}/cmdline") for child in listed.split()}
        return [
            child for child, path in commands.items() if f"\0{command}\0".encode() in _content(path)
        ]

    def postmaster(self) -> int | None:
        """None while it is starting: its file is not there, or not whole."""
        left = embedded.read_pid_file((self.home / "postgres").resolve())
        return left.pid if left is not None else None


def _content(path: Path) -> bytes:
    """Nothing where the thread or process has ended since it was listed."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)  # polls processes that are not ours to wait for


def start(home: Path, *options: str, **environment: str) -> Running:
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "run", *options],
        cwd=ROOT,
        env={**os.environ, "PORT": "0", "ROWCAST_DATA_DIR": str(home), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"running at (http://\S+)", line)
        if found:
            return Running(process, home, found.group(1))
    raise AssertionError(f"ended with status {process.wait()} before it ran")


def stop(running: Running, by: signal.Signals) -> int:
    running.process.send_signal(by)
    status = running.process.wait(PATIENCE_SECONDS)
    assert running.process.stdout is not None
    running.process.stdout.close()
    return status
