"""Exports: everything a user may read, out of one snapshot, streamed into a zip in the store."""

import tempfile
import time
import uuid
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, Final

import orjson

from . import archive, worker_calls
from .config import Settings
from .jobs import Job, Later
from .stores import NoObject, Store, in_thread, open_store

Json = dict[str, Any]

MISSING_NAMED: Final = 1000
CHECKED_AT_ONCE: Final = 500
PROGRESS_SECONDS: Final = 0.5


class Pace:
    """Shows how far a job is, a few times a second at most."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._next = 0.0

    async def at(self, share: float, message: str) -> None:
        """So far. Raises where the job is another's by now, or its user is disabled."""
        if time.monotonic() >= self._next:
            await self.now(share, message)

    async def now(self, share: float, message: str) -> None:
        """The same, whenever the last was."""
        async with self._job.connection() as connection:
            await worker_calls.transfer_progress(
                connection, self._job.id, self._job.worker, share, message
            )
        self._next = time.monotonic() + PROGRESS_SECONDS


async def export(settings: Settings, job: Job) -> Any:
    """Does a job of kind `export`. An attempt that is broken off has written an object under the
    file's id, which the sweep finds; the next writes another. Only its end is seen by anybody.
    """
    async with job.connection() as connection:
        plan = await worker_calls.export_begin(connection, job.id, job.worker)
    if plan["result"] is not None:
        return plan["result"]
    store, name = open_store(settings), uuid.uuid4().hex
    with tempfile.TemporaryFile() as seen, tempfile.TemporaryFile() as wanted:
        attempt = _Attempt(job, plan, store, seen, wanted)
        try:
            async with store.writer(plan["file"], name) as writer:
                found = await attempt.write(writer.write)
                sha256 = writer.digest.hexdigest()
            await attempt.check()
            async with job.connection() as connection:
                return await worker_calls.export_end(
                    connection, job.id, job.worker, name, attempt.size, sha256, found
                )
        except archive.TooLarge:
            error = {"code": "too_large", "detail": "The export would be too large"}
            async with job.connection() as connection:
                await worker_calls.transferred(
                    connection, job.id, job.worker, "failed", {"error": error}
                )
            return None
        except LostAccess:
            await store.remove_one(plan["file"], name)
            raise Later(1, "access was lost meanwhile") from None


class LostAccess(Exception):
    """Something that was exported may not be read by the user any more."""


class _Attempt:
    """One attempt. `seen` keeps what was exported, `wanted` the files to come: on disk."""

    def __init__(
        self, job: Job, plan: Json, store: Store, seen: IO[bytes], wanted: IO[bytes]
    ) -> None:
        self._job = job
        self._plan = plan
        self._store = store
        self._seen = seen
        self._wanted = wanted
        self._pace = Pace(job)
        self._xid = ""
        self._at = datetime.now(UTC)
        self._records = self._files = self._bytes = 0
        self._counts: dict[str, int] = {}
        self._missing: list[str] = []
        self._missing_count = 0
        self.size = 0

    async def write(self, write: Any) -> Json:
        """The whole archive; what the result says of it. Raises TooLarge."""
        made = archive.Writer(write, self._at, self._plan["maxBytes"])
        await self._write_tables(made)
        await self._write_files(made)
        found: Json = {
            "records": sum(self._counts.values()),
            "files": self._files,
            "missing": self._missing_count,
        }
        await made.close(
            {
                "format": archive.FORMAT,
                "version": archive.VERSION,
                "at": self._at.isoformat(),
                "user": (self._job.claims or {}).get("sub"),
                "tables": self._counts,
                "files": self._files,
                "missingFiles": self._missing,
            }
        )
        self.size = made.size
        return found

    async def _write_tables(self, made: archive.Writer) -> None:
        """Out of one snapshot, as the user, in a transaction that writes nothing."""
        async with (
            self._job.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            self._xid = await worker_calls.export_open(connection, self._job.claims)
            counts = {}
            for table in self._plan["tables"]:
                count = await worker_calls.export_count(connection, table["name"])
                if count is not None:
                    counts[table["name"]] = count
            everything, done = max(1, sum(counts.values())), 0
            for table in self._plan["tables"]:
                name = table["name"]
                if name not in counts:
                    continue
                await made.begin_table(name)
                self._counts[name] = 0
                async with aclosing(worker_calls.export_rows(connection, name)) as chunks:
                    async for lines in chunks:
                        await made.put(("\n".join(lines) + "\n").encode())
                        await in_thread(self._note, table, lines)
                        self._counts[name] += len(lines)
                        done += len(lines)
                        await self._pace.at(
                            0.5 * min(1, done / everything), f"{done} of {everything} records"
                        )
                await made.end()

    def _note(self, table: Json, lines: list[str]) -> None:
        """Keeps which records these are, and of files which bytes there should be."""
        for line in lines:
            record = orjson.loads(line)
            self._seen.write(orjson.dumps([table["name"], record["id"]]) + b"\n")
            # Of a file whose name or size he may not read the bytes are none of his, either.
            readable = {"name", "size"} <= record.keys()
            if table["files"] and readable and record.get("state") == "ready":
                kept = [table["name"], record["id"], record["name"], int(record["size"])]
                self._wanted.write(orjson.dumps(kept) + b"\n")
                self._records += 1
                self._bytes += kept[3]

    async def _write_files(self, made: archive.Writer) -> None:
        self._wanted.seek(0)
        done = 0
        while batch := await in_thread(_lines, self._wanted, CHECKED_AT_ONCE):
            async with self._job.connection() as connection:
                objects = await worker_calls.export_objects(
                    connection, [id_ for _, id_, _, _ in batch]
                )
            for table, id_, name, size in batch:
                if not await self._write_file(made, table, id_, name, objects.get(id_)):
                    self._missing_count += 1
                    if len(self._missing) < MISSING_NAMED:
                        self._missing.append(f"{table}:{id_}")
                done += size
                await self._pace.at(
                    0.5 + 0.45 * done / max(1, self._bytes),
                    f"{self._files} of {self._records} files",
                )

    async def _write_file(
        self, made: archive.Writer, table: str, id_: str, name: str, object_: str | None
    ) -> bool:
        """False for one that has gone meanwhile."""
        if object_ is None:
            return False
        async with aclosing(self._store.read(id_, object_)) as parts:
            try:
                first = await anext(parts, b"")
            except NoObject:
                return False
            await made.begin_file(table, id_, name)
            await made.put(first)
            async for part in parts:
                await made.put(part)
            await made.end()
        self._files += 1
        return True

    async def check(self) -> None:
        """Raises LostAccess where the user may not read all of it any more. What was deleted
        meanwhile was his to read when it was read.
        """
        self._seen.seek(0)
        while batch := await in_thread(_lines, self._seen, CHECKED_AT_ONCE):
            async with self._job.as_user() as connection:
                gone = await worker_calls.export_gone(connection, batch)
            if gone:
                async with self._job.connection() as connection:
                    if await worker_calls.export_lost(connection, gone, self._xid):
                        raise LostAccess
            await self._pace.at(0.97, "Looking it through")


def _lines(file: IO[bytes], most: int) -> list[Any]:
    return [orjson.loads(line) for line in islice(file, most)]
