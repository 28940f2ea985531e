"""The checker of SQL files finds what sqlfluff cannot see."""

import pytest

from tests.house import parse_sql

FUNCTION = "create function f() returns int language plpgsql as $$ begin {} end $$;"


@pytest.mark.parametrize("body", ["return 1;", "perform nobody.knows();", "return (select 1);"])
def test_well_formed_body_passes(body: str) -> None:
    assert list(parse_sql.problems(FUNCTION.format(body))) == []


@pytest.mark.parametrize("body", ["retrun 1;", "return 1", "if true then return 1;"])
def test_malformed_body_is_found(body: str) -> None:
    assert list(parse_sql.problems(FUNCTION.format(body)))
    assert list(parse_sql.problems(f"do $$ begin {body} end $$;"))


def test_malformed_statement_is_found() -> None:
    assert list(parse_sql.problems("selct 1;"))
