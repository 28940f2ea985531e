"""What policies read, and when the answer may not be kept: every way in which it could be wrong."""

from collections.abc import Iterable
from typing import Any

import psycopg
import pytest

from tests.sql.access.docs import FUNCTION, MEMBER, SCHEMA, Report, judge, reads
from tests.sql.engine import value

pytestmark = pytest.mark.both_versions


@pytest.fixture
def docs(tx: psycopg.Connection) -> psycopg.Connection:
    """A transaction in which there are docs, boards and members, none of them live yet."""
    tx.execute(SCHEMA.encode())
    return tx


# What is followed

FOLLOWED: list[tuple[str, str, str, list[str], dict[str, list[str]]]] = [
    ("constant", "true", "", [], {}),
    ("own column", "owner = auth.uid()", "", ["owner"], {}),
    ("own column under a sublink", "owner = (select auth.uid())", "", ["owner"], {}),
    (
        "own column two queries deep",
        "exists (select from members m where m.user_id = auth.uid() and m.board in "
        "(select b.id from boards2 b where b.owner = docs.owner))",
        "",
        ["owner"],
        {"members": ["board", "user_id"], "boards2": ["id", "owner"]},
    ),
    ("another table", MEMBER, "", ["board"], {"members": ["board", "user_id"]}),
    (
        "only that there are rows",
        "exists (select from members)",
        "",
        [],
        {"members": []},
    ),
    (
        "body of a function",
        "board = any (array(select my_boards()))",
        FUNCTION,
        ["board"],
        {"members": ["board", "user_id"]},
    ),
    (
        "argument of a function",
        "can(board)",
        "create function public.can(uuid) returns boolean language sql stable return exists "
        "(select from members m where m.board = $1 and m.role = 'x')",
        ["board"],
        {"members": ["board", "role"]},
    ),
    (
        "default of an argument",
        "can(board)",
        "create function public.mine() returns uuid language sql stable return auth.uid();"
        "create function public.can(b uuid, u uuid default mine()) returns boolean language sql "
        "stable return exists (select from members m where m.board = b and m.user_id = u)",
        ["board"],
        {"members": ["board", "user_id"]},
    ),
    (
        "function of an operator",
        "board === owner",
        "create function public.same(uuid, uuid) returns boolean language sql stable return exists "
        "(select from members m where m.board = $1 and m.user_id = $2);"
        "create operator public.=== (leftarg = uuid, rightarg = uuid, function = public.same)",
        ["owner", "board"],
        {"members": ["board", "user_id"]},
    ),
    (
        "what a view reads",
        "board in (select v.b from v)",
        "create view public.v as select m.board as b, m.role from members m join boards2 o "
        "on o.id = m.board; grant select on public.v to authenticated",
        ["board"],
        {"members": ["board", "role"], "boards2": ["id"]},
    ),
    (
        "a view on a view",
        "board in (select v.b from w v)",
        "create view public.v as select m.board as b from members m;"
        "create view public.w as select v.b from v; grant select on public.w to authenticated",
        ["board"],
        {"members": ["board"]},
    ),
    (
        "a table expression",
        "board in (with c as (select m.board from members m), d as (select c.board from c) "
        "select d.board from d)",
        "",
        ["board"],
        {"members": ["board"]},
    ),
    (
        "recursion",
        "board in (with recursive c (b) as (select m.board from members m where m.role = 'x' "
        "union select m.user_id from members m join c on c.b = m.board) select c.b from c)",
        "",
        ["board"],
        {"members": ["board", "user_id", "role"]},
    ),
    (
        "joins by names in common",
        "exists (select from members m natural join (select b.id as board from boards2 b) x "
        "where board = docs.board)",
        "",
        ["board"],
        {"members": ["board"], "boards2": ["id"]},
    ),
    (
        "a self-read",
        "exists (select from other_docs() o where o = docs.board)",
        "create function public.other_docs() returns setof uuid language sql stable "
        "security definer set search_path = pg_catalog, pg_temp "
        "begin atomic select d.board from public.docs d where d.kind = 'x'; end",
        ["board"],
        {"docs": ["board", "kind"]},
    ),
    (
        "a generated column",
        "twice = 4 and exists (select from members m where m.n = twice)",
        "",
        ["twice"],
        {"members": ["n"]},
    ),
    (
        "kinds of expressions",
        "case when kind is null then true when n > 3 then false else coalesce(n, 2) = 2 end and "
        "(n, owner) = (3, auth.uid()) and (n, board) < (3, owner) and greatest(n, 2) = 3 and "
        "tags[1] = 'a' and tags[1:2] = '{a}' and array[n, 2] = array[1, 2]::numeric[] and "
        "nullif(n, 3) is not null and (n = 3) is true and n is distinct from 3 and n in (1, 2) and "
        "n::integer = 3 and kind::varchar = 'x' and boards && array(select m.board from members m) "
        "and data ->> 'a' = 'x' and data @> '{}' and at > '2020-01-01' and at < at and "
        "id::text = kind and (kind)::uuid = id and kind collate \"C\" = 'x' and "
        "kind like 'a%' and boards <@ array(select m.board from members m)",
        "",
        ["id", "owner", "board", "n", "at", "kind", "tags", "data", "boards"],
        {"members": ["board"]},
    ),
    (
        "who is asking",
        "owner::text = auth.jwt() ->> 'sub' and auth.role() = 'authenticated' and kind = "
        "current_setting('request.jwt.claims', true)::jsonb ->> 'kind' and current_user = kind and "
        "session_user <> kind and extra = current_setting('Request.JWT.claim.sub', true)",
        "",
        ["owner", "kind", "extra"],
        {},
    ),
    (
        "a mapped setting",
        "owner::text = current_setting('app.user_id', true)",
        "select sync.map_identity('app.user_id', 'sub')",
        ["owner"],
        {},
    ),
    (
        "aggregates whose order cannot matter",
        "exists (select m.board from members m group by m.board having count(*) > 1 and "
        "bool_or(m.role = 'x') and max(length(m.note)) > 2)",
        "",
        [],
        {"members": ["board", "role", "note"]},
    ),
    (
        "a limit that cannot matter",
        "exists (select from members m where m.board = docs.board limit 1)",
        "",
        ["board"],
        {"members": ["board"]},
    ),
    (
        "sets of ids",
        "board in (select m.board from members m union select b.id from boards2 b)",
        "",
        ["board"],
        {"members": ["board"], "boards2": ["id"]},
    ),
    (
        "an enum as text",
        "(kind::mood)::text = 'good'",
        "create type public.mood as enum ('good', 'bad')",
        ["kind"],
        {},
    ),
]


