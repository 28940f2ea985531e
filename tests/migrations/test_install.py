"""Rowcast's own SQL: every way to install it gives the same database."""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from app import migrate
from tests.postgres import Database, Server

pytestmark = pytest.mark.both_versions


def test_repeated_migrate_changes_nothing(db: Database) -> None:
    before = db.dump()
    assert migrate.migrate(db.dsn(), examples=True) == []
    assert db.dump() == before


def test_script_equals_migrate(pg: Server, empty_db: Database) -> None:
    migrate.migrate(empty_db.dsn())
    with pg.database(empty=True) as by_psql:
        assert by_psql.psql(migrate.sql_script()) == ""
        assert by_psql.dump() == empty_db.dump()


def test_script_repeated_on_a_migrated_database_changes_nothing(db: Database) -> None:
    before = db.dump()
    db.psql(migrate.sql_script())
    assert db.dump() == before


def test_installer_needs_no_superuser(pg: Server, empty_db: Database) -> None:
    """A role that may create roles, owning the database, installs and upgrades."""
    # The roles exist already on this server, so their administration is what a creator would have.
    with psycopg.connect(empty_db.dsn(), autocommit=True) as conn:
        conn.execute("drop role if exists installer")
        conn.execute("create role installer login createrole")
        for role in ("rowcast_owner", "anon", "authenticated", "service_role"):
            conn.execute(
                sql.SQL("grant {} to installer with admin option").format(sql.Identifier(role))
            )
        for role in ("rowcast_gateway", "rowcast_worker"):
            conn.execute(
                sql.SQL("grant {} to installer with admin option").format(sql.Identifier(role))
            )
    pg.run("alter database {} owner to {}", empty_db.name, "installer")
    try:
        migrate.migrate(empty_db.dsn("installer"))
        assert migrate.migrate(empty_db.dsn("installer")) == []
    finally:
        with psycopg.connect(empty_db.dsn(), autocommit=True) as conn:
            pg.run("alter database {} owner to {}", empty_db.name, "postgres")
            conn.execute("drop owned by installer cascade")
            conn.execute("drop role installer")


def test_fresh_equals_upgraded(pg: Server, empty_db: Database, tmp_path: Path) -> None:
    """Migrating at every step of the history ends where a fresh installation does."""
    migrate.migrate(empty_db.dsn())
    names = sorted(path.name for path in (migrate.sql_folder() / "migrations").glob("*.sql"))
    with pg.database(empty=True) as upgraded, psycopg.connect(upgraded.dsn()) as conn:
        # What the runner does for an older release: the migrations of that day, one run each.
        for step in migrate.steps(migrate.sql_folder()):
            if step.name == "roles.sql":
                conn.execute(step.text.encode())
                conn.execute(migrate.LEDGER)
            elif step.is_migration:
                conn.execute(step.text.encode())
                conn.execute(
                    "insert into sync_internal.migrations (name, checksum) values (%s, %s)",
                    (step.name, step.checksum),
                )
            conn.commit()
        assert migrate.status(upgraded.dsn()).pending == []
        migrate.migrate(upgraded.dsn())
        assert upgraded.dump() == empty_db.dump()
    assert names


def settings_of_roles(db: Database) -> object:
    with psycopg.connect(db.dsn()) as conn:
        return conn.execute(
            "select setrole::regrole, setconfig from pg_db_role_setting s"
            " join pg_database d on d.oid = s.setdatabase and d.datname = current_database()"
        ).fetchall()


def test_functions_of_a_former_version_are_gone_after_an_upgrade(db: Database) -> None:
    """One left behind would stay in reach of whoever could call it."""
    before = db.dump()
    conn = db.connect()
    conn.execute(
        "set role rowcast_owner;"
        "create function sync_internal.former(p_table text) returns text language sql "
        "security definer as 'select 1';"
        "create function sync.apply(p_former integer) returns void language sql as 'select';"
        "grant execute on function sync_internal.former(text) to anon; reset role"
    )
    assert db.dump() != before
    migrate.migrate(db.dsn())
    assert db.dump() == before


def test_remove_leaves_the_database_as_it_was_found(empty_db: Database) -> None:
    before = empty_db.dump()
    migrate.migrate(empty_db.dsn())
    assert settings_of_roles(empty_db)
    migrate.remove(empty_db.dsn())
    assert empty_db.dump() == before
    assert settings_of_roles(empty_db) == []
    migrate.migrate(empty_db.dsn())


@pytest.mark.parametrize("functions", [("uid uuid", "jwt jsonb", "role text"), ("uid uuid",)])
def test_schema_auth_of_somebody_else_is_lived_with_and_left_as_it_was(
    empty_db: Database, functions: tuple[str, ...]
) -> None:
    """What it lacks is added; tables of any schema can be live beside it."""
    conn = empty_db.connect()
    conn.execute("create schema auth")
    for name, result in (function.split() for function in functions):
        conn.execute(
            f"create function auth.{name}() returns {result} language sql stable "
            f"as 'select null::{result}'".encode()
        )
    conn.execute(
        """
        create schema app;
        create table app.things (id uuid primary key, version integer not null default 1);
        alter table app.things enable row level security;
        create policy nobody on app.things for select using (id = (select auth.uid()));
        """
    )
    before = empty_db.dump()
    migrate.migrate(empty_db.dsn())
    conn.execute("select auth.uid(), auth.jwt(), auth.role()")
    conn.execute("select sync.enable('app.things')")
    assert migrate.migrate(empty_db.dsn()) == []
    conn.execute("update app.things set id = id")
    migrate.remove(empty_db.dsn())
    assert empty_db.dump() == before


def test_remove_keeps_tables_rows_and_policies_that_then_know_nobody(db: Database) -> None:
    conn = db.connect()
    count = "select count(*) from public.tasks"
    before = conn.execute(count).fetchone()
    migrate.remove(db.dsn())
    assert conn.execute(count).fetchone() == before
    conn.execute("update public.tasks set title = 'still writable'")
    assert conn.execute("select auth.uid()").fetchone() == (None,)
    triggers = "select from pg_trigger where tgname like '%rowcast%'"
    assert conn.execute(triggers.encode()).fetchall() == []


def test_remove_refuses_while_something_else_uses_it(db: Database) -> None:
    db.connect().execute("create view public.clock as select sync.now() as now")
    with pytest.raises(migrate.MigrationError, match=r"uses Rowcast: .*clock"):
        migrate.remove(db.dsn())
    assert migrate.status(db.dsn()).pending == []
