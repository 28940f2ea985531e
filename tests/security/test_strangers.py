"""Carol, who is no member of anything of
Alice's, can learn nothing of it: neither contents nor ids nor versions.

Each test compares the whole answer about a record that is hidden with that about one that is not
    there.
"""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.sql.engine import (
    ALICE,
    ALICE_SAID,
    BOB,
    CAROL,
    CAROLS,
    DEMO,
    GARDEN,
    LAUNCH,
    TASK_1,
    TOMATOES,
    Gate,
    claims_of,
    create,
    new_id,
    set_,
    title,
    tx,
    value,
)

pytestmark = pytest.mark.both_versions

HIDDEN = {
    "workspaces": DEMO,
    "boards": LAUNCH,
    "tasks": TASK_1,
    "comments": ALICE_SAID,
    "notebooks": "00000000-0000-7000-8000-0000000e0002",
    "notes": "00000000-0000-7000-8000-0000000f0003",
}
KEYS = {
    "workspaces": "name",
    "boards": "name",
    "tasks": "title",
    "comments": "content",
    "notebooks": "name",
    "notes": "title",
}
LISTS = {"workspaces": "memberIds", "tasks": "tags", "notebooks": "sharedWith", "notes": "tags"}
PARENTS = {
    "boards": ("workspaceId", CAROLS),
    "tasks": ("boardId", GARDEN),
    "comments": ("taskId", TOMATOES),
    "notes": ("notebookId", "00000000-0000-7000-8000-0000000e0004"),
}
MINE = {"boards": GARDEN, "tasks": TOMATOES, "comments": "00000000-0000-7000-8000-0000000d0005"}

Make = Callable[[str, str], list[Any]]


def operations(table: str) -> dict[str, Make]:
    """What Carol may try on a record of a table, by name."""
    key = KEYS[table]
    found: dict[str, Make] = {
        "set": lambda t, i: [set_(t, i, key, "hers now")],
        "set to null": lambda t, i: [set_(t, i, "deleted", None)],
        "set-now": lambda t, i: [{"type": "set-now", "table": t, "id": i, "key": "updatedAt"}],
        "delete": lambda t, i: [{"type": "delete", "table": t, "id": i}],
        "restore": lambda t, i: [{"type": "restore", "table": t, "id": i}],
        "beside her own": lambda t, i: [title(TOMATOES, "x"), set_(t, i, key, "x")],
        "twice": lambda t, i: [set_(t, i, key, "x"), set_(t, i, key, "y")],
    }
    if table in LISTS:
        found["join the list"] = lambda t, i: [
            {"type": "listInsert", "table": t, "id": i, "key": LISTS[t], "value": CAROL}
        ]
    if table in PARENTS:
        parent, mine = PARENTS[table]
        found["take it over"] = lambda t, i: [set_(t, i, parent, mine)]
    if table == "tasks":
        found["increment"] = lambda t, i: [
            {"type": "increment", "table": t, "id": i, "key": "metadata.votes", "by": 1}
        ]
        found["path"] = lambda t, i: [set_(t, i, "metadata.a.b", 1)]
        found["impossible path"] = lambda t, i: [set_(t, i, "metadata.votes.deeper.down", 1)]
        found["list that is none"] = lambda t, i: [
            {"type": "listInsert", "table": t, "id": i, "key": "metadata.votes", "value": 1}
        ]
        found["check that fails"] = lambda t, i: [set_(t, i, "metadata", [])]
    return found


CASES = [(table, name) for table in HIDDEN for name in operations(table)]


def blank(answer: Any, *ids: str) -> str:
    """An answer as text, without the ids the caller sent."""
    text = json.dumps(answer, sort_keys=True)
    for id_ in ids:
        text = text.replace(id_, "ID")
    return text


