"""What live delivery is measured against: a process that writes one frame to all its sockets.

`Twin` commands it. `python -m bench.twin` does so in one of these ways, node's `ws` in another:

- bare: `transport.write` of the same bytes, one socket after the other
- checked: the gateway's delivery of one change to as many readers, all of whose rights are known
- unchecked: the same without looking at anybody's rights
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Self, cast

from app.access import Policies
from app.delivery import NOTHING, Change, Delivery, read_change
from app.hub import Hub, Subscriber
from app.outlet import Outlet, text_frame

from .stage import cpu_us

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
KEY = "tasks?boardId=1"
NODE = """
const {WebSocketServer} = require('ws');
const server = new WebSocketServer({host: '127.0.0.1', port: 0, perMessageDeflate: false});
server.on('listening', () => console.log(server.address().port));
require('readline').createInterface({input: process.stdin}).on('line', line => {
  const text = JSON.parse(line).text;
  for (const client of server.clients) client.send(text);
}).on('close', () => process.exit());
"""


class Twin:
    """The parent's side. Ends the process on leaving the `with` block."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", __name__)) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(10)

    def wave(self, text: str, how: str = "bare") -> None:
        """Has a text written to every socket."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"how": how, "text": text}) + "\n")

    @property
    def cpu_us(self) -> float:
        return cpu_us(self._process.pid)


def node(folder: str) -> Twin | None:
    """The same with node's `ws`, installed into this folder; None where that cannot be had."""
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, "ws"]
    try:
        subprocess.run(install, check=True, capture_output=True, timeout=120)
        return Twin(["env", f"NODE_PATH={folder}/node_modules", "node", "-e", NODE])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class Unchecked(Delivery):
    """Delivery that lets everybody hear everything."""

    def _send_one(self, change: Change, before: str, cursor: str) -> set[Subscriber]:
        element = self._change(0, NOTHING)
        texts = self._encoded([(change.xid, element)], before, cursor)
        for _, subscribers in self._hub.holders(change.table, change.record_id, change.topics):
            for subscriber in subscribers:
                for text in texts:
                    wire = subscriber.wire
                    if wire is None or subscriber.held is not None:
                        subscriber.send(text)
                    else:
                        wire.write(text)
        return set()


class Server:
    """The twin's own side."""

    def __init__(self) -> None:
        self.transports: list[asyncio.Transport] = []
        self.hub = Hub()
        self.version = 1
        self.policies = Policies(
            {
                "fingerprint": "",
                "tables": {"tasks": {"authenticated": {"cacheable": True, "shown": ["title"]}}},
            }
        )

    def accept(self, transport: asyncio.Transport) -> None:
        transport.write(ACCEPTED)
        self.transports.append(transport)
        outlet = Outlet({"type": "websocket", "rowcast.transport": transport}, _no_send, 1 << 20)
        name = str(len(self.transports))
        subscriber = self.hub.join(name, None, "authenticated", name, outlet.write, lambda: None)
        self.hub.connect(subscriber, transport)
        self.hub.subscribe(subscriber, [KEY])

    def bare(self, text: str) -> None:
        frame = text_frame(text.encode())
        for transport in self.transports:
            transport.write(frame)

    def deliver(self, kind: type[Delivery], text: str) -> None:
        self.version += 1
        raw = {
            "xid": "1",
            "table": "tasks",
            "id": "00000000-0000-7000-8000-000001000000",
            "version": self.version,
            "kind": "update",
            "topics": ["boardId=1"],
            "patch": {"title": text[:180]},
            "class": "1",
        }
        change = read_change(raw, self.hub)
        delivery = kind(self.hub, self.policies, [change], lambda cursor: cursor)
        if kind is Delivery:
            for reader, refs in delivery.unknown().items():
                delivery.learn(reader, refs, refs, {})
            assert not delivery.uncached()
            assert not delivery.gained()
        delivery.send("c" * 200)

    def obey(self, line: str) -> None:
        command = json.loads(line)
        ways: dict[str, Callable[[str], None]] = {
            "bare": self.bare,
            "checked": lambda text: self.deliver(Delivery, text),
            "unchecked": lambda text: self.deliver(Unchecked, text),
        }
        ways[command["how"]](command["text"])


class Protocol(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.accepted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self.accepted:
            self.accepted = True
            self.server.accept(self.transport)


async def _no_send(_: object) -> None:
    raise AssertionError


async def serve() -> None:
    server, loop = Server(), asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Protocol(server), "127.0.0.1", 0, backlog=2048)
    print(listener.sockets[0].getsockname()[1], flush=True)
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        server.obey(line.decode())


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(serve())
    except ImportError:
        asyncio.run(serve())
