"""Records by pointer."""

import psycopg
import pytest

from tests.sql.engine import ALICE, BOB, DEMO, LAUNCH, TASK_1, TASK_2, TOMATOES, Gate, new_id, title

pytestmark = pytest.mark.both_versions


def pointer(table: str, id_: str, **more: int) -> dict[str, object]:
    return {"table": table, "id": id_, **more}


def test_records_of_several_tables(common: Gate) -> None:
    answer = common.get_records(ALICE, ("tasks", TASK_1), ("boards", LAUNCH), ("workspaces", DEMO))
    assert {table: list(records) for table, records in answer["recordMap"].items()} == {
        "tasks": [TASK_1], "boards": [LAUNCH], "workspaces": [DEMO],
    }  # fmt: skip
    record = answer["recordMap"]["boards"][LAUNCH]
    assert set(record) == {
        "id", "version", "workspaceId", "name", "description", "orderKey", "createdBy", "createdAt",
        "updatedAt", "deleted",
    }  # fmt: skip
    assert record["name"] == "Launch"
    assert (answer["gone"], answer["unchanged"]) == ([], [])


def test_missing_and_hidden_are_gone_alike(common: Gate) -> None:
    missing = new_id()
    answer = common.get_records(
        ALICE, ("tasks", missing), ("tasks", TOMATOES), ("tasks", "no uuid")
    )
    assert answer["recordMap"] == {}
    assert {entry["id"] for entry in answer["gone"]} == {missing, TOMATOES, "no uuid"}
    assert all(set(entry) == {"table", "id"} for entry in answer["gone"])


def test_version_the_caller_has_is_unchanged(gate: Gate) -> None:
    version = gate.get_records(ALICE, ("tasks", TASK_1))["recordMap"]["tasks"][TASK_1]["version"]
    gate.applied(BOB, title(TASK_2, "changed"))
    pointers = [
        pointer("tasks", TASK_1, version=version),
        pointer("tasks", TASK_2, version=version),
        pointer("tasks", TOMATOES, version=version),
    ]
    answer = gate.ask("get_records", ALICE, {"pointers": pointers})
    assert answer["unchanged"] == [{"table": "tasks", "id": TASK_1}]
    assert list(answer["recordMap"]["tasks"]) == [TASK_2]
    assert answer["gone"] == [{"table": "tasks", "id": TOMATOES}]


def test_pointers_twice_collapse(common: Gate) -> None:
    answer = common.get_records(
        ALICE, ("tasks", TASK_1), ("tasks", TASK_1), ("tasks", TOMATOES), ("tasks", TOMATOES)
    )
    assert len(answer["recordMap"]["tasks"]) == 1
    assert len(answer["gone"]) == 1


def test_deleted_records_are_told(gate: Gate) -> None:
    gate.applied(ALICE, {"type": "delete", "table": "tasks", "id": TASK_1})
    record = gate.get_records(ALICE, ("tasks", TASK_1))["recordMap"]["tasks"][TASK_1]
    assert record["deleted"].endswith("Z")


def test_thousand_pointers_are_fine(common: Gate) -> None:
    answer = common.ask(
        "get_records", ALICE, {"pointers": [pointer("tasks", new_id()) for _ in range(1000)]}
    )
    assert len(answer["gone"]) == 1000


def test_trusted_backend_reads_as_its_user(conn: psycopg.Connection) -> None:
    query = (
        'select sync.get_records(\'{"pointers": [{"table": "tasks", "id": "' + TASK_1 + "\"}]}')"
    )
    with conn.transaction():
        conn.execute("select sync.act_as(%s)", (BOB,))
        found = conn.execute(query.encode()).fetchone()
        assert found
        assert list(found[0]["recordMap"]["tasks"]) == [TASK_1]
    with pytest.raises(psycopg.Error) as refused:
        conn.execute(query.encode())
    assert refused.value.sqlstate == "PT403"