@pytest.mark.parametrize(("table", "name"), CASES, ids=lambda text: text)
@pytest.mark.parametrize("expect", [None, 0, 1, 2])
def test_write_to_a_hidden_record_is_as_to_a_missing_one(
    quiet: Gate, table: str, name: str, expect: int | None
) -> None:
    answers = []
    for id_ in (HIDDEN[table], new_id()):
        request = tx(*operations(table)[name](table, id_))
        if expect is not None:
            request["expect"] = [{"table": table, "id": id_, "version": expect}]
        single = quiet.send(CAROL, request)
        assert single.status == 403, single
        listed = quiet.send(CAROL, {"transactions": [request | {"txId": new_id()}]})
        (result,) = listed.body["results"]
        assert (listed.status, result["status"], listed.body["recordMap"]) == (200, "refused", {})
        answers.append(blank([single.body, result], id_, request["txId"], result["txId"]))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("user", [CAROL, None])
@pytest.mark.parametrize("table", HIDDEN)
def test_read_of_a_hidden_record_is_as_of_a_missing_one(
    quiet: Gate, table: str, user: str | None
) -> None:
    id_ = HIDDEN[table]
    other = new_id()
    answers = [
        blank(quiet.get_records(user, (table, found)) | {"cursor": 0}, found)
        for found in (id_, other)
    ]
    assert answers[0] == answers[1]
    assert quiet.get_records(user, (table, id_))["gone"] == [{"table": table, "id": id_}]
    for version in (1, 2):
        pointers = [{"table": table, "id": i, "version": version} for i in (id_, other)]
        answer = quiet.ask("get_records", user, {"pointers": pointers})
        assert (answer["recordMap"], answer["unchanged"], len(answer["gone"])) == ({}, [], 2)
    assert quiet.visible(user, {table: [id_, other]}, records=True)[table] == {}


@pytest.mark.parametrize("table", HIDDEN)
def test_query_finds_nothing_hidden(quiet: Gate, table: str) -> None:
    id_, other = HIDDEN[table], new_id()
    assert id_ not in str(quiet.query(CAROL, table, limit=1000))
    for found in (id_, other):
        answer = quiet.query(CAROL, table, where={"id": found}, have={found: 1})
        assert (answer["ids"], answer["recordMap"]) == ([], {table: {}})
        assert answer["gone"] == [{"table": table, "id": found}]
        assert "next" not in answer or answer["next"] is None
    if table in PARENTS:
        parent = PARENTS[table][0]
        hidden_parent = HIDDEN[
            {"boards": "workspaces", "tasks": "boards", "comments": "tasks", "notes": "notebooks"}[
                table
            ]
        ]
        answers = [
            blank(quiet.query(CAROL, table, where={parent: found}) | {"cursor": 0}, found)
            for found in (hidden_parent, other)
        ]
        assert answers[0] == answers[1]


def test_page_after_a_hidden_record_tells_nothing(quiet: Gate) -> None:
    """A forged "after" only says where to go on."""
    import base64

    def after(text: str, id_: str) -> str:
        raw = base64.b64encode(json.dumps([text, id_]).encode()).decode()
        return raw.translate(str.maketrans("+/", "-_"))

    order = [{"key": "title"}]
    hidden = quiet.query(ALICE, "tasks", orderBy=order, limit=1)
    for position in (hidden["next"], after("a", TASK_1), after("a", new_id())):
        answer = quiet.query(CAROL, "tasks", orderBy=order, after=position)
        assert set(answer["ids"]) <= {TOMATOES, "00000000-0000-7000-8000-0000000c0014"}


def test_include_shows_no_hidden_parent_or_child(gate: Gate, conn: psycopg.Connection) -> None:
    # Alice's comment on a task of Carol's that was hers before: Carol reads it. Carol's own comment
    # on a task of Alice's: she may not read the task.
    conn.execute("update comments set author_id = %s where id = %s", (CAROL, ALICE_SAID))
    answer = gate.query(CAROL, "comments", include=["taskId", "taskId.boardId.workspaceId"])
    assert TASK_1 not in str(answer)
    assert LAUNCH not in str(answer)
    down = gate.query(CAROL, "workspaces", include=["boards.tasks.comments", "workspaceMembers"])
    assert TASK_1 not in str(down)
    assert BOB not in str(down)


