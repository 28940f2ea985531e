"""A gateway in the test's own loop, on a socket of its own, over a database of its own."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import jwt
import pytest
import pytest_asyncio
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from app import main, serve
from app.config import Settings
from app.gateway import Gateway
from tests.postgres import Database

SECRET = "a secret for tests only, long enough for HS256"
ALICE = "00000000-0000-7000-8000-00000000a11c"
BOB = "00000000-0000-7000-8000-000000000b0b"
CAROL = "00000000-0000-7000-8000-00000000ca01"
BOARD = "00000000-0000-7000-8000-0000000b0001"
DEADLINE_SECONDS = 10.0
# Made once: it reads all certificates there are, for clients that speak plain HTTP to ourselves.
TLS = ssl.create_default_context()


def token(user: str | None = ALICE, seconds: float = 600, secret: str = SECRET, **more: Any) -> str:
    """A signed token; `more` adds claims or, with None, removes them."""
    claims = {"sub": user, "role": "authenticated", "exp": time.time() + seconds, **more}
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, secret, algorithm="HS256")


async def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Waits for a condition, looking at it at every turn of the loop; fails at the deadline."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def eventually(attempt: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    """Repeats an attempt until it succeeds; fails at the deadline."""
    async with asyncio.timeout(seconds):
        while not await attempt():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def transaction(*operations: dict[str, Any], tx_id: str | None = None) -> dict[str, Any]:
    """A transaction with an id of its own."""
    return {"txId": tx_id or str(uuid.uuid4()), "operations": list(operations)}


class Socket:
    """A WebSocket client that speaks the protocol and keeps what it hears."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[dict[str, Any]] = []
        self._number = 0

    async def send(self, frame: Any) -> None:
        await self.connection.send(frame if isinstance(frame, str) else json.dumps(frame))

    async def receive(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            frame: dict[str, Any] = json.loads(await self.connection.recv())
        self.heard.append(frame)
        return frame

    async def expect(self, kind: str) -> dict[str, Any]:
        """The next frame of this type; what comes before it is kept in `heard`."""
        while (frame := await self.receive())["type"] != kind:
            pass
        return frame

    async def update(self, key: str) -> dict[str, Any]:
        """The next update of this record."""
        while True:
            for update in (await self.expect("updates"))["updates"]:
                if update["key"] == key:
                    found: dict[str, Any] = update
                    return found

    async def subscribe(self, *keys: str, cursor: str | None = None, **more: Any) -> dict[str, Any]:
        self._number += 1
        frame: dict[str, Any] = {"type": "subscribe", "id": self._number, "keys": keys, **more}
        await self.send({**frame, "cursor": cursor} if cursor else frame)
        return await self.expect("subscribed")

    async def unsubscribe(self, *keys: str) -> dict[str, Any]:
        self._number += 1
        await self.send({"type": "unsubscribe", "id": self._number, "keys": keys})
        return await self.expect("unsubscribed")

    async def pong(self) -> dict[str, Any]:
        await self.send({"type": "ping"})
        return await self.expect("pong")

    async def closed(self) -> int:
        """Waits for the end of the socket; its close code."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.connection.wait_closed()
        return self.connection.close_code or 0


class Service:
    """A running gateway and ways to talk to it; `server`: of uvicorn's configuration."""

    def __init__(self, settings: Settings, **server: Any) -> None:
        self.listener = serve.listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.app = main.create_app(settings)
        self.gateway: Gateway = self.app.state.gateway
        self.server = main.Server(
            uvicorn.Config(
                self.app,
                ws_per_message_deflate=False,
                log_level="warning",
                proxy_headers=False,
                **{"http": main.Http, "ws": main.Protocol, **server},
            )
        )
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30, verify=TLS)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        await until(lambda: self.server.started)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.stop()

    async def ready(self) -> None:
        """Waits until the relay has a place in the feed."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self.gateway.relay.ready.wait()

    async def caught_up(self) -> None:
        """Waits until the relay has read what is committed now: later sockets do not hear of it."""
        relay = self.gateway.relay
        # The first read to end may have begun before now; the one after it has not.
        for _ in range(2):
            started = time.monotonic()
            relay.wake()
            await until(lambda: relay.idle_seconds < time.monotonic() - started)  # noqa: B023

    async def stop(self) -> None:
        if self._task is not None and not self._task.done():
            self.server.should_exit = True
            async with asyncio.timeout(DEADLINE_SECONDS * 2):
                await self._task

    async def post(
        self, path: str, body: Any, user: str | None = ALICE, **headers: str
    ) -> httpx.Response:
        """POSTs JSON, or text or bytes as they are, as a user."""
        content = body if isinstance(body, str | bytes) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if user is not None:
            named.setdefault("authorization", f"Bearer {token(user)}")
        return await self.http.post(path, content=content, headers=named)

    async def write(self, *operations: dict[str, Any], user: str | None = ALICE) -> Any:
        """Writes one transaction that must succeed; its answer."""
        answer = await self.post("/api/realtime/write", transaction(*operations), user)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @contextlib.asynccontextmanager
    async def connect(self, **given: Any) -> AsyncIterator[Socket]:
        """A socket that has said nothing yet."""
        address = self.url.replace("http", "ws") + "/api/realtime/socket"
        async with connect(address, **given) as connection:
            yield Socket(connection)

    @contextlib.asynccontextmanager
    async def socket(self, user: str = ALICE, **claims: Any) -> AsyncIterator[Socket]:
        """A socket that has been welcomed."""
        async with self.connect() as socket:
            await socket.send({"type": "hello", "protocol": 1, "token": token(user, **claims)})
            await socket.expect("welcome")
            yield socket


def settings_for(dsn: str, **given: Any) -> Settings:
    """Settings of a gateway on this database, free of the environment's."""
    return Settings(**{"database_url": dsn, "jwt_secret": SECRET, "dev_sign_in": True, **given})


