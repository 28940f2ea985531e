"""The command `rowcast`."""

import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import psycopg
import pydantic
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from . import __version__, cluster, embedded, jobs, migrate, serve, tail, typescript
from .binaries import EmbeddedError, find_binaries
from .config import DEVELOPMENT, Settings

NO_DATABASE = "which database? Set {}, or start `rowcast run` ({} has no running server)"
GATEWAY = "rowcast_gateway"
WORKER = "rowcast_worker"
SEVERITY_COLOURS = {"error": "red", "warning": "yellow"}

app = typer.Typer(
    name="rowcast",
    help="PostgreSQL as the backend of real-time, offline-first, collaborative applications.\n\n"
    "Settings come from the environment: ROWCAST_DATABASE_URL, ROWCAST_DATA_DIR, PORT, ... "
    "(docs/reference/settings.md).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def main() -> None:
    """Entry point: expected failures become one message and exit status 1, not a traceback."""
    try:
        app(prog_name="rowcast")
    except (
        EmbeddedError,
        migrate.MigrationError,
        serve.ServeError,
        jobs.ModuleError,
        typescript.TypesError,
    ) as error:
        _fail(str(error))
    except psycopg.errors.InvalidSchemaName:
        _fail("Rowcast is not installed in this database; `rowcast migrate` does that")
    except psycopg.Error as error:
        _fail(f"the database said: {error}")
    except pydantic.ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        _fail("settings: " + "; ".join(problem.removeprefix(": ") for problem in problems))
    except SettingsError as error:
        _fail(f"settings: {error}")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""
    if version:
        out.print(__version__)
        raise typer.Exit


@app.command("run")
def run_(
    two: Annotated[
        bool, typer.Option("--cluster", help="Two gateways behind HAProxy, which has to be there.")
    ] = False,
) -> None:
    """Start everything for development: embedded PostgreSQL, schema, example apps, gateway.

    With ROWCAST_DATABASE_URL set, that database is used in place of the embedded one. Signing in
    as a demo user needs no password, so never run this where others can reach it.
    """
    settings = Settings()
    haproxy = cluster.find_haproxy() if two else None
    with _stop_on_signals(), _database(settings) as (login, admin, worker_login):
        _migrate(admin, examples=True)
        listener = serve.listen(settings.host, settings.port)
        environment = {
            "ROWCAST_DATABASE_URL": login,
            "ROWCAST_ENV": "development",
            "ROWCAST_DEV_SIGN_IN": "true",
            "ROWCAST_ACCOUNTS": "true",
            "ROWCAST_PUBLIC_URL": settings.public_url or serve.url(listener),
            "ROWCAST_LOG_LEVEL": os.environ.get("ROWCAST_LOG_LEVEL") or "warning",
            "ROWCAST_JWT_SECRET": settings.jwt_secret or _kept_secret(settings.data_dir),
            "ROWCAST_JWT_SECRET_FILE": "",
            "ROWCAST_DATABASE_URL_FILE": "",
        }
        gateway: serve.Gateway | cluster.Cluster
        if haproxy is None:
            gateway = serve.Gateway(listener, environment)
        else:
            gateway = cluster.Cluster(haproxy, listener, environment)
        worker = None
        if worker_login is None:
            err.print("[dim]Without ROWCAST_WORKER_URL no background jobs are done.[/]")
        else:
            own = {"ROWCAST_WORKER_URL": worker_login, "ROWCAST_WORKER_URL_FILE": ""}
            worker = serve.WorkerChild({**environment, **own})
        try:
            with out.status("Starting the gateway"):
                gateway.start()
            if worker is not None:
                worker.start()
                threading.Thread(target=worker.watch, name=worker.name, daemon=True).start()
            _welcome(serve.url(listener))
            if isinstance(gateway, cluster.Cluster):
                out.print("  Gateways behind HAProxy: " + ", ".join(gateway.urls) + "\n")
            gateway.watch()
        finally:
            with out.status("Stopping"):
                gateway.stop(settings.drain_seconds + 5)
                if worker is not None:
                    worker.stop(settings.drain_seconds + 15)


@app.command("serve")
def serve_(
    handles: Annotated[
        str | None, typer.Option(hidden=True, help="Inherited socket and pipe: two numbers.")
    ] = None,
) -> None:
    """Start the gateway on a database that `rowcast migrate` has prepared."""
    settings = Settings()
    if settings.database_url is None:
        _fail("serve needs ROWCAST_DATABASE_URL; `rowcast run` brings its own database")
    if not settings.algorithms and not settings.allow_anon:
        _fail(
            "nobody could sign in: serve needs ROWCAST_JWT_SECRET or ROWCAST_JWT_JWKS_URL, and "
            "ROWCAST_JWT_ALGORITHMS that go with it, or ROWCAST_ALLOW_ANON"
        )
    if handles is None:
        serve.serve(settings, serve.listen(settings.host, settings.port))
        return
    listener, lifeline = (int(number) for number in handles.split(","))
    serve.end_with(lifeline)
    serve.serve(settings, socket.socket(fileno=listener))


@app.command("worker")
def worker_(
    lifeline: Annotated[
        int | None, typer.Option(hidden=True, help="Inherited pipe: a number.")
    ] = None,
) -> None:
    """Do background jobs until told to stop. Any number of workers share the work."""
    import logging.config

    from . import chores, fitness, logs, worker

    settings = Settings()
    login = settings.worker_url or embedded.running_dsn(settings.data_dir, WORKER)
    if login is None:
        _fail(NO_DATABASE.format("ROWCAST_WORKER_URL", settings.data_dir))
    code = {**chores.code(settings, login), **jobs.load(settings.worker_modules)}
    logging.config.dictConfig(logs.configuration(settings.log_level, settings.log_format))
    if lifeline is not None:
        serve.end_with(lifeline)
    port = settings.worker_port
    listener = None if port is None else serve.listen(settings.host, port, "ROWCAST_WORKER_PORT")
    try:
        worker.run(settings, login, code, listener)
    except fitness.Unfit as why:
        _fail(str(why))


@app.command("jobs")
def jobs_(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only those queued, running or held.")
    ] = None,
    requeue: Annotated[
        int | None, typer.Option(metavar="ID", help="Put a held job back, with all its attempts.")
    ] = None,
    requeue_all: Annotated[
        bool, typer.Option("--requeue-all", help="Put every held job back.")
    ] = False,
    cancel: Annotated[
        int | None, typer.Option(metavar="ID", help="Remove a job that waits or is held.")
    ] = None,
) -> None:
    """List background jobs; put held ones back, or remove one."""
    admin = _admin(Settings())
    if cancel is not None:
        if not migrate.cancel_job(admin, cancel):
            _fail(f"there is no job {cancel} that waits or is held")
        out.print("removed")
        return
    if requeue is not None or requeue_all:
        count = migrate.requeue_jobs(admin, requeue)
        if requeue is not None and not count:
            _fail(f"there is no held job {requeue}")
        out.print(f"{count} put back")
        return
    table = Table("id", "kind", "state", "attempts", "due", "user", "error", box=None)
    for job in migrate.list_jobs(admin, state):
        table.add_row(
            str(job.id),
            escape(job.kind),
            f"[red]{job.state}[/]" if job.state == "held" else job.state,
            str(job.attempts),
            job.run_at.isoformat(" ", "seconds"),
            escape(job.user_id or ""),
            escape(job.error or ""),
        )
    out.print(table)


