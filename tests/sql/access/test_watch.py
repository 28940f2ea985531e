"""Tables that policies read tell of their changes in the feed, live or not."""

from typing import Any

import psycopg
import pytest

from app import migrate
from tests.postgres import Database
from tests.sql.access.docs import FUNCTION, MEMBER, SCHEMA, judge, reads
from tests.sql.engine import ALICE, BOB, CAROL, LAUNCH, Gate, value

pytestmark = pytest.mark.both_versions

ONE, TWO = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002"


@pytest.fixture
def watched(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction in which the live docs are read through members, which are not live."""
    tx.execute(SCHEMA.encode())
    tx.execute("insert into members values (%s, %s, 'x', 'a', 1)", (ONE, ALICE))
    assert judge(tx, f"{MEMBER} and kind is not null").cacheable
    return tx


def heard(conn: psycopg.Connection[Any], statement: str, *args: Any) -> list[tuple[str, Any]]:
    """What the feed says of a statement: table and patch of each change of kind access."""
    conn.execute("truncate sync_internal.changes")
    conn.execute(statement.encode(), args or None)
    return conn.execute(
        "select table_name, patch from sync_internal.changes where kind = 'access' order by seq"
    ).fetchall()


TOLD: list[tuple[str, Any]] = [("public.members", None)]


def test_changes_of_what_is_read_are_told(watched: psycopg.Connection) -> None:
    for statement in (
        f"insert into members values ('{TWO}', '{BOB}')",
        f"insert into members select gen_random_uuid(), '{BOB}' from generate_series(1, 100)",
        f"update members set board = '{ONE}' where user_id = '{BOB}'",
        f"update members set user_id = '{CAROL}' where user_id = '{ALICE}'",
        "delete from members",
        "truncate members",
    ):
        assert heard(watched, statement) == TOLD, statement


def test_changes_of_nothing_that_is_read_are_not_told(watched: psycopg.Connection) -> None:
    for statement in (
        "update members set note = 'b', n = 3",
        "update members set board = board, user_id = user_id",
        "delete from members where false",
        "insert into members select * from members where false",
        "update members set board = null where false",
    ):
        assert heard(watched, statement) == [], statement


def test_values_that_only_change_places_are_not_told(watched: psycopg.Connection) -> None:
    watched.execute(f"insert into members values ('{TWO}', '{BOB}', 'x', 'second', 2)".encode())
    swap = (
        "update members m set board = o.board, user_id = o.user_id from members o "
        "where o.board <> m.board"
    )
    assert heard(watched, swap) == []


def test_numbers_that_are_equal_and_differ_are_told(watched: psycopg.Connection) -> None:
    watched.execute(
        "alter policy p on docs using (exists (select from members m where m.n::text = kind))"
    )
    watched.execute("select sync.refresh('docs')")
    assert reads(watched).cacheable
    assert heard(watched, "update members set n = 1.0") == TOLD
    assert heard(watched, "update members set note = 'z'") == []


def test_values_without_an_exact_text_are_told_with_every_update(
    watched: psycopg.Connection,
) -> None:
    watched.execute("alter table members add column days date[], add column x json")
    watched.execute(
        "alter policy p on docs using (exists (select from members m where m.days is null))"
    )
    watched.execute("select sync.refresh('docs')")
    assert reads(watched).cacheable
    assert heard(watched, "update members set note = 'z'") == TOLD


def test_replication_appliers_are_heard_too(watched: psycopg.Connection) -> None:
    watched.execute("set local session_replication_role = replica")
    assert heard(watched, f"insert into members values ('{TWO}', '{BOB}')") == TOLD
    assert heard(watched, "update members set note = 'b' where note is null") == []
    assert heard(watched, "update members set board = null where note = 'b'") == TOLD
    assert heard(watched, "delete from members where note = 'b'") == TOLD
    assert heard(watched, "truncate members") == TOLD


def test_a_membership_names_the_users_concerned(watched: psycopg.Connection) -> None:
    watched.execute("select sync.membership('members', 'user_id')")
    assert reads(watched).cacheable

    def users(statement: str) -> Any:
        ((table, patch),) = heard(watched, statement)
        assert table == "public.members"
        return patch and sorted(patch["users"])

    assert users(f"insert into members values ('{TWO}', '{BOB}'), ('{ONE}', '{BOB}')") == [BOB]
    assert users(f"update members set user_id = '{CAROL}' where board = '{TWO}'") == sorted(
        [BOB, CAROL]
    )
    assert users(f"update members set board = '{TWO}' where user_id = '{ALICE}'") == [ALICE]
    assert users(f"insert into members values ('{TWO}', null)") == []
    assert users("delete from members where user_id is not null") == sorted([ALICE, BOB, CAROL])
    assert users("truncate members") is None
    many = (
        "insert into members select gen_random_uuid(), gen_random_uuid() from "
        "generate_series(1, {})"
    )
    assert len(users(many.format(1000))) == 1000
    assert users(many.format(1001)) is None
    watched.execute("select sync.drop_membership('members')")
    assert heard(watched, f"insert into members values ('{TWO}', '{BOB}')") == TOLD


def test_a_live_membership_is_told_beside_its_changes(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.membership('workspace_members', 'user_id')")
    before = gate.cursor()
    conn.execute("delete from workspace_members where user_id = %s", (BOB,))
    changes = gate.changes(before)["changes"]
    (told,) = [change for change in changes if change["kind"] == "access"]
    assert (told["table"], told["id"], told["patch"]) == (
        "public.workspace_members",
        None,
        {"users": [BOB]},
    )
    assert {"workspaceMembers"} <= {
        change["table"] for change in changes if change["kind"] == "delete"
    }
    conn.execute("select sync.drop_membership('workspace_members')")
    assert triggers(conn, "workspace_members") == set()


def test_what_is_told_rings_the_bell_and_comes_in_order(gate: Gate, db: Database) -> None:
    conn, listener = db.connect(autocommit=False), db.connect()
    conn.execute("select sync.membership('workspace_members', 'user_id')")
    conn.commit()
    listener.execute("listen rowcast")
    listener.execute("select setval('sync_internal.bell', 1)")
    before = gate.cursor()
    conn.execute("update tasks set title = 'first'")
    conn.execute("delete from workspace_members where user_id = %s", (BOB,))
    conn.commit()
    assert next(listener.notifies(timeout=20, stop_after=1)).payload == ""
    kinds = [(c["table"], c["kind"]) for c in gate.changes(before)["changes"]]
    assert kinds.index(("public.workspace_members", "access")) > kinds.index(("tasks", "update"))


def test_clients_never_hear_of_what_is_told(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.membership('workspace_members', 'user_id')")
    cursor = gate.cursor()
    conn.execute("delete from workspace_members where user_id = %s", (BOB,))
    answer = gate.subscribe(ALICE, "tasks", f"boards:{LAUNCH}", cursor=cursor)
    assert answer["stale"] == []
    assert answer["updates"] == []


@pytest.mark.parametrize(
    "column", ["missing", "at", "ctid"], ids=["not there", "another type", "system column"]
)
def test_a_membership_needs_a_column_that_could_name_a_user(
    tx: psycopg.Connection, column: str
) -> None:
    tx.execute("create table public.m (id uuid, at timestamptz)")
    with pytest.raises(psycopg.Error) as refused:
        tx.execute("select sync.membership('m', %s)", (column,))
    assert refused.value.sqlstate == "22023"


def test_a_membership_is_for_the_owner_of_the_table(tx: psycopg.Connection) -> None:
    tx.execute("create table public.m (id uuid); create role other; grant rowcast_owner to other")
    tx.execute("set local role other")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tx.execute("select sync.membership('public.m', 'id')")


# Which tables are watched


def triggers(conn: psycopg.Connection[Any], table: str) -> set[str]:
    rows = conn.execute(
        "select substring(tgname from '[a-z]+$') from pg_trigger "
        "where tgrelid = %s::regclass and tgname ~ '^zzz_rowcast_watch_'",
        (table,),
    ).fetchall()
    return {row[0] for row in rows}


ALL = {"insert", "update", "delete", "truncate", "replica"}


def test_only_tables_that_are_read_are_watched(watched: psycopg.Connection) -> None:
    # Those of the memberships of the example apps.
    examples = value(watched, "select count(*) from sync_internal.memberships")
    assert triggers(watched, "members") == ALL
    assert triggers(watched, "boards2") == set()
    watched.execute("select sync.membership('boards2', 'owner')")
    assert triggers(watched, "boards2") == set()
    watched.execute("alter policy p on docs using (owner = auth.uid())")
    watched.execute("select sync.refresh('docs')")
    assert triggers(watched, "members") == set()
    query = "select count(*) from pg_proc where proname ~ '^watch_[0-9]'"
    assert value(watched, query) == examples


def test_a_table_that_becomes_live_is_watched_no_more_and_again_after(
    watched: psycopg.Connection,
) -> None:
    watched.execute("""
        alter table members add column id uuid primary key default gen_random_uuid(),
            add column version integer not null default 1;
        alter table members enable row level security;
        create policy all_of_them on members for select using (true);
        select sync.enable('members')
    """)
    assert triggers(watched, "members") == set()
    assert reads(watched).cacheable
    watched.execute("select sync.disable('members')")
    assert triggers(watched, "members") == ALL
    assert reads(watched).cacheable
    watched.execute("select sync.disable('docs')")
    assert triggers(watched, "members") == set()


def test_triggers_that_are_as_they_should_be_are_left_alone(watched: psycopg.Connection) -> None:
    query = (
        "select array_agg((oid, xmin::text) order by oid)::text from pg_trigger where "
        "tgrelid = 'members'::regclass"
    )
    before = value(watched, query)
    watched.execute("select sync.refresh('docs')")
    assert value(watched, query) == before


def test_a_table_of_somebody_else_is_his_to_refresh(watched: psycopg.Connection) -> None:
    watched.execute("""
        create role keeper; grant rowcast_owner, keeper to postgres;
        create role writer; grant rowcast_owner to keeper, writer;
        alter table docs owner to writer; alter table boards2 owner to keeper;
        grant select, references on boards2 to writer; grant usage, create on schema public to
            writer, keeper;
        alter policy p on docs using (exists (select from boards2 b where b.id = board));
    """)
    watched.execute("set local role writer")
    watched.execute("select sync.refresh('docs')")
    assert triggers(watched, "boards2") == set()
    watched.execute("reset role")
    assert "carries no triggers of Rowcast" in reads(watched).reasons[0]
    watched.execute("set local role keeper")
    watched.execute("select sync.refresh()")
    watched.execute("reset role")
    assert triggers(watched, "boards2") == ALL
    assert reads(watched).cacheable


PARTS: dict[str, str] = {
    "partitions": """
        create table public.crew (board uuid, user_id uuid, note text) partition by list (board);
        create table public.crew_one partition of public.crew for values in ('{one}')
            partition by hash (user_id);
        create table public.crew_leaf partition of public.crew_one
            for values with (modulus 1, remainder 0);
        create table public.crew_rest (note text, user_id uuid, board uuid);
        alter table public.crew attach partition public.crew_rest default
    """,
    "inheritance": """
        create table public.crew (board uuid, user_id uuid, note text);
        create table public.crew_one () inherits (public.crew);
        create table public.crew_leaf (more text) inherits (public.crew_one);
        create table public.crew_rest () inherits (public.crew)
    """,
}


@pytest.mark.parametrize("kind", PARTS)
def test_every_part_of_a_table_tells(tx: psycopg.Connection, kind: str) -> None:
    tx.execute(SCHEMA.encode())
    tx.execute(PARTS[kind].format(one=ONE).encode())
    tx.execute("grant select on crew to authenticated")
    found = judge(tx, "exists (select from crew c where c.board = docs.board)")
    assert found.cacheable, found.reasons
    assert found.reads == {"crew": ["board"]}
    for part in ("crew", "crew_one", "crew_leaf", "crew_rest"):
        board = TWO if part == "crew_rest" else ONE
        told = [("public.crew", None)]
        assert heard(tx, f"insert into {part} (board, user_id) values ('{board}', '{BOB}')") == told
        assert heard(tx, f"update {part} set note = 'x'") == []
        assert heard(tx, f"delete from {part}") == told
        tx.execute("set local session_replication_role = replica")
        assert heard(tx, f"insert into {part} (board, user_id) values ('{board}', '{BOB}')") == told
        tx.execute("set local session_replication_role = origin")


def test_a_part_that_is_added_waits_for_a_refresh(tx: psycopg.Connection) -> None:
    tx.execute(SCHEMA.encode())
    tx.execute(PARTS["partitions"].format(one=ONE).encode())
    tx.execute("grant select on crew to authenticated")
    judge(tx, "exists (select from crew c where c.board = docs.board)")
    before = value(tx, "select sync_internal.fingerprint()")
    tx.execute(f"create table crew_two partition of crew for values in ('{TWO}')".encode())
    assert value(tx, "select sync_internal.fingerprint()") != before
    assert "carries no triggers" in reads(tx).reasons[0]
    tx.execute("select sync.refresh('docs')")
    assert reads(tx).cacheable


def test_migrate_makes_the_triggers_anew_and_remove_takes_them(db: Database) -> None:
    conn = db.connect()
    conn.execute(SCHEMA.encode())
    judge(conn, "board = any (array(select my_boards()))", FUNCTION)
    conn.execute("select sync.membership('members', 'user_id')")
    name = (
        "select tgname from pg_trigger where tgrelid = 'members'::regclass "
        "and tgname ~ '^zzz_rowcast_watch_[0-9]+_update$'"
    )
    conn.execute(f"drop trigger {value(conn, name)} on members".encode())
    assert not reads(conn).cacheable
    migrate.migrate(db.dsn())
    assert reads(conn).cacheable
    assert triggers(conn, "members") == ALL
    migrate.remove(db.dsn())
    assert triggers(conn, "members") == set()
