"""Which guests are removed."""

import uuid

import psycopg
import pytest

from tests.sql.engine import tx

__all__ = ["tx"]
pytestmark = pytest.mark.both_versions


def guest(conn: psycopg.Connection, days: int) -> uuid.UUID:
    row = conn.execute(
        "insert into accounts.users (created_at)"
        " values (now() - %s * interval '1 day') returning id",
        [days],
    ).fetchone()
    assert row is not None
    found: uuid.UUID = row[0]
    return found


def test_guests_nobody_can_be_any_more_are_removed(tx: psycopg.Connection) -> None:
    kept = {name: guest(tx, 60) for name in ("session", "provider", "sign-up", "disabled")}
    gone = guest(tx, 2)
    ended = guest(tx, 60)
    kept["new"] = guest(tx, 0)
    insert = "select accounts.open_session(%s, gen_random_uuid(), %s, %s)"
    for user in (kept["session"], ended):
        tx.execute(insert, [user, bytes(32), bytes(32)])
    tx.execute(
        "update accounts.sessions set expires_at = now() - interval '1 s' where user_id = %s",
        [ended],
    )
    tx.execute(
        "insert into accounts.identities (issuer, subject, user_id, provider)"
        " values ('i', 's', %s, 'p')",
        [kept["provider"]],
    )
    tx.execute(
        "insert into accounts.links (id, purpose, token_hash, email, user_id, expires_at)"
        " values (gen_random_uuid(), 'sign_up', 'x', 'd@example.org', %s, now() + interval '1 h')",
        [kept["sign-up"]],
    )
    tx.execute("select sync.disable_user(%s)", [str(kept["disabled"])])
    tx.execute("select accounts.prune()")
    left = {row[0] for row in tx.execute("select id from accounts.users where email is null")}
    assert set(kept.values()) <= left
    assert not left & {gone, ended}
