"""Records by filter: operators, order, pages, what hangs on them, and what the caller has
already.
"""

import itertools
import random
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    ALICE_SAID,
    BOB,
    CAROL,
    DEMO,
    GARDEN,
    IDEAS,
    LAUNCH,
    TASK_1,
    TASK_2,
    TASK_3,
    TOMATOES,
    Gate,
    claims_of,
    live,
    new_id,
    title,
    value,
)

pytestmark = pytest.mark.both_versions

ROWS: list[tuple[Any, ...]] = [
    # id, n, word, day, list, flag
    ("a", 1, "Zebra", "2024-01-01", ["x"], True),
    ("b", 2, "apple", "2024-06-01", ["x", "y"], False),
    ("c", None, None, None, None, None),
    ("d", 2, "Äpfel", "2024-06-01", [], True),
    ("e", -5, "", "2030-12-31", ["y"], False),
]


@pytest.fixture(scope="module")
def rows(common_db: Database, common: Gate) -> Gate:
    conn = common_db.connect()
    live(
        conn,
        "samples",
        "id text primary key, n integer, word text, day date, list text[], flag boolean",
    )
    with conn.cursor() as cursor:
        cursor.executemany("insert into samples values (%s, %s, %s, %s, %s, %s)", ROWS)
    conn.close()
    return common


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ({}, "abcde"),
        ({"n": 2}, "bd"),
        ({"n": {"eq": 2}}, "bd"),
        ({"n": None}, ""),
        ({"n": {"neq": 2}}, "ae"),
        ({"n": {"is": None}}, "c"),
        ({"n": {"is": "notNull"}}, "abde"),
        ({"n": {"in": [1, 2]}}, "abd"),
        ({"n": {"in": []}}, ""),
        ({"n": {"in": [1, None]}}, "a"),
        ({"n": {"gt": 1}}, "bd"),
        ({"n": {"gte": 1, "lt": 2}}, "a"),
        ({"n": {"lte": -5}}, "e"),
        ({"word": "apple"}, "b"),
        ({"word": {"lt": "a"}}, "ae"),
        ({"word": {"gte": "a"}}, "bd"),
        ({"word": {"contains": "ebr"}}, "a"),
        ({"word": {"contains": ""}}, "abde"),
        ({"word": {"contains": "%"}}, ""),
        ({"word": ""}, "e"),
        ({"day": "2024-06-01"}, "bd"),
        ({"day": {"gt": "2024-01-01", "lt": "2030-01-01"}}, "bd"),
        ({"list": {"contains": "x"}}, "ab"),
        ({"list": ["x", "y"]}, "b"),
        ({"list": []}, "d"),
        ({"flag": True}, "ad"),
        ({"flag": {"neq": True}}, "be"),
        ({"id": {"in": ["a", "e", "nobody"]}}, "ae"),
        ({"n": 2, "flag": True}, "d"),
        ({"word": "'; drop table samples; --"}, ""),
        ({"word": {"contains": "$value$ %L %s"}}, ""),
    ],
)
def test_filter(rows: Gate, where: Any, ids: str) -> None:
    answer = rows.query(ALICE, "samples", where=where)
    assert answer["ids"] == list(ids)
    assert set(answer["recordMap"]["samples"]) == set(ids)


@pytest.mark.parametrize(
    ("order", "ids"),
    [
        ([], "abcde"),
        ([("n", "asc")], "eabdc"),
        ([("n", "desc")], "bdaec"),
        ([("word", "asc")], "eabdc"),
        ([("word", "desc")], "dbaec"),
        ([("n", "desc"), ("word", "desc")], "dbaec"),
        ([("flag", "asc"), ("n", "desc")], "bedac"),
        ([("day", "asc"), ("id", "desc")], "adbec"),
        ([("id", "desc")], "edcba"),
    ],
)
def test_order_has_nulls_last_and_ties_by_id(rows: Gate, order: list[Any], ids: str) -> None:
    order_by = [{"key": key, "dir": direction} for key, direction in order]
    assert "".join(rows.query(ALICE, "samples", orderBy=order_by)["ids"]) == ids


