"""Two gateways behind HAProxy: any client on any of them, and one may be killed."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from app import embedded, serve
from app.cluster import MISSING, find_haproxy
from tests.command.running import PATIENCE_SECONDS, ROOT, Running, start, stop, wait_for

BOARD = "00000000-0000-7000-8000-0000000b0001"
KEY = f"tasks?boardId={BOARD}"
TASK = "tasks:00000000-0000-7000-8000-0000000c0001"
USERS = {
    "00000000-0000-7000-8000-00000000a11c": "alice",
    "00000000-0000-7000-8000-000000000b0b": "bob",
}


def _there() -> bool:
    try:
        return bool(find_haproxy())
    except serve.ServeError:
        return False


needs_haproxy = pytest.mark.skipif(not _there(), reason=MISSING)
linux = pytest.mark.skipif(sys.platform != "linux", reason="finds the gateways in /proc")


@dataclass
class Cluster:
    """A running pair: `running` its balancer, `gateways` their addresses."""

    running: Running
    gateways: list[str]
    tokens: dict[str, str] = field(default_factory=dict)

    def gateway_of(self, url: str) -> int:
        """The process that serves an address."""
        port = int(url.rpartition(":")[2])
        listing = Path("/proc/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in listing]
        (inode,) = [r[9] for r in rows if r[3] == "0A" and int(r[1].split(":")[1], 16) == port]
        for child in self.running.children():
            for handle in Path(f"/proc/{child}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if str(handle.readlink()) == f"socket:[{inode}]":
                        return child
        raise AssertionError(f"nobody listens at {url}")

    def sockets(self, url: str) -> int:
        """How many sockets a gateway has."""
        found = re.search(r"^rowcast_sockets (\d+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
        assert found is not None
        return int(found.group(1))

    def token(self, user: str) -> str:
        if user not in self.tokens:
            answer = httpx.post(f"{self.running.url}/api/auth/dev-sign-in", json={"user": user})
            self.tokens[user] = answer.json()["token"]
        return self.tokens[user]

    def write(self, url: str, task: str, user: str = "alice") -> None:
        """Creates a task through an address."""
        answer = httpx.post(
            f"{url}/api/realtime/write",
            json=creation(task),
            headers={"Authorization": f"Bearer {self.token(user)}"},
        )
        assert answer.status_code == 200, answer.text

    @asynccontextmanager
    async def socket(self, url: str, user: str, *keys: str) -> AsyncIterator["Screen"]:
        """A welcomed socket that is subscribed to keys."""
        screen = Screen(self.token(user), keys)
        async with connect(f"{url.replace('http', 'ws')}/api/realtime/socket") as connection:
            await screen.join(connection)
            yield screen


@dataclass
class Screen:
    """One client: its socket, its cursor, and the tasks it has heard of."""

    token: str
    keys: tuple[str, ...]
    cursor: str | None = None
    heard: set[str] = field(default_factory=set)
    stale: list[str] = field(default_factory=list)
    connection: ClientConnection | None = None

    async def send(self, frame: Any) -> None:
        assert self.connection is not None
        await self.connection.send(json.dumps(frame))

    async def receive(self) -> Any:
        assert self.connection is not None
        frame = json.loads(await self.connection.recv())
        if frame["type"] == "updates":
            self.heard.update(update["key"].partition(":")[2] for update in frame["updates"])
            self.cursor = frame["cursor"]
        elif frame["type"] == "stale":
            self.stale.extend(frame["keys"])
        return frame

    async def expect(self, kind: str) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (frame := await self.receive())["type"] != kind:
                pass
        return frame

    async def join(self, connection: ClientConnection) -> None:
        self.connection = connection
        await self.send({"type": "hello", "protocol": 1, "token": self.token})
        await self.expect("welcome")
        subscribe = {"type": "subscribe", "id": 1, "keys": self.keys}
        await self.send({**subscribe, "cursor": self.cursor} if self.cursor else subscribe)
        self.cursor = (await self.expect("subscribed"))["cursor"]

    async def live(self, url: str) -> None:
        """Listens for ever; whenever it is cut off it comes again, where it left off."""
        address = f"{url.replace('http', 'ws')}/api/realtime/socket"
        while True:
            try:
                async with connect(address, open_timeout=5) as connection:
                    await self.join(connection)
                    while True:
                        await self.receive()
            except (OSError, TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(0.05)  # a client's pause between two tries


def creation(task: str) -> dict[str, Any]:
    value = {"boardId": BOARD, "title": "new"}
    operation = {"type": "create", "table": "tasks", "id": task, "value": value}
    return {"txId": str(uuid.uuid4()), "operations": [operation]}


async def until(condition: Any, seconds: float = PATIENCE_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("cluster") / "data"
    yield path
    embedded.reset(path)


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[Cluster]:
    running = start(home, "--cluster")
    assert running.process.stdout is not None
    for line in running.process.stdout:
        if "behind HAProxy:" in line:
            yield Cluster(running, re.findall(r"http://[\d.]+:\d+|http://localhost:\d+", line))
            break
    if running.process.poll() is None:
        assert stop(running, signal.SIGTERM) == 0


@needs_haproxy
async def test_what_is_written_through_one_gateway_is_heard_on_the_other(cluster: Cluster) -> None:
    one, two = cluster.gateways
    async with (
        cluster.socket(one, "bob", KEY) as on_one,
        cluster.socket(two, "bob", KEY) as on_two,
    ):
        for written, listening in ((one, on_two), (two, on_one)):
            task = str(uuid.uuid4())
            await asyncio.to_thread(cluster.write, written, task)
            async with asyncio.timeout(1):
                while task not in listening.heard:
                    await listening.receive()


@needs_haproxy
async def test_sockets_are_spread_and_the_client_s_address_is_told(cluster: Cluster) -> None:
    url = cluster.running.url
    async with cluster.socket(url, "bob", KEY), cluster.socket(url, "alice", KEY):
        assert [cluster.sockets(gateway) for gateway in cluster.gateways] == [1, 1]
    async with httpx.AsyncClient(base_url=url) as http:
        # Asked as they stand: what a gateway makes of them is the same.
        for path in ("/metrics", "/%6detrics", "/metrics%0a", "/m%65trics/", "/metrics?a=/"):
            answer = await http.get(httpx.URL(url, raw_path=path.encode()))
            assert answer.status_code == 404, path
            assert "rowcast_" not in answer.text


@needs_haproxy
@linux
async def test_a_killed_gateway_loses_nobody_anything(cluster: Cluster) -> None:
    url, (one, two) = cluster.running.url, cluster.gateways
    screens = [Screen(cluster.token("bob"), (KEY,)) for _ in range(6)]
    clients = [asyncio.create_task(screen.live(url)) for screen in screens]
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def write() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=5) as http:
            headers = {"Authorization": f"Bearer {cluster.token('alice')}"}
            while not enough.is_set():
                task = str(uuid.uuid4())
                body = creation(task)
                while True:
                    try:
                        answer = await http.post("/api/realtime/write", json=body, headers=headers)
                    except httpx.TransportError:
                        continue
                    if answer.status_code == 200:
                        break
                    assert answer.status_code >= 500, answer.text
                acknowledged.append(task)

    await until(lambda: all(screen.cursor for screen in screens))
    assert cluster.sockets(one) == cluster.sockets(two) == 3
    writers = [asyncio.create_task(write()) for _ in range(2)]
    async with (
        cluster.socket(two, "alice", TASK) as alice,
        cluster.socket(one, "bob", TASK) as bob,
    ):
        await bob.send({"type": "presence", "key": TASK, "state": {"here": True}})
        peers = (await alice.expect("presence"))["peers"]
        assert [USERS[peer["userId"]] for peer in peers] == ["bob"]

        await until(lambda: len(acknowledged) > 20)
        killed = cluster.gateway_of(one)
        os.kill(killed, signal.SIGKILL)
        died = time.monotonic()
        count = len(acknowledged)
        await until(lambda: len(acknowledged) > count + 50)
        gone = (await alice.expect("presence"))["peers"]
        assert [peer["state"] for peer in gone] == [None]
        assert time.monotonic() - died < 10
    enough.set()
    await asyncio.gather(*writers)
    for screen in screens:
        # Who is told to read again misses nothing either; whoever was not cut off is told nothing.
        await until(lambda screen=screen: screen.stale or screen.heard.issuperset(acknowledged))
    assert sum(not screen.stale for screen in screens) >= 3
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    # And it comes back, at the same address.
    await until(lambda: ready(one))
    assert cluster.gateway_of(one) != killed


@needs_haproxy
@linux
async def test_a_stopped_gateway_drains_into_the_other(cluster: Cluster) -> None:
    """As at an upgrade: SIGTERM, sockets are told to come back, requests go elsewhere at once."""
    url, (one, two) = cluster.running.url, cluster.gateways
    await until(lambda: ready(one) and ready(two))
    stopped = cluster.gateway_of(one)
    async with cluster.socket(one, "bob", KEY) as bob:
        os.kill(stopped, signal.SIGTERM)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await bob.expect("nothing of the kind")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert re.search(r"; retry-after=\d+\.\d$", closed.value.rcvd.reason)
    bob.heard.clear()
    for _ in range(5):
        await asyncio.to_thread(cluster.write, url, str(uuid.uuid4()))
    async with connect(f"{url.replace('http', 'ws')}/api/realtime/socket") as connection:
        await bob.join(connection)
        assert len(bob.heard) == 5


@needs_haproxy
@linux
def test_killed_cluster_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "data"
    running = start(home, "--cluster")
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    left = [int(pid) for pid in children.read_text().split()]
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in left]
    assert "haproxy" in names
    stop(running, signal.SIGKILL)
    ours = [pid for pid, name in zip(left, names, strict=True) if "postgres" not in name]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
    assert embedded.reset(home)


def test_without_haproxy_it_is_said_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    code = (
        "import shutil; shutil.which = lambda *_, **__: None;"
        "import sys; sys.argv = ['rowcast', 'run', '--cluster'];"
        "from app.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "ROWCAST_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "apt install haproxy" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False
