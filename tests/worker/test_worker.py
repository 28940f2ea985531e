"""`rowcast worker` as a process: what kill -9, a stop and a lost connection do to jobs."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, value, wait_until
from tests.worker.process import working

SETUP = """
create table public.trace (n serial, job bigint, what text, by uuid);
grant select, insert on public.trace to authenticated, anon;
grant usage on sequence public.trace_n_seq to authenticated, anon;
select jobs.allow(k, p_first_delay_seconds => 0, p_max_attempts => 3, p_watched => true)
from unnest(array['note', 'stuck', 'poison', 'hopeless', 'later', 'unsayable', 'gated']) k;
create function public.count_up(p jsonb) returns jsonb language plpgsql
set lock_timeout = '1min' as $$
begin
    insert into public.trace (what, by) values ('up', auth.uid());
    -- A gate that the test holds: killed here, it has written and not committed.
    perform pg_advisory_xact_lock_shared((p ->> 'gate')::bigint);
    return null;
end
$$;
grant execute on function public.count_up(jsonb) to authenticated, anon;
select jobs.allow('up', 'public.count_up(jsonb)', p_max_attempts => 20, p_first_delay_seconds => 0);
"""

KILL = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where usename = 'rowcast_worker' and datname = current_database()"
)


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    conn = db.connect()
    conn.execute(SETUP.encode())
    conn.execute("delete from jobs.schedules")
    return conn


def enqueue(conn: psycopg.Connection[Any], kind: str, user: str | None = None, **more: Any) -> int:
    with conn.transaction():
        if user:
            claims = json.dumps({"sub": user, "role": "authenticated"})
            conn.execute("select set_config('request.jwt.claims', %s, true)", (claims,))
        payload = json.dumps({"what": kind} | more)
        number: int = value(conn, "select jobs.enqueue(%s, %s)", kind, payload)
        return number


def count(conn: psycopg.Connection[Any], what: str) -> int:
    number: int = value(conn, "select count(*) from public.trace where what = %s", what)
    return number


def states(conn: psycopg.Connection[Any]) -> dict[int, str]:
    return dict(conn.execute("select id, state from jobs.list()").fetchall())


def picked(conn: psycopg.Connection[Any]) -> int:
    number: int = value(conn, "select count(*) from jobs.list('running')")
    return number


def blocked(conn: psycopg.Connection[Any]) -> int:
    """How many jobs wait at the gate."""
    number: int = value(
        conn, "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    )
    return number


def noted(conn: psycopg.Connection[Any]) -> int:
    """How many jobs of that kind have had an effect; each at least once."""
    number: int = value(conn, "select count(distinct job) from public.trace where what = 'note'")
    return number


def is_(
    asked: Callable[[psycopg.Connection[Any]], int], conn: psycopg.Connection[Any], number: int
) -> bool:
    return asked(conn) == number


def test_jobs_are_done_as_who_started_them_and_leave_nothing(
    db: Database, conn: psycopg.Connection
) -> None:
    for _ in range(30):
        enqueue(conn, "note", ALICE)
    nobodys = enqueue(conn, "note")
    with working(db) as worker:
        wait_until(lambda: not states(conn), "all are done")
        # Whatever variables of others are set: see process.py.
        listens = "select query from pg_stat_activity where query ilike 'listen%%' and usename = %s"
        wait_until(lambda: conn.execute(listens, ("rowcast_worker",)).fetchall(), "it listens")
        assert value(conn, listens, "rowcast_worker") == 'LISTEN "ch_pgqueuer"'
        # Heard of, and a kind that is new.
        conn.execute("select jobs.allow('up', 'public.count_up(jsonb)')")
        enqueue(conn, "up", ALICE, gate=1)
        wait_until(lambda: count(conn, "up"), "it is done")
        assert worker.stop() == 0
    by = conn.execute("select by::text, count(*) from public.trace where what = 'note' group by by")
    assert dict(by.fetchall()) == {ALICE: 30, None: 1}
    assert value(conn, "select by from public.trace where job = %s", nobodys) is None
    runs = conn.execute("select distinct state, progress, result ->> 'noted' from jobs.runs")
    assert runs.fetchall() == [("done", 1, "note")]
    assert value(conn, "select count(*) from jobs.pgqueuer_log") == 0


def test_killed_worker_loses_nothing_and_sql_takes_effect_once(
    db: Database, conn: psycopg.Connection
) -> None:
    """Killed in the middle of several, with others taken and not begun, three times.

    What PostgreSQL was doing for the killed goes on to its end, the last time but one it does not.
    """
    gatekeeper = db.connect()
    gatekeeper.execute("select pg_advisory_lock(7)")
    for _ in range(30):
        enqueue(conn, "up", ALICE, gate=7)
    for cut in (False, True, False):
        before = blocked(conn)
        with working(db, ROWCAST_WORKER_JOBS="4") as worker:
            wait_until(partial(is_, blocked, conn, before + 4), "some are in the middle")
            worker.kill()
        if cut:
            conn.execute(KILL)
            wait_until(lambda: blocked(conn) == 0, "they are gone")
    assert count(conn, "up") == 0
    conn.execute("update jobs.workers set started_at = started_at - interval '1 minute'")
    gatekeeper.execute("select pg_advisory_unlock(7)")
    with working(db):
        wait_until(lambda: not states(conn), "all are done")
    assert count(conn, "up") == 30


def test_jobs_of_a_killed_worker_go_to_one_that_is_there(
    db: Database, conn: psycopg.Connection
) -> None:
    stuck = enqueue(conn, "stuck", ALICE)
    with working(db) as first:
        wait_until(lambda: count(conn, "stuck") == 1, "the first has it")
        wait_until(lambda: value(conn, "select progress from jobs.runs") == 0.25, "it says so")
        # The first has been there for long.
        conn.execute("update jobs.workers set started_at = started_at - interval '1 minute'")
        with working(db):
            wait_until(lambda: value(conn, "select count(*) from jobs.workers") == 2, "two")
            first.kill()
            wait_until(lambda: count(conn, "stuck") == 2, "the second has it")
    assert states(conn) == {stuck: "running"}
    assert value(conn, "select attempts from jobs.list()") == 2


def test_stop_gives_back_what_does_not_end(db: Database, conn: psycopg.Connection) -> None:
    stuck = enqueue(conn, "stuck", ALICE)
    with working(db, ROWCAST_DRAIN_SECONDS="0.2") as worker:
        wait_until(lambda: count(conn, "stuck") == 1, "it has begun")
        assert worker.stop() == 0
    assert states(conn) == {stuck: "queued"}
    assert value(conn, "select attempts from jobs.list()") == 0
    assert value(conn, "select state from jobs.runs") == "queued"


def test_stop_lets_what_ends_end(db: Database, conn: psycopg.Connection) -> None:
    gatekeeper = db.connect()
    gatekeeper.execute("select pg_advisory_lock(7)")
    enqueue(conn, "up", ALICE, gate=7)
    with working(db) as worker:
        wait_until(lambda: blocked(conn) == 1, "it is in the middle")
        worker.process.terminate()
        enqueue(conn, "note", ALICE)
        gatekeeper.execute("select pg_advisory_unlock(7)")
        assert worker.process.wait(20) == 0
    assert count(conn, "up") == 1


def test_jobs_that_take_long_leave_their_places_to_others(
    db: Database, conn: psycopg.Connection
) -> None:
    with db.connect() as gate:
        gate.execute("select pg_advisory_lock(7)")
        with working(db, ROWCAST_WORKER_JOBS="2"):
            for _ in range(3):
                enqueue(conn, "gated")
            wait_until(lambda: is_(blocked, conn, 2), "the places are taken")
            for _ in range(5):
                enqueue(conn, "note")
            # One more than there are places, and not more than that.
            wait_until(lambda: is_(blocked, conn, 3), "there is another place")
            assert noted(conn) == 0
            gate.execute("select pg_advisory_unlock(7)")
            wait_until(lambda: not states(conn), "all are done")


def test_poison_is_held_and_others_go_on(db: Database, conn: psycopg.Connection) -> None:
    poison = [enqueue(conn, "poison", ALICE) for _ in range(20)]
    hopeless, later = enqueue(conn, "hopeless"), enqueue(conn, "later")
    for _ in range(20):
        enqueue(conn, "note", ALICE)
    with working(db) as worker:
        wait_until(lambda: count(conn, "note") == 20, "the others are done")
        wait_until(
            lambda: states(conn) == dict.fromkeys([*poison, hopeless], "held") | {later: "queued"},
            "held",
        )
        log = worker.log
    attempts: dict[int, int] = dict(
        conn.execute("select id, attempts from jobs.list('held')").fetchall()
    )
    assert attempts == dict.fromkeys(poison, 3) | {hopeless: 1}
    assert "ValueError" in log
    assert "secret" not in log
    assert value(conn, "select run_at > now() + interval '23 h' from jobs.list('queued')")
    held = conn.execute("select distinct state, message from jobs.runs where state = 'held'")
    assert held.fetchall() == [("held", None)]


def test_what_cannot_be_noted_is_in_nobodys_way(db: Database, conn: psycopg.Connection) -> None:
    """What became of attempts is noted of several at once."""
    for what in ("error", "set", "nul", "surrogate"):
        enqueue(conn, "unsayable", what=what)
        enqueue(conn, "note", ALICE)
    with working(db) as worker:
        wait_until(lambda: set(states(conn).values()) == {"held"}, "what can be done is done")
        log = worker.log
    assert len(states(conn)) == 4
    assert noted(conn) == count(conn, "note") == 4
    assert "Hopeless" in log


def test_lost_connections_come_back(db: Database, conn: psycopg.Connection) -> None:
    with working(db) as worker:
        for number in range(1, 4):
            enqueue(conn, "note", ALICE)
            wait_until(partial(is_, noted, conn, number), "done")
            assert value(conn, KILL) >= 2
        enqueue(conn, "note", ALICE)
        wait_until(lambda: noted(conn) == 4, "done again")
        assert worker.stop() == 0


def test_notifications_of_anybody_cancel_nothing(db: Database, conn: psycopg.Connection) -> None:
    """Any role may NOTIFY, and pgqueuer cancels and deletes what it is told to."""
    gatekeeper = db.connect()
    gatekeeper.execute("select pg_advisory_lock(7)")
    gated = enqueue(conn, "gated", ALICE, what="gated")
    with working(db) as worker:
        wait_until(lambda: blocked(conn) == 1, "it has begun")
        cancel = {
            "type": "cancellation_event",
            "ids": [gated],
            "channel": "ch_pgqueuer",
            "sent_at": "2026-01-01T00:00:00Z",
        }
        for payload in (json.dumps(cancel), "x", "[]", "{}"):
            conn.execute("select pg_notify('ch_pgqueuer', %s)", (payload,))
        enqueue(conn, "note", ALICE)
        wait_until(lambda: noted(conn) == 1, "the worker has heard")
        gatekeeper.execute("select pg_advisory_unlock(7)")
        wait_until(lambda: not states(conn), "it is done")
        assert worker.process.poll() is None
    assert count(conn, "gated") == 2
    assert value(conn, "select state from jobs.runs where kind = 'gated'") == "done"


def test_each_schedule_starts_once_over_all_workers(db: Database) -> None:
    conn = db.connect()
    conn.execute("update jobs.schedules set next_at = now()")
    kinds = {row[0] for row in conn.execute("select kind from jobs.schedules").fetchall()}
    assert kinds == {"prune", "sweep", "purge", "statistics"}
    conn.execute(
        """
        create table public.taken (kind text);
        create function public.note() returns trigger language plpgsql security definer as $$
        begin
            insert into public.taken values (new.entrypoint);
            return null;
        end
        $$;
        create trigger note after insert on jobs.pgqueuer
        for each row execute function public.note();
        """
    )
    due = "select count(*) from jobs.schedules where next_at <= now()"
    with working(db) as one, working(db) as other:
        wait_until(lambda: "worker ready" in one.log and "worker ready" in other.log, "both work")
        wait_until(lambda: value(conn, due) == 0 and not states(conn), "all are done")
    taken = conn.execute("select kind, count(*) from taken group by 1")
    assert dict(taken.fetchall()) == dict.fromkeys(kinds, 1)


def test_purge_has_the_time_of_its_kind_on_the_server(db: Database) -> None:
    """Not that of the worker's short statements."""
    conn = db.connect()
    conn.execute("delete from jobs.schedules where name <> 'purge'")
    conn.execute("update jobs.schedules set next_at = now()")
    conn.execute("update jobs.kinds set timeout_seconds = 1234 where kind = 'purge'")
    conn.execute(
        """
        create table public.times (allowed text);
        create function public.note() returns trigger language plpgsql security definer as $$
        begin
            insert into public.times values (current_setting('statement_timeout'));
            return old;
        end
        $$;
        create trigger note before delete on public.comments
        for each row execute function public.note();
        update public.comments set deleted = now() - interval '1 year';
        """
    )
    with working(db):
        wait_until(lambda: value(conn, "select count(*) from times") > 0, "comments go")
    assert value(conn, "select min(allowed) from times") == "1234s"
