"""Who is asking: tokens from header or cookie, their verification, and the Origin rule."""

import asyncio
import hashlib
import json
import logging
import math
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.types import Options
from starlette.datastructures import Headers

from .config import SYMMETRIC, Settings
from .errors import Problem, unavailable
from .tokens import key_id, own_issuer

log = logging.getLogger("rowcast.auth")

COOKIE: Final = "rowcast_session"
ROLES: Final = frozenset({"anon", "authenticated"})
ROLES_IN_ORDER: Final = ("authenticated", "anon")
OWN_ALGORITHM: Final = "HS256"
OF_THE_TOKEN: Final = frozenset({"exp", "iat", "nbf", "jti"})  # another in each token of a user
MAX_TOKEN_BYTES: Final = 8192
JWKS_REFRESH_SECONDS: Final = 60.0  # at most one fetch for an unknown key id in this time
JWKS_RETRY_SECONDS: Final = 2.0  # at first, where they cannot be fetched
JWKS_PAUSE_SECONDS: Final = 0.5  # between two fetches, however often they are asked for
JWKS_MAX_BYTES: Final = 1 << 20
JWKS_TIMEOUT_SECONDS: Final = 5.0  # of a fetch as a whole
REMEMBER_SECONDS: Final = 30.0  # a verified token is not verified again within this
REMEMBER_TOKENS: Final = 4096


