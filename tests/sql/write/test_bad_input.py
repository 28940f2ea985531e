"""Whatever is sent: 400, 413 or 422 with a code; never an error of the function, never half a
transaction.
"""

import json
import re
from typing import Any

import psycopg
import pytest

from tests.sql.engine import (
    ALICE,
    CAROL,
    LAUNCH,
    TASK_1,
    TASK_2,
    TOMATOES,
    Answer,
    Gate,
    Json,
    create,
    live,
    new_id,
    new_tx_id,
    set_,
    title,
    tx,
    value,
)

pytestmark = pytest.mark.both_versions

HUGE = "1e131071"
TOO_HUGE = "1e131073"
MARK = '"@"'


def brief(body: Any) -> str:
    """The name of a case: its JSON, shortened, without ids that differ from run to run."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", json.dumps(body))[:60]


def fill(body: Any, text: str) -> str:
    """JSON text in which the string "@" is replaced by text that json.dumps would not make."""
    return json.dumps(body).replace(MARK, text)


def check(gate: Gate, body: str, statuses: tuple[int, ...] = (400, 413, 422)) -> Answer:
    """The body alone, and beside others' requests, which it does not disturb."""
    cursor = gate.cursor()
    alone = gate.send(ALICE, body)
    assert alone.status in statuses, alone
    assert alone.again is False
    problem = alone.error
    assert problem["code"], alone
    assert problem["status"] in statuses
    assert problem["title"]
    assert problem["detail"]
    before, beside, after = gate.write_all(
        [
            (CAROL, tx(title(TOMATOES, new_id()))),
            (ALICE, body),
            (CAROL, tx(title(TOMATOES, new_id()))),
        ]
    )
    assert (before.status, after.status) == (200, 200)
    assert (beside.status, beside.code) == (alone.status, alone.code)
    touched = {change["id"] for change in gate.changes(cursor)["changes"]}
    assert touched == {TOMATOES}, "something of it was done"
    return alone


NO_JSON = {
    "nothing": "",
    "white space": " \n\t",
    "cut off": '{"txId": "',
    "two values": "{} {}",
    "trailing comma": '{"operations": [1,]}',
    "single quotes": "{'txId': 1}",
    "NaN": '{"txId": NaN}',
    "Infinity": '{"txId": -Infinity}',
    "leading zero": '{"txId": 01}',
    "comment": "/* */ {}",
    "byte order mark": "\ufeff{}",
    "an escape that is none": '{"txId": "\\x41"}',
    "half an escape": '{"txId": "\\u12"}',
    "a raw control character": '{"txId": "\x01"}',
    "depth 100000": "[" * 100_000,
    "depth 100000, closed": "[" * 100_000 + "]" * 100_000,
    "depth 100000 of objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a number beyond numeric": f'{{"txId": {TOO_HUGE}}}',
    "an exponent beyond counting": '{"txId": 1e99999999999999}',
    "NUL": '{"txId": "\\u0000"}',
    "a lone high surrogate": '{"txId": "\\ud83d"}',
    "a lone low surrogate": '{"txId": "\\ude00"}',
    "surrogates in the wrong order": '{"txId": "\\ude00\\ud83d"}',
    "NUL in a name": '{"\\u0000": 1}',
}


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_body_that_is_no_json(common: Gate, body: str) -> None:
    answer = check(common, body, (400, 422))
    assert "detail" in answer.body
    assert "line" not in answer.body["detail"].lower()


