"""Ids of every type, clashes of unique columns, and references to rows that are hidden."""

from typing import Any

import psycopg
import pytest

from tests.sql.engine import (
    ALICE,
    BOB,
    CAROL,
    GARDEN,
    LAUNCH,
    TASK_1,
    TOMATOES,
    Answer,
    Gate,
    create,
    live,
    new_id,
    set_,
    title,
    value,
)

pytestmark = pytest.mark.both_versions

MOST = 2**63 - 1


@pytest.mark.parametrize(
    "id_", ["a", "a/b c?d=e&f", "ä€😀", "x" * 200, "0", "null", "%41", "a.b", '"', "'"]
)
def test_text_ids_go_all_the_way(gate: Gate, conn: psycopg.Connection, id_: str) -> None:
    live(conn, "docs", "id text primary key, note text", ", p_hard_delete => true")
    cursor = gate.cursor()
    gate.applied(BOB, create("docs", id_, note="made"))
    answer = gate.applied(BOB, set_("docs", id_, "note", "changed"))
    assert answer.body["recordMap"] == {"docs": {id_: {"id": id_, "version": 2, "note": "changed"}}}
    assert gate.get_records(BOB, ("docs", id_))["recordMap"] == answer.body["recordMap"]
    found = gate.query(BOB, "docs", where={"id": id_})
    assert found["ids"] == [id_]
    joined = gate.subscribe(BOB, *found["keys"], cursor=cursor)
    assert joined["errors"] == []
    assert [update["key"] for update in joined["updates"]] == found["keys"]
    assert joined["versions"] == {found["keys"][0]: 2}
    assert gate.visible(BOB, {"docs": [id_]})["docs"][id_]["version"] == 2
    assert gate.applied(BOB, {"type": "delete", "table": "docs", "id": id_}).status == 200
    assert gate.get_records(BOB, ("docs", id_))["gone"] == [{"table": "docs", "id": id_}]


@pytest.mark.parametrize("id_", ["1", "0", "-5", "1234567890123456789", str(MOST), str(-MOST - 1)])
def test_bigint_ids_go_all_the_way(gate: Gate, conn: psycopg.Connection, id_: str) -> None:
    live(conn, "flakes", "id bigint primary key, note text")
    conn.execute("insert into flakes (id, note) values (%s, 'made')", (id_,))
    cursor = gate.cursor()
    answer = gate.applied(BOB, set_("flakes", id_, "note", "changed"))
    assert answer.body["recordMap"]["flakes"][id_]["id"] == id_
    assert gate.get_records(BOB, ("flakes", id_))["recordMap"] == answer.body["recordMap"]
    assert gate.query(BOB, "flakes", where={"id": id_})["ids"] == [id_]
    joined = gate.subscribe(BOB, f"flakes:{id_}", cursor=cursor)
    assert joined["versions"] == {f"flakes:{id_}": 2}
    assert gate.visible(BOB, {"flakes": [id_]})["flakes"][id_]["version"] == 2


@pytest.mark.parametrize(
    "id_", ["", " 1", "01", "+1", "-0", "1.0", "1e3", str(MOST + 1), "9" * 50, "one", "\uff11"]
)
def test_malformed_bigint_id_is_refused_in_writes_and_absent_in_reads(
    common: Gate, common_db: Any, id_: str
) -> None:
    conn = common_db.connect()
    if value(conn, "select to_regclass('public.flakes') is null"):
        live(conn, "flakes", "id bigint primary key, note text")
    answer = common.write(BOB, set_("flakes", id_, "note", "x"))
    assert (answer.status, answer.code) == (400, "bad_request")
    assert common.get_records(BOB, ("flakes", id_))["gone"] == [{"table": "flakes", "id": id_}]
    assert common.visible(BOB, {"flakes": [id_]})["flakes"] == {}
    assert common.query(BOB, "flakes", have={id_: 1})["gone"] == [{"table": "flakes", "id": id_}]
    conn.close()