@pytest.mark.parametrize(
    ("using", "setup", "columns", "tables"),
    [case[1:] for case in FOLLOWED],
    ids=[case[0] for case in FOLLOWED],
)
def test_closure_is_followed_exactly(
    docs: psycopg.Connection,
    using: str,
    setup: str,
    columns: list[str],
    tables: dict[str, list[str]],
) -> None:
    found = judge(docs, using, setup)
    assert found == Report(True, [], columns, tables)


# What makes it impossible to keep an answer

STABLE = "create function public.f() returns {} language sql stable begin atomic {}; end"

REFUSED: list[tuple[str, str, str, str]] = [
    ("whole row", "docs is not null", "", "whole rows"),
    ("whole row of another", "exists (select from members m where m is not null)", "", "whole"),
    ("whole row beside a column", "owner is null and docs is not null", "", "whole rows"),
    ("system column", "xmin is not null", "", "system column"),
    ("place in the table", "exists (select from members m where m.ctid > '(0,1)')", "", "system"),
    ("clock", "at < now()", "", "calls now(), which is stable"),
    ("clock by keyword", "at < current_timestamp", "", "time"),
    ("day by keyword", "day < current_date", "", "time"),
    ("catalogue by keyword", "kind = current_catalog", "", "catalogue"),
    ("chance", "random() < 0.5", "", "calls random(), which is volatile"),
    (
        "volatile operator",
        "kind ~~~ 'x'",
        "create function public.v(text, text) returns boolean "
        "language sql volatile return true; create operator public.~~~ (leftarg = text, rightarg = "
        "text, function = public.v)",
        "public.v(text, text), which is volatile",
    ),
    ("time zone in a cast", "at::text = kind", "", "its text depends on settings"),
    ("time zone in a conversion", "at::date = day", "", "which is stable"),
    ("date read from text", "kind::date = day", "", "depends on settings"),
    ("digits of a float", "ratio::text = kind", "", "depends on settings"),
    ("time zone in jsonpath", "jsonb_path_exists_tz(data, '$.a')", "", "jsonb_path_exists_tz"),
    ("any setting", "kind = current_setting('work_mem')", "", "reads the setting work_mem"),
    ("custom setting", "kind = current_setting('app.x', true)", "", "reads the setting app.x"),
    (
        "setting of a computed name",
        "kind = current_setting('request.jwt.' || extra, true)",
        "",
        "name that is not constant",
    ),
    (
        "PL/pgSQL",
        "f()",
        "create function public.f() returns boolean language plpgsql immutable as "
        "'begin return true; end'",
        "public.f(), whose body PostgreSQL does not record",
    ),
    (
        "body as text",
        "f()",
        "create function public.f() returns boolean language sql immutable as 'select true'",
        "begin atomic",
    ),
    (
        "opaque in a view",
        "board in (select v.b from v)",
        "create function public.f() returns "
        "boolean language sql stable as 'select true'; create view public.v as select m.board as b "
        "from members m where f(); grant select on v to authenticated",
        "view v calls public.f()",
    ),
    (
        "clock in a function",
        "at < f()",
        STABLE.format("timestamptz", "select now()"),
        "function public.f() calls now()",
    ),
    (
        "conversion on return",
        "kind = f()",
        STABLE.format("text", "select m.n from members m"),
        "converts its answer",
    ),
    (
        "clock in a default",
        "f(at)",
        "create function public.f(a timestamptz, b timestamptz default "
        "now()) returns boolean language sql stable return a < b",
        "a default of public.f(",
    ),
    (
        "immutable that reads",
        "board in (select f())",
        "create function public.f() returns setof "
        "uuid language sql immutable begin atomic select m.board from members m; end",
        "marked immutable",
    ),
    (
        "immutable that asks who",
        "owner = f()",
        "create function public.f() returns uuid language sql immutable return auth.uid()",
        "marked immutable",
    ),
    (
        "volatile function",
        "f()",
        "create function public.f() returns boolean language sql return true",
        "volatile",
    ),
    (
        "settings of a function",
        "f()",
        "create function public.f() returns boolean language sql "
        "stable set timezone = 'utc' return true",
        "settings of its own",
    ),
    ("order of rows", "owner = (select m.user_id from members m limit 1)", "", "LIMIT"),
    ("order in an array", "owner = (array(select m.user_id from members m))[1]", "", "order"),
    (
        "order in an aggregate",
        "owner = (select (array_agg(m.user_id))[1] from members m)",
        "",
        "array_agg",
    ),
    (
        "order by distinct on",
        "exists (select distinct on (m.board) m.role from members m)",
        "",
        "DISTINCT ON",
    ),
    (
        "order by number",
        "exists (select from members m, my_boards() with ordinality x (b, o) where x.o = 1)",
        FUNCTION,
        "ORDINALITY",
    ),
    ("equal but different", "exists (select distinct m.n from members m)", "", "groups or sorts"),
    (
        "equal under a collation",
        "exists (select distinct m.role collate loose from members m)",
        "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = "
        "false)",
        "collation loose",
    ),
    (
        "window",
        "n in (select row_number() over (order by m.board) from members m)",
        "",
        "unknown expression WINDOWFUNC",
    ),
    ("sample", "exists (select from members m tablesample system (10))", "", "TABLESAMPLECLAUSE"),
    ("xml", "xmlelement(name a, kind) is null", "", "unknown expression XMLEXPR"),
    (
        "domain with checks",
        "kind::small = 'x'",
        "create domain public.small as text check (value <> 'q')",
        "a domain with checks",
    ),
    (
        "type not built in",
        "kind::odd = 'x'::odd",
        "create type public.odd; "
        "create function public.odd_in(cstring) returns odd language internal immutable strict as "
        "'textin'; create function public.odd_out(odd) returns cstring language internal immutable "
        "strict as 'textout'; create type public.odd (input = odd_in, output = odd_out, like "
        "= text);"
        "create function public.odd_eq(odd, odd) returns boolean language internal immutable "
        "strict "
        "as 'texteq'; create operator public.= (leftarg = odd, rightarg = odd, function = odd_eq)",
        "odd",
    ),
    (
        "type not built in, in an array",
        "array[kind::odd] = '{}'::odd[]",
        "create type public.odd; "
        "create function public.odd_in(cstring) returns odd language internal immutable strict as "
        "'textin'; create function public.odd_out(odd) returns cstring language internal immutable "
        "strict as 'textout'; create type public.odd (input = odd_in, output = odd_out, like "
        "= text)",
        "uses the type odd",
    ),
    (
        "catalogue table",
        "exists (select from pg_class c where c.relname = kind)",
        "",
        "of the system catalogue",
    ),
    (
        "catalogue through a type",
        "kind::regclass is not null",
        "",
        "calls regclass(text), which is stable",
    ),
    (
        "materialised view",
        "board in (select v.board from v)",
        "create materialized view public.v as "
        "select m.board from members m; grant select on v to authenticated",
        "materialised view",
    ),
    (
        "unlogged table",
        "board in (select v.board from v)",
        "create unlogged table public.v (board uuid)",
        "unlogged",
    ),
    (
        "part of a table",
        "board in (select v.board from v)",
        "create table public.whole (board uuid) "
        "partition by hash (board); create table public.v partition of public.whole for "
        "values with "
        "(modulus 1, remainder 0)",
        "part of another table",
    ),
    (
        "sequence",
        "exists (select from s where s.last_value > 3)",
        "create sequence public.s",
        "is no table",
    ),
    ("float in the class", "ratio > 0.5 and day > '2020-01-01' and data ? 'a'", "", ""),
    (
        "list of dates in the class",
        "days is null",
        "alter table public.docs add column days date[]",
        "no text that is the same under all settings",
    ),
]


