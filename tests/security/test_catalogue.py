"""House rules of security, read from the catalogue."""

from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.sql.engine import live

pytestmark = pytest.mark.both_versions

OURS = (
    "p.pronamespace in ('sync'::regnamespace, 'sync_internal'::regnamespace,"
    " 'accounts'::regnamespace, 'jobs'::regnamespace)"
)
END_USERS = "unnest(array['anon', 'authenticated', 'service_role'])"
APPLICATION = (
    "unnest(array['anon', 'authenticated', 'service_role', 'rowcast_gateway', 'rowcast_worker'])"
)

# What each role may call of the API. Everything else of schema sync is for the owner alone.
END_USER_API = {
    "act_as(text,text,jsonb)",
    "apply(jsonb,uuid,jsonb)",
    "describe()",
    "get_records(jsonb)",
    "may_edit(regclass,text,text)",
    "now()",
    "query(jsonb)",
    "write(jsonb)",
}
SERVICE_API = END_USER_API | {
    "disable_user(text)",
    "enable_user(text)",
    "end_sessions(text)",
    "status()",
}
GATEWAY_API = {
    "act_as(text,text,jsonb)",
    "describe()",
    "doctor()",
    "gateway_access()",
    "gateway_bell(boolean)",
    "gateway_changes(text,boolean)",
    "gateway_confirm_file(text,text,text,bigint,text)",
    "gateway_reject_upload(text,text,integer)",
    "gateway_fence()",
    "gateway_file(text,text,text)",
    "gateway_file_key()",
    "gateway_get_records(text,text,bigint)",
    "gateway_note_policies(text)",
    "gateway_probe(text[],jsonb,text)",
    "gateway_query(text,text,bigint)",
    "gateway_query_open(text,text,bigint)",
    "gateway_signal(uuid,text[],boolean)",
    "gateway_signals(uuid,text)",
    "gateway_report(text,text,double precision,integer)",
    "gateway_sessions(text[])",
    "gateway_status()",
    "gateway_subscribe(text,text[],text,text[])",
    "gateway_sweep(integer)",
    "gateway_not_swept(uuid[])",
    "gateway_swept(jsonb)",
    "gateway_unknown_files(uuid[])",
    "gateway_views(text[],jsonb)",
    "gateway_visible(text,jsonb,boolean)",
    "gateway_write(text[],text[],boolean[],bigint[])",
    "now()",
    "prune()",
    "status()",
}
WORKER_API = {
    "act_as(text,text,jsonb)",
    "describe()",
    "doctor()",
    "gateway_sweep(integer)",
    "gateway_not_swept(uuid[])",
    "gateway_swept(jsonb)",
    "gateway_unknown_files(uuid[])",
    "now()",
    "prune()",
    "status()",
}
API = {
    "anon": END_USER_API,
    "authenticated": END_USER_API | {"sign_out()"},
    "service_role": SERVICE_API,
    "rowcast_gateway": GATEWAY_API,
    "rowcast_worker": WORKER_API,
}

