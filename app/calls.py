"""The SQL functions the gateway calls, one typed call each.

Each statement runs by itself in autocommit: the functions set role and claims for the length of
their transaction only. `where current_user = session_user` is decided before the function runs
and costs no round trip: a connection that still wears a role answers with no row (see db.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, LiteralString

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
# The same for one request: most are alone, and of single values nothing is made but their text.
WRITE_ONE: Final[LiteralString] = (
    "select w.ord, w.status, w.body, w.again"
    " from sync.gateway_write("
    "p_claims => array[%s::text], p_bodies => array[%s::text],"
    " p_dry_run => %s::boolean[], p_schemas => %s::bigint[]) as w"
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
    dry = list(dry_runs) if any(dry_runs) else None
    known = None if all(schema is None for schema in schemas) else list(schemas)
    if len(bodies) == 1:
        rows = await lane.rows(WRITE_ONE, (claims[0], bodies[0], dry, known), repeat)
    else:
        rows = await lane.rows(WRITE, (list(claims), list(bodies), dry, known), repeat)
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
