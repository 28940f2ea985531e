"""What a subscription that is resumed hears of the time between."""

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import ALICE, BOB, LAUNCH, TASK_1, Gate

pytestmark = pytest.mark.both_versions

KEY = "letters?room=x"
SCHEMA = """
    create table public.letters (
        id text primary key, room text, secret boolean default false, note text,
        version integer not null default 1
    );
    alter table public.letters enable row level security;
    create policy open_ones on public.letters using (not secret) with check (true);
    grant select, insert, update, delete on public.letters to authenticated;
    select sync.enable('public.letters', p_topics => '{room}');
    insert into public.letters (id, room) values ('a', 'x'), ('b', 'x'), ('c', 'y');
"""


@pytest.fixture
def letters(conn: psycopg.Connection) -> psycopg.Connection:
    """Letters that only those that are not secret may be read of."""
    conn.execute(SCHEMA.encode())
    return conn


@pytest.mark.parametrize("later", [0, 4, 5, 20])
def test_a_record_hidden_before_later_changes_makes_its_collection_stale(
    gate: Gate, letters: psycopg.Connection, later: int
) -> None:
    cursor = gate.cursor()
    letters.execute("update letters set secret = true where id = 'a'")
    for n in range(later):
        letters.execute("update letters set note = %s where id = 'a'", (str(n),))
    joined = gate.subscribe(ALICE, KEY, "letters?room=y", cursor=cursor)
    assert (joined["stale"], joined["updates"]) == ([KEY], [])