WRONG_FORM: list[Any] = [
    None, True, 0, -1, 1.5, "text", "transactions", [], {}, [[]], [{}], ["transactions"], [None],
    {"transactions": None}, {"transactions": {}}, {"transactions": "x"}, {"transactions": []},
    {"transactions": [None]}, {"transactions": [[]]}, {"transactions": [{}]},
    {"transactions": [[tx()]]},
    {"transactions": [tx(title(TASK_1, "half")), None]},
    {"transactions": [tx(title(TASK_1, "half")), {"txId": "x", "operations": []}]},
    {"txId": new_tx_id()}, {"operations": [title(TASK_1, "half")]},
    {"txId": None, "operations": []}, {"txId": 5, "operations": []}, {"txId": [], "operations": []},
    {"txId": {}, "operations": []}, {"txId": "", "operations": []}, {"txId": "x", "operations": []},
    {"txId": new_tx_id() + "0", "operations": []},
    {"txId": "01890a5dac96774bbcceb302099a8057", "operations": []},
    {"txId": "{" + new_tx_id() + "}", "operations": [title(TASK_1, "half")]},
    {"txId": new_tx_id() + "\n", "operations": [title(TASK_1, "half")]},
    {"txId": new_tx_id(), "operations": None}, {"txId": new_tx_id(), "operations": {}},
    {"txId": new_tx_id(), "operations": "x"}, {"txId": new_tx_id(), "operations": 5},
    {"txId": new_tx_id(), "operations": {"0": title(TASK_1, "half")}},
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG_FORM, ids=brief)
def test_body_of_another_form(common: Gate, body: Any) -> None:
    answer = check(common, json.dumps(body), (400,))
    assert answer.code == "bad_request"


def on(**fields: Any) -> dict[str, Any]:
    """An operation `set` of a task's title with fields changed, or with None.__class__ left out."""
    return {"type": "set", "table": "tasks", "id": TASK_1, "key": "title", "value": "x"} | fields


def without(*names: str) -> dict[str, Any]:
    return {name: field for name, field in on().items() if name not in names}


WRONG_OPERATIONS: list[Any] = [
    None, 5, "set", [], {}, [on()],
    on(type=None), on(type=5), on(type=[]), on(type={}), on(type=""), on(type="SET"),
    on(type="upsert"),
    on(type="set "), on(type="__proto__"), on(type="constructor"), without("type"),
    on(table=None), on(table=5), on(table=[]), on(table={}), on(table=""), on(table="nowhere"),
    on(table="public.tasks"), on(table="Tasks"), on(table="pg_class"), on(table="tasks; drop "
    "table tasks"),
    on(table="tasks'"), on(table='tasks"'), on(table="changes"), on(table="receipts"),
    on(table="t" * 100_000),
    without("table"), on(table="demo_auth.users"), on(table="users"), on(table="tasks\n"),
    on(id=None), on(id=5), on(id=[]), on(id={}), on(id=""), on(id="x"), on(id="x" * 100_000),
    without("id"),
    on(id=TASK_1 + "\n"), on(id=" " + TASK_1), on(id=[TASK_1]), on(id={"id": TASK_1}),
    on(key=None), on(key=5), on(key=[]), on(key={}), on(key=""), on(key="."), on(key="a..b"),
    on(key=[""]),
    on(key=["title", ""]), on(key=[5]), on(key=[None]), on(key=[["title"]]),
    on(key=["metadata", {}]),
    on(key="__proto__"), on(key="metadata.__proto__"), on(key=["metadata", "constructor"]),
    on(key="metadata.prototype.x"), on(key="nothing"), on(key="title.deeper"), on(key="board_id"),
    on(key="xmin"), on(key="ctid"), on(key="tableoid"), on(key="title'; --"), on(key="x" * 100_000),
    without("key"), on(key="metadata." + ".".join("abcdefghijklmnopqrst")),
    on(key="version", value=5),
    on(key="id", value=TASK_2),
    on(value=5), on(value=True), on(value=[]), on(value={}), on(value=None), on(value=["x"]),
    on(key="dueDate", value="tomorrow"), on(key="dueDate", value="2024-02-30"),
    on(key="dueDate", value=5),
    on(key="dueDate", value="infinity"), on(key="dueDate", value="now"),
    on(key="boardId", value="x"),
    on(key="boardId", value=5), on(key="deleted", value="yesterday"),
    on(key="deleted", value="infinity"),
    on(key="deleted", value="epoch"), on(key="deleted", value="2024-01-01T00:00:00"),
    on(key="deleted", value=0),
    on(key="status", value="invented"), on(key="metadata", value=[]), on(key="metadata", value="x"),
    on(key="metadata", value=None), on(key="tags", value="x"), on(key="tags", value={}),
    on(key="assigneeId", value="00000000-0000-0000-0000-00000000000g"), on(title="extra field"),
    on(position="append"), on(by=1), on(args={}), on(Key="title"),
    {"type": "set-now", "table": "tasks", "id": TASK_1, "key": "title"},
    {"type": "set-now", "table": "tasks", "id": TASK_1, "key": "deleted", "value": 1},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "title", "by": 1},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes"},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": "1"},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": None},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": [1]},
    {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.estimate", "by": 1},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags"},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "title", "value": 1},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
    "position": None},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
    "position": "first"},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
    "position": {}},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
    "position": 0},
    {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
     "position": {"before": 1, "after": 1}},
    {"type": "listRemove", "table": "tasks", "id": TASK_1, "key": "tags"},
    {"type": "listRemove", "table": "tasks", "id": TASK_1, "key": "metadata", "value": 1},
    {"type": "delete", "table": "tasks"},
    {"type": "delete", "table": "tasks", "id": TASK_1, "key": "x"},
    {"type": "restore", "table": "workspaceMembers", "id": TASK_1},
    {"type": "create", "table": "tasks", "id": new_id()},
    {"type": "create", "table": "tasks", "id": new_id(), "value": None},
    {"type": "create", "table": "tasks", "id": new_id(), "value": []},
    {"type": "create", "table": "tasks", "id": new_id(), "value": "x"},
    {"type": "create", "table": "tasks", "id": new_id(), "value": {}},
    create("tasks", new_id(), title="t"), create("tasks", new_id(), boardId=LAUNCH),
    create("tasks", new_id(), boardId=LAUNCH, title=None),
    create("tasks", new_id(), boardId=LAUNCH, title=5),
    create("tasks", new_id(), boardId=LAUNCH, title="t", nothing=1),
    create("tasks", new_id(), boardId=LAUNCH, title="t", **{"metadata.a": 1}),
    create("tasks", new_id(), boardId=LAUNCH, title="t", **{"": 1}),
    create("tasks", new_id(), boardId=LAUNCH, title="t", __proto__={}),
    create("tasks", new_id(), boardId=LAUNCH, title="t", id=TASK_2),
    create("tasks", new_id(), boardId=LAUNCH, title="t", id=5),
    create("tasks", "new", boardId=LAUNCH, title="t"),
    create("tasks", new_id(), boardId=LAUNCH, title="t" * 501),
    {"type": "call"}, {"type": "call", "fn": None}, {"type": "call", "fn": []},
    {"type": "call", "fn": ""},
    {"type": "call", "fn": "pg_sleep", "args": {}},
    {"type": "call", "fn": "completeBoard", "args": "x"},
    {"type": "call", "fn": "completeBoard", "args": {"boardId": {}}},
    {"type": "call", "fn": "completeBoard", "args": {"": 1}},
    {"type": "call", "fn": "completeBoard", "args": None},
]  # fmt: skip


