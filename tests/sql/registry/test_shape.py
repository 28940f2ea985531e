"""A table that changed since its code was made: served right or refused with the fix, never
wrongly.
"""

import json
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    TASK_1,
    TASK_2,
    Background,
    Gate,
    create,
    live,
    new_id,
    pid,
    set_,
    title,
    tx,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions


def codes(gate: Gate, *operations: Any) -> tuple[int, str | None]:
    answer = gate.write(ALICE, *operations)
    return answer.status, answer.code


CHANGES = {
    "type": "alter table things alter column n type text",
    "time": "alter table things alter column at type date",
    "wider": "alter table things alter column n type bigint",
    "dropped": "alter table things drop column n",
    "dropped and added": "alter table things drop column n; alter table things add column n text",
    "renamed": "alter table things rename column n to m",
    "added": "alter table things add column extra text",
    "default": "alter table things alter column n set default 7",
    "nullable": "alter table things alter column name drop not null",
    "granted": "grant select on things to anon",
    "revoked": "revoke update (n) on things from authenticated",
    "column revoked": "revoke select on things from authenticated; "
    "grant select (id, version, name) on things to authenticated",
    "reference": "alter table things add column parent text references things",
    "foreign key": "alter table things add foreign key (name) references things not valid",
    "deferrable constraint": "alter table things add unique (name) deferrable",
    "security off": "alter table things disable row level security",
    "renamed table": "alter table things rename to objects",
    "another table": "alter table things rename to objects; create table things "
    "(like objects including all); grant all on things to authenticated; "
    "alter table things enable row level security; "
    "create policy all_ on things using (true) with check (true)",
}


@pytest.fixture
def things(gate: Gate, conn: psycopg.Connection) -> Gate:
    """A live table whose code is planned in the gateway's session."""
    live(
        conn,
        "things",
        "id text primary key, name text not null default 'a', n integer default 1, at timestamptz",
    )
    conn.execute("revoke update on things from authenticated")
    conn.execute("grant update (name, n, at) on things to authenticated")
    conn.execute("insert into things (id) values ('a')")
    conn.execute("select sync.refresh('things')")
    for number in range(8):
        gate.applied(ALICE, set_("things", "a", "n", number))
        gate.query(ALICE, "things")
        gate.get_records(ALICE, ("things", "a"))
    return gate


@pytest.mark.parametrize("change", CHANGES)
def test_changed_table_is_refused_with_the_fix(
    things: Gate, conn: psycopg.Connection, db: Database, change: str
) -> None:
    conn.execute(CHANGES[change].encode())
    table = "things" if "table" not in change else "objects"
    rows = f"select array_agg(t::text order by id) from {table} t"
    before = value(conn, rows)
    for gate in (things, Gate(db)):  # plans made before, and new ones
        for operation in (
            set_("things", "a", "n", 5),
            set_("things", "a", "name", "x"),
            set_("things", "a", "at", "2020-01-01T00:00:00Z"),
            set_("things", "a", "nothing", 1),
            create("things", "b", name="b"),
        ):
            answer = gate.write(ALICE, operation)
            assert (answer.status, answer.code) == (503, "schema_changed"), (operation, answer)
            assert "sync.refresh(" in answer.body["detail"]
        for door, body in (
            ("get_records", {"pointers": [{"table": "things", "id": "a"}]}),
            ("query", {"table": "things"}),
            ("query_open", {"table": "things"}),
        ):
            refused = gate.refusal(door, ALICE, body)
            assert (refused["status"], refused["code"]) == (503, "schema_changed"), refused
            assert "sync.refresh(" in refused["message"]
    assert value(conn, rows) == before
    assert conn.execute("select code from sync.doctor() where code = 'shape_changed'").fetchall()
    if change == "another table":
        conn.execute("drop table things")
    conn.execute(f"alter table {table} enable row level security".encode())
    conn.execute(f"select sync.refresh('{table}')".encode())
    name = "a" if change == "foreign key" else "after"
    things.applied(ALICE, set_("things", "a", "name", name))
    record = things.get_records(ALICE, ("things", "a"))["recordMap"]["things"]["a"]
    assert record["name"] == name
    assert things.query(ALICE, "things")["ids"] == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        "grant select on things to rowcast_worker",
        "alter table things add constraint small check (n < 100)",
        "create unique index once on things (name)",
        "create policy more on things for select to anon using (false)",
        "create function public.again() returns trigger language plpgsql as 'begin return new; end'"
        "; create trigger again before update on things execute function again()",
        "analyze things",
        "comment on column things.n is 'a number'",
        "alter table things set (fillfactor = 90)",
    ],
)
def test_change_that_the_code_does_not_copy_refuses_nothing(
    things: Gate, conn: psycopg.Connection, change: str
) -> None:
    conn.execute(change.encode())
    things.applied(ALICE, set_("things", "a", "n", 50))
    assert things.query(ALICE, "things")["recordMap"]["things"]["a"]["n"] == 50


