"""Policies made at random: what is said to be cacheable must be a function of the class, the claims
and what is read. Whatever else changes, nobody sees more or less, and rows of one class are seen by
the same users.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from tests.sql.engine import value

pytestmark = pytest.mark.both_versions

SECONDS = 8.0  # for each version
USERS = [f"00000000-0000-7000-8000-00000000000{n}" for n in range(3)]

SCHEMA = """
create schema fuzz;
create type fuzz.mood as enum ('good', 'bad');
create table fuzz.items (
    id integer primary key, a integer, b integer, c text, owner uuid, w numeric, mood fuzz.mood,
    tags integer[], day date, twice integer generated always as (a * 2) stored
);
create table fuzz.members (item integer, usr uuid, role text, n integer, w numeric);
create table fuzz.groups (id integer, parent integer, flag boolean, name text);
alter table fuzz.items enable row level security;
create function fuzz.mine() returns setof integer language sql stable security definer
    begin atomic select m.item from fuzz.members m where m.usr = (select auth.uid()); end;
create function fuzz.mine_too() returns setof integer language sql stable
    begin atomic select m.item from fuzz.members m where m.usr = (select auth.uid()) and m.n > 1;
        end;
create function fuzz.is_open(integer, boolean default true) returns boolean language sql stable
    return exists (select from fuzz.groups g where g.id = $1 and g.flag = $2);
create function fuzz.first_role() returns text language sql stable
    begin atomic select m.role from fuzz.members m limit 1; end;
create function fuzz.weight(integer) returns text language sql stable
    begin atomic select max(m.n)::integer from fuzz.members m where m.item = $1; end;
create view fuzz.open_groups as select g.id, g.parent from fuzz.groups g where g.flag;
create view fuzz.my_items with (security_invoker = true) as
    select m.item, m.role from fuzz.members m where m.usr = (select auth.uid());
create view fuzz.named as select g.id, g.name, o.parent from fuzz.groups g
    left join fuzz.open_groups o using (id);
