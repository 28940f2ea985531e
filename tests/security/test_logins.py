"""People with a database login of their own, and what the
gateway's login can do if it is taken over.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.postgres import Database
from tests.sql.engine import (
    ALICE,
    CAROL,
    GARDEN,
    LAUNCH,
    TASK_1,
    TOMATOES,
    Gate,
    claims_of,
    create,
    new_id,
    title,
    tx,
    value,
)

pytestmark = pytest.mark.both_versions

Login = psycopg.Connection[Any]


def login(db: Database, name: str) -> Iterator[Login]:
    """A login that is a member of authenticated and owns a schema, for the time of a test."""
    conn = db.connect()
    conn.execute(f"create role {name} login in role authenticated".encode())
    try:
        conn.execute(f"create schema {name} authorization {name}".encode())
        own = db.connect(name)
        yield own
        own.close()
    finally:
        conn.execute(f"drop owned by {name}; drop role {name}".encode())


@pytest.fixture
def mapped(db: Database) -> Iterator[Login]:
    """Carol's own database login."""
    db.connect().execute("select sync.map_login('carols_login', %s)", (CAROL,))
    yield from login(db, "carols_login")


@pytest.fixture
def unmapped(db: Database) -> Iterator[Login]:
    """A login nobody has said anything of."""
    yield from login(db, "strangers_login")


@pytest.fixture
def quiet_mapped(quiet_db: Database) -> Iterator[Login]:
    """Carol's own database login, in a transaction that is rolled back."""
    quiet_db.connect().execute("select sync.map_login('carols_login', %s)", (CAROL,))
    for conn in login(quiet_db, "carols_login"):
        conn.autocommit = False
        yield conn
        conn.rollback()


@pytest.fixture
def quiet_unmapped(quiet_db: Database) -> Iterator[Login]:
    """A login nobody has said anything of, in a transaction that is rolled back."""
    for conn in login(quiet_db, "strangers_login"):
        conn.autocommit = False
        yield conn
        conn.rollback()


def sees(conn: Login) -> set[str]:
    """The ids of all tasks and workspaces the connection can read."""
    query = "select id::text from public.tasks union all select id::text from public.workspaces"
    return {row[0] for row in conn.execute(query).fetchall()}


CAROLS_OWN = {
    TOMATOES,
    "00000000-0000-7000-8000-0000000c0014",
    "00000000-0000-7000-8000-0000000a0002",
}

SPOOFS = [
    "select set_config('request.jwt.claims', '{claims}', false)",
    "set request.jwt.claims = '{claims}'",
    "select set_config('request.jwt.claim.sub', '{alice}', false), set_config('app.user_id', "
    "'{alice}', false)",
    "select sync.act_as('{alice}')",
    "select sync_internal.assume('authenticated', '{claims}')",
    "set session characteristics as transaction read write; set role authenticated; set "
    "request.jwt.claims = '{claims}'",
]


@pytest.mark.parametrize("spoof", SPOOFS)
def test_claims_a_login_sets_itself_change_nothing(
    quiet_mapped: Login, quiet_unmapped: Login, spoof: str
) -> None:
    claims = claims_of(ALICE)
    assert claims
    for conn, expected, user in ((quiet_mapped, CAROLS_OWN, CAROL), (quiet_unmapped, set(), None)):
        conn.execute(spoof.replace("{claims}", claims).replace("{alice}", ALICE).encode())
        assert sees(conn) == expected
        assert str(value(conn, "select auth.uid()")) == str(user)
        assert value(conn, "select auth.jwt() ->> 'sub'") == user
        assert (
            conn.execute("update public.tasks set title = 'x' where id = %s", (TASK_1,)).rowcount
            == 0
        )
        conn.rollback()
        conn.execute(spoof.replace("{claims}", claims).replace("{alice}", ALICE).encode())
        answer = value(conn, "select sync.write(%s)", Jsonb(tx(title(TASK_1, "x"))))
        assert answer["results"][0]["error"]["code"] == "forbidden"
        records = value(conn, 'select sync.query(\'{"table": "tasks"}\')')
        assert set(records["ids"]) == expected - {"00000000-0000-7000-8000-0000000a0002"}
        conn.rollback()