# Of users, for trusted backends alone: an id is all they take, and nothing is all they give.
OF_USERS = {"sync.disable_user(text)", "sync.enable_user(text)", "sync.end_sessions(text)"}
# Sends a mail to an address, for trusted backends alone; it tells nothing of who has it.
OF_ADDRESSES = {"accounts.invite(text,jsonb)"}
# What each role may call of accounts.
ACCOUNTS = {
    "anon": set(),
    "authenticated": set(),
    "service_role": {"invite(text,jsonb)"},
    "rowcast_gateway": {
        "gateway_begin_change(uuid,bytea,bytea)",
        "gateway_begin_sign_in(text,text,boolean,uuid,text)",
        "gateway_begin_sign_up(text,text)",
        "gateway_change_password(uuid,bytea,bytea,text,text)",
        "gateway_guest(text,uuid,bytea,bytea)",
        "gateway_guest_session(uuid,bytea,bytea)",
        "gateway_me(text)",
        "gateway_open_link(text,bytea,bytea,text)",
        "gateway_provider_sign_in(text,text,text,text,boolean,uuid,text,uuid,bytea,bytea)",
        "gateway_refresh(uuid,bytea,bytea,bytea,bytea)",
        "gateway_request_reset(text,uuid,bytea,text)",
        "gateway_reset(bytea,text,uuid,bytea,bytea)",
        "gateway_sign_in(text,text,text,text,uuid,bytea,bytea,uuid,text)",
        "gateway_sign_out(uuid,bytea,boolean)",
        "gateway_sign_up(text,text,uuid,bytea,bytea,uuid,bytea,bytea)",
        "gateway_verify(bytea,uuid,bytea,bytea)",
        "gateway_topics(text[])",
        "gateway_unsubscribe(uuid,text[])",
        "mails_due(integer)",
    },
    "rowcast_worker": {
        "gateway_topics(text[])",
        "mail_sent(uuid)",
        "mails_due(integer)",
        "worker_digest(uuid)",
        "worker_mail(uuid)",
        "worker_notices(uuid)",
        "worker_outbox(uuid)",
        "worker_post_digest(uuid,jsonb,jsonb)",
        "worker_wanted(uuid,jsonb)",
    },
}

# Starts and mends jobs, for trusted backends alone.
OF_JOBS = {
    "jobs.cancel(bigint)",
    "jobs.depth()",
    "jobs.enqueue(text,jsonb,timestamp with time zone,text,integer)",
    "jobs.list(text,integer)",
    "jobs.remove_webhook(text)",
    "jobs.requeue(bigint,text)",
    "jobs.send_webhook(text,text,jsonb,text)",
    "jobs.set_webhook(text,text,text)",
}
# The user's own exports and imports; a run is named by an id that is looked at.
OF_TRANSFERS = {"jobs.begin_import()", "jobs.start_export()", "jobs.start_import(uuid,jsonb)"}
# Of an example app, whose owner of a workspace is the only one it serves.
OF_EXAMPLES = {"set_workspace_webhook(uuid,text)"}
# What each role may call of jobs.
JOBS = {
    "anon": set(),
    "authenticated": {name.removeprefix("jobs.") for name in OF_TRANSFERS},
    "service_role": {name.removeprefix("jobs.") for name in OF_JOBS},
    "rowcast_gateway": {"depth()"},
    "rowcast_worker": {
        "depth()",
        "prune()",
        "worker_assume(jsonb)",
        "worker_beat(uuid,bigint[])",
        "worker_begin(bigint,uuid)",
        "worker_call(bigint,uuid)",
        "worker_disabled(jsonb)",
        "worker_done(bigint,jsonb)",
        "worker_expect(bigint,uuid)",
        "worker_export(bigint,uuid)",
        "worker_exported(bigint,uuid,text,bigint,text,jsonb)",
        "worker_file(bigint,jsonb,text,uuid)",
        "worker_filed(bigint,jsonb,text,uuid,text,bigint,text)",
        "worker_import(bigint,uuid)",
        "worker_lost(jsonb,text)",
        "worker_objects(uuid[])",
        "worker_open(uuid)",
        "worker_progress(bigint,uuid,double precision,text)",
        "worker_purge(integer)",
        "worker_settle(uuid,jsonb)",
        "worker_statistics()",
        "worker_take(bigint,uuid)",
        "worker_tick()",
        "worker_transferred(bigint,uuid,text,jsonb)",
        "worker_transfers(bigint,uuid,double precision,text)",
        "worker_webhook(text)",
        "worker_webhook_gone(text,text)",
    },
}
# What is granted of tables and sequences of jobs: what pgqueuer's own statements need, and the
# columns of a run.
JOBS_TABLES = {
    "rowcast_worker jobs.pgqueuer",
    "rowcast_worker jobs.pgqueuer_log",
    "rowcast_worker jobs.pgqueuer_statistics",
    "authenticated jobs.run_files",
    "authenticated jobs.runs",
    "service_role jobs.run_files",
    "service_role jobs.runs",
}

