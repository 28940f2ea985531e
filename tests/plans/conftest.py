"""Fixtures of the plan tests: a database with enough rows for plans to matter."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import Database, Server
from tests.sql.engine import ALICE, LAUNCH


@pytest.fixture(scope="session")
def large_db(pg: Server) -> Iterator[Database]:
    """5 000 tasks on alice's board, 20 000 on boards of others, and a feed that tells of each."""
    with pg.database() as database:
        conn = database.connect()
        conn.execute(
            """
            insert into public.workspaces (id, name, owner_id)
            select gen_random_uuid(), 'w' || g, gen_random_uuid() from generate_series(1, 200) g;
            insert into public.boards (workspace_id, name, created_by)
            select id, 'b', owner_id from public.workspaces where name like 'w%';
            insert into public.tasks (board_id, title, created_by)
            select b.id, 't' || g, b.created_by from public.boards b, generate_series(1, 100) g
                where b.name = 'b';
            """
        )
        conn.execute(
            "insert into public.tasks (board_id, title, created_by) "
            "select %s, 'hers ' || g, %s from generate_series(1, 5000) g",
            (LAUNCH, ALICE),
        )
        for n in range(20):
            conn.execute("update public.boards set name = 'b' || %s where name like 'b%%'", (n,))
        conn.execute("vacuum analyze")
        yield database


@pytest.fixture
def conn(large_db: Database) -> Iterator[psycopg.Connection]:
    """A superuser in a transaction that is rolled back."""
    with psycopg.connect(large_db.dsn()) as connection:
        yield connection
        connection.rollback()