@app.command("migrate")
def migrate_(
    examples: Annotated[
        bool, typer.Option("--examples", help="Install the example apps and demo users too.")
    ] = False,
) -> None:
    """Install Rowcast in the database or bring it to this version. Harmless to repeat."""
    done = _migrate(_admin(Settings()), examples=examples)
    for name in done:
        out.print(f"applied {name}")
    out.print(f"The database is at version {__version__}.")


@app.command("sql")
def sql_() -> None:
    """Print the SQL of `migrate` as one script for psql."""
    sys.stdout.write(migrate.sql_script())


@app.command("types")
def types_(
    file: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; otherwise standard output.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; status 1 if the file is not current.")
    ] = False,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TABLE.KEY=TYPE",
            help="TypeScript type of a key, above all of what a jsonb column holds.",
        ),
    ] = None,
) -> None:
    """Write TypeScript types of the live tables, for a client of theirs."""
    if check and file is None:
        raise typer.BadParameter("--check needs -o FILE")
    text = typescript.render(migrate.describe(_admin(Settings())), _types_of_keys(given or []))
    if file is None:
        sys.stdout.write(text)
        return
    current = file.is_file() and file.read_text("utf-8") == text
    if check and not current:
        _fail(f"{file} is not current; write it again: rowcast types -o {file}")
    if not current:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    out.print(f"{file} is current" if current else f"wrote {file}")


