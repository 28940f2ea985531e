"""The SQL functions the gateway calls, one typed call each. All SQL text of the gateway is here.

Each statement runs by itself in autocommit: the functions set role and claims for the length of
their transaction only. `where current_user = session_user` is decided before the function runs
and costs no round trip: a connection that still wears a role answers with no row (see db.py).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import orjson
import psycopg
from psycopg.rows import TupleRow

from .db import Connection, Database, Lane, Unclean, transaction, watched

# Bodies go in binary: as text an array is escaped character by character, 40 us a request.
WRITE: Final[LiteralString] = (
    "select w.ord, w.status, w.body, w.again"
    " from sync.gateway_write("
    "p_claims => %b::text[], p_bodies => %b::text[], p_dry_run => %s::boolean[],"
    " p_schemas => %s::bigint[]) as w"
    " where current_user = session_user"
)
GET_RECORDS: Final[LiteralString] = (
    "select sync.gateway_get_records(p_claims => %s, p_body => %s, p_schema => %s)"
    " where current_user = session_user"
)
QUERY: Final[LiteralString] = (
    "select sync.gateway_query(p_claims => %s, p_body => %s, p_schema => %s)"
    " where current_user = session_user"
)
QUERY_OPEN: Final[LiteralString] = (
    "select sync.gateway_query_open(p_claims => %s, p_body => %s, p_schema => %s)"
    " where current_user = session_user"
)
# A row of the cursor is one record or hundreds of them: the step grows until a chunk is large
# enough to be worth its round trip, and shrinks before it is large enough to matter in memory.
QUERY_FETCH: Final[tuple[LiteralString, ...]] = (
    "fetch 1 from rowcast_page",
    "fetch 8 from rowcast_page",
    "fetch 64 from rowcast_page",
    "fetch 512 from rowcast_page",
    "fetch 2048 from rowcast_page",
)
SUBSCRIBE: Final[LiteralString] = (
    "select sync.gateway_subscribe("
    "p_claims => %s, p_keys => %s::text[], p_cursor => %s, p_opaque => %s::text[])"
    " where current_user = session_user"
)
CHANGES: Final[LiteralString] = (
    "select sync.gateway_changes(p_cursor => %s, p_fingerprint => %s)"
    " where current_user = session_user"
)
VISIBLE: Final[LiteralString] = (
    "select sync.gateway_visible(p_claims => %s, p_refs => %s::jsonb)"
    " where current_user = session_user"
)
RECORDS_FOR: Final[LiteralString] = (
    "select sync.gateway_visible(p_claims => %s, p_refs => %s::jsonb, p_records => true)"
    " where current_user = session_user"
)
PROBE: Final[LiteralString] = (
    "select sync.gateway_probe(p_claims => %s::text[], p_refs => %s::jsonb, p_cursor => %s)"
    " where current_user = session_user"
)
VIEWS: Final[LiteralString] = (
    "select sync.gateway_views(p_claims => %s::text[], p_keys => %s::jsonb)"
    " where current_user = session_user"
)
SESSIONS: Final[LiteralString] = (
    "select sync.gateway_sessions(p_claims => %s::text[]) where current_user = session_user"
)
REPORT: Final[LiteralString] = (
    "select sync.gateway_report("
    "p_name => %s, p_cursor => %s, p_seconds => %s, p_bit => %s)"
    " where current_user = session_user"
)
OVERVIEW: Final[LiteralString] = "select sync.status() where current_user = session_user"
POLICIES: Final[LiteralString] = (
    "select sync.gateway_access()::text where current_user = session_user"
)
NOTE_POLICIES: Final[LiteralString] = (
    "select sync.gateway_note_policies(p_fingerprint => %s) where current_user = session_user"
)
SIGNAL: Final[LiteralString] = (
    "select sync.gateway_signal(p_gateway => %s::uuid, p_bodies => %b::text[], p_trim => %s)"
    " where current_user = session_user"
)
SIGNALS: Final[LiteralString] = (
    "select sync.gateway_signals(p_gateway => %s::uuid, p_cursor => %s)"
    " where current_user = session_user"
)
CHUNK: Final = 512 * 1024  # characters
STATUS: Final[LiteralString] = "select sync.gateway_status() where current_user = session_user"
# On a large schema it takes longer than requests may.
DOCTOR_SECONDS: Final = 60
DOCTOR_PATIENCE: Final[LiteralString] = (
    "select pg_catalog.set_config('statement_timeout', '60s', true)"
)
DOCTOR_ERRORS: Final[LiteralString] = (
    "select (select coalesce(json_agg(json_build_object('code', d.code, 'object', d.object)), '[]')"
    " from sync.doctor() d where d.severity = 'error')::text where current_user = session_user"
)
SETTLE: Final[LiteralString] = (
    "select sync_internal.settle_epoch() where current_user = session_user"
)
UNUSABLE_CURSOR: Final = "-"  # of no history
# On connections of the doorbell's own.
RING: Final[LiteralString] = "select sync.gateway_bell(p_ring => true)"
REST: Final[LiteralString] = "select sync.gateway_bell(p_ring => false)"
FENCE: Final[LiteralString] = "select sync.gateway_fence()"
CHECK: Final[LiteralString] = "select 1"
# Of the worker; asyncpg numbers its parameters.
JOB_WORKER: Final[LiteralString] = "select jobs.worker_open(p_worker => $1)"
JOB_LOCK: Final[LiteralString] = "select pg_catalog.pg_advisory_lock(7215606, $1)"
JOB_TICK: Final[LiteralString] = "select jobs.worker_tick()::text"
JOB_DEPTH: Final[LiteralString] = "select kind, state, count, late_seconds from jobs.depth()"
JOB_BEGIN: Final[LiteralString] = "select jobs.worker_begin(p_id => $1, p_worker => $2)::text"
JOB_PATIENCE: Final[LiteralString] = "select pg_catalog.set_config('statement_timeout', $1, true)"
JOB_CALL: Final[LiteralString] = "select jobs.worker_call(p_id => $1, p_worker => $2)"
JOB_BEAT: Final[LiteralString] = "select jobs.worker_beat(p_worker => $1, p_jobs => $2::bigint[])"
JOB_SETTLE: Final[LiteralString] = (
    "select jobs.worker_settle(p_worker => $1, p_outcomes => $2::text::jsonb)"
)
JOB_ASSUME: Final[LiteralString] = "select jobs.worker_assume(p_claims => $1::text::jsonb)"
JOB_PROGRESS: Final[LiteralString] = (
    "select jobs.worker_progress(p_id => $1, p_worker => $2, p_progress => $3, p_message => $4)"
)
JOB_MAIL: Final[LiteralString] = "select accounts.worker_mail(p_id => $1::text::uuid)::text"
JOB_MAILED: Final[LiteralString] = "select accounts.mail_sent(p_id => $1::text::uuid)"
JOB_DIGEST: Final[LiteralString] = "select accounts.worker_digest(p_user => $1::text::uuid)"
JOB_PRUNE: Final[LiteralString] = "select sync.prune(), jobs.prune()"
JOB_PURGE: Final[LiteralString] = "select jobs.worker_purge()"
JOB_STATISTICS: Final[LiteralString] = "select jobs.worker_statistics()"
JOB_WEBHOOK: Final[LiteralString] = "select jobs.worker_webhook(p_name => $1)::text"
JOB_WEBHOOK_GONE: Final[LiteralString] = (
    "select jobs.worker_webhook_gone(p_name => $1, p_url => $2)"
)
EXPORT_BEGIN: Final[LiteralString] = "select jobs.worker_export(p_id => $1, p_worker => $2)::text"
# A reader that waits for the store is not a transaction that was forgotten.
EXPORT_PATIENCE: Final[LiteralString] = (
    "select pg_catalog.set_config('statement_timeout', '600s', true),"
    " pg_catalog.set_config('lock_timeout', '60s', true),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', '600s', true),"
    " pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text"
)
EXPORT_COUNT: Final[LiteralString] = "select sync_internal.count_readable(p_table => $1)"
EXPORT_TABLE: Final[LiteralString] = "select sync_internal.open_page(p_request => $1::text::jsonb)"
EXPORT_FETCH: Final[tuple[LiteralString, ...]] = (
    "fetch 4 from rowcast_page",
    "fetch 32 from rowcast_page",
    "fetch 256 from rowcast_page",
)
EXPORT_CLOSE: Final[LiteralString] = "close rowcast_page"
EXPORT_OBJECTS: Final[LiteralString] = (
    "select jobs.worker_objects(p_ids => $1::text[]::uuid[])::text"
)
EXPORT_GONE: Final[LiteralString] = (
    "select (sync.get_records(p_request => $1::text::jsonb) -> 'gone')::text"
)
EXPORT_LOST: Final[LiteralString] = (
    "select jobs.worker_lost(p_refs => $1::text::jsonb, p_xid => $2)"
)
EXPORT_END: Final[LiteralString] = (
    "select jobs.worker_exported(p_id => $1, p_worker => $2, p_object => $3, p_bytes => $4,"
    " p_sha256 => $5, p_found => $6::text::jsonb)::text"
)
IMPORT_BEGIN: Final[LiteralString] = "select jobs.worker_import(p_id => $1, p_worker => $2)::text"
IMPORT_PATIENCE: Final[LiteralString] = (
    "select pg_catalog.set_config('statement_timeout', '60s', true)"
)
IMPORT_WRITE: Final[LiteralString] = "select sync.write(p_transactions => $1::text::jsonb)::text"
IMPORT_FILE: Final[LiteralString] = (
    "select jobs.worker_file(p_id => $1, p_claims => $2::text::jsonb, p_table => $3,"
    " p_file => $4::text::uuid)::text"
)
IMPORT_FILED: Final[LiteralString] = (
    "select jobs.worker_filed(p_id => $1, p_claims => $2::text::jsonb, p_table => $3,"
    " p_file => $4::text::uuid, p_object => $5, p_bytes => $6, p_sha256 => $7)"
)
TRANSFER_PROGRESS: Final[LiteralString] = (
    "select jobs.worker_transfers(p_id => $1, p_worker => $2, p_progress => $3, p_message => $4)"
)
TRANSFERRED: Final[LiteralString] = (
    "select jobs.worker_transferred(p_id => $1, p_worker => $2, p_state => $3,"
    " p_result => $4::text::jsonb)"
)
PRUNE: Final[LiteralString] = "select sync.prune() where current_user = session_user"
FILE: Final[LiteralString] = (
    "select sync.gateway_file(p_claims => %s, p_body => %s, p_for => %s)"
    " where current_user = session_user"
)
CONFIRM_FILE: Final[LiteralString] = (
    "select sync.gateway_confirm_file("
    "p_claims => %s, p_body => %s, p_object => %s, p_bytes => %s, p_sha256 => %s)"
    " where current_user = session_user"
)
REJECT_UPLOAD: Final[LiteralString] = (
    "select sync.gateway_reject_upload(p_claims => %s, p_body => %s, p_attempt => %s)"
    " where current_user = session_user"
)
FILE_KEY: Final[LiteralString] = "select sync.gateway_file_key() where current_user = session_user"
SWEEP: Final[LiteralString] = (
    "select sync.gateway_sweep(p_limit => %s)::text where current_user = session_user"
)
SWEPT: Final[LiteralString] = (
    "select sync.gateway_swept(p_files => %s::jsonb) where current_user = session_user"
)
NOT_SWEPT: Final[LiteralString] = (
    "select sync.gateway_not_swept(p_ids => %s::uuid[]) where current_user = session_user"
)
UNKNOWN_FILES: Final[LiteralString] = (
    "select sync.gateway_unknown_files(p_ids => %s::uuid[])::text[]"
    " where current_user = session_user"
)
DEV_SIGN_IN: Final[LiteralString] = (
    "select (select u.user_id::text from demo_auth.users as u where u.name = %s)"
    " where current_user = session_user"
)

# Accounts. Parameters by name: what is secret in them is a hash.
BEGIN_SIGN_UP: Final[LiteralString] = (
    "select accounts.gateway_begin_sign_up("
    "p_email => %(email)s::text, p_address => %(address)s::text"
    ") where current_user = session_user"
)
SIGN_UP: Final[LiteralString] = (
    "select accounts.gateway_sign_up("
    "p_email => %(email)s::text, p_password_hash => %(password_hash)s::text, "
    "p_link => %(link)s::uuid, p_token_hash => %(token_hash)s::bytea, "
    "p_browser_hash => %(browser_hash)s::bytea, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
OPEN_LINK: Final[LiteralString] = (
    "select accounts.gateway_open_link("
    "p_purpose => %(purpose)s::text, p_token_hash => %(token_hash)s::bytea, "
    "p_browser_hash => %(browser_hash)s::bytea, p_address => %(address)s::text"
    ") where current_user = session_user"
)
VERIFY: Final[LiteralString] = (
    "select accounts.gateway_verify("
    "p_token_hash => %(token_hash)s::bytea, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
BEGIN_SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_begin_sign_in("
    "p_email => %(email)s::text, p_address => %(address)s::text, "
    "p_development => %(development)s::boolean, "
    "p_known => %(known)s::uuid, p_browser => %(browser)s::text"
    ") where current_user = session_user"
)
SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_sign_in("
    "p_email => %(email)s::text, p_address => %(address)s::text, "
    "p_password_hash => %(password_hash)s::text, p_new_hash => %(new_hash)s::text, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, "
    "p_known => %(known)s::uuid, p_browser => %(browser)s::text"
    ") where current_user = session_user"
)
GUEST: Final[LiteralString] = (
    "select accounts.gateway_guest("
    "p_address => %(address)s::text, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
REFRESH: Final[LiteralString] = (
    "select accounts.gateway_refresh("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, p_next_hash => %(next_hash)s::bytea, "
    "p_salt => %(salt)s::bytea"
    ") where current_user = session_user"
)
SIGN_OUT: Final[LiteralString] = (
    "select accounts.gateway_sign_out("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_everywhere => %(everywhere)s::boolean"
    ") where current_user = session_user"
)
ME: Final[LiteralString] = (
    "select accounts.gateway_me(p_claims => %(claims)s::text) where current_user = session_user"
)
BEGIN_CHANGE: Final[LiteralString] = (
    "select accounts.gateway_begin_change("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
SET_ANOTHER: Final[LiteralString] = (
    "select accounts.gateway_change_password("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea, p_old_hash => %(old_hash)s::text, "
    "p_new_hash => %(new_hash)s::text"
    ") where current_user = session_user"
)
REQUEST_RESET: Final[LiteralString] = (
    "select accounts.gateway_request_reset("
    "p_email => %(email)s::text, p_link => %(link)s::uuid, "
    "p_token_hash => %(token_hash)s::bytea, p_address => %(address)s::text"
    ") where current_user = session_user"
)
RESET: Final[LiteralString] = (
    "select accounts.gateway_reset("
    "p_token_hash => %(token_hash)s::bytea, p_new_hash => %(new_hash)s::text, "
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
PROVIDER_SIGN_IN: Final[LiteralString] = (
    "select accounts.gateway_provider_sign_in("
    "p_provider => %(provider)s::text, p_issuer => %(issuer)s::text, "
    "p_subject => %(subject)s::text, p_email => %(email)s::text, "
    "p_email_verified => %(email_verified)s::boolean, p_guest => %(guest)s::uuid, "
    "p_address => %(address)s::text, p_session => %(session)s::uuid, "
    "p_family_hash => %(family)s::bytea, p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
GUEST_SESSION: Final[LiteralString] = (
    "select accounts.gateway_guest_session("
    "p_session => %(session)s::uuid, p_family_hash => %(family)s::bytea, "
    "p_secret_hash => %(secret)s::bytea"
    ") where current_user = session_user"
)
UNSUBSCRIBE: Final[LiteralString] = (
    "select accounts.gateway_unsubscribe(p_user => %(user)s, p_topics => %(topics)s::text[])"
    " where current_user = session_user"
)
MAILS: Final[LiteralString] = (
    "select accounts.mails_due(p_most => %(most)s) where current_user = session_user"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcome of one write request: HTTP status, JSON body, and whether to call it again alone."""

    status: int
    body: str
    again: bool