SHADOWS = [
    # An operator or function of its own, found before the built-in one.
    "create function {me}.f(jsonb, text) returns text language sql immutable as $$ select "
    "'{alice}' $$;"
    "create operator {me}.->> (leftarg = jsonb, rightarg = text, function = {me}.f)",
    "create function {me}.f(name, text) returns boolean language sql immutable as $$ select true "
    "$$;"
    "create operator {me}.= (leftarg = name, rightarg = text, function = {me}.f)",
    "create function {me}.f(name, name) returns boolean language sql immutable as $$ select true "
    "$$;"
    "create operator {me}.= (leftarg = name, rightarg = name, function = {me}.f)",
    "create function {me}.f(text, text) returns boolean language sql immutable as $$ select true "
    "$$;"
    "create operator {me}.~* (leftarg = text, rightarg = text, function = {me}.f);"
    "create operator {me}.= (leftarg = text, rightarg = text, function = {me}.f)",
    "create function {me}.current_setting(text, boolean) returns text language sql immutable as "
    "$$ select '{claims}' $$",
    "create function {me}.nullif(text, text) returns text language sql immutable as $$ select "
    "'{claims}' $$;"
    "create function {me}.jsonb_build_object(text, text) returns jsonb language sql immutable as "
    "$$ select '{claims}'::jsonb $$",
    "create domain {me}.uuid as pg_catalog.uuid default '{alice}'",
    "create function {me}.uid() returns uuid language sql immutable as $$ select '{alice}'::uuid "
    "$$",
    "create temp table logins (login name, user_id text, role text);"
    "insert into logins values (session_user, '{alice}', 'authenticated');"
    "create temp table tables as select 1 as x",
]


@pytest.mark.parametrize("shadow", SHADOWS)
@pytest.mark.parametrize(
    "path",
    [
        "{me}, pg_catalog",
        "pg_temp, {me}, pg_catalog, public",
        "{me}, auth, sync, sync_internal, pg_catalog",
    ],
)
def test_search_path_of_a_login_changes_nothing(
    quiet_mapped: Login, shadow: str, path: str
) -> None:
    mapped = quiet_mapped
    claims = claims_of(ALICE)
    assert claims
    me = "carols_login"
    spoof = "select set_config('request.jwt.claims', '{claims}', false)"
    for text in (spoof, shadow, f"set search_path = {path}"):
        statement = text.replace("{me}", me).replace("{alice}", ALICE).replace("{claims}", claims)
        mapped.execute(statement.encode())
    assert str(value(mapped, "select auth.uid()")) == CAROL
    assert sees(mapped) == CAROLS_OWN
    count = mapped.execute(
        "update public.workspaces set name = 'mine' where id::text operator(pg_catalog.<>) "
        "'00000000-0000-7000-8000-0000000a0002'"
    ).rowcount
    assert count == 0
    made = value(
        mapped,
        "insert into public.comments (task_id, content) values "
        "('00000000-0000-7000-8000-0000000c0013', 'x') returning author_id",
    )
    assert str(made) == CAROL


def test_mapped_login_is_its_user_in_every_way(mapped: Login, gate: Gate) -> None:
    request = tx(title(TOMATOES, "hers"))
    answer = value(mapped, "select sync.write(%s)", Jsonb(request))
    assert answer["results"][0]["status"] == "applied"
    assert gate.send(CAROL, request).body["status"] == "duplicate"
    assert gate.send(ALICE, request).code == "tx_mismatch"
    made = create("tasks", new_id(), boardId=GARDEN, title="by login")
    applied = value(mapped, "select sync.apply(%s)", Jsonb([made]))
    assert applied[0]["version"] == 1
    record = gate.get_records(CAROL, ("tasks", made["id"]))["recordMap"]["tasks"][made["id"]]
    assert record["createdBy"] == CAROL


