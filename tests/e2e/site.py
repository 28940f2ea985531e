"""The apps as people find them: a gateway that is a process, and a copy of the built apps."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from app import pages, serve
from tests.e2e import forks
from tests.e2e.forks import FORKS

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

    def __init__(self, dsn: str, folder: Path, *, accounts: bool = False) -> None:
        """`accounts`: people sign up; the links in their mails lead here."""
        self.folder = folder / "apps"
        shutil.copytree(pages.apps_folder(), self.folder)
        self._environment = {
            "PATH": os.environ["PATH"],
            "ROWCAST_DATABASE_URL": dsn,
            "ROWCAST_DATA_DIR": str(folder / "data"),
            "ROWCAST_JWT_SECRET": SECRET,
            "ROWCAST_DEV_SIGN_IN": "true",
            "ROWCAST_ENV": "development",
            "ROWCAST_LOG_LEVEL": "warning",
        }
        self._accounts = accounts
        self._port = 0
        self._lifeline, self._held = FORKS.Pipe(duplex=False)
        self._process: ForkServerProcess | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self, **environment: str) -> None:
        """Returns when it serves. What is named goes to the environment of this and later ones."""
        self._environment |= environment
        with serve.listen("127.0.0.1", self._port) as listener:
            self._port = listener.getsockname()[1]
            if self._accounts:
                self._environment |= {"ROWCAST_ACCOUNTS": "true", "ROWCAST_PUBLIC_URL": self.url}
            given = (self.folder, self._environment, listener, self._lifeline)
            self._process = FORKS.Process(target=forks.serve, args=given)
            self._process.start()
        until(lambda: serve.is_ready(self.url))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Returns when it is gone."""
        assert self._process is not None
        assert self._process.pid is not None
        os.kill(self._process.pid, how)
        self._process.join(PATIENCE_SECONDS)
        assert not self._process.is_alive()

    def close(self) -> None:
        if self._process is not None and self._process.is_alive():
            self.stop(signal.SIGKILL)
        self._held.close()
        self._lifeline.close()

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
