"""The patterns of apps: their SQL on one database, their code compiled against its types, and run.

What a page promises is in `<page>.test.tsx`, which runs as two users against a gateway.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app import migrate, typescript
from tests.command.running import Running, start, stop
from tests.documentation.pages import DOCS, MODULES, TESTS, blocks, files, run, vitest, write_files
from tests.postgres import Database

PAGES = sorted((DOCS / "how-to").glob("app-*.md"))
TUTORIAL = DOCS / "tutorial" / "first-app.md"


@pytest.fixture
def running(db: Database, conn: psycopg.Connection, tmp_path: Path) -> Iterator[Running]:
    """A gateway on a database with the tables of all pages."""
    for page in PAGES:
        for block in blocks(page, "sql"):
            conn.execute(block.encode())
    urls = {
        "ROWCAST_DATABASE_URL": db.dsn("rowcast_gateway"),
        "ROWCAST_MIGRATE_URL": db.dsn(),
    }
    made = start(tmp_path / "data", **urls)
    yield made
    stop(made, signal.SIGTERM)


def test_patterns_do_what_they_say(
    installed: Path, db: Database, conn: psycopg.Connection, running: Running
) -> None:
    folder = installed / "patterns"
    (folder / "src").mkdir(parents=True)
    types = typescript.render(migrate.describe(db.dsn()), {})
    (folder / "src" / "schema.gen.ts").write_text(types)
    (folder / "tsconfig.json").write_text(files(TUTORIAL)["tsconfig.json"])
    for page in PAGES:
        write_files(page, folder)
        (folder / "src" / f"{page.stem}.test.tsx").write_text(
            (TESTS / f"{page.stem}.test.tsx").read_text()
        )
    (folder / "src" / "users.tsx").write_text((TESTS / "users.tsx").read_text())
    for name in ("browser.ts", "vitest.config.ts"):
        (folder / name).write_text((TESTS / name).read_text())
    run(MODULES / ".bin" / "tsc", cwd=folder)
    vitest(folder, GATEWAY=running.url)
    findings = conn.execute(
        "select code, object from sync.doctor() where severity = 'error'"
    ).fetchall()
    assert findings == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_who_sees_a_row_of_a_pattern_can_be_kept(db: Database, page: Path) -> None:
    """So an edit asks nobody; a page whose policies cannot be kept would be a bad example."""
    conn = db.connect()
    for block in blocks(page, "sql"):
        conn.execute(block.encode())
    rows = conn.execute(
        "select t.oid::regclass::text, r.reasons from pg_class t"
        " cross join lateral sync.policy_reads(t.oid, 'authenticated') r"
        " where t.relkind = 'r' and t.relnamespace = 'public'::regnamespace and not r.cacheable"
    ).fetchall()
    assert rows == []
