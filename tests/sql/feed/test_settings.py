"""Whatever a session has set: a row has one text, the same for every writer and reader."""

import json
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, Gate, Json, create, live, new_tx_id, set_, value

pytestmark = pytest.mark.both_versions

ODD = {
    "extra_float_digits": "-15",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "search_path": "",
}
COLUMNS = """
    id text primary key, double double precision, single real, doubles double precision[],
    at timestamptz, local timestamp, day date, days date[], span interval, during tstzrange,
    times timestamptz[], bytes bytea, bytess bytea[], place point, many numeric, big bigint,
    doc jsonb, note text, tag text default E'back\\\\slash', since date default '2001-02-03',
    pair tuple
"""
FIRST = """
    (double, single, doubles, at, local, day, days, span, during, times, bytes, bytess, place, many,
    big, doc, note, pair) = (select 0.1::float8 + 0.2::float8, 0.1::real,
    '{0.30000000000000004,1e-7}'::float8[], timestamptz '2026-01-02 03:04:05.678901+00',
    timestamp '2026-02-03 04:05:06.7', date '2026-03-04', array[date '2026-05-06'],
    make_interval(days => -1, hours => 2, secs => 3.5),
    tstzrange('2026-01-01 00:00+00', '2026-02-01 00:00+00'),
    array[timestamptz '2026-07-08 00:00+00'], decode('00ff5c', 'hex'),
    array[decode('5c00', 'hex')], point(0.1::float8 + 0.2::float8, 1), 1.50, 9007199254740993,
    jsonb_build_object('a', 1.25), chr(92) || 'n', row(0.1::float8 + 0.2::float8,
    timestamptz '2026-01-02 03:04:05+00')::public.tuple)
"""
# What a reader at fifteen digits could not tell from what was there.
SECOND = """
    double = double + 5e-17, single = single + 1e-8::real, doubles[1] = 0.3,
    at = at + interval '1 us', day = day + 1, span = span + interval '1 us', place = point(0.3, 1)
"""


@pytest.fixture
def odd(db: Database, conn: psycopg.Connection) -> psycopg.Connection:
    """A superuser's session with odd settings, and a table with a column of every kind."""
    conn.execute("create type public.tuple as (x double precision, at timestamptz)")
    live(conn, "kinds", COLUMNS, ", p_topics => '{note,big}'")
    conn.execute(
        "drop policy everybody on kinds; create policy everybody on kinds using "
        "(double is distinct from 7 and at is distinct from 'infinity' and day is distinct from "
        "'infinity' and span is distinct from '7 days' and bytes is distinct from '' and "
        "during is distinct from 'empty' and local is distinct from 'infinity') with check (true);"
        "select sync.refresh('kinds')"
    )
    session = db.connect()
    for name, setting in ODD.items():
        session.execute("select set_config(%s, %s, false)", (name, setting))
    return session


def told(conn: psycopg.Connection, id_: str) -> list[Any]:
    """All that the feed says of a record."""
    query = """
        select kind, version, topics, patch::text, undo::text, class, class_before
        from sync_internal.changes where record_id = %s order by seq
    """
    return [
        tuple(str(part).replace(f'"id":"{id_}"', "") for part in row)
        for row in conn.execute(query, (id_,)).fetchall()
    ]


def test_feed_is_the_same_for_every_writer(
    odd: psycopg.Connection, conn: psycopg.Connection
) -> None:
    for session, id_ in ((conn, "plain"), (odd, "odd")):
        # One row, several rows, and rows made by one statement.
        for many in (id_, f"{id_}2"):
            session.execute("insert into public.kinds (id) values (%s)", (many,))
        session.execute(f"update public.kinds set {FIRST} where id = %s".encode(), (id_,))
        session.execute(f"update public.kinds set {FIRST} where id like %s".encode(), (f"{id_}2%",))
        session.execute(f"update public.kinds set {SECOND} where id = %s".encode(), (id_,))
        session.execute(f"update public.kinds set {SECOND} where id like %s".encode(), (f"{id_}%",))
        session.execute("delete from public.kinds where id = %s", (id_,))
    assert told(conn, "plain") == told(conn, "odd")
    assert told(conn, "plain2") == told(conn, "odd2")
    patches = [json.loads(row[3]) for row in told(conn, "odd")[1:4]]
    assert patches[0]["double"] == 0.30000000000000004
    assert patches[0]["doubles"][0] == 0.30000000000000004
    assert patches[0]["at"] == "2026-01-02T03:04:05.678901Z"
    assert patches[0]["day"] == "2026-03-04"
    assert patches[0]["bytes"] == "AP9c"
    assert {"double", "doubles", "at", "day", "span"} <= set(patches[1])


def test_several_rows_at_once_are_told_the_same(
    odd: psycopg.Connection, conn: psycopg.Connection
) -> None:
    for session, id_ in ((conn, "plain"), (odd, "odd")):
        session.execute("insert into public.kinds (id) values (%s), (%s)", (id_, f"{id_}2"))
        for change in (FIRST, SECOND):
            session.execute(
                f"update public.kinds set {change} where id like %s".encode(), (id_ + "%",)
            )
        session.execute("delete from public.kinds where id like %s", (f"{id_}%",))
    assert told(conn, "plain") == told(conn, "odd")
    assert len(told(conn, "odd")) == 4


