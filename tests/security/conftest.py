"""Fixtures of the security tests."""

from collections.abc import Iterator

import pytest

from tests.postgres import Database, Server
from tests.sql.engine import Gate


@pytest.fixture
def gate(db: Database) -> Gate:
    """The doors of the gateway to a database of the test's own."""
    return Gate(db)


@pytest.fixture(scope="session")
def quiet_db(pg: Server) -> Iterator[Database]:
    """One database for tests of which none changes anything that another looks at."""
    with pg.database() as database:
        yield database


@pytest.fixture(scope="session")
def quiet(quiet_db: Database) -> Gate:
    """The doors to `quiet_db`."""
    return Gate(quiet_db)