async def write(
    lane: Lane,
    claims: Sequence[str | None],
    bodies: Sequence[str],
    dry_runs: Sequence[bool],
    schemas: Sequence[int | None],
    repeat: bool,
) -> list[Answer]:
    """Applies up to 32 requests in one commit; answers in the order asked. Raises psycopg.Error."""
    rows = await lane.rows(
        WRITE,
        (
            list(claims),
            list(bodies),
            list(dry_runs) if any(dry_runs) else None,
            None if all(schema is None for schema in schemas) else list(schemas),
        ),
        repeat,
    )
    answers = [Answer(500, "", True)] * len(bodies)
    for position, status, body, again in rows:
        answers[position - 1] = Answer(status or 500, body or "", again)
    return answers


async def get_records(lane: Lane, claims: str | None, body: str, schema: int | None) -> str:
    """The named records as far as the caller may read them, as JSON. Raises psycopg.Error."""
    text: str = await lane.value(GET_RECORDS, (claims, body, schema))
    return text


async def query(lane: Lane, claims: str | None, body: str, schema: int | None) -> str:
    """One page of a query, as JSON. Raises psycopg.Error."""
    text: str = await lane.value(QUERY, (claims, body, schema))
    return text


async def query_stream(
    database: Database, author: str, claims: str | None, body: str, schema: int | None
) -> AsyncGenerator[str, None]:
    """A query as NDJSON: first its header line, then records, a few hundred kilobytes at a time.

    The cursor lives in one read transaction on one connection, given back at the end or when the
    reader goes away. Raises psycopg.Error, and what `Streams.slot` does.
    """
    async with (
        database.streams.slot(author),
        database.work.connection() as connection,
        transaction(connection),
    ):
        with watched(connection):
            opened = await connection.execute(QUERY_OPEN, (claims, body, schema))
            header = await opened.fetchone()
        if header is None:
            await connection.close()
            raise Unclean("a role was left set")
        yield f"{header[0]}\n"
        async with aclosing(_chunks(connection)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _chunks(connection: Connection) -> AsyncGenerator[str, None]:
    """The cursor's rows, joined. The next chunk is fetched while the reader takes this one."""
    step = 1
    fetching = asyncio.create_task(_fetch(connection, QUERY_FETCH[step]))
    try:
        while rows := await fetching:
            chunk = "".join([f"{row[0]}\n" for row in rows])
            if len(chunk) < CHUNK // 4:
                step = min(step + 1, len(QUERY_FETCH) - 1)
            elif len(chunk) > CHUNK:
                step = max(step - 1, 0)
            fetching = asyncio.create_task(_fetch(connection, QUERY_FETCH[step]))
            yield chunk
    finally:
        # A reader who left: the connection must be at rest before it is given back.
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)


