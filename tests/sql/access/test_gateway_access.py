"""What the relay is told: whose answers may be kept, what ends them, and when to ask again."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.postgres import Database, Server
from tests.sql.access.docs import MEMBER, SCHEMA, judge
from tests.sql.engine import Gate, value

pytestmark = pytest.mark.both_versions


def access(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    found: dict[str, Any] = value(conn, "select sync.gateway_access()")
    return found


def test_the_gateway_learns_what_may_be_kept(gate: Gate) -> None:
    told = access(gate.conn)
    assert told["fingerprint"] == gate.changes(None)["fingerprint"]
    assert set(told["tables"]) == {
        "workspaces", "workspaceMembers", "boards", "tasks",
        "comments", "notebooks", "notebookMembers", "notes", "profiles",
        "workspaceInvitations", "notebookInvitations", "taskFiles", "noteFiles",
        "jobRuns", "jobRunFiles", "notificationSettings",
    }  # fmt: skip
    assert told["tables"]["comments"]["authenticated"] == {
        "cacheable": True,
        "reasons": [],
        "columns": ["taskId"],
        "shown": [
            "id",
            "taskId",
            "content",
            "authorId",
            "createdAt",
            "updatedAt",
            "deleted",
            "version",
        ],
        "reads": {
            "tasks": ["id", "boardId"],
            "boards": ["id", "workspaceId"],
            "public.workspace_members": None,
        },
    }
    # What only the claims decide is kept too: nobody is asked for each step of a job.
    for name in ("jobRuns", "notificationSettings"):
        assert told["tables"][name]["authenticated"]["cacheable"]
    told["tables"]["comments"]["anon"].pop("shown")
    assert told["tables"]["comments"]["anon"] == {
        "cacheable": True,
        "reasons": [],
        "columns": [],
        "reads": {},
    }


def test_tables_are_named_as_the_feed_names_them(tx: psycopg.Connection) -> None:
    tx.execute(SCHEMA.encode())
    tx.execute("select sync.drop_membership('workspace_members')")
    judge(tx, f"{MEMBER} and board in (select b.id from boards b where b.version > 1)")
    found = access(tx)["tables"]["docs"]["authenticated"]
    # A column that is in no patch: every update counts.
    assert found["reads"] == {
        "public.members": None,
        "boards": None,
        "workspaceMembers": ["workspaceId", "userId"],
    }
    tx.execute("select sync.membership('workspace_members', 'user_id')")
    found = access(tx)["tables"]["docs"]["authenticated"]
    assert found["cacheable"], found
    assert set(found["reads"]) == {"public.members", "boards", "public.workspace_members"}


def test_reasons_are_told_to_gateway_and_doctor(tx: psycopg.Connection) -> None:
    tx.execute(SCHEMA.encode())
    judge(tx, "at < now()")
    found = access(tx)["tables"]["docs"]
    assert not found["authenticated"]["cacheable"]
    assert found["anon"]["cacheable"]
    (reason,) = found["authenticated"]["reasons"]
    rows = tx.execute(
        "select severity, object, message from sync.doctor() where code = 'not_cacheable'"
    ).fetchall()
    assert rows == [
        (
            "info",
            "public.docs",
            f"Who sees a change is asked of PostgreSQL each time (authenticated): {reason}",
        )
    ]


CHANGES: dict[str, str] = {
    "policy": "alter policy p on docs using (true)",
    "policy and back": "alter policy p on docs using (true); alter policy p on docs using "
    "(kind = 'x')",
    "policy of a table read": "create policy q on members using (true)",
    "row security of a table read": "alter table members enable row level security",
    "row security off and on": "alter table docs disable row level security; alter table docs "
    "enable row level security",
    "force": "alter table docs force row level security",
    "right on a table read": "revoke select on members from authenticated",
    "right on a column": "grant update (kind) on docs to anon",
    "right on a column and back": "grant select (note) on members to anon; revoke select (note) on "
    "members from anon",
    "owner": "alter table members owner to rowcast_owner",
    "owner of a function": "alter function helper() owner to rowcast_owner",
    "function": "create or replace function helper() returns boolean language sql stable "
    "return false",
    "right on a function": "revoke execute on function helper() from public",
    "view": "create or replace view v as select m.board, m.user_id from members m where "
    "m.role = 'y'",
    "kind of view": "alter view v set (security_invoker = true)",
    "trigger off": "alter table docs disable trigger zzz_rowcast_update",
    "trigger off and on": "alter table members disable trigger all; alter table members enable "
    "trigger all",
    "trigger of a table read": "drop trigger {watch} on members",
    "member of a role": "grant rowcast_owner to service_role",
    "strength of a role": "alter role authenticated bypassrls",
    "inheritance of a role": "alter role authenticated inherit",
    "right on a schema": "revoke usage on schema public from public",
    "label of an enum": "alter type mood rename value 'good' to 'fine'",
    "part of a table read": "create table part () inherits (members)",
    "column of a table read": "alter table members alter column n type float8",
    "membership": "select sync.membership('members', 'user_id')",
    "setting from a claim": "select sync.map_identity('app.tenant', 'tenant')",
}


@pytest.fixture(scope="session")
def lived_db(pg: Server) -> Iterator[Database]:
    """A database in which docs are live under a policy that reads a bit of everything."""
    with pg.database() as database:
        conn = database.connect()
        conn.execute(SCHEMA.encode())
        conn.execute("create type mood as enum ('good', 'bad')")
        judge(
            conn,
            "kind = 'x' and helper() and exists (select from v where v.board = docs.board)",
            "create function helper() returns boolean language sql stable return true; create "
            "view v as select m.board, m.user_id from members m where m.role = 'x'; grant select "
            "on v to authenticated",
        )
        yield database


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_changes_with_all_that_decides(lived_db: Database, change: str) -> None:
    conn = lived_db.connect()
    watch = value(
        conn,
        "select tgname from pg_trigger where tgrelid = 'members'::regclass "
        "and tgname ~ '^zzz_rowcast_watch.*_insert$'",
    )
    before = value(conn, "select sync_internal.fingerprint()")
    with conn.transaction(force_rollback=True):
        conn.execute(CHANGES[change].format(watch=watch).encode())
        assert value(conn, "select sync_internal.fingerprint()") != before
    assert value(conn, "select sync_internal.fingerprint()") == before


def test_fingerprint_changes_with_a_role_through_which_others_inherit(
    lived_db: Database,
) -> None:
    conn = lived_db.connect()
    with conn.transaction(force_rollback=True):
        conn.execute("alter role authenticated inherit")
        conn.execute("create role readers; create role staff in role readers")
        conn.execute("grant staff to authenticated")
        reads, looks = (
            "select pg_has_role('authenticated', 'readers', 'usage')",
            "select sync_internal.fingerprint()",
        )
        before = value(conn, looks)
        assert value(conn, reads)
        conn.execute("alter role staff noinherit")
        # Since PostgreSQL 16 this only says what later grants do.
        assert value(conn, reads) or value(conn, looks) != before


def test_fingerprint_stays_with_what_decides_nothing(lived_db: Database) -> None:
    conn = lived_db.connect()
    before = value(conn, "select sync_internal.fingerprint()")
    with conn.transaction(force_rollback=True):
        for change in (
            "insert into docs (kind) values ('x')",
            "update members set note = 'x'",
            "create table unrelated (id integer)",
            "create temporary table passing (id integer)",
            "create index on members (board)",
            "analyze members",
            "create role stranger",
        ):
            conn.execute(change.encode())
            assert value(conn, "select sync_internal.fingerprint()") == before, change


def test_a_hundred_tables_are_told(db: Database) -> None:
    conn = db.connect()
    before = len(access(conn)["tables"])
    conn.execute("""
        do $$
        begin
            for i in 1 .. 92 loop
                execute format(
                    'create table public.many_%s (id uuid primary key, board_id uuid, a text, b
                        text, '
                    'c text, d text, e text, f text, version integer not null default 1)', i
                );
                execute format('alter table public.many_%s enable row level security', i);
                execute format(
                    'create policy p on public.many_%s for select to authenticated '
                    'using (board_id = any (array(select app_private.my_board_ids())))', i
                );
                perform sync.enable(format('public.many_%s', i), p_name => format('many%s', i));
            end loop;
        end
        $$
    """)
    told = access(db.connect("rowcast_gateway"))
    assert len(told["tables"]) == before + 92
    assert all(roles["authenticated"]["cacheable"] for roles in told["tables"].values())
