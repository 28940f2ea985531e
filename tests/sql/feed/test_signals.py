"""The doors through which gateways tell each other of presence and broadcasts."""

import json
import uuid
from typing import Any

import psycopg
import pytest

from tests.postgres import Database

pytestmark = pytest.mark.both_versions

ONE, TWO = str(uuid.uuid4()), str(uuid.uuid4())
TELL = "select sync.gateway_signal(%s::uuid, %s::text[], %s)"


@pytest.fixture
def gateway(db: Database) -> psycopg.Connection[Any]:
    return db.connect("rowcast_gateway")


def tell(conn: psycopg.Connection[Any], gateway: str, *bodies: str, trim: bool = False) -> None:
    conn.execute(TELL, (gateway, list(bodies), trim))


def read(conn: psycopg.Connection[Any], cursor: str | None, gateway: str = TWO) -> Any:
    row = conn.execute("select sync.gateway_signals(%s::uuid, %s)", (gateway, cursor)).fetchone()
    assert row is not None
    answer = json.loads(row[0])
    answer["bodies"] = [body for _, _, body in answer["signals"]]
    return answer


def test_each_gateway_hears_the_others_once_in_their_order(gateway: psycopg.Connection) -> None:
    start = read(gateway, None)
    tell(gateway, ONE, "a", "b")
    tell(gateway, TWO, "mine")
    tell(gateway, ONE, "c")
    answer = read(gateway, start["cursor"])
    assert answer["bodies"] == ["a", "b", "c"]
    assert {gateway for gateway, _, _ in answer["signals"]} == {ONE}
    assert read(gateway, answer["cursor"])["bodies"] == []
    assert read(gateway, None)["bodies"] == ["a", "b", "c"]


def test_what_commits_late_is_not_skipped(db: Database, gateway: psycopg.Connection) -> None:
    tell(gateway, TWO, "first")
    late = db.connect("rowcast_gateway", autocommit=False)
    tell(late, ONE, "late")
    tell(gateway, ONE, "early")
    before = read(gateway, None)
    assert before["bodies"] == ["early"]
    late.commit()
    assert read(gateway, before["cursor"])["bodies"] == ["late"]


def test_signals_are_gone_after_ten_seconds(db: Database, gateway: psycopg.Connection) -> None:
    conn = db.connect()
    tell(gateway, ONE, "old")
    conn.execute("update sync_internal.signals set at = at - interval '11 s'")
    assert read(gateway, None)["bodies"] == []
    tell(gateway, ONE, "new", trim=True)
    assert conn.execute("select array_agg(body) from sync_internal.signals").fetchone() == (
        ["new"],
    )


def test_after_a_crash_all_is_read_anew(db: Database, gateway: psycopg.Connection) -> None:
    """A crash empties the tables and hands the same transaction ids out again."""
    tell(gateway, ONE, "before")
    cursor = read(gateway, None)["cursor"]
    era, xmax, xips = cursor.split(".")
    ahead = f"{era}.{int(xmax) + 1000}.{xips}"
    db.connect().execute("truncate sync_internal.signals, sync_internal.signal_era")
    tell(gateway, ONE, "after")
    answer = read(gateway, ahead)
    assert (answer["bodies"], answer["whole"]) == (["after"], True)
    assert read(gateway, answer["cursor"])["whole"] is False


def test_more_than_can_be_read_at_once_leaves_the_newest(gateway: psycopg.Connection) -> None:
    for number in range(9):
        tell(gateway, ONE, str(number) * 1_000_000)
    answer = read(gateway, None)
    assert answer["behind"] is True
    assert [body[0] for body in answer["bodies"]] == list("12345678")


def test_signals_are_not_logged_and_ring(db: Database, gateway: psycopg.Connection) -> None:
    conn = db.connect()
    kinds = conn.execute(
        "select array_agg(distinct relpersistence::text) from pg_class"
        " where oid in ('sync_internal.signals'::regclass, 'sync_internal.signal_era'::regclass)"
    ).fetchone()
    assert kinds == (["u"],)
    conn.execute("listen rowcast")
    tell(gateway, ONE, "nobody sleeps")
    conn.execute("select sync.gateway_bell(true)")
    tell(gateway, ONE, "a")
    conn.execute("select pg_notify('rowcast', 'end')")
    heard = [n.payload for n in conn.notifies(timeout=10, stop_after=2)]
    assert heard == ["", "end"]