async def _fetch(connection: Connection, statement: LiteralString) -> list[TupleRow]:
    with watched(connection):
        cursor = await connection.execute(statement, prepare=False)
        return await cursor.fetchall()


async def subscribe(
    lane: Lane,
    claims: str | None,
    keys: Sequence[str],
    cursor: str | None,
    opaque: Sequence[str] = (),
) -> str:
    """What a subscription begins with, and the changes since `cursor`. Where catching up takes
    longer than a statement may, the keys are stale instead; so are resumed keys of the tables in
    `opaque`. Raises psycopg.Error.
    """
    try:
        text: str = await lane.value(SUBSCRIBE, (claims, list(keys), cursor, list(opaque)))
    except psycopg.errors.QueryCanceled:
        if cursor is None:
            raise
        text = await lane.value(SUBSCRIBE, (claims, list(keys), UNUSABLE_CURSOR, []))
    return text


async def changes(lane: Lane, cursor: str | None, fingerprint: bool) -> str:
    """Committed changes after `cursor`; without one, only a cursor. `fingerprint`: look at the
    catalogue too, which costs more than the rest. Raises psycopg.Error.
    """
    text: str = await lane.value(CHANGES, (cursor, fingerprint))
    return text


async def visible(lane: Lane, claims: str | None, refs: str) -> str:
    """Which of these records the caller may read now, with class and version."""
    text: str = await lane.value(VISIBLE, (claims, refs))
    return text