def test_write_that_waited_for_the_change_is_refused(
    things: Gate, db: Database, conn: psycopg.Connection
) -> None:
    """Its statement has an older snapshot than the lock it waits for."""
    for gate in (things, Gate(db)):
        altering = db.connect()
        altering.execute("begin")
        altering.execute(
            "alter table things alter column n type text using n::text;"
            "alter table things alter column n set default 'one'"
        )
        waiting = Background(partial(gate.write, ALICE, set_("things", "a", "n", 9)))
        wait_blocked(conn, pid(gate.conn))
        altering.execute("commit")
        answer = waiting.result()
        assert (answer.status, answer.code) == (503, "schema_changed")
        assert value(conn, "select n from things") == "7"
        assert gate.write(ALICE, set_("things", "a", "n", 9)).code == "schema_changed"
        conn.execute(
            "begin; alter table things alter column n drop default;"
            "alter table things alter column n type integer using n::integer;"
            "alter table things alter column n set default 1; commit"
        )
        gate.applied(ALICE, set_("things", "a", "n", 7))


def test_changed_back_is_served_without_refresh(things: Gate, conn: psycopg.Connection) -> None:
    conn.execute("alter table things add column extra text")
    assert codes(things, set_("things", "a", "n", 1)) == (503, "schema_changed")
    conn.execute("alter table things drop column extra")
    assert codes(things, set_("things", "a", "n", 1)) == (200, None)


def test_repeat_of_what_was_applied_before_the_change_is_a_duplicate(
    things: Gate, conn: psycopg.Connection
) -> None:
    sent = tx(set_("things", "a", "n", 2))
    things.send(ALICE, {"transactions": [sent]})
    conn.execute("alter table things add column extra text")
    answer = things.send(ALICE, {"transactions": [sent]})
    assert answer.outcomes == ["duplicate"]


def test_table_beside_a_changed_one_is_served(things: Gate, conn: psycopg.Connection) -> None:
    conn.execute("alter table things add column extra text")
    things.applied(ALICE, title(TASK_1, "x"))
    answers = things.write_all(
        [(ALICE, tx(set_("things", "a", "n", 3))), (BOB, tx(title(TASK_2, "y")))]
    )
    assert [answer.status for answer in answers] == [503, 200]


@pytest.mark.parametrize("change", [*list(CHANGES)[:10], "security off"])
def test_plain_sql_goes_on_and_is_told_as_a_whole(
    things: Gate, conn: psycopg.Connection, change: str
) -> None:
    conn.execute(CHANGES[change].encode())
    cursor = things.cursor()
    conn.execute("update things set name = 'plain'")
    conn.execute("insert into things (id) values ('b')")
    conn.execute("delete from things where id = 'b'")
    conn.execute("update things set name = 'x' where id = 'nobody'")
    changes = things.changes(cursor)["changes"]
    assert [(told["kind"], told["id"]) for told in changes] == [("bulk", None)] * 3
    assert value(conn, "select name from things") == "plain"
    conn.execute("alter table things enable row level security; select sync.refresh('things')")
    cursor = things.changes(cursor)["cursor"]
    conn.execute("update things set name = 'told'")
    (told,) = things.changes(cursor)["changes"]
    assert told["patch"] == {"name": "told"}


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
    hidden = value(gate.conn, "select sync_internal.hidden_columns('authenticated', '{tasks}')")
    assert "description" in hidden["tasks"]


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
        "notebookMembers", "noteFiles", "notes", "profiles", "taskFiles",
        "workspaceInvitations", "notebookInvitations", "notificationSettings", "jobRuns",
        "jobRunFiles",
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
    assert tasks["comment"] == "A task on a board."
    assert keys["metadata"]["comment"].startswith("Whatever an app wants to add")
    assert "comment" not in keys["title"]
    assert told["functions"] == {
        "acceptNotebookInvitation": {"id": {"type": "uuid", "required": True}},
        "acceptWorkspaceInvitation": {"id": {"type": "uuid", "required": True}},
        "beginImport": {},
        "completeBoard": {"boardId": {"type": "uuid", "required": True}},
        "findPerson": {"name": {"type": "text", "required": True}},
        "importWorkspaces": {"run": {"type": "uuid", "required": True}},
        "setWorkspaceWebhook": {
            "workspaceId": {"type": "uuid", "required": True},
            "url": {"type": "text", "required": True},
        },
        "startExport": {},
    }
    conn.execute("alter table tasks add column extra text")
    assert value(conn, "select sync.describe()")["tables"]["tasks"]["stale"] is True


