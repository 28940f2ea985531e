"""Calling SQL functions that were exposed, with the caller's rights."""

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    CAROL,
    GARDEN,
    LAUNCH,
    TASK_1,
    Background,
    Gate,
    Json,
    call,
    live,
    new_id,
    pid,
    title,
    tx,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions


def test_call_returns_its_value_and_acts_as_the_caller(
    gate: Gate, conn: psycopg.Connection
) -> None:
    query = "select count(*) from tasks where board_id = %s and status <> 'done'"
    open_ = value(conn, query, LAUNCH)
    assert gate.applied(ALICE, call("completeBoard", boardId=LAUNCH)).body["values"] == [open_]
    assert value(conn, query, LAUNCH) == 0


def test_call_on_what_the_caller_may_not_see_is_neutral(gate: Gate) -> None:
    hidden = gate.write(CAROL, call("completeBoard", boardId=LAUNCH))
    missing = gate.write(CAROL, call("completeBoard", boardId=new_id()))
    assert (hidden.status, hidden.code) == (403, "forbidden")
    assert hidden.body | {"txId": 0} == missing.body | {"txId": 0}


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (call("noSuchFunction"), "unknown_function"),
        (call(""), "unknown_function"),
        (call("pg_sleep", seconds=1), "unknown_function"),
        (call("completeBoard"), "required"),
        (call("completeBoard", boardId=LAUNCH, more=1), "unknown_argument"),
        (call("completeBoard", boardId=5), "wrong_type"),
        (call("completeBoard", p_board_id=LAUNCH), "unknown_argument"),
        ({"type": "call", "fn": "completeBoard", "args": [LAUNCH]}, "bad_request"),
        ({"type": "call", "fn": 5, "args": {}}, "bad_request"),
        ({"type": "call", "fn": "completeBoard", "args": {}, "id": TASK_1}, "bad_request"),
    ],
)
def test_malformed_call_is_refused(common: Gate, operation: object, code: str) -> None:
    answer = common.write(ALICE, operation)
    assert (answer.status, answer.code) == (400, code), answer


def test_refused_call_undoes_the_operations_beside_it(gate: Gate, conn: psycopg.Connection) -> None:
    answer = gate.write(ALICE, title(TASK_1, "beside"), call("completeBoard", boardId=GARDEN))
    assert answer.status == 403
    assert value(conn, "select title from tasks where id = %s", TASK_1) != "beside"


FUNCTIONS = """
    create function public.add_up(p_a integer, p_b numeric default 2, p_note text default 'none')
    returns jsonb language sql as $$ select jsonb_build_object('sum', p_a + p_b, 'note', p_note) $$;
    create function public.do_nothing() returns void language sql as $$ select $$;
    create function public.whose() returns text language sql as $$ select current_user || ' ' ||
        auth.uid() $$;
    create function public.tagged(p_tags text[], p_more jsonb) returns bigint language sql
    as $$ select cardinality(p_tags) + jsonb_array_length(p_more) $$;
    create function public.withheld() returns integer language sql as $$ select 1 $$;
    revoke execute on function public.withheld from public;
    select sync.expose('public.add_up(integer, numeric, text)'), sync.expose('public.do_nothing()'),
        sync.expose('public.whose()'), sync.expose('public.tagged(text[], jsonb)', 'countTags'),
        sync.expose('public.withheld()');
"""


