"""The doorbell: NOTIFY for commits with changes while a relay sleeps, once each, saying nothing."""

from collections.abc import Callable

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, DEADLINE, TASK_1, TASK_2, TOMATOES, Gate, title

pytestmark = pytest.mark.both_versions

Rings = Callable[[], list[str]]


@pytest.fixture
def rings(db: Database) -> Rings:
    """The payloads of the bell since it was last asked; a second channel marks the end."""
    db.connect("rowcast_gateway").execute("select sync.gateway_bell(true)")
    listener, marker = db.connect(), db.connect()
    listener.execute("listen rowcast")
    listener.execute("listen until_here")

    def heard() -> list[str]:
        marker.execute("notify until_here")
        payloads: list[str] = []
        for notification in listener.notifies(timeout=DEADLINE):
            if notification.channel == "until_here":
                return payloads
            payloads.append(notification.payload)
        raise AssertionError("the listener heard nothing")

    return heard


def test_commit_with_changes_rings_once_and_says_nothing(
    conn: psycopg.Connection, gate: Gate, rings: Rings
) -> None:
    conn.execute("update tasks set title = 'x'")
    assert rings() == [""]
    with conn.transaction():
        for task in (TASK_1, TASK_2):
            conn.execute("update tasks set title = 'y' where id = %s", (task,))
        conn.execute("delete from comments")
    assert rings() == [""]
    gate.applied(ALICE, title(TASK_1, "z"), title(TASK_2, "z"))
    assert rings() == [""]
    conn.execute("truncate comments")
    assert rings() == [""]


def test_commit_without_changes_does_not_ring(
    conn: psycopg.Connection, gate: Gate, rings: Rings
) -> None:
    conn.execute("update tasks set title = title")
    conn.execute("update tasks set title = title where id = %s", (TASK_1,))
    conn.execute("update tasks set title = 'x' where false")
    conn.execute("create table elsewhere (id integer)")
    conn.execute("insert into elsewhere values (1)")
    with conn.transaction(force_rollback=True):
        conn.execute("update tasks set title = 'never'")
    gate.write(ALICE, title(TOMATOES, "not hers"))
    gate.send(ALICE, "{no json")
    gate.get_records(ALICE, ("tasks", TASK_1))
    gate.query(ALICE, "tasks")
    gate.subscribe(ALICE, "tasks")
    gate.changes(None)
    assert rings() == []
    gate.applied(ALICE, title(TASK_1, "x"))
    gate.applied(ALICE, title(TASK_1, "x"))
    assert rings() == [""]


def test_repeated_transaction_does_not_ring(gate: Gate, rings: Rings) -> None:
    request = {
        "txId": "01900000-0000-7000-8000-000000000001",
        "operations": [title(TASK_1, "once")],
    }
    assert gate.send(ALICE, request).status == 200
    assert rings() == [""]
    gate.send(ALICE, request)
    assert rings() == []


def test_dry_run_does_not_ring(gate: Gate, rings: Rings) -> None:
    gate.applied(ALICE, title(TASK_1, "tried"), dryRun=True)
    assert rings() == []


def test_batch_rings_once(gate: Gate, rings: Rings) -> None:
    gate.write_all([(ALICE, {"transactions": [
        {"txId": f"01900000-0000-7000-8000-00000000000{n}", "operations": [title(TASK_1, f"{n}")]}
        for n in range(5)
    ]})])  # fmt: skip
    assert rings() == [""]


def test_replicated_row_rings(conn: psycopg.Connection, rings: Rings) -> None:
    conn.execute("set session_replication_role = replica")
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    assert rings() == [""]


def test_nobody_rings_while_no_relay_sleeps(
    db: Database, conn: psycopg.Connection, gate: Gate, rings: Rings
) -> None:
    conn.execute("select setval('sync_internal.bell', 0)")
    conn.execute("update tasks set title = 'x'")
    conn.execute("truncate comments")
    gate.applied(ALICE, title(TASK_1, "y"))
    assert rings() == []
