"""The queue as SQL sees it: a job exists if and only if its transaction committed."""

import json
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import migrate
from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    BOB,
    TASK_1,
    Background,
    Gate,
    pid,
    refusal_of,
    set_,
    title,
    tx,
    value,
    wait_blocked,
)

pytestmark = pytest.mark.both_versions

TRIGGER = """
create function public.follow() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    perform jobs.enqueue('follow', jsonb_build_object('id', new.id), p_key => new.id::text);
    return null;
end
$$;
create trigger follow after update of title on public.tasks
for each row execute function public.follow();
select jobs.allow('follow', p_max_attempts => 3);
"""

DEQUEUE = (
    "update jobs.pgqueuer set status = 'picked', queue_manager_id = %s"
    " where id = (select id from jobs.pgqueuer where status = 'queued' and execute_after <= now()"
    " order by id for update skip locked limit 1) returning id"
)

DUE = "select count(*) from jobs.pgqueuer where status = 'queued' and execute_after <= now()"


@pytest.fixture
def worker(db: Database) -> psycopg.Connection:
    """The worker's login."""
    return db.connect("rowcast_worker")


def jobs(conn: psycopg.Connection[Any]) -> list[Any]:
    return conn.execute("select kind, state, attempts, key from jobs.list()").fetchall()


def take(worker: psycopg.Connection[Any], name: uuid.UUID) -> int:
    """Takes the next job as pgqueuer does."""
    number: int = value(worker, DEQUEUE, name)
    return number


def settle(worker: psycopg.Connection[Any], name: uuid.UUID, id_: int, **outcome: Any) -> None:
    given = json.dumps([{"id": id_, **outcome}])
    worker.execute("select jobs.worker_settle(%s, %s)", (name, given))


def begin(worker: psycopg.Connection[Any], name: uuid.UUID, id_: int) -> Any:
    return value(worker, "select jobs.worker_begin(%s, %s)", id_, name)


def allow(conn: psycopg.Connection[Any], options: str = "") -> None:
    conn.execute(f"select jobs.allow('it'{options})".encode())


def test_tables_are_what_the_package_makes() -> None:
    pgq = Path(sys.executable).with_name("pgq")
    made = subprocess.run(
        [str(pgq), "--schema", "jobs", "sql", "install"], text=True, capture_output=True, check=True
    )
    step = (migrate.sql_folder() / "migrations/0018_pgqueuer.sql").read_text("utf-8")
    assert step.endswith(made.stdout), "pgqueuer has other tables now: they need a migration"


def test_job_is_there_once_its_transaction_has_committed(db: Database) -> None:
    writer, reader = db.connect(autocommit=False), db.connect()
    writer.execute("select jobs.enqueue('prune')")
    assert jobs(reader) == []
    writer.rollback()
    assert jobs(reader) == []
    writer.execute("select jobs.enqueue('prune')")
    writer.commit()
    assert jobs(reader) == [("prune", "queued", 0, None)]


def test_refused_write_leaves_no_job_and_a_replay_no_second(gate: Gate) -> None:
    conn = gate.db.connect()
    conn.execute(TRIGGER.encode())
    refused = gate.write(
        ALICE, title(TASK_1, "a"), set_("tasks", TASK_1, "status", "no such status")
    )
    assert refused.status == 400
    assert jobs(conn) == []
    body = tx(title(TASK_1, "b"))
    assert gate.send(ALICE, body).status == 200
    # As if it had been done meanwhile: the key of the first is of no help to the second.
    conn.execute("update jobs.pgqueuer set dedupe_key = null")
    assert gate.send(ALICE, body).status == 200
    assert jobs(conn) == [("follow", "queued", 0, TASK_1)]
    assert value(conn, "select headers -> 'claims' from jobs.pgqueuer") == {
        "sub": ALICE,
        "role": "authenticated",
    }


def test_what_is_kept_of_claims_is_who_it_is(gate: Gate) -> None:
    conn = gate.db.connect()
    conn.execute(TRIGGER.encode())
    claims = {"sub": ALICE, "tenant": "x", "exp": 1, "iat": 1, "jti": "j"}
    gate.conn.execute(
        "select * from sync.gateway_write(%s, %s)",
        ([json.dumps(claims)], [json.dumps(tx(title(TASK_1, "b")))]),
    )
    assert value(conn, "select headers -> 'claims' from jobs.pgqueuer") == {
        "sub": ALICE,
        "role": "authenticated",
        "tenant": "x",
    }


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("'unknown'", 400),
        ("'prune', p_key => repeat('k', 501)", 400),
        ("'prune', jsonb_build_object('x', repeat('x', 70000))", 413),
    ],
)
def test_bad_job_is_refused(tx: psycopg.Connection, arguments: str, status: int) -> None:
    with pytest.raises(psycopg.Error) as caught:
        tx.execute(f"select jobs.enqueue({arguments})".encode())
    assert refusal_of(caught.value)["status"] == status


