"""The end of sessions in SQL: who may say it, whom it concerns, how long it is kept."""

import json
import time
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, BOB, TASK_1, Background, Gate, claims_of, title, tx, wait_until

pytestmark = pytest.mark.both_versions


def counts(conn: psycopg.Connection, **claims: Any) -> bool:
    """Whether a token of Alice's with these claims counts."""
    row = conn.execute(
        "select sync.gateway_sessions(%s)", [[claims_of(ALICE, **claims)]]
    ).fetchone()
    assert row is not None
    (answer,) = row[0]
    return bool(answer)


def stored(conn: psycopg.Connection, user: str = ALICE) -> tuple[Any, ...] | None:
    query = "select ended_at, disabled from sync_internal.session_ends where user_id = %s"
    return conn.execute(query, [user]).fetchone()


def test_only_trusted_backends_and_administrators_end_sessions(tx: psycopg.Connection) -> None:
    for role in ("anon", "authenticated", "rowcast_gateway", "rowcast_worker"):
        for function in ("end_sessions", "disable_user", "enable_user"):
            asked = f"set local role {role}; select sync.{function}('u')".encode()
            with pytest.raises(psycopg.errors.InsufficientPrivilege), tx.transaction():
                tx.execute(asked)
    for role in ("service_role", "rowcast_owner"):
        with tx.transaction():
            tx.execute(f"set local role {role}".encode())
            tx.execute("select sync.disable_user('u'), sync.enable_user('u')")
            tx.execute("select sync.end_sessions('u')")
            tx.execute("reset role")
    assert stored(tx, "u")


@pytest.mark.parametrize("function", ["end_sessions", "disable_user"])
def test_user_has_to_be_named(tx: psycopg.Connection, function: str) -> None:
    for user in (None, ""):
        with pytest.raises(psycopg.errors.InvalidParameterValue), tx.transaction():
            tx.execute(f"select sync.{function}(%s)".encode(), [user])


def test_sign_out_is_for_whoever_is_somebody(db: Database) -> None:
    with psycopg.connect(db.dsn()) as conn:
        conn.execute("select sync.act_as(%s)", [ALICE])
        conn.execute("select sync.sign_out()")
        conn.execute("reset role")
        assert stored(conn) is not None
        assert stored(conn, BOB) is None
        conn.execute("select set_config('role', 'authenticated', true)")
        conn.execute("select set_config('request.jwt.claims', '', true)")
        with pytest.raises(psycopg.DatabaseError) as refused:
            conn.execute("select sync.sign_out()")
    assert refused.value.sqlstate == "PT401"


def test_claims_that_a_login_sets_itself_sign_nobody_out(db: Database) -> None:
    """A setting is no identity."""
    conn = db.connect()
    conn.execute("create role person login in role authenticated")
    try:
        with psycopg.connect(db.dsn("person")) as person:
            person.execute("select set_config('request.jwt.claims', %s, false)", [claims_of(ALICE)])
            person.execute("set role authenticated")
            with pytest.raises(psycopg.DatabaseError) as refused:
                person.execute("select sync.sign_out()")
        assert refused.value.sqlstate == "PT401"
        assert stored(conn) is None
    finally:
        conn.execute("drop role person")


def test_ending_that_is_rolled_back_ends_nothing(db: Database, conn: psycopg.Connection) -> None:
    other = db.connect(autocommit=False)
    other.execute("select sync.disable_user(%s)", [ALICE])
    assert counts(conn, iat=1)
    other.rollback()
    assert counts(conn)
    assert conn.execute("select 1 from sync_internal.changes where kind = 'session'").rowcount == 0


def test_the_moment_is_that_of_the_call_and_not_of_its_transaction(db: Database) -> None:
    """A token may have been issued while a long transaction ran."""
    conn = db.connect(autocommit=False)
    (began,) = conn.execute("select extract(epoch from now())").fetchone() or (0,)
    wait_until(lambda: time.time() > float(began) + 0.01, "time passes")
    conn.execute("select sync.end_sessions(%s)", [ALICE])
    assert not counts(conn, iat=float(began) + 0.001)
    conn.rollback()


