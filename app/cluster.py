"""Two gateways behind HAProxy, on one machine: `rowcast run --cluster`."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .embedded import Become
from .serve import Child, Gateway, ServeError, is_ready, listen, url

CONFIGURATION: Final = Path(__file__).parent / "haproxy.cfg"
NAMES: Final = ("ONE", "TWO")
MISSING: Final = (
    "HAProxy is needed for two gateways, and there is none. Debian, Ubuntu: apt install haproxy. "
    "macOS: brew install haproxy"
)


def find_haproxy() -> str:
    """The program; it is often where only root looks. Raises ServeError."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"))
    found = shutil.which("haproxy", path=places)
    if found is None:
        raise ServeError(MISSING)
    return found


class Balancer(Child):
    """HAProxy on a listening socket of ours, before these gateways. On Linux it ends with the
    thread that started it.
    """

    name = "balancer"

    def __init__(
        self, program: str, listener: socket.socket, gateways: Mapping[str, Gateway]
    ) -> None:
        super().__init__()
        self._command = [program, "-db", "-f", str(CONFIGURATION)]
        self._listener = listener
        self._environment = {
            **os.environ,
            "ROWCAST_BIND": f"fd@{listener.fileno()}",
            **{
                f"ROWCAST_GATEWAY_{name}": gateway.url.partition("//")[2]
                for name, gateway in gateways.items()
            },
        }

    def is_ready(self) -> bool:
        """Whether a gateway answers through it."""
        return is_ready(url(self._listener))

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process."""
        return subprocess.Popen(
            self._command,
            env=self._environment,
            pass_fds=(self._listener.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=Become(None, os.getpid()),  # noqa: PLW1509  system calls only
        )


class Cluster:
    """Two gateways and their balancer; each is started again when it ends."""

    def __init__(
        self, haproxy: str, listener: socket.socket, environment: Mapping[str, str]
    ) -> None:
        believed = {**environment, "ROWCAST_TRUSTED_PROXIES": "127.0.0.1"}
        self._gateways = {
            name: Gateway(listen("127.0.0.1", 0), believed, shared=True) for name in NAMES
        }
        self._balancer = Balancer(haproxy, listener, self._gateways)
        self._stopped = threading.Event()

    @property
    def urls(self) -> list[str]:
        """Where each gateway is found without the balancer."""
        return [gateway.url for gateway in self._gateways.values()]

    def start(self) -> None:
        """Starts all and waits until they are ready. Raises ServeError."""
        for gateway in self._gateways.values():
            gateway.start()
        self._balancer.start()

    def watch(self) -> None:
        """Keeps all of them running until this is interrupted."""
        for child in (self._balancer, *self._gateways.values()):
            threading.Thread(target=child.watch, name=child.name, daemon=True).start()
        self._stopped.wait()

    def stop(self, patience_seconds: float) -> None:
        """Drains the gateways, both at once, then ends the balancer."""
        stopping = [
            threading.Thread(target=gateway.stop, args=(patience_seconds,))
            for gateway in self._gateways.values()
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._balancer.stop(patience_seconds)