@pytest.mark.parametrize("type_", ["integer", "smallint"])
def test_id_beyond_a_small_type_is_absent(gate: Gate, conn: psycopg.Connection, type_: str) -> None:
    live(conn, "small", f"id {type_} primary key, note text")
    conn.execute("insert into small (id, note) values (1, 'one')")
    far = "99999999999"
    assert gate.get_records(BOB, ("small", far), ("small", "1"))["gone"] == [
        {"table": "small", "id": far}
    ]
    joined = gate.subscribe(BOB, f"small:{far}", "small:1", "small")
    assert joined["versions"] == {"small:1": 1}
    assert list(gate.visible(BOB, {"small": [far, "1"]})["small"]) == ["1"]
    assert gate.query(BOB, "small", have={far: 1, "1": 1})["gone"] == [
        {"table": "small", "id": far}
    ]
    assert gate.write(BOB, set_("small", far, "note", "x")).status in (400, 403)
    assert gate.write(BOB, set_("small", "1", "note", "x")).status == 200


@pytest.mark.parametrize(
    "id_", ["", "abc", TASK_1.upper(), "{" + TASK_1 + "}", TASK_1 + " ", TASK_1.replace("-", "")]
)
def test_malformed_uuid_is_refused_in_writes_and_absent_in_reads(common: Gate, id_: str) -> None:
    answer = common.write(ALICE, title(id_, "x"))
    assert (answer.status, answer.code) == (400, "bad_request")
    assert common.get_records(ALICE, ("tasks", id_))["gone"] == [{"table": "tasks", "id": id_}]


# Unique columns

SLUGS = """
    create table public.slugs (
        id uuid primary key default gen_random_uuid(), owner uuid not null default auth.uid(),
        slug text unique, scope text not null default 's', part text, version integer not null
            default 1,
        constraint part_once unique (scope, part)
    );
    alter table public.slugs enable row level security;
    create policy own on public.slugs using (owner = (select auth.uid())) with check (owner =
        (select auth.uid()));
    grant select, insert, update on public.slugs to authenticated;
    select sync.enable('public.slugs', p_server_owned => '{owner}');
"""


def plain(answer: Answer, id_: str) -> Any:
    """An answer without the ids the caller made up."""
    return answer.status, str(answer.body).replace(id_, "ID").replace(answer.body["txId"], "TX")


