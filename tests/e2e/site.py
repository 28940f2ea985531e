"""The apps as people find them: a gateway that is a process, and a copy of the built apps."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app import pages, serve

ROOT = Path(__file__).parents[2]
SECRET = "a secret for tests only, long enough for HS256"
PATIENCE_SECONDS = 20


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition of something that is no page; fails at the deadline."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)  # polls what is not ours to wait for


class Site:
    """A gateway on a port of its own, which it keeps. Stopped, it refuses connections."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.folder = folder / "apps"
        shutil.copytree(pages.apps_folder(), self.folder)
        self._environment = {
            "PATH": os.environ["PATH"],
            "ROWCAST_DATABASE_URL": dsn,
            "ROWCAST_DATA_DIR": str(folder / "data"),
            "ROWCAST_JWT_SECRET": SECRET,
            "ROWCAST_DEV_SIGN_IN": "true",
            "ROWCAST_LOG_LEVEL": "warning",
        }
        self._lifeline, self._held = os.pipe()
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Returns when it serves."""
        with serve.listen("127.0.0.1", self._port) as listener:
            self._port = listener.getsockname()[1]
            handles = (listener.fileno(), self._lifeline)
            command = [sys.executable, "-m", "tests.e2e.serve", str(self.folder), "serve"]
            self._process = subprocess.Popen(
                [*command, "--handles", "{},{}".format(*handles)],
                cwd=ROOT,
                env=self._environment,
                pass_fds=handles,
            )
        until(lambda: serve.is_ready(self.url))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Returns when it is gone."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        os.close(self._held)
        os.close(self._lifeline)

    def publish(self, marker: str) -> None:
        """Puts a new build in place of this one: its files have other names, its page a marker."""
        for compressed in [*self.folder.rglob("*.br"), *self.folder.rglob("*.gz")]:
            compressed.unlink()
        text = {name: (self.folder / name).read_text() for name in ("index.html", "sw.js")}
        for path in (self.folder / "assets").iterdir():
            name = re.sub(r"-\w+\.", f"-{marker}.", path.name)
            for other in (self.folder / "assets").glob("*.js"):
                other.write_text(other.read_text().replace(path.name, name))
            text = {file: old.replace(path.name, name) for file, old in text.items()}
            path.rename(path.with_name(name))
        text["index.html"] = text["index.html"].replace("<body>", f'<body data-build="{marker}">')
        text["sw.js"] = re.sub(r'const BUILD = "\w+"', f'const BUILD = "{marker}"', text["sw.js"])
        for name, new in text.items():
            (self.folder / name).write_text(new)