async def records_for(lane: Lane, claims: str | None, refs: str) -> str:
    """The same, each with its `record` as the caller may read it."""
    text: str = await lane.value(RECORDS_FOR, (claims, refs))
    return text


async def probe(lane: Lane, claims: Sequence[str | None], refs: str, cursor: str) -> str:
    """Which of these records each of the callers may read now, and which of them were changed
    again since `cursor`. Raises psycopg.Error.
    """
    text: str = await lane.value(PROBE, (list(claims), refs, cursor))
    return text


async def views(lane: Lane, claims: Sequence[str | None], keys: str) -> str:
    """The classes of rows each of the callers may read under each of his keys now."""
    text: str = await lane.value(VIEWS, (list(claims), keys))
    return text


async def sessions(lane: Lane, claims: Sequence[str]) -> list[bool]:
    """Which of these claims still count. Raises psycopg.Error."""
    counts: list[bool] = await lane.value(SESSIONS, (list(claims),))
    return counts


async def report(lane: Lane, name: str, cursor: str, seconds: float, bit: int | None) -> None:
    """A relay says where it is: how long ago it had read everything. Raises psycopg.Error."""
    await lane.value(REPORT, (name, cursor, seconds, bit))


async def overview(lane: Lane) -> dict[str, Any]:
    """Sizes and ages of feed and receipts, and where the relays are. Raises psycopg.Error."""
    found: dict[str, Any] = await lane.value(OVERVIEW, ())
    return found


