"""Files: links by right, uploads that are measured, confirmations that look, and the sweep."""

import asyncio
import contextlib
import hashlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from . import calls, links
from .auth import Session
from .config import Settings
from .db import Database, Lane, Streams
from .errors import Problem, too_many
from .links import Link, Signer
from .stores import BrokenOff, NoObject, Store, Writer, in_thread, open_store
from .streams import Streamed

log = logging.getLogger("rowcast.files")

Json = dict[str, Any]

BATCH_BYTES: Final = 1024 * 1024  # written at once
SILENT_SECONDS: Final = 30.0
# Slower than this, once the first minute is over, is cut: a few would hold all places for days.
SLOWEST: Final = 16 * 1024
GRACE_SECONDS: Final = 60.0
BREAK_SECONDS: Final = 10.0
# At once, and of one user: a page may show many images. An upload to a bucket holds 24 MB.
DOWNLOADS: Final = 256
DOWNLOADS_OF_ONE: Final = 32
UPLOADS: Final = 64
UPLOADS_OF_ONE: Final = 8
UPLOADS_OF_ONE_FILE: Final = 2  # one may be lost and not know it yet
READ_AGAIN: Final = 2  # files whose bytes are read at once to confirm them
SWEEP_SECONDS: Final = 3600.0
FIRST_SWEEP_SECONDS: Final = 60.0
SWEPT_AT_ONCE: Final = 1000
LEFT_IN_A_ROW: Final = 5
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
        self._uploads = Streams(UPLOADS, UPLOADS_OF_ONE)
        self._downloads = Streams(DOWNLOADS, DOWNLOADS_OF_ONE)
        self._reading = asyncio.Semaphore(READ_AGAIN)
        self._uploading: dict[str, set[Arrival]] = {}
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
        """Where and how the bytes of a file are to be sent. With `resume` what has arrived of them
        is not sent again. Raises 403, 409 `uploaded`.
        """
        file = orjson.loads(await calls.file(self._work, session.claims, body, "upload"))
        by, offset = _owner(session), 0
        if _member(body, "resume") is True:
            await self._break_off(file["id"], by)
            offset = await self.store.left(file["id"], by)
        link = Link(
            method="PUT",
            id=file["id"],
            object=links.DIRECT.format(file["attempt"]),
            size=file["size"],
            type=file["type"],
            sha256=file["sha256"] or "",
            inline=0,
            by=by,
            expires=file["expires"],
            until=file["until"],
            offset=offset,
        )
        if self._settings.files_direct:
            url, headers = links.presigned_upload(self._settings, link, time.time())
        else:
            url = (await self._signing()).url(link)
            headers = {"Content-Type": link.type}
        return {
            "method": "PUT",
            "url": url,
            "headers": headers,
            "offset": offset,
            "expiresAt": link.expires,
        }

    async def download(self, session: Session, body: str) -> Json:
        """A link to the bytes of a file. Raises 403, 409 `not_ready` and `deleted`."""
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
            sizes = await self.store.sizes(file["id"])
            found = (await self._signing()).stored(file["id"], file["size"], receipt)
            # A receipt outlives what it speaks of.
            if found is None or sizes.get(found[0]) != file["size"]:
                found = await self._look(session, body, file, sizes)
            name, sha256 = found
            file = orjson.loads(
                await calls.confirm_file(
                    self._work, session.claims, body, name, file["size"], sha256
                )
            )
        return {name: file[name] for name in ("table", "id", "state", "size", "sha256")}

    async def _look(
        self, session: Session, body: str, file: Json, sizes: dict[str, int]
    ) -> tuple[str, str]:
        """The object with the bytes a record names, found by reading what is there."""
        id_, size, declared = file["id"], file["size"], file["sha256"]
        direct = links.DIRECT.format(file["attempt"])
        fitting = sorted(
            name
            for name, found in sizes.items()
            if found == size and (name == direct or not name.startswith(links.DIRECT[:7]))
        )
        for name in fitting:
            async with self._reading:
                digest = hashlib.sha256()
                async with aclosing(self.store.read(id_, name)) as parts:
                    async for part in parts:
                        await in_thread(digest.update, part)
            if declared in (None, digest.hexdigest()):
                return name, digest.hexdigest()
        if direct in sizes and await calls.reject_upload(
            self._work, session.claims, body, file["attempt"]
        ):
            await self.store.remove_one(id_, direct)
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
        if announced is not None and links.length(announced) != link.size - link.offset:
            raise links.bad_link()
        if request.headers.get("content-type") != link.type:
            raise links.bad_link()
        async with self._uploads.slot(link.by), self._place(link) as arrival:
            if link.size in (await self.store.sizes(link.id)).values():
                raise Problem(409, "uploaded", "The bytes are there; confirm them")
            name = uuid.uuid4().hex
            try:
                async with self.store.writer(link.id, name, link.by, link.offset) as writer:
                    await arrival.into(writer, request)
                    sha256 = writer.digest.hexdigest()
                    if link.sha256 not in ("", sha256):
                        raise _mismatch()
            except NoObject:
                raise Problem(
                    409, "moved_on", "What had arrived is not there any more; ask for another link"
                ) from None
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
        # Ranges are of GET alone.
        wanted = request.headers.getlist("range") if request.method == "GET" else []
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
    async def _place(self, link: Link) -> AsyncIterator["Arrival"]:
        running = self._uploading.setdefault(link.id, set())
        if len(running) >= UPLOADS_OF_ONE_FILE:
            raise too_many("This file is being uploaded already")
        arrival = Arrival(link)
        running.add(arrival)
        try:
            yield arrival
        finally:
            arrival.over.set()
            running.remove(arrival)
            if not running:
                del self._uploading[link.id]

    async def _break_off(self, id_: str, by: str) -> None:
        """Ends uploads of this user, whose connection may be lost without anyone's having noticed,
        so that another goes on from where they are.
        """
        for arrival in list(self._uploading.get(id_, ())):
            if arrival.link.by != by:
                continue
            arrival.break_off()
            try:
                async with asyncio.timeout(BREAK_SECONDS):
                    await arrival.over.wait()
            except TimeoutError:
                raise too_many("What has arrived is still being written") from None

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = Signer(bytes.fromhex(await calls.file_key(self._work)))
        return self._signer

    async def _sweep_forever(self) -> None:
        await asyncio.sleep(FIRST_SWEEP_SECONDS)
        while True:
            try:
                await sweep(self.store, self._aside)
            except Exception as exc:  # noqa: BLE001  # whatever it is, the next one is due
                log.warning("sweep broke off class=%s", type(exc).__name__)
            await asyncio.sleep(SWEEP_SECONDS)