@pytest.mark.parametrize(
    ("column", "default"),
    [
        ("integer default -1", {"constant": -1}),
        ("real default 0.5", {"constant": 0.5}),
        ("bigint default 0", {"constant": "0"}),
        ("bigint default -5", {"constant": "-5"}),
        ("numeric(10,2) default 1.50", {"constant": "1.50"}),
        ("boolean default true", {"constant": True}),
        ("text default 'it''s'", {"constant": "it's"}),
        ("text default 5", None),
        ("varchar(3) default 'a'", {"constant": "a"}),
        ("char(2) default 'c'", {"constant": "c"}),
        ("public.hue default 'red'", {"constant": "red"}),
        ("date default '2024-01-01'", {"constant": "2024-01-01"}),
        ("text[] default '{}'", {"constant": []}),
        ("jsonb default '[1]'", {"constant": [1]}),
        (f"uuid default '{ALICE}'", {"constant": ALICE}),
        ("timestamptz default now()", {"now": True}),
        ("text default 'a' || 'b'", None),
        ("text default 'a' || current_date", None),
        ("date default current_date", None),
        ("date default 'infinity'", None),
        ("text", None),
    ],
)
def test_describe_tells_defaults_as_the_wire_writes_them(
    tx: psycopg.Connection, column: str, default: Any
) -> None:
    tx.execute("create type public.hue as enum ('red', 'green')")
    live(tx, "kinds", f"id text primary key, v {column}")
    keys = value(tx, "select sync.describe()")["tables"]["kinds"]["keys"]
    assert keys["v"].get("default") == default


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


@pytest.mark.parametrize(
    ("column", "most"),
    [
        ("varchar(3)", 3),
        ("char(3)", 3),
        ("public.short", 3),
        ("public.shorter", 3),
        ("text", None),
        ("varchar", None),
        ("varchar(3)[]", None),
        ("numeric(3)", None),
        ("text check (length(v) <= 3)", None),
    ],
)
def test_describe_tells_how_long_a_text_may_be(
    tx: psycopg.Connection, column: str, most: int | None
) -> None:
    tx.execute("create domain public.short as varchar(3)")
    tx.execute("create domain public.shorter as public.short")
    live(tx, "kinds", f"id text primary key, v {column}")
    keys = value(tx, "select sync.describe()")["tables"]["kinds"]["keys"]
    assert keys["v"].get("maxLength") == most
    if most is not None:
        tx.execute("select sync.act_as(%s)", (ALICE,))
        good, bad = (
            value(tx, "select sync.write(%s::jsonb)", json.dumps(transaction))["results"][0]
            for transaction in (
                {"txId": new_id(), "operations": [create("kinds", text, v=text)]}
                for text in ("😀😀😀", "😀😀😀a")
            )
        )
        assert good["status"] == "applied"
        assert bad["error"]["code"] == "wrong_type"


@pytest.mark.parametrize("kind", ["varchar(3)[]", "char(3)[]"])
def test_what_is_too_long_for_a_list_is_refused_and_not_cut(
    conn: psycopg.Connection, gate: Gate, kind: str
) -> None:
    live(conn, "kinds", f"id text primary key, v {kind}")
    gate.applied(ALICE, create("kinds", "a", v=["abc", "  a"]))
    for operation in (
        create("kinds", "b", v=["abcd"]),
        set_("kinds", "a", "v", ["abcd"]),
        {"type": "listInsert", "table": "kinds", "id": "a", "key": "v", "value": "abcd"},
    ):
        assert gate.write(ALICE, operation).code == "wrong_type"
    assert value(conn, "select v from kinds where id = 'a'") == ["abc", "  a"]


def test_describe_tells_the_values_of_lists_of_an_enum(tx: psycopg.Connection) -> None:
    tx.execute("create type public.hue as enum ('red', 'green')")
    tx.execute("create domain public.hues as public.hue[]")
    live(tx, "kinds", "id text primary key, v public.hue[], w public.hues, x text[]")
    keys = value(tx, "select sync.describe()")["tables"]["kinds"]["keys"]
    assert keys["v"]["values"] == keys["w"]["values"] == ["red", "green"]
    assert "values" not in keys["x"]
    tx.execute("alter type public.hue add value 'blue'")
    assert value(tx, "select sync.describe()")["tables"]["kinds"]["stale"] is True


def test_describe_tells_what_the_caller_may_do(tx: psycopg.Connection) -> None:
    tx.execute(
        """
        create table public.kinds (
            id text primary key, free text, fixed text, later text, hidden text, seen text,
            own text, version integer not null default 1
        );
        alter table public.kinds enable row level security;
        grant select (id, version, free, fixed, later, seen, own) on public.kinds to authenticated;
        grant insert (id, free, fixed, hidden) on public.kinds to authenticated;
        grant update (free, later) on public.kinds to authenticated;
        grant select on public.kinds to anon;
        select sync.enable('public.kinds', p_server_owned => '{own}');
        """
    )

    def told() -> dict[str, dict[str, bool]]:
        names = ("readable", "insertable", "updatable")
        keys = value(tx, "select sync.describe()")["tables"]["kinds"]["keys"]
        return {
            key: {name: about[name] for name in names if name in about}
            for key, about in keys.items()
        }

    of_authenticated = {
        "id": {},
        "version": {},
        "free": {},
        "fixed": {"updatable": False},
        "later": {"insertable": False},
        "hidden": {"readable": False, "updatable": False},
        "seen": {"insertable": False, "updatable": False},
        "own": {},
    }
    assert told() == of_authenticated  # clients are made for them
    tx.execute("set local role anon")
    assert told()["free"] == {"insertable": False, "updatable": False}
    tx.execute("set local role rowcast_gateway")
    assert told() == of_authenticated
