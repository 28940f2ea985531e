"""What a client that was away is told of a record that meanwhile began a second life."""

import psycopg
import pytest

from tests.sql.engine import ALICE, LAUNCH, TASK_1, Gate

pytestmark = pytest.mark.both_versions

KEY = f"tasks:{TASK_1}"
AGAIN = """
delete from public.tasks where id = '{id}';
insert into public.tasks (id, board_id, title, created_by)
values ('{id}', '{board}', 'again', '{by}')
"""


@pytest.mark.parametrize("key", [KEY, f"tasks?boardId={LAUNCH}", "tasks"])
@pytest.mark.parametrize("edits_after", [0, 1, 9])
def test_record_made_again_is_gone_first(
    gate: Gate, conn: psycopg.Connection, key: str, edits_after: int
) -> None:
    """Its version has fallen: the record alone would be ignored by who holds the former one."""
    for number in range(3):
        conn.execute("update public.tasks set title = %s where id = %s", (f"{number}", TASK_1))
    cursor = gate.cursor()
    conn.execute(AGAIN.format(id=TASK_1, board=LAUNCH, by=ALICE).encode())
    for number in range(edits_after):
        conn.execute(
            "update public.tasks set title = %s where id = %s", (f"again {number}", TASK_1)
        )
    gone, again = gate.subscribe(ALICE, key, cursor=cursor)["updates"]
    assert gone == {"key": KEY, "gone": True}
    assert (again["key"], again["version"]) == (KEY, 1 + edits_after)
    assert again["record"]["version"] == 1 + edits_after


def test_other_tables_under_the_same_topic_hide_no_change(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """More of them than are ever read at once."""
    cursor = gate.cursor()
    conn.execute(
        "insert into sync_internal.changes (slot, table_name, record_id, version, kind, topics) "
        "select sync_internal.feed_slot(), 'boards', gen_random_uuid(), 2, 'update', %s "
        "from generate_series(1, 12000)",
        ([f"boardId={LAUNCH}"],),
    )
    conn.execute("update public.tasks set title = 'mine' where id = %s", (TASK_1,))
    answer = gate.subscribe(ALICE, f"tasks?boardId={LAUNCH}", cursor=cursor)
    assert [update["record"]["title"] for update in answer["updates"]] == ["mine"]


def test_too_much_of_what_policies_read_is_not_looked_through(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute(
        "insert into sync_internal.changes (slot, table_name, kind, patch) "
        "select sync_internal.feed_slot(), 'public.workspace_members', 'access', "
        """'{"users": ["somebody"]}' from generate_series(1, 10001)"""
    )
    answer = gate.subscribe(ALICE, f"tasks?boardId={LAUNCH}", cursor=cursor)
    assert answer["stale"] == [f"tasks?boardId={LAUNCH}"]
