"""A table of docs under one policy, and what is said of it."""

from dataclasses import dataclass
from typing import Any

import psycopg

MEMBER = "exists (select from members m where m.board = docs.board and m.user_id = auth.uid())"


FUNCTION = """
create function public.my_boards() returns setof uuid language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic select m.board from public.members m where m.user_id = (select auth.uid()); end;
"""

SCHEMA = """
create table public.docs (
    id uuid primary key default gen_random_uuid(), owner uuid, board uuid, n numeric, at
        timestamptz,
    day date, kind text, extra text, tags text[], data jsonb, ratio float8, boards uuid[],
    twice numeric generated always as (n * 2) stored, version integer not null default 1
);
create table public.members (board uuid, user_id uuid, role text, note text, n numeric);
create table public.boards2 (id uuid primary key, name text, owner uuid);
alter table public.docs enable row level security;
grant select, insert, update on public.docs to authenticated, anon;
grant select on public.members, public.boards2 to authenticated, anon;
"""


@dataclass
class Report:
    """A row of sync.policy_reads."""

    cacheable: bool
    reasons: list[str]
    columns: list[str]
    reads: dict[str, list[str]]


def reads(
    conn: psycopg.Connection[Any], table: str = "public.docs", role: str = "authenticated"
) -> Report:
    row = conn.execute(
        "select cacheable, reasons, columns, reads from sync.policy_reads(%s, %s)", (table, role)
    ).fetchone()
    assert row
    return Report(*row)


def judge(conn: psycopg.Connection[Any], using: str, setup: str = "", rest: str = "") -> Report:
    """Makes docs live under one SELECT policy."""
    conn.execute(setup.encode())
    conn.execute(
        f"create policy p on public.docs for select to authenticated using ({using})".encode()
    )
    conn.execute(rest.encode())
    conn.execute("select sync.enable('public.docs', p_topics => '{}')")
    return reads(conn)
