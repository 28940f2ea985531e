"""The SQL functions the worker calls, one typed call each, on connections and pools of asyncpg."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, LiteralString

import orjson

from .calls import DOCTOR_ERRORS, DOCTOR_PATIENCE, DOCTOR_SECONDS, OVERVIEW

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