@pytest.mark.parametrize(
    ("using", "setup", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_what_may_change_by_itself_is_not_kept(
    docs: psycopg.Connection, using: str, setup: str, reason: str
) -> None:
    try:
        found = judge(docs, using, setup)
    except psycopg.errors.FeatureNotSupported as missing:
        pytest.skip(str(missing))  # this build of PostgreSQL is without XML or ICU
    if not reason:
        assert found.cacheable, found.reasons
        return
    assert not found.cacheable
    assert any(reason in said for said in found.reasons), found.reasons


def test_foreign_tables_are_not_kept(docs: psycopg.Connection) -> None:
    docs.execute(
        "create foreign data wrapper nowhere; create server s foreign data wrapper nowhere"
    )
    docs.execute("create foreign table public.far (board uuid) server s")
    docs.execute("create table public.near (board uuid)")
    found = judge(docs, "board in (select f.board from far f)")
    assert "which is a foreign table" in found.reasons[0]
    docs.execute("create foreign table public.part () inherits (near) server s")
    docs.execute("alter policy p on docs using (board in (select n.board from near n))")
    docs.execute("select sync.refresh('docs')")
    assert "has a part that is no ordinary table" in reads(docs).reasons[0]


def test_virtual_columns_are_not_kept(docs: psycopg.Connection) -> None:
    if docs.info.server_version < 180000:
        pytest.skip("PostgreSQL 18 has them")
    docs.execute("alter table docs add column half numeric generated always as (n / 2) virtual")
    docs.execute("alter table members add column half numeric generated always as (n / 2) virtual")
    found = judge(docs, "half = 1")
    assert "generated when it is read" in found.reasons[0]
    docs.execute("alter policy p on docs using (exists (select from members m where m.half = 1))")
    docs.execute("select sync.refresh('docs')")
    assert "virtual generated column" in reads(docs).reasons[0]


def test_newer_expressions_are_not_kept(docs: psycopg.Connection) -> None:
    if docs.info.server_version < 170000:
        pytest.skip("PostgreSQL 17 has them")
    found = judge(docs, "json_exists(data, '$.a')")
    assert "policy p on docs unknown expression JSONEXPR" in found.reasons


def test_excluded_columns_are_not_kept(docs: psycopg.Connection) -> None:
    docs.execute("create policy p on docs for select to authenticated using (extra = 'x')")
    docs.execute("select sync.enable('docs', p_exclude => '{extra}', p_topics => '{}')")
    assert "is excluded" in reads(docs).reasons[0]


def test_names_cannot_pass_for_expressions(docs: psycopg.Connection) -> None:
    hostile = [
        ":funcid 1299",
        "{VAR :varattno 0 :varlevelsup 0}",
        ":relid",
        "x :varattno -1 ",
        '"quoted" {XMLEXPR}',
        "\\:opfuncid 1299",
        "}{FUNCEXPR :funcid 1299",
        ":selectedCols (b 1 2)",
    ]
    names = [f'"{name}"'.replace('"quoted"', '""quoted""') for name in hostile]
    columns = ", ".join(f"{name} uuid" for name in names)
    crossed = ", ".join(
        f"{one} as {other}" for one, other in zip(names, reversed(names), strict=True)
    )
    docs.execute(f"create table public.hostile ({columns})".encode())
    docs.execute("grant select on hostile to authenticated")
    docs.execute(f"create view public.mirror as select {crossed} from hostile".encode())
    using = (
        f"board in (with {names[1]} as (select {names[0]} as {names[2]} from hostile as "
        f"{names[6]}) "
        f"select {names[2]} from {names[1]} as {names[4]} where {names[2]} is not null) and "
        f"owner in (select {names[2]} as {names[5]} from mirror as {names[3]}) and kind <> "
        "':funcid 1299 {VAR :varattno 0}'"
    )
    found = judge(docs, using)
    assert found.cacheable, found.reasons
    assert found.columns == ["owner", "board", "kind"]
    assert sorted(found.reads) == ["hostile"]
    assert sorted(found.reads["hostile"]) == sorted(hostile)


# Whose policies count


def test_policies_of_other_roles_and_commands_do_not_count(docs: psycopg.Connection) -> None:
    found = judge(
        docs,
        "owner = auth.uid()",
        rest="create policy a on docs for select to anon using (board is not null);"
        "create policy i on docs for insert to authenticated with check (kind = 'x');"
        "create policy u on docs for update to authenticated using (n = 1);"
        "create policy d on docs for delete to authenticated using (at < now())",
    )
    assert found == Report(True, [], ["owner"], {})
    assert reads(docs, role="anon").columns == ["board"]
    assert reads(docs, role="service_role").columns == []


def test_policies_for_all_restrictive_and_public_count(docs: psycopg.Connection) -> None:
    found = judge(
        docs,
        "owner = auth.uid()",
        rest="create policy everything on docs for all to authenticated using (board is not null) "
        "with check (kind = 'x');"
        "create policy narrow on docs as restrictive for select to authenticated using (n > 1);"
        "create policy everybody on docs for select to public using (tags is null)",
    )
    assert found == Report(True, [], ["owner", "board", "n", "tags"], {})


def test_policies_of_roles_one_inherits_count(docs: psycopg.Connection) -> None:
    docs.execute("create role crew; grant crew to service_role")
    docs.execute("create policy crew on docs for select to crew using (n > 1)")
    judge(docs, "true")
    expected = ["n"] if value(docs, "select pg_has_role('service_role', 'crew', 'usage')") else []
    assert reads(docs, role="service_role").columns == expected
    assert reads(docs).columns == []


RLS_ON_MEMBERS = (
    "alter table members enable row level security;"
    "create policy mine on members for select to authenticated using (exists (select from "
    "boards2 b "
    "where b.id = members.board and b.owner = auth.uid() and members.role = 'x'))"
)


def test_policies_of_the_tables_read_are_followed(docs: psycopg.Connection) -> None:
    found = judge(docs, MEMBER, RLS_ON_MEMBERS)
    assert found == Report(
        True,
        [],
        ["board"],
        {"members": ["board", "user_id", "role"], "boards2": ["id", "owner"]},
    )


def test_an_uncacheable_policy_of_a_table_read_counts(docs: psycopg.Connection) -> None:
    docs.execute("alter table members enable row level security")
    docs.execute("create policy late on members for select to public using (now() > '2020-01-01')")
    found = judge(docs, MEMBER)
    assert found.reasons == [
        "policy late on members calls now(), which is stable: its answer may change by itself"
    ]


def test_a_definer_function_reads_with_the_rights_of_its_owner(docs: psycopg.Connection) -> None:
    """As superuser or owner without policies; as another role under that role's."""
    own = judge(docs, "board = any (array(select my_boards()))", RLS_ON_MEMBERS + ";" + FUNCTION)
    assert own.reads == {"members": ["board", "user_id"]}
    docs.execute("create role helper; grant usage on schema auth to helper")
    docs.execute(
        "grant select on members, boards2 to helper; grant create on schema public to helper"
    )
    docs.execute("create policy helpers on members for select to helper using (note is null)")
    docs.execute("alter function my_boards() owner to helper")
    assert reads(docs).reads == {"members": ["board", "user_id", "note"]}


def test_force_binds_the_owner_too(docs: psycopg.Connection) -> None:
    docs.execute("create role helper; grant usage on schema auth to helper")
    docs.execute("grant create on schema public to helper")
    docs.execute((RLS_ON_MEMBERS + ";" + FUNCTION).encode())
    docs.execute("alter table members owner to helper; alter function my_boards() owner to helper")
    docs.execute("create policy helpers on members for select to helper using (note is null)")
    found = judge(docs, "board = any (array(select my_boards()))")
    assert found.reads == {"members": ["board", "user_id"]}
    docs.execute("alter table members force row level security")
    assert reads(docs).reads == {"members": ["board", "user_id", "note"]}


@pytest.mark.parametrize("invoker", [False, True])
def test_a_view_reads_as_its_owner_unless_it_is_invokers(
    docs: psycopg.Connection, invoker: bool
) -> None:
    option = "with (security_invoker = true)" if invoker else ""
    docs.execute(
        (
            RLS_ON_MEMBERS + f"; create view v {option} as select m.board as b from members m"
        ).encode()
    )
    docs.execute("grant select on v to authenticated")
    found = judge(docs, "board in (select v.b from v)")
    assert found.cacheable, found.reasons
    assert ("boards2" in found.reads) == invoker


def test_row_security_that_is_off_is_not_read(docs: psycopg.Connection) -> None:
    found = judge(docs, MEMBER, RLS_ON_MEMBERS + "; alter table members disable row level security")
    assert found.reads == {"members": ["board", "user_id"]}


def test_foreign_auth_functions_are_believed_only_where_they_read_claims(
    docs: psycopg.Connection,
) -> None:
    likely = """
        select coalesce(
            nullif(current_setting('request.jwt.claim.sub', true), ''),
            (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
        )::uuid
    """
    judge(docs, "owner = auth.uid()")
    docs.execute("alter function auth.uid() owner to postgres")
    for body, believed in (
        (likely, True),
        ("select m.user_id from public.members m limit 1", False),
        ("select public.who()", False),
        ("select current_setting('app.user_id', true)::uuid", False),
        ("select public . who ()", False),
        ('select "public"."who"()', False),
        ("select case when current_timestamp > '2030-01-01' then null::uuid end", False),
        ("select case when 'now'::timestamptz > '2030-01-01' then null::uuid end", False),
    ):
        docs.execute("set local check_function_bodies = off")
        docs.execute(
            b"create or replace function auth.uid() returns uuid language sql stable as $x$%s$x$"
            % body.encode()
        )
        assert reads(docs).cacheable == believed, body


# Whether changes of what is read are heard of


def test_a_table_read_without_triggers_is_not_kept(docs: psycopg.Connection) -> None:
    assert judge(docs, MEMBER).cacheable
    for change, undo in (
        ("alter table members disable trigger all", "alter table members enable trigger all"),
        (
            "alter table docs disable trigger zzz_rowcast_update",
            "alter table docs enable trigger all",
        ),
    ):
        docs.execute(change.encode())
        assert not reads(docs).cacheable
        docs.execute("select sync.refresh('docs')")
        assert reads(docs).cacheable, change
        docs.execute(undo.encode())
        docs.execute("select sync.refresh('docs')")


def test_a_policy_that_has_come_to_read_more_waits_for_a_refresh(docs: psycopg.Connection) -> None:
    assert judge(docs, MEMBER).cacheable
    for change in (
        "alter policy p on docs using (board is not null and owner = auth.uid())",
        "alter policy p on docs using (exists (select from members m where m.role = 'x'))",
        "alter policy p on docs using (exists (select from boards2 b where b.id = board))",
        f"{FUNCTION}; alter policy p on docs using (board = any (array(select my_boards())))",
        "create view v with (security_invoker) as select user_id from members; alter policy p on "
        "docs using (exists (select from v where v.user_id = owner))",
    ):
        docs.execute("savepoint before")
        docs.execute(change.encode())
        said = reads(docs)
        assert not said.cacheable, change
        assert all("sync.refresh('docs')" in reason for reason in said.reasons), said.reasons
        docs.execute("select sync.refresh('docs')")
        assert reads(docs).cacheable, reads(docs).reasons
        docs.execute("rollback to before")
    docs.execute("alter policy p on docs using (board is not null)")
    assert reads(docs).cacheable


def test_a_table_that_is_not_live_is_told_so(docs: psycopg.Connection) -> None:
    docs.execute("create policy p on docs for select to authenticated using (owner = auth.uid())")
    assert reads(docs) == Report(False, ["docs is not live"], ["owner"], {})


# The class of a row


def classes(conn: psycopg.Connection[Any]) -> list[str]:
    query = "select class from sync_internal.changes where table_name = 'docs' order by seq"
    return [row[0] for row in conn.execute(query).fetchall()]


@pytest.mark.parametrize(
    ("column", "first", "second", "settings"),
    [
        ("day", "2024-02-01", "2024-01-02", ("datestyle = 'SQL, MDY'", "datestyle = 'SQL, DMY'")),
        ("n", "1.0", "1.00", ("timezone = 'utc'", "timezone = 'utc'")),
        ("ratio", "0.1", "0.10000000000000002", ("extra_float_digits = -3",) * 2),
        ("kind", "a", "A", ("timezone = 'utc'", "timezone = 'utc'")),
    ],
)
def test_rows_that_differ_never_have_one_class(
    docs: psycopg.Connection, column: str, first: str, second: str, settings: tuple[str, str]
) -> None:
    assert judge(docs, f"{column} is not null").cacheable
    for setting, content in zip(settings, (first, second), strict=True):
        docs.execute(f"set local {setting}".encode())
        docs.execute("set local datestyle = 'ISO'" if column != "day" else b"select 1")
        docs.execute(
            f"insert into docs ({column}) select %s::text::{_type(docs, column)}".encode()
            if column != "day"
            else b"insert into docs (day) select make_date(%s, %s, %s)",
            (content,) if column != "day" else tuple(map(int, content.split("-"))),
        )
    one, other = classes(docs)
    assert one != other


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize(
    ("using", "change"),
    [
        ("version < 2", "kind = 'x'"),
        ("data ->> 'a' = '1.0'", """data = '{"a": 1.00}'"""),
        ("n::text = '1.0'", "n = 1.00"),
        ("kind = 'a'", "kind = 'A'"),
    ],
    ids=["version", "number in a document", "number", "text"],
)
def test_a_row_whose_class_changes_has_moved(
    docs: psycopg.Connection, using: str, change: str, rows: int
) -> None:
    assert judge(docs, using).cacheable
    docs.execute(
        b"""insert into docs (n, kind, data) select 1.0, 'a', '{"a": 1.0}'
        from generate_series(1, %d)"""
        % rows
    )
    before = set(classes(docs))
    docs.execute(f"update docs set {change}".encode())
    moved = docs.execute(
        "select class_before, class from sync_internal.changes "
        "where table_name = 'docs' and kind = 'update'"
    ).fetchall()
    assert len(moved) == rows
    assert {one for one, _ in moved} == before
    assert all(one != other for one, other in moved)


def test_one_value_is_one_class_whatever_the_settings(docs: psycopg.Connection) -> None:
    assert judge(docs, "at is not null and ratio > 0").cacheable
    for zone, digits in (("utc", 0), ("Asia/Tokyo", 3)):
        docs.execute(
            f"set local timezone = '{zone}'; set local extra_float_digits = {digits}".encode()
        )
        docs.execute("insert into docs (at, ratio) values ('2024-01-01 00:00:00Z', 0.1)")
    one, other = classes(docs)
    assert one == other


def _type(conn: psycopg.Connection[Any], column: str) -> str:
    found: str = value(
        conn,
        "select format_type(atttypid, atttypmod) from pg_attribute "
        "where attrelid = 'docs'::regclass and attname = %s",
        column,
    )
    return found


def test_a_class_says_of_which_columns_it_is(docs: psycopg.Connection) -> None:
    """A change from before a policy was changed must not pass for one of today's classes."""
    judge(docs, "owner = auth.uid()")
    insert = "insert into docs (owner, board) select gen_random_uuid(), %s"
    same = value(docs, "select gen_random_uuid()")
    docs.execute("insert into docs (owner) values (%s)", (same,))
    docs.execute("alter policy p on docs using (board = auth.uid())")
    docs.execute("select sync.refresh('docs')")
    docs.execute(insert, (same,))
    one, other = classes(docs)
    assert str(same) in one
    assert str(same) in other
    assert one != other


# The example apps

EXAMPLES: dict[str, tuple[Iterable[str], dict[str, list[str]]]] = {
    "workspaces": (["id", "owner_id"], {"workspace_members": ["workspace_id", "user_id"]}),
    "workspace_members": (["workspace_id"], {"workspace_members": ["workspace_id", "user_id"]}),
    "boards": (["workspace_id"], {"workspace_members": ["workspace_id", "user_id"]}),
    "tasks": (
        ["board_id"],
        {"boards": ["id", "workspace_id"], "workspace_members": ["workspace_id", "user_id"]},
    ),
    "comments": (
        ["task_id"],
        {
            "tasks": ["id", "board_id"],
            "boards": ["id", "workspace_id"],
            "workspace_members": ["workspace_id", "user_id"],
        },
    ),
    "notebooks": (["id", "owner_id"], {"notebook_members": ["notebook_id", "user_id"]}),
    "notebook_members": (["notebook_id"], {"notebook_members": ["notebook_id", "user_id"]}),
    "notes": (["notebook_id"], {"notebook_members": ["notebook_id", "user_id"]}),
}


@pytest.mark.parametrize("table", EXAMPLES)
def test_tables_of_the_examples_can_be_kept(tx: psycopg.Connection, table: str) -> None:
    columns, tables = EXAMPLES[table]
    assert reads(tx, f"public.{table}") == Report(True, [], list(columns), tables)
    for role in ("anon", "service_role"):
        assert reads(tx, f"public.{table}", role) == Report(True, [], [], {})


def test_closure_holds_all_that_postgres_itself_records(tx: psycopg.Connection) -> None:
    """pg_depend leaves things out, but what it names must be in the closure."""
    rows = tx.execute("""
        select p.polrelid::regclass::text, d.refobjid::regclass::text, a.attname::text
        from pg_policy p
        join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
        join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where p.polcmd = 'r' and p.polname ~ '_select$'
    """).fetchall()
    assert len(rows) > 8
    for table, read, column in rows:
        found = reads(tx, table)
        assert column in (found.columns if table == read else found.reads[read])