@pytest.mark.parametrize("operation", WRONG_OPERATIONS, ids=brief)
def test_operation_that_is_wrong(common: Gate, operation: Any) -> None:
    """Between two that are right: none of the three is done."""
    body = json.dumps(tx(title(TASK_2, "half"), operation, title(TASK_2, "a half")))
    if isinstance(operation, dict) and operation.get("type") == "call":
        cursor = common.cursor()
        answer = common.send(ALICE, body)
        assert (answer.status, answer.again) == (400, False), answer
        assert common.changes(cursor)["changes"] == []
        return
    answer = check(common, body)
    key = operation.get("key") if isinstance(operation, dict) else None
    if (
        isinstance(key, str)
        and len(key) < 200
        and answer.code in ("unknown_key", "wrong_type", "required")
    ):
        assert answer.body["table"] == "tasks"
        assert answer.body["key"] == key
        assert answer.body["op"] == 1


PLACES: dict[str, Any] = {
    "value of a text": on(value="@"),
    "value of a date": on(key="dueDate", value="@"),
    "value of an id": on(key="boardId", value="@"),
    "value of a document": on(key="metadata", value={"a": "@"}),
    "value on a path": on(key="metadata.a", value="@"),
    "value in a list": on(key="tags", value=["@"]),
    "increment": {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes",
    "by": "@"},
    "insert into a list": {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags",
    "value": "@"},
    "anchor": {"type": "listInsert", "table": "tasks", "id": TASK_1, "key": "tags", "value": 1,
               "position": {"before": "@"}},
    "create": create("tasks", new_id(), boardId=LAUNCH, title="@"),
    "create, document": create("tasks", new_id(), boardId=LAUNCH, title="t", metadata={"a": ["@"]}),
}  # fmt: skip


