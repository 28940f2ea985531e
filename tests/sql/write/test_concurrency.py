"""Two connections and more at once: nothing is lost, nothing is half done."""

import json
import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    DEMO,
    LAUNCH,
    TASK_1,
    TASK_2,
    TASK_3,
    Background,
    Gate,
    create,
    new_id,
    pid,
    set_,
    title,
    together,
    tx,
    value,
    wait_blocked,
    wait_until,
)

pytestmark = pytest.mark.both_versions


def act(db: Database, user: str) -> psycopg.Connection[Any]:
    """A trusted backend's connection in a transaction, acting for a user."""
    conn = db.connect(autocommit=False)
    conn.execute("select sync.act_as(%s)", (user,))
    return conn


def apply(conn: psycopg.Connection[Any], *operations: Any) -> Any:
    query = "select sync.apply(%s::jsonb)"
    return conn.execute(query, (json.dumps(operations),)).fetchone()


def version(conn: psycopg.Connection[Any], task: str) -> int:
    number: int = value(conn, "select version from tasks where id = %s", task)
    return number


def test_thirty_parallel_writes_to_one_record_are_all_applied(db: Database) -> None:
    conn = db.connect()
    gates = [Gate(db) for _ in range(30)]
    before = version(conn, TASK_1)
    answers = together(
        *[lambda g=g, n=n: g.write(ALICE, title(TASK_1, f"{n}")) for n, g in enumerate(gates)]
    )
    assert [answer.status for answer in answers] == [200] * 30
    told = sorted(answer.body["versions"][0]["version"] for answer in answers)
    assert told == list(range(before + 1, before + 31))
    assert version(conn, TASK_1) == before + 30


def test_thirty_parallel_writes_in_batches_of_three_are_all_applied(db: Database) -> None:
    conn = db.connect()
    gates = [Gate(db) for _ in range(10)]
    before = version(conn, TASK_1)

    def send(gate: Gate, number: int) -> None:
        requests: list[tuple[str | None, Any]] = [
            (user, tx(title(TASK_1, f"{number} {user}"))) for user in (ALICE, BOB, ALICE)
        ]
        answers = gate.write_all(requests)
        for request, answer in zip(requests, answers, strict=True):
            while answer.again:
                answer = gate.send(*request)  # noqa: PLW2901
            assert answer.status == 200, answer

    together(*[lambda g=g, n=n: send(g, n) for n, g in enumerate(gates)])
    assert version(conn, TASK_1) == before + 30


