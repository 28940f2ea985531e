"""The application: routes, lifespan, middleware; and the server that drains before it stops."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from socket import socket as Socket  # noqa: N812
from typing import Any, Final, cast

import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from . import links, logs, metrics, spans, trace
from .config import Settings
from .errors import Problem, from_database, response, unavailable, unexpected
from .fitness import Unfit
from .gateway import Gateway
from .outlet import Flowing, Joined, TransportCapture
from .pages import Pages, apps_folder
from .routes import routes
from .socket import PATH, endpoint

SECURITY_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
}
ALLOWED_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Prefer",
    "Rowcast-Schema",
    "traceparent",
)
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def create_app(settings: Settings, unfit: Callable[[Unfit], None] | None = None) -> Starlette:
    """The gateway as an ASGI application. Raises ValueError without a database URL.

    With `unfit` it serves nobody before the database has been examined, and calls it where that
    is not fit to be served.

    Starting does not wait for PostgreSQL: until it is there, answers are 503 and /readyz says no.
    """
    gateway = Gateway(settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(logs.unhandled)
        if unfit is not None:
            await gateway.examine(unfit)
        await gateway.start()
        try:
            yield
        finally:
            await gateway.stop()

    store = links.direct_origin(settings)
    middleware = [
        Middleware(TransportCapture),
        Middleware(Edge, connects=(store,) if store else ()),
    ]
    if settings.trusted_proxies:
        proxies = Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
        middleware.insert(1, proxies)
    if settings.allowed_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=["GET", "POST", "PUT"],
                allow_headers=ALLOWED_HEADERS,
                allow_credentials=True,
                expose_headers=["Retry-After"],
                max_age=600,
            )
        )
    app = Starlette(
        routes=[*_account_routes(gateway), *routes(gateway)],
        middleware=middleware,
        exception_handlers={
            Problem: _refused,
            HTTPException: _http_error,
            psycopg.Error: _database_error,
        },
        lifespan=lifespan,
    )
    app.router.default = Pages(apps_folder() if settings.dev_sign_in else None)
    app.state.gateway = gateway
    return app


class Server(uvicorn.Server):
    """uvicorn that, told to stop, first sends the sockets away and finishes writes in flight."""

    async def shutdown(self, sockets: list[Socket] | None = None) -> None:
        """Stops accepting, drains the gateway, then does what uvicorn does in the time left."""
        for server in self.servers:
            server.close()
        app = self.config.app
        if isinstance(app, Starlette):
            gateway: Gateway = app.state.gateway
            await gateway.drain()
            self.config.timeout_graceful_shutdown = int(gateway.drain_seconds_left)
        await super().shutdown(sockets)


class Protocol(Flowing, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which reads nothing while a frame waits to be handled: the answer to a
    ping may be behind that, as where many join at once or a replay takes long.
    """

    async def send(self, message: Any) -> None:
        """What ASGI sends: that it accepts, or closes. Frames are written past it."""
        await super().send(message)
        if self.handshake_complete:
            # Nobody reads the headers again, and they are a tenth of what an idle socket costs.
            vars(self).pop("request", None)
            vars(self).pop("response", None)

    def keepalive_timeout(self) -> None:
        """A peer counts as silent only where it would have been heard."""
        if self.read_paused and self.ping_timeout is not None:
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            super().keepalive_timeout()


class Http(HttpToolsProtocol):
    """uvicorn's HTTP, whose answers go out whole."""

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = cast("asyncio.Transport", Joined(self.cycle.transport))


class Edge:
    """Outermost HTTP layer: headers of every answer, counting, and the last net for errors.

    Nothing of an unexpected error reaches the client but a log id, and nothing of its message the
    log, since it may hold row data.
    """

    def __init__(self, app: ASGIApp, connects: tuple[str, ...] = ()) -> None:
        self.app = app
        # Where pages may send data besides their own origin.
        allowed = " ".join(("connect-src 'self'", *connects))
        self._headers = [
            (name.lower().encode(), value.replace("connect-src 'self'", allowed).encode())
            for name, value in SECURITY_HEADERS.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            trace.current.set(trace.read(Headers(scope=scope)))
        if scope["type"] in ("http", "websocket") and not await _serves(scope):
            if scope["type"] == "http":
                await response(unavailable("The database is being examined"))(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).close(1013)
            return
        if scope["type"] == "websocket" and scope["path"] == PATH:
            # Past the layers between, each of which would keep a frame for as long as the socket
            # lives: 4 KB in all.
            await endpoint(WebSocket(scope, receive, send))
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at = time.perf_counter()
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in self._headers if header[0] not in said),
                ]
                metrics.requests.add(route=_route(scope), status=str(message["status"]))
                metrics.request_seconds.observe(time.perf_counter() - started_at)
            await send(message)

        try:
            with spans.span(scope["method"], "server", http_request_method=scope["method"]) as span:
                await self.app(scope, receive, send_with_headers)
                if span is not None:
                    span.update_name(f"{scope['method']} {_route(scope)}")
                    span.set_attribute("http.route", _route(scope))
        except ClientDisconnect:
            pass
        except Exception as exc:  # noqa: BLE001
            problem = from_database(exc) if isinstance(exc, psycopg.Error) else unexpected(exc)
            if started:
                raise Truncated from None  # uvicorn cuts the connection: the reader must notice
            await response(problem)(scope, receive, send_with_headers)


async def _serves(scope: Scope) -> bool:
    """Not what concerns the database, before that has been found fit."""
    path: str = scope["path"]
    return not path.startswith("/api/") or await scope["app"].state.gateway.fit()


class Truncated(Exception):
    """An answer broke off after its start; what went wrong is in the log."""


def _account_routes(gateway: Gateway) -> list[BaseRoute]:
    if not gateway.settings.accounts:
        return []
    # A gateway of an existing provider does without its libraries.
    from . import accounts

    return accounts.routes(gateway)


def _route(scope: Scope) -> str:
    """The path where it is one of our few; whatever else is asked for counts as one."""
    path: str = scope["path"]
    known = scope.get("endpoint") is not None and not path.startswith("/static/")
    return path if known else "other"


async def _refused(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, Problem):
        raise exc
    return response(exc)


async def _database_error(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, psycopg.Error):
        raise exc
    return response(from_database(exc))


async def _http_error(_: Request, exc: Exception) -> Response:
    if not isinstance(exc, HTTPException):
        raise exc
    phrase = HTTPStatus(exc.status_code).phrase
    answer = response(Problem(exc.status_code, _CODES.get(exc.status_code, "http"), phrase))
    answer.headers.update(exc.headers or {})
    return answer