class Remover:
    """Removes objects of files, one file after the other. What cannot be removed is `left`, and the
    others go, unless it is so of one after the other: then the store itself is in trouble.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._in_a_row = 0
        self.left: set[str] = set()

    async def remove(self, id_: str, keep: str | None) -> bool:
        """Whether they are gone."""
        if id_ in self.left or self.in_vain:
            return False
        try:
            await self._store.remove(id_, keep)
        except Problem:
            log.warning("file not removed id=%s", id_)
            self.left.add(id_)
            self._in_a_row += 1
            return False
        self._in_a_row = 0
        return True

    @property
    def in_vain(self) -> bool:
        """Whether nothing more is tried."""
        return self._in_a_row >= LEFT_IN_A_ROW

    def report(self) -> None:
        """Raises Problem 503 `store` where anything is left."""
        if self.left:
            what = f"{len(self.left)} files cannot be removed from the store; the log names them"
            raise Problem(503, "store", what)


async def sweep(store: Store, lane: Lane) -> int:
    """Removes what SQL names; gives how many files are gone. Raises psycopg.Error, and Problem,
    once it is through, where something could not be removed.
    """
    gone, remover = 0, Remover(store)
    while not remover.in_vain:
        named = orjson.loads(await calls.sweep(lane, SWEPT_AT_ONCE))
        removed = [file for file in named if await remover.remove(file["id"], file["keep"])]
        if removed:
            gone += await calls.swept(lane, orjson.dumps(removed).decode())
        if remover.left:
            await calls.not_swept(lane, list(remover.left))
        if len(named) < SWEPT_AT_ONCE or not removed:
            break
    await store.tidy()
    remover.report()
    return gone


async def sweep_orphans(store: Store, lane: Lane) -> int:
    """Removes objects that are older than a day and of no file in the database; gives of how many
    files. Raises as `sweep`.
    """
    gone: set[str] = set()
    remover = Remover(store)
    async for ids in store.old_ids():
        unknown = await calls.unknown_files(lane, [id_ for id_ in ids if id_ not in gone])
        gone.update([id_ for id_ in unknown if await remover.remove(id_, None)])
        if remover.in_vain:
            break
    remover.report()
    return len(gone)


async def sweep_once(settings: Settings, conninfo: str, orphans: bool) -> tuple[int, int]:
    """Both, from outside a gateway. Raises psycopg.Error, Problem."""
    store, lane = open_store(settings), Lane(conninfo, "sweep", 1)
    await lane.open()
    try:
        try:
            gone, problem = await sweep(store, lane), None
        except Problem as exc:
            gone, problem = 0, exc
        strange = await sweep_orphans(store, lane) if orphans else 0
        if problem is not None:
            raise problem
        return gone, strange
    finally:
        await lane.close()


class Arrival:
    """An upload under way."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.over = asyncio.Event()
        self._broken = False
        self._waiting: asyncio.Timeout | None = None

    def break_off(self) -> None:
        """It ends with the part that it has."""
        self._broken = True
        if self._waiting is not None:
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def into(self, writer: Writer, request: Request) -> None:
        """The body as it comes, in larger parts: a thread for each piece of 64 KB costs more than
        the writing. Raises BrokenOff once what came is written, 403 where it is another length.
        """
        batch = bytearray()
        try:
            async with aclosing(self._parts(request)) as parts:
                async for part in parts:
                    batch += part
                    if len(batch) >= BATCH_BYTES:
                        await writer.write(bytes(batch))
                        batch.clear()
        except BrokenOff:
            await writer.write(bytes(batch))
            raise
        await writer.write(bytes(batch))

    async def _parts(self, request: Request) -> AsyncGenerator[bytes, None]:
        """No more and no less than the link says, and neither too slowly nor past its end."""
        wanted, seen = self.link.size - self.link.offset, 0
        started = time.monotonic()
        parts = request.stream()
        while True:
            behind = started + GRACE_SECONDS + seen / SLOWEST - time.monotonic()
            wait = min(SILENT_SECONDS, self.link.until - time.time(), behind)
            try:
                async with asyncio.timeout(0 if self._broken else wait) as self._waiting:
                    part = await anext(parts)
            except (TimeoutError, ClientDisconnect):
                raise BrokenOff from None
            except StopAsyncIteration:
                break
            finally:
                self._waiting = None
            seen += len(part)
            if seen > wanted:
                raise links.bad_link()
            yield part
        if seen != wanted:
            raise links.bad_link()


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
