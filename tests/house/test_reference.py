"""The documentation names all there is in SQL, and its SQL runs as written."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app import metrics
from tests.postgres import Database

pytestmark = pytest.mark.both_versions

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SQL = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "sql").rglob("*.sql")))
APP = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "app").glob("*.py")))

BLOCK = re.compile(r"^```sql\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LOGIN = re.compile(r"^-- as (\w+)$", re.MULTILINE)
ENDING = re.compile(r"^-- ends in (\w{5})$", re.MULTILINE)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if BLOCK.search(page.read_text("utf-8"))]


def reference(name: str) -> str:
    """A page of the reference."""
    return (DOCS / "reference" / name).read_text("utf-8")


# What there is


def test_every_function_is_in_the_reference(shared_db: Database) -> None:
    """With its arguments by name, their types and their defaults."""
    page = " ".join(reference("sql.md").split())
    rows = (
        shared_db.connect()
        .execute(
            "select n.nspname || '.' || p.proname, p.proargnames, p.pronargs,"
            " pg_get_function_arguments(p.oid)"
            " from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname = 'sync'"
            " or n.nspname = 'auth' and p.proowner = 'rowcast_owner'::regrole"
        )
        .fetchall()
    )
    assert len(rows) > 20
    for name, arguments, count, signature in rows:
        written = re.sub(r"::\w+(\[\])?", "", signature)
        written = written.replace("DEFAULT", "default").replace("NULL", "null")
        if name != "sync.enable":
            assert f"{name}({written})" in page, name
            continue
        for argument in arguments[:count]:
            assert re.search(rf"\| `{argument} \S+` \|", page), argument


def test_every_code_is_in_the_reference() -> None:
    page = reference("errors.md")
    codes = set(re.findall(r"refus(?:e|al)\(\s*[^\s,()]+,\s*'(\w+)'", SQL))
    for computed in re.findall(r"refus(?:e|al)\(\s*[^\s,()]+,\s*case\b(.*?)\bend,", SQL, re.DOTALL):
        codes |= set(re.findall(r"(?:then|else) '(\w+)'", computed))
    codes |= set(re.findall(r"'code',\s*'(\w+)'", SQL)) | set(re.findall(r'"code": "(\w+)"', SQL))
    codes |= set(re.findall(r'Problem\(\s*\d+,\s*"(\w+)"', APP))
    codes |= set(re.findall(r'code(?:: str)? ?= ?"(\w+)"', APP))
    codes |= set(re.findall(r'sign_in_again\(\s*"[^"]*",\s*"(\w+)"', APP))
    assert {"forbidden", "too_large", "wrong_type", "retry", "expired", "bad_key"} <= codes
    assert {code for code in codes if f"`{code}`" not in page} == set()


def test_every_finding_of_the_doctor_is_documented() -> None:
    page = (DOCS / "how-to" / "operate.md").read_text("utf-8")
    findings = re.findall(r"select '(error|warning|info)', '(\w+)'", SQL)
    assert len(findings) > 10
    for severity, code in findings:
        assert f"| {severity} | `{code}` |" in page


def test_every_metric_is_documented() -> None:
    """With what to do, and nothing else is."""
    rows = re.findall(
        r"^\| (`rowcast_[^|]+) \| [^|]+ \| [^|]+ \|$", reference("metrics.md"), re.MULTILINE
    )
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(documented) == sorted(m.name for m in (*metrics.GATEWAY, *metrics.WORKER))


def test_every_setting_is_in_the_reference(shared_db: Database) -> None:
    """With its default: the template has no other values."""
    page = reference("tables.md")
    rows = shared_db.connect().execute("select name, value from sync_internal.settings").fetchall()
    assert rows
    for name, value in rows:
        assert f"| `{name}` | {value} |" in page, name


def test_every_table_is_in_the_reference(shared_db: Database) -> None:
    page = reference("tables.md")
    rows = (
        shared_db.connect()
        .execute(
            "select relname from pg_class where relkind in ('r', 'p') and not relispartition"
            " and relnamespace = 'sync_internal'::regnamespace"
        )
        .fetchall()
    )
    assert rows
    for (name,) in rows:
        assert f"| `sync_internal.{name}` |" in page, name


# What it says


@pytest.fixture
def roles_restored(db: Database) -> Iterator[None]:
    """Drops the roles a page makes: they outlive its database."""
    listing = "select rolname from pg_roles"
    before = set(db.connect().execute(listing).fetchall())
    yield
    conn = db.connect()
    for (name,) in set(conn.execute(listing).fetchall()) - before:
        conn.execute(f'drop owned by "{name}"'.encode())
        conn.execute(f'drop role "{name}"'.encode())


@pytest.mark.usefixtures("roles_restored")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_sql_of_the_documentation_runs(db: Database, page: Path) -> None:
    """Each page from top to bottom, as the administrator where no login is named."""
    for block in BLOCK.findall(page.read_text("utf-8")):
        login, ending = LOGIN.search(block), ENDING.search(block)
        with psycopg.connect(
            db.dsn(login.group(1) if login else "postgres"), autocommit=True
        ) as conn:
            if ending is None:
                conn.execute(block.encode())
                continue
            with pytest.raises(psycopg.Error) as refused:
                conn.execute(block.encode())
            assert refused.value.sqlstate == ending.group(1), block
