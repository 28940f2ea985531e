"""Several operations on one record, and operations on several records, in one transaction."""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    LAUNCH,
    TASK_1,
    TASK_2,
    TASK_3,
    TOMATOES,
    Background,
    Gate,
    live,
    pid,
    set_,
    title,
    tx,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions

TASKS = [TASK_1, TASK_2, TASK_3]


def insert(task: str, key: str, element: str) -> dict[str, Any]:
    return {"type": "listInsert", "table": "tasks", "id": task, "key": key, "value": element}


def statements(conn: psycopg.Connection[Any], *tasks: str) -> int:
    """By how many statements of a transaction these rows were written."""
    query = "select count(distinct cmin::text) from tasks where id = any(%s)"
    number: int = value(conn, query, list(tasks))
    return number


def stored(conn: psycopg.Connection[Any], task: str, column: str) -> Any:
    return value(conn, f"select {column} from tasks where id = %s", task)


def test_records_of_one_table_are_written_by_one_statement(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    cursor = gate.cursor()
    answer = gate.applied(
        ALICE,
        title(TASK_3, "three"),
        title(TASK_1, "one"),
        insert(TASK_1, "tags", "new"),
        set_("tasks", TASK_2, "metadata.points", 5),
    )
    assert statements(conn, *TASKS) == 1
    assert {v["id"] for v in answer.body["versions"]} == set(TASKS)
    records = answer.body["recordMap"]["tasks"]
    assert [records[TASK_3]["title"], records[TASK_1]["title"]] == ["three", "one"]
    assert "new" in records[TASK_1]["tags"]
    assert records[TASK_2]["metadata"]["points"] == 5
    assert all(v["version"] == records[v["id"]]["version"] for v in answer.body["versions"])
    changes = gate.changes(cursor)["changes"]
    assert sorted(change["id"] for change in changes) == sorted(TASKS)
    patches = [set(change["patch"]) for change in changes if change["id"] == TASK_1]
    assert patches == [{"tags", "title", "updatedAt"}]


def test_operations_on_a_record_may_stand_in_several_places(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    before = stored(conn, TASK_1, "version")
    gate.applied(
        ALICE,
        insert(TASK_1, "tags", "first"),
        title(TASK_2, "between"),
        insert(TASK_1, "tags", "second"),
        title(TASK_2, "last"),
        title(TASK_1, "end"),
    )
    assert stored(conn, TASK_1, "tags")[-2:] == ["first", "second"]
    assert stored(conn, TASK_1, "title") == "end"
    assert stored(conn, TASK_2, "title") == "last"
    assert stored(conn, TASK_1, "version") == before + 1


def test_records_of_several_tables(gate: Gate, conn: psycopg.Connection[Any]) -> None:
    answer = gate.applied(
        ALICE,
        title(TASK_2, "task"),
        set_("boards", LAUNCH, "name", "board"),
        title(TASK_1, "task"),
    )
    assert {v["table"] for v in answer.body["versions"]} == {"boards", "tasks"}
    assert len(answer.body["versions"]) == 3
    assert value(conn, "select name from boards where id = %s", LAUNCH) == "board"
    assert [stored(conn, t, "title") for t in (TASK_1, TASK_2)] == ["task", "task"]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_record_out_of_reach_refuses_them_all(
    gate: Gate, conn: psycopg.Connection[Any], place: int
) -> None:
    operations = [title(TASK_1, "x"), title(TASK_2, "x")]
    operations.insert(place, title(TOMATOES, "x"))
    answer = gate.write(ALICE, *operations)
    assert (answer.status, answer.code, answer.error["id"]) == (403, "forbidden", TOMATOES)
    assert value(conn, "select count(*) from tasks where title = 'x'") == 0


def test_a_wrong_operation_on_one_record_refuses_them_all(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    answer = gate.write(ALICE, title(TASK_1, "x"), insert(TASK_2, "metadata", "y"))
    assert (answer.status, answer.code, answer.error["op"]) == (400, "not_a_list", 1)
    assert value(conn, "select count(*) from tasks where title = 'x'") == 0


def test_records_of_a_table_with_triggers_are_written_one_by_one(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    """A trigger of one record changes another, and what comes next builds on it."""
    live(conn, "steps", "id text primary key, place integer, note text")
    conn.execute(
        """
        create function public.push() returns trigger language plpgsql as $$
        begin
            update public.steps set place = 10 where id > new.id;
            return null;
        end
        $$;
        create trigger push after update of note on public.steps
        for each row execute function public.push();
        insert into public.steps (id, place) values ('a', 1), ('b', 2);
        select sync.refresh('public.steps');
        """
    )
    add = {"type": "increment", "table": "steps", "id": "b", "key": "place", "by": 1}
    gate.applied(ALICE, set_("steps", "a", "note", "now"), add)
    assert value(conn, "select array_agg(place order by id) from steps") == [1, 11]


def test_a_unique_column_named_for_several_records(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    live(conn, "seats", "id text primary key, number integer unique, name text")
    conn.execute("insert into seats (id, number) values ('a', 1), ('b', 2)")
    gate.applied(ALICE, set_("seats", "a", "number", 3), set_("seats", "b", "number", 1))
    gate.applied(ALICE, set_("seats", "a", "name", "A"), set_("seats", "b", "name", "B"))
    assert value(conn, "select array_agg(number || name order by id) from seats") == ["3A", "1B"]


def test_several_records_wait_for_the_first_before_the_others_are_locked(db: Database) -> None:
    gate, conn = Gate(db), db.connect()
    gate.conn.execute("set lock_timeout = 0")
    first = db.connect(autocommit=False)
    low, high = sorted([TASK_1, TASK_2])
    first.execute("update tasks set title = 'first' where id = %s", (low,))
    request = tx(title(high, "both"), title(low, "both"))
    waiting = Background(lambda: gate.send(ALICE, request))
    wait_blocked(conn, pid(gate.conn))
    first.execute("set lock_timeout = '2s'")
    first.execute("update tasks set title = 'first' where id = %s", (high,))
    first.commit()
    assert waiting.result().status == 200
    assert [stored(conn, t, "title") for t in (low, high)] == ["both", "both"]


@pytest.mark.parametrize(
    ("operations", "tags"),
    [
        ([insert(TASK_1, "tags", "a"), set_("tasks", TASK_1, "tags", ["b"])], ["b"]),
        ([set_("tasks", TASK_1, "tags", ["b"]), insert(TASK_1, "tags", "a")], ["b", "a"]),
        ([insert(TASK_1, "tags", "a"), insert(TASK_1, "tags", "b")], ["old", "a", "b"]),
        (
            [
                insert(TASK_1, "tags", "a"),
                set_("tasks", TASK_1, "metadata.x", 1),
                title(TASK_1, "t"),
            ],
            ["old", "a"],
        ),
    ],
)
def test_operations_on_one_column_follow_each_other(
    gate: Gate, conn: psycopg.Connection[Any], operations: list[Any], tags: list[str]
) -> None:
    conn.execute("update tasks set tags = '[\"old\"]' where id = %s", (TASK_1,))
    gate.applied(ALICE, *operations)
    assert stored(conn, TASK_1, "tags") == tags


def test_an_operation_that_a_later_one_would_cover_is_refused_still(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    before = stored(conn, TASK_1, "version")
    answer = gate.write(
        ALICE, insert(TASK_1, "metadata", "x"), set_("tasks", TASK_1, "metadata", {})
    )
    assert (answer.status, answer.code, answer.error["op"]) == (400, "not_a_list", 0)
    assert stored(conn, TASK_1, "version") == before


def test_stored_json_counts_by_its_size_not_by_what_it_is_compressed_to(
    gate: Gate, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("select sync.configure('max_record_bytes', 20000)")
    conn.execute(
        """update tasks set metadata = jsonb_build_object('x', repeat('a', 19000)) where id = %s""",
        (TASK_1,),
    )
    assert stored(conn, TASK_1, "pg_column_size(metadata)") < 2000
    answer = gate.write(ALICE, set_("tasks", TASK_1, "description", "b" * 2000))
    assert (answer.status, answer.error["limit"]) == (413, "max_record_bytes")


@pytest.mark.parametrize("ids", [["a"], ["a", "b"]], ids=["one", "several"])
def test_deleting_sets_the_column_also_where_a_unique_index_holds_it(
    gate: Gate, conn: psycopg.Connection[Any], ids: list[str]
) -> None:
    live(
        conn,
        "slugs",
        "id text primary key, slug text, deleted timestamptz, "
        "unique nulls not distinct (slug, deleted)",
        ", p_soft_delete => 'deleted'",
    )
    conn.execute("insert into slugs (id, slug) values ('a', 'x'), ('b', 'y')")
    gate.applied(ALICE, *[{"type": "delete", "table": "slugs", "id": i} for i in ids])
    query = "select array_agg(id order by id) from slugs where deleted is not null"
    assert value(conn, query) == ids
    gate.applied(ALICE, *[{"type": "restore", "table": "slugs", "id": i} for i in ids])
    assert value(conn, query) is None
