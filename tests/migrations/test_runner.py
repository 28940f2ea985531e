"""The runner, on a folder of SQL of its own."""

import threading
from pathlib import Path

import psycopg
import pytest

from app import migrate
from tests.postgres import Database, Server

pytestmark = pytest.mark.both_versions

ROLES = """
do $$ begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'rowcast_owner') then
        create role rowcast_owner nologin;
    end if;
end $$;
"""
FIRST = """
create schema t;
create table t.notes (id int primary key);
create function sync_internal.after_migrate(p_version text) returns void
language sql as 'insert into t.versions values (p_version)';
create table t.versions (version text not null);
"""
SECOND = "alter table t.notes add column body text not null default 'it''s; empty';\n"
# Uses a function of a file that sorts after it.
FUNCTION = """
create or replace function t.a_total() returns bigint language sql
return (select count(*) + t.b_bonus() from t.notes);
"""
BONUS = "create or replace function t.b_bonus() returns int language plpgsql as $$ begin {} end $$;"
POLICY = """
alter table t.notes enable row level security;
drop policy if exists everyone on t.notes;
create policy everyone on t.notes using (true);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "roles.sql": ROLES,
        "migrations/0001_first.sql": FIRST,
        "functions/bonus/a_bonus.sql": BONUS.format("return 1;"),
        "functions/total/total.sql": FUNCTION,
        "policies/notes.sql": POLICY,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def value(db: Database, statement: str) -> object:
    with psycopg.connect(db.dsn()) as conn:
        row = conn.execute(statement.encode()).fetchone()
        return row[0] if row else None


def test_files_run_once_and_functions_every_time(empty_db: Database, folder: Path) -> None:
    assert migrate.migrate(empty_db.dsn(), folder=folder) == ["migrations/0001_first.sql"]
    assert value(empty_db, "select t.a_total()") == 1
    (folder / "functions/bonus/a_bonus.sql").write_text(BONUS.format("return 7;"))
    (folder / "migrations/0002_body.sql").write_text(SECOND)
    assert migrate.migrate(empty_db.dsn(), folder=folder) == ["migrations/0002_body.sql"]
    assert migrate.migrate(empty_db.dsn(), folder=folder) == []
    assert value(empty_db, "select t.a_total()") == 7
    assert value(empty_db, "select count(*) from t.versions") == 3


def test_status_tells_pending_from_applied(empty_db: Database, folder: Path) -> None:
    first, second = "migrations/0001_first.sql", "migrations/0002_body.sql"
    assert migrate.status(empty_db.dsn(), folder) == migrate.Status([], [first], [])
    migrate.migrate(empty_db.dsn(), folder=folder)
    (folder / second).write_text(SECOND)
    assert migrate.status(empty_db.dsn(), folder) == migrate.Status([first], [second], [])
    (folder / first).write_text(FIRST + "-- edited\n")
    assert migrate.status(empty_db.dsn(), folder) == migrate.Status([], [second], [first])


def test_edited_migration_is_refused_by_name(empty_db: Database, folder: Path) -> None:
    migrate.migrate(empty_db.dsn(), folder=folder)
    (folder / "migrations/0001_first.sql").write_text(FIRST + "-- edited\n")
    with pytest.raises(migrate.MigrationError, match=r"0001_first\.sql: changed since"):
        migrate.migrate(empty_db.dsn(), folder=folder)
    with pytest.raises(RuntimeError, match=r"0001_first\.sql: changed since"):
        empty_db.psql(migrate.sql_script(folder))


def test_line_ends_are_no_change(empty_db: Database, folder: Path) -> None:
    migrate.migrate(empty_db.dsn(), folder=folder)
    path = folder / "migrations/0001_first.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate.migrate(empty_db.dsn(), folder=folder) == []


def test_failing_file_leaves_nothing_and_is_named_with_its_line(
    empty_db: Database, folder: Path
) -> None:
    (folder / "migrations/0002_body.sql").write_text("\nselect 1;\nselect nothing;\n")
    with pytest.raises(migrate.MigrationError, match=r"0002_body\.sql:3: .*nothing"):
        migrate.migrate(empty_db.dsn(), folder=folder)
    assert value(empty_db, "select to_regnamespace('t')") is None
    with pytest.raises(RuntimeError, match="nothing"):
        empty_db.psql(migrate.sql_script(folder))
    assert value(empty_db, "select to_regnamespace('t')") is None


def test_script_equals_migrate_and_may_be_repeated(
    pg: Server, empty_db: Database, folder: Path
) -> None:
    (folder / "migrations/0002_body.sql").write_text(SECOND)
    migrate.migrate(empty_db.dsn(), folder=folder)
    with pg.database(empty=True) as by_psql:
        for _ in range(2):
            assert by_psql.psql(migrate.sql_script(folder)) == ""
        assert by_psql.dump() == empty_db.dump()
        statement = "select array_agg((name, checksum)::text order by name) from {}"
        ledger = statement.format("sync_internal.migrations")
        assert value(by_psql, ledger) == value(empty_db, ledger)


def test_script_goes_on_where_migrate_stopped(empty_db: Database, folder: Path) -> None:
    migrate.migrate(empty_db.dsn(), folder=folder)
    (folder / "migrations/0002_body.sql").write_text(SECOND)
    empty_db.psql(migrate.sql_script(folder))
    assert migrate.status(empty_db.dsn(), folder).pending == []
    assert migrate.migrate(empty_db.dsn(), folder=folder) == []


def test_two_at_once_apply_everything_once(empty_db: Database, folder: Path) -> None:
    done: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: done.append(migrate.migrate(empty_db.dsn(), folder=folder)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [[], [], [], ["migrations/0001_first.sql"]]


def test_examples_run_once(empty_db: Database, folder: Path) -> None:
    (folder / "examples").mkdir()
    for name in migrate.EXAMPLES:
        (folder / "examples" / f"{name}.sql").write_text(f"create table t.example_{name} ();")
    files = [f"examples/{name}.sql" for name in migrate.EXAMPLES]
    migrate.migrate(empty_db.dsn(), folder=folder)
    assert value(empty_db, "select to_regclass('t.example_seed')") is None
    assert migrate.migrate(empty_db.dsn(), folder=folder, examples=True) == files
    assert migrate.migrate(empty_db.dsn(), folder=folder, examples=True) == []


def test_progress_is_reported(empty_db: Database, folder: Path) -> None:
    seen: list[str] = []
    migrate.migrate(
        empty_db.dsn(), folder=folder, progress=lambda what, _number, _total: seen.append(what)
    )
    assert seen[0] == "roles.sql"
    assert "policies/notes.sql" in seen