def test_classes_of_the_feed_are_those_of_readers(
    odd: psycopg.Connection, gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("insert into public.kinds (id) values ('a')")
    cursor = gate.cursor()
    odd.execute(f"update public.kinds set {FIRST} where id = 'a'".encode())
    (change,) = gate.changes(cursor)["changes"]
    seen = gate.visible(ALICE, {"kinds": ["a"]})["kinds"]["a"]["class"]
    assert change["class"] == seen
    for name, setting in ODD.items():
        gate.conn.execute("select set_config(%s, %s, false)", (name, setting))
    assert gate.visible(ALICE, {"kinds": ["a"]})["kinds"]["a"]["class"] == seen


def answers(session: psycopg.Connection) -> list[Any]:
    """What the functions that write and read give to this session."""
    found: list[Any] = []
    id_ = "first"
    session.execute("insert into public.kinds (id) values ('last')")
    session.execute(f"update public.kinds set {FIRST}".encode())
    operations: list[Json] = [
        create("kinds", id_, double=0.30000000000000004, doubles=[0.30000000000000004, 1e-7]),
        set_("kinds", id_, "at", "2026-01-02T03:04:05.678901+00:00"),
        set_("kinds", id_, "local", "2026-02-03T04:05:06.7"),
        set_("kinds", id_, "day", "2026-03-04"),
        set_("kinds", id_, "days", ["2026-05-06", "2026-12-11"]),
        set_("kinds", id_, "bytes", "AP9c"),
        set_("kinds", id_, "note", "back\\slash"),
        set_("kinds", id_, "doc", {"a": 0.1}),
        {"type": "listInsert", "table": "kinds", "id": id_, "key": "doubles", "value": 1.1e-5},
        {"type": "listInsert", "table": "kinds", "id": id_, "key": "days", "value": "2026-02-01"},
        {"type": "increment", "table": "kinds", "id": id_, "key": "doc.a", "by": 0.2},
        {"type": "increment", "table": "kinds", "id": id_, "key": "double", "by": 0.1},
        {"type": "increment", "table": "kinds", "id": id_, "key": "many", "by": "1.5"},
    ]
    with session.transaction():
        session.execute("select sync.act_as(%s)", (ALICE,))
        for operation in operations:
            answer = value(
                session,
                "select sync.write(%s::jsonb)",
                json.dumps({"txId": new_tx_id(), "operations": [operation]}),
            )
            assert answer["results"][0]["status"] == "applied", answer
            found.append(answer["recordMap"])
        for order in ("double", "single", "at", "local", "day", "many"):
            page = value(
                session,
                "select sync.query(%s::jsonb)",
                json.dumps({
                    "table": "kinds", "orderBy": [{"key": order}], "limit": 1,
                    "where": {"since": "2001-02-03"},
                }),
            )  # fmt: skip
            assert page["next"]
            found += [page["recordMap"], page["keys"], page["next"]]
        record = {"pointers": [{"table": "kinds", "id": id_}]}
        found.append(
            value(session, "select sync.get_records(%s::jsonb)", json.dumps(record))["recordMap"]
        )
    return found


def test_answers_are_the_same_for_every_session(
    odd: psycopg.Connection, conn: psycopg.Connection
) -> None:
    plain = answers(conn)
    conn.execute("delete from kinds")
    assert answers(odd) == plain
    record = plain[-1]["kinds"]["first"]
    assert record["doubles"] == [0.30000000000000004, 1e-7, 1.1e-5]
    assert record["double"] == 0.4
    assert record["doc"] == {"a": 0.30000000000000004}
    assert record["tag"] == "back\\slash"


def test_a_default_is_written_as_it_was_meant(
    odd: psycopg.Connection, gate: Gate, conn: psycopg.Connection
) -> None:
    """Code made in a session with odd settings runs in one with others."""
    odd.execute(
        "alter table public.kinds alter column at set default '02.03.2004 05:00+00',"
        " alter column span set default '-1 days +2:00', alter column double set default 0.1 + 0.2"
    )
    odd.execute("select sync.refresh('public.kinds')")
    gate.applied(ALICE, create("kinds", "made", note="x"))
    conn.execute("insert into kinds (id, note) values ('plain', 'x')")
    rows = conn.execute("select at, span, double, tag, since from kinds").fetchall()
    assert len(rows) == 2
    assert rows[0] == rows[1]


@pytest.mark.parametrize("name", ODD)
def test_code_fits_whatever_a_session_has_set(
    gate: Gate, conn: psycopg.Connection, odd: psycopg.Connection, name: str
) -> None:
    gate.conn.execute("select set_config(%s, %s, false)", (name, ODD[name]))
    gate.applied(ALICE, create("kinds", "made", note="x"))
    assert gate.query(ALICE, "kinds")["ids"] == ["made"]