async def policies(lane: Lane) -> str:
    """What the policies of live tables read. Raises psycopg.Error."""
    text: str = await lane.value(POLICIES, ())
    return text


async def note_policies(lane: Lane, fingerprint: str) -> None:
    """The policies were seen as `fingerprint` says. Raises psycopg.Error."""
    await lane.value(NOTE_POLICIES, (fingerprint,))


async def signal(lane: Lane, gateway: str, bodies: Sequence[str], trim: bool) -> None:
    """Tells the other gateways. Raises psycopg.Error; then they may have been told or not."""
    await lane.rows(SIGNAL, (gateway, list(bodies), trim), repeat=False)


async def signals(lane: Lane, gateway: str, cursor: str | None) -> str:
    """What the other gateways have told since a cursor. Raises psycopg.Error."""
    text: str = await lane.value(SIGNALS, (gateway, cursor))
    return text


async def status(lane: Lane) -> str:
    """Schema version, epoch, server time, readiness. Raises psycopg.Error."""
    text: str = await lane.value(STATUS, ())
    return text


async def doctor_errors(lane: Lane) -> str:
    """What `sync.doctor` counts as an error: [{code, object}]. Raises psycopg.Error."""
    async with lane.connection() as connection, connection.transaction():
        await connection.execute(DOCTOR_PATIENCE)
        cursor = await connection.execute(DOCTOR_ERRORS)
        ((text,),) = await cursor.fetchall()
    return str(text)


