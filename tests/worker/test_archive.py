"""Archives of exports, by their bytes alone: what reading them never believes."""

import io
import random
import struct
import zipfile
from datetime import UTC, datetime

import pytest

from app import archive
from tests.worker.transfers import packed

END = b"PK\x05\x06"
ENTRY = b"PK\x01\x02"
LIMIT = 1 << 30


def read(content: bytes) -> archive.Reader:
    return archive.Reader(io.BytesIO(content), len(content), LIMIT)


async def written(files: int) -> bytes:
    made: list[bytes] = []

    async def write(part: bytes) -> None:
        made.append(part)

    writer = archive.Writer(write, datetime.now(UTC), LIMIT)
    await writer.begin_table("tasks")
    await writer.put(b'{"id":"1"}\n')
    await writer.end()
    for number in range(files):
        await writer.begin_file(
            "taskFiles", f"00000000-0000-4000-8000-{number:012}", "né/w\x7f.txt"
        )
        await writer.put(b"bytes")
        await writer.end()
    await writer.close({"format": archive.FORMAT, "version": archive.VERSION})
    return b"".join(made)


async def test_directory_of_the_64_bit_kind_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (zipfile.ZIP_FILECOUNT_LIMIT, 2):
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", most)
        content = await written(3)
        assert (b"PK\x06\x06" in content) is (most == 2)
        found = read(content)
        assert found.manifest()["version"] == 1
        assert list(found.records("tasks", 100)) == [{"id": "1"}]
        assert [b"".join(found.parts(*key)) for key in found.files] == [b"bytes"] * 3


def test_directory_that_is_larger_than_a_second_record_of_it_says_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """zipfile takes the record before the locator, wherever the locator leads to."""
    name = b"tables/tasks.ndjson"
    entry = struct.pack("<4s4B4HL2L5H2L", ENTRY, 45, 3, 45, *[0] * 8, len(name), *[0] * 6) + name
    directory = entry * (archive.DIRECTORY_BYTES // len(entry) + 1)
    record = struct.Struct("<4sQ2H2L4Q")
    count = len(directory) // len(entry)
    decoy = record.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(entry), 0)
    real = record.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), len(decoy))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    end = struct.pack("<4s4H2LH", END, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)

    def never(*_: object) -> None:
        raise AssertionError("it is read whole")

    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", never)
    for before in (real, b"\0" * len(real)):
        with pytest.raises(archive.BadArchive):
            read(decoy + directory + before + locator + end)


@pytest.mark.parametrize("after_end", [True, False])
def test_file_that_is_nowhere_in_the_archive_is_damage(after_end: bool) -> None:
    """The directory says that it starts elsewhere, or an entry of it that its bytes do."""
    made = bytearray(packed({"tasks": [{"id": "1"}]}))
    at = made.rindex(END) + 16 if after_end else made.index(ENTRY) + 42
    made[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    with pytest.raises(archive.BadArchive, match="nowhere in it"):
        read(bytes(made))


def test_encrypted_or_oddly_packed_files_are_refused() -> None:
    for offset, value in ((8, 1), (10, 12)):
        made = bytearray(packed({"tasks": [{"id": "1"}]}))
        at = made.index(ENTRY) + offset
        made[at] = value
        with pytest.raises(archive.BadArchive):
            read(bytes(made))


def test_entries_that_share_bytes_are_refused() -> None:
    """So a small file would stand for an endless one."""
    id_ = "00000000-0000-4000-8000-000000000000"
    content = packed({"tasks": [{"id": "1"}]}, {f"files/taskFiles/{id_}/n": random.randbytes(9999)})
    at, end = content.index(ENTRY, content.index(ENTRY) + 4), content.rindex(END)
    entry = content[at : content.index(ENTRY, at + 4)]
    directory = content[content.index(ENTRY) : end] + entry.replace(b"8000", b"8001")
    tail = bytearray(content[end:])
    tail[8:12] = struct.pack("<2H", 4, 4)
    tail[12:16] = struct.pack("<I", len(directory))
    with pytest.raises(archive.BadArchive, match="overlap"):
        read(content[: content.index(ENTRY)] + directory + bytes(tail))