# Definer functions end users can reach, and what each can tell. Names of tables lead to generated
# code, which runs with the caller's own rights.
REACHABLE_DEFINERS = {
    *OF_USERS,
    *OF_ADDRESSES,
    *OF_JOBS,
    *OF_TRANSFERS,
    # The caller's own sessions.
    "sync.sign_out()",
    # Sizes and times; nothing of rows. For trusted backends.
    "sync.status()",
    # The registry as a whole: wire names, types and allowed values; nothing of rows.
    "sync.describe()",
    # The caller's own identity.
    "sync_internal.login_claims()",
    # A place in the feed: numbers of transactions, nothing of what they changed.
    "sync_internal.cursor_now(xid8)",
    # Receipts, by an id that only its author knows. Of another's they tell that it is taken; what
    # is stored stands under the caller's name, and claims changes of his own transaction alone.
    "sync_internal.claim_receipt(uuid,bigint)",
    "sync_internal.lock_receipts(uuid[])",
    "sync_internal.receipt_known(uuid)",
    "sync_internal.store_new_receipt(uuid,bigint,jsonb,bigint)",
    "sync_internal.store_receipt(uuid,bigint,jsonb,bigint)",
}


@pytest.fixture
def conn(quiet_db: Database) -> psycopg.Connection[Any]:
    """A superuser on a database that lived a little: made live, configured, mapped, exposed."""
    conn = quiet_db.connect()
    if conn.execute("select to_regclass('public.lived')").fetchone() == (None,):
        live(conn, "lived", "id text primary key, n integer")
        conn.execute("select sync.configure('max_path', 16)")
        conn.execute("select sync.map_identity('app.user_id', 'sub')")
        conn.execute("select sync.membership('public.workspace_members', 'user_id')")
        conn.execute("select sync.trust('rowcast_worker')")
        conn.execute("create function public.called() returns integer language sql as 'select 1'")
        conn.execute("select sync.expose('public.called()')")
        conn.execute("select sync.refresh()")
    return conn


def column(conn: psycopg.Connection[Any], query: str) -> list[Any]:
    return [row[0] for row in conn.execute(query.encode()).fetchall()]


def test_row_security_is_on_for_live_tables_and_their_leaves(conn: psycopg.Connection) -> None:
    query = """
        select c.oid::regclass::text
        from sync_internal.tables t
        cross join lateral (
            select t.relation union select l.relid from pg_partition_tree(t.relation) l
        ) r (relation)
        join pg_class c on c.oid = r.relation
        where not c.relrowsecurity
    """
    assert column(conn, query) == []
    assert len(column(conn, "select name from sync_internal.tables")) >= 8


def test_every_live_table_has_policies_only_for_named_roles(conn: psycopg.Connection) -> None:
    query = """
        select t.relation::text from sync_internal.tables t
        where t.name <> 'lived'
            and (exists (select from pg_policy p where p.polrelid = t.relation and 0 = any
                (p.polroles))
            or not exists (select from pg_policy p where p.polrelid = t.relation and p.polcmd in
                ('r', '*')))
    """
    assert column(conn, query) == []


def test_application_roles_neither_own_live_tables_nor_bypass_their_policies(
    conn: psycopg.Connection,
) -> None:
    query = f"""
        select r.role from {APPLICATION} r (role) join pg_roles p on p.rolname = r.role
        where p.rolsuper or p.rolbypassrls or p.rolcreaterole or p.rolcreatedb or p.rolreplication
        union all
        select r.role from {APPLICATION} r (role), sync_internal.tables t join pg_class c on c.oid =
            t.relation
        where pg_has_role(r.role, c.relowner, 'member')
        union all
        select r.role from {APPLICATION} r (role) where pg_has_role(r.role, 'rowcast_owner',
            'member')
    """
    assert column(conn, query) == []