async def settle(lane: Lane) -> None:
    """Starts a new history where the server is another than the feed was written on."""
    await lane.value(SETTLE, ())


async def ring(keeper: Any, on: bool, timeout: float) -> int | None:  # noqa: ASYNC109
    """Says whether writers have to ring for this connection's relay; the bit it has, or None
    where nothing was done. Raises what asyncpg raises.
    """
    bit: int | None = await keeper.fetchval(RING if on else REST, timeout=timeout)
    return bit


async def fence(keeper: Any, timeout: float) -> int:  # noqa: ASYNC109
    """A transaction id younger than all that looked at the doorbell before."""
    xid: int = await keeper.fetchval(FENCE, timeout=timeout)
    return xid


async def check(connection: Any, timeout: float) -> None:  # noqa: ASYNC109
    """Whether PostgreSQL answers. Not prepared: that would hold back what a listener hears."""
    await connection.execute(CHECK, timeout=timeout)


async def prune(lane: Lane) -> None:
    """Ends what is older than the retention. Raises psycopg.Error."""
    await lane.value(PRUNE, ())


async def dev_sign_in(lane: Lane, name: str) -> str | None:
    """The id of a demo user, None if there is no such name. Raises psycopg.Error."""
    user_id: str | None = await lane.value(DEV_SIGN_IN, (name,))
    return user_id


async def file(lane: Lane, claims: str | None, body: str, what: str) -> str:
    """A file, if the caller may `upload`, `confirm` or `download` it. Raises psycopg.Error."""
    text: str = await lane.value(FILE, (claims, body, what))
    return text


async def confirm_file(
    lane: Lane, claims: str | None, body: str, name: str, size: int, sha256: str
) -> str:
    """Makes a file ready. Raises psycopg.Error."""
    text: str = await lane.value(CONFIRM_FILE, (claims, body, name, size, sha256))
    return text


async def reject_upload(lane: Lane, claims: str | None, body: str, attempt: int) -> bool:
    """Gives the next upload to a bucket another place. Raises psycopg.Error."""
    done: bool = await lane.value(REJECT_UPLOAD, (claims, body, attempt))
    return done


async def file_key(lane: Lane) -> str:
    """The key that signs links, in hex. Raises psycopg.Error."""
    text: str = await lane.value(FILE_KEY, ())
    return text


async def sweep(lane: Lane, limit: int) -> str:
    """Which files' objects are to be removed. Raises psycopg.Error."""
    text: str = await lane.value(SWEEP, (limit,))
    return text


async def swept(lane: Lane, files: str) -> int:
    """They have been. Raises psycopg.Error."""
    count: int = await lane.value(SWEPT, (files,))
    return count


async def not_swept(lane: Lane, ids: Sequence[str]) -> int:
    """They cannot be, for now. Raises psycopg.Error."""
    count: int = await lane.value(NOT_SWEPT, (list(ids),))
    return count


async def unknown_files(lane: Lane, ids: Sequence[str]) -> list[str]:
    """Those of these ids that no file has. Raises psycopg.Error."""
    unknown: list[str] = await lane.value(UNKNOWN_FILES, (list(ids),))
    return unknown


async def account(lane: Lane, statement: LiteralString, **given: Any) -> Any:
    """One of the doors of accounts, its arguments by name. Each may be repeated. Raises
    psycopg.Error.
    """
    return await lane.value(statement, given)


# --- the worker, on connections and pools of asyncpg ------------------------------------------


async def job_worker(keeper: Any, worker: Any) -> None:
    """Registers a worker, there as long as this connection is. Raises what asyncpg raises."""
    number = await keeper.fetchval(JOB_WORKER, worker)
    await keeper.execute(JOB_LOCK, number)


async def job_tick(keeper: Any) -> list[dict[str, Any]]:
    """Looks after the queue; gives the kinds there are. Raises what asyncpg raises."""
    kinds: list[dict[str, Any]] = json.loads(await keeper.fetchval(JOB_TICK))
    return kinds


async def job_beat(pool: Any, worker: Any, jobs: Sequence[int]) -> None:
    """Says that these are under way. Raises what asyncpg raises."""
    await pool.execute(JOB_BEAT, worker, jobs)


async def job_status(keeper: Any) -> dict[str, Any]:
    """What `sync.status` says. Raises what asyncpg raises."""
    found: dict[str, Any] = json.loads(await keeper.fetchval(OVERVIEW))
    return found


async def job_doctor(keeper: Any) -> list[dict[str, Any]]:
    """What `sync.doctor` counts as an error. Raises what asyncpg raises."""
    async with keeper.transaction():
        await keeper.execute(DOCTOR_PATIENCE)
        text = await keeper.fetchval(DOCTOR_ERRORS, timeout=DOCTOR_SECONDS)
    found: list[dict[str, Any]] = json.loads(text)
    return found