@pytest.mark.parametrize("number", [HUGE, "-" + HUGE, "1e309", "-1.8e308"])
@pytest.mark.parametrize("place", PLACES)
def test_number_that_no_client_can_hold(common: Gate, place: str, number: str) -> None:
    if place == "anchor":
        pytest.skip("an anchor is only compared")
    answer = check(common, fill(tx(title(TASK_2, "half"), PLACES[place]), number), (400,))
    assert answer.code in ("bad_value", "wrong_type", "not_a_number", "bad_request")


@pytest.mark.parametrize("time", ["9999-12-31T23:59:60", "9999-12-31T24:00:00"])
def test_time_that_ends_in_a_year_of_five_digits(
    gate: Gate, conn: psycopg.Connection, time: str
) -> None:
    live(conn, "alarms", "id text primary key, local timestamp, world timestamptz")
    gate.applied(ALICE, create("alarms", "a"))
    for key, sent in (("local", time), ("world", f"{time}Z")):
        answer = gate.write(ALICE, set_("alarms", "a", key, sent))
        assert (answer.status, answer.code) == (400, "bad_value")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("depth", [40, 1000, 5000])
def test_value_nested_too_deep(common: Gate, place: str, depth: int) -> None:
    text = "[" * depth + "]" * depth
    body = fill(tx(title(TASK_2, "half"), PLACES[place]), text)
    if place == "anchor":
        assert common.send(ALICE, body).status in (200, 400, 422)
        return
    check(common, body, (400, 422))


def test_deep_value_behind_a_refused_create_does_not_break_the_request(common: Gate) -> None:
    deep = "[" * 6000 + "]" * 6000
    first = tx(create("tasks", new_id(), boardId=new_id(), title="t"))
    second = tx(set_("tasks", TASK_2, "metadata.x", "@"))
    answer = common.send(ALICE, fill({"transactions": [first, second]}, deep))
    assert answer.outcomes == ["refused", "refused"]


MANY = "[" + ",".join([HUGE] * 4000) + "]"

# Where a value's type is not looked at yet, its text must not be asked for: each of these prints
# as half a gigabyte.
EXPENSIVE: dict[str, Any] = {
    "txId": {"txId": "@", "operations": []},
    "txId in a list": {"transactions": [{"txId": "@", "operations": []}]},
    "operations": {"txId": new_tx_id(), "operations": "@"},
    "an operation": {"txId": new_tx_id(), "operations": ["@"]},
    "type": tx(on(type="@")),
    "table": tx(on(table="@")),
    "id": tx(on(id="@")),
    "key": tx(on(key="@")),
    "key segment": tx(on(key=["metadata", "@"])),
    "value": tx(on(value="@")),
    "date": tx(on(key="dueDate", value="@")),
    "document": tx(on(key="metadata.x", value="@")),
    "created id": tx(create("tasks", new_id(), boardId=LAUNCH, title="t", id="@")),
    "created value": tx({"type": "create", "table": "tasks", "id": new_id(), "value": "@"}),
    "expected table": tx(on(), expect=[{"table": "@", "id": TASK_1, "version": 1}]),
    "expected id": tx(on(), expect=[{"table": "tasks", "id": "@", "version": 1}]),
    "expected version": tx(on(), expect=[{"table": "tasks", "id": TASK_1, "version": "@"}]),
    "expect": tx(on(), expect="@"),
    "fn": tx({"type": "call", "fn": "@"}),
    "args": tx({"type": "call", "fn": "completeBoard", "args": {"boardId": "@"}}),
    "by": tx(
        {"type": "increment", "table": "tasks", "id": TASK_1, "key": "metadata.votes", "by": "@"}
    ),
    "position": tx(
        {
            "type": "listInsert",
            "table": "tasks",
            "id": TASK_1,
            "key": "tags",
            "value": 1,
            "position": "@",
        }
    ),
}


