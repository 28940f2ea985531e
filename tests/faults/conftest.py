"""Fixtures: a gateway in the test's own loop that reaches its database through a proxy."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.faults.proxy import Proxy, unix
from tests.gateway.conftest import Service, settings_for
from tests.postgres import Database


@pytest_asyncio.fixture
async def database_proxy(db: Database) -> AsyncIterator[Proxy]:
    """Between the gateway of `service` and `db`."""
    folder = db.dsn().split()[0].removeprefix("host=")
    async with Proxy(unix(lambda: f"{folder}/.s.PGSQL.5432")) as made:
        yield made


@pytest_asyncio.fixture
async def service(db: Database, database_proxy: Proxy) -> AsyncIterator[Service]:
    """A gateway on `db`, behind the proxy."""
    dsn = (
        f"host=127.0.0.1 port={database_proxy.port} user=rowcast_gateway dbname={db.name}"
        " sslmode=disable gssencmode=disable"
    )
    async with Service(settings_for(dsn)) as running:
        await running.ready()
        yield running
