"""Imports: the file of an export becomes new records of the user's, by ordinary transactions.

Ids are made of the import's id and the old ones, ids of transactions of the import's id and a
number, so an attempt that goes on where another was killed repeats it, and PostgreSQL answers what
was done already as duplicates. Nothing is written before the whole file has been read once. What
hangs on nothing is created as deleted, and restored at the end: half an import is in nobody's list.
"""

import asyncio
import hashlib
import itertools
import json
import sqlite3
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import asyncpg
import orjson

from . import worker_calls
from .archive import BadArchive, Reader
from .config import Settings
from .exports import Pace
from .jobs import Job, Later
from .stores import NoObject, Store, in_thread, open_store

Json = dict[str, Any]

OPERATIONS: Final = 100  # in a transaction, unless fewer are allowed, and
BYTES: Final = 256 * 1024
ROOTS: Final = 100  # that the result names
# Around the value of an operation; JSON may be written shorter than PostgreSQL counts it.
ROOM: Final = 4
WRITING: Final = 0.05  # how far an import is that writes, in SQL too
TRIES: Final = 5
TRY_SECONDS: Final = 0.5


class Refused(Exception):
    """A transaction was refused; what is said of it to the user."""

    def __init__(self, error: Json) -> None:
        super().__init__(error.get("code"))
        self.error = error


@dataclass
class Table:
    """What is known of a table that records are made in."""

    name: str
    keys: Json
    files: bool
    soft_delete: str | None
    sent: frozenset[str] = frozenset()
    refs: dict[str, str] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    hidden: bool = False
    deletes: bool = False


async def import_(settings: Settings, job: Job) -> Any:
    """Does a job of kind `import`."""
    async with job.connection() as connection:
        plan = await worker_calls.import_begin(connection, job.id, job.worker)
    store = open_store(settings)
    with tempfile.TemporaryFile() as file, tempfile.TemporaryDirectory() as folder:
        state, result = "failed", {}
        try:
            await _fetch(store, plan, file)
            reader = await in_thread(Reader, file, int(plan["size"]), int(plan["maxBytes"]))
            with closing(Notes(Path(folder) / "notes")) as notes:
                attempt = Attempt(job, plan, store, reader, notes)
                result = await attempt.run()
                state = "failed" if "error" in result else "done"
        except BadArchive as bad:
            result = {"error": _bad(bad)}
        async with job.connection() as connection:
            await worker_calls.transferred(connection, job.id, job.worker, state, result)


async def _fetch(store: Store, plan: Json, file: IO[bytes]) -> None:
    """The file from the store: a zip is read from its end."""
    try:
        if plan["object"] is None:
            raise NoObject
        async for part in store.read(plan["file"], plan["object"]):
            await in_thread(file.write, part)
    except NoObject:
        raise BadArchive("missing", "The file of this import is gone") from None
    await in_thread(file.flush)


def _bad(bad: BadArchive) -> Json:
    return {"code": bad.code, "detail": str(bad), **({"table": bad.table} if bad.table else {})}


class Notes:
    """Which records of the archive are made, on disk: a set of ids of any size."""

    def __init__(self, path: Path) -> None:
        # One thread at a time, but not always the same.
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.executescript(
            "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -4096;"
            "create table seen (t text, id text, kept integer, primary key (t, id)) without rowid;"
            "begin"
        )

    def close(self) -> None:
        self._db.close()

    def add(self, table: str, id_: str, kept: bool) -> bool:
        """False where it was there."""
        return (
            self._db.execute(
                "insert or ignore into seen values (?, ?, ?)", (table, id_, kept)
            ).rowcount
            == 1
        )

    def kept(self, table: str, id_: str) -> bool:
        """Whether it is made."""
        found = self._db.execute("select kept from seen where t = ? and id = ?", (table, id_))
        row = found.fetchone()
        return row is not None and row[0] == 1


