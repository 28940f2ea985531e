"""Where the bytes of files are: a folder, or a bucket by obstore. Objects are `<id>/<name>`.

obstore is loaded at its first use: a gateway that nobody sends files to does without its 5 MB.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from .config import Settings
from .errors import Problem

if TYPE_CHECKING:
    from obstore.store import LocalStore, ObjectStore

log = logging.getLogger("rowcast.stores")

READ_BYTES: Final = 256 * 1024
PART_BYTES: Final = 8 * 1024 * 1024  # S3 takes 10 000 parts: 80 GB
PARTIALS: Final = ".partial"
# An upload that runs writes at least every 90 s, so a partial file this old has nobody.
PARTIAL_SECONDS: Final = 3600.0
# What broke off waits this long to go on. Less than this is sent again sooner than found again.
LEFT_SECONDS: Final = 86400.0
LEFT_BYTES: Final = 1024 * 1024
HASHED_AGAIN: Final = 2  # uploads whose beginning is read at once
ORPHAN_AGE: Final = timedelta(days=1)
LISTED: Final = 1000
REQUEST_SECONDS: Final = "3600s"  # of a whole object, which a slow reader takes slowly
CONNECT_SECONDS: Final = "5s"
ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Result = TypeVar("Result")


class NoObject(Exception):
    """There is no such object."""


class BrokenOff(Problem):
    """408 `too_slow`: an upload ended before its end. It may go on."""

    def __init__(self) -> None:
        super().__init__(408, "too_slow", "The upload takes too long; send it again")


class Writer:
    """Takes an object part by part."""

    def __init__(self, put: Callable[[bytes], Awaitable[None]]) -> None:
        self._put = put
        self.digest = hashlib.sha256()

    async def write(self, part: bytes) -> None:
        """The next bytes."""
        await in_thread(self.digest.update, part)
        await self._put(part)


class Store:
    """A bucket. Raises Problem 503 `store` where it cannot be reached or has no room."""

    def __init__(self, open_: Callable[[], "ObjectStore"]) -> None:
        self._open_bucket = open_

    @cached_property
    def _bucket(self) -> "ObjectStore":
        return self._open_bucket()

    @asynccontextmanager
    async def writer(
        self, id_: str, name: str, by: str = "", offset: int = 0
    ) -> AsyncIterator[Writer]:
        """Writes an object, which is there as a whole after the end, and not at all after an
        exception. From `offset` on it goes on with what `by` has left; raises NoObject where just
        that is not there any more.
        """
        import obstore

        if offset:
            raise NoObject
        with _reached():
            async with obstore.open_writer_async(
                self._bucket, f"{id_}/{name}", buffer_size=PART_BYTES, max_concurrency=2
            ) as file:

                async def put(part: bytes) -> None:
                    await file.write(part)

                yield Writer(put)

    async def left(self, id_: str, by: str) -> int:
        """How many bytes of an upload that broke off wait for the rest: in a bucket none."""
        return 0

    async def read(
        self, id_: str, name: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to `end`, in parts. Raises NoObject before the first."""
        import obstore

        with _reached():
            if end is not None and end <= start:
                return
            wanted: Any = None if end is None else {"range": (start, end)}
            try:
                found = await obstore.get_async(self._bucket, f"{id_}/{name}", options=wanted)
            except FileNotFoundError:
                raise NoObject from None
            async for part in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(part)

    async def sizes(self, id_: str) -> dict[str, int]:
        """The objects of a file, with their sizes."""
        import obstore

        found: dict[str, int] = {}
        with _reached():
            async for page in obstore.list(self._bucket, prefix=f"{id_}/"):
                found |= {entry["path"].rpartition("/")[2]: entry["size"] for entry in page}
        return found

    async def remove(self, id_: str, keep: str | None) -> None:
        """Removes all objects of a file but one."""
        for name in await self.sizes(id_):
            if name != keep:
                await self.remove_one(id_, name)

    async def remove_one(self, id_: str, name: str) -> None:
        """Removes an object, if it is there."""
        import obstore

        with _reached(), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self._bucket, f"{id_}/{name}")

    async def old_ids(self) -> AsyncGenerator[list[str], None]:
        """The ids of files that have had objects for a day, some at a time."""
        import obstore

        before = datetime.now(UTC) - ORPHAN_AGE
        with _reached():
            async for page in obstore.list(self._bucket, chunk_size=LISTED):
                ids = {
                    entry["path"].partition("/")[0]
                    for entry in page
                    if entry["last_modified"] < before
                }
                yield sorted(id_ for id_ in ids if ID.fullmatch(id_))

    async def tidy(self) -> None:
        """Removes what writers have left that were killed. A bucket's own rules do that."""


