"""Webhooks: what is signed, where they never go, and what becomes of one that is not taken."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore2
import psycopg
import pytest

from app import webhooks
from tests.postgres import Database
from tests.sql.engine import ALICE, BOB, DEMO, TASK_1, TASK_2, Gate, call, set_, value, wait_until
from tests.worker.process import working

LOOPBACK = {"ROWCAST_WEBHOOK_NETWORKS": "127.0.0.0/8"}


class Receiver:
    """Another system: what it got, and what it answers, in turn; then 204. It answers while `open`
    is set. `most`: so many at once.
    """

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.open = threading.Event()
        self.open.set()
        self.now = self.most = 0
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with receiver.lock:
                    receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                    receiver.now += 1
                    receiver.most = max(receiver.most, receiver.now)
                receiver.open.wait(60)
                with receiver.lock:
                    receiver.now -= 1
                status, headers = receiver.answers.pop(0) if receiver.answers else (204, {})
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.end_headers()
                if status == 599:  # an answer without an end
                    with_end = threading.Event()
                    try:
                        while not with_end.wait(0):
                            self.wfile.write(b"x" * 65536)
                    except OSError:
                        pass

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=hush"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@contextmanager
def receiving() -> Iterator[Receiver]:
    found = Receiver()
    try:
        yield found
    finally:
        found.open.set()
        found.server.shutdown()
        found.server.server_close()


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    conn = db.connect()
    conn.execute("delete from jobs.schedules")
    conn.execute("update jobs.kinds set first_delay_seconds = 0, max_attempts = 3")
    return conn


def states(conn: psycopg.Connection[Any]) -> list[Any]:
    return conn.execute("select state, attempts, error from jobs.list()").fetchall()


def test_task_that_is_done_is_told_signed_and_once(
    db: Database, conn: psycopg.Connection, receiver: Receiver
) -> None:
    gate = Gate(db)
    refused = gate.write(BOB, call("setWorkspaceWebhook", workspaceId=DEMO, url=receiver.url))
    assert (refused.status, refused.code) == (403, "forbidden")
    answer = gate.applied(ALICE, call("setWorkspaceWebhook", workspaceId=DEMO, url=receiver.url))
    secret = answer.body["values"][0]
    gate.applied(BOB, set_("tasks", TASK_1, "status", "done"))
    gate.applied(BOB, set_("tasks", TASK_1, "title", "done already"))
    receiver.answers = [(500, {}), (429, {"Retry-After": "0"})]
    with working(db, **LOOPBACK) as worker:
        wait_until(lambda: not states(conn), "it is told")
        log = worker.log
    assert len(receiver.got) == 3
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    headers, body = receiver.got[-1]
    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("task.done", TASK_1)
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{signature}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["host"] == receiver.url.split("/")[2]
    assert "hush" not in log
    assert secret not in log
    # No address, nothing to tell.
    gate.applied(ALICE, call("setWorkspaceWebhook", workspaceId=DEMO, url=None))
    gate.applied(BOB, set_("tasks", TASK_2, "status", "done"))
    assert states(conn) == []


def test_what_is_not_taken_is_held_and_410_ends_it(
    db: Database, conn: psycopg.Connection, receiver: Receiver
) -> None:
    private = "http://169.254.169.254/latest/meta-data"
    for name, url in (("a", receiver.url), ("b", private), ("c", "http://localhost:1/x")):
        conn.execute("select jobs.set_webhook(%s, %s)", (name, url))
    # Noted when more was taken for an address.
    conn.execute("insert into jobs.webhooks values ('d', 'https://ex\u00e4mple.com:x/', '\\x00')")
    away = {"Location": private}
    receiver.answers = [(302, away), (307, away), (599, {})]
    for name in "abcd":
        conn.execute("select jobs.send_webhook(%s, 'test', '{}')", (name,))
    with working(db, **LOOPBACK):
        wait_until(lambda: [state for state, _, _ in states(conn)] == ["held"] * 4, "all are held")
        assert [attempts for _, attempts, _ in states(conn)] == [3, 3, 3, 1]
        errors = [error for _, _, error in states(conn)]
        assert "599" in errors[0]
        assert "ROWCAST_WEBHOOK_NETWORKS" in errors[1]
        assert "ConnectError" in errors[2]
        assert "its address is none" in errors[3]
        assert not any("169.254" in error or "hush" in error for error in errors)
        receiver.answers = [(410, {})]
        conn.execute("select jobs.send_webhook('a', 'test', '{}')")
        wait_until(lambda: len(states(conn)) == 5, "it is held at once")
        wait_until(lambda: all(s == "held" for s, _, _ in states(conn)), "it is held at once")
    assert value(conn, "select jobs.send_webhook('a', 'test', '{}')") is None
    conn.execute("select jobs.set_webhook('a', %s)", (receiver.url,))
    assert value(conn, "select jobs.send_webhook('a', 'test', '{}')") is not None


def test_receiver_that_is_slow_leaves_places_to_the_others(
    db: Database, conn: psycopg.Connection, receiver: Receiver
) -> None:
    send = "select jobs.send_webhook(%s, 'test', '{}') from generate_series(1, %s)"
    with receiving() as slow, working(db, **LOOPBACK):
        slow.open.clear()
        conn.execute("select jobs.set_webhook('slow', %s)", (slow.url,))
        conn.execute("select jobs.set_webhook('quick', %s)", (receiver.url,))
        conn.execute(send, ("slow", 20))
        wait_until(lambda: slow.got, "it has one")
        conn.execute(send, ("quick", 10))
        wait_until(lambda: len(receiver.got) == 10, "the other has all")
        assert not slow.open.is_set()
        slow.open.set()
        wait_until(lambda: not states(conn), "it has all")
    assert len({headers["webhook-id"] for headers, _ in slow.got}) == 20
    assert slow.most == 2


def test_another_secret_signs_beside_the_former_for_a_day(conn: psycopg.Connection) -> None:
    first = value(conn, "select jobs.set_webhook('a', 'https://example.com')")
    assert value(conn, "select jobs.set_webhook('a', 'https://example.com/b')") == first
    second = "whsec_" + base64.b64encode(b"s" * 32).decode()
    assert value(conn, "select jobs.set_webhook('a', 'https://example.com', %s)", second) == second
    asked = "select jobs.worker_webhook('a') -> 'secrets'"
    secrets = ["whsec_" + text.replace("\n", "") for text in value(conn, asked)]
    assert secrets == [second, first]
    conn.execute("update jobs.webhooks set former_until = now()")
    assert len(value(conn, asked)) == 1


def test_address_or_secret_that_is_none_is_refused(conn: psycopg.Connection) -> None:
    for name, url, secret in (
        ("a", "ftp://example.com", None),
        ("a", "https://user@example.com/", None),
        ("a", "https://example.com/#x", None),
        ("a", "https://exa mple.com", None),
        ("a", "https://ex\u00e4mple.com", None),
        ("a", "https://example.com/\u00e4", None),
        ("a", "https://example.com:99999/", None),
        ("a", "https://example.com:0", None),
        ("a", "https://example.com:http/", None),
        ("a", "https://[::1", None),
        ("a", "https://[2606:4700::1111]:99999/", None),
        ("a", "https://127.0.0.1\\.example.com/", None),
        ("a", None, None),
        ("", "https://example.com", None),
        ("a", "https://example.com", "whsec_c2hvcnQ="),
        ("a", "https://example.com", "whsec_?"),
        ("a", "https://example.com", "secret"),
    ):
        with pytest.raises(psycopg.DatabaseError) as refused:
            conn.execute("select jobs.set_webhook(%s, %s, %s)", (name, url, secret))
        assert refused.value.sqlstate == "PT400"
    for url in ("https://example.com:8443/a:b?c=/:99999", "https://[2606:4700::1111]", "http://a"):
        conn.execute("select jobs.set_webhook('a', %s)", (url,))


async def test_name_server_that_never_answers_keeps_nobody_else_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    asked, over = asyncio.Event(), threading.Event()

    def never(*_: Any, **__: Any) -> list[Any]:
        loop.call_soon_threadsafe(asked.set)
        over.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", never)
    sending = asyncio.ensure_future(webhooks.post("https://slow.example/", {}, b"{}"))
    try:
        await asked.wait()
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        over.set()
    with pytest.raises(httpcore2.ConnectError):
        await sending


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1",
        "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1",
        "2002:7f00:1::", "2002:a00:1::1", "2001:0:a00:1:0:0:f5ff:fffe", "fe80::1%eth0", "fc00::1",
        "fd12::1", "ff02::1", "2001:db8::1", "fec0::1", "100::1",
        "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "3fff::1",
        "5f00::1", "192.88.99.1",
    ],
)  # fmt: skip
def test_address_that_is_not_public_is_none(address: str) -> None:
    with pytest.raises(webhooks.NotAllowed):
        webhooks.check(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_address_is_one_with_tls(address: str) -> None:
    webhooks.check(address)
    with pytest.raises(webhooks.NotAllowed):
        webhooks.check(address, plain=True)
    webhooks.check("10.1.2.3", ["10.0.0.0/8"], plain=True)
    with pytest.raises(webhooks.NotAllowed):
        webhooks.check("11.1.2.3", ["10.0.0.0/8"], plain=True)


class Resolver:
    """Says something else each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.answers.pop(0)
        ]


