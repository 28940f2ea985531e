"""Cursors as clients see them: encrypted, since they name transactions of the whole database.

Each answer gets another text, even for the same cursor: nobody learns from it whether, and how
much, others write. One costs 5 us; it is made once per wake-up and not per socket.
"""

import binascii
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

# Of RFC 5297, with a nonce. Any number of gateways share the key and draw nonces at random, and
# unlike GCM nothing is lost when two of them draw the same.
_NONCE_BYTES: Final = 16
_LABEL: Final = b"rowcast cursor 1"
_STEP: Final = 96  # padded to multiples: how many transactions are running shows only in steps
MAX_CHARACTERS: Final = 32768
_MEMBER: Final = '{"cursor" : "'


class Cursors:
    """Seals cursors on their way out and opens them on their way in."""

    def __init__(self) -> None:
        self._key = b""
        self._cipher: AESSIV | None = None

    @property
    def ready(self) -> bool:
        """Whether the key is known."""
        return self._cipher is not None

    def use(self, key: bytes) -> None:
        """Takes the key of the database; another than before makes all cursors stale."""
        if key != self._key:
            self._key, self._cipher = key, AESSIV(key)

    def seal(self, cursor: str) -> str:
        """A cursor as text for a client. The key has to be known."""
        if self._cipher is None:
            raise RuntimeError("the key of cursors is not known yet")
        nonce, text = os.urandom(_NONCE_BYTES), cursor.encode()
        padded = text.ljust(-(-len(text) // _STEP) * _STEP or _STEP)
        sealed = nonce + self._cipher.encrypt(padded, [_LABEL, nonce])
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def open(self, text: str) -> str | None:
        """The cursor in a text that a client sent; None if it is none of ours."""
        if self._cipher is None or len(text) > MAX_CHARACTERS or not text.isascii():
            return None
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return self._cipher.decrypt(rest, [_LABEL, nonce]).decode().rstrip()
        except (binascii.Error, InvalidTag, ValueError):
            return None

    def seal_answer(self, answer: str) -> str:
        """An answer of PostgreSQL to a read, which begins with its cursor, with that sealed."""
        end = answer.find('"', len(_MEMBER))
        if not answer.startswith(_MEMBER) or end < 0:
            raise ValueError("an answer without a cursor")
        return f'{{"cursor":"{self.seal(answer[len(_MEMBER) : end])}{answer[end:]}'


@lru_cache(maxsize=1024)  # the keys of a socket share few
def covers(cursor: str, other: str | None) -> bool:
    """Whether all that is before the `other` cursor, if any, is before this one. Both as SQL makes
    them; of any other form nothing is known.
    """
    if other is None:
        return True
    try:
        epoch, xmax, running = _parts(cursor)
        other_epoch, other_xmax, other_running = _parts(other)
    except ValueError:
        return False
    return (
        epoch == other_epoch
        and xmax >= other_xmax
        and all(xid >= other_xmax or xid in other_running for xid in running)
    )


def _parts(cursor: str) -> tuple[str, int, frozenset[int]]:
    _, epoch, xmax, running, _ = cursor.split(".")
    return epoch, int(xmax), frozenset(map(int, running.split("-"))) if running else frozenset()
