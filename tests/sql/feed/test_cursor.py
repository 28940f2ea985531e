"""Reading the feed from a cursor: each committed change exactly once, none missed, or "stale"."""

import random
import re
import threading
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    TASK_1,
    TASK_2,
    Background,
    Gate,
    live,
    pid,
    value,
    wait_until,
)

pytestmark = pytest.mark.both_versions

WRITERS = 8
ROUNDS = 120


class Reader:
    """Follows the feed, and knows what a reader of sequence numbers would have missed."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.cursor = gate.cursor()
        self.seen: list[int] = []
        self.late = 0

    def read(self) -> int:
        answer = self.gate.changes(self.cursor)
        assert not answer["stale"]
        assert answer["behind"] == []
        highest = max(self.seen, default=0)
        numbers = [change["seq"] for change in answer["changes"]]
        self.late += sum(number < highest for number in numbers)
        self.seen += numbers
        self.cursor = answer["cursor"]
        return len(numbers)


def write(db: Database, number: int, seed: int) -> None:
    """One writer: inserts and updates with rollbacks and savepoints, at both isolation levels."""
    chance = random.Random(seed * 100 + number)
    conn = db.connect(autocommit=False)
    for turn in range(ROUNDS):
        if chance.random() < 0.3:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        else:
            conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        conn.execute("insert into ticks (id, n) values (%s, 0)", (f"{number}-{turn}",))
        for step in range(chance.randrange(3)):
            with conn.transaction(force_rollback=chance.random() < 0.4):
                conn.execute("update ticks set n = n + 1 where id = %s", (f"{number}-{turn}",))
                if chance.random() < 0.5:
                    conn.execute("insert into ticks (id) values (%s)", (f"{number}-{turn}-{step}",))
        if chance.random() < 0.3:
            conn.rollback()
        else:
            conn.commit()
    conn.close()


def test_eight_writers_and_a_long_transaction_lose_and_repeat_nothing(
    db: Database, gate: Gate, conn: psycopg.Connection
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    live(conn, "ticks", "id text primary key, n integer")
    reader = Reader(gate)
    long = db.connect(autocommit=False)
    long.execute("insert into ticks (id) values ('long')")
    with long.transaction():
        long.execute("insert into ticks (id) values ('long in a savepoint')")
    jobs = [Background(partial(write, db, n, seed)) for n in range(WRITERS)]
    running = threading.Event()

    def finish() -> None:
        for job in jobs:
            job.result()
        long.execute("update ticks set n = 1 where id = 'long'")
        long.commit()
        running.set()

    ending = Background(finish)
    while not running.is_set():
        reader.read()
    ending.result()
    wait_until(lambda: reader.read() == 0, "the reader has caught up")

    query = "select c.seq from sync_internal.changes c where c.table_name = 'ticks'"
    committed = [row[0] for row in conn.execute(query).fetchall()]
    assert len(committed) > WRITERS * ROUNDS / 2
    assert len(reader.seen) == len(set(reader.seen)), f"seed {seed}: a change twice"
    assert set(reader.seen) == set(committed), f"seed {seed}: missed or made up"
    # A reader of sequence numbers would have missed these, the long transaction's at least.
    assert reader.late >= 3


def test_reader_that_resumes_from_old_cursors_hears_everything_since(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursors = []
    for number in range(6):
        cursors.append(gate.cursor())
        conn.execute("update tasks set title = %s where id = %s", (f"{number}", TASK_1))
    for number, cursor in enumerate(cursors):
        told = [change["patch"]["title"] for change in gate.changes(cursor)["changes"]]
        assert told == [f"{n}" for n in range(number, 6)]


def test_transaction_in_flight_at_the_cursor_is_told_when_it_commits(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    slow = db.connect(autocommit=False)
    slow.execute("update tasks set title = 'slow' where id = %s", (TASK_1,))
    conn.execute("update tasks set title = 'quick' where id = %s", (TASK_2,))
    cursor = gate.cursor()
    assert gate.changes(cursor)["changes"] == []
    slow.commit()
    (change,) = gate.changes(cursor)["changes"]
    assert (change["id"], change["patch"]["title"]) == (TASK_1, "slow")
    assert gate.changes(gate.changes(cursor)["cursor"])["changes"] == []


def test_long_transaction_delays_nobody(gate: Gate, db: Database, conn: psycopg.Connection) -> None:
    slow = db.connect(autocommit=False)
    slow.execute("update tasks set title = 'slow' where id = %s", (TASK_1,))
    cursor = gate.cursor()
    conn.execute("update tasks set title = 'quick' where id = %s", (TASK_2,))
    assert [change["id"] for change in gate.changes(cursor)["changes"]] == [TASK_2]
    slow.rollback()


def test_changes_of_one_transaction_come_together(gate: Gate, conn: psycopg.Connection) -> None:
    cursor = gate.cursor()
    with conn.transaction():
        conn.execute("update tasks set title = 'a' where id = %s", (TASK_1,))
        with conn.transaction():
            conn.execute("update tasks set title = 'b' where id = %s", (TASK_2,))
    first, second = gate.changes(cursor)["changes"]
    assert first["xid"] == second["xid"]


# Cursors that cannot be resumed from


def test_cursor_of_a_read_joins_the_feed(gate: Gate, conn: psycopg.Connection) -> None:
    cursors = [
        gate.get_records(ALICE, ("tasks", TASK_1))["cursor"],
        gate.query(ALICE, "tasks")["cursor"],
        gate.subscribe(ALICE, "tasks")["cursor"],
    ]
    conn.execute("update tasks set title = 'since' where id = %s", (TASK_1,))
    for cursor in cursors:
        assert [change["id"] for change in gate.changes(cursor)["changes"]] == [TASK_1]
        joined = gate.subscribe(ALICE, f"tasks:{TASK_1}", cursor=cursor)
        assert [update["patch"]["title"] for update in joined["updates"]] == ["since"]


def test_no_cursor_is_a_fresh_one(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("update tasks set title = 'before' where id = %s", (TASK_1,))
    answer = gate.changes(None)
    assert (answer["stale"], answer["changes"], answer["behind"]) == (False, [], [])


def test_cursor_of_an_empty_feed_can_be_resumed_from(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("truncate sync_internal.changes")
    cursor = gate.cursor()
    assert gate.changes(cursor)["stale"] is False
    conn.execute("update tasks set title = 'first' where id = %s", (TASK_1,))
    answer = gate.changes(cursor)
    assert (answer["stale"], [change["id"] for change in answer["changes"]]) == (False, [TASK_1])


def assert_stale(gate: Gate, cursor: str) -> None:
    """The cursor is stale for the relay, and makes every key stale for a client."""
    answer = gate.changes(cursor)
    assert (answer["stale"], answer["changes"]) == (True, [])
    assert gate.changes(answer["cursor"])["stale"] is False
    joined = gate.subscribe(ALICE, "tasks", f"tasks:{TASK_1}", cursor=cursor)
    assert set(joined["stale"]) == {"tasks", f"tasks:{TASK_1}"}
    assert joined["updates"] == []
    resumed = gate.subscribe(ALICE, "tasks", cursor=joined["cursor"])
    assert resumed["stale"] == []


def test_cursor_of_another_epoch_is_stale(gate: Gate, conn: psycopg.Connection) -> None:
    cursor = gate.cursor()
    before = gate.changes(None)["epoch"]
    conn.execute("select sync.new_epoch()")
    assert gate.changes(None)["epoch"] != before
    assert_stale(gate, cursor)


def test_cursor_that_only_names_another_epoch_is_stale(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    parts = gate.cursor().split(".")
    parts[1] = "0" * len(parts[1])
    assert_stale(gate, ".".join(parts))


def test_new_epoch_empties_the_feed(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("update tasks set title = 'old' where id = %s", (TASK_1,))
    conn.execute("select sync.new_epoch()")
    assert value(conn, "select count(*) from sync_internal.changes") == 0


def test_second_who_settles_the_epoch_empties_nothing(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    """After a promotion every gateway comes; what is committed after the first one stays."""
    conn.execute("update sync_internal.state set epoch = 'before'")
    first, second = db.connect(autocommit=False), db.connect("rowcast_gateway")
    settle = "select sync_internal.settle_epoch()"
    first.execute(settle.encode())
    first.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    waiting = Background(lambda: second.execute(settle.encode()))
    blocked = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    wait_until(
        lambda: conn.execute(blocked, [second.info.backend_pid]).fetchone(), "the second waits"
    )
    first.commit()
    waiting.result()
    assert value(conn, "select count(*) from sync_internal.changes") == 1


def test_cursor_whose_anchor_is_gone_is_stale(gate: Gate, conn: psycopg.Connection) -> None:
    """As after a crash that lost the last commits, or a restore of the files."""
    conn.execute("update tasks set title = 'lost' where id = %s", (TASK_1,))
    cursor = gate.cursor()
    assert gate.changes(cursor)["stale"] is False
    conn.execute(
        "delete from sync_internal.changes where xid = (select max(xid) from sync_internal.changes)"
    )
    assert_stale(gate, cursor)


def test_cursor_whose_anchor_is_another_change_of_the_same_numbers_is_stale(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """A crash hands xids and sequence numbers out again; the tag tells the histories apart."""
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    cursor = gate.cursor()
    conn.execute("update sync_internal.changes set tag = tag # 1")
    assert_stale(gate, cursor)


def test_cursor_ahead_of_the_server_is_stale(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    parts = gate.cursor().split(".")
    parts[2] = str(int(parts[2]) + 1_000_000)
    assert_stale(gate, ".".join(parts))


def test_cursor_below_what_was_pruned_is_stale(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    slow = db.connect(autocommit=False)
    slow.execute("update tasks set title = 'slow' where id = %s", (TASK_2,))
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    waiting = gate.cursor()  # the slow one is still open for it
    slow.commit()
    done = gate.changes(waiting)["cursor"]
    conn.execute(
        "update sync_internal.state set pruned_before = (select max(xid) from "
        "sync_internal.changes)"
    )
    assert gate.changes(done)["stale"] is False
    assert_stale(gate, waiting)


def test_cursor_claims_no_xid_that_no_change_vouches_for(
    gate: Gate, db: Database, conn: psycopg.Connection
) -> None:
    """Xids of rolled-back transactions are handed out again after a crash."""
    conn.execute("update tasks set title = 'x' where id = %s", (TASK_1,))
    highest = int(value(conn, "select max(xid)::text from sync_internal.changes"))
    burner = db.connect(autocommit=False)
    for _ in range(5):
        burner.execute("update tasks set title = 'never' where id = %s", (TASK_2,))
        burner.rollback()
    burner.execute("update tasks set title = 'open' where id = %s", (TASK_2,))
    xmax, xip = gate.cursor().split(".")[2:4]
    assert int(xmax) == highest + 1
    assert all(int(xid) <= highest for xid in xip.split("-") if xid)
    burner.rollback()


MALFORMED = [
    "", "x", "null", "v1", "v2.{e}.1..", "v1.{e}", "v1.{e}.", "v1.{e}...", "v1.{e}.abc..",
    "v1.{e}.-5..",
    "v1.{e}.1.1-.", "v1.{e}.1.-1.", "v1.{e}.99999999999999999999..", "v1.{e}.9999999999999999999..",
    "v1.{e}.5.9999999999999999999.", "v1.{e}.5..1-9999999999999999999-1",
    "v1.{e}.5..1-1-9999999999",
    "v1.{e}.5..1-1", "v1.{e}.5..1-1-1-1", "v1.{e}.5..1-1-1\n", "v1.{e}.5..1-1-1'; drop table tasks",
    "v1.ü.1..",
    "v1.{e}.5." + "-".join(["1"] * 20000) + ".",
]  # fmt: skip


@pytest.mark.parametrize(
    "cursor", MALFORMED, ids=lambda text: text[:40].encode("unicode_escape").decode()
)
def test_malformed_cursor_is_stale_and_never_an_error(common: Gate, cursor: str) -> None:
    text = cursor.replace("{e}", common.changes(None)["epoch"])
    answer = common.changes(text)
    assert (answer["stale"], answer["changes"]) == (True, [])
    assert common.subscribe(ALICE, "tasks", cursor=text)["stale"] == ["tasks"]


def test_too_many_changes_name_the_tables_instead(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute("select sync.configure('max_changes_read', 5)")
    cursor = gate.cursor()
    conn.execute("update tasks set title = 'many'")
    conn.execute("update boards set name = 'one' where id = '00000000-0000-7000-8000-0000000b0001'")
    answer = gate.changes(cursor)
    assert (answer["stale"], answer["changes"], set(answer["behind"])) == (
        False,
        [],
        {"tasks", "boards"},
    )
    assert gate.changes(answer["cursor"])["behind"] == []
    # Resuming, what was passed over may belong to any of the keys.
    joined = gate.subscribe(ALICE, "tasks", "comments", cursor=cursor)
    assert sorted(joined["stale"]) == ["comments", "tasks"]


# How it is written


def test_snapshot_is_asked_for_in_one_function_only(conn: psycopg.Connection) -> None:
    """Rows and cursor belong to one statement; a second place would be a second statement."""
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
            and (p.prosrc ~ 'pg_current_snapshot|txid_current_snapshot')
    """
    assert conn.execute(query).fetchall() == [("sync_internal.primary_snapshot()",)]
    folder = Path(__file__).parents[3] / "sql"
    files = [
        path.name
        for path in folder.rglob("*.sql")
        if re.search(r"(pg|txid)_current_snapshot\s*\(", path.read_text())
    ]
    assert files == ["cursor.sql"]


