"""Making a table live, and what is refused with the fix; ending it again."""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, LAUNCH, TASK_1, Gate, create, live, new_id, set_, title, value

pytestmark = pytest.mark.both_versions

GOOD = """
    create table public.things (
        id uuid primary key default gen_random_uuid(), name text, removed timestamptz, touched
            timestamptz not null default now(),
        version integer not null default 1
    );
    alter table public.things enable row level security;
    create policy everybody on public.things using (true) with check (true);
    grant select, insert, update, delete on public.things to authenticated;
"""


def refused(conn: psycopg.Connection[Any], arguments: str = "") -> psycopg.Error:
    """The refusal to make `things` live."""
    with pytest.raises(psycopg.Error) as raised, conn.transaction():
        conn.execute(f"select sync.enable('public.things'{arguments})".encode())
    return raised.value


@pytest.mark.parametrize(
    ("change", "arguments", "message", "hint"),
    [
        ("alter table things disable row level security", "", "row level security", "enable row "
        "level security"),
        ("alter table things drop constraint things_pkey", "", "no usable id", "p_id"),
        ("alter table things drop constraint things_pkey, add primary key (id, name)", "",
        "no usable id", "p_id"),
        ("create table heirs () inherits (things)", "", "inherited from", "partitioned"),
        ("create table elders (name text); alter table things inherit elders", "", "inherits",
        "partitioned"),
        ("create table whole (like things) partition by hash (id); alter table whole attach "
        "partition things for values with (modulus 1, remainder 0)", "", "a partition",
        "partitioned"),
        ("select 1", ", p_id => 'name'", "no usable id", "p_id"),
        ("alter table things add x timestamptz unique not null", ", p_id => 'x'", "no usable id",
        "uuid, text or bigint"),
        ("alter table things drop version", "", "no version column", "add column version integer"),
        ("alter table things alter version drop not null", "", "no version column", "add column"),
        ("alter table things alter version type text", "", "no version column", "add column"),
        ("select 1", ", p_version => 'name'", "no version column", "add column"),
        ("create policy p on things for select using (removed is null)", ", p_soft_delete => "
        "'removed'",
         "reads removed", "could never be deleted"),
        ("create policy p on things as restrictive for all using (things is not null)",
        ", p_soft_delete => 'removed'",
         "reads removed", "could never be deleted"),
        ("select 1", ", p_soft_delete => 'name'", "soft delete", ""),
        ("select 1", ", p_soft_delete => 'nothing'", "nothing", ""),
        ("select 1", ", p_touch => 'name'", "touch", ""),
        ("select 1", ", p_server_owned => '{nothing}'", "nothing", ""),
        ("select 1", ", p_topics => '{nothing}'", "nothing", ""),
        ("select 1", ", p_exclude => '{id}'", "leave out", ""),
        ("select 1", ", p_exclude => '{version}'", "leave out", ""),
        ("alter table things add \"Name\" text", "", "Name", "p_names"),
        ("alter table things add a__b text", "", "a__b", "p_names"),
        ("alter table things add \"a b\" text", "", "a b", "p_names"),
        ("alter table things add boardid2_ text", "", "boardid2_", "p_names"),
        ("alter table things add constructor text", "", "constructor", "p_names"),
        ("alter table things add prototype text", "", "prototype", "p_names"),
        ("select 1", """, p_names => '{"name": "touched"}'""", "touched", "wire name"),
        ("select 1", """, p_names => '{"name": "id"}'""", "id", "wire name"),
        ("select 1", """, p_names => '{"name": "version"}'""", "version", "wire name"),
        ("select 1", """, p_names => '{"name": "a.b"}'""", "a.b", "wire name"),
        ("select 1", """, p_names => '{"name": ""}'""", "", "wire name"),
        ("select 1", """, p_names => '{"name": "__proto__"}'""", "__proto__", "wire name"),
        ("select 1", """, p_names => '{"name": 5}'""", "", "wire name"),
        ("select 1", """, p_names => '{"nothing": "x"}'""", "nothing", ""),
        ("select 1", ", p_name => 'tasks'", "tasks", "p_name"),
        ("select 1", ", p_name => 'Things'", "Things", "p_name"),
        ("select 1", ", p_name => 'a:b'", "a:b", "p_name"),
        ("select 1", ", p_name => ''", "", "p_name"),
        ("select 1", f", p_name => '{'a' * 41}'", "aaaa", "p_name"),
    ],
)  # fmt: skip
def test_unfit_table_is_refused_with_the_fix(
    tx: psycopg.Connection, change: str, arguments: str, message: str, hint: str
) -> None:
    tx.execute(GOOD.encode())
    tx.execute(change.encode())
    error = refused(tx, arguments)
    assert error.sqlstate == "22023", error
    assert message in (error.diag.message_primary or "")
    assert hint in (error.diag.message_hint or "")
    left = (
        "select count(*) from pg_trigger where tgrelid = 'things'::regclass and tgname like 'zzz%'"
    )
    assert value(tx, left) == 0
    assert value(tx, "select count(*) from sync_internal.tables where name = 'things'") == 0