grant usage on schema fuzz to authenticated;
grant select on all tables in schema fuzz to authenticated;
"""

COLUMNS = {
    "items": ["a", "b", "c", "owner", "w", "mood", "tags", "day"],
    "members": ["item", "usr", "role", "n", "w"],
    "groups": ["id", "parent", "flag", "name"],
}

VALUES: dict[str, Sequence[str]] = {
    "integer": ["0", "1", "2", "3", "null"],
    "text": ["'x'", "'y'", "'X'", "'good'", "null"],
    "uuid": [*(f"'{user}'" for user in USERS), "null"],
    "numeric": ["1.0", "1.00", "2", "null"],
    "boolean": ["true", "false"],
    "fuzz.mood": ["'good'", "'bad'"],
    "integer[]": ["'{1,2}'", "'{2,1}'", "'{3}'", "null"],
    "date": ["'2024-01-02'", "'2024-02-01'"],
}

TYPES = {
    "a": "integer", "b": "integer", "c": "text", "owner": "uuid", "w": "numeric",
    "mood": "fuzz.mood", "tags": "integer[]", "day": "date", "item": "integer", "usr": "uuid",
    "role": "text", "n": "integer", "id": "integer", "parent": "integer", "flag": "boolean",
    "name": "text",
}  # fmt: skip


class Grammar:
    """Makes conditions. `items`: what stands for the row whose policy it is."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def one(self, *makers: Callable[[], str]) -> str:
        return self.random.choice(makers)()

    def value(self, type_: str) -> str:
        return f"{self.random.choice(VALUES[type_])}::{type_}"

    def condition(self, depth: int) -> str:
        if depth == 0 or self.random.random() < 0.25:
            return self.one(self.own, self.own, self.who, self.odd)
        return self.one(
            lambda: f"({self.condition(depth - 1)} and {self.condition(depth - 1)})",
            lambda: f"({self.condition(depth - 1)} or {self.condition(depth - 1)})",
            lambda: f"not coalesce({self.condition(depth - 1)}, false)",
            lambda: (
                f"case when {self.own()} then {self.condition(depth - 1)} else {self.who()} end"
            ),
            *([lambda: self.member(depth), lambda: self.group(depth), self.helper] * 2),
        )

    def own(self) -> str:
        return self.one(
            lambda: f"items.a {self.random.choice(['=', '<', '<>'])} {self.value('integer')}",
            lambda: f"items.c = {self.value('text')}",
            lambda: "items.owner = auth.uid()",
            lambda: f"items.w = {self.value('numeric')}",
            lambda: f"items.w::text = '{self.random.choice(['1.0', '1.00'])}'",
            lambda: f"items.mood = {self.value('fuzz.mood')}",
            lambda: "items.mood::text = items.c",
            lambda: "items.tags[1] = items.b",
            lambda: "items.b = any (items.tags)",
            lambda: "items.twice > 2",
            lambda: f"items.day < {self.value('date')}",
            lambda: "(items.a, items.b) < (items.b, 2)",
        )

    def who(self) -> str:
        return self.one(
            lambda: f"auth.uid() = {self.value('uuid')}",
            lambda: "auth.jwt() ->> 'tenant' = '1'",
            lambda: (
                "current_setting('request.jwt.claims', true)::jsonb ->> 'tenant' = items.a::text"
            ),
            lambda: "current_user = 'authenticated'",
        )

    def odd(self) -> str:
        """What is, or should be, mostly not cacheable."""
        return self.one(
            lambda: "items is not null",
            lambda: "items.ctid < '(0,4)'",
            lambda: "items.xmin::text::bigint % 2 = 0",
            lambda: "items.day::text = '2024-01-02'",
            lambda: "fuzz.first_role() = 'x'",
            lambda: "fuzz.weight(items.a) = '1'",
            lambda: "items.owner = (select m.usr from fuzz.members m order by m.w limit 1)",
            lambda: "items.a = (select (array_agg(m.n))[1] from fuzz.members m)",
            lambda: "'1.0' in (select distinct on (m.w) m.w::text from fuzz.members m)",
            lambda: "'1.0' in (select s.w::text from (select distinct m.w from fuzz.members m) s)",
            lambda: "exists (select from fuzz.members m where m is not null and m.item = items.a)",
            lambda: "items.a = (array(select m.n from fuzz.members m))[1]",
            lambda: "items.a in (select row_number() over () from fuzz.members m where m.n = 1)",
            lambda: "exists (select from pg_catalog.pg_class c where c.relname = items.c)",
        )

    def member(self, depth: int) -> str:
        return self.one(
            lambda: (
                "exists (select from fuzz.members m where m.item = items.a and m.usr = "
                f"auth.uid(){self.about('m.role', 'm.n')})"
            ),
            lambda: (
                "items.a in (select m.item from fuzz.members m where m.usr = auth.uid() and "
                f"({self.condition(depth - 1)}))"
            ),
            lambda: (
                "items.a = any (array(select m.n from fuzz.members m where m.usr = auth.uid()))"
            ),
            lambda: (
                "(select count(*) from fuzz.members m where m.item = items.a) > "
                f"{self.random.choice('012')}"
            ),
            lambda: "items.b >= all (select m.n from fuzz.members m where m.usr = auth.uid())",
            lambda: "items.tags && array(select m.n from fuzz.members m where m.usr = auth.uid())",
            lambda: "exists (select from fuzz.members m where m.usr = auth.uid() limit 1)",
            lambda: (
                "exists (select m.item from fuzz.members m where m.usr = auth.uid() group by "
                "m.item having count(*) > 1 and bool_or(m.role = 'x') and m.item = items.a)"
            ),
        )

    def group(self, depth: int) -> str:
        return self.one(
            lambda: f"fuzz.is_open(items.b{self.random.choice(['', ', false'])})",
            lambda: (
                "items.a in (select o.id from fuzz.open_groups o"
                f"{self.random.choice(['', ' where o.parent = items.b'])})"
            ),
            lambda: "exists (select from fuzz.named x where x.id = items.a and x.name = items.c)",
            lambda: (
                "items.a in (with recursive up (id) as (select items.b union select g.parent "
                "from fuzz.groups g join up on up.id = g.id) select up.id from up)"
            ),
            lambda: (
                "items.a in (select g.id from fuzz.groups g join fuzz.members m on m.item = "
                f"g.parent where m.usr = auth.uid() and {self.condition(depth - 1)})"
            ),
            lambda: (
                "items.a in (select g.id from fuzz.groups g union select m.n from fuzz.members m "
                "where m.usr = auth.uid() except select g.parent from fuzz.groups g where g.flag)"
            ),
        )

    def helper(self) -> str:
        return self.one(
            lambda: "items.a = any (array(select fuzz.mine()))",
            lambda: "items.b in (select * from fuzz.mine_too())",
            lambda: (
                f"items.a in (select i.item from fuzz.my_items i where true{self.about('i.role')})"
            ),
        )

    def about(self, *columns: str) -> str:
        column = self.random.choice([*columns, ""])
        kind = TYPES.get(column.partition(".")[2], "")
        return f" and {column} = {self.value(kind)}" if column else ""

    def row(self, table: str) -> str:
        return ", ".join(self.value(TYPES[column]) for column in COLUMNS[table])

    def inner(self, table: str) -> str:
        """A policy for a table that others read."""
        return self.one(
            lambda: {"members": "usr = auth.uid()", "groups": "flag"}[table],
            lambda: {"members": "role <> 'y'", "groups": "name = auth.jwt() ->> 'tenant'"}[table],
            lambda: {
                "members": "item in (select g.id from fuzz.groups g where g.flag)",
                "groups": "id in (select * from fuzz.mine())",
            }[table],
        )