def test_arguments_defaults_and_results(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    answer = gate.applied(
        ALICE,
        call("addUp", a=1),
        call("addUp", a=1, b="2.5", note="n"),
        call("doNothing"),
        call("whose"),
        call("countTags", tags=["a", "b"], more=[1]),
    )
    assert answer.body["values"] == [
        {"sum": 3, "note": "none"}, {"sum": 3.5, "note": "n"}, None, f"authenticated {ALICE}", 3,
    ]  # fmt: skip


def test_function_not_granted_is_unknown_or_forbidden(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    assert gate.write(ALICE, call("withheld")).code == "unknown_function"
    conn.execute("revoke execute on function public.whose from public")
    assert gate.write(ALICE, call("whose")).status == 403
    conn.execute(
        "grant execute on function public.withheld to authenticated; select sync.refresh()"
    )
    assert gate.applied(ALICE, call("withheld")).body["values"] == [1]


@pytest.mark.parametrize(
    "function",
    [
        "several() returns setof integer language sql as $$ select 1 $$",
        "out_only(out a integer) language sql as $$ select 1 $$",
        "unnamed(integer) returns integer language sql as $$ select 1 $$",
        "many(variadic p_a integer[]) returns integer language sql as $$ select 1 $$",
        "fires() returns trigger language plpgsql as $$ begin return new; end $$",
        "waits(p_for interval) returns integer language sql as $$ select 1 $$",
        "takes(p_any anyelement) returns integer language sql as $$ select 1 $$",
        "lists(p_when timestamptz[]) returns integer language sql as $$ select 1 $$",
    ],
)
def test_function_that_clients_cannot_call_is_refused_with_a_hint(
    tx: psycopg.Connection, function: str
) -> None:
    tx.execute(f"create function public.{function}".encode())
    name = function.split("(", maxsplit=1)[0]
    signature = value(tx, "select oid::regprocedure::text from pg_proc where proname = %s", name)
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        tx.execute("select sync.expose(%s::regprocedure)", (signature,))
    assert refused.value.diag.message_hint


def test_only_the_owner_of_a_function_exposes_it(conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    with conn.transaction(force_rollback=True):
        conn.execute("create role stranger in role rowcast_owner")
        conn.execute("set local role stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select sync.expose('public.add_up(integer, numeric, text)')")


def exposed(conn: psycopg.Connection) -> Json:
    """The functions that clients are told of."""
    functions: Json = value(conn, "select sync.describe() -> 'functions'")
    return functions


def findings(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """What the doctor says of exposed functions, with the fix."""
    query = "select object, fix from sync.doctor() where code = 'function_changed' order by 1"
    return conn.execute(query).fetchall()


def test_unexposed_function_is_unknown_and_stays(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    conn.execute("select sync.unexpose('countTags')")
    assert "countTags" not in exposed(conn)
    assert "addUp" in exposed(conn)
    assert gate.write(ALICE, call("countTags", tags=[], more=[])).code == "unknown_function"
    assert value(conn, "select public.tagged('{a}', '[]')") == 1
    conn.execute("select sync.expose('public.tagged(text[], jsonb)')")
    assert gate.applied(ALICE, call("tagged", tags=[], more=[])).body["values"] == [0]


def test_only_what_is_exposed_and_ones_own_can_be_unexposed(conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        conn.execute("select sync.unexpose('tagged')")
    assert refused.value.diag.message_hint
    with conn.transaction(force_rollback=True):
        conn.execute("create role stranger in role rowcast_owner")
        conn.execute("set local role stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select sync.unexpose('addUp')")


def test_function_has_one_name_and_a_name_one_function(conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    conn.execute("select sync.expose('public.whose()', 'whose')")
    for again, fix in (
        ("'public.whose()', 'who'", "sync.unexpose('whose')"),
        ("'public.tagged(text[], jsonb)'", "sync.unexpose('countTags')"),
        ("'public.do_nothing()', 'whose'", "sync.unexpose('doNothing')"),
        ("'public.unnamed()', 'whose'", "sync.unexpose('whose')"),
    ):
        conn.execute(
            "create or replace function public.unnamed() returns integer language sql as 'select 1'"
        )
        with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
            conn.execute(f"select sync.expose({again})".encode())
        assert fix in (refused.value.diag.message_hint or "")


def test_two_who_expose_one_function_at_once_get_one_name(
    db: Database, conn: psycopg.Connection
) -> None:
    conn.execute("create function public.alone() returns integer language sql as 'select 1'")
    first, second = db.connect(), db.connect()
    first.execute("begin")
    first.execute("select sync.expose('public.alone()', 'one')")
    waiting = Background(lambda: second.execute("select sync.expose('public.alone()', 'two')"))
    wait_blocked(conn, pid(second))
    first.execute("commit")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        waiting.result()
    assert "one" in exposed(conn)


def test_dropped_function_is_unknown_at_once_and_holds_no_name(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(FUNCTIONS.encode())
    conn.execute("drop function public.whose()")
    answer = gate.write(ALICE, call("whose"))
    assert (answer.status, answer.code) == (400, "unknown_function")
    assert "whose" not in exposed(conn)
    assert findings(conn) == [("whose", "select sync.unexpose('whose');")]
    conn.execute("select sync.expose('public.do_nothing()')")
    conn.execute("create function public.heir() returns integer language sql as 'select 7'")
    conn.execute("select sync.expose('public.heir()', 'whose')")
    assert gate.applied(ALICE, call("whose")).body["values"] == [7]
    conn.execute("drop function public.heir()")
    conn.execute("select sync.unexpose('whose')")
    assert findings(conn) == []


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        (
            "drop function public.tagged(text[], jsonb); create function "
            "public.tagged(p_tags uuid[], p_more jsonb) returns bigint language sql as 'select 1'",
            "select sync.expose('public.tagged(uuid[],jsonb)', 'countTags');",
        ),
        (
            "drop function public.tagged(text[], jsonb); create function "
            "public.tagged(p_words text[], p_more jsonb) returns bigint language sql as 'select 1'",
            "select sync.refresh();",
        ),
        (
            "drop function public.tagged(text[], jsonb); create function "
            "public.tagged(p_tags text[], p_more jsonb) returns void language sql as 'select'",
            "select sync.refresh();",
        ),
        (
            "create or replace function public.tagged(p_tags text[], p_more jsonb default '[]') "
            "returns bigint language sql as 'select 1'",
            "select sync.refresh();",
        ),
    ],
)
def test_function_made_anew_is_refused_with_the_fix(
    gate: Gate, conn: psycopg.Connection, change: str, fix: str
) -> None:
    conn.execute(FUNCTIONS.encode())
    conn.execute(change.encode())
    answer = gate.write(ALICE, call("countTags", tags=[], more=[]))
    assert (answer.status, answer.code) == (503, "schema_changed")
    assert fix[:15] in answer.body["detail"]
    assert findings(conn) == [("countTags", fix)]
    conn.execute(fix.encode())
    assert findings(conn) == []
    called = gate.write(ALICE, call("countTags", tags=[], more=[]))
    assert (called.status, called.code) in ((200, None), (400, "unknown_argument"))
    if "default" in change:
        gate.applied(ALICE, call("countTags", tags=[]))


def test_function_replaced_by_its_like_goes_on(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(FUNCTIONS.encode())
    conn.execute(
        "drop function public.do_nothing(); create function public.do_nothing() returns void "
        "language sql as 'select'"
    )
    gate.applied(ALICE, call("doNothing"))
    assert findings(conn) == []


def test_setting_a_call_left_is_gone_with_it(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(
        """
        create function public.leave() returns text language sql
        as $$ select set_config('app.left', 'here', true) $$;
        select sync.expose('public.leave()');
        """
    )
    live(conn, "seeing", "id text primary key, seen text default current_setting('app.left', true)")
    left, seen = gate.write_all(
        [
            (ALICE, tx(call("leave"))),
            (
                CAROL,
                {
                    "transactions": [
                        tx({"type": "create", "table": "seeing", "id": "s", "value": {}})
                    ]
                },
            ),
        ]
    )
    assert (left.again, seen.again) == (True, False)
    assert gate.send(ALICE, tx(call("leave"))).status == 200
    assert value(conn, "select seen from seeing") in (None, "")
