"""An OpenID Connect provider, in a process of its own: `python -m tests.gateway.provider PORT`.

Small, but by the book: the client has to say who it is, codes are single use and bound to redirect
and challenge. `POST /say` sets whom it names and how it misbehaves next.
"""

import base64
import hashlib
import secrets
import sys
import time
from typing import Any
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "rowcast", "of-the-client"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class State:
    """What it was told, and the codes it gave out."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.claims: dict[str, Any] = {}
        self.fault = ""
        self.codes: dict[str, dict[str, str]] = {}


def application(issuer: str) -> Starlette:
    state = State(issuer)

    async def say(request: Request) -> Response:
        told = await request.json()
        state.claims, state.fault = told.get("claims", {}), told.get("fault", "")
        return JSONResponse({})

    async def discovery(_: Request) -> Response:
        return JSONResponse(
            {
                "issuer": issuer,
                "authorization_endpoint": f"{issuer}/authorize",
                "token_endpoint": f"{issuer}/token",
                "jwks_uri": f"{issuer}/keys",
            }
        )

    async def keys(_: Request) -> Response:
        public = jwt.get_algorithm_by_name("RS256").to_jwk(KEY.public_key(), as_dict=True)
        return JSONResponse({"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]})

    async def authorize(request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        back = f"{asked['redirect_uri']}?state={asked['state']}&iss={issuer}"
        if state.fault == "denied":
            return RedirectResponse(f"{back}&error=access_denied", 303)
        code = secrets.token_urlsafe()
        state.codes[code] = asked
        return RedirectResponse(f"{back}&code={code}", 303)

    async def token(request: Request) -> Response:
        given = dict(parse_qsl((await request.body()).decode()))
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = state.codes.pop(str(given.get("code")), None)
        verifier = hashlib.sha256(str(given.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).rstrip(b"=").decode()
        if (
            request.headers.get("authorization") != f"Basic {plain}"
            or asked is None
            or given.get("redirect_uri") != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = time.time()
        claims = {
            "iss": issuer,
            "aud": CLIENT,
            "iat": int(now),
            "exp": int(now) + 60,
            "nonce": asked["nonce"],
            **state.claims,
        }
        key, headers, algorithm = KEY, {"kid": "one"}, "RS256"
        if state.fault == "another key":
            key = OTHER
        made = jwt.encode(claims, key, algorithm=algorithm, headers=headers)
        if state.fault == "alg none":
            made = jwt.encode(claims, "", algorithm="none", headers=headers)
        return JSONResponse(
            {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": made}
        )

    return Starlette(
        routes=[
            Route("/say", say, methods=["POST"]),
            Route("/.well-known/openid-configuration", discovery),
            Route("/keys", keys),
            Route("/authorize", authorize),
            Route("/token", token, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(application(f"http://127.0.0.1:{port}"), port=port, log_level="warning")