@app.command()
def doctor() -> None:
    """Check the database: security, durability, leftovers. Exit status 1 at any error."""
    table = Table("", "what", "where", "finding and fix", box=None, pad_edge=False)
    with out.status("Examining the database"):
        findings = migrate.doctor(_admin(Settings()))
    for finding in findings:
        colour = SEVERITY_COLOURS.get(finding.severity, "dim")
        text = escape(finding.message) + (f"\n[dim]{escape(finding.fix)}[/]" if finding.fix else "")
        table.add_row(
            f"[{colour}]{escape(finding.severity)}[/]",
            escape(finding.code),
            escape(finding.object or ""),
            text,
        )
    if findings:
        out.print(table)
    errors = sum(finding.severity == "error" for finding in findings)
    out.print(f"{len(findings)} findings, {errors} of them errors")
    raise typer.Exit(1 if errors else 0)


@app.command("users")
def users_(
    like: Annotated[str | None, typer.Argument(help="Part of an address, or an id.")] = None,
    disable: Annotated[
        str | None, typer.Option(metavar="ID", help="End his sessions and let him in no more.")
    ] = None,
    enable: Annotated[str | None, typer.Option(metavar="ID", help="Let him in again.")] = None,
) -> None:
    """List the users of accounts; disable or enable one."""
    admin = _admin(Settings())
    if disable is not None or enable is not None:
        migrate.set_disabled(admin, disable or enable or "", disabled=disable is not None)
        out.print("disabled" if disable is not None else "enabled")
        return
    table = Table("id", "address", "signs in by", "sessions", "", box=None, pad_edge=False)
    for user in migrate.users(admin, like):
        ways = ["password"] if user.has_password else []
        table.add_row(
            str(user.id),
            escape(user.email or ("a guest" if user.guest else "")),
            escape(", ".join([*ways, *user.providers])),
            str(user.sessions),
            "[red]disabled[/]" if user.disabled else "",
        )
    out.print(table)


@app.command("tail")
def tail_() -> None:
    """Print changes as they are committed, whoever may read them, until interrupted."""
    settings = Settings()
    login = settings.database_url or embedded.running_dsn(settings.data_dir, GATEWAY)
    if login is None:
        _fail(NO_DATABASE.format("ROWCAST_DATABASE_URL", settings.data_dir))
    err.print("[dim]Waiting for changes; Ctrl-C ends.[/]")
    with _stop_on_signals():
        for line in tail.follow(login, settings.poll_seconds):
            out.print(line, soft_wrap=True)