@pytest.mark.parametrize("table", PARENTS)
def test_nothing_is_made_under_a_hidden_parent(quiet: Gate, table: str) -> None:
    key = PARENTS[table][0]
    parents = {"boards": "workspaces", "tasks": "boards", "comments": "tasks", "notes": "notebooks"}
    required = {
        "tasks": {"title": "t"},
        "boards": {"name": "n"},
        "comments": {"content": "c"},
        "notes": {},
    }
    answers = []
    for parent in (HIDDEN[parents[table]], new_id()):
        id_ = new_id()
        made = quiet.write(CAROL, create(table, id_, **{key: parent}, **required[table]))
        assert made.status == 403
        bodies = [blank(made.body, id_, parent, made.body["txId"])]
        if table in MINE:
            moved = quiet.write(CAROL, set_(table, MINE[table], key, parent))
            assert moved.status == 403
            bodies.append(blank(moved.body, parent, moved.body["txId"]))
        answers.append(bodies)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("table", HIDDEN)
def test_create_with_a_hidden_id_is_neutral_and_leaves_the_row(
    gate: Gate, conn: psycopg.Connection, table: str
) -> None:
    required = {
        "workspaces": {"name": "n"}, "boards": {"workspaceId": CAROLS, "name": "n"},
        "tasks": {"boardId": GARDEN, "title": "t"},
        "comments": {"taskId": TOMATOES, "content": "c"},
        "notebooks": {"name": "n"}, "notes": {"notebookId": PARENTS["notes"][1]},
    }  # fmt: skip
    query = f"select t::text from public.{table} t where id = %s"
    before = value(conn, query, HIDDEN[table])
    missing = new_id()
    neutral = gate.write(CAROL, set_(table, missing, KEYS[table], "x"))
    for operations_ in (
        [create(table, HIDDEN[table], **required[table])],
        [set_(table, HIDDEN[table], "id", HIDDEN[table])]
        + [set_(table, HIDDEN[table], key, to) for key, to in required[table].items()],
    ):
        answer = gate.write(CAROL, *operations_)
        assert blank(answer.body, HIDDEN[table], answer.body["txId"]) == blank(
            neutral.body, missing, neutral.body["txId"]
        )
        expected = gate.write(
            CAROL, *operations_, expect=[{"table": table, "id": HIDDEN[table], "version": 0}]
        )
        assert blank(expected.body, HIDDEN[table], expected.body["txId"]) == blank(
            neutral.body, missing, neutral.body["txId"]
        )
    assert value(conn, query, HIDDEN[table]) == before


def test_what_waits_on_a_refused_create_names_only_ones_own(quiet: Gate) -> None:
    answers = []
    for id_ in (TASK_1, new_id()):
        first = tx(create("tasks", id_, boardId=LAUNCH, title="t"))
        second = tx(create("comments", new_id(), taskId=id_, content="c"))
        answer = quiet.send(CAROL, {"transactions": [first, second]})
        assert answer.body["results"][1]["error"]["blockedBy"] == first["txId"]
        made = second["operations"][0]["id"]
        answers.append(blank(answer.body, id_, made, first["txId"], second["txId"]))
    assert answers[0] == answers[1]


def test_receipt_of_another_tells_nothing(gate: Gate) -> None:
    """Applied, refused, with values: all the same to a stranger."""
    requests = [
        tx(title(TASK_1, "secret")),
        tx(title(TOMATOES, "secret")),
        tx({"type": "call", "fn": "completeBoard", "args": {"boardId": LAUNCH}}),
        tx(title(TASK_1, "secret"), expect=[{"table": "tasks", "id": TASK_1, "version": 99}]),
    ]
    bodies = set()
    for request in requests:
        gate.send(ALICE, request)
        for attempt in (request, request | {"operations": [title(TOMATOES, "hers")]}):
            answer = gate.send(CAROL, attempt)
            assert (answer.status, answer.code) == (422, "tx_mismatch")
            bodies.add(blank(answer.body, request["txId"]))
            dry = gate.send(CAROL, attempt | {"dryRun": True})
            bodies.add(blank(dry.body, request["txId"]))
    assert len(bodies) == 1


