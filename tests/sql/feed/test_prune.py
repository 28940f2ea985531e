"""What is older than the retention goes, and whoever would miss it is told."""

import uuid

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, TASK_1, TASK_2, Gate, new_tx_id, title, tx, value

pytestmark = pytest.mark.both_versions

DAY = 86400


def age(conn: psycopg.Connection, days: int) -> None:
    """Makes all there is of feed and receipts so many days older."""
    conn.execute("update sync_internal.changes set at = at - %s * interval '1 day'", (days,))
    conn.execute("update sync_internal.receipts set at = at - %s * interval '1 day'", (days,))


def test_old_changes_go_and_their_cursors_are_stale(gate: Gate, conn: psycopg.Connection) -> None:
    before = gate.cursor()
    conn.execute("update tasks set title = 'old' where id = %s", (TASK_1,))
    age(conn, 31)
    conn.execute("select sync.prune()")
    assert value(conn, "select count(*) from sync_internal.changes") == 0
    assert gate.changes(before)["stale"] is True
    fresh = gate.cursor()
    conn.execute("update tasks set title = 'new' where id = %s", (TASK_1,))
    answer = gate.changes(fresh)
    assert (answer["stale"], [change["id"] for change in answer["changes"]]) == (False, [TASK_1])


def test_young_changes_stay(gate: Gate, conn: psycopg.Connection) -> None:
    cursor = gate.cursor()
    conn.execute("update tasks set title = 'young' where id = %s", (TASK_1,))
    age(conn, 29)
    conn.execute("select sync.prune()")
    answer = gate.changes(cursor)
    assert (answer["stale"], len(answer["changes"])) == (False, 1)


def test_transaction_open_since_before_is_not_lost(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    """Its changes are neither pruned unseen nor skipped by a cursor made before they committed."""
    slow = db.connect(autocommit=False)
    slow.execute("update tasks set title = 'slow' where id = %s", (TASK_2,))
    conn.execute("update tasks set title = 'quick' where id = %s", (TASK_1,))
    cursor = gate.cursor()
    age(conn, 31)
    conn.execute("set lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        conn.execute("select sync.prune()")
    slow.commit()
    conn.execute("select sync.prune()")
    answer = gate.changes(cursor)
    assert answer["stale"] or [change["id"] for change in answer["changes"]] == [TASK_2]


def test_receipts_go_below_the_floor_and_their_ids_are_too_old(
    gate: Gate, conn: psycopg.Connection
) -> None:
    old = tx(title(TASK_1, "old")) | {"txId": new_tx_id(-31 * DAY)}
    young = tx(title(TASK_1, "young")) | {"txId": new_tx_id(-29 * DAY)}
    timeless = tx(title(TASK_1, "timeless")) | {"txId": str(uuid.uuid4())}
    for request in (old, young, timeless):
        assert gate.send(ALICE, request).status == 200
    age(conn, 31)
    assert value(conn, "select sync.prune()") == 1
    assert gate.send(ALICE, old).code == "too_old"
    assert gate.send(ALICE, young).body["status"] == "duplicate"
    assert gate.send(ALICE, timeless).body["status"] == "duplicate"
    conn.execute("select sync.configure('retention_days', 60)")
    conn.execute("select sync.prune()")
    assert gate.send(ALICE, old).code == "too_old", "the floor never falls"


def test_receipt_that_arrived_late_is_kept_while_its_id_counts(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """Pruned by the time of the id, never by the time of arrival alone."""
    request = tx(title(TASK_1, "x")) | {"txId": new_tx_id(-DAY)}
    gate.send(ALICE, request)
    age(conn, 31)
    conn.execute("select sync.prune()")
    assert gate.send(ALICE, request).body["status"] == "duplicate"


def test_gateway_may_prune_and_nothing_young_goes(gate: Gate, conn: psycopg.Connection) -> None:
    gate.applied(ALICE, title(TASK_1, "x"))
    before = value(conn, "select count(*) from sync_internal.changes")
    gate.conn.execute("select sync.prune()")
    assert value(conn, "select count(*) from sync_internal.changes") == before
    assert value(conn, "select count(*) from sync_internal.receipts") == 1