def test_two_inserts_into_one_list_and_a_set_all_survive(gate: Gate, db: Database) -> None:
    conn, first = db.connect(), act(db, ALICE)
    tag = {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags"}
    apply(first, tag | {"value": "hers"})
    others = [Gate(db), Gate(db)]
    jobs = [
        Background(lambda: others[0].write(BOB, tag | {"value": "his"})),
        Background(lambda: others[1].write(BOB, title(TASK_1, "his"))),
    ]
    wait_blocked(conn, *[pid(other.conn) for other in others])
    first.commit()
    assert [job.result().status for job in jobs] == [200, 200]
    tags, name = conn.execute("select tags, title from tasks where id = %s", (TASK_1,)).fetchall()[
        0
    ]
    assert {"hers", "his"} <= set(tags)
    assert name == "his"


def test_increments_of_one_counter_all_count(db: Database) -> None:
    conn = db.connect()
    vote = {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": 1}
    gates = [Gate(db) for _ in range(8)]
    query = "select (metadata ->> 'votes')::int from tasks where id = %s"
    before = value(conn, query, TASK_1)
    together(*[lambda g=g: [g.applied(ALICE, vote) for _ in range(5)] for g in gates])
    assert value(conn, query, TASK_1) == before + 40


def test_writes_to_different_paths_of_one_document_all_survive(db: Database) -> None:
    conn = db.connect()
    gates = [Gate(db) for _ in range(8)]
    together(
        *[
            lambda g=g, n=n: g.applied(ALICE, set_("tasks", TASK_1, f"metadata.deep.p{n}", n))
            for n, g in enumerate(gates)
        ]
    )
    deep = value(conn, "select metadata -> 'deep' from tasks where id = %s", TASK_1)
    assert deep == {f"p{n}": n for n in range(8)}


def test_writer_that_waited_applies_to_the_newest_row(gate: Gate, db: Database) -> None:
    conn = db.connect()
    first = db.connect(autocommit=False)
    first.execute("update tasks set metadata = '{\"votes\": 10}' where id = %s", (TASK_1,))
    vote = {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": 1}
    second = Background(lambda: gate.write(ALICE, vote))
    wait_blocked(conn, pid(gate.conn))
    first.commit()
    assert second.result().status == 200
    assert value(conn, "select metadata from tasks where id = %s", TASK_1) == {"votes": 11}


WAITED: dict[str, Callable[[], tuple[list[Any], dict[str, Any]]]] = {
    "one record": lambda: ([title(TASK_1, "after")], {}),
    "two records": lambda: ([title(TASK_1, "after"), title(TASK_2, "after")], {}),
    "two tables": lambda: ([set_("boards", LAUNCH, "name", "after"), title(TASK_1, "after")], {}),
    "looked at with care": lambda: ([title(TASK_1, "after")], {"authorId": BOB}),
    "beside a create": lambda: (
        [create("tasks", new_id(), boardId=LAUNCH, title="after"), title(TASK_1, "after")],
        {},
    ),
}


@pytest.mark.parametrize("case", WAITED)
def test_writer_who_lost_his_membership_while_he_waited_is_refused(
    gate: Gate, db: Database, case: str
) -> None:
    conn = db.connect()
    operations, more = WAITED[case]()
    assert gate.write(BOB, *operations[-1:]).status == 200
    assert gate.write(ALICE, title(TASK_1, "before"), title(TASK_2, "before")).status == 200
    first = db.connect(autocommit=False)
    first.execute("update tasks set title = 'held' where id = %s", (TASK_1,))
    first.execute("delete from workspace_members where user_id = %s", (BOB,))
    second = Background(lambda: gate.write(BOB, *operations, **more))
    long_blocked(conn, pid(gate.conn))
    first.commit()
    assert second.result().status == 403
    assert value(conn, "select title from tasks where id = %s", TASK_1) == "held"


def test_deleter_who_lost_his_membership_while_he_waited_is_refused(
    gate: Gate, db: Database
) -> None:
    conn = db.connect()
    conn.execute("""
        create table public.pages (
            id uuid primary key, name text, version integer not null default 1
        );
        alter table public.pages enable row level security;
        create policy members on public.pages using (exists (
            select from public.workspace_members m where m.user_id = (select auth.uid())
        ));
        grant select, insert, update, delete on public.pages to authenticated;
        select sync.enable('public.pages', p_hard_delete => true);
    """)
    page = new_id()
    conn.execute("insert into pages (id) values (%s)", (page,))
    first = db.connect(autocommit=False)
    first.execute("update pages set name = 'held'")
    first.execute("delete from workspace_members where user_id = %s", (BOB,))
    delete = {"type": "delete", "table": "pages", "id": page}
    second = Background(lambda: gate.write(BOB, delete))
    long_blocked(conn, pid(gate.conn))
    first.commit()
    assert second.result().status == 403
    assert value(conn, "select count(*) from pages") == 1


def long_blocked(conn: psycopg.Connection[Any], waiting: int) -> None:
    """Waits until a connection has waited for a lock for longer than any statement takes."""
    wait_blocked(conn, waiting)
    wait_until(
        lambda: value(
            conn,
            "select clock_timestamp() - query_start > '20 ms' from pg_stat_activity where pid = %s",
            waiting,
        ),
        "the writer has waited for a while",
    )


def test_expectation_is_compared_with_the_newest_row(gate: Gate, db: Database) -> None:
    conn = db.connect()
    before = version(conn, TASK_1)
    first = db.connect(autocommit=False)
    first.execute("update tasks set title = 'meanwhile' where id = %s", (TASK_1,))
    expect = [{"table": "tasks", "id": TASK_1, "version": before}]
    second = Background(lambda: gate.write(ALICE, title(TASK_1, "mine"), expect=expect))
    wait_blocked(conn, pid(gate.conn))
    first.commit()
    answer = second.result()
    assert (answer.status, answer.code) == (409, "conflict")
    assert answer.body["conflicts"][0]["version"] == before + 1
    assert answer.body["recordMap"]["tasks"][TASK_1]["title"] == "meanwhile"


def test_records_named_in_opposite_order_are_locked_in_one_order(db: Database) -> None:
    """With one lock order there is nothing to retry, however often it is tried."""
    gates = [Gate(db), Gate(db)]
    for turn in range(20):
        orders = [[TASK_1, TASK_2, TASK_3], [TASK_3, TASK_2, TASK_1]]
        answers = together(
            *[
                lambda g=g, ids=ids, t=turn: g.write(ALICE, *[title(i, f"turn {t}") for i in ids])
                for g, ids in zip(gates, orders, strict=True)
            ]
        )
        assert [(answer.status, answer.again) for answer in answers] == [(200, False)] * 2


def test_expectations_do_not_break_the_lock_order(db: Database) -> None:
    gates = [Gate(db), Gate(db)]
    conn = db.connect()
    for turn in range(20):
        now = version(conn, TASK_2)
        bodies = [
            tx(
                title(TASK_1, f"turn {turn}"),
                title(TASK_2, f"turn {turn}"),
                expect=[{"table": "tasks", "id": TASK_2, "version": now}],
            ),
            tx(title(TASK_1, f"other {turn}"), title(TASK_2, f"other {turn}")),
        ]
        answers = together(
            *[lambda g=g, b=b: g.send(ALICE, b) for g, b in zip(gates, bodies, strict=True)]
        )
        assert not any(answer.again for answer in answers), answers
        assert answers[0].status in (200, 409)
        assert answers[1].status == 200


def test_deadlock_is_a_retry_and_leaves_nothing_half_done(db: Database) -> None:
    """Whole transactions of two connections against each other's order: one of them goes back."""
    conn = db.connect()
    first = db.connect(autocommit=False)
    first.execute("update tasks set title = 'first' where id = %s", (TASK_2,))
    second = Gate(db)
    second.conn.execute("set lock_timeout = 0")
    request = tx(title(TASK_1, "second"), title(TASK_2, "second"), title(TASK_3, "second"))
    waiting = Background(lambda: second.send(ALICE, request))
    wait_blocked(conn, pid(second.conn))

    def cross() -> str:
        try:
            first.execute("update tasks set title = 'first' where id = %s", (TASK_1,))
        except psycopg.errors.DeadlockDetected:
            first.rollback()
            return "lost"
        first.commit()
        return "won"

    outcome, answer = cross(), waiting.result()
    titles = {
        row[0]
        for row in conn.execute(
            "select title from tasks where id = any(%s)", ([TASK_1, TASK_2],)
        ).fetchall()
    }
    if outcome == "lost":
        assert (answer.status, titles) == (200, {"second"})
    else:
        assert (answer.status, answer.code, answer.again) == (503, "retry", True)
        assert titles == {"first"}
        third = value(conn, "select title from tasks where id = %s", TASK_3)
        assert third != "second"
        assert second.send(ALICE, request).body["status"] == "applied"


def test_deadlocks_at_random_end_in_applied_or_retry_and_nothing_half_done(db: Database) -> None:
    """Requests of two transactions each, in opposite order: the second of one meets the first of
    the other.
    """
    conn = db.connect()
    gates = [Gate(db) for _ in range(4)]
    for gate in gates:
        gate.conn.execute("set lock_timeout = 0")
    seed = random.randrange(2**32)
    print("seed", seed)

    def work(gate: Gate, number: int) -> int:
        chance = random.Random(seed + number)
        applied = 0
        for turn in range(8):
            tasks = [TASK_1, TASK_2]
            chance.shuffle(tasks)
            mark = f"{number}-{turn}"
            pair = [tx(set_("tasks", task, f"metadata.{mark}", turn)) for task in tasks]
            while True:
                answer = gate.send(ALICE, {"transactions": pair})
                outcomes = answer.outcomes
                assert set(outcomes) <= {"applied", "duplicate", "retry"}, answer
                assert answer.again == ("retry" in outcomes)
                # Client order: nothing after the first retry is done.
                assert "retry" not in outcomes or set(outcomes[outcomes.index("retry") :]) == {
                    "retry"
                }
                if not answer.again:
                    break
            applied += 2
        return applied

    done = together(*[lambda g=g, n=n: work(g, n) for n, g in enumerate(gates)])
    marks = conn.execute(
        "select count(*) from tasks, jsonb_object_keys(metadata) k where strpos(k, '-') > 0 and "
        "id = any(%s)",
        ([TASK_1, TASK_2],),
    ).fetchall()[0][0]
    assert marks == sum(done) == 64


def test_serialization_failure_is_a_retry(gate: Gate, db: Database) -> None:
    gate.conn.execute("set default_transaction_isolation = 'repeatable read'")
    conn = db.connect()
    first = db.connect(autocommit=False)
    first.execute("update tasks set title = 'first' where id = %s", (TASK_1,))
    second = Background(lambda: gate.write(ALICE, title(TASK_1, "second")))
    wait_blocked(conn, pid(gate.conn))
    first.commit()
    answer = second.result()
    assert (answer.status, answer.code, answer.again) == (503, "retry", True)


def test_two_creates_of_one_id_at_once_make_one_record(db: Database) -> None:
    gates = [Gate(db) for _ in range(6)]
    conn = db.connect()
    id_ = new_id()
    answers = together(
        *[
            lambda g=g, n=n: g.write(ALICE, create("tasks", id_, boardId=LAUNCH, title=f"{n}"))
            for n, g in enumerate(gates)
        ]
    )
    assert sorted(answer.status for answer in answers) == [200] + [409] * 5
    assert {answer.code for answer in answers} == {None, "exists"}
    assert version(conn, id_) == 1


def test_child_can_be_made_while_its_parent_is_edited(gate: Gate, db: Database) -> None:
    """The generated update does not name the id, so it takes no lock against children."""
    editor = act(db, ALICE)
    apply(editor, set_("boards", LAUNCH, "name", "busy"))
    gate.conn.execute("set lock_timeout = '1ms'")
    gate.applied(BOB, create("tasks", new_id(), boardId=LAUNCH, title="meanwhile"))
    editor.commit()


def test_child_can_be_made_while_its_parent_is_read_for_its_version(
    gate: Gate, db: Database
) -> None:
    editor = act(db, ALICE)
    now = value(db.connect(), "select version from workspaces where id = %s", DEMO)
    request = tx(
        set_("workspaces", DEMO, "name", "busy"),
        expect=[{"table": "workspaces", "id": DEMO, "version": now}],
    )
    editor.execute("select sync.write(%s::jsonb)", (json.dumps(request),))
    gate.conn.execute("set lock_timeout = '1ms'")
    gate.applied(BOB, create("boards", new_id(), workspaceId=DEMO, name="meanwhile"))
    editor.commit()
