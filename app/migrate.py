"""Installs and upgrades Rowcast's SQL: the runner behind `rowcast migrate` and `rowcast sql`.

Everything happens in one transaction under an advisory lock: roles, pending migrations, all
functions, all policies, then `sync_internal.after_migrate`, which regenerates the code that depends
on the registry.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from . import __version__

EXAMPLES = ("tasks", "notes", "seed", "profiles", "sharing", "files", "notifications", "transfers")
ADVISORY_LOCK = 0x726F7763617374  # "rowcast" in ASCII

Progress = Callable[[str, int, int], None]
"""Called before each file with what is done, its number from 1 and how many there are."""

# Names in our SQL are qualified, so the search_path of the installing role decides nothing.
# Bodies may call functions of files that come later, hence no check of bodies.
OPEN: LiteralString = """
set local client_min_messages = warning;
set local check_function_bodies = off;
set local search_path = pg_catalog, pg_temp;
"""

# Who reads and writes meanwhile takes locks in an order of his own, so taking ours one by one, as
# the files come, ends in a deadlock under load. All at once and first, then: those that are to be
# had within moments, else none and again, so that nobody queues behind a migration that waits. Live
# tables come first, which are held for long: whoever waits for one of ours meanwhile would be told
# of a deadlock after a second. Now and then it waits for longer than that: a vacuum gives way then.
LOCK: LiteralString = """
do $$
declare
    v_tables text;
    v_before constant text := current_setting('lock_timeout');
begin
    if to_regprocedure('sync_internal.live_tables()') is null then
        return;
    end if;
    select string_agg(c.oid::regclass::text, ', ' order by l.relation is null, c.oid) into v_tables
    from pg_class c
    left join sync_internal.live_tables() l (relation) on l.relation = c.oid
    where c.relkind in ('r', 'p') and not c.relispartition
        and pg_has_role(current_user, c.relowner, 'usage')
        and (
            l.relation is not null
            or c.relnamespace in (
                select n.oid from pg_namespace n where n.nspowner = 'rowcast_owner'::regrole
            )
        );
    for v_try in 1..100 loop
        begin
            perform set_config(
                'lock_timeout',
                case when v_try % 5 = 0 then 1500 else least(100 * v_try, 900) end::text, true
            );
            execute 'lock table ' || v_tables || ' in access exclusive mode';
            perform set_config('lock_timeout', v_before, true);
            return;
        exception
            when lock_not_available or deadlock_detected then
                if v_try = 100 then
                    raise exception using
                        errcode = 'lock_not_available',
                        message = 'somebody holds a lock on a table of Rowcast or a live table',
                        hint = 'End the longest transactions of pg_stat_activity, then try again';
                end if;
        end;
        perform pg_sleep(0.05 + 0.1 * random());
    end loop;
end
$$;
"""

LEDGER: LiteralString = """
create schema if not exists sync_internal authorization rowcast_owner;
create table if not exists sync_internal.migrations (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now()
);
alter table sync_internal.migrations owner to rowcast_owner;
comment on table sync_internal.migrations is
'Migrations and example files that were applied, with the SHA-256 of their text.';
"""

RECORD: LiteralString = "insert into sync_internal.migrations (name, checksum) values ({}, {})"


class MigrationError(Exception):
    """The database cannot be migrated; the message names the file and the fix."""


@dataclass(frozen=True)
class Step:
    """A file of sql/: its path within the folder and its text."""

    name: str
    text: str

    @property
    def is_migration(self) -> bool:
        return self.name.startswith("migrations/")

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, which git and editors may end with either kind of newline."""
        return hashlib.sha256(self.text.replace("\r\n", "\n").encode()).hexdigest()


@dataclass(frozen=True)
class Status:
    """Migrations by state, as names of files."""

    applied: list[str]
    pending: list[str]
    changed: list[str]


@dataclass(frozen=True)
class Finding:
    """One row of `sync.doctor()`; severity is error, warning or info."""

    severity: str
    code: str
    object: str | None
    message: str
    fix: str | None


@dataclass(frozen=True)
class User:
    """One row of `accounts.list_users()`."""

    id: uuid.UUID
    email: str | None
    guest: bool
    has_password: bool
    providers: list[str]
    sessions: int
    disabled: bool


@dataclass(frozen=True)
class QueuedJob:
    """One row of `jobs.list()`; state is queued, running or held."""

    id: int
    kind: str
    state: str
    attempts: int
    run_at: datetime
    user_id: str | None
    error: str | None


def sql_folder() -> Path:
    """The folder sql/: inside the package once installed, beside it in a checkout."""
    inside = Path(__file__).parent / "sql"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "sql"