def test_moment_never_falls(db: Database, conn: psycopg.Connection) -> None:
    """Of two at once the one that waited may have looked at the clock first."""
    first, second = db.connect(autocommit=False), db.connect()
    first.execute("select sync.end_sessions(%s)", [ALICE])
    waiting = Background(lambda: second.execute("select sync.end_sessions(%s)", [ALICE]))
    blocked = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    wait_until(
        lambda: conn.execute(blocked, [second.info.backend_pid]).fetchone(), "the second waits"
    )
    later = "update sync_internal.session_ends set ended_at = clock_timestamp() + interval '1 min'"
    first.execute(f"{later} returning ended_at".encode())
    first.commit()
    latest = stored(conn)
    waiting.result()
    assert stored(conn) == latest


def test_enabling_leaves_what_had_ended_ended(conn: psycopg.Connection) -> None:
    conn.execute("select sync.enable_user(%s)", [ALICE])
    assert stored(conn) is None
    conn.execute("select sync.disable_user(%s)", [ALICE])
    conn.execute("select sync.end_sessions(%s)", [ALICE])
    later = time.time() + 200  # within what clocks may differ
    assert not counts(conn, iat=later)
    conn.execute("select sync.enable_user(%s)", [ALICE])
    assert not counts(conn, iat=time.time() - 1)
    assert counts(conn, iat=later)


@pytest.mark.parametrize(
    "iat", ["1e131071", "99999999999", '"99999999999"', "null", "[1]", "-1", "true"]
)
def test_strange_moments_of_issue_count_as_old(conn: psycopg.Connection, iat: str) -> None:
    claims = f'{{"sub": "{ALICE}", "iat": {iat}}}'
    conn.execute("select sync.end_sessions(%s)", [ALICE])
    row = conn.execute("select sync.gateway_sessions(%s)", [[claims]]).fetchone()
    assert row == ([False],)


def test_others_and_nobody_are_not_concerned(conn: psycopg.Connection) -> None:
    conn.execute("select sync.disable_user(%s)", [ALICE])
    asked = [claims_of(BOB), None, json.dumps({"role": "anon"}), claims_of(ALICE)]
    assert conn.execute("select sync.gateway_sessions(%s)", [asked]).fetchone() == (
        [True, True, True, False],
    )


def test_backends_that_act_for_him_and_database_logins_are_not_concerned(db: Database) -> None:
    conn = db.connect(autocommit=False)
    conn.execute("select sync.disable_user(%s)", [ALICE])
    conn.execute("select sync.act_as(%s)", [ALICE])
    assert conn.execute("select count(*) > 0 from public.tasks").fetchone() == (True,)
    conn.rollback()


def test_refused_write_leaves_no_receipt_and_is_sent_again(
    db: Database, conn: psycopg.Connection
) -> None:
    gate = Gate(db)
    sent = tx(title(TASK_1, "later"))
    conn.execute("select sync.disable_user(%s)", [ALICE])
    refused = gate.send(ALICE, {"transactions": [sent]})
    assert (refused.status, refused.code, refused.again) == (401, "unauthorized", False)
    conn.execute("select sync.enable_user(%s)", [ALICE])
    conn.execute("delete from sync_internal.session_ends")
    assert gate.send(ALICE, {"transactions": [sent]}).outcomes == ["applied"]


def test_ends_older_than_any_token_are_pruned_and_disabled_users_stay(
    conn: psycopg.Connection,
) -> None:
    for user in ("old", "new"):
        conn.execute("select sync.end_sessions(%s)", [user])
    conn.execute("select sync.disable_user('off')")
    conn.execute(
        "update sync_internal.session_ends set ended_at = now() - interval '8 days'"
        " where user_id <> 'new'"
    )
    conn.execute("select sync.configure('max_token_days', 7)")
    conn.execute("select sync.prune()")
    left = conn.execute("select user_id from sync_internal.session_ends order by 1").fetchall()
    assert left == [("new",), ("off",)]


def test_doors_for_many_leave_out_whose_session_has_ended(db: Database) -> None:
    """One of them must not cost the others their answer."""
    gateway = db.connect("rowcast_gateway")
    db.connect().execute("select sync.disable_user(%s)", [ALICE])
    claims = [claims_of(ALICE), claims_of(BOB)]
    refs = json.dumps({"tasks": [TASK_1]})
    row = gateway.execute("select sync.gateway_probe(%s, %s, '-')", [claims, refs]).fetchone()
    assert row is not None
    assert json.loads(row[0])["seen"] == [None, {"tasks": [TASK_1]}]
    keys = json.dumps([[f"tasks:{TASK_1}"]] * 2)
    row = gateway.execute("select sync.gateway_views(%s, %s)", [claims, keys]).fetchone()
    assert row is not None
    first, second = json.loads(row[0])
    assert first is None
    assert second[f"tasks:{TASK_1}"]