def pages(gate: Gate, user: str, table: str, limit: int, **more: Any) -> list[str]:
    """The ids of all pages of a query; fails where they do not end."""
    ids: list[str] = []
    after: dict[str, str] = {}
    for _ in range(400):
        answer = gate.query(user, table, limit=limit, **more, **after)
        assert len(answer["ids"]) <= limit
        assert set(answer["recordMap"].get(table, {})) == set(answer["ids"])
        ids += answer["ids"]
        if not answer.get("next"):
            return ids
        assert len(answer["ids"]) == limit
        after = {"after": answer["next"]}
    raise AssertionError("the pages do not end")


ORDERS = [
    [], *[[(key, d)] for key in ("n", "word", "day", "flag", "id") for d in ("asc", "desc")],
    [("n", "asc"), ("word", "desc")],
    [("flag", "desc"), ("day", "asc"), ("n", "desc"), ("word", "asc")],
]  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_pages_cover_everything_once_in_order(rows: Gate, order: list[Any], limit: int) -> None:
    order_by = [{"key": key, "dir": direction} for key, direction in order]
    whole = rows.query(ALICE, "samples", orderBy=order_by)["ids"]
    assert pages(rows, ALICE, "samples", limit, orderBy=order_by) == whole


TYPES: dict[str, list[str]] = {
    "smallint": ["1", "2", "-3"],
    "bigint": ["9007199254740993", "9007199254740992", "-1"],
    "numeric": ["1", "1.0", "1.00", "0.1", "1e30", "'NaN'"],
    "real": ["0.1", "0.2", "0.30000001", "1e-30", "'NaN'", "'Infinity'", "'-Infinity'"],
    "double precision": ["0.1", "0.1::real", "1e-300", "1e300", "'NaN'", "'Infinity'", "'-0'", "0"],
    "text": ["'a'", "'A'", "'ä'", "'\U0001f600'", "'\ufffd'", "''", "'a '"],
    "varchar(5)": ["'a'", "'B'", "''"],
    "char(5)": ["'a'", "'b'", "''"],
    "date": ["'2024-01-01'", "'0044-03-15'", "'infinity'", "'-infinity'", "'10000-01-01'",
    "'0044-03-15 BC'"],
    "timestamptz": ["'2024-01-01T00:00:00.000001Z'", "'2024-01-01T00:00:00Z'", "'infinity'",
    "'-infinity'", "'10000-01-01Z'"],
    "timestamp": ["'2024-01-01T00:00:00.000001'", "'2024-01-01T00:00:00'", "'infinity'"],
    "boolean": ["true", "false"],
    "uuid": [f"'{TASK_1}'", f"'{TASK_2}'"],
    "public.hue": ["'red'", "'green'", "'Blue'"],
    "public.ci": ["'a'", "'A'", "'b'"],
}  # fmt: skip


@pytest.mark.parametrize("kind", TYPES)
def test_pages_of_every_type_cover_everything_once(
    common: Gate, common_db: Database, kind: str
) -> None:
    gate, conn = common, common_db.connect()
    if value(conn, "select to_regtype('public.hue') is null"):
        conn.execute("create type public.hue as enum ('red', 'green', 'Blue')")
    if kind == "public.ci":
        try:
            conn.execute(
                "create collation public.no_case (provider = icu, locale = 'und-u-ks-level2', "
                "deterministic = false)"
            )
        except psycopg.errors.FeatureNotSupported:
            pytest.skip("this server is built without ICU")
        conn.execute("create domain public.ci as text collate public.no_case")
    live(conn, "kinds", f"id text primary key, v {kind}")
    for copy in range(2):
        for number, literal in enumerate([*TYPES[kind], "null"]):
            conn.execute(f"insert into kinds values ('{number}-{copy}', {literal})".encode())
    count = 2 * (len(TYPES[kind]) + 1)
    for direction, limit in itertools.product(("asc", "desc"), (1, 3)):
        order_by = [{"key": "v", "dir": direction}]
        whole = gate.query(ALICE, "kinds", orderBy=order_by)["ids"]
        assert len(whole) == count
        found = pages(gate, ALICE, "kinds", limit, orderBy=order_by)
        assert sorted(found) == sorted(whole), (kind, direction)
        assert found == whole
    conn.execute("select sync.disable('kinds')")
    conn.execute("drop table kinds")
    conn.close()


