"""Calling SQL functions that were exposed, with the caller's rights."""

import psycopg
import pytest

from tests.sql.engine import (
    ALICE,
    CAROL,
    GARDEN,
    LAUNCH,
    TASK_1,
    Gate,
    call,
    live,
    new_id,
    title,
    tx,
    value,
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
