"""A standby makes no cursors: its snapshots list no running transactions."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Database, Standby
from tests.sql.engine import wait_until

pytestmark = pytest.mark.both_versions


@pytest.fixture
def standby(db: Database) -> Iterator[str]:
    """Where a standby of the test's server listens."""
    if not (db.server.binaries.folder / "pg_basebackup").is_file():
        pytest.skip("no pg_basebackup beside this server")
    made = Standby(db.server)
    dsn = made.dsn(db.name, "rowcast_gateway")

    def ready() -> bool:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(ready, "the standby accepts connections")
        yield dsn
    finally:
        made.stop()


def test_standby_gives_no_cursor(standby: str) -> None:
    with psycopg.connect(standby, autocommit=True) as conn:
        for statement in (
            "select sync.gateway_changes(null)",
            "select sync.gateway_changes('v1..1..')",
            "select sync.gateway_subscribe(null, '{tasks}', null)",
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute(statement)
        status = conn.execute("select sync.gateway_status()::json ->> 'ready'").fetchone()
        assert status == ("false",)


def test_standby_tells_what_it_can(standby: str) -> None:
    with psycopg.connect(standby, autocommit=True) as conn:
        row = conn.execute("select sync.status()").fetchone()
        assert row is not None
        assert row[0]["relays"] == []
        assert row[0]["feed"]["bytes"] > 0
        codes = {row[0] for row in conn.execute("select code from sync.doctor()").fetchall()}
        assert "sizes" in codes
        # It has no history of its own yet.
        assert "epoch_differs" not in codes
