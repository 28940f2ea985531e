"""Writes on a server that waits for a standby: no acknowledgement before it has them."""

import asyncio
import json
import threading
from collections.abc import Iterator

import psycopg
import pytest

from app.auth import Session
from app.db import Lane
from app.writes import Writes
from tests.gateway.conftest import ALICE, until
from tests.postgres import Database
from tests.sql.engine import (
    LAUNCH,
    TASK_1,
    Background,
    Gate,
    Json,
    call,
    claims_of,
    create,
    new_id,
    title,
    tx,
    wait_until,
)

pytestmark = pytest.mark.both_versions


@pytest.fixture
def absent(db: Database, conn: psycopg.Connection, gateway_dsn: str) -> Iterator[str]:
    """Where the gateway connects to a server whose standby is not there."""
    conn.execute("set synchronous_commit = local")
    db.server.run("alter system set synchronous_standby_names = 'absent'")
    db.server.run("select pg_reload_conf()")
    # In force once a commit waits, which another process decides.
    probe = db.connect()
    probe.execute("set synchronous_commit = on")
    seen = threading.Event()

    def commit() -> None:
        while not seen.is_set():
            probe.execute("select pg_logical_emit_message(true, 'test', '')")

    probing = Background(commit)
    (pid,) = wait_until(lambda: waiting(conn), "a commit waits for the standby")
    seen.set()
    conn.execute("select pg_cancel_backend(%s)", (pid,))
    probing.result()
    yield f"{gateway_dsn} options='-c synchronous_commit=on'"
    present(db)


def present(db: Database) -> None:
    """The standby is not waited for any more."""
    db.server.run("alter system reset synchronous_standby_names")
    db.server.run("select pg_reload_conf()")


def waiting(conn: psycopg.Connection) -> list[int]:
    """The backends that wait for the standby."""
    query = """
        select pid from pg_stat_activity
        where wait_event = 'SyncRep' and datname = current_database()
    """
    return [row[0] for row in conn.execute(query).fetchall()]


@pytest.mark.parametrize(
    "operation",
    [
        title(TASK_1, "once"),
        create("tasks", new_id(), boardId=LAUNCH, title="once"),
        call("completeBoard", boardId=LAUNCH),
    ],
    ids=lambda operation: str(operation["type"]),
)
async def test_write_whose_wait_was_cancelled_is_acknowledged_when_the_standby_has_it(
    db: Database, conn: psycopg.Connection, absent: str, operation: Json
) -> None:
    lane = Lane(absent, "work", 2)
    await lane.open()
    writes = Writes(lane)
    session = Session(claims_of(ALICE), ALICE, "authenticated", None, ALICE, ALICE)
    body = json.dumps({"transactions": [tx(operation)]})
    try:
        answer = asyncio.create_task(writes.submit(session, body))
        await until(lambda: bool(waiting(conn)))
        (first,) = waiting(conn)
        conn.execute("select pg_cancel_backend(%s)", (first,))
        query = "select 1 from sync_internal.receipts"
        await until(lambda: conn.execute(query).fetchone() is not None)
        # Committed here and visible, but asked for again, which waits as well.
        await until(lambda: bool(waiting(conn)))
        assert not answer.done()
        present(db)
        done = await answer
        assert done.status == 200
        assert json.loads(done.body)["results"][0]["status"] == "duplicate"
    finally:
        await writes.idle()
        await lane.close()


async def test_write_whose_every_wait_was_cancelled_is_not_acknowledged(
    db: Database, conn: psycopg.Connection, absent: str
) -> None:
    lane = Lane(absent, "work", 2)
    await lane.open()
    writes = Writes(lane)
    session = Session(claims_of(ALICE), ALICE, "authenticated", None, ALICE, ALICE)
    sent = tx(title(TASK_1, "unsure"))
    try:
        answer = asyncio.create_task(writes.submit(session, json.dumps(sent)))
        while not answer.done():
            for pid in waiting(conn):
                conn.execute("select pg_cancel_backend(%s)", (pid,))
            await asyncio.sleep(0)
        assert (await answer).status == 503
        present(db)
        assert Gate(db).send(ALICE, {"transactions": [sent]}).outcomes == ["duplicate"]
    finally:
        await writes.idle()
        await lane.close()