@dataclass(frozen=True, slots=True)
class Session:
    """A verified caller. `claims` is the token's payload as JSON text, None without a token.

    `identity` is a hash of role and whole claims: two sessions of one identity may see the same.
    `rights` is the same without the claims that belong to the token and not to its owner.
    `expires_at` is Unix time in seconds. `key` names the issuer's key that signed the token, None
    for a shared secret.
    """

    claims: str | None
    user_id: str | None
    role: str
    expires_at: float | None
    identity: str
    rights: str
    key: str | None = None
    author: str = field(init=False)
    """Who he is whatever his token, for bounds per person; all without a name are one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "author", f"{self.role} {self.user_id or ''}")


ANONYMOUS: Final = Session(None, None, "anon", None, "anon", "anon")


def sign_in_again(detail: str, code: str = "unauthorized") -> Problem:
    """401: the caller has to present another token."""
    return Problem(401, code, detail)


class Verifier:
    """Turns tokens into sessions. Keys come from a shared secret, a JWKS document, or both."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._algorithms = frozenset(settings.algorithms)
        self._audience = settings.jwt_audience
        self._issuer = settings.jwt_issuer
        self._parties = frozenset(settings.jwt_authorized_parties)
        self._role_claim = settings.jwt_role_claim.split(".")
        self._own_issuer = own_issuer(settings)
        # The gateway's own tokens, by the id of their key: of the secret, and of former ones.
        own = [secret for secret in (self._secret, *settings.previous_secrets) if secret]
        self._own = {key_id(secret): secret for secret in own}
        self._leeway = settings.jwt_leeway_seconds
        self._allow_anon = settings.allow_anon
        self._keys: KeySet | None = None
        if settings.jwt_jwks_url:
            self._keys = KeySet(settings.jwt_jwks_url, settings.jwt_jwks_seconds, self._forget)
        self._recalled = asyncio.Event()
        self._remembered: dict[str, tuple[Session, float]] = {}
        self.withdrawn: Callable[[], None] = lambda: None
        """Called when keys have gone: some sessions may not be `held` any more."""

    def anonymous(self) -> Session:
        """The session of a caller without a token. Raises 401 where the setting forbids it."""
        if not self._allow_anon:
            raise sign_in_again("Sign in first")
        return ANONYMOUS

    async def verify(self, token: str) -> Session:
        """Checks signature, algorithm, time, audience, issuer, role. Raises 401, or 503 if the
        keys cannot be fetched.
        """
        now = time.time()
        known = self._remembered.get(token)
        if known is not None and now < known[1]:
            return known[0]
        payload, key_name = await self._decode(token)
        session = _session(payload, key_name)
        if len(self._remembered) >= REMEMBER_TOKENS:
            self._remembered.clear()
        expires_at = session.expires_at or now
        self._remembered[token] = (session, min(expires_at, now + REMEMBER_SECONDS))
        return session

    def holds(self, key: str | None) -> bool:
        """Whether the `key` of a session still counts."""
        return key is None or (self._keys is not None and key in self._keys)

    def recall(self) -> None:
        """Keys may have been withdrawn: has `keep_keys` fetch them at once."""
        self._recalled.set()

    async def keep_keys(self) -> None:
        """Fetches the issuer's keys again and again, for as long as it is run."""
        if self._keys is None:
            return
        self._keys.kept = True
        wait, pause = self._keys.max_age, JWKS_RETRY_SECONDS
        while True:
            try:
                async with asyncio.timeout(wait):
                    await self._recalled.wait()
            except TimeoutError:
                pass
            else:
                pause = JWKS_RETRY_SECONDS
            self._recalled.clear()
            try:
                renewed = await self._keys.renew()
            except Exception as exc:  # noqa: BLE001
                # Whatever it was, withdrawals have to be heard of after it, too.
                log.error("keys not renewed class=%s", type(exc).__name__)
                renewed = False
            if renewed:
                wait, pause = self._keys.max_age, JWKS_RETRY_SECONDS
            else:
                wait, pause = pause, min(2 * pause, JWKS_REFRESH_SECONDS)
            await asyncio.sleep(JWKS_PAUSE_SECONDS)

    def _forget(self) -> None:
        self._remembered.clear()
        self.withdrawn()

    async def _decode(self, token: str) -> tuple[dict[str, Any], str | None]:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise sign_in_again("The token is not readable")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise sign_in_again("The token is not readable") from None
        # Decided before any key is touched: `none`, and a public key used as an HMAC secret.
        algorithm = header.get("alg")
        key_name = header.get("kid")
        own = self._own.get(key_name) if isinstance(key_name, str) else None
        accepted = (OWN_ALGORITHM,) if own else self._algorithms
        if not isinstance(algorithm, str) or algorithm not in accepted or "crit" in header:
            raise sign_in_again("The token's algorithm is not accepted")
        keys: tuple[tuple[Any, str | None], ...]
        keys = ((own, None),) if own else await self._candidates(str(algorithm), key_name)
        issuer = self._own_issuer if own else self._issuer or None
        audience = self._own_issuer if own else self._audience or None
        options: Options = {
            "require": ["exp"],
            "verify_iat": False,
            # Left on, it refuses every token that names an audience where none is set.
            "verify_aud": audience is not None,
        }
        try:
            payload, name = decode(
                token,
                keys,
                algorithms=[str(algorithm)],
                audience=audience,
                issuer=issuer,
                leeway=self._leeway,
                options=options,
            )
        except jwt.ExpiredSignatureError:
            raise sign_in_again("The token has expired", "expired") from None
        except (jwt.PyJWTError, TypeError, ValueError):
            raise sign_in_again("The token is not valid") from None
        return payload if own else self._foreign(payload), name

    def _foreign(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What another issuer says, in our words: `role` is the one its claim names."""
        party = payload.get("azp")
        if self._parties and party is not None and str(party) not in self._parties:
            raise sign_in_again("The token was issued to another client")
        if "rowcast_session" in payload:
            raise sign_in_again("The token is not valid")
        if self._role_claim == ["role"]:
            return payload
        named: Any = payload.get(".".join(self._role_claim))
        if named is None:
            named = payload
            for part in self._role_claim:
                named = named.get(part) if isinstance(named, dict) else None
        if isinstance(named, list):
            # Of several roles those of the application are of no concern here.
            named = next((role for role in named if role in ROLES_IN_ORDER), None)
        return {**payload, "role": "authenticated" if named is None else named}

    async def _candidates(
        self, algorithm: str, key_id: object
    ) -> tuple[tuple[Any, str | None], ...]:
        if algorithm in SYMMETRIC and self._secret is not None:
            return ((self._secret, None),)
        if algorithm in SYMMETRIC or self._keys is None:
            raise sign_in_again("The token's algorithm is not accepted")
        return await self._keys.find(key_id if isinstance(key_id, str) else None, algorithm)


Named = tuple[jwt.PyJWK, str]


def decode(
    token: str, keys: Iterable[tuple[Any, str | None]], **checks: Any
) -> tuple[dict[str, Any], str | None]:
    """The payload of a token that one of these keys has signed, and the name of that key. Raises
    what `jwt.decode` does.
    """
    wrong: Exception = jwt.InvalidSignatureError("no key")
    for key, name in keys:
        try:
            return jwt.decode(token, key, **checks), name
        except jwt.InvalidSignatureError as exc:
            wrong = exc
    raise wrong


class KeySet:
    """The issuer's public keys, each with a name of its own: an id may be used again for another,
    and for several. Fetched when first needed, again when an unknown key id turns up (at most once
    a minute) and when `max_age` seconds old. `withdrawn` is called when one is gone.
    """

    def __init__(
        self, url: str, max_age: float, withdrawn: Callable[[], None] = lambda: None
    ) -> None:
        self.max_age = max_age
        self.kept = False
        """Whether somebody renews them, so that nobody waits for a fetch who finds his key."""
        self._url = url
        self._withdrawn = withdrawn
        self._keys: dict[str | None, tuple[Named, ...]] = {}
        self._names: frozenset[str] = frozenset()
        self._tried_at = self._fetched_at = -math.inf
        self._lock = asyncio.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    async def find(self, key_id: str | None, algorithm: str) -> tuple[Named, ...]:
        """The keys with this id and for this algorithm, with their names: one, where the issuer
        takes care. Without an id, the only key, or those that have none. Raises 401 if there is
        none, 503 where they could never be fetched.
        """
        if self._wanting(key_id):
            async with self._lock:
                wait = JWKS_REFRESH_SECONDS if self._keys else JWKS_RETRY_SECONDS
                if self._wanting(key_id) and time.monotonic() - self._tried_at >= wait:
                    await self._refresh()
        if self._fetched_at == -math.inf:
            raise unavailable("The keys that verify tokens cannot be fetched; try again")
        if key_id not in self._keys:
            raise sign_in_again("The token's key is not known")
        fitting = tuple(
            named for named in self._keys[key_id] if named[0].algorithm_name == algorithm
        )
        if not fitting:
            raise sign_in_again("The token's algorithm is not accepted")
        return fitting

    async def renew(self) -> bool:
        """Fetches them now; false: they cannot be, and those from before stay."""
        async with self._lock:
            return await self._refresh()

    def _wanting(self, key_id: str | None) -> bool:
        old = time.monotonic() - self._fetched_at >= self.max_age
        return key_id not in self._keys or (old and not self.kept)

    async def _refresh(self) -> bool:
        self._tried_at = now = time.monotonic()
        try:
            keys = _usable(await _fetch(self._url))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the keys from before stay
            log.warning("keys not fetched class=%s", type(exc).__name__)
            return False
        before = self._names
        self._names = frozenset(name for same in keys.values() for _, name in same)
        self._keys = keys
        self._fetched_at = now
        if before - self._names:
            log.info("keys withdrawn by the issuer: %d", len(before - self._names))
            self._withdrawn()
        return True


def _usable(document: list[Any]) -> dict[str | None, tuple[Named, ...]]:
    """The public keys of a document that may sign, by id; a single one by no id, too. Others are
    passed over, and so is what is no key: it takes nothing from those beside it.
    """
    found: dict[str | None, tuple[Named, ...]] = {}
    passed = 0
    for given in document:
        try:
            key = jwt.PyJWK(given)
            if key.public_key_use not in (None, "sig") or key.key_type == "oct":
                continue
            # A private key has no such thing: what everybody can read signs for nobody.
            public = key.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            found[key.key_id] = (
                *found.get(key.key_id, ()),
                (key, hashlib.sha256(public).hexdigest()),
            )
        except Exception:  # noqa: BLE001  # what a library makes of anything at all
            passed += 1
    if passed:
        log.warning("keys of the issuer that cannot be used: %d", passed)
    if len(found) == 1:
        found[None] = next(iter(found.values()))
    return found


async def _fetch(url: str) -> list[Any]:
    secure = url.startswith("https:")
    trusted = await asyncio.to_thread(ssl.create_default_context) if secure else False
    async with (
        asyncio.timeout(JWKS_TIMEOUT_SECONDS),
        httpx2.AsyncClient(
            verify=trusted, follow_redirects=True, timeout=JWKS_TIMEOUT_SECONDS
        ) as http,
        http.stream("GET", url, headers={"Cache-Control": "no-cache"}) as answer,
    ):
        # What is asked for over https is not taken from an address without.
        if secure and any(part.url.scheme != "https" for part in (*answer.history, answer)):
            raise ValueError("redirected to an address without https")
        answer.raise_for_status()
        text = bytearray()
        async for part in answer.aiter_bytes():
            text += part
            if len(text) > JWKS_MAX_BYTES:
                raise ValueError("too long")
    keys = json.loads(text)["keys"]
    if not isinstance(keys, list):
        raise ValueError("not a key set")
    return keys


def _session(payload: Mapping[str, Any], key: str | None) -> Session:
    role = payload.get("role", "authenticated")
    if not isinstance(role, str) or role not in ROLES:
        raise sign_in_again("The token's role is not accepted")
    user_id = payload.get("sub")
    if not isinstance(user_id, str | None) or (role == "authenticated" and not user_id):
        raise sign_in_again("The token names no user")
    try:
        claims = _canonical(payload)
        expires_at = float(payload["exp"])
    except (ValueError, OverflowError):
        raise sign_in_again("The token is not readable") from None
    # jsonb takes neither NUL nor a lone surrogate, and a claim is cast to it in every request.
    if "\\u0000" in claims or not _encodes(claims):
        raise sign_in_again("The token is not readable")
    lasting = _canonical({name: v for name, v in payload.items() if name not in OF_THE_TOKEN})
    return Session(
        claims, user_id, role, expires_at, _digest(role, claims), _digest(role, lasting), key
    )


def _canonical(claims: Mapping[str, Any]) -> str:
    """Raises ValueError for a number that is none in JSON: 1e400 is read as infinite."""
    return json.dumps(
        claims, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False
    )


def _digest(role: str, claims: str) -> str:
    return hashlib.sha256(f"{role}\0{claims}".encode()).hexdigest()


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bearer(headers: Headers) -> str | None:
    """The token of the Authorization header, None without the header.

    Raises 401 on two such headers or another scheme: which one counts must not be a guess.
    """
    values = headers.getlist("authorization")
    if not values:
        return None
    scheme, _, token = values[0].partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise sign_in_again("Send one Authorization header with a Bearer token")
    return token.strip()


def origin_allowed(headers: Headers, allowed: tuple[str, ...]) -> bool:
    """Whether the page that sent this is ours: its Origin is the host it calls, or is listed.

    A browser always sends Origin with a POST and with a WebSocket, so one without it comes from
    no page; whether that is enough depends on how the caller identifies himself.
    """
    origins = headers.getlist("origin")
    if len(origins) != 1:
        return False
    origin = origins[0]
    if origin in allowed:
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc == headers.get("host", "")
