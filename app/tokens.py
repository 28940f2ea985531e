"""What the gateway makes: tokens, the cookie of a session, the tokens of links. PostgreSQL knows
hashes of them alone.
"""

import base64
import hashlib
import hmac
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import jwt

from .config import Settings

ALGORITHM: Final = "HS256"
FLOW_SECONDS: Final = 600
PART_BYTES: Final = 32


def digest(value: bytes) -> bytes:
    """What PostgreSQL keeps of a secret: SHA-256, which is enough for 32 random bytes."""
    return hashlib.sha256(value).digest()


@dataclass(frozen=True, slots=True)
class Cookie:
    """A session in a browser: its id, the part that stays, the part each refresh replaces."""

    session: uuid.UUID
    family: bytes
    secret: bytes

    @classmethod
    def new(cls) -> Self:
        """A session that does not exist yet. Never one that the browser has brought."""
        return cls(uuid.uuid4(), secrets.token_bytes(PART_BYTES), secrets.token_bytes(PART_BYTES))

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """From the text of a cookie; None for anything else."""
        raw = _decoded(text or "")
        if raw is None or len(raw) != 16 + 2 * PART_BYTES:
            return None
        return cls(uuid.UUID(bytes=raw[:16]), raw[16:48], raw[48:])

    def text(self) -> str:
        """What the browser keeps."""
        return _encoded(self.session.bytes + self.family + self.secret)

    def successor(self, salt: bytes) -> Self:
        """The session after a refresh: with the same salt always the same."""
        after = hmac.digest(self.secret, b"rowcast session" + salt, "sha256")
        return type(self)(self.session, self.family, after)

    def known(self) -> dict[str, Any]:
        """Session, family and secret as PostgreSQL compares them."""
        return {
            "session": self.session,
            "family": digest(self.family),
            "secret": digest(self.secret),
        }


class Signer:
    """Signs with the first of the secrets; the others only verify (here and in `auth.Verifier`)."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret or ""
        self._secrets = (self._secret, *settings.previous_secrets)
        self._issuer = own_issuer(settings)

    def token(self, claims: Mapping[str, Any]) -> str:
        """An access token with the claims that PostgreSQL has made."""
        named = {**claims, "iss": self._issuer, "aud": self._issuer}
        headers = {"kid": key_id(self._secret)}
        return jwt.encode(named, self._secret, algorithm=ALGORITHM, headers=headers)

    def link(self, link: uuid.UUID, hashed: str | None = None) -> str:
        """The token of a link: whoever has the secret can make it again to write the mail.
        `hashed`: what PostgreSQL knows of it, in hex; it may have been made with a former secret.
        """
        made = [
            _encoded(hmac.digest(secret.encode(), b"rowcast link" + link.bytes, "sha256"))
            for secret in self._secrets
        ]
        return next((token for token in made if link_hash(token).hex() == hashed), made[0])

    def unsubscribing(self, user: uuid.UUID, topics: Sequence[str]) -> str:
        """The token of a link by which a user unsubscribes from topics, for as long as the secret
        is in use.
        """
        return self._unsubscribing(self._secret, user, topics)

    def may_unsubscribe(self, token: str, user: uuid.UUID, topics: Sequence[str]) -> bool:
        """Whether that is the token, made with one of our secrets."""
        return any(
            hmac.compare_digest(
                self._unsubscribing(secret, user, topics).encode(), token.encode("utf-8", "replace")
            )
            for secret in self._secrets
            if secret
        )

    @staticmethod
    def _unsubscribing(secret: str, user: uuid.UUID, topics: Sequence[str]) -> str:
        what = b"rowcast unsubscribe" + user.bytes + ",".join(topics).encode()
        return _encoded(hmac.digest(secret.encode(), what, "sha256"))

    def seal(self, flow: Mapping[str, Any]) -> str:
        """What a sign-in elsewhere has to remember on its way. No access token: another key."""
        named = {**flow, "exp": time.time() + FLOW_SECONDS}
        return jwt.encode(named, _flow_key(self._secret), algorithm=ALGORITHM)

    def unseal(self, text: str) -> dict[str, Any] | None:
        """The same again; None where it is too old or not from here."""
        for secret in self._secrets:
            try:
                flow: dict[str, Any] = jwt.decode(
                    text, _flow_key(secret), algorithms=[ALGORITHM], options={"require": ["exp"]}
                )
            except jwt.PyJWTError:
                continue
            return flow
        return None

    def browser(self, user: uuid.UUID) -> str:
        """A name for a browser in which a user has signed in; nobody else can make one."""
        named = user.bytes + secrets.token_bytes(16)
        return _encoded(named + _browser_mac(self._secret, named))

    def known(self, text: str) -> tuple[uuid.UUID, str] | None:
        """The user and the name of such a browser; None for anything else."""
        raw = _decoded(text)
        if raw is None or len(raw) != 64:
            return None
        if not any(
            hmac.compare_digest(raw[32:], _browser_mac(secret, raw[:32]))
            for secret in self._secrets
        ):
            return None
        return uuid.UUID(bytes=raw[:16]), raw[16:32].hex()


def _browser_mac(secret: str, named: bytes) -> bytes:
    return hmac.digest(secret.encode(), b"rowcast browser" + named, "sha256")


def _flow_key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"rowcast flow", "sha256")


def link_hash(token: str) -> bytes:
    """What PostgreSQL knows of the token of a link."""
    return digest(token.encode())


def key_id(secret: str) -> str:
    """The `kid` of tokens signed with a secret; says nothing of it."""
    return "rowcast-" + hmac.digest(secret.encode(), b"rowcast kid", "sha256").hex()[:16]


def own_issuer(settings: Settings) -> str:
    """Issuer and audience of the gateway's own tokens."""
    return settings.public_url or "rowcast"


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decoded(text: str) -> bytes | None:
    if not text.isascii() or len(text) > 200:
        return None
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
