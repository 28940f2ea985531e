"""A table that changed since its code was made: served right or refused with the fix, never
wrongly.
"""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    LAUNCH,
    TASK_1,
    TASK_2,
    Gate,
    create,
    live,
    new_id,
    set_,
    title,
    value,
)

pytestmark = pytest.mark.both_versions


def codes(gate: Gate, *operations: Any) -> tuple[int, str | None]:
    answer = gate.write(ALICE, *operations)
    return answer.status, answer.code


@pytest.mark.parametrize(
    "change",
    [
        "alter table tasks add column extra text",
        "alter table tasks add column extra text not null default 'x'",
        "alter table tasks drop column due_date",
        "alter table tasks rename column due_date to due_on",
        "alter table tasks alter column due_date type text",
        "alter table tasks add column extra integer not null generated always as identity",
        "alter table tasks drop column description; alter table tasks add column description "
        "integer",
    ],
)
def test_changed_columns_are_served_right_or_refused_with_the_fix(
    gate: Gate, conn: psycopg.Connection, change: str
) -> None:
    conn.execute(change.encode())
    made = new_id()
    for operation in (
        title(TASK_1, "changed"),
        create("tasks", made, boardId=LAUNCH, title="made"),
    ):
        answer = gate.write(ALICE, operation)
        if answer.status != 200:
            assert (answer.status, answer.code) == (503, "schema_changed"), answer
            assert "sync.refresh" in answer.body["detail"]
    for door, body in (
        ("get_records", {"pointers": [{"table": "tasks", "id": TASK_1}]}),
        ("query", {"table": "tasks", "where": {"id": TASK_1}}),
    ):
        try:
            record = gate.ask(door, ALICE, body)["recordMap"]["tasks"][TASK_1]
        except psycopg.Error as error:
            assert error.sqlstate == "PT503", error
            assert "schema_changed" in (error.diag.message_detail or "")
        else:
            assert record["id"] == TASK_1
    conn.execute("select sync.refresh('tasks')")
    gate.applied(ALICE, title(TASK_1, "after"))
    gate.applied(
        ALICE,
        create(
            "tasks",
            made if gate.get_records(ALICE, ("tasks", made))["gone"] else new_id(),
            boardId=LAUNCH,
            title="made",
        ),
    )
    record = gate.get_records(ALICE, ("tasks", TASK_1))["recordMap"]["tasks"][TASK_1]
    assert record["title"] == "after"
    assert ("extra" in record) == ("extra" in change)
    assert ("dueOn" in record) == ("due_on" in change)


def test_plain_sql_goes_on_while_a_column_is_added(gate: Gate, conn: psycopg.Connection) -> None:
    cursor = gate.cursor()
    conn.execute("alter table tasks add column extra text")
    conn.execute("update tasks set title = 'plain', extra = 'x' where id = %s", (TASK_1,))
    (change,) = gate.changes(cursor)["changes"]
    assert change["patch"]["title"] == "plain"
    assert "extra" not in change["patch"]


def test_new_column_is_served_after_refresh(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "things", "id text primary key")
    conn.execute("insert into things values ('a')")
    conn.execute("alter table things add column name text")
    assert codes(gate, set_("things", "a", "name", "x")) == (503, "schema_changed")
    conn.execute("select sync.refresh('things')")
    cursor = gate.cursor()
    assert codes(gate, set_("things", "a", "name", "x")) == (200, None)
    assert gate.changes(cursor)["changes"][0]["patch"] == {"name": "x"}


