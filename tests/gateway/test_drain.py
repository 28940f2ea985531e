"""Told to stop, a gateway takes the time it is given, once; and when it says that it is ready."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import httpx
import pytest

from app import calls, serve
from app.db import Lane
from tests.gateway.conftest import ALICE, Process, Service, eventually, settings_for, token, until
from tests.gateway.conftest import transaction as transaction_of
from tests.postgres import Database
from tests.sql.engine import TASK_1, title

WRITE = "/api/realtime/write"


async def test_time_to_drain_is_given_once(db: Database, gateway_dsn: str) -> None:
    """Before the server's own wait for requests, and after it, when the gateway is stopped."""
    holder = db.connect(autocommit=False)
    holder.execute("select 1 from public.tasks where id = %s for update", (TASK_1,))
    async with Service(settings_for(gateway_dsn, drain_seconds=0.2)) as service:
        await service.ready()
        assert service.gateway.drain_seconds_left == 0.2
        stuck = asyncio.create_task(service.post(WRITE, transaction_of(title(TASK_1, "x")), ALICE))
        await until(lambda: service.gateway.writes.waiting == 1)
        await service.gateway.drain()
        assert service.gateway.writes.waiting
        assert service.gateway.drain_seconds_left == 0
        again = asyncio.create_task(service.gateway.drain())
        for _ in range(5):
            await asyncio.sleep(0)
        assert again.done()
        holder.rollback()
        await stuck


async def test_stop_ends_what_hangs(gateway_dsn: str, tmp_path: Path) -> None:
    """A request whose body never ends, a stream nobody reads, an idle connection, a socket."""
    listener, log = serve.listen("127.0.0.1", 0), tmp_path / "log"
    port = listener.getsockname()[1]
    process = Process(gateway_dsn, listener, log, ROWCAST_DRAIN_SECONDS="1")
    process.start()
    async with contextlib.AsyncExitStack() as ends:
        ends.callback(listener.close)
        ends.callback(process.close)
        http = await ends.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")
        )

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready, 30)
        body = json.dumps({"table": "tasks", "where": {"title": "zzrowcontent"}})
        lines = []
        for length in (0, 10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            ends.callback(writer.close)
            writer.write(
                f"POST /api/realtime/query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}"
                f"\r\nContent-Length: {len(body) + length}\r\n\r\n{body}".encode()
            )
            await writer.drain()
            lines.append(reader)
        # The first has its whole body; the other waits for ten bytes that do not come.
        assert (await lines[0].readline()).startswith(b"HTTP/1.1 ")
        status = await asyncio.to_thread(process.end, signal.SIGTERM)
        assert status in (0, -signal.SIGTERM)
        # What it had begun is cut, not answered.
        assert not (await lines[1].read()).startswith(b"HTTP/1.1 200")
    said = log.read_text()
    assert "zzrowcontent" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", ["task", "callback"])
async def test_errors_nobody_caught_are_logged_without_what_they_say(
    gateway_dsn: str, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """asyncio's own handler shows the task, with its exception, and what callbacks were given."""

    def fail(title: str) -> None:
        raise ValueError(title)

    async def fails() -> None:
        fail("zzrowcontent")

    async with Service(settings_for(gateway_dsn)):
        if kind == "task":
            task = asyncio.create_task(fails())
            await asyncio.wait({task})
            del task
        else:
            asyncio.get_running_loop().call_soon(fail, "zzrowcontent")
        await until(lambda: "ValueError" in caplog.text)
    (record,) = [r for r in caplog.records if r.name == "rowcast.logs"]
    assert "zzrowcontent" not in record.getMessage()


async def test_readiness_is_one_statement_however_many_ask_and_waits_for_no_request(
    gateway_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate = 0, asyncio.Event()
    status = calls.status

    async def counted(lane: Lane) -> str:
        nonlocal asked
        asked += 1
        await gate.wait()
        return await status(lane)

    async with Service(settings_for(gateway_dsn, pool_size=2)) as service:
        await service.ready()
        monkeypatch.setattr(calls, "status", counted)
        work = service.gateway.database.work
        async with work.connection(), work.connection():
            many = [asyncio.create_task(service.gateway.readiness()) for _ in range(50)]
            await until(lambda: asked > 0)
            gate.set()
            found = await asyncio.gather(*many)
        assert asked == 1
        assert all(all(state.values()) for state in found)
