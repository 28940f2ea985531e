"""What tests of exports and imports have in common: files in a store, archives, runs."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from app.stores import Folder
from tests.postgres import Database
from tests.sql.engine import Gate, call, claims_of, create, new_id, value, wait_until
from tests.worker.process import Worker, working

Json = dict[str, Any]


class Scene:
    """A database, a folder of files, and users who do things."""

    def __init__(self, db: Database, folder: Path) -> None:
        self.db = db
        self.folder = folder
        self.store = Folder(folder)
        self.gate = Gate(db)
        self.conn = db.connect()
        self.conn.execute("delete from jobs.schedules")
        self.conn.execute("update jobs.kinds set first_delay_seconds = 0")

    @contextmanager
    def worker(self, **settings: str) -> Iterator[Worker]:
        with working(self.db, ROWCAST_FILES_URL=self.folder.as_uri(), **settings) as worker:
            yield worker

    def call(self, user: str, fn: str, **args: Any) -> Any:
        return self.gate.applied(user, call(fn, **args)).body["values"][0]

    def put(self, user: str, id_: str, content: bytes, table: str) -> None:
        """The bytes of a file whose row is there."""
        sha256 = hashlib.sha256(content).hexdigest()
        asyncio.run(self._store(id_, content))
        self.gate.conn.execute(
            "select sync.gateway_confirm_file(%s, %s, 'object', %s, %s)",
            (claims_of(user), json.dumps({"table": table, "id": id_}), len(content), sha256),
        )

    def file(self, user: str, table: str, content: bytes, **more: Any) -> str:
        id_ = new_id()
        row = {"name": f"{id_[-4:]}.bin", "size": len(content), **more}
        self.gate.applied(user, create(table, id_, **row))
        self.put(user, id_, content, table)
        return id_

    async def _store(self, id_: str, content: bytes) -> None:
        async with self.store.writer(id_, "object") as writer:
            await writer.write(content)

    def run(self, run: str) -> Json:
        found: Json = value(self.conn, "select to_jsonb(r) from jobs.runs r where id = %s", run)
        return found

    def ended(self, run: str, *states: str) -> Json:
        wanted = states or ("done", "failed")
        while True:
            before = self.run(run)
            with suppress(AssertionError):
                wait_until(lambda: self.run(run)["state"] in wanted, f"the run is {wanted}")
            found = self.run(run)
            # As long as there is progress it is waited for.
            if found["state"] in wanted or found["progress"] == before["progress"]:
                break
        assert found["state"] in wanted, found
        return found

    def archive(self, run: str) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self.bytes_of(self.run(run)["result"]["file"]["id"])))

    def bytes_of(self, id_: str) -> bytes:
        name: str = value(self.conn, "select object from sync_internal.files where id = %s", id_)
        return (self.folder / id_ / name).read_bytes()

    def export(self, user: str) -> str:
        run: str = self.call(user, "startExport")
        with self.worker():
            self.ended(run)
        return run

    def upload(self, user: str, content: bytes) -> str:
        """An import whose file is there; its run."""
        run: str = self.call(user, "beginImport")
        self.file(user, "jobRunFiles", content, runId=run, type="application/zip")
        return run

    def import_(self, user: str, content: bytes) -> str:
        run = self.upload(user, content)
        assert self.call(user, "importWorkspaces", run=run) == run
        return run

    def imported(self, user: str, content: bytes) -> Json:
        run = self.import_(user, content)
        with self.worker() as worker:
            try:
                return self.ended(run)
            finally:
                print(worker.log)


def records(archive: zipfile.ZipFile, table: str) -> list[Json]:
    return [json.loads(line) for line in archive.read(f"tables/{table}.ndjson").splitlines()]


def packed(tables: dict[str, Any], files: dict[str, bytes] | None = None, **manifest: Any) -> bytes:
    """An archive by hand: records, or the text of a table."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for table, rows in tables.items():
            text = rows if isinstance(rows, (str, bytes)) else "\n".join(map(json.dumps, rows))
            archive.writestr(f"tables/{table}.ndjson", text)
        for name, content in (files or {}).items():
            archive.writestr(name, content)
        archive.writestr(
            "manifest.json", json.dumps({"format": "rowcast-export", "version": 1, **manifest})
        )
    return made.getvalue()


def count(conn: psycopg.Connection[Any], table: str) -> int:
    number: int = value(conn, f"select count(*) from {table}")
    return number