@pytest.mark.parametrize("door", ["get_records", "query"])
def test_rows_and_cursor_of_a_read_are_of_one_snapshot(
    gate: Gate, db: Database, conn: psycopg.Connection, door: str
) -> None:
    """A commit between the
    statement's start and its end is either in the rows or after the cursor.
    """
    conn.execute(
        """
        create function public.wait_for_key() returns boolean language plpgsql stable as $$
        begin
            perform pg_advisory_lock_shared(77);
            perform pg_advisory_unlock_shared(77);
            return true;
        end
        $$;
        create policy waits on public.tasks as restrictive for select to authenticated
            using ((select public.wait_for_key()));
        """
    )
    conn.execute("select sync.refresh('public.tasks')")
    holder = db.connect()
    holder.execute("select pg_advisory_lock(77)")
    body = {"pointers": [{"table": "tasks", "id": TASK_1}], "table": "tasks"}
    reading = Background(lambda: gate.ask(door, ALICE, body))
    wait_until(
        lambda: value(
            conn,
            "select exists (select from pg_locks where pid = %s and not granted)",
            pid(gate.conn),
        ),
        "the read is under way",
    )
    conn.execute("update tasks set title = 'meanwhile' where id = %s", (TASK_1,))
    holder.execute("select pg_advisory_unlock(77)")
    answer = reading.result()
    in_rows = answer["recordMap"]["tasks"][TASK_1]["title"] == "meanwhile"
    after = [change["id"] for change in gate.changes(answer["cursor"])["changes"]]
    assert in_rows or TASK_1 in after


def test_a_wake_up_looks_at_nothing_it_has_read_before(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(
        "insert into sync_internal.changes (slot, table_name, record_id, version, kind)"
        " select sync_internal.feed_slot(), 'tasks', n::text, 1, 'update'"
        " from generate_series(1, 20000) n"
    )
    conn.execute("vacuum analyze sync_internal.changes")
    cursor = gate.cursor()
    conn.execute("update public.tasks set title = 'Once more' where id = %s", (TASK_1,))
    with conn.transaction():
        answer = value(conn, "select sync.gateway_changes(%s, false)::jsonb", cursor)
        looked_at = value(
            conn,
            "select sum(pg_stat_get_xact_tuples_returned(c.oid))::integer from pg_class c"
            " where c.relname like 'changes_%' and c.relkind in ('r', 'i')",
        )
    assert len(answer["changes"]) == 1
    assert 0 < looked_at < 20
