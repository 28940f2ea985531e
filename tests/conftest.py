"""Fixtures: `pg` the server, `db` a clone of the template, `conn` a superuser on such a clone."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Database, Server, second_version

EMBEDDED = "embedded"
SECOND = "second"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--pg`: which PostgreSQL the tests run on."""
    parser.addoption(
        "--pg",
        choices=["18", "15", "both"],
        default="both",
        help="18: the embedded one; 15: only the second one (ROWCAST_TEST_POSTGRES_BIN, or "
        "Debian's 15); both: the second one for tests marked both_versions, where it is present",
    )


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


@pytest.fixture(scope="session")
def pg(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The server of this run, one per version; it is gone with the run."""
    server = Server(second_version() if request.param == SECOND else None)
    yield server
    server.stop()


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