class Attempt:
    """One attempt at an import."""

    def __init__(self, job: Job, plan: Json, store: Store, reader: Reader, notes: Notes) -> None:
        self._job = job
        self._plan = plan
        self._store = store
        self._reader = reader
        self._notes = notes
        self._pace = Pace(job)
        self._number = 0
        self._most = min(OPERATIONS, int(plan["maxOperations"]))
        self._at = datetime.fromtimestamp(plan["at"] / 1000, UTC)
        self._counts: dict[str, int] = {}
        self._skipped: dict[str, int] = {}
        self._cut = self._bytes = 0
        self._written: dict[str, int] = {}
        self._roots: list[Json] = []
        self._tables: list[Table] = []

    async def run(self) -> Json:
        """What became of it. Raises BadArchive before anything is written."""
        await in_thread(self._reader.manifest)
        self._tables = self._order()
        for table in self._tables:
            await self._pace.at(0.02, "Reading the file")
            await in_thread(self._look_through, table)
        everything = max(1, sum(self._counts.values()))
        left = self._plan["quotaLeft"]
        if left is not None and self._bytes > left:
            raise BadArchive("quota", "Its files would take more room than you have")
        # Said before anything is written: a later attempt, which may count as the first, knows it.
        await self._pace.now(WRITING, f"0 of {everything} records")
        try:
            done = 0
            for table in self._tables:
                async for count in self._write(table, self._creates(table)):
                    self._written[table.name] = self._written.get(table.name, 0) + count
                    done += count
                    await self._pace.at(
                        WRITING + 0.5 * done / everything, f"{done} of {everything} records"
                    )
            for table in self._tables:
                async for _ in self._write(table, self._late(table)):
                    await self._pace.at(0.55, "Putting references in")
            files = await self._write_files()
            for table in self._tables:
                if table.hidden:
                    async for _ in self._write(table, self._restores(table)):
                        await self._pace.at(0.97, "Showing it")
        except Refused as refused:
            return await self._undo(refused.error)
        except BadArchive as bad:
            return await self._undo(_bad(bad))
        return {
            "records": sum(self._counts.values()),
            "files": files,
            "roots": self._roots,
            "skipped": self._skipped,
            "cut": self._cut,
        }

    # --- what there is ---

    def _order(self) -> list[Table]:
        """The tables that records are made in, parents first. Raises BadArchive."""
        known, given = self._plan["tables"], self._reader.tables
        for name in given:
            if name not in known:
                raise BadArchive("unknown_table", f"There is no table {name} here", name)
        for name, _ in self._reader.files:
            if name not in self._plan["fileTables"] or name not in given:
                raise BadArchive("unknown_table", f"There is no table {name} of files", name)
        made: list[Table] = []
        for name in sorted(given):
            table = self._table(name)
            if table is None:
                self._skipped[name] = 0
            else:
                made.append(table)
        ordered = _ordered(made)
        for table in ordered:
            soft = table.soft_delete
            table.hidden = not table.refs and not table.files and soft in table.sent
        return ordered

    def _table(self, name: str) -> Table | None:
        """None for one in which the user makes no records of his own: triggers keep it, or its id
        says whose it is.
        """
        told = self._plan["tables"][name]
        keys: Json = told["keys"]
        omitted = set((self._plan["omit"] or {}).get(name) or ())
        insertable = {
            key
            for key, what in keys.items()
            if key not in ("id", "version", told["touch"])
            and not what.get("serverOwned")
            and what["type"] != "other"
            and what.get("insertable", True)
        }
        required = {key for key, what in keys.items() if what.get("required")}
        own_id = (keys.get("id", {}).get("default") or {}).get("user")
        if told["idType"] == "bigint" or own_id or not insertable or required - insertable:
            return None
        known = self._plan["tables"]
        return Table(
            name=name,
            keys=keys,
            files=name in self._plan["fileTables"],
            soft_delete=told["softDelete"],
            sent=frozenset(insertable - omitted),
            refs={
                key: what["references"]
                for key, what in keys.items()
                if what.get("references") in known and key in insertable - omitted
            },
            deletes=bool(told["softDelete"] or told["hardDelete"]),
        )

    def _look_through(self, table: Table) -> None:
        """Reads a table once: what cannot be read is found before anything is written."""
        count = 0
        for record in self._records(table.name):
            id_ = record.get("id")
            if not _is_id(id_, self._plan["tables"][table.name]["idType"]):
                raise BadArchive("bad_record", "A record has no id", table.name)
            unknown = record.keys() - table.keys.keys()
            if unknown:
                raise BadArchive("unknown_key", "A record has a key not known here", table.name)
            kept = self._fits(table, record)
            if kept and table.files:
                self._bytes += int(record["size"])
            if not self._notes.add(table.name, str(id_), kept):
                raise BadArchive("bad_record", "Two records have one id", table.name)
            count += kept
        self._counts[table.name] = count

    def _fits(self, table: Table, record: Json) -> bool:
        """Whether a record is made: what it hangs on is, and the bytes of a file are there."""
        if table.files:
            info = self._reader.files.get((table.name, record["id"]))
            if record.get("state") != "ready" or info is None:
                self._skipped[table.name] = self._skipped.get(table.name, 0) + 1
                return False
            if str(info.file_size) != str(record.get("size")):
                raise BadArchive(
                    "mismatch", "A file is not as large as its record says", table.name
                )
        for key, parent in table.refs.items():
            value = record.get(key)
            if value is None or (isinstance(value, str) and self._notes.kept(parent, value)):
                continue
            if not table.keys[key]["nullable"]:
                self._skipped[table.name] = self._skipped.get(table.name, 0) + 1
                return False
            self._cut += 1
        return True

    def _records(self, table: str) -> Iterator[Json]:
        if table not in self._reader.tables:
            return iter(())
        return self._reader.records(table, ROOM * int(self._plan["maxRecordBytes"]))

    # --- operations ---

    def _creates(self, table: Table) -> Iterator[Json]:
        for record in self._records(table.name):
            if not self._notes.kept(table.name, record["id"]):
                continue
            value = {
                key: record[key] for key in table.sent if key in record and key not in table.late
            }
            for key, parent in table.refs.items():
                old = value.get(key)
                if old is not None:
                    kept = isinstance(old, str) and self._notes.kept(parent, old)
                    value[key] = self._new_id(parent, old) if kept else None
            if table.files:
                value["size"] = int(record["size"])
            if table.hidden:
                soft = str(table.soft_delete)
                if value.get(soft) in (None, False):
                    value[soft] = (
                        True if table.keys[soft]["type"] == "boolean" else self._at.isoformat()
                    )
            yield {"type": "create", "id": self._new_id(table.name, record["id"]), "value": value}

    def _late(self, table: Table) -> Iterator[Json]:
        if not table.late:
            return
        for record in self._records(table.name):
            if not self._notes.kept(table.name, record["id"]):
                continue
            for key, parent in table.late.items():
                old = record.get(key)
                if isinstance(old, str) and self._notes.kept(parent, old):
                    yield {
                        "type": "set",
                        "id": self._new_id(table.name, record["id"]),
                        "key": key,
                        "value": self._new_id(parent, old),
                    }

    def _restores(self, table: Table) -> Iterator[Json]:
        for record in self._records(table.name):
            if self._notes.kept(table.name, record["id"]) and record.get(
                str(table.soft_delete)
            ) in (None, False):
                id_ = self._new_id(table.name, record["id"])
                if len(self._roots) < ROOTS:
                    self._roots.append({"table": table.name, "id": id_})
                yield {"type": "restore", "id": id_}

    def _deletes(self, table: Table) -> Iterator[Json]:
        for record in self._records(table.name):
            if self._notes.kept(table.name, record["id"]):
                yield {"type": "delete", "id": self._new_id(table.name, record["id"])}

    async def _write(self, table: Table, operations: Iterator[Json]) -> AsyncIterator[int]:
        """Writes operations by transactions of a bounded size; after each, how many. Raises
        Refused, BadArchive, Later.
        """
        batches = _batches(table.name, operations, self._most)
        while batch := await in_thread(partial(next, batches, None)):
            self._number += 1
            await self._send({"txId": self._tx_id(), "operations": batch})
            yield len(batch)

    async def _send(self, transaction: Json) -> None:
        result: Json = {}
        for attempt in range(TRIES):
            try:
                async with self._job.as_user() as connection:
                    result = await worker_calls.import_write(connection, transaction)
            except asyncpg.DataError as error:
                raise Refused(
                    {"code": "bad_record", "detail": "A record holds what cannot be stored"}
                ) from error
            except asyncpg.PostgresError as error:
                state = str(error.sqlstate)
                if not state.startswith("PT4"):
                    raise
                raise Refused(_problem(error)) from error
            if result["status"] != "retry":
                break
            await asyncio.sleep(TRY_SECONDS * 2**attempt)
        else:
            raise Later(10, "somebody holds a lock")
        if result["status"] == "refused":
            told = ("code", "detail", "table", "key", "limit")
            said = result.get("error", {})
            raise Refused({key: said[key] for key in told if key in said})

    async def _undo(self, error: Json) -> Json:
        """Deletes what was written, as far as there is a delete; says what stays."""
        await self._job.progress(0.99, "Taking it back")
        left: dict[str, int] = {}
        for table in reversed(self._tables):
            stays = self._written.get(table.name, 0)
            if stays and table.deletes:
                stays -= await self._undo_table(table, stays)
            if stays:
                left[table.name] = stays
        return {"error": error, "left": left}

    async def _undo_table(self, table: Table, count: int) -> int:
        """How many were deleted of the first `count`, which are those that are there."""
        done = 0
        deletes = itertools.islice(self._deletes(table), count)
        batches = _batches(table.name, deletes, self._most)
        while batch := await in_thread(partial(next, batches, None)):
            self._number += 1
            try:
                await self._send({"txId": self._tx_id(), "operations": batch})
                done += len(batch)
            except Refused:
                continue
        return done

    # --- files ---

    async def _write_files(self) -> int:
        done, everything = 0, max(1, sum(self._counts[t.name] for t in self._tables if t.files))
        for table in self._tables:
            if not table.files:
                continue
            for name, old in self._reader.files:
                if name == table.name and await in_thread(self._notes.kept, name, old):
                    await self._write_file(name, old, self._new_id(name, old))
                    done += 1
                    await self._pace.at(
                        0.55 + 0.4 * done / everything, f"{done} of {everything} files"
                    )
        return done

    async def _write_file(self, table: str, old: str, id_: str) -> None:
        """The name of the object is the same in each attempt: none is left behind."""
        claims = self._job.claims or {}
        async with self._job.connection() as connection:
            row = await worker_calls.import_file(connection, self._job.id, claims, table, id_)
        if row is None:
            raise Refused({"code": "forbidden", "detail": "No such record", "table": table})
        if row["state"] == "ready":
            return
        object_ = "import-" + uuid.UUID(self._plan["run"]).hex
        parts = self._reader.parts(table, old)
        size = 0
        async with self._store.writer(id_, object_) as writer:
            while part := await in_thread(partial(next, parts, b"")):
                size += len(part)
                if size > int(row["size"]):
                    raise BadArchive("mismatch", "A file is larger than its record says", table)
                await writer.write(part)
            sha256 = writer.digest.hexdigest()
        try:
            async with self._job.connection() as connection:
                await worker_calls.import_filed(
                    connection, self._job.id, claims, table, id_, object_, size, sha256
                )
        except asyncpg.PostgresError as error:
            if not str(error.sqlstate).startswith("PT4"):
                raise
            raise Refused({**_problem(error), "table": table}) from error

    # --- ids ---

    def _new_id(self, table: str, old: Any) -> str:
        return str(self._made(f"record\n{table}\n{old}", 8))

    def _tx_id(self) -> str:
        """With the time of the import: older ones are refused when receipts are gone."""
        made = self._made(f"transaction\n{self._number}", 7).int
        at = int(self._plan["at"]) & ((1 << 48) - 1)
        return str(uuid.UUID(int=(made & ((1 << 80) - 1)) | at << 80))

    def _made(self, what: str, version: int) -> uuid.UUID:
        digest = hashlib.sha256(f"{self._plan['run']}\n{what}".encode(errors="replace")).digest()
        number = int.from_bytes(digest[:16], "big")
        number = number & ~(0xF << 76) | version << 76
        return uuid.UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


