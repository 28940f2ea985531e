"""Parses every SQL file and the PL/pgSQL bodies in it: `python tests/house/parse_sql.py`.

sqlfluff takes a $$ body for one literal, so a misspelt keyword in it would pass. This is the parser
of PostgreSQL itself; names of tables and variables are not looked up.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pglast
from pglast import ast

ROOT = Path(__file__).parents[2]
# The parser wants to know a function's language, which a `do` block leaves out.
DO_BLOCK = "create function pg_temp.do_block() returns void language plpgsql as {}"

# The parser has no catalogue: it knows two schemas, and no arrays of the types of ours.
SCHEMAS = r"\b(sync|sync_internal|auth|jobs|app_private|demo_auth|public)\."
OUR_ARRAYS = re.compile(SCHEMAS + r"[a-z_]+\[\]")
OUR_SCHEMAS = re.compile(SCHEMAS)


def problems(text: str) -> Iterator[str]:
    """What the parser says of each part that it does not take."""
    try:
        statements = pglast.split(text)
        pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        yield str(error)
        return
    for statement in statements:
        wrapped = _function(statement)
        if wrapped is None:
            continue
        try:
            pglast.parse_plpgsql(OUR_SCHEMAS.sub("public.", OUR_ARRAYS.sub("text[]", wrapped)))
        except pglast.parser.ParseError as error:
            yield f"{statement.splitlines()[0][:80]}: {error}"


def _function(statement: str) -> str | None:
    """The statement as one that creates a PL/pgSQL function; None where it holds no such body."""
    node = pglast.parse_sql(statement)[0].stmt
    if isinstance(node, ast.DoStmt):
        body = next(option.arg.sval for option in node.args or () if option.defname == "as")
        return DO_BLOCK.format(f"$do_body${body}$do_body$")
    in_plpgsql = re.search(r"\blanguage\s+plpgsql\b", statement, re.IGNORECASE)
    return statement if isinstance(node, ast.CreateFunctionStmt) and in_plpgsql else None


def main() -> int:
    """Prints what does not parse; exit status 1 if anything."""
    files = sorted((ROOT / "sql").rglob("*.sql"))
    found = [
        f"{path.relative_to(ROOT)}: {problem}"
        for path in files
        for problem in problems(path.read_text("utf-8"))
    ]
    print("\n".join(found) if found else f"{len(files)} SQL files parse, bodies included")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