@pytest.mark.parametrize("role", ["anon", "authenticated", "rowcast_gateway", "rowcast_worker"])
def test_end_users_start_no_jobs(tx: psycopg.Connection, role: str) -> None:
    tx.execute(f"set local role {role}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        tx.execute("select jobs.enqueue('prune')")


def test_key_is_there_once_until_the_work_begins(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    again = "select jobs.enqueue('it', p_key => 'k')"
    first = value(conn, again)
    assert value(conn, again) == first
    name = uuid.uuid4()
    assert take(worker, name) == first
    assert value(conn, again) == first  # taken, and nothing is read yet
    begun = begin(worker, name, first)
    assert begun["attempt"] == 1
    second = value(conn, again)
    assert second != first
    settle(worker, name, first, outcome="failed", error="x")
    # The second is as good as another try of the first.
    assert jobs(conn) == [("it", "queued", 0, "k")]
    assert value(conn, "select id from jobs.list()") == second


def test_work_does_not_begin_before_who_counts_on_it_has_committed(
    db: Database, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    id_ = value(conn, "select jobs.enqueue('it', p_key => 'k')")
    writer = db.connect(autocommit=False)
    writer.execute("select jobs.enqueue('it', p_key => 'k')")
    name = uuid.uuid4()
    # Not taken: skipped as long as somebody who was told that it waits has not ended.
    assert worker.execute(DEQUEUE, (name,)).fetchall() == []
    writer.commit()
    assert take(worker, name) == id_
    # Taken, but not begun: the beginning waits.
    writer.execute("select jobs.enqueue('it', p_key => 'k')")
    beginning = Background(lambda: begin(worker, name, id_))
    wait_blocked(conn, pid(worker))
    writer.commit()
    assert beginning.result()["attempt"] == 1


def test_failure_waits_longer_each_time_and_is_held_at_last(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn, ", p_max_attempts => 3, p_first_delay_seconds => 100")
    id_, name = value(conn, "select jobs.enqueue('it', p_key => 'k')"), uuid.uuid4()
    for attempt, (least, most) in enumerate([(50, 150), (100, 300)], 1):
        assert take(worker, name) == id_
        assert begin(worker, name, id_)["attempt"] == attempt
        settle(worker, name, id_, outcome="failed", error="no")
        wait = value(
            conn, "select extract(epoch from execute_after - updated)::float from jobs.pgqueuer"
        )
        assert least <= wait <= most
        conn.execute("update jobs.pgqueuer set execute_after = now()")
    take(worker, name)
    begin(worker, name, id_)
    settle(worker, name, id_, outcome="failed", error="no")
    assert jobs(conn) == [("it", "held", 3, "k")]
    assert value(conn, "select error from jobs.list('held')") == "no"
    assert value(conn, "select jobs.requeue(p_kind => 'other')") == 0
    assert value(conn, "select jobs.requeue(%s)", id_) == 1
    assert jobs(conn) == [("it", "queued", 0, "k")]
    assert value(conn, "select jobs.enqueue('it', p_key => 'k')") == id_


def test_few_of_a_lane_at_once_and_the_next_when_one_ends(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    conn.execute("update jobs.kinds set lane_key = 'to' where kind = 'it'")
    put = "select jobs.enqueue('it', jsonb_build_object('to', %s::text))"
    a, b, c, d = (value(conn, put, "x") for _ in range(4))
    other, none = value(conn, put, "y"), value(conn, put, None)
    name = uuid.uuid4()
    assert [take(worker, name) for _ in range(3)] == [a, b, c]
    assert begin(worker, name, a)
    assert begin(worker, name, b)
    # The third is full, and what is behind it waits with it; no attempt was made.
    assert begin(worker, name, c) is None
    assert [take(worker, name) for _ in range(2)] == [other, none]
    assert value(conn, DUE) == 0
    assert begin(worker, name, other)
    assert begin(worker, name, none)
    # Whatever becomes of one, the next comes.
    settle(worker, name, a, outcome="failed", delaySeconds=3600)
    assert take(worker, name) == c
    assert value(conn, DUE) == 0
    assert begin(worker, name, c)["attempt"] == 1
    settle(worker, name, b, outcome="failed", final=True)
    assert take(worker, name) == d
    assert begin(worker, name, d)
    # Put back, it has its place no more.
    conn.execute("update jobs.pgqueuer set execute_after = now() where id = %s", (a,))
    settle(worker, name, c, outcome="done")
    assert take(worker, name) == a
    assert begin(worker, name, a)["attempt"] == 2
    left = "select id from jobs.pgqueuer where headers ? 'aside'"
    assert conn.execute(left).fetchall() == []


def test_two_that_begin_at_once_see_each_other(
    db: Database, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    conn.execute("update jobs.kinds set lane_key = 'to', lane_places = 1 where kind = 'it'")
    first, second = (value(conn, """select jobs.enqueue('it', '{"to": "x"}')""") for _ in range(2))
    name = uuid.uuid4()
    assert [take(worker, name) for _ in range(2)] == [first, second]
    open_ = db.connect("rowcast_worker", autocommit=False)
    assert begin(open_, name, first)
    begun = Background(lambda: begin(worker, name, second))
    wait_blocked(conn, worker.info.backend_pid)
    open_.commit()
    assert begun.result() is None


def test_what_is_put_aside_while_the_last_of_its_lane_ends_is_called(
    db: Database, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    conn.execute("update jobs.kinds set lane_key = 'to', lane_places = 1 where kind = 'it'")
    first, second = (value(conn, """select jobs.enqueue('it', '{"to": "x"}')""") for _ in range(2))
    name = uuid.uuid4()
    assert [take(worker, name) for _ in range(2)] == [first, second]
    assert begin(worker, name, first)
    open_ = db.connect("rowcast_worker", autocommit=False)
    assert begin(open_, name, second) is None
    ended = Background(lambda: settle(worker, name, first, outcome="done"))
    wait_blocked(conn, worker.info.backend_pid)
    open_.commit()
    ended.result()
    assert value(conn, "select execute_after <= now() from jobs.pgqueuer where id = %s", second)
    assert take(worker, name) == second


def test_final_failure_is_held_at_once(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    id_, name = value(conn, "select jobs.enqueue('it')"), uuid.uuid4()
    take(worker, name)
    begin(worker, name, id_)
    settle(worker, name, id_, outcome="failed", error="no", final=True)
    assert jobs(conn) == [("it", "held", 1, None)]
    assert value(conn, "select jobs.cancel(%s)", id_) is True
    assert value(conn, "select jobs.cancel(%s)", id_) is False
    assert jobs(conn) == []


def test_given_back_does_not_count(conn: psycopg.Connection, worker: psycopg.Connection) -> None:
    allow(conn)
    id_, name = value(conn, "select jobs.enqueue('it', p_key => 'k')"), uuid.uuid4()
    take(worker, name)
    begin(worker, name, id_)
    settle(worker, name, id_, outcome="returned")
    assert jobs(conn) == [("it", "queued", 0, "k")]
    take(worker, name)
    settle(worker, name, id_, outcome="left")
    assert jobs(conn) == [("it", "queued", 0, "k")]


def test_what_a_worker_says_of_the_job_of_another_has_no_effect(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    id_, mine, other = value(conn, "select jobs.enqueue('it')"), uuid.uuid4(), uuid.uuid4()
    take(worker, mine)
    assert begin(worker, other, id_) is None
    settle(worker, other, id_, outcome="done")
    assert value(worker, "select jobs.worker_call(%s, %s)", id_, other) is False
    assert jobs(conn) == [("it", "running", 0, None)]


def test_job_that_kills_its_workers_is_held(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn, ", p_max_attempts => 2")
    id_ = value(conn, "select jobs.enqueue('it', p_key => 'k')")
    # The first time it may be chance; later it waits, so that those beside it get on.
    for attempt, waits in ((1, False), (2, True)):
        name = uuid.uuid4()
        worker.execute("select jobs.worker_open(%s)", (name,))
        take(worker, name)
        assert begin(worker, name, id_)["attempt"] == attempt
        conn.execute("update jobs.workers set started_at = started_at - interval '1 minute'")
        worker.execute("select jobs.worker_tick()")
        assert jobs(conn)[0] == ("it", "queued", attempt, "k")
        later = "select run_at > now() from jobs.list() where id = %s"
        assert value(conn, later, id_) is waits
    assert value(conn, "select count(*) from jobs.workers") == 0
    name = uuid.uuid4()
    take_of_it = "update jobs.pgqueuer set status = 'picked', queue_manager_id = %s where id = %s"
    worker.execute(take_of_it, (name, id_))
    assert begin(worker, name, id_) is None
    assert jobs(conn)[0] == ("it", "held", 2, "k")


def test_worker_with_its_lock_keeps_its_jobs(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    allow(conn)
    conn.execute("select jobs.enqueue('it')")
    name = uuid.uuid4()
    number = value(worker, "select jobs.worker_open(%s)", name)
    worker.execute("select pg_advisory_lock(7215606, %s)", (number,))
    take(worker, name)
    conn.execute("update jobs.workers set started_at = started_at - interval '1 minute'")
    conn.execute("select jobs.worker_tick()")
    assert jobs(conn)[0][1] == "running"


def test_signs_of_life_wait_for_no_job_that_sql_does(
    db: Database, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    """The work of one job keeps its row locked; the lease of others must not end meanwhile."""
    conn.execute(HANDLER.encode())
    name = uuid.uuid4()
    payload = json.dumps({"id": TASK_1, "title": "x"})
    ids = [as_user(conn, ALICE, f"select jobs.enqueue('it', '{payload}')") for _ in range(3)]
    for id_ in ids:
        take(worker, name)
        begin(worker, name, id_)
    conn.execute("update jobs.pgqueuer set heartbeat = now() - interval '1 hour'")
    conn.execute(
        "update jobs.pgqueuer set queue_manager_id = gen_random_uuid() where id = %s", ids[2:]
    )
    doing = db.connect("rowcast_worker", autocommit=False)
    doing.execute("select jobs.worker_call(%s, %s)", (ids[0], name))
    worker.execute("select jobs.worker_beat(%s, %s)", (name, ids))
    old = "select id from jobs.pgqueuer where heartbeat < now() - interval '1 minute' order by id"
    assert [id_ for (id_,) in conn.execute(old.encode())] == [ids[0], ids[2]]


def test_job_of_a_disabled_user_is_held(
    gate: Gate, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    conn.execute(TRIGGER.encode())
    gate.applied(ALICE, title(TASK_1, "b"))
    conn.execute("select sync.disable_user(%s)", (ALICE.upper(),))
    name = uuid.uuid4()
    assert begin(worker, name, take(worker, name)) is None
    assert jobs(conn) == [("follow", "held", 0, TASK_1)]


def test_schedule_starts_one_job_a_time_over_all_workers(
    db: Database, conn: psycopg.Connection
) -> None:
    conn.execute("delete from jobs.schedules")
    allow(conn)
    conn.execute("select jobs.schedule('often', 'it', '1 hour', p_at => now() - interval '5 h')")
    first, second = db.connect("rowcast_worker", autocommit=False), db.connect("rowcast_worker")
    first.execute("select jobs.worker_tick()")
    second.execute("select jobs.worker_tick()")
    first.commit()
    second.execute("select jobs.worker_tick()")
    assert jobs(conn) == [("it", "queued", 0, "schedule:often")]
    # What was missed is made up for once, and the hours stay where they were.
    assert value(
        conn,
        "select next_at > now() and next_at <= now() + interval '1 hour' from jobs.schedules",
    )
    assert value(conn, "select jobs.unschedule('often')") is True


def test_held_job_of_a_schedule_is_replaced_by_the_next(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    conn.execute("delete from jobs.schedules")
    allow(conn)
    conn.execute("select jobs.enqueue('it', p_key => 'of somebody')")
    conn.execute("select jobs.schedule('often', 'it', '1 hour')")
    for _ in range(3):
        worker.execute("select jobs.worker_tick()")
        conn.execute("update jobs.pgqueuer set status = 'failed', dedupe_key = null")
        conn.execute("update jobs.schedules set next_at = now()")
    assert jobs(conn) == [("it", "held", 0, "of somebody"), ("it", "held", 0, "schedule:often")]


def test_what_nobody_will_send_does_not_stay(conn: psycopg.Connection) -> None:
    """An address that a server refuses, say: anybody can sign up with as many as he likes."""
    for _ in range(3):
        conn.execute("select accounts.post('reset', 'a@example.com')")
    conn.execute("select jobs.enqueue('prune')")
    conn.execute("update jobs.pgqueuer set status = 'failed', dedupe_key = null where id % 2 = 0")
    conn.execute("select jobs.prune()")
    assert len(jobs(conn)) == 4
    conn.execute("update jobs.pgqueuer set created = created - interval '61 days'")
    conn.execute("select jobs.prune()")
    assert [kind for kind, *_ in jobs(conn)] == ["prune"]


def test_job_that_runs_stops_acting_for_who_is_disabled(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    """Between two of its transactions."""
    assume = "select jobs.worker_assume(%s)"
    claims = json.dumps({"sub": ALICE, "role": "authenticated"})
    with worker.transaction():
        worker.execute(assume, (claims,))
        assert value(worker, "select auth.uid()::text || current_user") == f"{ALICE}authenticated"
    conn.execute("select sync.disable_user(%s)", (ALICE,))
    with pytest.raises(psycopg.Error) as caught:
        worker.execute(assume, (claims,))
    assert caught.value.sqlstate == "PT403"
    with worker.transaction():
        worker.execute(assume, ("null",))
        assert value(worker, "select current_user::text") == "anon"


HANDLER = """
create function public.rename(p jsonb) returns jsonb language plpgsql as $$
begin
    update public.tasks set title = p ->> 'title' where id = (p ->> 'id')::uuid;
    if not found then
        perform sync_internal.refuse(403, 'forbidden', 'No');
    end if;
    return jsonb_build_object('by', auth.uid(), 'as', current_user);
end
$$;
grant execute on function public.rename(jsonb) to authenticated;
select jobs.allow('it', 'public.rename(jsonb)', p_watched => true);
"""


def as_user(conn: psycopg.Connection[Any], user: str, statement: str) -> Any:
    """What a function of an administrator does for a user: the right is its owner's."""
    with conn.transaction():
        claims = json.dumps({"sub": user, "role": "authenticated"})
        conn.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        return value(conn, statement)


def test_sql_job_acts_as_who_started_it_and_ends_with_its_effect(
    db: Database, conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    conn.execute(HANDLER.encode())
    payload = json.dumps({"id": TASK_1, "title": "done by a job"})
    id_, name = as_user(conn, ALICE, f"select jobs.enqueue('it', '{payload}')"), uuid.uuid4()
    take(worker, name)
    assert begin(worker, name, id_)["sql"] is True
    watched = "select state, result from jobs.runs"
    assert conn.execute(watched.encode()).fetchall() == [("running", None)]
    worker.execute("select jobs.worker_progress(%s, %s, 0.5, 'half')", (id_, name))
    assert value(worker, "select jobs.worker_call(%s, %s)", id_, name) is True
    assert jobs(conn) == []
    title_ = "select title from public.tasks where id = %s"
    assert value(conn, title_, TASK_1) == "done by a job"
    assert value(worker, "select current_user::text") == "rowcast_worker"
    for user, count in ((ALICE, 1), (BOB, 0)):
        with conn.transaction():
            conn.execute("select sync.act_as(%s)", (user,))
            rows = conn.execute("select state, progress, message, result from jobs.runs").fetchall()
            expected = [("done", 1, "half", {"by": ALICE, "as": "authenticated"})]
            assert rows == expected * count


def test_sql_job_that_is_refused_has_no_effect_and_stays(
    conn: psycopg.Connection, worker: psycopg.Connection
) -> None:
    conn.execute(HANDLER.encode())
    stranger = "00000000-0000-7000-8000-00000000beef"
    payload = json.dumps({"id": TASK_1, "title": "x"})
    id_, name = as_user(conn, stranger, f"select jobs.enqueue('it', '{payload}')"), uuid.uuid4()
    take(worker, name)
    begin(worker, name, id_)
    with pytest.raises(psycopg.Error) as caught:
        worker.execute("select jobs.worker_call(%s, %s)", (id_, name))
    assert caught.value.sqlstate == "PT403"
    assert value(worker, "select current_user::text") == "rowcast_worker"
    assert jobs(conn)[0][1] == "running"


def test_handler_has_one_form(tx: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=re.escape("jsonb to jsonb")):
        tx.execute("select jobs.allow('it', 'pg_catalog.jsonb_typeof(jsonb)')")
