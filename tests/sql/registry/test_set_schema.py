"""sync.set_schema: the version of the application's schema, and the oldest clients may have."""

import json

import psycopg
import pytest

from tests.sql.engine import ALICE, TASK_1, Gate, claims_of, title, tx

pytestmark = pytest.mark.both_versions


def numbers(conn: psycopg.Connection) -> tuple[int, int]:
    row = conn.execute("select app_schema, oldest_schema from sync_internal.state").fetchone()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize(("version", "oldest"), [(0, None), (3, 4), (3, 0), (None, None)])
def test_oldest_lies_between_one_and_the_version(
    conn: psycopg.Connection, version: int | None, oldest: int | None
) -> None:
    with pytest.raises(psycopg.IntegrityError):
        conn.execute("select sync.set_schema(%s, %s)", (version, oldest))
    assert numbers(conn) == (1, 1)


def test_version_may_fall_and_oldest_stays_unless_said(conn: psycopg.Connection) -> None:
    conn.execute("select sync.set_schema(9, p_oldest => 4)")
    conn.execute("select sync.set_schema(8)")
    assert numbers(conn) == (8, 4)
    conn.execute("select sync.configure('max_path', 12)")
    assert conn.execute("select sync_internal.setting('oldest_schema')").fetchone() == (4,)


def test_setting_of_a_running_connection_follows(conn: psycopg.Connection, gate: Gate) -> None:
    def status(schema: int) -> int:
        row = gate.conn.execute(
            "select status from sync.gateway_write("
            "%s::text[], array[%s::text], p_schemas => array[%s::bigint])",
            ([claims_of(ALICE)], json.dumps(tx(title(TASK_1, "x"))), schema),
        ).fetchone()
        assert row is not None
        return int(row[0])

    assert status(1) == 200
    conn.execute("select sync.set_schema(2, p_oldest => 2)")
    assert (status(1), status(2)) == (426, 200)
    conn.execute("select sync.set_schema(2, p_oldest => 1)")
    assert status(1) == 200


def test_only_administrators_may_say(gate: Gate) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        gate.conn.execute("select sync.set_schema(2)")
