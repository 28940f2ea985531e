"""The hot statements use their indexes: looked at where they run, inside the functions."""

import json
import re
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.engine import ALICE, LAUNCH, TASK_1, Json, create, new_id, set_, title, tx, value

pytestmark = pytest.mark.both_versions

Conn = psycopg.Connection[Any]


def plans(conn: Conn, statement: str, *args: Any, user: str | None = None) -> list[Json]:
    """The plans of all statements that run inside a statement, as auto_explain tells them."""
    told: list[str] = []
    conn.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    for setting in (
        "log_min_duration = 0", "log_nested_statements = on", "log_format = json", "log_analyze = "
        "on",
        "log_level = notice",
    ):  # fmt: skip
        conn.execute(f"set local auto_explain.{setting}".encode())
    conn.execute("set local client_min_messages = notice")
    if user is not None:
        conn.execute("select sync.act_as(%s)", (user,))
        told.clear()
    conn.execute(statement.encode(), args or None)
    found = [
        json.loads(text[text.index("{") :]) for text in told if "plan:" in text and "{" in text
    ]
    conn.execute("reset role")
    conn.execute("set local auto_explain.log_min_duration = -1")
    return found


@pytest.fixture
def explaining(conn: Conn) -> Conn:
    """A connection whose statements tell their plans."""
    try:
        with conn.transaction():
            conn.execute("load 'auto_explain'")
    except psycopg.Error:
        pytest.skip("this server has no auto_explain")
    return conn


def nodes(plan: Json) -> list[Json]:
    """All nodes of a plan."""
    found, waiting = [], [plan["Plan"]]
    while waiting:
        node = waiting.pop()
        found.append(node)
        waiting += node.get("Plans", [])
    return found


def scans(found: list[Json], relation: str) -> list[Json]:
    """The nodes that read a relation, in all plans."""
    return [
        node
        for plan in found
        for node in nodes(plan)
        if re.fullmatch(relation, node.get("Relation Name", ""))
        and node["Node Type"] != "ModifyTable"
    ]


def test_feed_is_read_by_its_index(explaining: Conn) -> None:
    old = explaining.execute("select max(xid)::text from sync_internal.changes").fetchone()
    assert old
    statement = "select sync_internal.read_changes(%s::xid8, %s::xid8[], 10000)"
    found = plans(explaining, statement, old[0], [str(int(old[0]) - 5)])
    read = scans(found, "changes_[0-7]")
    assert read
    for node in read:
        assert by_index(node), node
        assert node["Actual Rows"] <= 1000, node
    conditions = " ".join(
        node.get("Index Cond", "")
        for plan in found
        for node in nodes(plan)
        if "Index" in node["Node Type"]
    )
    assert "xid >=" in conditions, [node for node in read if node["Actual Rows"]]
    assert "ANY" in conditions


def test_cursor_is_made_from_the_last_entry_of_the_index(explaining: Conn) -> None:
    read = scans(plans(explaining, "select sync_internal.cursor_now()"), "changes_[0-7]")
    assert read
    for node in read:
        assert by_index(node), node
        assert node["Actual Rows"] <= 1, node


def test_anchor_of_a_cursor_is_found_by_the_index(explaining: Conn) -> None:
    cursor = value(explaining, "select sync_internal.cursor_now()")
    read = scans(plans(explaining, "select sync_internal.read_cursor(%s)", cursor), "changes_[0-7]")
    assert read
    assert all(by_index(node) for node in read), read


def write(conn: Conn, *operations: Any) -> list[Json]:
    return plans(conn, "select sync.write(%s)", Jsonb(tx(*operations)), user=ALICE)


def by_index(node: Json) -> bool:
    """Whether a scan goes by an index; one that meets no row at all, of an empty leaf, may go by
    none.
    """
    met = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan") or met == 0


def assert_by_primary_key(read: list[Json]) -> None:
    assert read
    for node in read:
        assert node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), node
        assert "pkey" in node.get("Index Name", "pkey"), node
        assert node["Actual Rows"] <= 1, node