class Folder(Store):
    """A folder of this machine, or one that all gateways mount."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._partials = self._root / PARTIALS
        self._again = asyncio.Semaphore(HASHED_AGAIN)
        super().__init__(self._make)

    def _make(self) -> "LocalStore":
        from obstore.store import LocalStore

        self._partials.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(self._root, automatic_cleanup=False)

    @asynccontextmanager
    async def writer(
        self, id_: str, name: str, by: str = "", offset: int = 0
    ) -> AsyncIterator[Writer]:
        """As of a bucket: under a temporary name, flushed, renamed, the folder flushed. That name
        is one writer's own: what broke off is flushed and left under another, and who goes on
        with it takes it from there.
        """
        partial = self._partials / uuid.uuid4().hex
        left = self._left(id_, by)
        with _reached():
            file = await in_thread(self._take, left, partial, offset)
            try:

                async def put(part: bytes) -> None:
                    await in_thread(_write, file, part)

                writer = Writer(put)
                if offset:
                    async with self._again:
                        await in_thread(_hash, file, writer.digest, offset)
                yield writer
                await in_thread(self._keep, file, partial, self._root / id_ / name)
            except (BrokenOff, asyncio.CancelledError):
                await in_thread(self._leave, file, partial, left)
                raise
            finally:
                # Closed and gone already, where all went well.
                os.close(file)
                partial.unlink(missing_ok=True)

    async def left(self, id_: str, by: str) -> int:
        """How many bytes of an upload of this user that broke off wait for the rest."""
        with _reached(), contextlib.suppress(FileNotFoundError):
            return (await in_thread(self._left(id_, by).stat)).st_size
        return 0

    async def remove(self, id_: str, keep: str | None) -> None:
        """As of a bucket; what broke off and the folder go, too."""
        await super().remove(id_, keep)
        with _reached():
            await in_thread(self._clear, id_, keep is None)

    async def tidy(self) -> None:
        """Removes partial files that nobody writes any more."""
        with _reached():
            await in_thread(self._tidy)

    def _left(self, id_: str, by: str) -> Path:
        return self._partials / f"{id_}.{by}"

    def _take(self, left: Path, partial: Path, offset: int) -> int:
        self._partials.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not offset:
            return os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            left.rename(partial)
            os.utime(partial)
        except FileNotFoundError:
            raise NoObject from None
        if partial.stat().st_size != offset:
            partial.rename(left)
            raise NoObject
        return os.open(partial, os.O_RDWR | os.O_CLOEXEC)

    def _leave(self, file: int, partial: Path, left: Path) -> None:
        size = os.fstat(file).st_size
        if size < LEFT_BYTES or (left.exists() and left.stat().st_size >= size):
            return
        # Else bytes may be missing in it after a power cut that were counted.
        os.fsync(file)
        # Cancelled late, it has its place already.
        with contextlib.suppress(FileNotFoundError):
            partial.rename(left)

    def _clear(self, id_: str, whole: bool) -> None:
        for left in self._partials.glob(f"{id_}.*"):
            left.unlink(missing_ok=True)
        if whole:
            with contextlib.suppress(FileNotFoundError):
                (self._root / id_).rmdir()

    def _keep(self, file: int, partial: Path, final: Path) -> None:
        os.fsync(file)
        final.parent.mkdir(mode=0o700, exist_ok=True)
        _flush(self._root)
        partial.rename(final)
        _flush(final.parent)

    def _tidy(self) -> None:
        now = time.time()
        for partial in self._partials.glob("*"):
            kept = LEFT_SECONDS if partial.suffix else PARTIAL_SECONDS
            with contextlib.suppress(FileNotFoundError):
                if partial.stat().st_mtime < now - kept:
                    partial.unlink()


def open_store(settings: Settings) -> Store:
    """The store that the settings name. Nothing is reached or made yet."""
    url = settings.files_url
    parts = urlsplit(url or "")
    if url is None:
        return Folder(settings.data_dir / "files")
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    key, secret = settings.files_key_id, settings.files_secret_key
    endpoint = settings.files_endpoint
    options: Any = {
        "timeout": REQUEST_SECONDS,
        "connect_timeout": CONNECT_SECONDS,
        "allow_http": (endpoint or "").startswith("http://"),
    }
    config: dict[str, Any]
    if parts.scheme == "s3":
        kind = "S3Store"
        config = {
            "access_key_id": key,
            "secret_access_key": secret,
            "endpoint": endpoint,
            "region": settings.files_region,
        }
    elif parts.scheme == "gs":
        kind = "GCSStore"
        config = {"service_account_key": secret}
    else:
        kind = "AzureStore"
        config = {"account_name": key, "account_key": secret, "endpoint": endpoint}
    given = {name: value for name, value in config.items() if value is not None}

    def bucket() -> "ObjectStore":
        from obstore import store

        made: ObjectStore = getattr(store, kind).from_url(url, config=given, client_options=options)
        return made

    return Store(bucket)


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Of what a store complains nothing leaves: it may name keys and folders."""
    try:
        yield
    except Exception as exc:
        from obstore.exceptions import BaseError

        if not isinstance(exc, (BaseError, OSError)):
            raise
        log.warning(
            "store failed class=%s errno=%s", type(exc).__name__, getattr(exc, "errno", None)
        )
        raise unreachable(exc) from None


def unreachable(exc: BaseException) -> Problem:
    """503 `store`."""
    full = getattr(exc, "errno", None) == errno.ENOSPC
    what = "has no room" if full else "does not answer"
    return Problem(503, "store", f"The store of files {what}; try again", retryAfter=5)


async def in_thread(work: Callable[..., Result], *given: Any) -> Result:
    """In a thread, and waits for it even when cancelled: what it works on is closed afterwards."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _hash(file: int, digest: Any, size: int) -> None:
    while size and (part := os.read(file, min(size, 1024 * 1024))):
        digest.update(part)
        size -= len(part)


def _write(file: int, part: bytes) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[os.write(file, rest) :]


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
