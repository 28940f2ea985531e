"""Runs the gateway: its listening socket, uvicorn, and the supervisor that brings it back."""

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping

import uvicorn

from . import logs
from .config import Settings

# A peer that stops reading blocks after about 0.4 MB and is gone within 4.5 s; with the system's
# defaults it takes 3.9 MB and stays for ever, pings or not (measured with uvicorn 0.54 on Linux).
SEND_BUFFER_BYTES = 131072
USER_TIMEOUT_MS = 4000
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
MAX_FRAME_BYTES = 65536
BACKLOG = 2048
START_SECONDS = 30
POLL_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


class ServeError(Exception):
    """The gateway cannot run; the message says why."""


def listen(host: str, port: int, setting: str = "PORT") -> socket.socket:
    """A listening socket whose connections inherit the send buffer and the timeout. ServeError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With the protocol named: asyncio's own loop sends small answers without delay (Nagle) only
        # where it knows that this is TCP, else each takes 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        # One that went without a word in the middle of a request has nothing sent to him: with
        # this he is missed within a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {host} port {port}: {error.strerror}. "
            f"Choose another with {setting}=..."
        ) from error
    return listener


def url(listener: socket.socket) -> str:
    """Where a browser on this machine finds the gateway."""
    host, port = listener.getsockname()[:2]
    found = ipaddress.ip_address(host)
    local = found.is_loopback or found.is_unspecified
    name = "localhost" if local else f"[{host}]" if found.version == 6 else host
    return f"http://{name}:{port}"


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then drains for at most `drain_seconds`. Raises ServeError
    where it must not serve.
    """
    from .fitness import Unfit, check_settings
    from .main import Http, Protocol, Server, create_app
    from .spans import configure

    configure()
    found: list[Unfit] = []

    def unfit(why: Unfit) -> None:
        found.append(why)
        server.should_exit = True

    try:
        check_settings(settings)
    except Unfit as why:
        raise ServeError(str(why)) from why
    config = uvicorn.Config(
        create_app(settings, unfit),
        log_config=logs.configuration(settings.log_level, settings.log_format),
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application believes the proxies its settings name
        http=Http,
        ws=Protocol,
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.heartbeat_seconds,
        # A peer that went silent is gone within one and a half heartbeats: 30 s by default.
        ws_ping_timeout=settings.heartbeat_seconds / 2,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    server = Server(config)
    server.run(sockets=[listener])
    if found:
        raise ServeError(str(found[0]))


def end_with(lifeline: int) -> None:
    """Asks this process to stop once the other end of the pipe `lifeline` is closed."""

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


class Child(ABC):
    """A process of ours that is started again whenever it ends."""

    name = "child"

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process. Raises ServeError."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves."""

    def start(self) -> None:
        """Starts the child and waits until it is ready. Raises ServeError if it ends instead."""
        self._child = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise ServeError(f"the {self.name} did not start; what it printed says why")
            time.sleep(POLL_SECONDS)

    def watch(self) -> None:
        """Restarts the child, with growing pauses, until `stop` is called from elsewhere."""
        pause = FIRST_PAUSE_SECONDS
        while self._child is not None:
            started = time.monotonic()
            status = self._child.wait()
            if self._stopping.is_set():
                return
            print(f"rowcast: the {self.name} ended ({status}); starting it again", file=sys.stderr)
            if time.monotonic() - started > LONGEST_PAUSE_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self._stopping.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._child = self._launch_again()

    def stop(self, patience_seconds: float) -> None:
        """Lets the child drain, and ends it after `patience_seconds`."""
        self._stopping.set()
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _launch_again(self) -> subprocess.Popen[bytes] | None:
        while not self._stopping.is_set():
            try:
                return self.launch()
            except ServeError as error:
                print(f"rowcast: {error}; trying again", file=sys.stderr)
                self._stopping.wait(LONGEST_PAUSE_SECONDS)
        return None


class Gateway(Child):
    """`rowcast serve` as a child process.

    The listening socket stays with the parent: while the child is away, connections wait. With
    `shared`, for one of several gateways, it does not: connections are refused, and made elsewhere.
    The child ends when the parent does, even by kill -9, since a pipe between them closes.
    """

    name = "gateway"

    def __init__(
        self, listener: socket.socket, environment: Mapping[str, str], *, shared: bool = False
    ) -> None:
        super().__init__()
        self._listener = listener
        self._place: tuple[str, int] = listener.getsockname()[:2]
        self._shared = shared
        self._environment = {**os.environ, **environment}
        self._lifeline, self._held = os.pipe()
        self.url = url(listener)

    def is_ready(self) -> bool:
        """Whether it says so within a second."""
        return is_ready(self.url)

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process. Raises ServeError."""
        if self._listener.fileno() < 0:
            self._listener = listen(*self._place)
        handles = (self._listener.fileno(), self._lifeline)
        package = __name__.rpartition(".")[0]
        command = [sys.executable, "-m", package, "serve", "--handles", "{},{}".format(*handles)]
        child = subprocess.Popen(
            command,
            env=self._environment,
            pass_fds=handles,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._shared:
            self._listener.close()
        return child

    def stop(self, patience_seconds: float) -> None:
        """Lets the child drain, and ends it after `patience_seconds`."""
        super().stop(patience_seconds)
        os.close(self._held)
        os.close(self._lifeline)


class WorkerChild(Child):
    """`rowcast worker` as a child process, which ends when the parent does."""

    name = "worker"

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._environment = {**os.environ, **environment}
        self._lifeline, self._held = os.pipe()

    def is_ready(self) -> bool:
        """At once: it waits for the database, and nobody waits for it."""
        return True

    def launch(self) -> subprocess.Popen[bytes]:
        """Starts the process."""
        package = __name__.rpartition(".")[0]
        return subprocess.Popen(
            [sys.executable, "-m", package, "worker", "--lifeline", str(self._lifeline)],
            env=self._environment,
            pass_fds=(self._lifeline,),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self, patience_seconds: float) -> None:
        """Lets the child finish or give back what it holds, and ends it after that."""
        super().stop(patience_seconds)
        os.close(self._held)
        os.close(self._lifeline)


def is_ready(address: str) -> bool:
    """Whether the gateway says so within a second; before it accepts, the connection waits."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=1):
            return True
    except OSError:  # an answer that says no is a URLError, which is one of these
        return False
