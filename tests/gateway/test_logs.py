"""What a gateway logs from its start to its stop, and PostgreSQL with it."""

import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio

from app import serve
from tests.gateway.conftest import (
    Process,
    Service,
    eventually,
    token,
    transaction,
)
from tests.gateway.files import Files
from tests.gateway.test_accounts import Browser, closed_browsers
from tests.postgres import Database, Server

__all__ = ["closed_browsers"]
pytestmark = pytest.mark.both_versions

PASSWORD = "zzsecretpassword"
CONTENT = "zzrowcontent"


class Remote(Service):
    """A gateway that runs elsewhere."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.AsyncClient(base_url=url, timeout=30)


@pytest_asyncio.fixture
async def remote(
    db: Database, gateway_dsn: str, tmp_path: Path
) -> AsyncIterator[tuple[Remote, Process, Path]]:
    """It says all it can, and so does PostgreSQL of its statements."""
    with psycopg.connect(db.dsn(), autocommit=True) as conn:
        for setting in ("log_statement = 'all'", "log_error_verbosity = 'verbose'"):
            conn.execute(f"alter database {conn.info.dbname} set {setting}".encode())
    listener, log = serve.listen("127.0.0.1", 0), tmp_path / "log"
    process = Process(
        gateway_dsn,
        listener,
        log,
        ROWCAST_LOG_LEVEL="debug",
        ROWCAST_ACCOUNTS="true",
        ROWCAST_PUBLIC_URL="http://app.example",
        ROWCAST_DEV_SIGN_IN="true",
        ROWCAST_FILES_URL=(tmp_path / "files").as_uri(),
    )
    process.start()
    found = Remote(f"http://127.0.0.1:{listener.getsockname()[1]}")

    async def ready() -> bool:
        return (await found.http.get("/readyz")).status_code == 200

    await eventually(ready, 30)
    yield found, process, log
    await found.http.aclose()
    process.close()
    listener.close()


async def test_a_whole_run_logs_no_secret_and_no_content(
    remote: tuple[Remote, Process, Path], pg: Server
) -> None:
    service, process, log = remote
    browser = Browser(service)
    secret = {PASSWORD}
    wrong = f"{PASSWORD}-wrong"

    def kept() -> None:
        for name in ("rowcast_account", "rowcast_pending", "rowcast_known"):
            secret.add(browser.cookie(name) or PASSWORD)

    secret.add((await browser.post("guest")).json()["token"])
    kept()
    await browser.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
    kept()
    link = await browser.link("sign_up", "dora@example.org")
    signed = (await browser.post("verify", {"token": link})).json()
    secret |= {link, signed["token"]}
    kept()
    await browser.post("verify", {"token": link, "password": wrong})
    for password in (wrong, PASSWORD):
        await browser.post("sign-in", {"email": "dora@example.org", "password": password})
    kept()
    thief = browser.copy()
    for _ in range(2):
        secret.add((await browser.post("refresh")).json()["token"])
        kept()
    assert (await thief.post("refresh")).status_code == 401
    assert (await browser.post("refresh")).status_code == 401
    await browser.post("request-reset", {"email": "dora@example.org"})
    link = await browser.link("reset", "dora@example.org")
    secret.add(link)
    signed = (await browser.post("reset", {"token": link, "password": PASSWORD})).json()
    secret.add(signed["token"])
    kept()
    changed = {"current": wrong, "password": f"{PASSWORD} anew"}
    await browser.post("change-password", changed)
    await browser.post("change-password", {**changed, "current": PASSWORD})
    kept()

    mine = {"authorization": f"Bearer {signed['token']}"}
    space = str(uuid.uuid4())
    values: list[Any] = [{"name": CONTENT}, {"name": CONTENT * 40}, {"name": {CONTENT: 1}}, CONTENT]
    for value in values:
        operation = {"type": "create", "table": "workspaces", "id": space, "value": value}
        await service.post("/api/realtime/write", transaction(operation), None, **mine)
    for body in ({"table": CONTENT}, {"table": "workspaces", "where": {"name": CONTENT}}, CONTENT):
        await service.post("/api/realtime/query", body, None, **mine)
    foreign = token()
    secret.add(foreign)
    await service.http.get(f"/api/auth/me?access_token={foreign}")
    await service.http.get("/api/auth/me", headers={"authorization": f"Bearer {foreign[:-3]}abc"})
    async with service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": foreign})
        await socket.expect("welcome")
        await socket.subscribe("workspaces")
        await socket.send(f'{{"type": "{CONTENT}"')
        await socket.expect("error")
    files = Files(service)
    id_ = await files.ready(f"{CONTENT} of a file".encode(), name=f"{CONTENT}.txt")
    assert (await files.get(id_)).content.startswith(CONTENT.encode())
    url = (await files.told("download", id_))["url"]
    secret.add(url.partition("?")[2])
    await service.http.get(url.replace("sig", "gis"))
    await browser.post("sign-out")
    assert process.end(signal.SIGTERM) == -signal.SIGTERM  # uvicorn has stopped, and says why

    said = log.read_text("utf-8")
    assert len(said.splitlines()) > 3
    for word in secret:
        assert word not in said
        assert word not in pg.log
    # PostgreSQL was told to log every statement with its values; the gateway never does.
    assert CONTENT not in said
    assert CONTENT in pg.log