@pytest.mark.parametrize("place", EXPENSIVE)
def test_small_body_does_not_become_a_large_text(common: Gate, place: str) -> None:
    body = fill(EXPENSIVE[place], MANY)
    assert len(body) < 40_000
    common.conn.execute("set statement_timeout = '1500ms'")
    try:
        answer = common.send(ALICE, body)
        assert answer.status in (400, 422), answer
        first, second = common.write_all([(ALICE, body), (CAROL, tx(title(TOMATOES, new_id())))])
        assert (first.again or first.status in (400, 422), second.status) == (True, 200)
    finally:
        common.conn.execute("reset statement_timeout")


def test_unused_fields_may_hold_anything(gate: Gate) -> None:
    body = fill(
        tx(title(TASK_1, "x"), clientTimestamp="@", whatever="@"), "[" * 2000 + HUGE + "]" * 2000
    )
    assert gate.send(ALICE, body).status == 200


EXPECTATIONS: list[Any] = [
    5, "x", {}, [5], [[]], [None], [{}],
    [{"table": "tasks", "id": TASK_1}], [{"table": "tasks", "version": 1}],
    [{"id": TASK_1, "version": 1}],
    [{"table": "tasks", "id": TASK_1, "version": "1"}],
    [{"table": "tasks", "id": TASK_1, "version": 1.5}],
    [{"table": "tasks", "id": TASK_1, "version": -1}],
    [{"table": "tasks", "id": TASK_1, "version": None}],
    [{"table": "tasks", "id": TASK_1, "version": 1e30}],
    [{"table": "tasks", "id": TASK_2, "version": 1}],
    [{"table": "nowhere", "id": TASK_1, "version": 1}],
    [{"table": "tasks", "id": "x", "version": 1}],
    [{"table": "tasks", "id": TASK_1, "version": 1, "more": 1}],
    {"table": "tasks", "id": TASK_1, "version": 1},
]  # fmt: skip


@pytest.mark.parametrize("expect", EXPECTATIONS, ids=brief)
def test_expectation_of_another_form(common: Gate, expect: Any) -> None:
    check(common, json.dumps(tx(title(TASK_1, "half"), expect=expect)), (400,))


def test_null_expectation_is_none(gate: Gate) -> None:
    assert gate.write(ALICE, title(TASK_1, "x"), expect=None).status in (200, 400)
    assert gate.write(ALICE, title(TASK_1, "y"), expect=[]).status == 200


# Limits


def test_five_hundred_operations_are_fine_and_one_more_is_not(gate: Gate) -> None:
    assert gate.write(ALICE, *[title(TASK_1, f"{n}") for n in range(500)]).status == 200
    answer = gate.write(ALICE, *[title(TASK_1, f"{n}") for n in range(501)])
    assert (answer.status, answer.code, answer.body["limit"]) == (422, "too_many", "max_operations")


def test_thousand_operations_are_refused_whole(common: Gate) -> None:
    answer = check(common, json.dumps(tx(*[title(TASK_1, "half")] * 1000)), (422,))
    assert answer.body["limit"] == "max_operations"


def test_fifty_transactions_are_fine_and_one_more_is_not(gate: Gate) -> None:
    request = {"transactions": [tx(title(TASK_1, f"{n}")) for n in range(50)]}
    assert gate.send(ALICE, request).outcomes == ["applied"] * 50
    more = {"transactions": [tx(title(TASK_1, f"{n}")) for n in range(51)]}
    answer = gate.send(ALICE, more)
    assert (answer.status, answer.code, answer.body["limit"]) == (
        422,
        "too_many",
        "max_transactions",
    )


def test_transaction_of_more_bytes_than_allowed_is_too_large(common: Gate) -> None:
    answer = check(
        common,
        json.dumps(
            tx(title(TASK_1, "half"), set_("tasks", TASK_1, "description", "x" * 1_100_000))
        ),
        (413,),
    )
    assert (answer.code, answer.body["limit"]) == ("too_large", "max_transaction_bytes")


def test_transaction_is_measured_by_what_was_sent(gate: Gate, conn: psycopg.Connection) -> None:
    """Half a megabyte of JSON is within the limit of one, whatever the database makes of it."""
    document = {f"k{n}": n for n in range(9000)}
    operations = [set_("tasks", TASK_1, f"metadata.d{n}", document) for n in range(4)]
    assert len(json.dumps(operations)) < 600_000
    conn.execute("select sync.configure('max_record_bytes', 2000000)")
    assert gate.write(ALICE, *operations).status == 200


