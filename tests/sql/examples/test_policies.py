"""Who may do what in the example apps, asked of Postgres in plain SQL under each user's identity.

Nothing of Rowcast is in the way here: role and claims are set as the gateway sets them, then one
statement runs. What is forbidden is either zero rows (the row is not there for this user) or
42501 (`DENIED`: no grant, or the new row is not allowed).
"""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

ALICE = "00000000-0000-7000-8000-00000000a11c"
BOB = "00000000-0000-7000-8000-000000000b0b"
CAROL = "00000000-0000-7000-8000-00000000ca01"
USERS = {"alice": ALICE, "bob": BOB, "carol": CAROL}

DEMO = "00000000-0000-7000-8000-0000000a0001"
CAROLS = "00000000-0000-7000-8000-0000000a0002"
LAUNCH = "00000000-0000-7000-8000-0000000b0001"
IDEAS = "00000000-0000-7000-8000-0000000b0002"
GARDEN = "00000000-0000-7000-8000-0000000b0003"
ANNOUNCE = "00000000-0000-7000-8000-0000000c0001"
TOMATOES = "00000000-0000-7000-8000-0000000c0013"
ALICE_SAID = "00000000-0000-7000-8000-0000000d0001"
BOB_SAID = "00000000-0000-7000-8000-0000000d0002"
CAROL_SAID = "00000000-0000-7000-8000-0000000d0005"
SHARED = "00000000-0000-7000-8000-0000000e0001"
DIARY = "00000000-0000-7000-8000-0000000e0002"
RECIPES = "00000000-0000-7000-8000-0000000e0003"
DRAFT = "00000000-0000-7000-8000-0000000f0001"
MONDAY = "00000000-0000-7000-8000-0000000f0003"
NOWHERE = "00000000-0000-7000-8000-00000000dead"

DENIED = "42501"
TABLES = {
    "workspaces": "deleted",
    "workspace_members": None,
    "boards": "deleted",
    "tasks": "deleted",
    "comments": "deleted",
    "notebooks": "deleted",
    "notebook_members": None,
    "notes": "deleted",
    "profiles": None,
}

pytestmark = pytest.mark.both_versions

Do = Callable[..., int | str]
See = Callable[..., list[tuple[Any, ...]]]


def become(conn: psycopg.Connection[Any], user: str | None, role: str = "authenticated") -> None:
    """Take role and claims for the rest of the transaction; a user not in USERS is an id."""
    claims = {"role": role} | ({"sub": USERS.get(user, user)} if user else {})
    conn.execute("select set_config('role', 'none', true)")
    conn.execute(
        "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
        (role, json.dumps(claims)),
    )


def unbecome(conn: psycopg.Connection[Any]) -> None:
    """Give role and claims back."""
    conn.execute(
        "select set_config('role', 'none', true), set_config('request.jwt.claims', '', true)"
    )