def test_gateway_can_become_the_two_end_user_roles_and_nothing_else(
    conn: psycopg.Connection,
) -> None:
    query = """
        select r.rolname::text from pg_roles r
        where pg_has_role('rowcast_gateway', r.oid, 'member') and r.rolname <> 'rowcast_gateway'
            order by 1
    """
    assert column(conn, query) == ["anon", "authenticated"]
    assert (
        column(conn, "select rolinherit from pg_roles where rolname ~ '^rowcast_(gateway|worker)$'")
        == [False] * 2
    )
    assert (
        column(
            conn,
            f"select rolname from pg_roles, {END_USERS} r (role) where rolname = role and "
            "rolcanlogin",
        )
        == []
    )


def test_our_functions_belong_to_our_owner(conn: psycopg.Connection) -> None:
    query = (
        f"select p.oid::regprocedure::text from pg_proc p where {OURS} and p.proowner <> "
        "'rowcast_owner'::regrole"
    )
    assert column(conn, query) == []


def test_our_relations_and_types_belong_to_our_owner(conn: psycopg.Connection) -> None:
    query = """
        select c.oid::regclass::text from pg_class c
        where c.relnamespace in ('sync'::regnamespace, 'sync_internal'::regnamespace,
            'accounts'::regnamespace, 'jobs'::regnamespace)
            and c.relowner <> 'rowcast_owner'::regrole and c.relname <> 'migrations'
    """
    assert column(conn, query) == []
    schemas = (
        "select nspname from pg_namespace where nspname in ('sync', 'sync_internal', 'accounts', "
        "'jobs') and nspowner <> 'rowcast_owner'::regrole"
    )
    assert column(conn, schemas) == []


def test_public_can_execute_nothing_of_ours(conn: psycopg.Connection) -> None:
    query = f"""
        select p.oid::regprocedure::text from pg_proc p
        where {OURS} and (p.proacl is null or exists (
            select from aclexplode(p.proacl) a where a.grantee = 0
        ))
    """
    assert column(conn, query) == []


def test_future_functions_are_not_for_public_either(conn: psycopg.Connection) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("set local role rowcast_owner")
        conn.execute(
            "create function sync_internal.later() returns integer language sql as 'select 1'"
        )
        query = "select has_function_privilege('anon', 'sync_internal.later()', 'execute')"
        assert conn.execute(query).fetchone() == (False,)


def test_every_definer_function_pins_its_search_path(conn: psycopg.Connection) -> None:
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.prosecdef and p.pronamespace not in ('pg_catalog'::regnamespace,
            'information_schema'::regnamespace)
            and 'search_path=pg_catalog, pg_temp' <> all (coalesce(p.proconfig, '{}'))
    """
    assert column(conn, query) == []
    assert len(column(conn, f"select 1 from pg_proc p where p.prosecdef and {OURS}")) > 20


def test_definer_functions_end_users_can_reach_are_these(conn: psycopg.Connection) -> None:
    query = f"""
        select p.oid::regprocedure::text from pg_proc p
        where p.prosecdef and {OURS}
            and exists (select from {END_USERS} r (role) where has_function_privilege(r.role, p.oid,
            'execute'))
    """
    assert set(column(conn, query)) == REACHABLE_DEFINERS


def test_no_definer_function_end_users_can_reach_takes_a_name(
    conn: psycopg.Connection,
) -> None:
    """Neither a wire name nor a relation: only ids, numbers, and outcomes to be stored."""
    query = f"""
        select p.oid::regprocedure::text from pg_proc p
        where p.prosecdef and p.pronamespace not in ('pg_catalog'::regnamespace,
            'information_schema'::regnamespace)
            and exists (select from {END_USERS} r (role) where has_function_privilege(r.role, p.oid,
            'execute'))
            and exists (
                select from unnest(p.proargtypes::oid[]) a (type)
                where a.type not in ('uuid'::regtype, 'uuid[]'::regtype, 'bigint'::regtype,
                    'xid8'::regtype, 'jsonb'::regtype)
            )
    """
    assert set(column(conn, query)) - OF_JOBS == OF_USERS | OF_ADDRESSES | OF_EXAMPLES


def test_no_reachable_definer_function_takes_a_relation_or_runs_text(
    conn: psycopg.Connection,
) -> None:
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.prosecdef and p.pronamespace not in ('pg_catalog'::regnamespace,
            'information_schema'::regnamespace)
            and exists (
                select from unnest(array['anon', 'authenticated', 'service_role', 'rowcast_gateway',
                    'rowcast_worker']) r (role)
                where has_function_privilege(r.role, p.oid, 'execute')
            )
            and (
                p.proargtypes::oid[] && array['regclass', 'oid', 'regprocedure', 'regproc',
                    'regtype', 'name']::regtype[]::oid[]
                or p.pronargs > 0 and p.prosrc ~* '\\mexecute\\s+(format|\\$|v_|p_|'')'
            )
    """
    assert column(conn, query) == []