async def job_depth(pool: Any) -> list[tuple[str, str, int, float]]:
    """Kind, state, how many jobs, and how late the oldest is. Raises what asyncpg raises."""
    return [tuple(row) for row in await pool.fetch(JOB_DEPTH)]


async def job_begin(pool: Any, job: int, worker: Any) -> dict[str, Any] | None:
    """Begins an attempt; None where the job is not this worker's. Raises what asyncpg raises."""
    begun = await pool.fetchval(JOB_BEGIN, job, worker)
    return None if begun is None else json.loads(begun)


async def job_call(pool: Any, job: int, worker: Any, seconds: float) -> None:
    """Does a job in SQL and ends it, in one transaction. Raises what asyncpg raises."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(JOB_PATIENCE, str(int(seconds * 1000)))
        await connection.fetchval(JOB_CALL, job, worker, timeout=seconds)


async def job_settle(pool: Any, worker: Any, outcomes: list[dict[str, Any]]) -> None:
    """Notes what became of attempts. Raises what asyncpg raises."""
    await pool.execute(JOB_SETTLE, worker, orjson.dumps(outcomes).decode())


async def job_assume(connection: Any, claims: Mapping[str, Any] | None) -> None:
    """Takes on an identity for the rest of the transaction. Raises what asyncpg raises."""
    await connection.execute(JOB_ASSUME, orjson.dumps(claims).decode())


async def job_progress(
    connection: Any, job: int, worker: Any, share: float, message: str | None
) -> None:
    """Says how far a job is. Raises what asyncpg raises."""
    await connection.execute(JOB_PROGRESS, job, worker, share, message)


async def job_long(connection: Any, statement: LiteralString, seconds: float) -> Any:
    """The value of a statement that may take as long as its kind of job, here and on the server.
    Raises what asyncpg raises.
    """
    async with connection.transaction():
        await connection.execute(JOB_PATIENCE, str(int(seconds * 1000)))
        return await connection.fetchval(statement, timeout=seconds)


async def job_prune(connection: Any, seconds: float) -> None:
    """Ends what is older than the retention. Raises what asyncpg raises."""
    await job_long(connection, JOB_PRUNE, seconds)


async def job_mail(connection: Any, mail: str) -> dict[str, Any] | None:
    """A mail to be sent; None where it was, or is too old. Raises what asyncpg raises."""
    found = await connection.fetchval(JOB_MAIL, mail)
    return None if found is None else json.loads(found)


async def job_mailed(connection: Any, mail: str) -> None:
    """It was sent. Raises what asyncpg raises."""
    await connection.execute(JOB_MAILED, mail)


async def job_digest(connection: Any, user: str) -> None:
    """Makes the digest of a user, as a mail in the outbox. Raises what asyncpg raises."""
    await connection.execute(JOB_DIGEST, user)


async def job_purge(connection: Any, seconds: float) -> int:
    """Ends some records that were deleted long ago; how many. Raises what asyncpg raises."""
    count: int = await job_long(connection, JOB_PURGE, seconds)
    return count


async def job_statistics(connection: Any, seconds: float) -> None:
    """Gathers what autovacuum does not. Raises what asyncpg raises."""
    await job_long(connection, JOB_STATISTICS, seconds)


async def webhook(connection: Any, name: str) -> dict[str, Any] | None:
    """Where a webhook goes and what signs it; None for nowhere. Raises what asyncpg raises."""
    found = await connection.fetchval(JOB_WEBHOOK, name)
    return None if found is None else json.loads(found)


async def webhook_gone(connection: Any, name: str, url: str) -> None:
    """The address wants no more of them. Raises what asyncpg raises."""
    await connection.execute(JOB_WEBHOOK_GONE, name, url)


# --- exports and imports: records are long, so the time that a statement may take is longer ------

LONG_SECONDS: Final = 600.0
CHUNK_LEAST: Final = 64 * 1024  # characters: more records are asked for at once below that
CHUNK_MOST: Final = 1024 * 1024


async def export_begin(connection: Any, job: int, worker: Any) -> dict[str, Any]:
    """What is to be exported. Raises what asyncpg raises."""
    plan: dict[str, Any] = json.loads(await connection.fetchval(EXPORT_BEGIN, job, worker))
    return plan


async def export_open(connection: Any, claims: Mapping[str, Any] | None) -> str:
    """Begins to read as the user, in the transaction that is open; gives the oldest transaction
    that its snapshot does not know the end of. Raises what asyncpg raises.
    """
    row = await connection.fetchrow(EXPORT_PATIENCE)
    await job_assume(connection, claims)
    xmin: str = row[3]
    return xmin


async def export_count(connection: Any, table: str) -> int | None:
    """How many records of a table he may read. Raises what asyncpg raises."""
    count: int | None = await connection.fetchval(EXPORT_COUNT, table, timeout=LONG_SECONDS)
    return count


async def export_rows(connection: Any, table: str) -> AsyncGenerator[list[str], None]:
    """The records of a table as JSON texts, about half a megabyte at a time, at most 256 records.
    Raises what asyncpg raises.
    """
    request = orjson.dumps({"table": table}).decode()
    await connection.fetchval(EXPORT_TABLE, request, timeout=LONG_SECONDS)
    step = 0
    while rows := await connection.fetch(EXPORT_FETCH[step], timeout=LONG_SECONDS):
        yield [row[0] for row in rows]
        size = sum(len(row[0]) for row in rows)
        if size > CHUNK_MOST:
            step = max(0, step - 1)
        elif size < CHUNK_LEAST:
            step = min(len(EXPORT_FETCH) - 1, step + 1)
    await connection.execute(EXPORT_CLOSE)


async def export_objects(connection: Any, ids: Sequence[str]) -> dict[str, str]:
    """The objects of files in the store. Raises what asyncpg raises."""
    objects: dict[str, str] = json.loads(await connection.fetchval(EXPORT_OBJECTS, list(ids)))
    return objects


async def export_gone(connection: Any, refs: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Those of these records that the user whose role is on may not read, any more."""
    pointers = [{"table": table, "id": id_} for table, id_ in refs]
    text = orjson.dumps({"pointers": pointers}).decode()
    await connection.execute(IMPORT_PATIENCE)
    gone: list[dict[str, str]] = json.loads(
        await connection.fetchval(EXPORT_GONE, text, timeout=LONG_SECONDS)
    )
    return gone


