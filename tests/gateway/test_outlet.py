"""The sending side of a socket, with and without a transport to write to."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from app import outlet
from app.outlet import Flowing, Joined, Outlet, TransportCapture, close_frame, text_frame
from tests.gateway.conftest import until


class Peer:
    """A server's protocol before flow is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class FlowingPeer(Flowing, Peer):
    """The gateway's."""


class Transport:
    """What an outlet uses of an asyncio transport."""

    def __init__(self, peer: Peer | None = None) -> None:
        self.peer = peer or Peer()
        self.written: list[bytes] = []
        self.waiting = 0
        self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def get_protocol(self) -> Peer:
        return self.peer

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Server:
    """An ASGI server's sending end; `blocked` while its peer reads nothing."""

    def __init__(self, transport: Transport | None) -> None:
        self.transport = transport
        self.sent: list[Message] = []
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, message: Message) -> None:
        await self.free.wait()
        self.sent.append(message)


def made(server: Server, limit: int = 100) -> Outlet:
    scope: dict[str, Any] = {"type": "websocket"}
    if server.transport is not None:
        scope["rowcast.transport"] = server.transport
    return Outlet(scope, server.send, limit)


async def test_frames_are_written_to_the_transport() -> None:
    transport = Transport()
    made(Server(transport)).write(text_frame(b"1"))
    assert transport.written == [text_frame(b"1")]


async def test_a_wire_is_there_while_the_peer_keeps_up() -> None:
    peer = FlowingPeer()
    transport = Transport(peer)
    socket = made(Server(transport))
    seen: list[object] = []
    socket.on_wire = lambda: seen.append(socket.wire)
    socket.on_wire()
    peer.pause_writing()
    assert seen == [transport, None]
    peer.resume_writing()
    assert seen == [transport, None, transport]
    socket.gone()
    peer.pause_writing()
    peer.resume_writing()
    assert seen == [transport, None, transport, None]
    assert peer.told == ["pause", "resume"] * 2


async def test_where_nobody_tells_of_the_flow_there_is_no_wire() -> None:
    assert made(Server(Transport())).wire is None
    assert made(Server(None)).wire is None


async def test_a_full_buffer_closes_4408_behind_what_waits() -> None:
    transport = Transport()
    slow = made(Server(transport))
    transport.waiting = 101
    slow.write(text_frame(b"1"))
    assert transport.written == [close_frame(4408, "too slow")]
    assert transport.closed
    slow.write(text_frame(b"2"))
    assert len(transport.written) == 1


async def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    transport = Transport()
    stuck = made(Server(transport))
    transport.waiting = 50
    stuck.sweep(0.0)
    stuck.sweep(outlet.STUCK_SECONDS - 1)
    assert not transport.aborted
    stuck.sweep(outlet.STUCK_SECONDS + 1)
    assert transport.aborted


async def test_a_peer_that_takes_nothing_is_cut_off_however_it_is_written_to() -> None:
    transport = Transport(FlowingPeer())
    stuck = made(Server(transport), limit=1000)
    wires: list[object] = []
    stuck.on_wire = lambda: wires.append(stuck.wire)
    for second in range(0, int(outlet.STUCK_SECONDS) + 7, 3):
        frame = text_frame(b"1")
        transport.waiting += len(frame)
        if stuck.wire is not None:
            stuck.wire.write(frame)
        else:
            stuck.write(frame)
        stuck.sweep(float(second))
    assert transport.aborted
    assert wires[0] is None


async def test_a_peer_that_has_caught_up_has_its_wire_again() -> None:
    transport = Transport(FlowingPeer())
    slow = made(Server(transport))
    transport.waiting = 50
    slow.sweep(0.0)
    assert slow.wire is None
    transport.waiting = 0
    slow.sweep(3.0)
    assert slow.wire is not None


async def test_a_peer_that_takes_a_little_stays() -> None:
    transport = Transport()
    slow = made(Server(transport))
    for second in range(100):
        transport.waiting = 90 - second % 2
        slow.sweep(float(second))
    assert not transport.aborted


async def test_a_close_frame_nobody_takes_ends_in_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "CLOSE_SECONDS", 0.01)
    transport = Transport()
    server = Server(transport)
    server.free.clear()
    blocked = made(server)
    blocked.close(1001, "")
    await blocked.closed()
    assert transport.aborted


async def test_without_a_transport_frames_go_in_order_and_close_comes_last() -> None:
    server = Server(None)
    plain = made(server)
    for text in (b"1", b"2", b"3"):
        plain.write(text_frame(text))
    plain.close(1001, "bye")
    plain.write(text_frame(b"4"))
    await plain.closed()
    assert [message.get("text", message.get("code")) for message in server.sent] == [
        "1",
        "2",
        "3",
        1001,
    ]


async def test_without_a_transport_too_much_waiting_closes_4408() -> None:
    server = Server(None)
    server.free.clear()
    plain = made(server)
    for _ in range(10):
        plain.write(text_frame(b"x" * 30))
    server.free.set()
    await until(lambda: bool(server.sent) and server.sent[-1]["type"] == "websocket.close")
    assert server.sent[-1]["code"] == 4408
    assert len(server.sent) == 2


async def test_a_replay_waits_for_its_reader() -> None:
    server = Server(None)
    server.free.clear()
    plain = made(server, limit=1000)
    replay = asyncio.create_task(plain.flow(text_frame(b"1")))
    await asyncio.sleep(0)
    assert not replay.done()
    server.free.set()
    await replay
    assert [message["text"] for message in server.sent] == ["1"]


async def test_a_transport_is_found_where_the_server_has_one() -> None:
    found: list[Any] = []

    async def app(scope: Any, *_: Any) -> None:
        found.append(scope.get("rowcast.transport"))

    transport = Transport()
    capture = TransportCapture(app)
    receive: Any = None
    await capture({"type": "websocket"}, receive, Server(transport).send)
    await capture({"type": "websocket"}, receive, Server(None).send)
    await capture({"type": "http"}, receive, Server(transport).send)
    await capture({"type": "lifespan"}, receive, Server(transport).send)
    assert found == [transport, None, transport, None]


async def test_the_head_of_an_answer_goes_out_with_its_body() -> None:
    transport = Transport()
    answer = Joined(transport)  # type: ignore[arg-type]
    answer.write(b"head ")
    assert transport.written == []
    answer.write(b"body")
    assert transport.written == [b"head body"]
    answer.write(b" and more")
    await asyncio.sleep(0)
    assert transport.written == [b"head body", b" and more"]


async def test_a_head_alone_waits_for_nobody() -> None:
    transport = Transport()
    Joined(transport).write(b"head")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert transport.written == [b"head"]


async def test_a_head_goes_out_before_the_connection_is_closed() -> None:
    transport = Transport()
    answer = Joined(transport)  # type: ignore[arg-type]
    answer.write(b"head")
    answer.close()
    await asyncio.sleep(0)
    assert (transport.written, transport.closed) == ([b"head"], True)
    assert answer.is_closing()


async def test_a_head_for_a_peer_that_has_gone_is_dropped_quietly() -> None:
    class Gone(Transport):
        def write(self, data: bytes) -> None:
            raise RuntimeError("the handler is closed")

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    Joined(Gone()).write(b"head")  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert told == []
