"""How a worker is, for whoever asks by HTTP: /healthz, /readyz and /metrics, as of a gateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from socket import socket as Socket  # noqa: N812

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import metrics


class Server(uvicorn.Server):
    """uvicorn beside other work, which sees to signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves them as they are."""
        yield


@asynccontextmanager
async def monitored(
    listener: Socket, state: Callable[[], Mapping[str, bool]]
) -> AsyncIterator[None]:
    """Answers for as long as this lasts; it is ready when all of `state` holds."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        found = state()
        ready = all(found.values())
        return JSONResponse({"ready": ready, **found}, 200 if ready else 503)

    async def said(_: Request) -> Response:
        return Response(metrics.text(metrics.WORKER), media_type=metrics.MEDIA_TYPE)

    app = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", said)]
    )
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