def test_equal_to_what_a_record_shows_finds_the_record(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("create type public.hue as enum ('red', 'green')")
    columns = {
        "a": ("real", "0.1"), "b": ("double precision", "0.1"), "c": ("numeric", "0.10"),
        "d": ("char(5)", "'ab'"),
        "e": ("timestamptz", "'2024-01-01 01:02:03.45+01'"), "f": ("bytea", "'\\x00ff'"),
        "g": ("public.hue", "'red'"),
        "h": ("jsonb", "'{\"a\": [1]}'"), "i": ("bigint[]", "'{1,2}'"),
        "j": ("date", "'2024-01-01'"),
        "k": ("varchar(3)", "'x'"), "l": ("uuid", f"'{TASK_1}'"), "m": ("timestamp", "'2024-01-01 "
        "01:02:03.45'"),
    }  # fmt: skip
    live(
        conn,
        "kinds",
        "id text primary key, "
        + ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items()),
    )
    literals = ", ".join(literal for _, literal in columns.values())
    conn.execute(f"insert into kinds values ('x', {literals})".encode())
    record = gate.query(ALICE, "kinds")["recordMap"]["kinds"]["x"]
    for key in columns:
        found = gate.query(ALICE, "kinds", where={key: {"eq": record[key]}})["ids"]
        assert found == ["x"], (key, record[key])
        assert gate.query(ALICE, "kinds", where={key: {"in": [record[key]]}})["ids"] == ["x"], key
        assert gate.query(ALICE, "kinds", where={key: {"neq": record[key]}})["ids"] == [], key