def test_a_record_changed_often_comes_once_as_it_is_now(
    gate: Gate, letters: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    for n in range(5):
        letters.execute("update letters set note = %s where id = 'a'", (str(n),))
    for n in range(6):
        letters.execute("update letters set note = %s where id = 'b'", (str(n),))
    joined = gate.subscribe(ALICE, KEY, cursor=cursor)
    updates = [(update["key"], update["version"]) for update in joined["updates"]]
    assert updates == [*(("letters:a", n) for n in range(2, 7)), ("letters:b", 7)]
    assert joined["updates"][-1]["record"]["note"] == "5"
    assert joined["stale"] == []


@pytest.mark.parametrize("far", [False, True])
def test_keys_hear_what_they_name_and_nothing_else(
    gate: Gate, letters: psycopg.Connection, far: bool
) -> None:
    letters.execute("create table public.parcels (like public.letters including all)")
    letters.execute("alter table public.parcels enable row level security")
    letters.execute("create policy everything on public.parcels using (true)")
    letters.execute("grant select on public.parcels to authenticated")
    letters.execute("select sync.enable('public.parcels', p_topics => '{room}')")
    if far:
        letters.execute(
            "create or replace function sync_internal.is_near(p_xmax xid8) returns boolean "
            "language sql stable as 'select false'"
        )
    cursor = gate.cursor()
    letters.execute("insert into parcels (id, room) values ('a', 'x'), ('p', 'y'), ('q', 'z')")
    letters.execute(
        "insert into letters (id, room) values ('d', 'x'), ('e', 'y'), ('parcels:p', 'y'),"
        " (E'f\nletters?room=x', 'y'), (E'g\nparcels?room=z', 'y')"
    )
    letters.execute("update letters set room = 'x' where id = 'c'")
    letters.execute("update letters set note = 'n' where id = 'b'")

    def heard(*keys: str) -> set[str]:
        return {update["key"] for update in gate.subscribe(ALICE, *keys, cursor=cursor)["updates"]}

    assert heard(KEY) == {"letters:b", "letters:c", "letters:d"}
    assert heard("parcels?room=z", "letters:e") == {"parcels:q", "letters:e"}
    assert heard("parcels:p") == {"parcels:p"}
    assert heard("parcels?room=none") == set()
    assert heard("parcels", "letters?room=none") == {"parcels:a", "parcels:p", "parcels:q"}
    assert len(heard("letters")) == 7


def test_the_class_of_a_large_collection_is_told_where_it_has_but_one(
    gate: Gate, letters: psycopg.Connection
) -> None:
    letters.execute(
        "create table public.pages ("
        "id text primary key, book integer, version integer not null default 1)"
    )
    letters.execute("alter table public.pages enable row level security")
    letters.execute("create policy some_books on public.pages using (book < 3)")
    letters.execute("grant select on public.pages to authenticated")
    letters.execute("select sync.enable('public.pages', p_topics => '{book}')")
    letters.execute("insert into pages select n::text, n / 5001 from generate_series(1, 15005) n")
    letters.execute("insert into letters select n::text, 'x' from generate_series(1, 5001) n")
    keys = ["pages?book=0", "pages?book=2", "pages?book=3", "pages", KEY]
    views = gate.subscribe(ALICE, *keys)["views"]
    assert [len(views[key]) for key in keys] == [1, 1, 0, 65, 65]
    assert views["pages?book=0"] != views["pages?book=2"]


def test_rights_changed_by_what_was_running_are_told(gate: Gate, db: Database) -> None:
    slow, other = db.connect(autocommit=False), db.connect()
    slow.execute("delete from workspace_members where user_id = %s", (BOB,))
    other.execute("update tasks set title = title || '.'")
    cursor = gate.cursor()
    slow.commit()
    assert gate.subscribe(BOB, "tasks", cursor=cursor)["stale"] == ["tasks"]


def test_changes_of_what_no_policy_reads_leave_the_keys_alone(
    gate: Gate, conn: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    conn.execute("update boards set name = name || '.'")
    assert gate.subscribe(ALICE, "tasks", cursor=cursor)["stale"] == []
    conn.execute("update boards set workspace_id = workspace_id, id = id, name = name || '.'")
    assert gate.subscribe(ALICE, "tasks", cursor=cursor)["stale"] == []
    conn.execute(
        "insert into boards (workspace_id, name, created_by) "
        "select workspace_id, 'new', created_by from boards limit 1"
    )
    assert gate.subscribe(ALICE, "tasks", cursor=cursor)["stale"] == ["tasks"]


@pytest.mark.parametrize(
    "keys", [["comments", "tasks"], [f"comments?taskId={TASK_1}", f"tasks?boardId={LAUNCH}"]]
)
def test_too_much_of_one_table_hides_nothing_of_another(
    gate: Gate, conn: psycopg.Connection, keys: list[str]
) -> None:
    """Also where the one fills all that is read by itself."""
    cursor = gate.cursor()
    conn.execute(
        "insert into sync_internal.changes (slot, table_name, record_id, version, kind, topics) "
        "select sync_internal.feed_slot(), 'comments', gen_random_uuid(), 2, 'update', %s "
        "from generate_series(1, 12000)",
        ([f"taskId={TASK_1}"],),
    )
    conn.execute("update public.tasks set title = 'mine' where id = %s", (TASK_1,))
    assert sorted(gate.subscribe(ALICE, *keys, cursor=cursor)["stale"]) == keys


def test_a_record_deleted_alone_makes_its_collection_stale(
    gate: Gate, letters: psycopg.Connection
) -> None:
    cursor = gate.cursor()
    letters.execute("delete from letters where id = 'a'")
    joined = gate.subscribe(ALICE, KEY, "letters:b", cursor=cursor)
    assert (joined["stale"], joined["updates"]) == ([KEY], [])


def test_records_beyond_what_is_read_at_once_are_named_alone(
    gate: Gate, letters: psycopg.Connection
) -> None:
    letters.execute("update letters set note = repeat('x', 1000)")
    letters.execute("select sync.configure('max_changes_read_bytes', 1500)")
    cursor = gate.cursor()
    letters.execute("update letters set secret = true")
    letters.execute("update letters set secret = false")
    updates = gate.subscribe(ALICE, KEY, cursor=cursor)["updates"]
    found = {update["key"]: ("record" in update, update["version"]) for update in updates}
    assert found == {"letters:a": (True, 4), "letters:b": (False, 4)}


def test_a_version_that_policies_read_of_another_table_is_told(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute("""
        create table public.rooms (
            id text primary key, note text, version integer not null default 1
        );
        create table public.letters (
            id text primary key, room text, version integer not null default 1
        );
        alter table public.rooms enable row level security;
        alter table public.letters enable row level security;
        create policy everybody on public.rooms using (true);
        create policy untouched on public.letters using (exists (
            select from public.rooms r where r.id = letters.room and r.version < 2
        ));
        grant select on public.rooms, public.letters to authenticated;
        select sync.enable('public.rooms'), sync.enable('public.letters');
        insert into public.rooms values ('x'), ('y');
        insert into public.letters values ('a', 'x'), ('b', 'y');
    """)
    cursor = gate.cursor()
    conn.execute("update rooms set note = 'touched' where id = 'x'")
    assert gate.subscribe(ALICE, "letters", cursor=cursor)["stale"] == ["letters"]


def looked_at(gate: Gate) -> None:
    """A gateway has looked at the policies."""
    fingerprint = gate.changes(None)["fingerprint"]
    gate.conn.execute("select sync.gateway_note_policies(%s)", (fingerprint,))


def test_a_changed_policy_is_told_also_where_it_reads_no_other_table(
    gate: Gate, letters: psycopg.Connection
) -> None:
    letters.execute("insert into letters (id, room, secret) values ('d', 'y', true)")
    looked_at(gate)
    cursor = gate.cursor()
    letters.execute("alter policy open_ones on letters using (true)")
    looked_at(gate)
    joined = gate.subscribe(ALICE, KEY, "letters?room=y", cursor=cursor)
    assert sorted(joined["stale"]) == [KEY, "letters?room=y"]


@pytest.mark.parametrize("change", ["drop column note", "rename note to remark"])
def test_a_column_that_was_hidden_is_not_replayed_after_it_has_gone(
    gate: Gate, letters: psycopg.Connection, change: str
) -> None:
    letters.execute("revoke select on letters from authenticated")
    letters.execute("grant select (id, room, secret, version) on letters to authenticated")
    letters.execute("select sync.refresh('letters')")
    looked_at(gate)
    cursor = gate.cursor()
    letters.execute("update letters set note = 'hidden' where id = 'a'")
    letters.execute(f"alter table letters {change}".encode())
    letters.execute("select sync.refresh('letters')")
    looked_at(gate)
    joined = gate.subscribe(ALICE, KEY, cursor=cursor)
    assert "hidden" not in str(joined)
    assert [update["version"] for update in joined["updates"]] == [2]
