"""Files: links by right, uploads that are measured, confirmations that look, and the sweep."""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import orjson
import psycopg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from . import calls, links
from .auth import Session
from .config import Settings
from .db import Database, Lane, Streams
from .errors import Problem, too_many
from .links import Link, Signer
from .stores import NoObject, Store, open_store
from .streams import Streamed

log = logging.getLogger("rowcast.files")

Json = dict[str, Any]

BATCH_BYTES: Final = 1024 * 1024  # written at once
SILENT_SECONDS: Final = 30.0
TRANSFERS: Final = 64  # each way, and half as many of one user
UPLOADS_OF_ONE_FILE: Final = 2  # one may be lost and not know it yet
READ_AGAIN: Final = 2  # files whose bytes are read at once to confirm them
SWEEP_SECONDS: Final = 3600.0
FIRST_SWEEP_SECONDS: Final = 60.0
SWEPT_AT_ONCE: Final = 1000
# What is downloaded runs nothing, and is shown by nobody else's page as if it were the app's.
CONTENT_HEADERS: Final = {
    "Accept-Ranges": "bytes",
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class Files:
    """The gateway's part in files. SQL decides who may, and what is to go."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._work = database.work
        self._aside = database.aside
        self.store: Store = open_store(settings)
        self._signer: Signer | None = None
        self._uploads = Streams(TRANSFERS)
        self._downloads = Streams(TRANSFERS)
        self._reading = asyncio.Semaphore(READ_AGAIN)
        self._uploading: Counter[str] = Counter()
        self._sweeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweeps from now on, once an hour."""
        self._sweeper = asyncio.create_task(self._sweep_forever())

    def stop(self) -> None:
        """Ends that."""
        if self._sweeper is not None:
            self._sweeper.cancel()

    # --- links ---

    async def upload(self, session: Session, body: str) -> Json:
        """Where and how the bytes of a file are to be sent. Raises 403, 409 `uploaded`."""
        file = orjson.loads(await calls.file(self._work, session.claims, body, "upload"))
        link = Link(
            method="PUT",
            id=file["id"],
            object=links.DIRECT,
            size=file["size"],
            type=file["type"],
            sha256=file["sha256"] or "",
            inline=0,
            by=_owner(session),
            expires=file["expires"],
            until=file["until"],
        )
        if self._settings.files_direct:
            url, headers = links.presigned_upload(self._settings, link, time.time())
        else:
            url = (await self._signing()).url(link)
            headers = {"Content-Type": link.type}
        return {"method": "PUT", "url": url, "headers": headers, "expiresAt": link.expires}

    async def download(self, session: Session, body: str) -> Json:
        """A link to the bytes of a file. Raises 403, 409 `not_ready`."""
        file = orjson.loads(await calls.file(self._work, session.claims, body, "download"))
        inline = file["type"] in links.IMAGES and _member(body, "inline") is True
        link = Link(
            method="GET",
            id=file["id"],
            object=file["object"],
            size=file["size"],
            type=file["type"],
            sha256=file["sha256"] or "",
            inline=int(inline),
            by=_owner(session),
            expires=file["expires"],
            until=0,
        )
        url = (await self._signing()).url(link, file["name"])
        return {"url": url, "expiresAt": link.expires}

    async def confirm(self, session: Session, body: str) -> Json:
        """Makes a file ready whose bytes are there. Raises 403, 409 `missing` and `mismatch`."""
        file = orjson.loads(await calls.file(self._work, session.claims, body, "confirm"))
        if file["state"] != "ready":
            receipt = _member(body, "receipt")
            found = (await self._signing()).stored(file["id"], file["size"], receipt)
            name, sha256 = found or await self._look(file)
            file = orjson.loads(
                await calls.confirm_file(
                    self._work, session.claims, body, name, file["size"], sha256
                )
            )
        return {name: file[name] for name in ("table", "id", "state", "size", "sha256")}

    async def _look(self, file: Json) -> tuple[str, str]:
        """The object with the bytes a record names, found by reading what is there."""
        id_, size, declared = file["id"], file["size"], file["sha256"]
        sizes = await self.store.sizes(id_)
        fitting = sorted(name for name, found in sizes.items() if found == size)
        for name in fitting:
            async with self._reading:
                digest = hashlib.sha256()
                async with aclosing(self.store.read(id_, name)) as parts:
                    async for part in parts:
                        await asyncio.to_thread(digest.update, part)
            if declared in (None, digest.hexdigest()):
                return name, digest.hexdigest()
        if self._settings.files_direct and links.DIRECT in sizes:
            # Its place is needed for the right bytes.
            await self.store.remove_one(id_, links.DIRECT)
        if fitting:
            raise _mismatch()
        raise Problem(409, "missing", "The bytes of this file are not there; upload it")

    # --- bytes ---

    async def content(self, request: Request) -> Response:
        """GET, HEAD and PUT of a signed link. Raises 403 `bad_link`."""
        method = "GET" if request.method == "HEAD" else request.method
        signer = await self._signing()
        link = signer.read(method, request.query_params.multi_items(), time.time())
        if method == "PUT":
            return await self._put(request, link, signer)
        return await self._get(request, link)

    async def _put(self, request: Request, link: Link, signer: Signer) -> Response:
        announced = request.headers.get("content-length")
        if announced is not None and links.length(announced) != link.size:
            raise links.bad_link()
        if request.headers.get("content-type") != link.type:
            raise links.bad_link()
        async with self._uploads.slot(link.by), self._place(link.id):
            if link.size in (await self.store.sizes(link.id)).values():
                raise Problem(409, "uploaded", "The bytes are there; confirm them")
            name = uuid.uuid4().hex
            digest = hashlib.sha256()
            async with self.store.writer(link.id, name) as write:
                async for part in _batches(_arriving(request, link)):
                    await asyncio.to_thread(digest.update, part)
                    await write(part)
                sha256 = digest.hexdigest()
                if link.sha256 not in ("", sha256):
                    raise _mismatch()
        return JSONResponse({"receipt": signer.receipt(link.id, name, link.size, sha256)})

    async def _get(self, request: Request, link: Link) -> Response:
        etag = f'"{link.object}"'
        headers = {
            **CONTENT_HEADERS,
            "Content-Disposition": links.disposition(
                "inline" if link.inline else "attachment", request.query_params.get("name", "")
            ),
            "ETag": etag,
        }
        wanted = request.headers.getlist("range")
        matches = request.headers.get("if-range", etag) == etag
        part = links.byte_range(wanted[0] if len(wanted) == 1 and matches else None, link.size)
        start, end = part or (0, link.size)
        headers["Content-Length"] = str(end - start)
        status = 200
        if part is not None:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{link.size}"
        if request.method == "HEAD" or start == end:
            return Response(status_code=status, headers=headers, media_type=link.type)
        source = self._reading_slot(link, start, end)
        try:
            first = await anext(source)
        except (NoObject, StopAsyncIteration):
            raise Problem(404, "not_found", "The file is gone") from None
        return Streamed(first, source, link.type, status, headers)

    async def _reading_slot(self, link: Link, start: int, end: int) -> AsyncGenerator[bytes, None]:
        async with (
            self._downloads.slot(link.by),
            aclosing(self.store.read(link.id, link.object, start, end)) as parts,
        ):
            async for part in parts:
                yield part

    @contextlib.asynccontextmanager
    async def _place(self, id_: str) -> AsyncIterator[None]:
        if self._uploading[id_] >= UPLOADS_OF_ONE_FILE:
            raise too_many("This file is being uploaded already")
        self._uploading[id_] += 1
        try:
            yield
        finally:
            self._uploading[id_] -= 1
            if not self._uploading[id_]:
                del self._uploading[id_]

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = Signer(bytes.fromhex(await calls.file_key(self._work)))
        return self._signer

    async def _sweep_forever(self) -> None:
        await asyncio.sleep(FIRST_SWEEP_SECONDS)
        while True:
            try:
                await sweep(self.store, self._aside)
            except (psycopg.Error, Problem) as exc:
                log.warning("sweep broke off class=%s", type(exc).__name__)
            await asyncio.sleep(SWEEP_SECONDS)


async def sweep(store: Store, lane: Lane) -> int:
    """Removes what SQL names; gives how many files are gone. Raises psycopg.Error, Problem."""
    gone = 0
    while True:
        named = orjson.loads(await calls.sweep(lane, SWEPT_AT_ONCE))
        for file in named:
            await store.remove(file["id"], file["keep"])
        if named:
            gone += await calls.swept(lane, orjson.dumps(named).decode())
        if len(named) < SWEPT_AT_ONCE:
            break
    await store.tidy()
    return gone


async def sweep_orphans(store: Store, lane: Lane) -> int:
    """Removes objects that are older than a day and of no file in the database; gives of how many
    files. Raises psycopg.Error, Problem.
    """
    gone: set[str] = set()
    async for ids in store.old_ids():
        unknown = await calls.unknown_files(lane, [id_ for id_ in ids if id_ not in gone])
        for id_ in unknown:
            await store.remove(id_, None)
        gone.update(unknown)
    return len(gone)


async def sweep_once(settings: Settings, conninfo: str, orphans: bool) -> tuple[int, int]:
    """Both, from outside a gateway. Raises psycopg.Error, Problem."""
    store, lane = open_store(settings), Lane(conninfo, "sweep", 1)
    await lane.open()
    try:
        gone = await sweep(store, lane)
        return gone, await sweep_orphans(store, lane) if orphans else 0
    finally:
        await lane.close()


async def _arriving(request: Request, link: Link) -> AsyncGenerator[bytes, None]:
    """The body as it comes: no more and no less than the link says, and neither too slowly nor
    past its end.
    """
    seen = 0
    parts = request.stream()
    while True:
        wait = min(SILENT_SECONDS, link.until - time.time())
        try:
            async with asyncio.timeout(wait):
                part = await anext(parts)
        except TimeoutError:
            raise Problem(408, "too_slow", "The upload takes too long; send it again") from None
        except StopAsyncIteration:
            break
        seen += len(part)
        if seen > link.size:
            raise links.bad_link()
        yield part
    if seen != link.size:
        raise links.bad_link()


async def _batches(parts: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The same in larger parts: a thread for each piece of 64 KB costs more than the writing."""
    batch = bytearray()
    async with aclosing(parts):
        async for part in parts:
            batch += part
            if len(batch) >= BATCH_BYTES:
                yield bytes(batch)
                batch.clear()
    if batch:
        yield bytes(batch)


def _member(body: str, name: str) -> object:
    """A further member of a body that SQL has taken for an object; jsonb reads more than this."""
    try:
        return orjson.loads(body).get(name)
    except orjson.JSONDecodeError:
        return None


def _mismatch() -> Problem:
    return Problem(
        409, "mismatch", "What was uploaded is not what the record says; upload it again"
    )


def _owner(session: Session) -> str:
    """In whose name transfers count: nothing of him is told by the link."""
    return hashlib.sha256(session.author.encode()).hexdigest()[:16]
