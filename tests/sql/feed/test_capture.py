"""Whoever writes with whatever SQL: every change is in the feed, and nothing else is."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.postgres import Database, Server
from tests.sql.engine import (
    ALICE,
    BOB,
    DEMO,
    IDEAS,
    LAUNCH,
    TASK_1,
    TASK_2,
    Gate,
    live,
    title,
    value,
)

pytestmark = pytest.mark.both_versions

Told = Callable[[], list[Any]]


@pytest.fixture(scope="module")
def stage(pg: Server) -> Iterator[Database]:
    """One database for the tests of this module."""
    with pg.database() as database:
        conn = database.connect()
        conn.execute("create table public.seeded as table sync_internal.tables")
        conn.execute("create table public.seeded_tasks as table public.tasks")
        yield database


@pytest.fixture
def db(stage: Database) -> Iterator[Database]:
    """The database, in the end without what the test has made live in it."""
    yield stage
    stage.close()
    with psycopg.connect(stage.dsn(), autocommit=True) as conn:
        for (relation,) in conn.execute(
            "select relation::text from sync_internal.tables where name not in (select name from "
            "seeded)"
        ).fetchall():
            conn.execute(f"select sync.disable('{relation}')".encode())
            conn.execute(f"drop table {relation} cascade".encode())
        conn.execute("drop schema if exists evil cascade; drop function if exists public.double")
        conn.execute(
            "update tasks t set title = s.title, board_id = s.board_id from seeded_tasks s where "
            "s.id = t.id"
        )
        conn.execute("select sync.configure('max_changes_per_statement', 100000)")


@pytest.fixture
def told(gate: Gate) -> Told:
    """What the feed tells since it was last asked."""
    cursor = gate.cursor()

    def ask() -> list[Any]:
        nonlocal cursor
        answer = gate.changes(cursor)
        cursor = answer["cursor"]
        assert answer["behind"] == []
        changes: list[Any] = answer["changes"]
        return changes

    return ask


@pytest.fixture
def items(conn: psycopg.Connection) -> psycopg.Connection:
    """A small live table, with three rows."""
    live(conn, "items", "id text primary key, n integer, note text")
    conn.execute("insert into items (id, n) values ('a', 1), ('b', 2), ('c', 3)")
    return conn


def brief(changes: list[Any]) -> list[tuple[str, str, int]]:
    return [(change["kind"], change["id"], change["version"]) for change in changes]


def test_plain_update(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute("update items set n = 10, version = 99 where id = 'a'")
    (change,) = told()
    assert brief([change]) == [("update", "a", 2)]
    assert change["patch"] == {"n": 10}
    assert (change["table"], change["txId"], change["moved"]) == ("items", None, False)


def test_plain_insert_carries_the_record(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute("insert into items (id, note) values ('d', 'new')")
    (change,) = told()
    assert brief([change]) == [("insert", "d", 1)]
    assert change["patch"] == {"id": "d", "version": 1, "n": None, "note": "new"}


def test_plain_delete_tells_no_content(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute("delete from items where id in ('a', 'b')")
    changes = told()
    assert sorted(brief(changes)) == [("delete", "a", 1), ("delete", "b", 1)]
    assert [change["patch"] for change in changes] == [None, None]


def test_copy(items: psycopg.Connection, told: Told) -> None:
    told()
    with items.cursor().copy("copy items (id, n) from stdin") as copy:
        for n in range(5):
            copy.write_row((f"copied {n}", n))
    assert brief(told()) == [("insert", f"copied {n}", 1) for n in range(5)]


def test_insert_on_conflict(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute(
        "insert into items (id, n) values ('a', 7), ('new', 8), ('b', 2) "
        "on conflict (id) do update set n = excluded.n"
    )
    assert sorted(brief(told())) == [("insert", "new", 1), ("update", "a", 2)]
    items.execute("insert into items (id) values ('a') on conflict do nothing")
    assert told() == []


def test_merge(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute(
        """
        merge into items t using (values ('a', 5), ('b', null), ('z', 6)) v (id, n) on t.id = v.id
        when matched and v.n is null then delete
        when matched then update set n = v.n
        when not matched then insert (id, n) values (v.id, v.n)
        """
    )
    assert sorted(brief(told())) == [("delete", "b", 1), ("insert", "z", 1), ("update", "a", 2)]


def test_foreign_key_cascades(pg: Server) -> None:
    with pg.database() as own:
        gate = Gate(own)
        cursor = gate.cursor()
        own.connect().execute("delete from workspaces where id = %s", (DEMO,))
        changes = gate.changes(cursor)["changes"]
    count: dict[str, int] = {}
    for change in changes:
        assert change["kind"] in ("delete", "access")
        count[change["table"]] = count.get(change["table"], 0) + 1
    # The membership is told by itself, too: whose rights it changes.
    assert count.pop("public.workspace_members") == 1
    assert count == {
        "workspaces": 1,
        "workspaceMembers": 2,
        "boards": 2,
        "tasks": 12,
        "comments": 4,
    }


def test_cascading_update_and_set_null(conn: psycopg.Connection, told: Told) -> None:
    live(conn, "tops", "id text primary key")
    live(
        conn, "subs",
        "id text primary key, top text references tops on update cascade on delete set null",
    )  # fmt: skip
    conn.execute("insert into tops values ('t')")
    conn.execute("insert into subs values ('s', 't')")
    told()
    conn.execute("update tops set id = 'u'")
    changes = told()
    assert sorted((c["table"], c["kind"], c["id"]) for c in changes) == [
        ("subs", "update", "s"), ("tops", "delete", "t"), ("tops", "insert", "u"),
    ]  # fmt: skip
    conn.execute("delete from tops")
    assert sorted((c["table"], c["kind"], c["id"]) for c in told()) == [
        ("subs", "update", "s"), ("tops", "delete", "u"),
    ]  # fmt: skip
    assert value(conn, "select version from subs") == 3


def test_truncate(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute("truncate items")
    (change,) = told()
    assert (change["kind"], change["table"], change["id"]) == ("truncate", "items", None)


def test_changed_id_is_a_delete_and_an_insert(items: psycopg.Connection, told: Told) -> None:
    told()
    items.execute("update items set id = 'x', n = 9 where id = 'a'")
    deleted, inserted = sorted(told(), key=lambda change: str(change["kind"]))
    assert (deleted["kind"], deleted["id"]) == ("delete", "a")
    assert (inserted["kind"], inserted["id"]) == ("insert", "x")
    assert inserted["patch"]["n"] == 9


@pytest.mark.parametrize(
    "versions",
    [(1, 1, 1), (1, 5, 9), (9, 5, 1), (3, 2, 7), (2, 3, 4), (7, 7, 8)],
    ids=str,
)
@pytest.mark.parametrize("cycle", ["abc", "bac", "bca"], ids=str)
@pytest.mark.parametrize("others", [0, 5])
def test_ids_swapped_in_one_statement(
    conn: psycopg.Connection,
    told: Told,
    versions: tuple[int, int, int],
    cycle: str,
    others: int,
) -> None:
    """Whoever follows the feed holds what the table holds: versions rise by one, or start anew.
    Few rows are told in another way than many.
    """
    live(conn, "swaps", "id text primary key deferrable, n integer")
    held: dict[str, dict[str, Any]] = {}
    for id_, n, version in zip("abc", (10, 20, 30), versions, strict=True):
        conn.execute("insert into swaps values (%s, %s, %s)", (id_, n, version))
        held[id_] = {"id": id_, "n": n, "version": version}
    for number in range(others):
        conn.execute("insert into swaps values (%s, 0, 1)", (f"other{number}",))
        held[f"other{number}"] = {"id": f"other{number}", "n": 0, "version": 1}
    told()
    target = dict(zip("abc", cycle, strict=True))
    conn.execute(
        "update swaps set n = case when id in ('a', 'b', 'c') then n else n + 1 end,"
        " id = case id when 'a' then %s when 'b' then %s when 'c' then %s else id end",
        [target[id_] for id_ in "abc"],
    )
    for change in told():
        if change["kind"] == "delete":
            del held[change["id"]]
        elif change["kind"] == "insert":
            assert change["id"] not in held
            held[change["id"]] = change["patch"]
        else:
            assert change["version"] == held[change["id"]]["version"] + 1
            held[change["id"]] |= change["patch"] | {"version": change["version"]}
    rows = conn.execute("select id, n, version from swaps").fetchall()
    assert held == {id_: {"id": id_, "n": n, "version": v} for id_, n, v in rows}


@pytest.mark.parametrize("others", ["", "defg"])
def test_ids_changed_beside_ordinary_updates(
    items: psycopg.Connection, told: Told, others: str
) -> None:
    for other in others:
        items.execute("insert into items (id, n) values (%s, 0)", (other,))
    told()
    items.execute("update items set id = case id when 'a' then 'x' else id end, n = n + 1")
    kinds = sorted((change["kind"], change["id"]) for change in told())
    updates = [("update", id_) for id_ in "bc" + others]
    assert kinds == [("delete", "a"), ("insert", "x"), *updates]


@pytest.mark.parametrize(
    "update",
    [
        "update items set n = n",
        "update items set version = 50",
        "update items set n = n, note = note, version = version + 1 where id = 'a'",
        "update items set n = 1 where id = 'nobody'",
        "delete from items where false",
        "insert into items (id) select 'x' where false",
    ],
)
def test_what_changes_nothing_is_not_told(
    items: psycopg.Connection, told: Told, update: str
) -> None:
    told()
    versions = "select array_agg(version order by id) from items"
    before = value(items, versions)
    items.execute(update.encode())
    assert told() == []
    assert value(items, versions) == before


def test_rolled_back_change_is_not_told(items: psycopg.Connection, told: Told) -> None:
    told()
    with items.transaction(force_rollback=True):
        items.execute("update items set n = 0")
    with items.transaction():
        with items.transaction(force_rollback=True):
            items.execute("update items set n = 0 where id = 'a'")
        items.execute("update items set n = 0 where id = 'b'")
    assert brief(told()) == [("update", "b", 2)]


def test_versions_grow_with_each_statement(items: psycopg.Connection, told: Told) -> None:
    told()
    with items.transaction():
        items.execute("update items set n = 5 where id = 'a'")
        items.execute("update items set n = 6 where id = 'a'")
    assert brief(told()) == [("update", "a", 2), ("update", "a", 3)]


def test_values_that_only_look_equal_are_changes(conn: psycopg.Connection, told: Told) -> None:
    live(conn, "looks", "id text primary key, n numeric, list text[], j jsonb, f double precision")
    conn.execute("insert into looks values ('a', 1.0, '{x}', '{\"a\": 1}', 0)")
    told()
    conn.execute("update looks set n = 1.00")
    (change,) = told()
    assert change["patch"] == {"n": "1.00"}
    conn.execute("update looks set f = '-0'")
    (change,) = told()
    assert change["version"] == 3


# Touch


def test_touch_column_follows_a_change_and_makes_none(conn: psycopg.Connection, told: Told) -> None:
    before = value(conn, "select updated_at from tasks where id = %s", TASK_1)
    conn.execute("update tasks set updated_at = now() + interval '1 day' where id = %s", (TASK_1,))
    assert told() == []
    assert value(conn, "select updated_at from tasks where id = %s", TASK_1) == before
    conn.execute("update tasks set title = 'x', updated_at = '2000-01-01' where id = %s", (TASK_1,))
    (change,) = told()
    assert set(change["patch"]) == {"title", "updatedAt"}
    assert value(conn, "select updated_at > %s from tasks where id = %s", before, TASK_1)


def test_touch_named_by_an_operation_is_a_change(gate: Gate, told: Told) -> None:
    now = {"type": "set-now", "table": "tasks", "id": TASK_1, "key": "updatedAt"}
    answer = gate.applied(ALICE, now)
    (change,) = told()
    assert set(change["patch"]) == {"updatedAt"}
    assert change["version"] == answer.body["versions"][0]["version"]


def test_write_that_changes_nothing_is_applied_and_not_told(gate: Gate, told: Told) -> None:
    gate.applied(ALICE, title(TASK_1, "same"))
    told()
    answer = gate.applied(ALICE, title(TASK_1, "same"))
    assert answer.body["status"] == "applied"
    assert told() == []


# Topics and classes


def test_moved_record_is_told_to_both_collections(conn: psycopg.Connection, told: Told) -> None:
    conn.execute("update tasks set board_id = %s where id = %s", (IDEAS, TASK_1))
    (change,) = told()
    assert {f"boardId={LAUNCH}", f"boardId={IDEAS}"} <= set(change["topics"])
    assert change["moved"] is True
    conn.execute("update tasks set title = 'stays' where id = %s", (TASK_1,))
    (change,) = told()
    assert f"boardId={LAUNCH}" not in change["topics"]
    assert change["moved"] is False


def test_class_of_a_change_is_that_of_the_visible_row(
    conn: psycopg.Connection, gate: Gate, told: Told
) -> None:
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    (change,) = told()
    assert gate.visible(ALICE, {"tasks": [TASK_1]})["tasks"][TASK_1]["class"] == change["class"]
    conn.execute("update tasks set board_id = %s where id = %s", (IDEAS, TASK_1))
    assert gate.visible(ALICE, {"tasks": [TASK_1]})["tasks"][TASK_1]["class"] != change["class"]


def test_topic_values_are_percent_encoded(conn: psycopg.Connection, told: Told) -> None:
    live(conn, "places", "id text primary key, town text", ", p_topics => '{town}'")
    conn.execute("insert into places values ('a', 'Köln & Bonn/=')")
    (change,) = told()
    assert change["topics"] == ["town=K%C3%B6ln%20%26%20Bonn%2F%3D"]


def test_excluded_column_is_in_no_change(conn: psycopg.Connection, gate: Gate, told: Told) -> None:
    live(conn, "safes", "id text primary key, open text, secret text", ", p_exclude => '{secret}'")
    conn.execute("insert into safes values ('a', 'o', 's3cret')")
    conn.execute("update safes set open = 'p', secret = 's3cret too'")
    conn.execute("update safes set secret = 's3cret three'")
    conn.execute("delete from safes")
    assert [change["patch"] for change in told()] == [
        {"id": "a", "version": 1, "open": "o"}, {"open": "p"}, {}, None,
    ]  # fmt: skip
    assert (
        value(
            conn, "select count(*) from sync_internal.changes c where strpos(c::text, 's3cret') > 0"
        )
        == 0
    )
    assert "secret" not in str(gate.query(ALICE, "safes"))


# Bulk


def test_more_rows_than_the_limit_are_told_as_bulk(items: psycopg.Connection, told: Told) -> None:
    items.execute("select sync.configure('max_changes_per_statement', 10)")
    items.execute("select sync.refresh('items')")
    told()
    items.execute("insert into items (id, n) select 'n' || g, g from generate_series(1, 7) g")
    assert len(told()) == 7
    items.execute("update items set n = n + 1")
    assert len(told()) == 10
    items.execute("insert into items (id) values ('eleventh')")
    told()
    for statement in (
        "update items set n = 0",
        "insert into items (id) select id || id from items",
        "delete from items",
    ):
        items.execute(statement.encode())
        (change,) = told()
        assert (change["kind"], change["table"], change["id"]) == ("bulk", "items", None)


def test_limit_of_a_statement_counts_at_once(items: psycopg.Connection, told: Told) -> None:
    items.execute("select sync.configure('max_changes_per_statement', 2)")
    told()
    items.execute("update items set n = n + 1")
    assert [change["kind"] for change in told()] == ["bulk"]


def test_bulk_makes_the_keys_of_the_table_stale(items: psycopg.Connection, gate: Gate) -> None:
    items.execute("select sync.configure('max_changes_per_statement', 2)")
    items.execute("select sync.refresh('items')")
    cursor = gate.cursor()
    items.execute("update items set n = n + 1")
    joined = gate.subscribe(ALICE, "items", "items:a", "tasks", cursor=cursor)
    assert set(joined["stale"]) == {"items", "items:a"}


# Partitions


PARTS = """
    create table public.parts (id text, n integer, version integer not null default 1, primary key
        (id))
        partition by range (id);
    create table public.parts_low partition of public.parts for values from ('a') to ('m');
    create table public.parts_high partition of public.parts for values from ('m') to ('z');
    alter table public.parts enable row level security;
    create policy everybody on public.parts using (true) with check (true);
    grant select, insert, update, delete on public.parts to authenticated;
    select sync.enable('public.parts');
    insert into public.parts values ('a', 1), ('n', 2);
