"""Exactly once: what a repeated txId does, from whomever, at the same time, years later."""

import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    CAROL,
    LAUNCH,
    TASK_1,
    TASK_2,
    TOMATOES,
    Background,
    Gate,
    call,
    create,
    new_id,
    new_tx_id,
    pid,
    title,
    together,
    tx,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions

VOTE = {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": 1}


def votes(conn: psycopg.Connection) -> int:
    number: int = value(conn, "select (metadata ->> 'votes')::int from tasks where id = %s", TASK_1)
    return number


def test_repeat_has_no_effect_and_the_same_answer(gate: Gate, conn: psycopg.Connection) -> None:
    request = tx(VOTE)
    before, feed = votes(conn), gate.cursor()
    first = gate.send(ALICE, request)
    second = gate.send(ALICE, request)
    assert (first.status, first.body["status"]) == (200, "applied")
    assert (second.status, second.body["status"]) == (200, "duplicate")
    assert second.body | {"status": "applied"} == first.body
    assert votes(conn) == before + 1
    assert len(gate.changes(feed)["changes"]) == 1


def test_repeat_shows_the_row_as_it_is_now_and_the_version_as_it_was(gate: Gate) -> None:
    request = tx(title(TASK_1, "mine"))
    first = gate.send(ALICE, request).body
    gate.applied(BOB, title(TASK_1, "his"))
    again = gate.send(ALICE, request).body
    assert again["versions"] == first["versions"]
    record = again["recordMap"]["tasks"][TASK_1]
    assert (record["title"], record["version"]) == ("his", first["versions"][0]["version"] + 1)


def test_repeat_shows_nothing_of_a_row_its_author_may_not_read_any_more(gate: Gate) -> None:
    request = tx(title(TASK_1, "mine"))
    gate.send(BOB, request)
    remove_bob = {
        "type": "listRemove", "table": "workspaces",
        "id": "00000000-0000-7000-8000-0000000a0001", "key": "memberIds", "value": BOB,
    }  # fmt: skip
    gate.applied(ALICE, remove_bob)
    again = gate.send(BOB, request)
    assert again.body["status"] == "duplicate"
    assert again.body["recordMap"] == {}


def test_ten_at_the_same_time_have_one_effect_and_equal_answers(db: Database) -> None:
    conn = db.connect()
    gates = [Gate(db) for _ in range(10)]
    request = tx(VOTE)
    before = votes(conn)
    answers = together(*[lambda gate=gate: gate.send(ALICE, request) for gate in gates])
    assert [answer.status for answer in answers] == [200] * 10
    outcomes = sorted(answer.body.pop("status") for answer in answers)
    assert outcomes == ["applied"] + ["duplicate"] * 9
    assert all(answer.body == answers[0].body for answer in answers)
    assert votes(conn) == before + 1


def test_ten_at_the_same_time_inside_batches_have_one_effect(db: Database) -> None:
    conn = db.connect()
    gates = [Gate(db) for _ in range(10)]
    request = tx(VOTE)
    before = votes(conn)

    def send(gate: Gate, number: int) -> list[str]:
        beside = tx(title(TOMATOES, f"beside {number}"))
        outcomes = []
        for _ in range(100):
            try:
                mine, other = gate.write_all([(ALICE, request), (CAROL, beside)])
            except psycopg.errors.LockNotAvailable:
                continue
            outcomes.append(mine)
            if not mine.again and not other.again:
                break
        return [answer.body["status"] for answer in outcomes if not answer.again]

    results = together(*[lambda g=g, n=n: send(g, n) for n, g in enumerate(gates)])
    statuses = [status for result in results for status in result]
    assert statuses.count("applied") == 1, results
    assert set(statuses) <= {"applied", "duplicate"}
    assert votes(conn) == before + 1


def test_repeat_waits_for_the_first_to_end(gate: Gate, db: Database) -> None:
    request = tx(VOTE)
    slow = db.connect(autocommit=False)
    slow.execute("select sync.act_as(%s)", (ALICE,))
    slow.execute("select sync.write(%s)", (Jsonb(request),))
    repeat = Background(lambda: gate.send(ALICE, request))
    wait_blocked(db.connect(), pid(gate.conn))
    slow.commit()
    assert repeat.result().body["status"] == "duplicate"


def test_repeat_of_one_that_was_rolled_back_is_applied(gate: Gate, db: Database) -> None:
    request = tx(VOTE)
    slow = db.connect(autocommit=False)
    slow.execute("select sync.act_as(%s)", (ALICE,))
    slow.execute("select sync.write(%s)", (Jsonb(request),))
    repeat = Background(lambda: gate.send(ALICE, request))
    wait_blocked(db.connect(), pid(gate.conn))
    slow.rollback()
    assert repeat.result().body["status"] == "applied"


def test_receipt_held_elsewhere_does_not_hold_up_the_batch(gate: Gate, db: Database) -> None:
    request = tx(VOTE)
    slow = db.connect(autocommit=False)
    slow.execute("select sync.act_as(%s)", (ALICE,))
    slow.execute("select sync.write(%s)", (Jsonb(request),))
    held, free = gate.write_all([(ALICE, request), (CAROL, tx(title(TOMATOES, "free")))])
    assert (held.again, free.again, free.status) == (True, False, 200)
    slow.commit()
    assert gate.send(ALICE, request).body["status"] == "duplicate"


def test_receipt_held_too_long_is_retry_not_an_error(gate: Gate, db: Database) -> None:
    request = tx(VOTE)
    slow = db.connect(autocommit=False)
    slow.execute("select sync.act_as(%s)", (ALICE,))
    slow.execute("select sync.write(%s)", (Jsonb(request),))
    gate.conn.execute("set lock_timeout = '50ms'")
    answer = gate.send(ALICE, request)
    assert (answer.status, answer.code, answer.again) == (503, "retry", True)


@pytest.mark.parametrize(
    "operations", [[title(TOMATOES, "not his")], [{"type": "nonsense"}], [title(TASK_2, "other")]]
)
def test_same_id_in_flight_elsewhere_with_other_operations_is_retry(
    gate: Gate, db: Database, operations: list[object]
) -> None:
    request = tx(VOTE)
    slow = db.connect(autocommit=False)
    slow.execute("select sync.act_as(%s)", (ALICE,))
    slow.execute("select sync.write(%s)", (Jsonb(request),))
    gate.conn.execute("set lock_timeout = '50ms'")
    his = request | {"operations": operations}
    answer = gate.send(BOB, his)
    assert (answer.status, answer.code, answer.again) == (503, "retry", True)
    free, held = gate.write_all([(CAROL, tx(title(TOMATOES, "free"))), (BOB, his)])
    assert (free.status, held.again) == (200, True)
    slow.commit()
    assert gate.send(BOB, his).code == "tx_mismatch"


def test_repeat_does_not_wait_for_the_row(gate: Gate, db: Database) -> None:
    request = tx(VOTE)
    gate.send(ALICE, request)
    holder = db.connect(autocommit=False)
    holder.execute("select from tasks where id = %s for update", (TASK_1,))
    gate.conn.execute("set lock_timeout = '50ms'")
    assert gate.send(ALICE, request).body["status"] == "duplicate"
    holder.rollback()


@pytest.mark.parametrize(
    ("user", "change"),
    [
        pytest.param(BOB, {}, id="another author"),
        pytest.param(CAROL, {}, id="an author who may not see the record"),
        pytest.param(ALICE, {"operations": [title(TASK_1, "other")]}, id="other operations"),
        pytest.param(
            ALICE,
            {"expect": [{"table": "tasks", "id": TASK_1, "version": 1}]},
            id="another expectation",
        ),
        pytest.param(BOB, {"operations": [{"type": "nonsense"}]}, id="nonsense comes after it"),
        pytest.param(BOB, {"authorId": ALICE}, id="the authorId comes after it"),
    ],
)
def test_known_id_of_another_transaction_is_tx_mismatch_and_nothing_else(
    gate: Gate, conn: psycopg.Connection, user: str, change: dict[str, object]
) -> None:
    request = tx(title(TASK_1, "first"))
    gate.send(ALICE, request)
    answer = gate.send(user, request | change)
    assert (answer.status, answer.code) == (422, "tx_mismatch")
    assert set(answer.body) == {"type", "title", "status", "code", "detail", "txId"}
    assert value(conn, "select title from tasks where id = %s", TASK_1) == "first"
    assert gate.send(ALICE, request).body["status"] == "duplicate"


def test_equal_operations_written_in_another_way_are_the_same(gate: Gate) -> None:
    request = tx(
        {
            "type": "set",
            "table": "tasks",
            "id": TASK_1,
            "key": "metadata",
            "value": {"a": 1, "b": 2},
        }
    )
    gate.send(ALICE, request)
    op = {
        "value": {"b": 2.0, "a": 1},
        "key": "metadata",
        "id": TASK_1,
        "table": "tasks",
        "type": "set",
    }
    again = gate.send(ALICE, request | {"operations": [op], "clientTimestamp": 5, "expect": []})
    assert again.body["status"] == "duplicate"


def test_refused_id_sent_again_is_answered_the_same(gate: Gate) -> None:
    request = tx(title(TOMATOES, "not hers"))
    first, second = gate.send(ALICE, request), gate.send(ALICE, request)
    assert (first.status, first.code) == (403, "forbidden")
    assert second.body == first.body
    results = gate.send(ALICE, {"transactions": [request]}).body["results"]
    assert results[0]["status"] == "refused"


def test_refused_id_with_other_operations_is_a_new_attempt(gate: Gate) -> None:
    request = tx(title(TOMATOES, "not hers"))
    gate.send(ALICE, request)
    mended = request | {"operations": [title(TASK_1, "hers")]}
    assert gate.send(ALICE, mended).body["status"] == "applied"
    assert gate.send(ALICE, mended).body["status"] == "duplicate"
    assert gate.send(ALICE, request).code == "tx_mismatch"


def test_refused_id_of_another_author_is_tx_mismatch(gate: Gate) -> None:
    request = tx(title(TOMATOES, "not hers"))
    gate.send(ALICE, request)
    assert gate.send(BOB, request).code == "tx_mismatch"
    mended = request | {"operations": [title(TASK_1, "his")]}
    assert gate.send(BOB, mended).code == "tx_mismatch"


@pytest.mark.parametrize(
    ("operations", "status", "stored"),
    [
        pytest.param([title(TASK_1, "applied")], 200, 1, id="applied"),
        pytest.param([{"type": "nonsense"}], 400, 1, id="400"),
        pytest.param([title(TOMATOES, "x")], 403, 1, id="403"),
        pytest.param([create("tasks", TASK_1, title="x", boardId=LAUNCH)], 409, 1, id="409"),
        pytest.param([title(TASK_1, "x")] * 501, 422, 1, id="422"),
        pytest.param([title(TASK_1, "x" * 1_100_000)], 413, 0, id="413"),
    ],
)
def test_what_is_stored(
    gate: Gate, conn: psycopg.Connection, operations: list[object], status: int, stored: int
) -> None:
    request = tx(*operations)
    assert gate.send(ALICE, request).status == status
    query = "select count(*) from sync_internal.receipts where tx_id = %s"
    assert value(conn, query, request["txId"]) == stored


def test_retry_and_blocked_are_not_stored(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    gate.conn.execute("set lock_timeout = '50ms'")
    holder = db.connect(autocommit=False)
    holder.execute("select from tasks where id = %s for update", (TASK_1,))
    gone, absent = new_id(), new_id()
    requests = [
        tx(create("boards", gone, workspaceId=absent, name="nowhere")),
        tx(create("tasks", new_id(), boardId=gone, title="blocked")),
        tx(title(TASK_1, "locked")),
        tx(title(TASK_2, "behind it")),
    ]
    answer = gate.send(ALICE, {"transactions": requests})
    assert answer.outcomes == ["refused", "refused", "retry", "retry"]
    codes = [result["error"]["code"] for result in answer.body["results"]]
    assert codes == ["forbidden", "blocked", "retry", "retry"]
    assert value(conn, "select count(*) from sync_internal.receipts") == 1
    holder.rollback()
    again = gate.send(ALICE, {"transactions": requests[2:]})
    assert again.outcomes == ["applied", "applied"]


def test_id_below_the_floor_is_too_old(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("update sync_internal.state set receipt_floor = now() - interval '2 days'")
    old = tx(title(TASK_1, "late")) | {"txId": new_tx_id(-2 * 86400 - 100)}
    answer = gate.send(ALICE, old)
    assert (answer.status, answer.code) == (410, "too_old")
    young = tx(title(TASK_1, "in time")) | {"txId": new_tx_id(-2 * 86400 + 100)}
    assert gate.send(ALICE, young).status == 200
    without_time = tx(title(TASK_1, "version 4")) | {"txId": str(uuid.uuid4())}
    assert gate.send(ALICE, without_time).status == 200


def test_stored_receipt_counts_whatever_the_floor(gate: Gate, conn: psycopg.Connection) -> None:
    request = tx(title(TASK_1, "kept")) | {"txId": new_tx_id(-3700)}
    gate.send(ALICE, request)
    conn.execute("update sync_internal.state set receipt_floor = now()")
    assert gate.send(ALICE, request).body["status"] == "duplicate"


@pytest.mark.parametrize(("ahead", "status"), [(23 * 3600 + 3000, 200), (24 * 3600 + 60, 400)])
def test_id_from_the_future(gate: Gate, ahead: int, status: int) -> None:
    answer = gate.send(ALICE, tx(title(TASK_1, "soon")) | {"txId": new_tx_id(ahead)})
    assert answer.status == status
    assert answer.code in (None, "bad_request")


def test_same_id_twice_in_a_request(gate: Gate) -> None:
    request = tx(VOTE)
    other = request | {"operations": [title(TASK_1, "other")]}
    answer = gate.send(ALICE, {"transactions": [request, request, other]})
    assert answer.outcomes == ["applied", "duplicate", "refused"]
    assert answer.body["results"][2]["error"]["code"] == "tx_mismatch"


def test_same_id_from_two_authors_in_one_batch(gate: Gate) -> None:
    request = tx(VOTE)
    first, second = gate.write_all([(ALICE, request), (BOB, request)])
    assert (first.status, second.status, second.code) == (200, 422, "tx_mismatch")


def test_batches_with_the_same_ids_in_opposite_order_do_not_deadlock(db: Database) -> None:
    gates = [Gate(db) for _ in range(2)]
    for _ in range(10):
        one, two = tx(title(TASK_1, "1")), tx(title(TASK_2, "2"))
        bodies = [{"transactions": [one, two]}, {"transactions": [two, one]}]
        answers = together(
            *[lambda g=g, b=b: g.send(ALICE, b) for g, b in zip(gates, bodies, strict=True)]
        )
        outcomes = sorted(answers[0].outcomes + answers[1].outcomes)
        assert outcomes == ["applied", "applied", "duplicate", "duplicate"]


def test_values_of_calls_are_in_the_repeated_answer(gate: Gate) -> None:
    request = tx(call("completeBoard", boardId=LAUNCH))
    first, second = gate.send(ALICE, request), gate.send(ALICE, request)
    assert first.body["values"] == second.body["values"]
    assert first.body["values"][0] > 0


def test_receipt_holds_no_row_contents(gate: Gate, conn: psycopg.Connection) -> None:
    gate.applied(ALICE, title(TASK_1, "a secret title"))
    gate.write(ALICE, title(TOMATOES, "a secret title"))
    gate.write(
        ALICE,
        title(TASK_1, "a secret title"),
        expect=[{"table": "tasks", "id": TASK_1, "version": 99}],
    )
    assert value(conn, "select count(*) from sync_internal.receipts") == 3
    query = "select count(*) from sync_internal.receipts r where r::text like '%secret%'"
    assert conn.execute(query).fetchone() == (0,)


def test_change_is_attributed_to_its_transaction_alone(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute("update tasks set title = 'plain' where id = %s", (TASK_2,))
    first, second = tx(title(TASK_1, "one")), tx(title(TASK_2, "two"))
    gate.send(ALICE, {"transactions": [first, second]})
    told = [(change["id"], change["txId"]) for change in gate.changes(cursor)["changes"]]
    assert told == [(TASK_2, None), (TASK_1, first["txId"]), (TASK_2, second["txId"])]


def test_function_that_writes_through_the_engine_leaves_the_feed_readable(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(
        """
        create function public.nested(p_id uuid) returns jsonb language sql as $$
            select sync.apply(jsonb_build_array(jsonb_build_object(
                'type', 'set', 'table', 'tasks', 'id', p_id, 'key', 'title', 'value', 'nested'
            )))
        $$;
        grant execute on function public.nested to authenticated;
        select sync.expose('public.nested(uuid)');
        """
    )
    cursor = gate.cursor()
    gate.applied(ALICE, call("nested", id=TASK_1))
    (change,) = gate.changes(cursor)["changes"]
    assert (change["id"], change["patch"]["title"]) == (TASK_1, "nested")


def test_receipts_made_by_hand_leave_the_feed_readable(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("create role forger login in role authenticated")
    try:
        conn.execute("select sync.map_login('forger', %s)", (CAROL,))
        cursor = gate.cursor()
        forger = gate.db.connect("forger", autocommit=False)
        forger.execute("update public.tasks set title = 'forged' where id = %s", (TOMATOES,))
        for _ in range(2):
            try:
                with forger.transaction():
                    forger.execute(
                        "select sync_internal.store_receipt(gen_random_uuid(), 0, '{}', 0)"
                    )
            except psycopg.errors.InsufficientPrivilege:
                pass
        forger.commit()
        forger.close()
        changes = gate.changes(cursor)["changes"]
        assert [change["id"] for change in changes] == [TOMATOES]
    finally:
        conn.execute("drop owned by forger; drop role forger")