async def export_lost(connection: Any, refs: list[dict[str, str]], xid: str) -> int:
    """How many of them are still there, for others. Raises what asyncpg raises."""
    count: int = await connection.fetchval(EXPORT_LOST, orjson.dumps(refs).decode(), xid)
    return count


async def export_end(
    connection: Any,
    job: int,
    worker: Any,
    object_: str,
    size: int,
    sha256: str,
    found: dict[str, Any],
) -> dict[str, Any]:
    """Its file is ready; gives the result. Raises what asyncpg raises."""
    text = orjson.dumps(found).decode()
    result: dict[str, Any] = json.loads(
        await connection.fetchval(EXPORT_END, job, worker, object_, size, sha256, text)
    )
    return result


async def import_begin(connection: Any, job: int, worker: Any) -> dict[str, Any]:
    """What is to be imported, and into what. Raises what asyncpg raises."""
    plan: dict[str, Any] = json.loads(await connection.fetchval(IMPORT_BEGIN, job, worker))
    return plan


async def import_write(connection: Any, transaction: dict[str, Any]) -> dict[str, Any]:
    """A transaction as the user whose role is on; its result. Raises what asyncpg raises."""
    await connection.execute(IMPORT_PATIENCE)
    text = await connection.fetchval(
        IMPORT_WRITE, orjson.dumps(transaction).decode(), timeout=LONG_SECONDS
    )
    result: dict[str, Any] = orjson.loads(text)["results"][0]
    return result


async def import_file(
    connection: Any, job: int, claims: Mapping[str, Any], table: str, id_: str
) -> dict[str, Any] | None:
    """The row of a file that was made for the user. Raises what asyncpg raises."""
    found = await connection.fetchval(
        IMPORT_FILE, job, orjson.dumps(dict(claims)).decode(), table, id_
    )
    return None if found is None else json.loads(found)


async def import_filed(
    connection: Any,
    job: int,
    claims: Mapping[str, Any],
    table: str,
    id_: str,
    object_: str,
    size: int,
    sha256: str,
) -> None:
    """Its bytes are there. Raises what asyncpg raises."""
    text = orjson.dumps(dict(claims)).decode()
    await connection.fetchval(IMPORT_FILED, job, text, table, id_, object_, size, sha256)


async def transfer_progress(
    connection: Any, job: int, worker: Any, share: float, message: str
) -> None:
    """Says how far a transfer is. Raises what asyncpg raises; PT403 of a disabled user."""
    await connection.execute(TRANSFER_PROGRESS, job, worker, share, message)


async def transferred(
    connection: Any, job: int, worker: Any, state: str, result: dict[str, Any]
) -> None:
    """The end of a transfer: `done` or `failed`. Raises what asyncpg raises."""
    await connection.fetchval(TRANSFERRED, job, worker, state, orjson.dumps(result).decode())
