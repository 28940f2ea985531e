"""Fixtures: `pg` the server, `db` a clone of the template, `conn` a superuser on such a clone."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.postgres import Database, Server, second_version, sharing

EMBEDDED = "embedded"
SECOND = "second"
BROWSER = "tests/e2e/"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--pg`: which PostgreSQL the tests run on."""
    parser.addoption(
        "--pg",
        choices=["18", "15", "both"],
        default="both",
        help="18: the embedded one; 15: only the second one (ROWCAST_TEST_POSTGRES_BIN, or "
        "Debian's 15); both: the second one for tests marked both_versions, where it is present",
    )


def pytest_configure(config: pytest.Config) -> None:
    """What the servers of the run are made from, until its end."""
    stack = ExitStack()
    stack.enter_context(sharing())
    config.add_cleanup(stack.close)


def pytest_report_header(config: pytest.Config) -> str:
    """Says in every run whether the second version takes part."""
    chosen = config.getoption("--pg")
    second = second_version()
    if chosen == "18" or second is None:
        return "PostgreSQL: embedded 18 alone"
    return f"PostgreSQL: {second} alone" if chosen == "15" else f"PostgreSQL: 18 and {second}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that uses `pg` once per version it is for."""
    if "pg" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--pg")
    second = second_version()
    if chosen == "15" and second is None:
        raise pytest.UsageError("--pg=15: no PostgreSQL 15; set ROWCAST_TEST_POSTGRES_BIN")
    servers = [SECOND] if chosen == "15" else [EMBEDDED]
    marked = metafunc.definition.get_closest_marker("both_versions")
    if chosen == "both" and marked and second is not None:
        servers.append(SECOND)
    metafunc.parametrize("pg", servers, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For several processes in the order of folders again: in the first is what takes long."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: str(item.path))


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of one file run in one process, those of a browser in one at all: it needs a core."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return BROWSER if file.startswith(BROWSER) else file


def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are cores (`-n auto`): a third of the time a test waits."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Where several processes run the tests: which of them runs which."""
    return ByFile(config, log)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, Server]]:
    """The servers of this process, one per version, each from when it is first used."""
    running: dict[str, Server] = {}
    yield running
    for server in running.values():
        server.stop()


@pytest.fixture(scope="session")
def pg(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    """The server of a version."""
    if request.param not in servers:
        servers[request.param] = Server(second_version() if request.param == SECOND else None)
    return servers[request.param]


@pytest.fixture
def db(pg: Server) -> Iterator[Database]:
    """A database of its own with Rowcast and the example apps; commits stay in it."""
    with pg.database() as database:
        yield database


@pytest.fixture
def empty_db(pg: Server) -> Iterator[Database]:
    """A database of its own with nothing in it."""
    with pg.database(empty=True) as database:
        yield database


@pytest.fixture
def conn(db: Database) -> psycopg.Connection:
    """A superuser's connection to `db`, committing every statement."""
    return db.connect()


@pytest.fixture
def gateway_dsn(db: Database) -> str:
    """Where the gateway connects to `db`, as its own login."""
    return db.dsn(user="rowcast_gateway")


@pytest.fixture(scope="session")
def shared_db(pg: Server) -> Iterator[Database]:
    """One database for all tests that roll back."""
    with pg.database() as database:
        yield database


@pytest.fixture
def tx(shared_db: Database) -> Iterator[psycopg.Connection]:
    """A superuser's transaction that is rolled back: quicker than a database of its own."""
    with psycopg.connect(shared_db.dsn()) as connection:
        yield connection
        connection.rollback()