# Subscriptions


def keys_of(table: str, id_: str, parent: str) -> list[str]:
    keys = [f"{table}:{id_}"]
    if table in PARENTS:
        keys.append(f"{table}?{PARENTS[table][0]}={parent}")
    return keys


@pytest.mark.parametrize("table", ["boards", "tasks", "comments"])
@pytest.mark.parametrize("since", ["nothing", "an update", "a delete", "a move", "an insert"])
def test_subscription_to_hidden_keys_is_as_to_missing_ones(
    gate: Gate, conn: psycopg.Connection, table: str, since: str
) -> None:
    parents = {"boards": DEMO, "tasks": LAUNCH, "comments": TASK_1}
    hidden = keys_of(table, HIDDEN[table], parents[table])
    nowhere_id, nowhere = new_id(), new_id()
    missing = keys_of(table, nowhere_id, nowhere)
    for with_cursor in (False, True):
        cursor = gate.cursor() if with_cursor else None
        column = {"boards": "workspace_id", "tasks": "board_id", "comments": "task_id"}[table]
        text = {"boards": "name", "tasks": "title", "comments": "content"}[table]
        statement = {
            "nothing": "select 1",
            "an update": f"update {table} set {text} = {text} || '!' where {column} = "
            f"'{parents[table]}'",
            "a delete": f"delete from {table} where id = '{HIDDEN[table]}'",
            "a move": f"update {table} set {column} = {column} where false",
            "an insert": f"insert into {table} ({column}, {text}, "
            f"{'author_id' if table == 'comments' else 'created_by'}) "
            f"values ('{parents[table]}', 'new', '{ALICE}')",
        }[since]
        conn.execute(statement.encode())
        answers = []
        for keys, ids in (
            (hidden, (HIDDEN[table], parents[table])),
            (missing, (nowhere_id, nowhere)),
        ):
            joined = gate.subscribe(CAROL, *keys, cursor=cursor)
            joined["keys"].sort(key=lambda key: "id" not in key)
            answers.append(blank(joined | {"cursor": 0}, *ids))
            assert joined["versions"] == {}
            assert not any(joined["views"].values())
            assert joined["errors"] == []
            assert all(set(update) == {"key", "gone"} for update in joined["updates"])
        assert answers[0] == answers[1]