def test_record_of_more_bytes_than_allowed_is_too_large(common: Gate) -> None:
    answer = check(
        common, json.dumps(tx(set_("tasks", TASK_1, "description", "x" * 300_000))), (413,)
    )
    assert answer.body["limit"] == "max_record_bytes"


def test_list_of_more_items_than_allowed_is_refused(common: Gate) -> None:
    answer = check(
        common, json.dumps(tx(set_("tasks", TASK_1, "tags", list(range(10_001))))), (422,)
    )
    assert answer.body["limit"] == "max_list_items"


def test_path_of_more_segments_than_allowed_is_refused(common: Gate) -> None:
    path = ["metadata"] + ["a"] * 16
    answer = check(common, json.dumps(tx(set_("tasks", TASK_1, path, 1))), (422,))
    assert answer.body["limit"] == "max_path"


def test_refused_batch_member_of_many_leaves_the_rest_whole(
    gate: Gate, conn: psycopg.Connection
) -> None:
    """Thirty-two requests, every second of them nonsense."""
    bodies: list[tuple[str | None, Any]] = []
    for number in range(16):
        bodies.append((CAROL, tx(title(TOMATOES, f"{number}"))))
        bodies.append((ALICE, list(NO_JSON.values())[number]))
    answers = gate.write_all(bodies)
    assert [answer.status for answer in answers[::2]] == [200] * 16
    assert all(answer.status in (400, 422) for answer in answers[1::2])
    assert value(conn, "select title from tasks where id = %s", TOMATOES) == "15"


# Reads


WRONG_POINTERS: list[Any] = [
    None, 5, "x", [], {}, {"pointers": None}, {"pointers": {}}, {"pointers": []},
    {"pointers": [5]},
    {"pointers": [{}]}, {"pointers": [{"table": "tasks"}]}, {"pointers": [{"id": TASK_1}]},
    {"pointers": [{"table": "nowhere", "id": TASK_1}]},
    {"pointers": [{"table": "", "id": TASK_1}]},
    {"pointers": [{"table": 5, "id": TASK_1}]}, {"pointers": [{"table": "tasks", "id": 5}]},
    {"pointers": [{"table": "tasks", "id": TASK_1, "version": "1"}]}, {"pointers": [[]]},
    {"pointers": [{"table": "tasks", "id": TASK_1}] * 1001},
]  # fmt: skip

WRONG_QUERIES: list[Json] = [
    {"table": None}, {"table": 5}, {"table": ""}, {"table": "nowhere"}, {"table": []},
    {"where": 5}, {"where": []}, {"where": "true"}, {"where": {"nothing": 1}},
    {"where": {"": 1}},
    {"where": {"title": {}}}, {"where": {"title": {"like": "x"}}}, {"where": {"title": 5}},
    {"where": {"title": []}}, {"where": {"title": {"in": "x"}}},
    {"where": {"title": {"in": [5]}}},
    {"where": {"title": {"in": ["x"] * 1001}}}, {"where": {"title": {"is": "x"}}},
    {"where": {"title": {"is": True}}},
    {"where": {"title": {"lt": 5}}}, {"where": {"title": {"contains": 5}}},
    {"where": {"metadata": {"lt": 5}}},
    {"where": {"dueDate": "tomorrow"}}, {"where": {"dueDate": {"gt": 5}}},
    {"where": {"boardId": "x"}},
    {"where": {"boardId": {"in": ["x"]}}}, {"where": {"boardId": {"contains": "x"}}},
    {"where": {"id": 5}},
    {"where": {"createdAt": "now"}}, {"where": {"createdAt": {"lt": "infinity"}}},
    {"where": {"version": "x"}},
    {"where": {"title'; drop table tasks; --": 1}},
    {"orderBy": 5}, {"orderBy": {}}, {"orderBy": [5]}, {"orderBy": [{}]},
    {"orderBy": [{"key": 5}]},
    {"orderBy": [{"key": "nothing"}]}, {"orderBy": [{"key": "title", "dir": "up"}]},
    {"orderBy": [{"key": "title", "dir": 5}]}, {"orderBy": [{"key": "metadata"}]},
    {"orderBy": [{"key": "tags"}]},
    {"orderBy": [{"key": "title", "nulls": "first"}]}, {"orderBy": [{"key": "title"}] * 6},
    {"limit": 0}, {"limit": -1}, {"limit": 1001}, {"limit": 1.5}, {"limit": "5"},
    {"limit": None}, {"limit": 1e30},
    {"after": 5}, {"after": ""}, {"after": "x"}, {"after": "W10"}, {"after": "bnVsbA"},
    {"after": "eyJ9"},
    {"after": "\u0000x"}, {"after": []},
    {"include": 5}, {"include": "comments"}, {"include": [5]}, {"include": ["nothing"]},
    {"include": [""]},
    {"include": ["boardId.workspaceId.boards.tasks"]}, {"include": ["title"]},
    {"include": [[]]}, {"include": ["."]},
    {"have": 5}, {"have": []}, {"have": {TASK_1: "1"}}, {"have": {TASK_1: None}},
    {"have": {f"{n}": 1 for n in range(10_001)}},
]  # fmt: skip