def steps(folder: Path) -> list[Step]:
    """Every file in the order it runs: roles, migrations, functions, policies."""
    paths = [folder / "roles.sql", *sorted((folder / "migrations").glob("*.sql"))]
    paths += sorted((folder / "functions").rglob("*.sql"))
    paths += sorted((folder / "policies").rglob("*.sql"))
    return [
        Step(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


def create_database(dsn: str, name: str) -> bool:
    """Creates the database unless it exists; `dsn` leads to another one. False if it existed."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        known = conn.execute("select 1 from pg_catalog.pg_database where datname = %s", (name,))
        if known.fetchone() is not None:
            return False
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        return True


def status(dsn: str, folder: Path | None = None) -> Status:
    """Compares the files with what the database says was applied."""
    with psycopg.connect(dsn) as conn:
        return _compare(_applied(conn), steps(folder or sql_folder()))


def migrate(
    dsn: str,
    *,
    examples: bool = False,
    folder: Path | None = None,
    progress: Progress = lambda _what, _number, _total: None,
) -> list[str]:
    """Brings the database to this version, waiting for any other migrate; names what it applied.

    Raises MigrationError where an applied file was changed, or a file fails; then nothing happened.
    """
    folder = folder or sql_folder()
    files = steps(folder)
    with psycopg.connect(dsn) as conn:
        with conn.transaction():
            done = _run(conn, files, progress)
        if examples:
            with conn.transaction():
                done += _run_examples(conn, folder, progress)
    return done


def doctor(dsn: str) -> list[Finding]:
    """What `sync.doctor()` finds in the database, in its order."""
    with psycopg.connect(dsn, row_factory=class_row(Finding)) as conn:
        return conn.execute(
            "select severity, code, object, message, fix from sync.doctor()"
        ).fetchall()


def describe(dsn: str) -> dict[str, Any]:
    """The registry as `sync.describe()` tells it to whoever may call that."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select sync.describe()").fetchone()
        described: dict[str, Any] = row[0] if row else {}
        return described


def users(dsn: str, like: str | None = None) -> list[User]:
    """The newest hundred users of accounts, or those whose address or id it is."""
    with psycopg.connect(dsn, row_factory=class_row(User)) as conn:
        return conn.execute(
            "select id, email, guest, has_password, providers, sessions, disabled"
            " from accounts.list_users(p_like => %s)",
            (like,),
        ).fetchall()


def set_disabled(dsn: str, user: str, *, disabled: bool) -> None:
    """Disables or enables a user, of whatever issuer."""
    with psycopg.connect(dsn) as conn:
        if disabled:
            conn.execute("select sync.disable_user(%s)", (user,))
        else:
            conn.execute("select sync.enable_user(%s)", (user,))


def list_jobs(dsn: str, state: str | None = None) -> list[QueuedJob]:
    """The oldest hundred background jobs, or those in one state."""
    with psycopg.connect(dsn, row_factory=class_row(QueuedJob)) as conn:
        return conn.execute(
            "select id, kind, state, attempts, run_at, user_id, error"
            " from jobs.list(p_state => %s)",
            (state,),
        ).fetchall()


def requeue_jobs(dsn: str, job: int | None = None) -> int:
    """Puts a held job back, or all of them; how many."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select jobs.requeue(p_id => %s)", (job,)).fetchone()
        return row[0] if row else 0


def cancel_job(dsn: str, job: int) -> bool:
    """Removes a job that waits or is held; False where there is none."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select jobs.cancel(p_id => %s)", (job,)).fetchone()
        return bool(row and row[0])