def test_new_grant_is_served_after_refresh(gate: Gate, conn: psycopg.Connection) -> None:
    assert codes(gate, set_("tasks", TASK_1, "createdAt", "2020-01-01T00:00:00Z")) == (
        403,
        "forbidden_key",
    )
    live(conn, "things", "id text primary key, name text")
    conn.execute("insert into things values ('a')")
    conn.execute("revoke update on things from authenticated")
    assert codes(gate, set_("things", "a", "name", "x")) == (503, "schema_changed")
    conn.execute("select sync.refresh('things')")
    assert codes(gate, set_("things", "a", "name", "x")) == (403, "forbidden_key")
    conn.execute("grant update (name) on things to authenticated")
    assert codes(gate, set_("things", "a", "name", "x")) == (503, "schema_changed")
    conn.execute("select sync.refresh('things')")
    assert codes(gate, set_("things", "a", "name", "x")) == (200, None)


def test_revoked_read_is_served_at_once(gate: Gate, conn: psycopg.Connection) -> None:
    """No refresh: a column somebody may not read any more is in no answer."""
    conn.execute("revoke select on tasks from authenticated")
    conn.execute("grant select (id, version, board_id, title) on tasks to authenticated")
    for door, body in (
        ("get_records", {"pointers": [{"table": "tasks", "id": TASK_1}]}),
        ("query", {"table": "tasks"}),
    ):
        try:
            answer = gate.ask(door, ALICE, body)
        except psycopg.Error as error:
            assert error.sqlstate in ("PT503", "PT403"), error
        else:
            assert "Three paragraphs" not in str(answer)
    assert "description" in gate.visible(ALICE, {"tasks": []})["hidden"]["tasks"]


def test_policy_holds_at_once(gate: Gate, conn: psycopg.Connection) -> None:
    before = gate.changes(None)["fingerprint"]
    conn.execute(
        "create policy none on tasks as restrictive for all to authenticated using (title <> "
        "'secret')"
    )
    assert gate.changes(None)["fingerprint"] != before
    conn.execute("update tasks set title = 'secret' where id = %s", (TASK_1,))
    assert TASK_1 not in gate.query(ALICE, "tasks")["ids"]
    assert gate.get_records(ALICE, ("tasks", TASK_1))["recordMap"] == {}
    assert codes(gate, title(TASK_1, "x"))[0] in (403, 503)
    assert codes(gate, title(TASK_2, "x")) == (200, None)


@pytest.mark.parametrize(
    "change",
    [
        "revoke select on tasks from authenticated",
        "grant select (title) on tasks to anon",
        "alter policy tasks_select on tasks using (false)",
        "alter table tasks disable row level security",
        "create or replace function app_private.my_board_ids() returns setof uuid language sql "
        "stable security definer "
        "set search_path = pg_catalog, pg_temp begin atomic select b.id from public.boards b; end",
        "grant service_role to authenticated",
        "alter table tasks owner to rowcast_owner",
    ],
)
def test_fingerprint_changes_with_who_can_see_what(
    gate: Gate, conn: psycopg.Connection, change: str
) -> None:
    before = gate.changes(None)["fingerprint"]
    assert gate.changes(None)["fingerprint"] == before
    with conn.transaction(force_rollback=True):
        conn.execute(change.encode())
        inside = value(conn, "select sync_internal.fingerprint()")
    assert inside != before
    assert gate.changes(None)["fingerprint"] == before


