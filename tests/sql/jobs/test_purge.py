"""Records that were deleted long ago go for good, and nothing else."""

import psycopg
import pytest

from app import migrate
from tests.postgres import Database
from tests.sql.engine import ALICE, LAUNCH, Gate, create, live, new_id, value


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    return db.connect()


def purge(db: Database) -> int:
    count: int = value(db.connect("rowcast_worker"), "select jobs.worker_purge()")
    return count


def test_only_what_was_deleted_long_ago_goes(db: Database, conn: psycopg.Connection) -> None:
    gate = Gate(db)
    old, young, there = new_id(), new_id(), new_id()
    for id_ in (old, young, there):
        gate.applied(ALICE, create("tasks", id_, boardId=LAUNCH, title="t"))
        gate.applied(ALICE, create("comments", new_id(), taskId=id_, content="c"))
    for id_, age in ((old, "91 days"), (young, "89 days")):
        conn.execute(
            "update public.tasks set deleted = now() - %s::interval where id = %s", (age, id_)
        )
    cursor = gate.cursor()
    assert purge(db) == 1
    assert purge(db) == 0
    found = gate.get_records(ALICE, ("tasks", old), ("tasks", young), ("tasks", there))
    assert set(found["recordMap"]["tasks"]) == {young, there}
    # Clients hear of it, and what hung on it went along.
    assert any(change.get("id") == old for change in gate.changes(cursor)["changes"])
    assert value(conn, "select count(*) from public.comments where task_id = %s", old) == 0


def test_row_that_is_locked_or_referred_to_is_left(db: Database, conn: psycopg.Connection) -> None:
    live(conn, "parents", "id uuid primary key, gone timestamptz", ", p_soft_delete => 'gone'")
    live(
        conn,
        "children",
        "id uuid primary key, parent uuid references public.parents on delete restrict",
    )
    conn.execute("select sync.purge_deleted('public.parents', '1 day')")
    held, locked, free = new_id(), new_id(), new_id()
    conn.execute(
        "insert into public.parents (id, gone) select i, now() - interval '2 days'"
        " from unnest(%s::uuid[]) i",
        ([held, locked, free],),
    )
    conn.execute("insert into public.children (id, parent) values (%s, %s)", (new_id(), held))
    other = db.connect(autocommit=False)
    other.execute("select from public.parents where id = %s for update", (locked,))
    assert purge(db) == 1
    left = {str(row[0]) for row in conn.execute("select id from public.parents").fetchall()}
    assert left == {held, locked}
    other.rollback()
    assert purge(db) == 1
    # Said otherwise, nothing goes any more.
    conn.execute("delete from public.children")
    conn.execute("select sync.purge_deleted('public.parents', null)")
    assert purge(db) == 0
    policies = (
        "select count(*) from pg_policies"
        " where policyname = 'rowcast_purge' and tablename = 'parents'"
    )
    assert value(conn, policies) == 0


def test_rows_that_have_to_stay_keep_no_others_here(db: Database, conn: psycopg.Connection) -> None:
    """The oldest are refused by a trigger, with a state of the application's, and fill a batch."""
    live(conn, "parents", "id uuid primary key, gone timestamptz", ", p_soft_delete => 'gone'")
    conn.execute(
        """
        create function public.stays() returns trigger language plpgsql as $$
        begin
            if old.gone < now() - interval '132 hours' then
                raise sqlstate 'PT409' using message = 'It stays';
            end if;
            return old;
        end
        $$;
        create trigger stays before delete on public.parents
        for each row execute function public.stays();
        select sync.purge_deleted('public.parents', '1 day');
        insert into public.parents (id, gone)
        select gen_random_uuid(), now() - n * interval '1 day' from generate_series(2, 12) n;
        """
    )
    worker = db.connect("rowcast_worker")
    counts = [value(worker, "select jobs.worker_purge(3)") for _ in range(3)]
    assert counts == [3, 1, 0]
    assert (
        value(conn, "select count(*) from public.parents where gone < now() - interval '132 h'")
        == 7
    )


def test_removed_rowcast_leaves_nothing_of_it(db: Database, conn: psycopg.Connection) -> None:
    migrate.remove(db.dsn())
    policies = "select count(*) from pg_policies where policyname = 'rowcast_purge'"
    assert value(conn, policies) == 0
    assert not value(conn, "select has_table_privilege('rowcast_owner', 'public.tasks', 'delete')")


def test_table_without_a_time_of_deletion_is_refused(
    db: Database, conn: psycopg.Connection
) -> None:
    live(conn, "plain", "id uuid primary key")
    live(conn, "flagged", "id uuid primary key, gone boolean", ", p_soft_delete => 'gone'")
    for table in ("plain", "flagged"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            conn.execute(f"select sync.purge_deleted('public.{table}', '1 day')".encode())
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("select sync.purge_deleted('public.tasks', '1 hour')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("rowcast_worker").execute("select sync.purge_deleted('public.tasks', '1 day')")


def test_statistics_are_gathered_of_what_autovacuum_leaves_out(
    db: Database, conn: psycopg.Connection
) -> None:
    Gate(db).applied(ALICE, create("tasks", new_id(), boardId=LAUNCH, title="t"))
    asked = (
        "select count(*) from pg_statistic"
        " where starelid = 'sync_internal.changes'::regclass and stainherit"
    )
    assert value(conn, asked) == 0
    db.connect("rowcast_worker").execute("select jobs.worker_statistics()")
    assert value(conn, asked) > 0


def test_no_transaction_is_longer_than_some_records_of_one_table(
    db: Database, conn: psycopg.Connection
) -> None:
    for table in ("first", "second"):
        live(conn, table, "id uuid primary key, gone timestamptz", ", p_soft_delete => 'gone'")
        conn.execute(
            f"""
            select sync.purge_deleted('public.{table}', '1 day');
            insert into public.{table} (id, gone)
            select gen_random_uuid(), now() - interval '2 days' from generate_series(1, 3);
            """.encode()
        )
    worker = db.connect("rowcast_worker")
    counts = [value(worker, "select jobs.worker_purge(2)") for _ in range(5)]
    assert counts == [2, 1, 2, 1, 0]