@pytest.fixture
def conn(tx: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A transaction that has begun, so that what follows are savepoints in it."""
    tx.execute("select 1")
    return tx


@pytest.fixture
def do(conn: psycopg.Connection[Any]) -> Do:
    """Run one statement as a user: how many rows it touched, or the SQLSTATE of its refusal."""

    def run(user: str | None, sql: str, *args: Any, role: str = "authenticated") -> int | str:
        try:
            with conn.transaction():
                become(conn, user, role)
                count = conn.execute(sql, args).rowcount
                conn.execute("set constraints all immediate")
                return count
        except psycopg.Error as error:
            return error.sqlstate or "?"
        finally:
            unbecome(conn)

    return run


@pytest.fixture
def see(conn: psycopg.Connection[Any]) -> See:
    """Run one query as a user, or as the owner of everything where the user is None."""

    def run(user: str | None, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        if user is not None:
            become(conn, user)
        try:
            return conn.execute(sql, args).fetchall()
        finally:
            unbecome(conn)

    return run


# Reading


@pytest.mark.parametrize(
    ("user", "counts"),
    [
        # workspaces, workspace_members, boards, tasks, comments,
        # notebooks, notebook_members, notes, profiles
        ("alice", (1, 2, 2, 12, 4, 2, 3, 3, 2)),
        ("bob", (1, 2, 2, 12, 4, 2, 3, 3, 2)),
        ("carol", (1, 1, 1, 2, 1, 1, 1, 1, 1)),
        (NOWHERE, (0, 0, 0, 0, 0, 0, 0, 0, 0)),
    ],
)
def test_each_user_reads_his_own_and_nothing_else(
    see: See, user: str, counts: tuple[int, ...]
) -> None:
    found = tuple(see(user, f"select count(*) from public.{name}")[0][0] for name in TABLES)
    assert found == counts


@pytest.mark.parametrize("table", TABLES)
def test_a_row_of_somebody_else_is_not_there(
    see: See, conn: psycopg.Connection[Any], table: str
) -> None:
    hidden = {row[0] for row in see(None, f"select id from public.{table}")} - {
        row[0] for row in see("carol", f"select id from public.{table}")
    }
    assert hidden
    for id_ in hidden:
        assert see("carol", f"select 1 from public.{table} where id = %s", id_) == []


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("verb", ["select", "insert", "update", "delete"])
def test_anon_may_do_nothing(do: Do, table: str, verb: str) -> None:
    sql = {
        "select": f"select 1 from public.{table}",
        "insert": f"insert into public.{table} (id) values (gen_random_uuid())",
        "update": f"update public.{table} set id = id",
        "delete": f"delete from public.{table}",
    }[verb]
    assert do(None, sql, role="anon") == DENIED


def test_a_session_without_a_user_reads_nothing(see: See, conn: psycopg.Connection[Any]) -> None:
    become(conn, None)
    for table in TABLES:
        assert conn.execute(f"select count(*) from public.{table}").fetchone() == (0,)
    unbecome(conn)


@pytest.mark.parametrize("table", [name for name, column in TABLES.items() if column])
def test_a_soft_deleted_row_stays_readable(
    see: See, conn: psycopg.Connection[Any], table: str
) -> None:
    before = see("alice", f"select count(*) from public.{table}")
    conn.execute(f"update public.{table} set deleted = now()")
    assert see("alice", f"select count(*) from public.{table}") == before


def test_credentials_are_out_of_reach(do: Do) -> None:
    for role in ("anon", "authenticated", "service_role"):
        assert do("alice", "select * from demo_auth.users", role=role) == DENIED


def test_helpers_are_out_of_reach(do: Do) -> None:
    for call in (
        "my_workspace_ids()",
        "owned_workspace_ids()",
        "my_board_ids()",
        "my_notebook_ids()",
        "my_people_ids()",
        "demo_people()",
    ):
        assert do("alice", f"select app_private.{call}") == DENIED


# Workspaces and their members


@pytest.mark.parametrize(("user", "result"), [("alice", 1), ("bob", 0), ("carol", 0)])
@pytest.mark.parametrize(
    "change",
    [
        "name = 'Other'",
        "deleted = now()",
        "member_ids = '[]'",
        f"""member_ids = '["{CAROL}"]'""",
    ],
)
def test_only_the_owner_changes_a_workspace(do: Do, user: str, result: int, change: str) -> None:
    assert do(user, f"update public.workspaces set {change} where id = %s", DEMO) == result


def test_the_owner_of_a_new_workspace_is_its_maker(do: Do, see: See) -> None:
    new = "insert into public.workspaces (id, name, member_ids) values (%s, 'New', %s)"
    assert do("carol", new, NOWHERE, json.dumps([BOB])) == 1
    assert see("bob", "select owner_id::text from public.workspaces where id = %s", NOWHERE) == [
        (CAROL,)
    ]
    members = "select user_id::text, role from public.workspace_members where workspace_id = %s"
    assert set(see("bob", members, NOWHERE)) == {(CAROL, "owner"), (BOB, "member")}
    assert see("alice", members, NOWHERE) == []


def test_a_maker_sees_his_row_while_it_is_inserted(do: Do) -> None:
    workspace = "insert into public.workspaces (id, name) values (%s, 'New')"
    assert do("carol", workspace + " on conflict (id) do nothing", NOWHERE) == 1
    assert do("bob", workspace + " on conflict (id) do nothing", NOWHERE) in (0, DENIED)
    notebook = "insert into public.notebooks (id, name) values (%s, 'New') returning name"
    assert do("carol", notebook, NOWHERE) == 1


@pytest.mark.parametrize("owner", [ALICE, CAROL])
def test_nobody_names_the_owner(do: Do, owner: str) -> None:
    new = "insert into public.workspaces (name, owner_id) values ('New', %s)"
    assert do("carol", new, owner) == DENIED
    assert do("alice", "update public.workspaces set owner_id = %s", owner) == DENIED


def test_sharing_lets_in_and_ending_it_shuts_out(do: Do, see: See) -> None:
    share = "update public.workspaces set member_ids = %s where id = %s"
    count = "select count(*) from public.tasks"
    assert do("alice", share, json.dumps([BOB, CAROL]), DEMO) == 1
    assert see("carol", count) == [(14,)]
    assert do("alice", share, json.dumps([CAROL, CAROL]), DEMO) == 1
    assert see("carol", count) == [(14,)]
    assert see("bob", count) == [(0,)]
    assert do("alice", share, "[]", DEMO) == 1
    assert see("carol", count) == [(2,)]
    assert see("alice", count) == [(12,)]


def test_a_member_leaves_and_the_list_forgets_him(do: Do, see: See) -> None:
    leave = "delete from public.workspace_members where user_id = %s"
    assert do("bob", leave, BOB) == 1
    assert see("bob", "select count(*) from public.workspaces") == [(0,)]
    assert see("alice", "select member_ids from public.workspaces where id = %s", DEMO) == [([],)]
    assert see(None, "select count(*) from public.workspace_members") == [(2,)]


def test_the_owner_sends_a_member_away_but_stays_himself(do: Do, see: See) -> None:
    away = "delete from public.workspace_members where workspace_id = %s and user_id = %s"
    assert do("bob", away, DEMO, ALICE) == 0
    assert do("alice", away, DEMO, ALICE) == 0
    assert do("carol", away, DEMO, BOB) == 0
    assert do("alice", away, DEMO, BOB) == 1
    assert see("alice", "select member_ids from public.workspaces where id = %s", DEMO) == [([],)]


def test_a_member_sends_no_other_member_away(do: Do) -> None:
    share = "update public.workspaces set member_ids = %s where id = %s"
    assert do("alice", share, json.dumps([BOB, CAROL]), DEMO) == 1
    away = "delete from public.workspace_members where workspace_id = %s and user_id = %s"
    assert do("bob", away, DEMO, CAROL) == 0
    assert do("carol", away, DEMO, BOB) == 0


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    ("table", "column", "parent"),
    [("workspace_members", "workspace_id", DEMO), ("notebook_members", "notebook_id", SHARED)],
)
def test_nobody_writes_a_membership_row(
    do: Do, user: str, table: str, column: str, parent: str
) -> None:
    new = f"insert into public.{table} ({column}, user_id, role) values (%s, %s, 'member')"
    assert do(user, new, parent, CAROL) == DENIED
    assert do(user, f"update public.{table} set role = 'owner'") == DENIED
    assert do(user, f"update public.{table} set user_id = %s", CAROL) == DENIED


def test_a_new_owner_by_a_trusted_backend_takes_the_membership_with_him(do: Do, see: See) -> None:
    give = "update public.workspaces set owner_id = %s where id = %s"
    assert do(None, give, BOB, DEMO, role="service_role") == 1
    members = "select user_id::text, role from public.workspace_members where workspace_id = %s"
    assert see("bob", members, DEMO) == [(BOB, "owner")]
    assert see("alice", "select 1 from public.workspaces") == []


@pytest.mark.parametrize("table_column", ["workspaces.member_ids", "notebooks.shared_with"])
@pytest.mark.parametrize(
    "value", ["{}", '"x"', "null", "[1]", "[null]", '["x"]', f'[["{BOB}"]]', f'["{BOB.upper()}"]']
)
def test_a_list_of_members_holds_user_ids_only(do: Do, table_column: str, value: str) -> None:
    table, column = table_column.split(".")
    assert do("alice", f"update public.{table} set {column} = %s", value) == "23514"


def test_deleting_a_workspace_takes_everything_on_it(
    see: See, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("delete from public.workspaces where id = %s", (DEMO,))
    assert see(None, "select count(*) from public.workspace_members") == [(1,)]
    assert see(None, "select count(*) from public.comments") == [(1,)]


# Boards and tasks

PLACES = {
    "boards": ("workspace_id", DEMO, CAROLS, "name", LAUNCH, GARDEN),
    "tasks": ("board_id", IDEAS, GARDEN, "title", ANNOUNCE, TOMATOES),
    "notes": (
        "notebook_id",
        SHARED,
        "00000000-0000-7000-8000-0000000e0004",
        "title",
        DRAFT,
        "00000000-0000-7000-8000-0000000f0005",
    ),
}


@pytest.mark.parametrize(
    ("user", "in_demo", "in_carols"),
    [
        ("alice", 1, DENIED),
        ("bob", 1, DENIED),
        ("carol", DENIED, 1),
        (NOWHERE, DENIED, DENIED),
    ],
)
@pytest.mark.parametrize("table", PLACES)
def test_members_create_under_their_parents_only(
    do: Do, table: str, user: str, in_demo: int | str, in_carols: int | str
) -> None:
    column, demo, carols, text, _, _ = PLACES[table]
    new = f"insert into public.{table} ({column}, {text}) values (%s, 'New')"
    assert do(user, new, demo) == in_demo
    assert do(user, new, carols) == in_carols
    assert do(user, new, NOWHERE) == DENIED


@pytest.mark.parametrize(
    ("user", "in_demo", "in_carols"),
    [
        ("alice", 1, 0),
        ("bob", 1, 0),
        ("carol", 0, 1),
        (NOWHERE, 0, 0),
    ],
)
@pytest.mark.parametrize("table", PLACES)
def test_any_member_edits(
    do: Do, see: See, table: str, user: str, in_demo: int, in_carols: int
) -> None:
    _, _, _, text, demo, carols = PLACES[table]
    change = f"update public.{table} set {text} = 'Changed', deleted = now() where id = %s"
    assert do(user, change, demo) == in_demo
    assert do(user, change, carols) == in_carols
    changed = see(None, f"select count(*) from public.{table} where {text} = 'Changed'")
    assert changed == [(in_demo + in_carols,)]


@pytest.mark.parametrize("table", PLACES)
def test_nobody_moves_a_record_into_a_foreign_parent(do: Do, table: str) -> None:
    column, demo, carols, _, own, foreign = PLACES[table]
    move = f"update public.{table} set {column} = %s where id = %s"
    assert do("alice", move, carols, own) == DENIED
    assert do("bob", move, carols, own) == DENIED
    assert do("carol", move, demo, foreign) == DENIED
    # taking a record one cannot read is zero rows: it is not there
    assert do("carol", move, carols, own) == 0
    assert do("alice", move, NOWHERE, own) == DENIED


def test_a_record_moves_between_own_parents(do: Do, see: See) -> None:
    assert do("bob", "update public.tasks set board_id = %s where id = %s", IDEAS, ANNOUNCE) == 1
    assert do("alice", "update public.notes set notebook_id = %s where id = %s", DIARY, DRAFT) == 1
    assert see("bob", "select 1 from public.notes where id = %s", DRAFT) == []
    # bob may not put it where only alice writes
    assert do("bob", "update public.notes set notebook_id = %s", DIARY) == DENIED


@pytest.mark.parametrize("table", ["boards", "tasks", "notes"])
def test_who_created_a_record_never_changes(do: Do, table: str) -> None:
    column, demo, _, text, own, _ = PLACES[table]
    assert do("bob", f"update public.{table} set created_by = %s where id = %s", BOB, own) == DENIED
    new = f"insert into public.{table} ({column}, {text}, created_by) values (%s, 'New', %s)"
    assert do("bob", new, demo, ALICE) == DENIED
    assert do("bob", new, demo, BOB) == DENIED


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ["authenticated", "service_role"])
@pytest.mark.parametrize("column", ["version", "created_at", "id"])
def test_columns_of_the_server_are_not_granted(do: Do, table: str, role: str, column: str) -> None:
    assert do("alice", f"update public.{table} set {column} = default", role=role) == DENIED
    if column != "id":
        new = f"insert into public.{table} (id, {column}) values (%s, default)"
        assert do("alice", new, NOWHERE, role=role) == DENIED


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("table", [name for name, column in TABLES.items() if column])
def test_nobody_deletes_for_good(do: Do, user: str, table: str) -> None:
    assert do(user, f"delete from public.{table}") == DENIED


@pytest.mark.parametrize("table", TABLES)
def test_a_trusted_backend_sees_everything(do: Do, see: See, table: str) -> None:
    everything = see(None, f"select count(*) from public.{table}")[0][0]
    assert do(None, f"select 1 from public.{table}", role="service_role") == everything


def test_a_trusted_backend_writes_for_somebody(do: Do) -> None:
    new = "insert into public.tasks (board_id, title, created_by) values (%s, 'Imported', %s)"
    assert do(None, new, GARDEN, CAROL, role="service_role") == 1
    assert (
        do(None, "delete from public.tasks where board_id = %s", GARDEN, role="service_role") == 3
    )


# Comments


def test_whoever_reads_the_task_comments_in_his_own_name(do: Do, see: See) -> None:
    say = "insert into public.comments (id, task_id, content) values (gen_random_uuid(), %s, 'Hm')"
    assert do("bob", say, ANNOUNCE) == 1
    assert do("carol", say, ANNOUNCE) == DENIED
    assert do("bob", say, TOMATOES) == DENIED
    assert do("bob", say, NOWHERE) == DENIED
    by_bob = "select count(*) from public.comments where content = 'Hm' and author_id = %s"
    assert see("alice", by_bob, BOB) == [(1,)]


@pytest.mark.parametrize("author", [ALICE, BOB])
def test_nobody_names_the_author(do: Do, author: str) -> None:
    say = "insert into public.comments (task_id, content, author_id) values (%s, 'Hm', %s)"
    assert do("bob", say, ANNOUNCE, author) == DENIED
    assert do("bob", "update public.comments set author_id = %s", author) == DENIED


@pytest.mark.parametrize(
    ("user", "comment", "result"),
    [
        ("alice", ALICE_SAID, 1),
        ("alice", BOB_SAID, 0),
        ("bob", BOB_SAID, 1),
        ("bob", ALICE_SAID, 0),
        ("carol", BOB_SAID, 0),
        ("carol", CAROL_SAID, 1),
    ],
)
@pytest.mark.parametrize("change", ["content = 'Other'", "deleted = now()"])
def test_only_the_author_edits_a_comment(
    do: Do, user: str, comment: str, result: int, change: str
) -> None:
    assert do(user, f"update public.comments set {change} where id = %s", comment) == result


def test_a_comment_moves_only_to_a_task_its_author_reads(do: Do) -> None:
    move = "update public.comments set task_id = %s where id = %s"
    assert do("bob", move, TOMATOES, BOB_SAID) == DENIED
    assert do("bob", move, "00000000-0000-7000-8000-0000000c0002", BOB_SAID) == 1


def test_whoever_left_edits_his_comments_no_more(do: Do) -> None:
    assert do("bob", "delete from public.workspace_members where user_id = %s", BOB) == 1
    assert do("bob", "update public.comments set content = 'x' where id = %s", BOB_SAID) == 0


# Notebooks


@pytest.mark.parametrize(("user", "result"), [("alice", 1), ("bob", 0), ("carol", 0)])
@pytest.mark.parametrize("change", ["name = 'x'", "deleted = now()", "shared_with = '[]'"])
def test_only_the_owner_changes_a_notebook(do: Do, user: str, result: int, change: str) -> None:
    assert do(user, f"update public.notebooks set {change} where id = %s", SHARED) == result


def test_a_notebook_not_shared_is_its_owners_alone(do: Do, see: See) -> None:
    assert see("bob", "select 1 from public.notes where id = %s", MONDAY) == []
    assert do("bob", "update public.notes set title = 'x' where id = %s", MONDAY) == 0
    new = "insert into public.notes (notebook_id, title) values (%s, 'x')"
    assert do("bob", new, DIARY) == DENIED
    assert do("alice", new, RECIPES) == DENIED


def test_sharing_a_notebook_and_leaving_it(do: Do, see: See) -> None:
    share = "update public.notebooks set shared_with = %s where id = %s"
    assert do("alice", share, json.dumps([CAROL]), DIARY) == 1
    assert do("carol", "update public.notes set title = 'Read' where id = %s", MONDAY) == 1
    leave = "delete from public.notebook_members where notebook_id = %s and user_id = %s"
    assert do("carol", leave, DIARY, ALICE) == 0
    assert do("carol", leave, DIARY, CAROL) == 1
    assert see("carol", "select 1 from public.notes where id = %s", MONDAY) == []
    assert see("alice", "select shared_with from public.notebooks where id = %s", DIARY) == [([],)]


# Profiles


def names(see: See, user: str) -> list[str]:
    return [row[0] for row in see(user, "select name from public.profiles order by name")]


@pytest.mark.parametrize(
    ("table", "column", "id_"),
    [("workspaces", "member_ids", DEMO), ("notebooks", "shared_with", DIARY)],
)
def test_those_who_share_something_know_each_others_names(
    do: Do, see: See, table: str, column: str, id_: str
) -> None:
    assert do("alice", "update public.notebooks set shared_with = '[]'") == 2
    share = f"update public.{table} set {column} = %s where id = %s"
    assert do("alice", share, json.dumps([CAROL]), id_) == 1
    assert "Carol" in names(see, "alice")
    assert names(see, "carol") == ["Alice", "Carol"]
    # two members of the same workspace, neither of them its owner
    assert do("alice", share, json.dumps([CAROL, BOB]), id_) == 1
    assert names(see, "carol") == ["Alice", "Bob", "Carol"]
    assert do("alice", share, "[]", id_) == 1
    assert names(see, "carol") == ["Carol"]
    assert "Carol" not in names(see, "alice")


def test_somebody_who_left_is_a_stranger_again(do: Do, see: See) -> None:
    assert do("bob", "delete from public.workspace_members where user_id = %s", BOB) == 1
    assert names(see, "bob") == ["Alice", "Bob"]
    assert do("bob", "delete from public.notebook_members where user_id = %s", BOB) == 1
    assert names(see, "bob") == ["Bob"]
    assert names(see, "alice") == ["Alice"]


@pytest.mark.parametrize(("user", "result"), [("alice", 0), ("bob", 1), ("carol", 0)])
def test_only_he_himself_changes_his_name(do: Do, user: str, result: int) -> None:
    change = "update public.profiles set name = 'Robert', colour = '#000000' where id = %s"
    assert do(user, change, BOB) == result


def test_a_profile_is_made_by_its_user_alone(do: Do, see: See) -> None:
    new = "insert into public.profiles (id, name) values (%s, 'New')"
    assert do(NOWHERE, new, NOWHERE) == 1
    assert do("alice", new, "00000000-0000-7000-8000-00000000beef") == DENIED
    assert see(NOWHERE, "select name from public.profiles") == [("New",)]


@pytest.mark.parametrize("user", USERS)
def test_nobody_removes_a_profile(do: Do, user: str) -> None:
    assert do(user, "delete from public.profiles where id = %s", USERS[user]) == DENIED


@pytest.mark.parametrize(
    "change", ["name = ''", "name = repeat('x', 81)", "colour = 'red'", "colour = '#FFFFFF'"]
)
def test_a_profile_has_a_name_and_a_colour(do: Do, change: str) -> None:
    assert do("bob", f"update public.profiles set {change} where id = %s", BOB) == "23514"


def test_an_answer_about_a_profile_can_be_kept(see: See) -> None:
    """And rests on lists that tell everybody, not on rows that are said to concern one user."""
    ((cacheable, columns, reads),) = see(
        None,
        "select cacheable, columns, reads "
        "from sync.policy_reads('public.profiles', 'authenticated')",
    )
    assert cacheable
    assert columns == ["id"]
    assert set(reads["workspaces"]) == {"id", "owner_id", "member_ids"}
    assert set(reads["notebooks"]) == {"id", "owner_id", "shared_with"}


def test_a_person_is_found_by_the_whole_name_only(do: Do, see: See) -> None:
    find = "select public.find_person(%s)"
    assert see("alice", find, "carol") == [({"id": CAROL, "name": "Carol"},)]
    for name in ("Carol", "caro", "carol ", "%", "", None, "nobody"):
        assert see("alice", find, name) == [(None,)]
    assert do(None, find, "carol", role="anon") == DENIED


# The function for `call`


def test_completing_a_board_acts_with_the_rights_of_the_caller(do: Do, see: See) -> None:
    done = "select count(*) from public.tasks where status = 'done' and board_id = %s"
    assert see("bob", "select public.complete_board(%s)", LAUNCH) == [(6,)]
    assert see(None, done, LAUNCH) == [(8,)]
    assert do("carol", "select public.complete_board(%s)", IDEAS) == "PT403"
    assert do("carol", "select public.complete_board(%s)", NOWHERE) == "PT403"
    assert see(None, done, IDEAS) == [(0,)]
    assert do(None, "select public.complete_board(%s)", IDEAS, role="anon") == DENIED


# What the policies themselves promise


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_a_policy_for_every_command(see: See, table: str) -> None:
    found = see(
        None,
        """
        select p.cmd from pg_policies as p
        where p.schemaname = 'public' and p.tablename = %s and p.roles = '{authenticated}'
        """,
        table,
    )
    assert sorted(row[0] for row in found) == ["DELETE", "INSERT", "SELECT", "UPDATE"]
    assert see(
        None, "select relrowsecurity from pg_class where oid = %s::regclass", f"public.{table}"
    ) == [(True,)]


def test_no_policy_names_public_or_anon(see: See) -> None:
    assert (
        see(
            None,
            "select policyname from pg_policies "
            "where schemaname = 'public' and roles && '{public,anon}'::name[]",
        )
        == []
    )


def test_no_select_policy_reads_the_soft_delete_column(see: See) -> None:
    assert (
        see(
            None,
            """
        select pol.polname from pg_policy as pol
        join pg_depend as d on d.classid = 'pg_policy'::regclass and d.objid = pol.oid
        join pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where d.refclassid = 'pg_class'::regclass and a.attname = 'deleted'
            -- By which what was deleted long ago is purged; nobody reads by it.
            and pol.polroles <> array['rowcast_owner'::regrole::oid]
        """,
        )
        == []
    )


def test_a_list_of_tasks_is_an_index_scan(conn: psycopg.Connection[Any]) -> None:
    """The policy of a list becomes an index condition, not a filter over the whole table."""
    become(conn, "alice")
    conn.execute("set local enable_seqscan = off")
    plan = "\n".join(
        row[0] for row in conn.execute("explain (costs off) select * from public.tasks").fetchall()
    )
    unbecome(conn)
    assert "Index Cond: (board_id = ANY" in plan, plan