def test_apply_raises_what_write_reports(mapped: Login) -> None:
    with pytest.raises(psycopg.Error) as refused:
        mapped.execute("select sync.apply(%s)", (Jsonb([title(TASK_1, "x")]),))
    assert refused.value.sqlstate == "PT403"
    assert '"forbidden"' in (refused.value.diag.message_detail or "")


def test_members_of_authenticated_reach_nothing_inside(mapped: Login, unmapped: Login) -> None:
    for conn in (mapped, unmapped):
        for table in (
            "changes", "receipts", "tables", "columns", "logins", "trusted_logins", "state",
            "settings",
            "callables", "identity_settings", "migrations", "changes_0",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select * from sync_internal.{table}".encode())
        for call in (
            "sync.gateway_write('{}', '{}')",
            "sync.gateway_changes(null)",
            "sync.gateway_query(null, '{}')",
            "sync.gateway_subscribe(null, '{}', null)",
            "sync.gateway_visible(null, '{}')",
            "sync_internal.read_changes('0', '{}', 10)",
            "sync_internal.missed(null, '{}', 'authenticated', null, '{}')",
            "sync.trust('strangers_login')",
            "sync.map_login('strangers_login', 'x')",
            "sync.map_identity('a.b', 'sub')",
            "sync.configure('max_path', 1)",
            "sync.new_epoch()",
            "sync.prune()",
            "sync.enable('public.tasks')",
            "sync.disable('public.tasks')",
            "sync.refresh()",
            "sync.expose('public.complete_board(uuid)')",
            "sync_internal.after_migrate('x')",
            "sync_internal.install_identity()",
            "setval('sync_internal.change_seq', 1)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(f"select {call}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("set role service_role")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("truncate public.tasks")


def test_time_can_be_faked_by_a_superuser_alone(
    mapped: Login, gate: Gate, conn: psycopg.Connection
) -> None:
    for session in (mapped, gate.conn, conn):
        session.execute("set rowcast.now = '2001-02-03T00:00:00Z'")
    assert value(mapped, "select extract(year from sync.now())::int > 2020")
    assert value(gate.conn, "select extract(year from sync.now())::int > 2020")
    assert value(conn, "select extract(year from sync.now())::int") == 2001
    mapped.execute("update public.tasks set title = 'x' where id = %s", (TOMATOES,))
    assert value(
        conn, "select extract(year from updated_at)::int > 2020 from tasks where id = %s", TOMATOES
    )


def test_mapped_login_without_identity_says_what_is_missing(db: Database) -> None:
    worker = db.connect("rowcast_worker")
    with pytest.raises(psycopg.Error) as refused:
        worker.execute('select sync.query(\'{"table": "tasks"}\')')
    assert refused.value.sqlstate in ("PT403", "42501")


# Trusted logins


@pytest.mark.parametrize(("name", "kind"), [("backend", "noinherit"), ("My-Backend", "inherit")])
def test_trusted_login_is_believed_and_others_are_not(
    db: Database, conn: psycopg.Connection, name: str, kind: str
) -> None:
    conn.execute(f'create role "{name}" login {kind} in role authenticated'.encode())
    try:
        backend = db.connect(name, autocommit=False)
        backend.execute("set local role authenticated")
        backend.execute("select sync.act_as(%s)", (ALICE,))
        assert value(backend, "select auth.uid()") is None
        backend.rollback()
        conn.execute(f"select sync.trust('\"{name}\"')".encode())
        backend.execute("select sync.act_as(%s)", (ALICE,))
        assert str(value(backend, "select auth.uid()")) == ALICE
        assert TASK_1 in sees(backend)
        backend.commit()
        backend.execute("set local role authenticated")
        assert value(backend, "select auth.uid()") is None
        backend.rollback()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            backend.execute("select sync.act_as(%s, 'service_role')", (ALICE,))
        backend.close()
    finally:
        conn.execute(f'drop owned by "{name}"; drop role "{name}"'.encode())


# The gateway's login


def test_gateway_login_reaches_nothing_but_its_doors(gate: Gate) -> None:
    conn = gate.conn
    for statement in (
        "select * from public.tasks",
        "insert into public.tasks (title) values ('x')",
        "delete from public.tasks",
        "select * from sync_internal.changes",
        "select * from sync_internal.receipts",
        "select * from sync_internal.logins",
        'select sync.query(\'{"table": "tasks"}\')',
        "select sync.write('[]')",
        "select sync.enable('public.tasks')",
        "select sync.trust('rowcast_worker')",
        "select sync.map_login('rowcast_worker', 'x')",
        "select sync.configure('max_path', 1)",
        "select sync.new_epoch()",
        "select sync_internal.install_identity()",
        "select sync_internal.register('public.tasks', null, null, null, null, null, null, null, "
        "null, null)",
        "set role service_role",
        "set role rowcast_owner",
        "set role postgres",
        "set role rowcast_worker",
        "select set_config('role', 'service_role', true)",
        "select sync.act_as('x', 'service_role')",
        "create table public.mine (a integer)",
        "create schema mine",
        "create role mine",
        "alter role rowcast_gateway superuser",
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "alter table public.tasks disable row level security",
        "lock table public.tasks",
    ):
        with pytest.raises(psycopg.Error) as refused, conn.transaction():
            conn.execute(statement.encode())
        assert refused.value.sqlstate in ("42501", "PT403"), (statement, refused.value)


def test_role_the_gateway_took_is_given_back_after_an_error(gate: Gate) -> None:
    for statement in (
        'select sync.gateway_query(\'{"sub": "x"}\', \'{"table": "nonsense"}\')',
        "select sync.gateway_query('{\"sub\": \"x\"}', 'no json')",
        "select sync.gateway_get_records('{\"sub\": \"x\"}', '{}')",
        'select sync.gateway_subscribe(\'{"sub": "x", "role": "x"}\', \'{}\', null)',
    ):
        with pytest.raises(psycopg.Error):
            gate.conn.execute(statement.encode())
        query = (
            "select current_user || ' ' || coalesce(current_setting('request.jwt.claims', "
            "true), '')"
        )
        assert value(gate.conn, query) == "rowcast_gateway "


# Columns


GRANTS = """
    create table public.people (
        id text primary key, name text, salary integer default 100, note text, age integer, tag text
            unique,
        version integer not null default 1
    );
    alter table public.people enable row level security;
    create policy everybody on public.people using (salary > 0) with check (salary > 0);
    grant select (id, name, note, version), insert (id, name, age), update (name, age) on
        public.people to authenticated;
    grant select on public.people to anon;
    select sync.enable('public.people', p_topics => '{name}');
    insert into public.people (id, name, salary, note, age, tag) values ('a', 'Ann', 5000, 'n', 30,
        't');
"""
READABLE = {"id", "name", "note", "version"}


def test_columns_not_granted_are_in_no_read(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(GRANTS.encode())
    record = gate.get_records(ALICE, ("people", "a"))["recordMap"]["people"]["a"]
    assert set(record) == READABLE
    assert set(gate.query(ALICE, "people")["recordMap"]["people"]["a"]) == READABLE
    assert (
        set(gate.visible(ALICE, {"people": ["a"]}, records=True)["people"]["a"]["record"])
        == READABLE
    )
    assert set(gate.get_records(None, ("people", "a"))["recordMap"]["people"]["a"]) > READABLE
    for where in ({"salary": 5000}, {"salary": {"gt": 1}}, {"age": {"is": None}}):
        refused = gate.refusal("query", ALICE, {"table": "people", "where": where})
        assert (refused["status"], refused["code"]) == (400, "unknown_key")
    refused = gate.refusal("query", ALICE, {"table": "people", "orderBy": [{"key": "salary"}]})
    assert (refused["status"], refused["code"]) == (400, "unknown_key")


def test_columns_not_granted_are_in_no_push(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(GRANTS.encode())
    cursor = gate.cursor()
    conn.execute("update people set salary = 6000, age = 31, note = 'm'")
    hidden = gate.visible(ALICE, {"people": ["a"]})["hidden"]
    assert set(hidden["people"]) == {"salary", "age", "tag"}
    assert "people" not in gate.visible(None, {"people": ["a"]})["hidden"]
    joined = gate.subscribe(ALICE, "people", "people:a", cursor=cursor)
    (update,) = joined["updates"]
    assert set(update.get("patch", {})) <= {"note"}
    assert set(update.get("record", READABLE)) == READABLE
    assert "6000" not in str(joined)
    conn.execute("insert into people (id, name, salary) values ('b', 'Bo', 6000)")
    joined = gate.subscribe(ALICE, "people", cursor=joined["cursor"])
    assert set(joined["updates"][0]["record"]) == READABLE


def test_columns_not_granted_cannot_be_written(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(GRANTS.encode())
    for key, to in (("salary", 1), ("note", "x"), ("tag", "x"), ("age", 5)):
        answer = gate.write(
            ALICE, {"type": "set", "table": "people", "id": "a", "key": key, "value": to}
        )
        # age may be updated but not read: a patch could not keep what it does not name.
        assert (answer.status, answer.code) == (403, "forbidden_key"), key
        assert answer.body["key"] == key
    for key, to in (("salary", 1), ("note", "x"), ("tag", "x")):
        answer = gate.write(ALICE, create("people", new_id(), name="n", **{key: to}))
        assert (answer.status, answer.code) == (403, "forbidden_key"), key
    answer = gate.applied(
        ALICE, {"type": "set", "table": "people", "id": "a", "key": "name", "value": "An"}
    )
    assert set(answer.body["recordMap"]["people"]["a"]) == READABLE
    row = conn.execute("select name, salary, note, age, tag from people where id = 'a'").fetchone()
    assert row == ("An", 5000, "n", 30, "t")
    made = new_id()
    gate.applied(ALICE, create("people", made, name="New", age=7))
    assert value(conn, "select (salary, age)::text from people where id = %s", made) == "(100,7)"


def test_clash_on_a_column_that_cannot_be_read_is_neutral(
    gate: Gate, conn: psycopg.Connection
) -> None:
    conn.execute(GRANTS.encode())
    conn.execute("grant insert (tag) on people to authenticated")
    conn.execute("select sync.refresh('people')")
    answer = gate.write(ALICE, create("people", new_id(), tag="t"))
    assert (answer.status, answer.code) == (403, "forbidden")


def test_version_that_cannot_be_read_is_not_told(gate: Gate, conn: psycopg.Connection) -> None:
    conn.execute(GRANTS.encode())
    conn.execute("revoke select on people from authenticated")
    conn.execute("grant select (id, name) on people to authenticated")
    conn.execute("select sync.refresh('people')")
    answer = gate.applied(
        ALICE, {"type": "set", "table": "people", "id": "a", "key": "name", "value": "x"}
    )
    assert answer.body["versions"] == []
    assert answer.body["recordMap"] == {"people": {"a": {"id": "a", "name": "x"}}}
    assert set(gate.query(ALICE, "people")["recordMap"]["people"]["a"]) == {"id", "name"}


def test_server_owned_columns_take_their_default(gate: Gate, conn: psycopg.Connection) -> None:
    for key, to in (("createdBy", CAROL), ("createdAt", "2001-01-01T00:00:00Z")):
        answer = gate.write(
            ALICE, {"type": "set", "table": "tasks", "id": TASK_1, "key": key, "value": to}
        )
        assert (answer.status, answer.code) == (403, "forbidden_key")
        answer = gate.write(
            ALICE, create("tasks", new_id(), boardId=LAUNCH, title="t", **{key: to})
        )
        assert (answer.status, answer.code) == (403, "forbidden_key")
    made = new_id()
    gate.applied(ALICE, create("tasks", made, boardId=LAUNCH, title="t", createdBy=ALICE))
    assert str(value(conn, "select created_by from tasks where id = %s", made)) == ALICE