def test_list_contains_each_element_that_a_record_shows(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("create type public.hue as enum ('red', 'green')")
    columns = {
        "a": ("bigint[]", "{9007199254740993,2}"), "b": ("numeric[]", "{1.50,2}"),
        "c": ("real[]", "{0.1,1e-30}"), "d": ("double precision[]", "{0.1}"),
        "e": ("date[]", "{2024-01-01}"), "f": ("uuid[]", f"{{{TASK_1}}}"),
        "g": ("public.hue[]", "{red,null}"), "h": ("varchar(3)[]", "{abc}"),
        "i": ("smallint[]", "{1}"), "j": ("boolean[]", "{true}"),
    }  # fmt: skip
    kinds = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    live(conn, "kinds", f"id text primary key, {kinds}")
    literals = ", ".join(f"'{literal}'" for _, literal in columns.values())
    conn.execute(f"insert into kinds values ('x', {literals})".encode())
    record = gate.query(ALICE, "kinds")["recordMap"]["kinds"]["x"]
    for key in columns:
        for where in ({"eq": record[key]}, *({"contains": item} for item in record[key])):
            assert gate.query(ALICE, "kinds", where={key: where})["ids"] == ["x"], (key, where)
    for where in (
        {"f": {"contains": TASK_1.upper()}}, {"f": [TASK_1.upper()]}, {"b": ["1.5", "2.0"]},
        {"b": {"contains": "1.5"}},
    ):  # fmt: skip
        assert gate.query(ALICE, "kinds", where=where)["ids"] == ["x"], where
    for where in (
        {"g": ["green"]}, {"g": {"contains": "green"}}, {"h": ["abcd"]}, {"i": [99999]},
    ):  # fmt: skip
        assert gate.query(ALICE, "kinds", where=where)["ids"] == [], where
    for where in (
        {"e": {"contains": "2024-13-01"}}, {"f": {"contains": 5}}, {"j": ["true"]},
        {"g": ["black"]}, {"g": {"contains": "black"}}, {"g": {"in": [["red"], ["black"]]}},
    ):  # fmt: skip
        refused = gate.refusal("query", ALICE, {"table": "kinds", "where": where})
        assert (refused["status"], refused["code"]) == (400, "wrong_type"), where


def test_text_is_compared_by_code_point_whatever_its_collation(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """Also what a key under it hears of is the rows that are found."""
    try:
        conn.execute(
            "create collation public.no_case (provider = icu, locale = 'und-u-ks-level2', "
            "deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server is built without ICU")
    live(conn, "kinds", "id text primary key, word text collate no_case", ", p_topics => '{word}'")
    conn.execute("insert into kinds values ('a', 'Hello'), ('b', 'hello')")
    for where, ids in (
        ("hello", "b"), ({"neq": "hello"}, "a"), ({"in": ["hello", "HELLO"]}, "b"),
        ({"contains": "ell"}, "ab"), ({"contains": "hell"}, "b"), ({"lt": "a"}, "a"),
    ):  # fmt: skip
        assert gate.query(ALICE, "kinds", where={"word": where})["ids"] == list(ids), where


@pytest.mark.parametrize("kind", ["timestamp", "timestamptz", "date"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity"])
def test_time_without_end_is_a_time(
    gate: Gate, conn: psycopg.Connection, kind: str, moment: str
) -> None:
    live(conn, "kinds", f"id text primary key, v {kind} not null, w {kind}")
    conn.execute("insert into kinds values ('x', now(), now())")
    cursor = gate.cursor()
    conn.execute("update kinds set v = %s, w = %s", (moment, moment))
    assert gate.changes(cursor)["changes"][0]["patch"] == {"v": moment, "w": moment}
    record = gate.query(ALICE, "kinds")["recordMap"]["kinds"]["x"]
    assert (record["v"], record["w"]) == (moment, moment)


def test_unknown_label_of_an_enum_is_a_wrong_value(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("create type public.hue as enum ('red', 'green')")
    live(conn, "kinds", "id text primary key, hue public.hue, hues public.hue[]")
    for where in ({"hue": "black"}, {"hue": {"neq": "black"}}, {"hue": {"in": ["red", "black"]}}):
        refused = gate.refusal("query", ALICE, {"table": "kinds", "where": where})
        assert (refused["status"], refused["code"], refused["key"]) == (400, "wrong_type", "hue")


def test_pages_while_rows_come_and_go_repeat_nothing(gate: Gate, conn: psycopg.Connection) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    live(conn, "kinds", "id text primary key, n integer", ", p_hard_delete => true")
    conn.execute("insert into kinds select g::text, g / 3 from generate_series(1, 60) g")
    stays = {str(n) for n in range(1, 61, 2)}
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        answer = gate.query(ALICE, "kinds", orderBy=[{"key": "n"}], limit=5, **after)
        seen += answer["ids"]
        if not answer.get("next"):
            break
        after = {"after": answer["next"]}
        conn.execute("delete from kinds where id = %s", (str(chance.randrange(2, 61, 2)),))
        conn.execute("insert into kinds values (%s, %s)", (new_id(), chance.randrange(20)))
    assert len(seen) == len(set(seen)), seed
    assert stays <= set(seen), seed


# Deleted records


def test_deleted_records_are_left_out_unless_asked_for(gate: Gate) -> None:
    gate.applied(ALICE, {"type": "delete", "table": "tasks", "id": TASK_1})
    where = {"boardId": LAUNCH}
    assert TASK_1 not in gate.query(ALICE, "tasks", where=where)["ids"]
    assert gate.query(ALICE, "tasks", where=where | {"deleted": {"is": "notNull"}})["ids"] == [
        TASK_1
    ]
    assert TASK_1 not in gate.query(ALICE, "tasks", where={"deleted": {"is": None}})["ids"]
    assert gate.query(ALICE, "tasks", where={"id": TASK_1})["ids"] == []
    told = gate.query(ALICE, "tasks", where=where, have={TASK_1: 1})
    assert told["recordMap"]["tasks"][TASK_1]["deleted"]
    gate.applied(ALICE, {"type": "restore", "table": "tasks", "id": TASK_1})
    assert TASK_1 in gate.query(ALICE, "tasks", where=where)["ids"]


def test_soft_delete_by_a_flag(gate: Gate, conn: psycopg.Connection) -> None:
    live(
        conn,
        "flagged",
        "id text primary key, gone boolean not null default false",
        ", p_soft_delete => 'gone'",
    )
    conn.execute("insert into flagged (id) values ('a'), ('b')")
    gate.applied(ALICE, {"type": "delete", "table": "flagged", "id": "a"})
    assert gate.query(ALICE, "flagged")["ids"] == ["b"]
    assert gate.query(ALICE, "flagged", where={"gone": True})["ids"] == ["a"]
    gate.applied(ALICE, {"type": "restore", "table": "flagged", "id": "a"})
    assert gate.query(ALICE, "flagged")["ids"] == ["a", "b"]


def test_row_whose_flag_is_null_is_not_deleted(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "flagged", "id text primary key, gone boolean", ", p_soft_delete => 'gone'")
    conn.execute("insert into flagged values ('a', null), ('b', false), ('c', true)")
    assert gate.query(ALICE, "flagged")["ids"] == ["a", "b"]


# What the caller has


def test_have_gets_what_differs(gate: Gate, conn: psycopg.Connection) -> None:
    first = gate.query(ALICE, "tasks", where={"boardId": LAUNCH})
    have = {id_: record["version"] for id_, record in first["recordMap"]["tasks"].items()}
    conn.execute("update tasks set title = 'changed' where id = %s", (TASK_1,))
    conn.execute("update tasks set board_id = %s where id = %s", (IDEAS, TASK_2))
    conn.execute("update tasks set board_id = %s where id = %s", (GARDEN, TASK_3))
    made = str(conn.execute(
        "insert into tasks (board_id, title, created_by) values (%s, 'new', %s) returning id",
        (LAUNCH, BOB)
    ).fetchall()[0][0])  # fmt: skip
    answer = gate.query(ALICE, "tasks", where={"boardId": LAUNCH}, have=have)
    assert set(answer["ids"]) == set(have) - {TASK_2, TASK_3} | {made}
    assert set(answer["recordMap"]["tasks"]) == {TASK_1, TASK_2, made}
    assert answer["gone"] == [{"table": "tasks", "id": TASK_3}]
    records = first["recordMap"]["tasks"] | answer["recordMap"]["tasks"]
    have = {id_: record["version"] for id_, record in records.items() if id_ != TASK_3}
    again = gate.query(ALICE, "tasks", where={"boardId": LAUNCH}, have=have)
    assert (again["recordMap"], again["gone"], len(again["ids"])) == (
        {"tasks": {}},
        [],
        len(answer["ids"]),
    )


def test_have_of_something_valid_that_is_not_in_the_page(gate: Gate) -> None:
    elsewhere = gate.query(ALICE, "tasks", where={"boardId": IDEAS})["recordMap"]["tasks"]
    id_, record = next(iter(elsewhere.items()))
    answer = gate.query(ALICE, "tasks", where={"boardId": LAUNCH}, have={id_: record["version"]})
    assert id_ not in answer["ids"]
    assert id_ not in answer["recordMap"]["tasks"]
    assert answer["gone"] == []


def test_have_with_a_version_ahead_is_replaced(common: Gate) -> None:
    """After a restore versions fall: any other number is replaced."""
    answer = common.query(ALICE, "tasks", where={"id": TASK_2}, have={TASK_2: 999})
    assert TASK_2 in answer["recordMap"]["tasks"]


# What hangs on them


def test_include_down_and_up(common: Gate) -> None:
    down = common.query(ALICE, "workspaces", include=["boards.tasks.comments", "workspaceMembers"])
    assert {table: len(records) for table, records in down["recordMap"].items()} == {
        "workspaces": 1, "boards": 2, "tasks": 12, "comments": 4, "workspaceMembers": 2,
    }  # fmt: skip
    up = common.query(
        ALICE, "comments", where={"id": ALICE_SAID}, include=["taskId.boardId.workspaceId"]
    )
    assert {table: list(records) for table, records in up["recordMap"].items()} == {
        "comments": [ALICE_SAID], "tasks": [TASK_1], "boards": [LAUNCH], "workspaces": [DEMO],
    }  # fmt: skip


def test_include_leaves_deleted_children_out(gate: Gate) -> None:
    gate.applied(ALICE, {"type": "delete", "table": "tasks", "id": TASK_1})
    answer = gate.query(ALICE, "boards", where={"id": LAUNCH}, include=["tasks"])
    assert TASK_1 not in answer["recordMap"]["tasks"]


def test_include_names_no_key_that_cannot_be_subscribed_to(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(conn, "tops", "id text primary key")
    live(
        conn, "subs", "id text primary key, top text references tops",
        ", p_topics => '{}', p_whole_table => false",
    )  # fmt: skip
    conn.execute("insert into tops values ('t'); insert into subs values ('s', 't')")
    answer = gate.query(ALICE, "tops", include=["subs"])
    assert list(answer["recordMap"]["subs"]) == ["s"]
    assert answer["keys"] == ["tops"]


def test_include_beyond_the_limit_is_refused(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.configure('max_list_items', 5)")
    refused = gate.refusal("query", ALICE, {"table": "boards", "include": ["tasks"]})
    assert (refused["status"], refused["code"]) == (422, "too_many")


# Keys


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        ({}, {"tasks"}),
        ({"where": {"boardId": LAUNCH}}, {f"tasks?boardId={LAUNCH}"}),
        ({"where": {"boardId": {"in": [LAUNCH, IDEAS]}}},
        {f"tasks?boardId={LAUNCH}", f"tasks?boardId={IDEAS}"}),
        ({"where": {"boardId": LAUNCH, "status": "done"}}, {f"tasks?boardId={LAUNCH}"}),
        ({"where": {"status": "done"}}, {"tasks"}),
        ({"where": {"id": TASK_1}}, {f"tasks:{TASK_1}"}),
        ({"where": {"id": TASK_1.upper()}}, {f"tasks:{TASK_1}"}),
        ({"where": {"id": TASK_1, "boardId": LAUNCH}}, {f"tasks:{TASK_1}"}),
        ({"where": {"boardId": {"neq": LAUNCH}}}, {"tasks"}),
        ({"where": {"boardId": {"in": [LAUNCH, None]}}}, None),
        ({"where": {"assigneeId": None}}, None),
        ({"where": {"boardId": LAUNCH.upper()}}, {f"tasks?boardId={LAUNCH}"}),
    ],
)  # fmt: skip
def test_keys_cover_the_result(
    gate: Gate, conn: psycopg.Connection, request_: Any, keys: set[str] | None
) -> None:
    answer = gate.query(ALICE, "tasks", **request_)
    if keys is not None:
        assert set(answer["keys"]) == keys
    conn.execute("update tasks set title = title || '!'")
    joined = gate.subscribe(ALICE, *answer["keys"], cursor=answer["cursor"])
    assert joined["errors"] == []
    told = {update["key"].removeprefix("tasks:") for update in joined["updates"]}
    assert set(answer["ids"]) <= told


def test_keys_of_values_written_in_another_way_deliver(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """Whatever way a value is written, a key under it hears of the rows it finds."""
    conn.execute("create type public.hue as enum ('red', 'green')")
    live(
        conn, "kinds",
        "id text primary key, i integer, b bigint, f boolean, u uuid, t text, h public.hue, note "
        "integer default 0",
        ", p_topics => '{i,b,f,u,t,h}'",
    )  # fmt: skip
    conn.execute("insert into kinds values ('x', 7, 8, true, %s, 'a b', 'red')", (ALICE,))
    for where in (
        {"i": 7}, {"i": 7.0}, {"i": {"in": [7]}}, {"b": "8"}, {"b": "008"}, {"b": 8}, {"f": True},
        {"u": ALICE},
        {"u": ALICE.upper()}, {"t": "a b"}, {"h": "red"},
    ):  # fmt: skip
        answer = gate.query(ALICE, "kinds", where=where)
        assert answer["ids"] == ["x"], where
        conn.execute("update kinds set note = note + 1")
        joined = gate.subscribe(ALICE, *answer["keys"], cursor=answer["cursor"])
        assert joined["errors"] == [], where
        assert joined["updates"], (where, answer["keys"])
    for key in (
        "b=008", "b=%208", f"u={ALICE.upper()}", f"u=%7B{ALICE}%7D", "f=t", "f=TRUE", "f=on",
        "i=%2B7", "i=07", "t=a%20b",
        "t=%61%20b", "h=red",
    ):  # fmt: skip
        cursor = gate.cursor()
        conn.execute("update kinds set note = note + 1")
        joined = gate.subscribe(ALICE, f"kinds?{key}", cursor=cursor)
        assert joined["updates"] or joined["stale"] or joined["errors"], (
            f"{key} is accepted and silent"
        )


@pytest.mark.parametrize(
    "kind", ["numeric", "real", "date", "timestamptz", "jsonb", "text[]", "bytea"]
)
def test_topic_without_one_way_of_writing_its_values_is_refused(
    tx: psycopg.Connection, kind: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        live(tx, "kinds", f"id text primary key, v {kind}", ", p_topics => '{v}'")
    assert refused.value.diag.message_hint


def test_one_wrong_value_takes_no_evidence_from_the_others(common: Gate) -> None:
    joined = common.subscribe(
        ALICE,
        f"tasks?boardId={LAUNCH}",
        "tasks?boardId=garbage",
        f"tasks:{TASK_1}",
        "tasks:garbage",
        "tasks",
    )
    seen = {key for key, classes in joined["views"].items() if classes}
    assert {f"tasks?boardId={LAUNCH}", f"tasks:{TASK_1}", "tasks"} <= seen


def test_include_tells_the_keys_of_each_level(common: Gate) -> None:
    answer = common.query(
        ALICE, "boards", where={"id": LAUNCH}, include=["tasks.comments", "workspaceId"]
    )
    tasks = common.query(ALICE, "tasks", where={"boardId": LAUNCH})["ids"]
    expected = {f"boards:{LAUNCH}", f"tasks?boardId={LAUNCH}", f"workspaces:{DEMO}"}
    assert set(answer["keys"]) == expected | {f"comments?taskId={task}" for task in tasks}


# Streams


def stream(gate: Gate, user: str, body: str, chunk: int = 20) -> tuple[Any, list[Any]]:
    """The header and the records of a large result, as the gateway fetches them."""
    import json

    with gate.conn.transaction():
        head = gate.conn.execute(
            "select sync.gateway_query_open(%s, %s)", (claims_of(user), body)
        ).fetchone()
        assert head
        records: list[Any] = []
        while rows := gate.conn.execute(f"fetch {chunk} from rowcast_page".encode()).fetchall():
            records += [json.loads(line) for (text,) in rows for line in text.splitlines()]
    return json.loads(head[0]), records


def test_stream_tells_what_a_query_tells(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "kinds", "id text primary key, n integer, t text")
    conn.execute(
        "insert into kinds select g::text, g % 7, E'line\\nbreak' from generate_series(1, 1234) g"
    )
    head, records = stream(
        gate, ALICE, '{"table": "kinds", "where": {"n": {"gt": 2}}, "orderBy": [{"key": "n"}]}'
    )
    assert head["table"] == "kinds"
    assert head["keys"] == ["kinds"]
    assert gate.changes(head["cursor"])["changes"] == []
    first = gate.query(ALICE, "kinds", where={"n": {"gt": 2}}, orderBy=[{"key": "n"}], limit=1000)
    assert [record["id"] for record in records][:1000] == first["ids"]
    assert records[0] == first["recordMap"]["kinds"][first["ids"][0]]
    assert len(records) == sum(n % 7 > 2 for n in range(1, 1235))


@pytest.mark.parametrize("where", [{"boardId": {"in": "x"}}, {"id": {"in": {}}}, [], {"no": 1}])
def test_stream_refuses_what_a_query_refuses(common: Gate, where: Any) -> None:
    body = {"table": "tasks", "where": where}
    assert common.refusal("query_open", ALICE, body) == common.refusal("query", ALICE, body)


def test_stream_is_as_narrow_as_the_reader(gate: Gate) -> None:
    for user, count in ((ALICE, 12), (CAROL, 2)):
        _, records = stream(gate, user, '{"table": "tasks"}', 5)
        assert len(records) == count
    assert TOMATOES in [record["id"] for record in stream(gate, CAROL, '{"table": "tasks"}')[1]]


def test_stream_of_what_nobody_may_read_is_empty(gate: Gate) -> None:
    import json

    with gate.conn.transaction():
        head = gate.conn.execute(
            "select sync.gateway_query_open(null, %s)", ('{"table": "tasks"}',)
        ).fetchone()
        assert head
        assert json.loads(head[0])["table"] == "tasks"
        assert gate.conn.execute("fetch 20 from rowcast_page").fetchall() == []


def test_write_shows_in_the_next_query(gate: Gate) -> None:
    gate.applied(ALICE, title(TASK_1, "read your writes"))
    assert gate.query(ALICE, "tasks", where={"title": "read your writes"})["ids"] == [TASK_1]