@pytest.mark.parametrize("role", API)
def test_api_of_each_role_is_exactly_this(conn: psycopg.Connection, role: str) -> None:
    query = f"""
        select replace(p.oid::regprocedure::text, 'sync.', '') from pg_proc p
        where p.pronamespace = 'sync'::regnamespace and has_function_privilege('{role}', p.oid,
            'execute')
    """
    assert set(column(conn, query)) == API[role]
    for schema, expected in (("accounts", ACCOUNTS), ("jobs", JOBS)):
        assert set(column(conn, query.replace("sync", schema))) == expected[role]


def test_code_generated_for_a_role_is_for_that_role_alone(conn: psycopg.Connection) -> None:
    query = f"""
        select p.oid::regprocedure::text from pg_proc p, {APPLICATION} r (role)
        where p.pronamespace = 'sync_internal'::regnamespace
            and p.proname ~
                '^(check|patch|read|insert|update|several|lock|delete|clash|fetch)_[a-zA-Z0-9]+_(anon|authenticated|service_role)$'
            and p.proname !~ ('_' || r.role || '$')
            and has_function_privilege(r.role, p.oid, 'execute')
    """
    assert column(conn, query) == []


def test_tables_of_ours_are_out_of_reach(conn: psycopg.Connection) -> None:
    query = f"""
        select format('%s %s', r.role, c.oid::regclass) from pg_class c, {APPLICATION} r (role)
        where c.relnamespace in ('sync'::regnamespace, 'sync_internal'::regnamespace,
            'accounts'::regnamespace, 'jobs'::regnamespace)
            and c.relkind in ('r', 'p', 'v', 'm', 'f')
            and (
                has_table_privilege(r.role, c.oid,
                    'select, insert, update, delete, truncate, references, trigger')
                or has_any_column_privilege(r.role, c.oid, 'select, insert, update, references')
            )
    """
    assert set(column(conn, query)) == JOBS_TABLES
    sequences = f"""
        select format('%s %s', r.role, c.oid::regclass) from pg_class c, {APPLICATION} r (role)
        where c.relnamespace = 'sync_internal'::regnamespace and c.relkind = 'S'
            and has_sequence_privilege(r.role, c.oid, 'select, update')
    """
    assert column(conn, sequences) == []


def test_tables_of_ours_have_row_security_or_no_grants(conn: psycopg.Connection) -> None:
    query = """
        select c.oid::regclass::text from pg_class c
        where c.relnamespace in ('sync'::regnamespace, 'sync_internal'::regnamespace,
            'accounts'::regnamespace, 'jobs'::regnamespace) and c.relkind
            in ('r', 'p')
            and not c.relrowsecurity and exists (
                select from aclexplode(c.relacl) a
                where a.grantee not in (c.relowner, 'rowcast_owner'::regrole, 10)
            )
    """
    assert column(conn, query) == []


