"""What an administrator is told: sizes, ages, and where the relays are."""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import TASK_1

pytestmark = pytest.mark.both_versions


def status(conn: psycopg.Connection) -> dict[str, Any]:
    row = conn.execute("select sync.status()").fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def cursor(gateway: psycopg.Connection) -> str:
    row = gateway.execute("select sync.gateway_changes(null)::json ->> 'cursor'").fetchone()
    assert row is not None
    text: str = row[0]
    return text


def report(gateway: psycopg.Connection, name: str, at: str, seconds: float, bit: Any = None) -> Any:
    row = gateway.execute(
        "select sync.gateway_report(%s, %s, %s, %s)", [name, at, seconds, bit]
    ).fetchone()
    return row and row[0]


def test_sizes_and_ages_are_those_of_what_is_stored(conn: psycopg.Connection) -> None:
    conn.execute("truncate sync_internal.changes")
    empty = status(conn)
    assert empty["feed"]["oldestAt"] is None
    assert empty["feed"]["oldestSeconds"] is None
    for days in (3, 2, 1):
        conn.execute("update public.tasks set title = title || 'x' where id = %s", [TASK_1])
        conn.execute(
            "update sync_internal.changes set at = at - %s * interval '1 day'"
            " where xid = (select max(xid) from sync_internal.changes)",
            [days],
        )
    found = status(conn)
    assert 3 * 86400 <= found["feed"]["oldestSeconds"] < 3 * 86400 + 60
    assert found["feed"]["bytes"] > empty["feed"]["bytes"]
    assert found["receipts"]["bytes"] > 0
    assert found["retentionDays"] == 30


def test_place_and_delay_of_each_relay_are_told(db: Database, conn: psycopg.Connection) -> None:
    gateway = db.connect("rowcast_gateway")
    assert status(conn)["relays"] == []
    before = cursor(gateway)
    assert report(gateway, "one", before, 0.5)
    conn.execute("update public.tasks set title = title || 'x'")
    assert report(gateway, "two", cursor(gateway), 7)
    one, two = status(conn)["relays"]
    assert (one["name"], two["name"]) == ("one", "two")
    assert one["readBefore"] == before.split(".")[2]
    assert int(one["readBefore"]) < int(two["readBefore"])
    assert 0.5 <= one["behindSeconds"] < 5 <= 7 <= two["behindSeconds"] < 12
    assert status(conn)["bell"] == {"asleep": 0, "awake": 2}
    # Said again, it replaces.
    assert report(gateway, "one", cursor(gateway), 0)
    assert [relay["name"] for relay in status(conn)["relays"]] == ["one", "two"]


def test_relay_that_was_not_heard_of_lately_is_not_listed(
    db: Database, conn: psycopg.Connection
) -> None:
    gateway = db.connect("rowcast_gateway")
    report(gateway, "gone", cursor(gateway), 0)
    report(gateway, "here", cursor(gateway), 0)
    conn.execute(
        "update sync_internal.relays set said_at = said_at - interval '11 s' where name = 'gone'"
    )
    assert [relay["name"] for relay in status(conn)["relays"]] == ["here"]
    conn.execute("update sync_internal.relays set said_at = said_at - interval '1 h'")
    conn.execute("select sync.prune()")
    assert conn.execute("select 1 from sync_internal.relays").fetchall() == []


def test_asleep_is_whom_writers_ring_for(db: Database, conn: psycopg.Connection) -> None:
    gateway = db.connect("rowcast_gateway")
    row = gateway.execute("select sync.gateway_bell(true)").fetchone()
    assert row is not None
    report(gateway, "sleeper", cursor(gateway), 0, row[0])
    found = status(conn)
    assert found["bell"] == {"asleep": 1, "awake": 0}
    assert found["relays"][0]["asleep"] is True
    gateway.execute("select sync.gateway_bell(false)")
    found = status(conn)
    assert found["bell"] == {"asleep": 0, "awake": 1}
    assert found["relays"][0]["asleep"] is False
    # Killed asleep: its bit is left, and it is nobody's.
    gateway.execute("select sync.gateway_bell(true)")
    gateway.execute("select pg_advisory_unlock_all()")
    assert status(conn)["bell"]["asleep"] == 0


def test_cursor_of_another_history_is_no_place(db: Database, conn: psycopg.Connection) -> None:
    gateway = db.connect("rowcast_gateway")
    before = cursor(gateway)
    conn.execute("select sync.new_epoch()")
    assert report(gateway, "one", before, 0) is False
    assert status(conn)["relays"] == []


def test_cursors_of_before_the_pruned_are_told_to_be_stale(
    db: Database, conn: psycopg.Connection
) -> None:
    gateway = db.connect("rowcast_gateway")
    conn.execute("truncate sync_internal.changes")
    conn.execute("update sync_internal.state set stale_before = '-infinity'")
    assert status(conn)["feed"]["staleBefore"] is None
    cursors = [cursor(gateway)]
    for _ in range(2):
        conn.execute("update public.tasks set title = title || 'x' where id = %s", [TASK_1])
        cursors.append(cursor(gateway))
    # All of a leaf of long ago.
    conn.execute("update sync_internal.changes set slot = (slot + 4) % 8, at = '2020-02-02Z'")
    conn.execute("select sync.prune()")
    assert status(conn)["feed"]["staleBefore"] == "2020-02-02T00:00:00.000000Z"
    stale = "select sync.gateway_changes(%s)::json ->> 'stale'"
    answers = [gateway.execute(stale.encode(), [text]).fetchone() for text in cursors]
    assert answers[:2] == [("true",)] * 2


def test_new_history_makes_every_cursor_of_before_stale(conn: psycopg.Connection) -> None:
    conn.execute("select sync.new_epoch()")
    found = status(conn)
    assert found["feed"]["staleBefore"] is not None
    assert found["feed"]["staleBefore"] <= found["at"]


def test_only_trusted_roles_see_it(tx: psycopg.Connection) -> None:
    for role in ("service_role", "rowcast_gateway", "rowcast_worker"):
        with tx.transaction():
            tx.execute(f"set local role {role}".encode())
            tx.execute("select sync.status()")
            tx.execute("reset role")
    for role in ("anon", "authenticated"):
        asked = f"set local role {role}; select sync.status()".encode()
        with pytest.raises(psycopg.errors.InsufficientPrivilege), tx.transaction():
            tx.execute(asked)


def test_doctor_warns_of_a_relay_that_is_behind_and_of_a_feed_nobody_prunes(
    db: Database, conn: psycopg.Connection
) -> None:
    def codes() -> set[str]:
        return {row[0] for row in conn.execute("select code from sync.doctor()").fetchall()}

    gateway = db.connect("rowcast_gateway")
    conn.execute("update public.tasks set title = title || 'x'")
    report(gateway, "one", cursor(gateway), 1)
    assert not codes() & {"relay_behind", "not_pruned"}
    report(gateway, "one", cursor(gateway), 30)
    conn.execute("update sync_internal.changes set at = now() - interval '37 days'")
    assert codes() >= {"relay_behind", "not_pruned", "sizes"}