@pytest_asyncio.fixture
async def service(gateway_dsn: str) -> AsyncIterator[Service]:
    """A running gateway on a database with the example apps."""
    async with Service(settings_for(gateway_dsn)) as running:
        await running.ready()
        yield running


@pytest.fixture
def run(db: Database) -> Callable[..., Any]:
    """Runs SQL as superuser, committed: `run(sql, *parameters)`; the first column of row one."""
    connection = db.connect()

    def execute(statement: str, *parameters: Any) -> Any:
        cursor = connection.execute(statement.encode(), parameters)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    return execute


class Process:
    """The gateway as a process of its own; `log`: where what it says goes."""

    def __init__(self, dsn: str, listener: Any, log: Path | None = None, **more: str) -> None:
        self._listener = listener
        self._log = log
        self._environment = {
            "PATH": os.environ["PATH"],
            "ROWCAST_DATABASE_URL": dsn,
            "ROWCAST_JWT_SECRET": SECRET,
            "ROWCAST_ENV": "development",
            "ROWCAST_LOG_LEVEL": "warning",
            **more,
        }
        self.held, self._lifeline = os.pipe()
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        handles = f"{self._listener.fileno()},{self.held}"
        with contextlib.nullcontext() if self._log is None else self._log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", "--handles", handles],
                cwd=Path(__file__).parents[2],
                env=self._environment,
                pass_fds=(self._listener.fileno(), self.held),
                stdout=log,
                stderr=log,
            )

    def end(self, how: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(how)
        return self.child.wait(20)

    def close(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.end(signal.SIGKILL)
        os.close(self.held)
        os.close(self._lifeline)


@pytest.fixture
def process(gateway_dsn: str) -> Iterator[tuple[Process, str]]:
    """A gateway as a process of its own on `db`, and its host and port."""
    listener = serve.listen("127.0.0.1", 0)
    made = Process(gateway_dsn, listener)
    made.start()
    yield made, f"127.0.0.1:{listener.getsockname()[1]}"
    made.close()
    listener.close()