def test_key_of_a_whole_table_tells_a_stranger_of_no_hidden_change(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute("update tasks set title = 'secret' where id = %s", (TASK_1,))
    conn.execute(
        "insert into tasks (board_id, title, created_by) values (%s, 'secret', %s)", (LAUNCH, ALICE)
    )
    joined = gate.subscribe(CAROL, "tasks", cursor=cursor)
    assert joined["updates"] == []
    assert joined["stale"] == []
    assert "secret" not in str(joined)


def test_record_moved_out_of_reach_is_gone_without_its_new_place(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute("update tasks set board_id = %s, title = 'secret' where id = %s", (GARDEN, TASK_1))
    joined = gate.subscribe(ALICE, f"tasks:{TASK_1}", f"tasks?boardId={LAUNCH}", cursor=cursor)
    assert joined["updates"] == [{"key": f"tasks:{TASK_1}", "gone": True}]
    assert joined["stale"] == [f"tasks?boardId={LAUNCH}"]
    assert "secret" not in str(joined)
    assert GARDEN not in str(joined)


def test_record_moved_into_reach_shows_nothing_of_its_past(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute("update tasks set description = 'secret of the past' where id = %s", (TOMATOES,))
    conn.execute(
        "update tasks set description = 'clean', board_id = %s where id = %s", (LAUNCH, TOMATOES)
    )
    joined = gate.subscribe(ALICE, f"tasks:{TOMATOES}", f"tasks?boardId={LAUNCH}", cursor=cursor)
    assert "secret" not in str(joined)
    (update,) = joined["updates"]
    assert update["record"]["description"] == "clean"


def test_lost_membership_is_gone_at_the_next_read(gate: Gate, conn: psycopg.Connection) -> None:
    assert TASK_1 in str(gate.query(BOB, "tasks"))
    cursor = gate.cursor()
    conn.execute("update workspaces set member_ids = '[]' where id = %s", (DEMO,))
    assert gate.query(BOB, "tasks")["ids"] == []
    assert gate.get_records(BOB, ("tasks", TASK_1))["recordMap"] == {}
    assert gate.visible(BOB, {"tasks": [TASK_1]})["tasks"] == {}
    assert gate.write(BOB, title(TASK_1, "x")).status == 403
    joined = gate.subscribe(
        BOB, f"tasks:{TASK_1}", f"tasks?boardId={LAUNCH}", "tasks", cursor=cursor
    )
    assert joined["updates"] == [{"key": f"tasks:{TASK_1}", "gone": True}]
    assert set(joined["stale"]) == {f"tasks?boardId={LAUNCH}", "tasks"}


# Nobody, and somebody else


def test_nobody_reads_and_writes_nothing(quiet: Gate) -> None:
    for table, id_ in HIDDEN.items():
        assert quiet.query(None, table)["ids"] == []
        assert quiet.get_records(None, (table, id_))["recordMap"] == {}
        assert quiet.write(None, set_(table, id_, KEYS[table], "x")).status == 403
        assert quiet.write(None, create(table, new_id(), **{KEYS[table]: "x"})).status in (400, 403)
    assert quiet.subscribe(None, "tasks", f"tasks:{TASK_1}")["versions"] == {}
    assert quiet.write(
        None, {"type": "call", "fn": "completeBoard", "args": {"boardId": LAUNCH}}
    ).status in (400, 403)


@pytest.mark.parametrize(
    "sub", ["", "alice", ALICE.upper() + " ", "' or true --", ALICE[:-1], None]
)
def test_claims_of_no_known_user_see_nothing(quiet: Gate, sub: str | None) -> None:
    row = quiet.conn.execute(
        "select sync.gateway_query(%s, %s)",
        (json.dumps({"sub": sub, "role": "authenticated"}), '{"table": "tasks"}'),
    ).fetchone()
    assert row
    assert json.loads(row[0])["ids"] == []


def test_author_cannot_be_another(quiet: Gate) -> None:
    answer = quiet.write(CAROL, title(TOMATOES, "x"), authorId=ALICE)
    assert (answer.status, answer.code) == (403, "forbidden")
    answer = quiet.write(CAROL, title(TASK_1, "x"), authorId=CAROL)
    assert answer.status == 403
    assert quiet.write(CAROL, title(TOMATOES, "x"), authorId=CAROL).status == 200
    assert quiet.write(CAROL, title(TOMATOES, "x"), authorId=None).status == 200


def test_claims_are_believed_as_a_whole(quiet: Gate) -> None:
    """Another role in the token is not served, whoever signed it."""
    for role in (
        "service_role",
        "postgres",
        "rowcast_owner",
        "none",
        "",
        "anon; set role postgres",
    ):
        row = quiet.conn.execute(
            "select status from sync.gateway_write(%s::text[], %s::text[])",
            ([claims_of(ALICE, role=role)], [json.dumps(tx(title(TASK_1, "x")))]),
        ).fetchone()
        assert row == (401,), role
        for statement in (
            'select sync.gateway_query(%s, \'{"table": "tasks"}\')',
            "select sync.gateway_subscribe(%s, '{tasks}', null)",
            "select sync.gateway_visible(%s, '{\"tasks\": []}')",
        ):
            with pytest.raises(psycopg.Error) as refused:
                quiet.conn.execute(statement.encode(), (claims_of(ALICE, role=role),))
            assert refused.value.sqlstate == "PT401", role
