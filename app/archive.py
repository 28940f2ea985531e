"""The file of an export: a zip of NDJSON tables and of files, written as a stream and read with
distrust.

    tables/<table>.ndjson          a record a line, as the wire writes it
    files/<table>/<id>/<name>      the bytes of a file
    manifest.json                  what there is, written last

No database and no store: bytes in, bytes out. Reading blocks, so it is for threads.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any, Final

import orjson

from .stores import in_thread

FORMAT: Final = "rowcast-export"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
READ_BYTES: Final = 64 * 1024
# An entry of the directory takes about 100 bytes in the file and 600 in memory: 100 000 files.
DIRECTORY_BYTES: Final = 16 * 1024 * 1024
MANIFEST_BYTES: Final = 1024 * 1024
_TABLE: Final = re.compile(r"tables/([A-Za-z_][A-Za-z0-9_]{0,62})\.ndjson")
_FILE: Final = re.compile(
    r"files/([A-Za-z_][A-Za-z0-9_]{0,62})/"
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/([^/\\\x00-\x1f]{1,255})"
)
_UNSAFE: Final = re.compile(r"[/\\\x00-\x1f\x7f]")
_ENCRYPTED: Final = 0x1
_END: Final = b"PK\x05\x06"
_END_64: Final = b"PK\x06\x07"
_RECORD_64: Final = b"PK\x06\x06"
_LONGEST_END: Final = 22 + 65535 + 20 + 56  # with a comment, and what 64 bits need before it


class BadArchive(Exception):
    """The file is none of ours, or not whole, or means harm; `code` says which, for people."""

    def __init__(self, code: str, detail: str, table: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.table = table


class TooLarge(Exception):
    """The archive would be larger than is allowed."""


class _Sink(io.RawIOBase):
    """Where zipfile writes: what has gathered is taken away. It cannot be sought in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any, /) -> int:
        found = bytes(part)
        self._parts.append(found)
        return len(found)

    def take(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found


class Writer:
    """Writes an archive. What has been written goes to `write` at once, so memory stays small;
    the directory, about 600 bytes a file, is kept to the end.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]], at: datetime, most: int) -> None:
        self._write = write
        self._at = at.timetuple()[:6]
        self._most = most
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(self._sink, "w", zipfile.ZIP_DEFLATED, allowZip64=True)
        self._entry: IO[bytes] | None = None
        self.size = 0

    async def begin_table(self, table: str) -> None:
        """Records of this table follow."""
        await self._begin(f"tables/{table}.ndjson", zipfile.ZIP_DEFLATED)

    async def begin_file(self, table: str, id_: str, name: str) -> None:
        """Bytes of this file follow. They are not compressed: most kinds are already."""
        name = _UNSAFE.sub("_", name) or "file"
        await self._begin(f"files/{table}/{id_}/{name}", zipfile.ZIP_STORED)

    async def put(self, part: bytes) -> None:
        """The next bytes. Raises TooLarge."""
        if self._entry is not None:
            await in_thread(self._entry.write, part)
        await self._pass_on()

    async def end(self) -> None:
        """The end of a table or file."""
        if self._entry is not None:
            await in_thread(self._entry.close)
            self._entry = None
        await self._pass_on()

    async def close(self, manifest: dict[str, Any]) -> None:
        """The end of the archive."""
        await self._begin(MANIFEST, zipfile.ZIP_DEFLATED)
        await self.put(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        await self.end()
        await in_thread(self._zip.close)
        await self._pass_on()

    async def _begin(self, name: str, method: int) -> None:
        info = zipfile.ZipInfo(name, date_time=self._at)
        info.compress_type = method
        info.external_attr = 0o600 << 16
        # The size is not known before: the entry says so, and allows for any.
        self._entry = await in_thread(lambda: self._zip.open(info, "w", force_zip64=True))

    async def _pass_on(self) -> None:
        part = self._sink.take()
        if part:
            self.size += len(part)
            if self.size > self._most:
                raise TooLarge
            await self._write(part)


class Reader:
    """Reads an archive that somebody has sent. Raises BadArchive.

    Nothing of it is believed: names are of two forms, of what they say nothing is ever a path; an
    entry gives no more bytes than it has announced, nor all together more than `most`.
    """

    def __init__(self, file: IO[bytes], size: int, most: int) -> None:
        with _readable():
            if _directory_bytes(file, size) > DIRECTORY_BYTES:
                raise BadArchive("too_large", "The archive holds too many files")
            self._zip = zipfile.ZipFile(file)
        self.tables: dict[str, zipfile.ZipInfo] = {}
        self.files: dict[tuple[str, str], zipfile.ZipInfo] = {}
        names: set[str] = set()
        plain = packed = 0
        for info in self._zip.infolist():
            plain += info.file_size
            packed += info.compress_size
            if info.filename in names:
                raise BadArchive("bad_archive", "The archive names a file twice")
            names.add(info.filename)
            if not 0 <= info.header_offset < size:
                raise BadArchive("bad_archive", "A file of the archive is nowhere in it")
            if info.flag_bits & _ENCRYPTED:
                raise BadArchive("bad_archive", "The archive is encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadArchive("bad_archive", "The archive is packed in a way not known here")
            if info.filename != MANIFEST:
                self._sort_in(info)
        # Entries that share bytes make a small file stand for an endless one.
        if packed > size:
            raise BadArchive("bad_archive", "Files of the archive overlap")
        if plain > most:
            raise BadArchive("too_large", "What the archive holds is too large")

    def _sort_in(self, info: zipfile.ZipInfo) -> None:
        table, file = _TABLE.fullmatch(info.filename), _FILE.fullmatch(info.filename)
        if table is not None:
            self.tables[table[1]] = info
        elif file is not None and file[3] not in (".", ".."):
            if (file[1], file[2]) in self.files:
                raise BadArchive("bad_archive", "The archive holds a file twice", file[1])
            self.files[file[1], file[2]] = info
        else:
            raise BadArchive("bad_archive", "The archive holds a file with a name not known here")

    def manifest(self) -> dict[str, Any]:
        """What the archive says of itself."""
        with _readable():
            try:
                info = self._zip.getinfo(MANIFEST)
            except KeyError:
                raise BadArchive("bad_archive", "The file is no export of this app") from None
            if info.file_size > MANIFEST_BYTES:
                raise BadArchive("bad_archive", "The manifest is too large")
            with self._zip.open(info) as entry:
                found = _json(entry.read())
        if found.get("format") != FORMAT:
            raise BadArchive("bad_archive", "The file is no export of this app")
        if found.get("version") != VERSION:
            raise BadArchive("bad_version", "The export is of another version of the format")
        return found

    def records(self, table: str, most: int) -> Iterator[dict[str, Any]]:
        """The records of a table, each of at most so many bytes."""
        with _readable(table), self._zip.open(self.tables[table]) as entry:
            rest = b""
            while part := entry.read(READ_BYTES):
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > most:
                    raise BadArchive("bad_record", "A record is too large", table)
                for line in lines:
                    if len(line) > most:
                        raise BadArchive("bad_record", "A record is too large", table)
                    yield _json(line, table)
            if rest:
                yield _json(rest, table)

    def parts(self, table: str, id_: str) -> Iterator[bytes]:
        """The bytes of a file."""
        with _readable(table), self._zip.open(self.files[table, id_]) as entry:
            while part := entry.read(READ_BYTES * 4):
                yield part


@contextmanager
def _readable(table: str | None = None) -> Iterator[None]:
    """What zipfile raises on what is no zip, or a broken one."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,  # a way of packing that zipfile does not know
        UnicodeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise BadArchive("bad_archive", "The file is no zip, or it is damaged", table) from error


def _json(line: bytes, table: str | None = None) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise BadArchive("bad_record", "A record is no JSON object", table)
    return found


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """How large the directory says it is, before zipfile reads it whole. Of the 64-bit kind that is
    what stands right before the locator, whatever that says, as it is for zipfile.
    """
    start = max(0, size - _LONGEST_END)
    file.seek(start)
    tail = file.read(_LONGEST_END)
    at = tail.rfind(_END)
    if at < 0 or at + 22 > len(tail):
        raise zipfile.BadZipFile("no end of a directory")
    (found,) = struct.unpack("<I", tail[at + 12 : at + 16])
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator[:4] == _END_64:
        record = tail[at - 76 : at - 20] if at >= 76 else b""
        (where,) = struct.unpack("<Q", locator[8:16])
        if record[:4] != _RECORD_64 or where != start + at - 76:
            raise zipfile.BadZipFile("no directory")
        (found,) = struct.unpack("<Q", record[40:48])
    if found > size:
        raise zipfile.BadZipFile("no such directory")
    return int(found)
