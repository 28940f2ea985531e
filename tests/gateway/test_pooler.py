"""The write path through PgBouncer in transaction mode: sessions are shared, and nothing leaks."""

import asyncio
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.binaries import server_user
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    BOB,
    CAROL,
    Service,
    eventually,
    settings_for,
    transaction,
)
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database
from tests.sql.engine import wait_until

PGBOUNCER = os.environ.get("ROWCAST_TEST_PGBOUNCER") or shutil.which(
    "pgbouncer", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"
)
WRITE = "/api/realtime/write"
QUERY = "/api/realtime/query"

pytestmark = [
    pytest.mark.both_versions,
    pytest.mark.skipif(PGBOUNCER is None, reason="needs pgbouncer"),
]


def version() -> tuple[int, ...]:
    said = subprocess.run([str(PGBOUNCER), "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in said.stdout.split()[1].split("."))


@pytest.fixture
def pooled(db: Database, tmp_path: Path) -> Iterator[str]:
    """Where the gateway connects: PgBouncer with two sessions for all of its connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(db.server._server.base_dir) / f"pooler-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o755)
    sockets = f"{db.server._server.base_dir}/tmp"
    tracked = "max_prepared_statements = 200" if version() >= (1, 21) else ""
    (folder / "users").write_text('"rowcast_gateway" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
{db.name} = host={sockets} port=5432 dbname={db.name}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 2
{tracked}
"""
    )
    user = server_user()
    command = [str(PGBOUNCER), "-q", str(folder / "pgbouncer.ini")]
    given: dict[str, Any] = (
        {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    )
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **given)
    dsn = f"host=127.0.0.1 port={port} user=rowcast_gateway dbname={db.name}"

    def answers() -> bool:
        assert child.poll() is None
        try:
            psycopg.connect(dsn, connect_timeout=1, prepare_threshold=None).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers, "PgBouncer answers")
        yield dsn
    finally:
        child.terminate()
        child.wait(10)
        shutil.rmtree(folder)


async def sessions(db: Database) -> int:
    """Connections that writes, reads and the relay have to PostgreSQL."""

    def count() -> int:
        with psycopg.connect(db.dsn(), autocommit=True) as conn:
            query = """
                select count(*) from pg_stat_activity where datname = current_database()
                    and usename = 'rowcast_gateway' and application_name not in
                    ('rowcast-listen', 'rowcast-bell')
            """
            row = conn.execute(query).fetchone()
        return row[0] if row else 0

    return await asyncio.to_thread(count)


async def test_everything_works_over_shared_sessions(
    db: Database, pooled: str, gateway_dsn: str
) -> None:
    settings = settings_for(
        pooled, listen_url=gateway_dsn, prepared_statements=version() >= (1, 21)
    )
    async with Service(settings) as service:
        await service.ready()
        async with service.socket(BOB) as bob, service.socket(CAROL) as carol:
            await bob.subscribe(KEY)
            await carol.subscribe(KEY)
            tasks = [str(uuid.uuid4()) for _ in range(40)]
            answers = await asyncio.gather(
                *(
                    service.post(WRITE, transaction(create(task)), (ALICE, BOB)[n % 2])
                    for n, task in enumerate(tasks)
                ),
                *(service.post(QUERY, {"table": "tasks", "limit": 1000}, CAROL) for _ in range(20)),
            )
            assert {answer.status_code for answer in answers} == {200}
            # Whoever read meanwhile read as himself, on sessions that were somebody else's before.
            assert all(not set(answer.json()["ids"]) & set(tasks) for answer in answers[40:])
            seen: set[str] = set()
            while seen < set(tasks):
                seen |= {
                    update["key"].split(":")[1]
                    for update in (await bob.expect("updates"))["updates"]
                }
            # By the bell, which goes past the pooler.
            relay = service.gateway.relay

            async def asleep() -> bool:
                return relay._asleep

            await eventually(asleep)
            last = str(uuid.uuid4())
            await service.write(create(last))
            await bob.update(f"tasks:{last}")
            assert not [frame for frame in carol.heard if frame["type"] == "updates"]
        streamed = await service.http.post(
            "/api/realtime/query",
            json={"table": "tasks", "where": {"boardId": BOARD}},
            headers={"accept": "application/x-ndjson", **auth(BOB)},
        )
        assert streamed.status_code == 200
        assert last in streamed.text
        assert await sessions(db) == 2


def auth(user: str) -> dict[str, str]:
    from tests.gateway.conftest import token

    return {"authorization": f"Bearer {token(user)}"}


@pytest.mark.skipif(PGBOUNCER is None or version() >= (1, 21), reason="it keeps track of them")
async def test_prepared_statements_do_not_pass_an_old_pooler(pooled: str, gateway_dsn: str) -> None:
    """Why there is a setting: another session does not know them, or has its own of that name."""
    async with Service(settings_for(pooled, listen_url=gateway_dsn)) as service:
        answers = await asyncio.gather(
            *(service.post(QUERY, {"table": "tasks"}, user) for user in (ALICE, BOB) * 20)
        )
        assert {answer.status_code for answer in answers} != {200}
