"""What two transactions at once make of sessions."""

import uuid
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import Background, wait_until

pytestmark = pytest.mark.both_versions

FAMILY, SECRET = bytes(32), bytes([1]) * 32
HASH = "$argon2id$old"


@pytest.fixture
def user(db: Database) -> uuid.UUID:
    row = (
        db.connect()
        .execute(
            "insert into accounts.users (email, password_hash)"
            " values ('dora@example.org', %s) returning id",
            [HASH],
        )
        .fetchone()
    )
    assert row is not None
    found: uuid.UUID = row[0]
    return found


def open_session(conn: psycopg.Connection, user: uuid.UUID) -> uuid.UUID:
    session = uuid.uuid4()
    conn.execute("select accounts.open_session(%s, %s, %s, %s)", [user, session, FAMILY, SECRET])
    return session


def blocked(db: Database, conn: psycopg.Connection) -> None:
    """Waits until a connection waits for a lock."""
    asked = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    watcher = db.connect()
    wait_until(lambda: watcher.execute(asked, [conn.info.backend_pid]).fetchone(), "one waits")


def sessions(db: Database) -> int:
    row = db.connect().execute("select count(*) from accounts.sessions").fetchone()
    assert row is not None
    return int(row[0])


def test_who_signs_in_while_everybody_is_signed_out_is_signed_out(
    db: Database, user: uuid.UUID
) -> None:
    ending = db.connect()
    with psycopg.connect(db.dsn()) as signing:
        open_session(signing, user)
        job = Background(lambda: ending.execute("select sync.end_all_sessions()"))
        blocked(db, ending)
        signing.commit()
    job.result()
    assert sessions(db) == 0


@pytest.mark.parametrize("end", ["end_sessions", "disable_user"])
def test_who_changes_his_password_while_his_sessions_end_is_told_so(
    db: Database, user: uuid.UUID, end: str
) -> None:
    session = open_session(db.connect(), user)
    changing = db.connect()

    def change() -> Any:
        with pytest.raises(psycopg.Error) as refused:
            changing.execute(
                "select accounts.gateway_change_password(%s, %s, %s, %s, %s)",
                [session, FAMILY, SECRET, HASH, "$argon2id$new"],
            )
        return refused.value.sqlstate

    with psycopg.connect(db.dsn()) as ending:
        ending.execute(f"select sync.{end}(%s)".encode(), [str(user)])
        job = Background(change)
        blocked(db, changing)
        ending.commit()
    assert job.result() == "PT401"
    row = db.connect().execute("select password_hash from accounts.users where id = %s", [user])
    assert row.fetchone() == (HASH,)


def test_a_guest_who_becomes_somebody_meanwhile_is_not_made_another(
    db: Database, user: uuid.UUID
) -> None:
    """By a provider, while his sign-up is confirmed: the sign-up makes a user of its own."""
    conn = db.connect()
    row = conn.execute("insert into accounts.users default values returning id").fetchone()
    assert row is not None
    guest = row[0]
    session = open_session(conn, guest)
    conn.execute(
        "insert into accounts.links (id, purpose, token_hash, email, user_id, password_hash,"
        " expires_at) values (gen_random_uuid(), 'sign_up', %s, 'g@example.org', %s, %s,"
        " now() + interval '1 h')",
        [SECRET, guest, HASH],
    )
    verifying = db.connect()
    with psycopg.connect(db.dsn()) as coming:
        coming.execute(
            "select accounts.gateway_provider_sign_in('p', 'i', 's', null, false, %s, '', %s, %s,"
            " %s)",
            [session, uuid.uuid4(), FAMILY, SECRET],
        )
        job = Background(
            lambda: verifying.execute(
                "select accounts.gateway_verify(%s, %s, %s, %s) -> 'user' ->> 'id'",
                [SECRET, uuid.uuid4(), FAMILY, SECRET],
            ).fetchone()
        )
        blocked(db, verifying)
        coming.commit()
    assert job.result() != (str(guest),)
    found = conn.execute("select email from accounts.users where id = %s", [guest]).fetchone()
    assert found == (None,)


def test_of_too_many_sessions_the_one_ends_that_was_refreshed_longest_ago(
    db: Database, user: uuid.UUID
) -> None:
    conn = db.connect()
    conn.execute("select sync.configure('user_sessions', 3)")
    first, second, third = (open_session(conn, user) for _ in range(3))
    refreshed = (
        "update accounts.sessions set rotated_at = now() - %s * interval '1 h' where id = %s"
    )
    for hours, session in ((1, first), (3, second), (2, third)):
        conn.execute(refreshed.encode(), [hours, session])
    told = "select count(*) from sync_internal.changes where kind = 'session'"
    before = conn.execute(told.encode()).fetchone()
    # Again with the same id: no other.
    conn.execute("select accounts.open_session(%s, %s, %s, %s)", [user, first, FAMILY, SECRET])
    assert sessions(db) == 3
    assert conn.execute(told.encode()).fetchone() == before
    fourth = open_session(conn, user)
    left = conn.execute("select id from accounts.sessions").fetchall()
    assert {row[0] for row in left} == {first, third, fourth}
    assert conn.execute(told.encode()).fetchone() != before
    # Fewer from now on: the next sign-in sees to all that are too many.
    conn.execute("select sync.configure('user_sessions', 1)")
    fifth = open_session(conn, user)
    assert conn.execute("select id from accounts.sessions").fetchall() == [(fifth,)]


def test_two_who_sign_in_at_once_keep_to_the_bound(db: Database, user: uuid.UUID) -> None:
    conn = db.connect()
    conn.execute("select sync.configure('user_sessions', 1)")
    waiting = db.connect()
    with psycopg.connect(db.dsn()) as signing:
        open_session(signing, user)
        job = Background(lambda: open_session(waiting, user))
        blocked(db, waiting)
        signing.commit()
    last = job.result()
    assert conn.execute("select id from accounts.sessions").fetchall() == [(last,)]
