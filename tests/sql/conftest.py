"""Fixtures of the engine's tests: `gate`, the gateway's doors, and one that many tests share."""

from collections.abc import Iterator

import pytest

from tests.postgres import Database, Server
from tests.sql.engine import Gate


@pytest.fixture
def gate(db: Database) -> Gate:
    """The doors of the gateway to a database of the test's own."""
    return Gate(db)


@pytest.fixture(scope="session")
def common_db(pg: Server) -> Iterator[Database]:
    """One database for tests that commit, but each to records of its own or to nothing."""
    with pg.database() as database:
        yield database


@pytest.fixture(scope="session")
def common(common_db: Database) -> Gate:
    """The doors to `common_db`."""
    return Gate(common_db)