def test_clash_with_a_readable_row_is_exists(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(SLUGS.encode())
    first, second = new_id(), new_id()
    gate.applied(ALICE, create("slugs", first, slug="one", part="p"))
    gate.applied(ALICE, create("slugs", second, slug="two", part="q"))
    clashes = [
        create("slugs", new_id(), slug="one"),
        create("slugs", new_id(), part="p"),
        create("slugs", new_id(), scope="s", part="p"),
        set_("slugs", second, "slug", "one"),
        set_("slugs", second, "part", "p"),
    ]
    for clash in clashes:
        answer = gate.write(ALICE, clash)
        assert (answer.status, answer.code) == (409, "exists"), clash
        assert first not in str(answer.body)


def test_clash_with_a_hidden_row_is_the_neutral_refusal(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(SLUGS.encode())
    theirs, mine = new_id(), new_id()
    gate.applied(ALICE, create("slugs", theirs, slug="one", part="p"))
    gate.applied(CAROL, create("slugs", mine, slug="two", part="q"))
    absent = new_id()
    neutral = plain(gate.write(CAROL, set_("slugs", absent, "slug", "three")), absent)
    for id_, clash in [
        (theirs, create("slugs", theirs, slug="four")),
        (theirs, set_("slugs", theirs, "slug", "four")),
        (mine, set_("slugs", mine, "slug", "one")),
        (mine, set_("slugs", mine, "part", "p")),
    ]:
        assert plain(gate.write(CAROL, clash), id_) == neutral
    new = new_id()
    assert plain(gate.write(CAROL, create("slugs", new, slug="one")), new) == neutral


def test_clash_in_another_table_of_a_trigger_is_not_called_exists(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(
        """
        create table public.taken (name text constraint taken_once unique);
        insert into public.taken values ('secret');
        create function public.take() returns trigger language plpgsql security definer as $$
        begin
            insert into public.taken values (new.title);
            return new;
        end
        $$;
        create trigger take after update on public.tasks for each row execute function
            public.take();
        select sync.refresh('public.tasks');
        """
    )
    answer = gate.write(ALICE, title(TASK_1, "secret"))
    assert (answer.status, answer.code) == (403, "forbidden")
    assert "taken" not in str(answer.body)


# References


def test_reference_to_a_hidden_parent_is_as_to_a_missing_one(gate: Gate) -> None:
    hidden, missing = GARDEN, new_id()
    answers = []
    for board in (hidden, missing):
        id_ = new_id()
        made = gate.write(ALICE, create("tasks", id_, boardId=board, title="t"))
        moved = gate.write(ALICE, set_("tasks", TASK_1, "boardId", board))
        answers.append([plain(made, id_), plain(moved, id_)])
        assert (made.status, moved.status) == (403, 403)
    assert answers[0] == answers[1]


FAMILIES = """
    create table public.par (
        id uuid primary key default gen_random_uuid(), ws uuid not null, slug text unique,
        version integer not null default 1, unique (ws, id)
    );
    create table public.chi (
        id uuid primary key default gen_random_uuid(), ws uuid, par uuid, slug text references
            public.par (slug),
        version integer not null default 1,
        foreign key (ws, par) references public.par (ws, id)
    );
    alter table public.par enable row level security;
    alter table public.chi enable row level security;
    create policy own on public.par using (ws = (select auth.uid()));
    create policy everybody on public.chi using (true) with check (true);
    grant select, insert, update on public.par, public.chi to authenticated;
    select sync.enable('public.par'), sync.enable('public.chi');
"""


def test_composite_reference_to_a_hidden_parent_is_as_to_a_missing_one(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(FAMILIES.encode())
    hidden = str(value(conn, "insert into par (ws) values (%s) returning id", ALICE))
    gate.applied(ALICE, create("chi", new_id(), ws=ALICE, par=hidden))
    answers = []
    for parent in (hidden, new_id()):
        id_ = new_id()
        answers.append(plain(gate.write(CAROL, create("chi", id_, ws=ALICE, par=parent)), id_))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
    mine = new_id()
    gate.applied(CAROL, create("chi", mine, ws=ALICE))
    assert gate.write(CAROL, set_("chi", mine, "par", hidden)).status == 403
    gate.applied(CAROL, create("chi", new_id(), par=new_id()))  # half null refers to nothing


def test_reference_by_another_unique_column_to_a_hidden_parent_is_as_to_a_missing_one(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(FAMILIES.encode())
    conn.execute("insert into par (ws, slug) values (%s, 'hers')", (ALICE,))
    gate.applied(ALICE, create("chi", new_id(), slug="hers"))
    answers = []
    for slug in ("hers", "nobody's"):
        id_ = new_id()
        answers.append(plain(gate.write(CAROL, create("chi", id_, slug=slug)), id_))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


def test_unchanged_reference_to_a_parent_now_hidden_does_not_matter(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(FAMILIES.encode())
    parent = str(value(conn, "insert into par (ws, slug) values (%s, 'x') returning id", CAROL))
    child = new_id()
    gate.applied(CAROL, create("chi", child, ws=CAROL, par=parent, slug="x"))
    conn.execute("update chi set par = null")
    conn.execute("update par set ws = %s", (ALICE,))
    gate.applied(CAROL, set_("chi", child, "slug", "x"))
    gate.applied(CAROL, set_("chi", child, "slug", None))
    assert gate.write(CAROL, set_("chi", child, "slug", "x")).status == 403


def test_reference_to_a_record_made_in_the_same_transaction(gate: Gate) -> None:
    board, task = new_id(), new_id()
    gate.applied(
        CAROL,
        create("tasks", task, boardId=board, title="t"),
        create("boards", board, workspaceId="00000000-0000-7000-8000-0000000a0002", name="b"),
        set_("tasks", TOMATOES, "boardId", board),
    )


def test_record_may_refer_to_itself_and_to_no_hidden_one(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(conn, "nodes", "id uuid primary key, parent uuid references nodes, only_for uuid")
    conn.execute("drop policy everybody on nodes")
    conn.execute(
        "create policy own on nodes using (only_for is null or only_for = (select auth.uid()))"
    )
    root, hidden = new_id(), new_id()
    gate.applied(ALICE, create("nodes", hidden, parent=hidden, onlyFor=ALICE))
    gate.applied(BOB, create("nodes", root, parent=root))
    for parent in (hidden, new_id()):
        assert gate.write(BOB, create("nodes", new_id(), parent=parent)).status == 403
        assert gate.write(BOB, set_("nodes", root, "parent", parent)).status == 403


def test_record_that_others_hold_on_to_is_not_deleted(gate: Gate, conn: psycopg.Connection) -> None:
    live(conn, "shelves", "id text primary key", ", p_hard_delete => true")
    live(conn, "books", "id text primary key, shelf text references shelves on delete restrict")
    gate.applied(ALICE, create("shelves", "s"), create("books", "b", shelf="s"))
    answer = gate.write(ALICE, {"type": "delete", "table": "shelves", "id": "s"})
    assert (answer.status, answer.code) == (403, "forbidden")


def test_exclusion_constraint_refuses_and_tells_of_no_other_record(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(
        conn,
        "bookings",
        "id uuid primary key, day integer, exclude using gist (int4range(day, day + 1) with &&)",
    )
    gate.applied(ALICE, create("bookings", new_id(), day=1))
    answer = gate.write(BOB, create("bookings", new_id(), day=1))
    assert (answer.status, answer.code) == (403, "forbidden")
    gate.applied(BOB, create("bookings", new_id(), day=2))


def test_record_cannot_be_moved_where_its_author_may_not_write(
    gate: Gate, conn: psycopg.Connection
) -> None:
    assert gate.write(BOB, set_("tasks", TASK_1, "boardId", GARDEN)).status == 403
    assert str(value(conn, "select board_id from tasks where id = %s", TASK_1)) == LAUNCH


# One record, two operations


def test_create_and_delete_for_good_in_one_transaction_leave_nothing(
    gate: Gate, conn: psycopg.Connection
) -> None:
    live(conn, "docs", "id text primary key, note text", ", p_hard_delete => true")
    answer = gate.write(
        BOB, create("docs", "d", note="x"), {"type": "delete", "table": "docs", "id": "d"}
    )
    assert answer.status in (200, 400), answer
    assert answer.code in (None, "bad_request", "not_supported")
    assert value(conn, "select count(*) from docs") == 0


def test_delete_for_good_with_an_expectation(gate: Gate, conn: psycopg.Connection) -> None:
    member = str(value(conn, "select id from workspace_members where user_id = %s", BOB))
    delete = {"type": "delete", "table": "workspaceMembers", "id": member}
    expect = {"table": "workspaceMembers", "id": member}
    stale = gate.write(ALICE, delete, expect=[expect | {"version": 7}])
    assert (stale.status, stale.code) == (409, "conflict")
    stranger = gate.write(CAROL, delete, expect=[expect | {"version": 1}])
    assert (stranger.status, stranger.code) == (403, "forbidden")
    gate.applied(ALICE, delete, expect=[expect | {"version": 1}])


@pytest.mark.parametrize("order", [[TASK_1, TOMATOES], [TOMATOES, TASK_1]])
def test_refusal_of_an_expectation_names_its_record(gate: Gate, order: list[str]) -> None:
    answer = gate.write(
        CAROL, *[title(task, "x") for task in order],
        expect=[{"table": "tasks", "id": TASK_1, "version": 1}],
    )  # fmt: skip
    assert (answer.status, answer.body["id"]) == (403, TASK_1)
    assert "conflicts" not in answer.body