WRONG_READS: list[tuple[str, Any]] = [
    *[("get_records", body) for body in WRONG_POINTERS],
    *[("query", {"table": "tasks"} | body) for body in WRONG_QUERIES],
]


@pytest.mark.parametrize("read", WRONG_READS, ids=brief)
def test_read_that_is_wrong(common: Gate, read: tuple[str, Any]) -> None:
    door, body = read
    refused = common.refusal(door, ALICE, body)
    assert refused["status"] in (400, 422), refused
    assert refused["code"]
    assert refused["message"]
    if door == "query" and isinstance(body, dict):
        stream = (
            common.refusal("query_open", ALICE, body)
            if not body.keys() & {"limit", "have", "include"}
            else refused
        )
        assert stream["status"] in (400, 422)


@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_read_that_is_no_json(common: Gate, text: str) -> None:
    for door in ("get_records", "query", "query_open"):
        assert common.refusal(door, ALICE, text)["status"] in (400, 422)


@pytest.mark.parametrize(
    "query",
    [
        {"where": {"metadata": {"eq": "@"}}}, {"where": {"metadata": "@"}},
        {"where": {"tags": {"contains": "@"}}},
        {"where": {"title": "@"}}, {"where": {"title": {"in": "@"}}},
        {"where": {"title": {"is": "@"}}},
        {"orderBy": [{"key": "title", "dir": "@"}]}, {"orderBy": [{"key": "@"}]}, {"limit": "@"},
        {"after": "@"},
        {"include": ["@"]}, {"have": {"x": "@"}},
    ],
    ids=str,
)  # fmt: skip
def test_small_query_does_not_become_a_large_text(common: Gate, query: Any) -> None:
    common.conn.execute("set statement_timeout = '1500ms'")
    try:
        refused = common.refusal("query", ALICE, fill({"table": "tasks"} | query, MANY))
        assert refused["status"] in (400, 422)
    finally:
        common.conn.execute("reset statement_timeout")


WRONG_KEYS = [
    "", ":", "?", "tasks:", "tasks?", "tasks?boardId", "tasks?=x", "tasks?nothing=x",
    "tasks?title=x", "nowhere",
    "nowhere:x", "tasks:%", "tasks:%zz", "tasks?boardId=%ff", f"tasks?boardId={LAUNCH}&status=done",
    "tasks:\u00e4",
    "tasks:a b", "Tasks", "public.tasks", "tasks;x", "tasks:" + "x" * 300, "tasks\n", "tasks'; --",
]  # fmt: skip


def test_wrong_key_is_an_error_of_its_own(common: Gate) -> None:
    joined = common.subscribe(ALICE, *WRONG_KEYS, f"tasks:{TASK_1}")
    assert [key["key"] for key in joined["keys"]] == [f"tasks:{TASK_1}"]
    assert {error["key"] for error in joined["errors"]} == set(WRONG_KEYS)
    codes = {error["key"]: error["code"] for error in joined["errors"]}
    assert codes["nowhere"] == "unknown_table"
    assert codes["tasks?title=x"] == "unknown_collection"
    assert codes["tasks:"] == "bad_key"


def test_more_keys_than_allowed_are_refused(common: Gate) -> None:
    with pytest.raises(psycopg.Error) as refused:
        common.subscribe(ALICE, *[f"tasks:{n}" for n in range(2001)])
    assert refused.value.sqlstate == "PT422"