@app.command(
    "psql", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def psql_(
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to psql.")] = None,
) -> None:
    """Open psql on the database as its administrator; of the embedded server too."""
    settings = Settings()
    admin = _admin(settings)
    program = shutil.which("psql")
    if settings.admin_url is None or program is None:
        program = str(find_binaries(settings.postgres_bin, None).folder / "psql")
    parameters = conninfo_to_dict(admin)
    # The arguments of a process can be seen by everybody on the machine.
    password = parameters.pop("password", None)
    environment = {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
    target = make_conninfo("", **parameters)
    os.execve(program, [program, target, *(arguments or [])], environment)  # noqa: S606


@app.command("sweep")
def sweep_(
    orphans: Annotated[
        bool,
        typer.Option(
            "--orphans",
            help="Also remove objects older than a day that this database knows nothing of. The "
            "store, or its prefix, has to be this database's alone.",
        ),
    ] = False,
) -> None:
    """Remove files that were abandoned or deleted long ago; a gateway does so every hour."""
    import asyncio

    from . import files
    from .errors import Problem

    settings = Settings()
    login = settings.database_url or embedded.running_dsn(settings.data_dir, GATEWAY)
    if login is None:
        _fail(NO_DATABASE.format("ROWCAST_DATABASE_URL", settings.data_dir))
    try:
        gone, strange = asyncio.run(files.sweep_once(settings, login, orphans))
    except Problem as problem:
        _fail(problem.detail)
    out.print(f"{gone} files are gone" + (f", and {strange} orphans" if orphans else ""))


@app.command()
def remove(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take Rowcast out of the database, accounts included. Application tables stay."""
    admin = _admin(Settings())
    if not yes:
        typer.confirm(
            "Remove Rowcast, its feed, its receipts and all accounts from the database?", abort=True
        )
    with out.status("Removing"):
        migrate.remove(admin)
    out.print("Rowcast is removed. The roles stay: other databases of this server may use them.")


@app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete the embedded server's data folder (ROWCAST_DATA_DIR)."""
    home = Settings().data_dir
    if not yes:
        typer.confirm(f"Delete {home} and every database in it?", abort=True)
    gone = embedded.reset(home)
    out.print(f"{home} is deleted." if gone else f"{home} does not exist; nothing to delete.")


def _fail(message: str) -> NoReturn:
    # Not wrapped: in the log of a container it is one line.
    err.print(f"[red]error:[/] {escape(message.strip())}", soft_wrap=True)
    raise SystemExit(1)


def _types_of_keys(given: list[str]) -> dict[str, str]:
    types = {}
    for text in given:
        key, equals, kind = (part.strip() for part in text.partition("="))
        if not (key and equals and kind):
            raise typer.BadParameter(f"--type {text}: say TABLE.KEY=TYPE")
        types[key] = kind
    return types


def _admin(settings: Settings) -> str:
    """Where an administrator connects: as set, else the embedded server that runs already."""
    found = settings.admin_url or embedded.running_dsn(settings.data_dir)
    if found is None:
        _fail(NO_DATABASE.format("ROWCAST_MIGRATE_URL", settings.data_dir))
    return found


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, str, str | None]]:
    """The gateway's, the administrator's and the worker's connection; an embedded server unless one
    is named.
    """
    if settings.database_url is not None and settings.admin_url is not None:
        yield settings.database_url, settings.admin_url, settings.worker_url
        return
    server = embedded.Server(settings.data_dir, settings.postgres_bin)
    try:
        with out.status("Starting PostgreSQL"):
            server.start()
            migrate.create_database(server.dsn(database="postgres"), embedded.DATABASE)
        out.print(f"PostgreSQL {server.binaries.version}, data in {settings.data_dir}")
        yield server.dsn(GATEWAY), server.dsn(), server.dsn(WORKER)
    finally:
        with out.status("Stopping PostgreSQL"):
            server.stop()


def _migrate(admin: str, *, examples: bool) -> list[str]:
    bar = Progress(
        TextColumn("Migrating"),
        BarColumn(),
        TextColumn("{task.description}"),
        console=out,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def show(what: str, number: int, total: int) -> None:
            bar.update(task, description=escape(what), completed=number, total=total)

        return migrate.migrate(admin, examples=examples, progress=show)


def _kept_secret(home: Path) -> str:
    """The development secret, made once, so that a restart does not sign everybody out."""
    path = home / "secret"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        partial = home / "secret.partial"
        partial.touch(mode=0o600)
        partial.write_text(DEVELOPMENT + secrets.token_urlsafe(48))
        partial.rename(path)
    return path.read_text()


def _welcome(address: str) -> None:
    out.print(
        f"\n[bold green]Rowcast is running at {address}[/]\n\n"
        "  Open it in two windows and sign in as [bold]alice[/] in one and [bold]bob[/] in the "
        "other;\n  [bold]carol[/] has a workspace of her own and sees nothing of theirs.\n\n"
        f"  API    {address}/api/docs\n"
        "  SQL    rowcast psql     (in a checkout .venv/bin/rowcast)\n"
        "  Feed   rowcast tail\n"
        "  Stop   Ctrl-C\n"
    )


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Turns the first SIGTERM, SIGHUP or SIGINT into a clean stop and ignores the next."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for name in signals:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    for name in signals:
        signal.signal(name, stop)
    try:
        yield
    except KeyboardInterrupt:
        err.print("Stopped.")
