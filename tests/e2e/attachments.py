"""Files to attach, and the attachments of the task that is open."""

import random
import struct
import zlib

from playwright.sync_api import Locator

from tests.e2e.tab import File, Tab

NAME = "My #1 Pic.PNG"
REPORT: File = ("Report.pdf", "application/pdf", b"%PDF- of a few words")
# Whether a link that somebody has kept still gives anything.
ALIVE = "async (url) => (await fetch(url)).ok"


def png(side: int, seed: int = 1) -> bytes:
    """A picture that cannot be compressed."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    end = chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + end


def files_of(tab: Tab) -> Locator:
    return tab.page.get_by_role("region", name="Attachments")


def attached(tab: Tab, name: str) -> Locator:
    """The button of a file that can be had."""
    return files_of(tab).get_by_role("button", name=name, exact=True)


def attach(tab: Tab, *files: File) -> None:
    tab.choose("Add files", *files)