class World:
    """The schema with one policy and some rows."""

    def __init__(self, conn: psycopg.Connection[Any], seed: int) -> None:
        self.conn = conn
        self.grammar = Grammar(seed)
        self.random = self.grammar.random

    def run(self, statement: str) -> None:
        self.conn.execute(statement.encode())

    def make(self) -> str:
        using = self.grammar.condition(3)
        self.run(f"create policy p on fuzz.items for select to authenticated using ({using})")
        if self.random.random() < 0.3:
            extra = self.grammar.condition(1)
            self.run(
                "create policy r on fuzz.items as restrictive for select to authenticated "
                f"using ({extra})"
            )
            using += f" / {extra}"
        for table in ("members", "groups"):
            if self.random.random() < 0.5:
                inner = self.grammar.inner(table)
                self.run(f"alter table fuzz.{table} enable row level security")
                self.run(
                    f"create policy p on fuzz.{table} for select to authenticated using ({inner})"
                )
                using += f" / {table}: {inner}"
        for number in range(8):
            self.run(
                f"insert into fuzz.items (id, {', '.join(COLUMNS['items'])}) "
                f"values ({number}, {self.grammar.row('items')})"
            )
        # Rows of one class: alike in everything, save what is drawn anew below.
        self.run(
            f"insert into fuzz.items (id, {', '.join(COLUMNS['items'])}) "
            f"select id + 100, {', '.join(COLUMNS['items'])} from fuzz.items"
        )
        for table in ("members", "groups"):
            for _ in range(6):
                self.run(f"insert into fuzz.{table} values ({self.grammar.row(table)})")
        return using

    def closure(self) -> tuple[list[str], dict[str, list[str]], list[str]]:
        row = self.conn.execute("""
            select array(
                    select a.attname::text from pg_attribute a
                    where a.attrelid = c.relation and a.attnum = any (c.own)
                ),
                (
                    select coalesce(jsonb_object_agg(
                        (select k.relname from pg_class k where k.oid = r.key::oid),
                        to_jsonb(sync_internal.column_names(r.key::oid, r.value))
                    ), '{}') from jsonb_each(c.reads) r
                ),
                c.problems
            from sync_internal.closures(array['fuzz.items'::regclass], '{authenticated}') c
        """).fetchone()
        assert row
        own, reads, problems = row
        return own, reads, problems

    def seen(self) -> dict[str, set[int]]:
        """Which items each user sees."""
        found = {}
        for number, user in enumerate(USERS):
            self.conn.execute(
                "select set_config('request.jwt.claims', "
                "json_build_object('sub', %s::text, 'tenant', %s::text)::text, true)",
                (user, str(number)),
            )
            self.run("set local role authenticated")
            rows = self.conn.execute("select id from fuzz.items").fetchall()
            self.run("reset role")
            found[user] = {row[0] for row in rows}
        return found

    def redraw(self, table: str, column: str) -> None:
        """Other values in a column of some rows, which also moves these to another place."""
        draws = " ".join(f"when {n} then {self.grammar.value(TYPES[column])}" for n in range(4))
        self.run(
            f"update fuzz.{table} set {column} = case floor(random() * 4)::integer {draws} end "
            "where random() < 0.7"
        )