def test_generated_update_goes_by_the_primary_key(explaining: Conn) -> None:
    found = write(explaining, title(TASK_1, "planned"))
    updates = [
        plan for plan in found if plan["Query Text"].lstrip().startswith("update public.tasks")
    ]
    assert len(updates) == 1, [plan["Query Text"][:60] for plan in found]
    targets = [
        node
        for node in nodes(updates[0])
        if node.get("Relation Name") == "tasks" and node["Node Type"] != "ModifyTable"
    ]
    assert_by_primary_key(targets)


def test_generated_update_stays_on_the_key_as_a_generic_plan(explaining: Conn) -> None:
    explaining.execute("set local plan_cache_mode = force_generic_plan")
    found = write(explaining, title(TASK_1, "generic"))
    updates = [
        plan for plan in found if plan["Query Text"].lstrip().startswith("update public.tasks")
    ]
    targets = [
        node
        for node in nodes(updates[0])
        if node.get("Relation Name") == "tasks" and node["Node Type"] != "ModifyTable"
    ]
    assert_by_primary_key(targets)


def test_reference_is_looked_up_by_the_primary_key(explaining: Conn) -> None:
    found = write(explaining, create("tasks", new_id(), boardId=LAUNCH, title="planned"))
    for node in scans(found, "boards"):
        assert node["Node Type"] != "Seq Scan", node


def test_receipt_is_found_by_its_key(explaining: Conn) -> None:
    found = write(explaining, title(TASK_1, "receipt"))
    for node in scans(found, "receipts"):
        assert node["Node Type"] != "Seq Scan" or node["Plan Rows"] < 50, node


def test_single_write_reads_no_table_whole(explaining: Conn) -> None:
    found = write(explaining, set_("tasks", TASK_1, "metadata.a", 1))
    whole = [
        node
        for relation in ("tasks", "changes_[0-7]")
        for node in scans(found, relation)
        if node["Node Type"] == "Seq Scan"
    ]
    assert whole == []


def test_rows_of_given_ids_are_found_by_the_primary_key(explaining: Conn) -> None:
    found = plans(
        explaining,
        "select sync_internal.rows_authenticated('tasks', %s, true)",
        [TASK_1, new_id()],
        user=ALICE,
    )
    for node in scans(found, "tasks"):
        assert node["Node Type"] != "Seq Scan", node


def test_collection_is_queried_by_the_index_of_its_column(explaining: Conn) -> None:
    body = {"table": "tasks", "where": {"boardId": LAUNCH}, "limit": 50}
    read = scans(
        plans(explaining, "select sync.query(%s)", Jsonb(body), user=ALICE),
        "tasks",
    )
    assert read
    assert all(node["Node Type"] != "Seq Scan" for node in read), read


def test_policy_helper_runs_once_per_statement(explaining: Conn) -> None:
    body = {"table": "tasks", "where": {"boardId": LAUNCH}, "limit": 1000}
    found = plans(explaining, "select sync.query(%s)", Jsonb(body), user=ALICE)
    helpers = [
        plan
        for plan in found
        if "workspace_members" in plan["Query Text"] and "tasks t" not in plan["Query Text"]
    ]
    assert len(helpers) <= 2, len(helpers)


def test_next_of_a_lane_is_found_by_its_index(explaining: Conn) -> None:
    explaining.execute(
        """
        insert into jobs.pgqueuer (entrypoint, headers, priority, execute_after, status)
        select
            'webhook', jsonb_build_object('starts', 0, 'lane', 'l' || n % 20, 'aside', true), 0,
            now() + interval '1 minute', 'queued'
        from generate_series(1, 5000) n;
        analyze jobs.pgqueuer;
        """
    )
    found = plans(explaining, "select jobs.call_next('webhook', 'l7')")
    used = {node.get("Index Name") for plan in found for node in nodes(plan)}
    assert "pgqueuer_lane" in used
    assert "Seq Scan" not in {node["Node Type"] for plan in found for node in nodes(plan)}