def remove(dsn: str, folder: Path | None = None) -> None:
    """Takes Rowcast out in one transaction; tables that were live stay with their rows."""
    step = Step("remove.sql", ((folder or sql_folder()) / "remove.sql").read_text("utf-8"))
    with psycopg.connect(dsn) as conn:
        conn.execute("select pg_catalog.pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        _execute(conn, step)


def sql_script(folder: Path | None = None) -> str:
    """The same as `migrate` as one psql script; running it again is harmless."""
    return "\n".join(_script(steps(folder or sql_folder())))


def _run(conn: psycopg.Connection, files: list[Step], progress: Progress) -> list[str]:
    conn.execute("select pg_catalog.pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    conn.execute(OPEN)
    try:
        conn.execute(LOCK)
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationError(_explain(error)) from error
    known = _applied(conn)
    found = _compare(known, files)
    if found.changed:
        raise MigrationError(
            f"{', '.join(found.changed)}: changed since it was applied. Applied migrations are "
            "never edited: restore the file and put the change into a new one."
        )
    ours = {step.name for step in files}
    newer = sorted(name for name in known if name.startswith("migrations/") and name not in ours)
    if newer:
        raise MigrationError(
            f"the database was migrated by a newer version ({', '.join(newer)}), and there is no "
            "way back: run that version of `rowcast migrate`"
        )
    for number, step in enumerate(files, 1):
        if step.name in known:
            continue
        progress(step.name, number, len(files))
        _execute(conn, step)
        if step.name == "roles.sql":
            conn.execute(LEDGER)
        if step.is_migration:
            _record(conn, step)
    progress("generated code", len(files), len(files))
    _finish(conn)
    return found.pending


def _finish(conn: psycopg.Connection) -> None:
    try:
        conn.execute("select sync_internal.after_migrate(p_version => %s)", (__version__,))
    except psycopg.Error as error:
        raise MigrationError(f"after_migrate: {_explain(error)}") from error


def _run_examples(conn: psycopg.Connection, folder: Path, progress: Progress) -> list[str]:
    conn.execute("select pg_catalog.pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
    conn.execute(OPEN)
    known = _applied(conn)
    done = []
    for number, name in enumerate(EXAMPLES, 1):
        path = f"examples/{name}.sql"
        if path in known:
            continue
        progress(path, number, len(EXAMPLES))
        step = Step(path, (folder / path).read_text(encoding="utf-8"))
        _execute(conn, step)
        _record(conn, step)
        done.append(path)
    return done


def _execute(conn: psycopg.Connection, step: Step) -> None:
    try:
        conn.execute(step.text.encode())
    except psycopg.Error as error:
        raise MigrationError(f"{_place(step, error)}: {_explain(error)}") from error


def _record(conn: psycopg.Connection, step: Step) -> None:
    conn.execute(sql.SQL(RECORD).format(step.name, step.checksum))


def _place(step: Step, error: psycopg.Error) -> str:
    """The file, and the line where Postgres says the position."""
    position = error.diag.statement_position
    if position is None:
        return step.name
    return f"{step.name}:{step.text.count(chr(10), 0, int(position) - 1) + 1}"


def _explain(error: psycopg.Error) -> str:
    said = error.diag
    parts = (said.message_primary or str(error), said.message_detail, said.message_hint)
    where = f"in {said.context}" if said.context else None
    return "\n".join(part for part in (*parts, where) if part)


def _applied(conn: psycopg.Connection) -> dict[str, str]:
    """Checksums by file; empty where Rowcast was never installed."""
    if conn.execute("select to_regclass('sync_internal.migrations')").fetchone() == (None,):
        return {}
    return dict(conn.execute("select name, checksum from sync_internal.migrations").fetchall())


def _compare(known: dict[str, str], files: list[Step]) -> Status:
    result = Status([], [], [])
    for step in files:
        if not step.is_migration:
            continue
        if step.name not in known:
            result.pending.append(step.name)
        elif known[step.name] == step.checksum:
            result.applied.append(step.name)
        else:
            result.changed.append(step.name)
    return result


def _script(files: list[Step]) -> Iterator[str]:
    yield f"-- Rowcast {__version__}: installs or upgrades. Run with: psql --no-psqlrc --file=-"
    yield "\\set ON_ERROR_STOP on"
    yield "\\set QUIET on"
    yield "begin;"
    yield "\\o /dev/null"
    yield f"select pg_catalog.pg_advisory_xact_lock({ADVISORY_LOCK});"
    yield OPEN
    yield LOCK
    for step in files:
        yield f"-- {step.name}"
        yield from _guarded(step) if step.is_migration else (step.text,)
        if step.name == "roles.sql":
            yield LEDGER
    yield f"select sync_internal.after_migrate(p_version => {_quote(__version__)});"
    yield "\\o"
    yield "commit;\n"


def _guarded(step: Step) -> Iterator[str]:
    name, checksum = _quote(step.name), _quote(step.checksum)
    table = "sync_internal.migrations"
    yield "select"
    yield f"    not exists (select from {table} where name = {name}) as pending,"
    yield "    exists ("
    yield f"        select from {table} where name = {name} and checksum <> {checksum}"
    yield "    ) as changed"
    yield "\\gset rowcast_"
    yield "\\if :rowcast_changed"
    yield f"do $$ begin raise exception '%: changed since it was applied', {name}; end $$;"
    yield "\\elif :rowcast_pending"
    yield step.text
    yield f"insert into {table} (name, checksum) values ({name}, {checksum});"
    yield "\\endif"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
