"""Policies that cost more than they need are named, with what to do; others are not."""

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import live

pytestmark = pytest.mark.both_versions


def found(conn: psycopg.Connection, table: str) -> list[tuple[str | None, str]]:
    query = "select policy::text, reason from sync.slow_policies() where relation::text = %s"
    return conn.execute(query, (table,)).fetchall()


@pytest.mark.parametrize(
    ("condition", "called"),
    [
        ("owner = auth.uid()", "auth.uid()"),
        ("owner = (auth.jwt() ->> 'sub')::uuid", "auth.jwt()"),
        (
            "owner::text = current_setting('app.user', true)",
            "current_setting('app.user'::text, true)",
        ),
        ("owner = (select auth.uid())", None),
        ("owner = ((select auth.jwt()) ->> 'sub')::uuid", None),
    ],
)
def test_identity_called_for_each_row_is_named(
    db: Database, condition: str, called: str | None
) -> None:
    conn = db.connect()
    live(conn, "things", "id uuid primary key, owner uuid")
    conn.execute("drop policy everybody on public.things")
    conn.execute(f"create policy mine on public.things using ({condition})".encode())
    expected = [("mine", f"{called} is called for each row")] if called else []
    assert found(conn, "things") + found(conn, "public.things") == expected


def test_function_that_takes_long_is_named(db: Database) -> None:
    conn = db.connect()
    live(conn, "things", "id uuid primary key default gen_random_uuid()")
    conn.execute(
        "create function public.slow(id uuid) returns boolean language plpgsql stable as"
        " $$ begin perform pg_sleep(0.0015); return true; end $$;"
        "drop policy everybody on public.things;"
        "create policy slow on public.things using (public.slow(id));"
        "insert into public.things select from generate_series(1, 110);"
    )
    conn.execute("set track_functions = 'pl'")
    conn.execute("set role authenticated")
    conn.execute("select count(*) from public.things")
    conn.execute("reset role")
    conn.execute("select pg_stat_force_next_flush()")
    ((policy, reason),) = found(conn, "things") + found(conn, "public.things")
    assert policy == "slow"
    assert "slow(uuid) takes" in reason


def test_example_apps_have_none(db: Database) -> None:
    assert db.connect().execute("select * from sync.slow_policies()").fetchall() == []