def inside(world: World, reads: dict[str, list[str]], said: str) -> bool:
    """Changes of what is read are told where anybody sees more or less by them, and nothing is told
    of other columns. Gives whether anybody did.
    """
    told = "select count(*) from sync_internal.changes where kind = 'access'"
    noticed = False
    for table in sorted({"members", "groups"} & set(reads)):
        world.conn.execute(
            "insert into sync_internal.watches (relation, column_names) values (%s, %s)",
            (f"fuzz.{table}", reads[table]),
        )
        world.run("select sync_internal.generate_watch(w) from sync_internal.watches w")
        world.run("select sync_internal.create_watch_triggers()")
        for column in COLUMNS[table]:
            before, count = world.seen(), value(world.conn, told)
            world.redraw(table, column)
            after, heard = world.seen(), value(world.conn, told) > count
            assert heard or after == before, f"{said}; not told: {table}.{column}"
            assert column in reads[table] or not heard, f"{said}; told: {table}.{column}"
            noticed = noticed or after != before
    return noticed


def test_what_is_cacheable_depends_on_nothing_else(tx: psycopg.Connection) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    tx.execute(SCHEMA.encode())
    tx.execute("set local jit = off")  # most of the time, where the server has it
    tx.execute("select setseed(%s)", (seed / (1 << 32),))
    tried = kept = watched = powerful = 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        tried += 1
        tx.execute("savepoint world")
        world = World(tx, seed + tried)
        using = world.make()
        own, reads, problems = world.closure()
        try:
            before = world.seen()
        except (psycopg.errors.InvalidObjectDefinition, psycopg.errors.CardinalityViolation):
            before, problems = {}, ["cannot be evaluated"]  # infinite recursion, more than one row
        if not problems:
            kept += 1
            said = f"seed {seed}, policy {tried}: {using}; own {own}, reads {reads}"
            outside = [
                (table, column)
                for table, columns in COLUMNS.items()
                for column in columns
                if column not in reads.get(table, ())
                and not (table == "items" and column in own)
                and not (column == "a" and "twice" in [*own, *reads.get("items", ())])
            ]
            for table, column in world.random.sample(outside, min(4, len(outside))):
                world.redraw(table, column)
                assert world.seen() == before, f"{said}; changed {table}.{column}"
            for table in {"members", "groups"} - set(reads):
                world.run(f"delete from fuzz.{table} where random() < 0.5")
                assert world.seen() == before, f"{said}; deleted from {table}"
            text = f"row({', '.join(own)})::text" if own else "''"
            rows = tx.execute(f"select {text}, array_agg(id) from fuzz.items group by 1".encode())
            for class_, ids in rows.fetchall():
                for user, ids_seen in before.items():
                    assert ids_seen.isdisjoint(ids) or ids_seen.issuperset(ids), (
                        f"{said}; class {class_} of user {user}: {ids} but {ids_seen}"
                    )
            if tried % 4 == 0:
                watched += 1
                powerful += inside(world, reads, said)
        tx.execute("rollback to world")
    print(f"{tried} policies, {kept} cacheable; watched {watched}, of which {powerful} with effect")
    assert kept > tried / 5, (tried, kept)
    assert powerful > watched / 10, (watched, powerful)