class Connects(httpcore2.AsyncMockBackend):
    """Notes where a connection would go."""

    def __init__(self) -> None:
        super().__init__([b"HTTP/1.1 204 No Content\r\n\r\n"])
        self.to: list[str] = []

    async def connect_tcp(self, host: str, *more: Any, **_: Any) -> Any:
        self.to.append(host)
        return await super().connect_tcp(host, more[0])


async def test_name_is_resolved_once_and_the_address_looked_at_is_the_one_gone_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"])
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    connects = Connects()
    monkeypatch.setattr(httpcore2, "AnyIOBackend", lambda: connects)
    status, _ = await webhooks.post("https://rebinds.example/hook", {}, b"{}")
    assert (status, connects.to, resolver.asked) == (204, ["8.8.8.8"], ["rebinds.example"])
    # The next time it says another thing, and one of two is enough.
    for _ in range(2):
        with pytest.raises(webhooks.NotAllowed):
            await webhooks.post("https://rebinds.example/hook", {}, b"{}")
    assert connects.to == ["8.8.8.8"]


@pytest.mark.parametrize(
    "host", ["127.1", "0x7f000001", "2130706433", "[::ffff:7f00:1]", "localhost"]
)
async def test_other_ways_to_write_this_machine_are_seen_through(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects = Connects()
    monkeypatch.setattr(httpcore2, "AnyIOBackend", lambda: connects)
    # Some say that it is no name, instead.
    with pytest.raises((webhooks.NotAllowed, httpcore2.ConnectError)):
        await webhooks.post(f"https://{host}:1/", {}, b"")
    assert connects.to == []
