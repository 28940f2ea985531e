"""Sign-in by an OpenID Connect provider: authorization code with PKCE, state and nonce."""

import logging
import secrets
import time
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import jwt
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from .auth import KeySet, decode
from .config import ASYMMETRIC, Provider
from .errors import unavailable

log = logging.getLogger("rowcast.oidc")

TIMEOUT_SECONDS: Final = 5.0
KEEP_SECONDS: Final = 3600.0
LEEWAY_SECONDS: Final = 30
NAMED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Failed(Exception):
    """The provider's answer is not to be believed, or it refused. Says nothing of its contents."""


class Client:
    """One provider: its addresses and keys are fetched when first needed and kept for an hour."""

    def __init__(self, provider: Provider, callback: str) -> None:
        self.provider = provider
        self._callback = callback
        self._metadata: dict[str, Any] = {}
        self._fetched_at = -KEEP_SECONDS
        self._keys: KeySet | None = None

    async def start(self) -> tuple[str, dict[str, str]]:
        """Where to send the browser, and what has to be remembered until it comes back. Raises
        503 where the provider cannot be reached.
        """
        metadata = await self._discover()
        flow = {
            "state": secrets.token_urlsafe(32),
            "nonce": secrets.token_urlsafe(32),
            "verifier": secrets.token_urlsafe(48),
        }
        async with self._session() as session:
            address, _ = session.create_authorization_url(
                metadata["authorization_endpoint"],
                state=flow["state"],
                nonce=flow["nonce"],
                code_challenge=create_s256_code_challenge(flow["verifier"]),
                code_challenge_method="S256",
            )
        return str(address), flow

    async def finish(self, code: str, flow: dict[str, Any]) -> dict[str, Any]:
        """The claims of whom the provider names. Raises Failed, or 503."""
        metadata = await self._discover()
        try:
            async with self._session() as session:
                answer = await session.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=flow["verifier"],
                )
        except httpx2.HTTPError:
            raise unavailable("The provider cannot be reached; try again") from None
        except (AuthlibBaseError, ValueError, KeyError, TypeError) as exc:
            raise Failed(type(exc).__name__) from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Failed("no id_token")
        return await self._verify(token, str(flow["nonce"]))

    async def _verify(self, token: str, nonce: str) -> dict[str, Any]:
        """OpenID Connect Core 3.1.3.7."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ASYMMETRIC or "crit" in header or self._keys is None:
                raise Failed("algorithm")
            claims, _ = decode(
                token,
                await self._keys.find(header.get("kid"), algorithm),
                algorithms=[algorithm],
                audience=self.provider.client_id,
                issuer=self.provider.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as exc:
            raise Failed(type(exc).__name__) from None
        audience, party = claims["aud"], claims.get("azp")
        several = isinstance(audience, list) and len(audience) > 1
        if party not in (
            (self.provider.client_id,) if several else (None, self.provider.client_id)
        ):
            raise Failed("azp")
        if not secrets.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
            raise Failed("nonce")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise Failed("sub")
        return claims

    def _session(self) -> AsyncOAuth2Client:
        method = "client_secret_basic" if self.provider.client_secret else "none"
        return AsyncOAuth2Client(
            client_id=self.provider.client_id,
            client_secret=self.provider.client_secret,
            token_endpoint_auth_method=method,
            scope=self.provider.scopes,
            redirect_uri=self._callback,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )

    async def _discover(self) -> dict[str, Any]:
        """The provider's document about itself, which has to be of the issuer it is asked of."""
        if time.monotonic() - self._fetched_at < KEEP_SECONDS:
            return self._metadata
        address = self.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as http:
                found = (await http.get(address)).raise_for_status().json()
            if found["issuer"] != self.provider.issuer:
                raise ValueError("another issuer")
            # What is said over https is not undone by an address without.
            scheme = urlsplit(self.provider.issuer).scheme
            if not all(urlsplit(found[name]).scheme in ("https", scheme) for name in NAMED):
                raise ValueError("no address")
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as exc:
            log.warning("provider %s not read class=%s", self.provider.id, type(exc).__name__)
            raise unavailable("The provider cannot be reached; try again") from None
        if self._keys is None or self._metadata.get("jwks_uri") != found["jwks_uri"]:
            self._keys = KeySet(found["jwks_uri"], KEEP_SECONDS)
        self._metadata, self._fetched_at = found, time.monotonic()
        return self._metadata
