"""Passwords: Argon2id, off the event loop, a bounded number at once."""

import asyncio
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from .errors import Problem, unavailable

T = TypeVar("T")

MIN_CHARACTERS: Final = 8  # NIST SP 800-63B
MAX_CHARACTERS: Final = 256
# What most people choose, with or without digits and marks around it (NIST SP 800-63B 3.1.1.2).
COMMON: Final = frozenset(
    Path(__file__).with_name("common_passwords.txt").read_text("utf-8").split()
)
ROWS: Final = ("01234567890123456789", "qwertyuiopqwertyuiop", "abcdefghijklmnopqrstuvwxyz")
LOOKS: Final = str.maketrans("@4310$57!", "aaeiossti")
MAX_WAITING: Final = 64  # at a tenth of a second each


class Passwords:
    """Hashes and verifies in threads of its own. A hash takes 64 MiB and about 0.1 s of a core."""

    def __init__(self, threads: int) -> None:
        self._hasher = PasswordHash((Argon2Hasher(),))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords")
        self._waiting = 0
        # Verified in vain where there is no user: it takes as long as with one.
        self._nobody = self._hasher.hash("nobody has this password")

    def close(self) -> None:
        """Ends the threads once they are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The hash to be kept. Raises 503 where too many wait."""
        return await self._run(self._hash, password)

    async def verify(self, password: str, known: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and its new hash where the old one is of former strength.
        Takes as long where none is known. Raises 503 where too many wait.
        """
        return await self._run(self._verify, password, known)

    def _hash(self, password: str) -> str:
        return self._hasher.hash(_normal(password))

    def _verify(self, password: str, known: str | None) -> tuple[bool, str | None]:
        try:
            right, new = self._hasher.verify_and_update(_normal(password), known or self._nobody)
        except UnknownHashError:
            return False, None
        return (right, new) if known is not None else (False, None)

    async def _run(self, work: Callable[..., T], *given: Any) -> T:
        if self._waiting >= MAX_WAITING:
            raise unavailable("Too many passwords are being checked; try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)
        finally:
            self._waiting -= 1


def check(password: str, email: str) -> None:
    """Raises 400 `weak_password`."""
    length = len(_normal(password))
    if not MIN_CHARACTERS <= length <= MAX_CHARACTERS:
        raise _weak(f"A password has {MIN_CHARACTERS} to {MAX_CHARACTERS} characters")
    lowered = password.casefold()
    if (
        lowered in (email.casefold(), email.casefold().partition("@")[0])
        or len(set(lowered)) < 3
        or _common(lowered)
    ):
        raise _weak("This password is too easy to guess")


def _common(lowered: str) -> bool:
    if any(lowered in row or lowered in row[::-1] for row in ROWS):
        return True
    word = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", lowered)
    # A common word is a small part of a long password.
    return len(lowered) < len(word) + 8 and not COMMON.isdisjoint((word, word.translate(LOOKS)))


def _weak(detail: str) -> Problem:
    return Problem(400, "weak_password", detail, key="password")


def _normal(password: str) -> str:
    """The same whatever keyboard composed it (RFC 8265)."""
    return unicodedata.normalize("NFC", password)