@pytest.mark.parametrize(
    "make",
    [
        "create view public.things as select 1 as id, 1 as version",
        "create materialized view public.things as select 1 as id, 1 as version",
        "create unlogged table public.things (id uuid primary key, version integer not null "
        "default 1)",
        "create temp table things (id uuid primary key, version integer not null default 1)",
    ],
)
def test_what_is_no_ordinary_table_is_refused(tx: psycopg.Connection, make: str) -> None:
    tx.execute(make.encode())
    with pytest.raises(psycopg.Error) as raised:
        tx.execute("select sync.enable('things')")
    assert raised.value.sqlstate == "22023"


def test_two_tables_of_one_name_in_two_schemas_ask_for_a_name(
    conn: psycopg.Connection, gate: Gate
) -> None:
    conn.execute("create schema other")
    conn.execute(
        "create table other.tasks (id text primary key, version integer not null default 1)"
    )
    conn.execute("alter table other.tasks enable row level security")
    with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
        conn.execute("select sync.enable('other.tasks')")
    assert "p_name" in (raised.value.diag.message_hint or "")
    conn.execute("select sync.enable('other.tasks', p_name => 'otherTasks')")
    assert gate.query(ALICE, "tasks", limit=1)["ids"]


def test_only_the_owner_of_a_table_makes_it_live(conn: psycopg.Connection) -> None:
    conn.execute(GOOD.encode())
    with conn.transaction(force_rollback=True):
        conn.execute("create role stranger in role rowcast_owner")
        conn.execute("set local role stranger")
        for call in (
            "enable('public.things')",
            "disable('public.tasks')",
            "refresh('public.tasks')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"select sync.{call}".encode())


def test_owner_without_superuser_makes_a_table_live(db: Database, conn: psycopg.Connection) -> None:
    conn.execute("create role app_owner login in role rowcast_owner")
    try:
        conn.execute("grant create on schema public to app_owner")
        owner = db.connect("app_owner")
        owner.execute(GOOD.encode())
        owner.execute("select sync.enable('public.things', p_soft_delete => 'removed')")
        owner.execute("select sync.refresh('public.things')")
        gate = Gate(db)
        made = new_id()
        gate.applied(ALICE, create("things", made, name="x"))
        owner.execute("update public.things set name = 'y'")
        assert (
            gate.get_records(ALICE, ("things", made))["recordMap"]["things"][made]["version"] == 2
        )
        owner.execute("select sync.disable('public.things')")
        owner.execute("drop table public.things")
        owner.close()
    finally:
        conn.execute("drop owned by app_owner cascade; drop role app_owner")


def snapshot(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """All there is of the table things and in our schemas, as the catalogue says."""
    queries = (
        "select attname, atttypid::int, attnotnull, attacl::text from pg_attribute where attrelid "
        "= 'things'::regclass and attnum > 0",
        "select tgname from pg_trigger where tgrelid = 'things'::regclass order by 1",
        "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = "
        "'things'::regclass order by 1",
        "select relacl::text, relrowsecurity, relforcerowsecurity from pg_class where oid = "
        "'things'::regclass",
        "select polname from pg_policy where polrelid = 'things'::regclass",
        "select id, name, version from things order by id",
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = "
        "'sync_internal'::regnamespace order by 1",
        "select name from sync_internal.tables order by 1",
        "select count(*) from sync_internal.columns",
        "select count(*) from sync_internal.uniques",
    )
    return tuple(conn.execute(query.encode()).fetchall() for query in queries)


@pytest.mark.parametrize("name", ["", ", p_name => 'otherName'"])
def test_disable_leaves_everything_as_it_was(
    conn: psycopg.Connection, gate: Gate, name: str
) -> None:
    conn.execute(GOOD.encode())
    conn.execute("insert into things (name) values ('a'), ('b')")
    before = snapshot(conn)
    conn.execute("select sync.enable('things')")
    if name:
        conn.execute(f"select sync.enable('things'{name})".encode())
    conn.execute("select sync.disable('things')")
    assert snapshot(conn) == before
    conn.execute("update things set version = 7 where name = 'a'")
    assert value(conn, "select version from things where name = 'a'") == 7
    cursor = gate.cursor()
    conn.execute("delete from things")
    assert gate.changes(cursor)["changes"] == []
    assert gate.write(ALICE, set_("things", new_id(), "name", "x")).code == "unknown_table"
    assert gate.refusal("query", ALICE, {"table": "things"})["code"] == "unknown_table"
    assert gate.applied(ALICE, title(TASK_1, "others go on")).status == 200
    conn.execute("select sync.disable('things')")
    conn.execute("select sync.enable('things')")


def test_disable_of_a_parent_leaves_its_children_live(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.disable('boards')")
    gate.applied(ALICE, create("tasks", new_id(), boardId=LAUNCH, title="t"))
    assert (
        gate.refusal("query", ALICE, {"table": "tasks", "include": ["boards"]})["code"]
        == "unknown_relation"
    )


def test_enable_again_replaces_the_former_arguments(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "things", "id text primary key, name text, place text", ", p_topics => '{place}'")
    conn.execute("insert into things values ('a', 'n', 'p')")
    conn.execute(
        "select sync.enable('things', p_name => 'stuff', p_names => '{\"name\": \"label\"}', "
        "p_hard_delete => true)"
    )
    record = gate.query(ALICE, "stuff")["recordMap"]["stuff"]["a"]
    assert set(record) == {"id", "version", "label", "place"}
    assert gate.refusal("query", ALICE, {"table": "things"})["code"] == "unknown_table"
    cursor = gate.cursor()
    gate.applied(ALICE, set_("stuff", "a", "label", "m"))
    (change,) = gate.changes(cursor)["changes"]
    assert (change["table"], change["patch"], change["topics"]) == ("stuff", {"label": "m"}, [])
    gate.applied(ALICE, {"type": "delete", "table": "stuff", "id": "a"})
    assert value(conn, "select count(*) from things") == 0
    generated = (
        "select count(*) from pg_proc where pronamespace = 'sync_internal'::regnamespace "
        "and proname like '%things%'"
    )
    assert value(conn, generated) == 0


def test_names_are_mapped_both_ways(gate: Gate, conn: psycopg.Connection) -> None:
    live(
        conn, "odd_names",
        'id text primary key, two_words text, "Some Name" text, "order" integer, a1_b2 text, j '
        'jsonb',
        """, p_names => '{"Some Name": "someName"}'""",
    )  # fmt: skip
    gate.applied(
        ALICE,
        create(
            "oddNames",
            "a",
            twoWords="x",
            someName="y",
            order=1,
            a1B2="z",
            j={"snake_case": {"Any Key": 1}},
        ),
    )
    record = gate.query(ALICE, "oddNames", where={"someName": "y"}, orderBy=[{"key": "order"}])[
        "recordMap"
    ]["oddNames"]["a"]
    assert record == {
        "id": "a", "version": 1, "twoWords": "x", "someName": "y", "order": 1, "a1B2": "z",
        "j": {"snake_case": {"Any Key": 1}},
    }  # fmt: skip


WORDS = ["by", "if", "loop", "while", "foreach", "execute", "begin", "declare", "strict", "elsif",
"exit", "return", "raise", "select", "user", "table", "new", "old", "r", "t", "c1", "found",
"v_op"]  # fmt: skip


def test_columns_may_be_named_by_any_word(gate: Gate, conn: psycopg.Connection) -> None:
    columns = ", ".join(f'"{word}" integer' for word in WORDS)
    names = ", ".join(f'"{word}": "word{n}"' for n, word in enumerate(WORDS))
    live(
        conn,
        "words",
        f"id text primary key, {columns}",
        f", p_names => '{{{names}}}', p_topics => '{{by,user}}'",
    )
    cursor = gate.cursor()
    gate.applied(ALICE, create("words", "a", **{f"word{n}": n for n in range(len(WORDS))}))
    increments = [
        {"type": "increment", "table": "words", "id": "a", "key": f"word{n}", "by": 1}
        for n in range(len(WORDS))
    ]
    gate.applied(ALICE, *increments)
    where = {f"word{n}": n + 1 for n in range(len(WORDS))}
    order = [{"key": "word0"}, {"key": "word13"}]
    assert gate.query(ALICE, "words", where=where, orderBy=order)["ids"] == ["a"]
    assert len(gate.changes(cursor)["changes"][1]["patch"]) == len(WORDS)


def test_every_type_goes_all_the_way(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("create domain public.short as text check (length(value) < 5)")
    conn.execute("create type public.hue as enum ('red', 'green')")
    columns = {
        "a_text": ("text", "ä\"\\\n😀"), "b_varchar": ("varchar(5)", "abc"),
        "c_bool": ("boolean", True),
        "d_int": ("integer", -5), "e_small": ("smallint", 7), "f_big": ("bigint", str(2**63 - 1)),
        "g_num": ("numeric", "12345678901234567890.1234567890"), "h_real": ("real", 0.1),
        "i_double": ("double precision", 1e-300), "j_date": ("date", "2024-02-29"),
        "k_stamp": ("timestamptz", "2024-02-29T12:34:56.123456Z"),
        "l_local": ("timestamp", "2024-02-29T12:34:56.123456"),
        "m_uuid": ("uuid", TASK_1), "n_bytes": ("bytea", "AAECAw=="),
        "o_json": ("jsonb", {"a": [1, None, "x"]}),
        "p_list": ("text[]", ["a", None, 'b"c']), "q_ints": ("integer[]", [1, 2]),
        "r_bigs": ("bigint[]", [str(2**60)]),
        "s_short": ("public.short", "abcd"), "t_hue": ("public.hue", "green"),
        "u_hues": ("public.hue[]", ["red", "green"]),
    }  # fmt: skip
    live(
        conn,
        "kinds",
        "id text primary key, "
        + ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items()),
    )
    wire = {
        name[0] + name[1:].replace("_", "").replace(name[2], name[2].upper(), 1): sent
        for name, (_, sent) in columns.items()
    }
    cursor = gate.cursor()
    answer = gate.applied(ALICE, create("kinds", "a", **wire))
    expected = {"id": "a", "version": 1, **wire}
    assert answer.body["recordMap"]["kinds"]["a"] == expected
    assert gate.get_records(ALICE, ("kinds", "a"))["recordMap"]["kinds"]["a"] == expected
    assert gate.query(ALICE, "kinds")["recordMap"]["kinds"]["a"] == expected
    assert gate.changes(cursor)["changes"][0]["patch"] == expected
    cursor = gate.cursor()
    conn.execute("update kinds set " + ", ".join(f"{name} = null" for name in columns))
    gate.applied(ALICE, *[set_("kinds", "a", key, sent) for key, sent in wire.items()])
    assert gate.changes(cursor)["changes"][1]["patch"] == wire


def test_force_binds_the_owner_too(conn: psycopg.Connection) -> None:
    conn.execute(GOOD.encode())
    conn.execute("select sync.enable('things', p_force => true)")
    query = "select relforcerowsecurity from pg_class where oid = 'things'::regclass"
    assert value(conn, query) is True


def test_dropped_live_table_does_not_stop_the_others(conn: psycopg.Connection, gate: Gate) -> None:
    live(conn, "things", "id text primary key")
    gate.applied(ALICE, create("things", "a"))
    conn.execute("drop table things")
    assert "things" not in value(conn, "select sync.describe()")["tables"]
    answer = gate.write(ALICE, create("things", "b"))
    assert (answer.status, answer.code) == (503, "schema_changed")
    assert gate.refusal("query", ALICE, {"table": "things"})["code"] == "schema_changed"
    joined = gate.subscribe(ALICE, "things", "things:a", f"tasks:{TASK_1}")
    assert {error["code"] for error in joined["errors"]} == {"unknown_table"}
    gate.applied(ALICE, title(TASK_1, "x"))
    query = "select code, fix from sync.doctor() where object ~ 'things' or code ~ 'dropped'"
    assert conn.execute(query).fetchall() == [("table_dropped", "select sync.refresh();")]
    conn.execute("select sync.refresh()")
    assert conn.execute(query).fetchall() == []
    assert gate.write(ALICE, create("things", "b")).code == "unknown_table"
    live(conn, "things", "id text primary key, again text")
    gate.applied(ALICE, create("things", "a", again="x"))
    conn.execute("drop table things")
    conn.execute("select sync_internal.after_migrate('x')")
    assert "things" not in value(conn, "select sync.describe()")["tables"]


def test_dropped_exposed_function_does_not_stop_the_others(
    conn: psycopg.Connection, gate: Gate
) -> None:
    conn.execute("drop function public.complete_board(uuid)")
    conn.execute("select sync.refresh()")
    conn.execute("select sync_internal.after_migrate('x')")
    assert "completeBoard" not in value(conn, "select sync.describe()")["functions"]
    answer = gate.write(ALICE, {"type": "call", "fn": "completeBoard", "args": {"boardId": LAUNCH}})
    assert (answer.status, answer.code) == (400, "unknown_function")
    gate.applied(ALICE, title(TASK_1, "x"))