def test_nobody_but_the_owner_creates_in_our_schemas(conn: psycopg.Connection) -> None:
    query = f"""
        select format('%s %s', r.role, n.nspname) from pg_namespace n, {APPLICATION} r (role)
        where n.nspname in ('sync', 'sync_internal', 'accounts', 'jobs', 'auth', 'app_private',
            'demo_auth')
            and has_schema_privilege(r.role, n.oid, 'create')
    """
    assert column(conn, query) == []


def test_end_users_have_no_rights_that_policies_do_not_govern(conn: psycopg.Connection) -> None:
    query = f"""
        select format('%s %s', r.role, t.relation) from sync_internal.tables t, {END_USERS} r (role)
        where t.name <> 'lived' and has_table_privilege(r.role, t.relation,
            'truncate, references, trigger')
    """
    assert column(conn, query) == []
    anon = (
        "select relation::text from sync_internal.tables where "
        "has_any_column_privilege('anon', relation, 'select, insert, update')"
    )
    assert column(conn, anon) == []


def test_credentials_are_not_live_and_out_of_reach(conn: psycopg.Connection) -> None:
    query = f"""
        select r.role from {END_USERS} r (role)
        where has_schema_privilege(r.role, 'demo_auth', 'usage') or has_table_privilege(r.role,
            'demo_auth.users', 'select')
    """
    assert column(conn, query) == []
    live_ = "select relation::text from sync_internal.tables where relation::text like 'demo_auth%'"
    assert column(conn, live_) == []
    assert (
        column(
            conn,
            "select relation::text from sync_internal.tables where relation::text ~ "
            "'^(sync|auth|accounts|pg_)'",
        )
        == []
    )


def test_every_function_is_commented_and_says_its_volatility(conn: psycopg.Connection) -> None:
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace in ('sync'::regnamespace, 'auth'::regnamespace,
            'accounts'::regnamespace, 'jobs'::regnamespace)
            and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
    """
    assert column(conn, query) == []


def test_functions_that_say_who_is_asking_are_bound_when_they_are_made(
    conn: psycopg.Connection,
) -> None:
    """Policies call them under whatever search_path the caller has set."""
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.oid in (
            'auth.uid()'::regprocedure, 'auth.jwt()'::regprocedure, 'auth.role()'::regprocedure,
            'sync_internal.claims()'::regprocedure, 'sync_internal.login_claims()'::regprocedure
        )
            and p.prosqlbody is null
            and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)
    """
    assert column(conn, query) == []


def test_triggers_of_ours_are_enabled_for_origin_and_replica(conn: psycopg.Connection) -> None:
    query = """
        select t.tgrelid::regclass || ' ' || t.tgname from pg_trigger t
        where t.tgname like 'zzz_rowcast%'
            and t.tgenabled <> (
                case substring(t.tgname from '[a-z]+$') when 'truncate' then 'A' when 'replica' then
                    'R' else 'O' end
            )::"char"
    """
    assert column(conn, query) == []


def test_names_of_ours_sort_last_among_the_triggers_of_a_table(conn: psycopg.Connection) -> None:
    query = """
        select t.tgrelid::regclass || ' ' || t.tgname from pg_trigger t
        join sync_internal.tables l on l.relation = t.tgrelid
        where not t.tgisinternal and t.tgname > 'zzz_rowcast' and t.tgname not like 'zzz_rowcast%'
    """
    assert column(conn, query) == []


def test_login_roles_carry_the_timeouts(conn: psycopg.Connection) -> None:
    query = """
        select r.rolname || ' ' || array_to_string(s.setconfig, ' ') from pg_db_role_setting s
        join pg_roles r on r.oid = s.setrole
        where r.rolname like 'rowcast%' and s.setdatabase in (
            select d.oid from pg_database d where d.datname in (current_database(),
                'template_rowcast')
        )
    """
    found = " ".join(column(conn, query))
    for setting in (
        "statement_timeout=",
        "lock_timeout=",
        "idle_in_transaction_session_timeout=",
        "search_path=",
        "jit=off",
        "tcp_keepalives_idle=10",
        "tcp_user_timeout=",
    ):
        assert setting in found
