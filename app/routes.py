"""HTTP: a few lines a route. Bodies are read as text, checked for size, and passed to SQL."""

import logging
import time
from pathlib import Path
from typing import Any, Final

import jwt
import orjson
import psycopg
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from . import account_calls, calls, links, metrics, openapi, protocol
from .auth import COOKIE, Session, bearer, origin_allowed
from .config import SYMMETRIC
from .errors import MEDIA_TYPE, RETRY_SECONDS, Problem
from .gateway import Gateway
from .limits import address_of, subscriber_of
from .streams import Streamed

log = logging.getLogger("rowcast.routes")

STATIC: Final = Path(__file__).parent / "static"
NDJSON: Final = "application/x-ndjson"
DEV_SESSION_SECONDS: Final = 12 * 3600


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Every route; the development sign-in exists only where the settings turn it on."""
    table: list[BaseRoute] = [
        Route("/api/realtime/write", write, methods=["POST"]),
        Route("/api/realtime/getRecords", get_records, methods=["POST"]),
        Route("/api/realtime/query", query, methods=["POST"]),
        Route("/api/files/upload", file_upload, methods=["POST"]),
        Route("/api/files/confirm", file_confirm, methods=["POST"]),
        Route("/api/files/download", file_download, methods=["POST"]),
        Route(links.PATH, file_content, methods=["GET", "PUT"]),
        Route("/api/openapi.json", openapi_document),
        Route("/api/docs", docs),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics_text),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if gateway.settings.dev_sign_in:
        table.insert(0, Route("/api/auth/dev-sign-in", dev_sign_in, methods=["POST"]))
    return table


async def write(request: Request) -> Response:
    """POST /api/realtime/write: one transaction, or a batch of them."""
    gateway, session = gateway_of(request), await authenticate(request)
    body = await read_text(request)
    answer = await gateway.writes.submit(
        session, body, _wants_rollback(request), client_schema(request)
    )
    made = _json(answer.body, answer.status)
    if answer.status >= 400:
        metrics.refusals.add(code=_code(answer.body))
        if answer.status in (429, 503):
            made.headers["Retry-After"] = str(RETRY_SECONDS)
        elif answer.status == 401:
            made.headers["WWW-Authenticate"] = "Bearer"
    return made


async def get_records(request: Request) -> Response:
    """POST /api/realtime/getRecords: records by table and id."""
    gateway, session = gateway_of(request), await authenticate(request)
    body, schema = await read_text(request), client_schema(request)
    async with gateway.database.reads.turn(_reader(request, session)):
        answer = await calls.get_records(gateway.database.work, session.claims, body, schema)
    return _json(await gateway.sealed(answer))


async def query(request: Request) -> Response:
    """POST /api/realtime/query: a page of a table, or all of it as NDJSON."""
    gateway, session = gateway_of(request), await authenticate(request)
    body, schema = await read_text(request), client_schema(request)
    if NDJSON not in request.headers.get("accept", ""):
        async with gateway.database.reads.turn(_reader(request, session)):
            answer = await calls.query(gateway.database.work, session.claims, body, schema)
        return _json(await gateway.sealed(answer))
    stream = calls.query_stream(gateway.database, session.author, session.claims, body, schema)
    # The header line is fetched before the answer starts, so that a refusal still has its status.
    header = await anext(stream)
    try:
        return Streamed(await gateway.sealed(header), stream, NDJSON)
    except BaseException:
        await stream.aclose()
        raise


async def file_upload(request: Request) -> Response:
    """POST /api/files/upload: a signed link to send the bytes of a file to."""
    gateway, session = gateway_of(request), await authenticate(request)
    return JSONResponse(await gateway.files.upload(session, await read_text(request)))


async def file_confirm(request: Request) -> Response:
    """POST /api/files/confirm: the bytes are there."""
    gateway, session = gateway_of(request), await authenticate(request)
    return JSONResponse(await gateway.files.confirm(session, await read_text(request)))


async def file_download(request: Request) -> Response:
    """POST /api/files/download: a signed link to the bytes of a file."""
    gateway, session = gateway_of(request), await authenticate(request)
    return JSONResponse(await gateway.files.download(session, await read_text(request)))


async def file_content(request: Request) -> Response:
    """GET, HEAD and PUT /api/files/content: the bytes, for whoever has the link."""
    gateway = gateway_of(request)
    gateway.limits.check_address(caller_address(request), time.monotonic())
    return await gateway.files.content(request)


async def dev_sign_in(request: Request) -> Response:
    """POST /api/auth/dev-sign-in: a token for a demo user, without a password."""
    gateway, settings = gateway_of(request), gateway_of(request).settings
    if "origin" in request.headers and not origin_allowed(
        request.headers, settings.allowed_origins
    ):
        raise Problem(403, "origin", "This origin is not allowed")
    gateway.limits.check_address(caller_address(request), time.monotonic())
    name = _member(await read_text(request), "user")
    try:
        user_id = await account_calls.dev_sign_in(gateway.database.work, name)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        user_id = None  # the example apps are not installed
    if user_id is None:
        raise Problem(400, "unknown_user", "There is no demo user of this name")
    now = time.time()
    claims = {
        "sub": user_id,
        "role": "authenticated",
        "iat": now,
        "exp": now + DEV_SESSION_SECONDS,
        "email": f"{name}@example.com",  # as in sql/examples/sharing.sql
        "email_verified": True,
        **({"aud": settings.jwt_audience[0]} if settings.jwt_audience else {}),
        **({"iss": settings.jwt_issuer[0]} if settings.jwt_issuer else {}),
    }
    algorithm = next(name for name in settings.algorithms if name in SYMMETRIC)
    token = jwt.encode(claims, settings.jwt_secret or "", algorithm=algorithm)
    answer = JSONResponse({"token": token, "userId": user_id})
    answer.set_cookie(
        COOKIE,
        token,
        max_age=DEV_SESSION_SECONDS,
        path="/api",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


async def openapi_document(request: Request) -> Response:
    """GET /api/openapi.json: OpenAPI 3.1."""
    table = request.app.routes
    served = frozenset(route.path for route in table if isinstance(route, Route))
    return _json(openapi.document_text(served | {"/api/realtime/socket"}))


async def docs(_: Request) -> Response:
    """GET /api/docs: the same for people; needs no internet."""
    return FileResponse(STATIC / "docs.html")


async def healthz(_: Request) -> Response:
    """GET /healthz: the process runs."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """GET /readyz: database reachable, schema current, relay alive; else 503."""
    state = await gateway_of(request).readiness()
    ready = all(state.values())
    return JSONResponse({"ready": ready, **state}, 200 if ready else 503)


async def metrics_text(_: Request) -> Response:
    """GET /metrics: Prometheus text."""
    return Response(metrics.text(metrics.GATEWAY), media_type=metrics.MEDIA_TYPE)


# --- what the routes share -----------------------------------------------------------------------


async def authenticate(request: Request) -> Session:
    """Who asks: the Bearer token, else the cookie (then the Origin must be ours), else nobody.
    Raises 401, 403, or 429 where he or his address asks too often.
    """
    gateway, now = gateway_of(request), time.monotonic()
    gateway.limits.check_address(caller_address(request), now)
    token = bearer(request.headers)
    if token is None and (cookie := request.cookies.get(COOKIE)):
        if not origin_allowed(request.headers, gateway.settings.origins):
            raise Problem(403, "origin", "A cookie is accepted only from this server's own pages")
        token = cookie
    if token is None:
        return gateway.verifier.anonymous()
    session = await gateway.verifier.verify(token)
    gateway.limits.check_user(session.user_id, now)
    return session


async def read_text(request: Request) -> str:
    """The body as text. Raises 413 beyond the limit, 400 unless it is UTF-8 without NUL."""
    limit = gateway_of(request).settings.max_body_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise _too_large(limit)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(400, "bad_encoding", "The body is not UTF-8") from None
    if "\0" in text:
        raise Problem(400, "bad_encoding", "The body holds a NUL byte")
    return text


def client_schema(request: Request) -> int | None:
    """The version of the schema the client was made for, where it says."""
    return protocol.schema_number(request.headers.get("rowcast-schema"))


def _too_large(limit: int) -> Problem:
    return Problem(413, "too_large", "The body is too large", limit=limit)


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def caller_address(request: Request) -> str:
    """What counts as the address of the caller."""
    return address_of(request.client.host if request.client is not None else None)


def _reader(request: Request, session: Session) -> str:
    return subscriber_of(session.user_id, caller_address(request))


def _json(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type=MEDIA_TYPE if status >= 400 else "application/json")


def _code(body: str) -> str:
    """The code of a refusal that PostgreSQL has made. That of a conflict shows records, and jsonb
    holds what this parser does not take: 1e400, or lists a thousand deep.
    """
    try:
        return str(orjson.loads(body).get("code"))
    except orjson.JSONDecodeError:
        return "conflict"


def _wants_rollback(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).lower()
    return "tx=rollback" in {part.strip() for part in preferences.replace(";", ",").split(",")}


def _member(text: str, name: str) -> str:
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Problem(400, "bad_json", "The body is not JSON") from None
    member = value.get(name) if isinstance(value, dict) else None
    if not isinstance(member, str) or "\0" in member:
        raise Problem(400, "bad_request", f"The body needs a text member {name}", key=name)
    return member