def _ordered(tables: list[Table]) -> list[Table]:
    """Parents first; where they refer in a circle, what may be empty for a while is set later.
    Raises BadArchive.
    """
    for table in tables:
        _put_off(table, {table.name})
    ordered: list[Table] = []
    waiting = tables
    while waiting:
        names = {table.name for table in waiting}
        ready = [table for table in waiting if names.isdisjoint(table.refs.values())]
        if not ready and not any(_put_off(table, names) for table in waiting):
            raise BadArchive("not_supported", "Tables refer to each other in a circle")
        ordered += ready
        waiting = [table for table in waiting if table not in ready]
    return ordered


def _put_off(table: Table, parents: set[str]) -> bool:
    """Sets references to these later, as far as that can be; whether there were any."""
    found = [
        key
        for key, parent in table.refs.items()
        if parent in parents and table.keys[key]["nullable"]
    ]
    for key in found:
        table.late[key] = table.refs.pop(key)
    return bool(found)


def _batches(table: str, operations: Iterator[Json], most: int) -> Iterator[list[Json]]:
    batch: list[Json] = []
    size = 0
    for operation in operations:
        operation = {**operation, "table": table}  # noqa: PLW2901
        length = len(orjson.dumps(operation))
        if batch and (len(batch) >= most or size + length > BYTES):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += length
    if batch:
        yield batch


def _is_id(found: Any, kind: str) -> bool:
    if not isinstance(found, str) or not 0 < len(found) <= 200:
        return False
    try:
        return kind != "uuid" or str(uuid.UUID(found)) == found
    except ValueError:
        return False


def _problem(error: Any) -> Json:
    """A refusal that was raised: its code, and its sentence for people."""
    try:
        code = json.loads(error.detail or "{}").get("code", "refused")
    except ValueError:
        code = "refused"
    return {"code": code, "detail": str(error.args[0])}
