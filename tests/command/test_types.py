"""`rowcast types`: TypeScript from the registry."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import migrate, typescript
from tests.command.running import ROOT
from tests.postgres import Database

Json = dict[str, Any]


def rowcast(dsn: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "types", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "ROWCAST_DATABASE_URL": dsn, "COLUMNS": "200"},
        text=True,
        capture_output=True,
        check=False,
    )


def described(**keys: Json) -> Json:
    """A description of one table `things` with these keys besides its own."""
    own = {
        "id": {"type": "uuid", "nullable": False, "required": False},
        "version": {"type": "integer", "nullable": False, "required": False},
    }
    filled = {name: {"nullable": False, "required": True, **about} for name, about in keys.items()}
    table = {
        "idType": "uuid", "softDelete": None, "touch": None, "hardDelete": True,
        "wholeTable": True, "stale": False, "comment": None, "keys": own | filled,
    }  # fmt: skip
    return {"schema": 1, "tables": {"things": table}, "functions": {}}


def record(text: str, title: str = "Thing") -> str:
    """The members of an interface."""
    return text.partition(f"export interface {title} {{\n")[2].partition("\n}\n")[0]


def test_types_are_written_printed_and_checked(gateway_dsn: str, tmp_path: Path) -> None:
    """With the gateway's login, which may ask for the registry and nothing else of it."""
    file = tmp_path / "src" / "schema.gen.ts"
    assert rowcast(gateway_dsn, "--check", "-o", file).returncode == 1
    written = rowcast(gateway_dsn, "-o", file)
    assert written.returncode == 0, written.stderr
    assert file.read_text() == rowcast(gateway_dsn).stdout
    assert "is current" in rowcast(gateway_dsn, "-o", file).stdout
    assert rowcast(gateway_dsn, "--check", "-o", file).returncode == 0

    file.write_text(file.read_text().replace("boardId", "board"))
    checked = rowcast(gateway_dsn, "--check", "-o", file)
    assert checked.returncode == 1
    assert "is not current" in checked.stderr
    assert "  readonly board: string;" in file.read_text()


def test_types_follow_the_database(db: Database, conn: psycopg.Connection) -> None:
    before = typescript.render(migrate.describe(db.dsn()), {})
    conn.execute("alter table tasks add column votes bigint not null default 0")
    conn.execute("comment on column tasks.votes is 'How many want it.'")
    with pytest.raises(typescript.TypesError, match=r"tasks has changed .* sync\.refresh"):
        typescript.render(migrate.describe(db.dsn()), {})
    conn.execute("select sync.refresh('tasks')")
    after = typescript.render(migrate.describe(db.dsn()), {})
    assert "votes" not in before
    assert "/** How many want it. A whole number as text. */\n  readonly votes: string;" in after
    assert "votes?: string | number;" not in after  # the grants are by column
    conn.execute("grant insert (votes), update (votes) on tasks to authenticated")
    conn.execute("select sync.refresh('tasks')")
    granted = typescript.render(migrate.describe(db.dsn()), {})
    assert "votes?: string | number;" in granted


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--check"], 2, "--check needs -o FILE"),
        (["--type", "tasks.metadata"], 2, "say TABLE.KEY=TYPE"),
        (["--type", "tasks.meta=Json"], 1, "there is no key tasks.meta"),
    ],
)
def test_wrong_use_is_said_in_words(
    db: Database, arguments: list[str], status: int, message: str
) -> None:
    done = rowcast(db.dsn(), *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stdout == ""


def test_database_without_rowcast_is_said_in_words(empty_db: Database) -> None:
    done = rowcast(empty_db.dsn())
    assert done.returncode == 1
    assert "rowcast migrate" in done.stderr


def test_each_type_has_its_form_on_the_wire() -> None:
    text = typescript.render(
        described(
            name={"type": "text"},
            size={"type": "enum", "values": ["s", 'l"']},
            price={"type": "numeric", "nullable": True, "required": False},
            counts={"type": "list", "elementType": "bigint"},
            sizes={"type": "list", "elementType": "enum", "values": ["s", 'l"']},
            words={"type": "list", "elementType": "text"},
            extra={"type": "json", "nullable": True},
            place={"type": "other"},
        ),
        {},
    )
    assert record(text).splitlines()[2:] == [
        "  readonly counts: readonly string[];",
        "  readonly extra: Json | null;",
        "  readonly name: string;",
        "  readonly place: Json;",
        "  /** A number as text. */",
        "  readonly price: string | null;",
        '  readonly size: "s" | "l\\"";',
        '  readonly sizes: readonly ("s" | "l\\"")[];',
        "  readonly words: readonly string[];",
    ]
    assert record(text, "ThingCreate").splitlines() == [
        "  counts: readonly (string | number)[];",
        "  extra: Json | null;",
        "  name: string;",
        "  /** A number as text. */",
        "  price?: string | number | null;",
        '  size: "s" | "l\\"";',
        '  sizes: readonly ("s" | "l\\"")[];',
        "  words: readonly string[];",
    ]


def test_what_clients_cannot_write_or_read_is_left_out() -> None:
    description = described(
        made={"type": "timestamptz", "serverOwned": True},
        seen={"type": "timestamptz"},
        secret={"type": "text", "readable": False},
        fixed={"type": "text", "updatable": False},
        later={"type": "text", "insertable": False},
        shown={"type": "text", "insertable": False, "updatable": False},
    )
    description["tables"]["things"]["touch"] = "seen"
    text = typescript.render(description, {})
    assert "secret" not in record(text)
    keys = ("fixed", "later", "secret")
    assert record(text, "ThingCreate").splitlines() == [f"  {key}: string;" for key in keys]
    assert 'fixed: { type: "text", nullable: false, required: true, updatable: false },' in text


def test_comments_become_documentation_and_types() -> None:
    text = typescript.render(
        described(
            style={"type": "json", "nullable": True, "comment": "Its */ look.\n@type { a: 1 }"},
            marks={"type": "json", "comment": "@type string[]"},
            other={"type": "json"},
        ),
        {"things.other": "import('./other.js').Other"},
    )
    assert record(text).splitlines()[2:] == [
        "  readonly marks: string[];",
        "  readonly other: import('./other.js').Other;",
        "  /** Its *\\/ look. */",
        "  readonly style: ({ a: 1 }) | null;",
    ]
    assert "Json" not in text


def test_tables_have_names_of_their_own() -> None:
    thing = described()["tables"]["things"]
    names = ("boxes", "categories", "news", "records", "status", "taskCreates", "tasks", "x")
    description = {"schema": 1, "tables": dict.fromkeys(names, thing), "functions": {}}
    text = typescript.render(description, {})
    for table, title in zip(
        names,
        ("Box", "Category", "News", "Records", "Status", "TaskCreate", "Tasks", "X"),
        strict=True,
    ):
        assert f"  {table}: {{ record: {title}; create: {title}Create; " in text


def test_constant_and_arguments_are_literals() -> None:
    description = described(
        tags={"type": "json", "required": False, "default": {"constant": []}, "comment": "x"},
    )
    by, to = {"type": "uuid", "required": False}, {"type": "integer", "required": True}
    description["functions"] = {"move": {"to": to, "by": by}, "ping": {}}
    text = typescript.render(description, {})
    assert (
        'tags: { type: "json", nullable: false, required: false, '
        "default: { constant: [] as Json } }," in text
    )
    assert "  move: { by?: string | null; to: number | null };" in text
    assert "  ping: Record<string, never>;" in text
    assert "} as const satisfies Schema;" in text
