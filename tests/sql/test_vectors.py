"""The shared vectors, carried out by the engine on both versions of PostgreSQL."""

import json
from collections.abc import Iterator

import pytest

from tests.postgres import Database, Server
from tests.sql.vectors import FOLDER, Case, Runner, describe, read_cases

CASES = list(read_cases())


@pytest.fixture(scope="session")
def vectors_db(pg: Server) -> Iterator[Database]:
    """A database with the tables of the vectors."""
    with pg.database() as database:
        database.connect().execute((FOLDER / "schema.sql").read_bytes())
        yield database


@pytest.fixture(scope="session")
def runner(vectors_db: Database) -> Runner:
    return Runner(vectors_db)


@pytest.mark.both_versions
@pytest.mark.parametrize("case", CASES, ids=str)
def test_vector(runner: Runner, case: Case) -> None:
    runner.run(case)


def test_schema_file_says_what_the_database_says(vectors_db: Database) -> None:
    told = json.loads((FOLDER / "schema.json").read_text())
    assert told == describe(vectors_db.connect())


def test_names_of_cases_are_unique() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)


def test_pure_cases_need_no_server() -> None:
    server_only = {"as", "tx", "steps", "others"}
    for case in CASES:
        if case.body["pure"]:
            assert not server_only & case.body.keys(), case
            assert set(case.body["expect"]) <= {
                "status", "code", "key", "limit", "record", "versionDelta", "ids"
            }, case  # fmt: skip