def test_refresh_moves_with_the_unique_indexes(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("create unique index once on tasks (board_id, title)")
    conn.execute("select sync.refresh('tasks')")
    conn.execute("update tasks set title = 'taken' where id = %s", (TASK_2,))
    assert codes(gate, title(TASK_1, "taken")) == (409, "exists")


def test_doctor_tells_what_is_wrong(db: Database, conn: psycopg.Connection) -> None:
    def found() -> set[tuple[str, str]]:
        return set(conn.execute("select code, object from sync.doctor()").fetchall())

    assert {code for code, _ in found()} <= {
        "epoch_differs",
        "commits_may_be_lost",
        "prepared_transactions",
        "minor_version",
        "sizes",
    }
    for change, code, object_ in (
        ("alter table tasks disable row level security", "row_security_off", "tasks"),
        ("alter table tasks disable trigger zzz_rowcast_update", "trigger_missing", "tasks"),
        ("drop trigger zzz_rowcast_delete on tasks", "trigger_missing", "tasks"),
        ("alter table tasks add column extra text", "shape_changed", "tasks"),
        (
            "drop policy tasks_select on tasks; drop policy tasks_service on tasks",
            "no_policy",
            "tasks",
        ),
        (
            "create policy p on tasks for select to authenticated using (deleted is null)",
            "soft_delete_in_policy",
            "tasks",
        ),
        ("alter role authenticated bypassrls", "role_bypasses_rls", "authenticated"),
        ("alter table tasks owner to authenticated", "role_owns_table", "authenticated"),
        ("grant service_role to rowcast_gateway", "gateway_too_strong", "service_role"),
    ):
        with conn.transaction(force_rollback=True):
            conn.execute(change.encode())
            assert any(code == c and object_ in o for c, o in found()), (change, found())
    rows = conn.execute("select severity, message, fix from sync.doctor()").fetchall()
    assert all(
        severity in ("error", "warning", "info") and message and fix
        for severity, message, fix in rows
    )


def test_describe_tells_the_registry(gate: Gate, conn: psycopg.Connection) -> None:
    told = value(conn, "select sync.describe()")
    assert set(told["tables"]) == {
        "workspaces", "workspaceMembers", "boards", "tasks", "comments", "notebooks",
        "notebookMembers", "notes",
    }  # fmt: skip
    tasks = told["tables"]["tasks"]
    assert (tasks["idType"], tasks["softDelete"], tasks["touch"]) == (
        "uuid",
        "deleted",
        "updatedAt",
    )
    assert (tasks["hardDelete"], tasks["wholeTable"], tasks["stale"]) == (False, True, False)
    keys = tasks["keys"]
    assert keys["boardId"] | {"default": 0} == {
        "type": "uuid", "nullable": False, "required": True, "topic": True, "references": "boards",
        "default": 0,
    }  # fmt: skip
    assert keys["status"]["values"] == ["todo", "in_progress", "done"]
    assert keys["status"]["default"] == {"constant": "todo"}
    assert keys["createdBy"]["serverOwned"] is True
    assert keys["createdBy"]["default"] == {"user": True}
    assert keys["createdAt"]["default"] == {"now": True}
    assert keys["metadata"]["default"] == {"constant": {}}
    assert keys["id"]["default"] == {"uuid": True}
    assert keys["dueDate"]["nullable"] is True
    assert told["functions"] == {"completeBoard": {"boardId": {"type": "uuid", "required": True}}}
    conn.execute("alter table tasks add column extra text")
    assert value(conn, "select sync.describe()")["tables"]["tasks"]["stale"] is True


def test_describe_tells_everybody_and_nothing_of_rows(
    db: Database, conn: psycopg.Connection
) -> None:
    gateway = db.connect("rowcast_gateway")
    told = str(value(gateway, "select sync.describe()"))
    for secret in ("Demo", BOB, "Launch", "app_private", "my_board_ids"):
        assert secret not in told


def test_whole_table_can_be_closed(gate: Gate, conn: psycopg.Connection) -> None:
    live(
        conn,
        "logs",
        "id text primary key, place text",
        ", p_whole_table => false, p_topics => '{place}'",
    )
    joined = gate.subscribe(ALICE, "logs", "logs?place=x", "logs:a")
    assert joined["errors"] == [{"key": "logs", "code": "unknown_collection"}]
    assert {key["key"] for key in joined["keys"]} == {"logs?place=x", "logs:a"}


def test_settings_are_checked(conn: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        conn.execute("select sync.configure('no_such', 1)")
    assert refused.value.diag.message_hint
    with pytest.raises(psycopg.Error):
        conn.execute("select sync.configure('max_path', 0)")
    conn.execute("select sync.configure('max_path', 3)")
    assert value(conn, "select sync_internal.setting('max_path')") == 3