"""


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("insert into parts values ('b', 3), ('o', 4)", [("insert", "b", 1), ("insert", "o", 1)]),
        ("insert into parts_low values ('b', 3)", [("insert", "b", 1)]),
        ("update parts set n = 9", [("update", "a", 2), ("update", "n", 2)]),
        ("update parts_high set n = 9", [("update", "n", 2)]),
        ("delete from parts", [("delete", "a", 1), ("delete", "n", 1)]),
        ("delete from parts_low", [("delete", "a", 1)]),
        ("update parts set id = 'b' where id = 'a'", [("delete", "a"), ("insert", "b")]),
        ("update parts set id = 'o' where id = 'a'", [("delete", "a"), ("insert", "o")]),
        ("update parts set n = 8, id = case id when 'a' then 'o' else id end",
         [("delete", "a"), ("insert", "o"), ("update", "n")]),
        ("truncate parts_low", [("truncate", None)]),
    ],
)  # fmt: skip
def test_partitions_are_captured_through_parent_and_leaf(
    conn: psycopg.Connection, told: Told, statement: str, expected: list[Any]
) -> None:
    conn.execute(PARTS.encode())
    told()
    conn.execute(statement.encode())
    found = sorted(told(), key=lambda change: (change["kind"], str(change["id"])))
    assert {change["table"] for change in found} == {"parts"}
    length = len(expected[0])
    assert [
        (change["kind"], change["id"], change["version"])[:length] for change in found
    ] == expected


def test_truncate_of_a_partitioned_table(conn: psycopg.Connection, told: Told) -> None:
    conn.execute(PARTS.encode())
    told()
    conn.execute("truncate parts")
    assert {change["kind"] for change in told()} == {"truncate"}


def test_new_leaf_is_captured_after_refresh_and_doctor_says_so_before(
    conn: psycopg.Connection, told: Told
) -> None:
    conn.execute(PARTS.encode())
    conn.execute("create table parts_top partition of parts for values from ('z') to ('zz')")
    found = conn.execute(
        "select code, object from sync.doctor() where severity = 'error'"
    ).fetchall()
    assert any("parts_top" in object_ for _, object_ in found), found
    conn.execute("select sync.refresh('parts')")
    told()
    conn.execute("insert into parts_top values ('za', 1)")
    assert brief(told()) == [("insert", "za", 1)]


def test_partitions_of_partitions_are_captured_at_every_level(
    conn: psycopg.Connection, told: Told
) -> None:
    conn.execute(
        """
        create table public.parts (
            id text primary key, n integer, version integer not null default 1
        ) partition by range (id);
        create table public.parts_low partition of public.parts for values from ('a') to ('m')
            partition by range (id);
        create table public.parts_lowest partition of public.parts_low
            for values from ('a') to ('f');
        alter table public.parts enable row level security;
        select sync.enable('public.parts');
        insert into public.parts values ('a', 1);
        """
    )
    told()
    for version, table in enumerate(("parts", "parts_low", "parts_lowest"), 2):
        conn.execute(f"update {table} set n = n + 1".encode())
        assert brief(told()) == [("update", "a", version)], table
    conn.execute("insert into parts_low values ('b', 1)")
    assert brief(told()) == [("insert", "b", 1)]
    assert doctor(conn, "public.parts%") == []
    conn.execute("create table parts_more partition of parts_low for values from ('f') to ('m')")
    conn.execute("alter table parts_low disable trigger zzz_rowcast_delete")
    assert doctor(conn, "public.parts%") == ["public.parts_low", "public.parts_more"]
    conn.execute("select sync.refresh('parts')")
    assert doctor(conn, "public.parts%") == []


def doctor(conn: psycopg.Connection, tables: str) -> list[str]:
    """The tables like these whose triggers are not as they should be."""
    found = conn.execute(
        "select object from sync.doctor() where code in ('trigger_missing', "
        "'leaf_without_triggers') and object like %s order by 1",
        (tables,),
    ).fetchall()
    return [object_ for (object_,) in found]


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_partition_with_its_columns_in_another_order(
    conn: psycopg.Connection, told: Told, rows: int
) -> None:
    conn.execute(
        """
        create table public.parts (
            id text primary key, gone integer, secret text, open text,
            version integer not null default 1
        ) partition by hash (id);
        alter table public.parts drop column gone;
        create table public.parts_all (
            version integer not null default 1, open text, secret text, id text primary key
        );
        alter table public.parts attach partition public.parts_all
            for values with (modulus 1, remainder 0);
        alter table public.parts enable row level security;
        select sync.enable('public.parts', p_exclude => '{secret}');
        """
    )
    conn.execute(
        "insert into parts_all select 1, 'o', 's', g::text from generate_series(1, %s) g", (rows,)
    )
    told()
    conn.execute("update parts_all set open = 'p', secret = 't'")
    assert [change["patch"] for change in told()] == [{"open": "p"}] * rows
    conn.execute("update parts_all set secret = 'u'")
    assert [change["patch"] for change in told()] == [{}] * rows


def test_former_partition_is_told_no_more_and_holds_nothing_up(
    conn: psycopg.Connection, told: Told
) -> None:
    triggers = (
        "select count(*) from pg_trigger where tgrelid = 'former'::regclass and tgname ~ 'rowcast'"
    )
    conn.execute(PARTS.encode())
    conn.execute("alter table parts detach partition parts_low")
    conn.execute("alter table parts_low rename to former")
    told()
    for statement in (
        "update former set n = 9",
        "insert into former values ('b')",
        "truncate former",
    ):
        conn.execute(statement.encode())
        assert told() == [], statement
    conn.execute("select sync.refresh('parts')")
    assert value(conn, triggers) == 0
    conn.execute("alter table parts detach partition parts_high")
    conn.execute("drop table former; alter table parts_high rename to former")
    conn.execute("select sync.disable('parts')")
    assert value(conn, triggers) == 0
    conn.execute("drop table former, parts")


def test_former_partition_of_a_dropped_table_is_cleared_away(conn: psycopg.Connection) -> None:
    conn.execute(PARTS.encode())
    conn.execute("alter table parts detach partition parts_low")
    conn.execute("drop table parts")
    conn.execute("select sync.refresh()")
    conn.execute("update parts_low set n = 9")
    conn.execute("drop table parts_low")


# Replication


@pytest.mark.parametrize("partitioned", [False, True])
def test_replicated_rows_are_told_with_the_version_they_came_with(
    conn: psycopg.Connection, told: Told, partitioned: bool
) -> None:
    if partitioned:
        conn.execute(PARTS.encode())
    else:
        live(conn, "parts", "id text primary key, n integer")
        conn.execute("insert into parts values ('a', 1), ('n', 2)")
    told()
    conn.execute("set session_replication_role = replica")
    conn.execute("insert into parts values ('b', 3, 7)")
    conn.execute("update parts set n = 4, version = 12 where id = 'a'")
    conn.execute("update parts set n = n")
    conn.execute("update parts set id = 'o' where id = 'b'")
    conn.execute("delete from parts where id = 'n'")
    conn.execute("reset session_replication_role")
    changes = told()
    assert brief(changes)[:2] == [("insert", "b", 7), ("update", "a", 12)]
    assert {(kind, id_) for kind, id_, _ in brief(changes)[2:]} == {
        ("delete", "b"), ("insert", "o"), ("delete", "n"),
    }  # fmt: skip
    assert len(changes) == 5


def test_replicated_row_whose_version_has_not_risen_is_told_anew(
    items: psycopg.Connection, told: Told
) -> None:
    """It comes from where Rowcast is not. Who holds that version would overlook a patch."""
    told()
    items.execute("set session_replication_role = replica")
    items.execute("update items set n = 7 where id = 'a'")
    items.execute("update items set n = 8, version = 0 where id = 'a'")
    items.execute("reset session_replication_role")
    changes = told()
    assert brief(changes) == [
        ("delete", "a", 1), ("insert", "a", 1), ("delete", "a", 1), ("insert", "a", 0),
    ]  # fmt: skip
    assert changes[-1]["patch"]["n"] == 8


# Who may write the feed, and how it is written


def test_capture_cannot_be_switched_off_by_a_setting(
    db: Database, conn: psycopg.Connection, told: Told
) -> None:
    client = db.connect(autocommit=False)
    client.execute("select sync.act_as(%s)", (BOB,))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), client.transaction():
        client.execute("set local session_replication_role = replica")
    client.execute("update public.tasks set title = 'seen' where id = %s", (TASK_1,))
    client.commit()
    assert brief(told())[0][:2] == ("update", TASK_1)


@pytest.mark.parametrize("search_path", ["''", "pg_temp", "evil, pg_catalog", "evil"])
def test_writer_with_any_search_path_is_captured(
    db: Database, conn: psycopg.Connection, told: Told, search_path: str
) -> None:
    conn.execute(
        """
        create schema evil;
        create function evil.ne(record, record) returns boolean language plpgsql immutable
        as 'begin return false; end';
        create operator evil.*<> (leftarg = record, rightarg = record, function = evil.ne);
        create function evil.now() returns timestamptz language sql as $$ select
            '1999-01-01'::timestamptz $$;
        """
    )
    writer = db.connect()
    writer.execute(f"set search_path = {search_path}".encode())
    writer.execute("update public.tasks set title = 'seen' where id = %s", (TASK_2,))
    (change,) = told()
    assert change["patch"]["title"] == "seen"
    assert change["patch"]["updatedAt"] > "2020"


def test_writer_without_any_right_on_rowcast_is_captured(
    db: Database, conn: psycopg.Connection, told: Told
) -> None:
    conn.execute(
        "create role batch_job login bypassrls; grant select, update on tasks to batch_job"
    )
    try:
        writer = db.connect("batch_job")
        writer.execute("update public.tasks set title = 'seen' where id = %s", (TASK_1,))
        writer.close()
        assert brief(told())[0][:2] == ("update", TASK_1)
    finally:
        conn.execute("drop owned by batch_job; drop role batch_job")


def test_commit_that_would_not_be_flushed_is(db: Database, conn: psycopg.Connection) -> None:
    writer = db.connect()
    writer.execute("set synchronous_commit = off")
    show = "select current_setting('synchronous_commit')"
    with writer.transaction():
        writer.execute("update tasks set title = title")
        assert value(writer, show) == "off"
        writer.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
        assert value(writer, show) == "local"
    assert value(writer, show) == "off"
    writer.execute("set synchronous_commit = on")
    with writer.transaction():
        writer.execute("update tasks set title = 'y' where id = %s", (TASK_1,))
        assert value(writer, show) == "on"


def test_table_of_nothing_but_id_and_version(conn: psycopg.Connection, told: Told) -> None:
    live(conn, "bare", "id text primary key")
    conn.execute("insert into bare values ('a')")
    conn.execute("update bare set id = 'b'")
    conn.execute("update bare set id = id")
    conn.execute("delete from bare")
    kinds = sorted((change["kind"], change["id"]) for change in told())
    assert kinds == [("delete", "a"), ("delete", "b"), ("insert", "a"), ("insert", "b")]


def test_wide_table(conn: psycopg.Connection, told: Told) -> None:
    columns = ", ".join(f"c{n} integer default {n}" for n in range(250))
    live(conn, "wide", f"id text primary key, {columns}")
    conn.execute("insert into wide (id) values ('a')")
    (change,) = told()
    assert len(change["patch"]) == 252
    conn.execute("update wide set " + ", ".join(f"c{n} = -1" for n in range(0, 250, 2)))
    (change,) = told()
    assert change["patch"] == {f"c{n}": -1 for n in range(0, 250, 2)}


@pytest.mark.parametrize("width", [36, 37, 38, 39, 77, 78, 79])
def test_a_wide_record_of_many_kinds_is_whole(
    conn: psycopg.Connection, told: Told, width: int
) -> None:
    """Its JSON is made in pieces: whatever stands at their ends, with a value or without."""
    kinds = {
        "uuid": "00000000-0000-7000-8000-000000000001",
        "timestamptz": "2026-01-02T03:04:05.678900Z",
        "bigint": "9007199254740993",
        "integer": 7,
        "text": '100% "quoted" \\ text',
        "jsonb": {"a": [1, None]},
    }
    said = list(kinds.items())
    columns = [
        (f"c{n}", *said[n % len(said)], n % 5 == 4)  # name, type, value, nullable
        for n in range(width)
    ]
    definitions = ", ".join(
        f'"{name}" {kind}{"" if null else " not null"}' for name, kind, _, null in columns
    )
    live(conn, "many", f"id text primary key, {definitions}")
    for empty in (False, True):
        given = {name: None if null and empty else value for name, _, value, null in columns}
        row = {"id": str(empty), "version": 1} | given
        conn.execute(
            "insert into many select * from json_populate_record(null::many, %s)",
            (json.dumps(row),),
        )
        (change,) = told()
        assert list(change["patch"].values()) == list(row.values())


def test_row_updated_again_by_its_own_trigger_ends_with_its_newest_version(
    conn: psycopg.Connection, told: Told
) -> None:
    live(conn, "echo", "id text primary key, n integer, doubled integer")
    conn.execute(
        """
        create function public.double() returns trigger language plpgsql as $$
        begin
            update public.echo set doubled = new.n * 2 where id = new.id and doubled is distinct
                from new.n * 2;
            return null;
        end
        $$;
        create trigger double after insert or update on public.echo
        for each row execute function public.double();
        insert into public.echo values ('a', 1);
        """
    )
    told()
    conn.execute("update echo set n = 5")
    changes = told()
    assert {change["version"] for change in changes} == {3, 4}
    merged: dict[str, Any] = {}
    for change in sorted(changes, key=lambda change: int(change["version"])):
        merged |= change["patch"]
    assert merged == {"n": 5, "doubled": 10}
