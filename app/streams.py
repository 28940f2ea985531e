"""Answers that are streamed from a source which has to be closed, to readers who may be slow."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from .outlet import transport_of

log = logging.getLogger("rowcast.streams")

Part = TypeVar("Part", str, bytes)

# Half a megabyte within this is 26 KB/s. Less than idle_in_transaction_session_timeout (30 s).
STREAM_PART_SECONDS: Final = 20.0


class Streamed(StreamingResponse):
    """From a source that holds something: freed at the end whatever happens, and when the reader
    has not taken a part in time.
    """

    def __init__(
        self,
        first: Part,
        source: AsyncGenerator[Part, None],
        media_type: str,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(_joined(first, source), status, headers, media_type)
        self._source: AsyncGenerator[Any, None] = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Cuts the connection of a reader who is too slow; what he has ends without its end."""
        try:
            async with contextlib.aclosing(self._source):
                await super().__call__(scope, receive, send)
        except TooSlow:
            log.info("stream cut: its reader is too slow")
            if (transport := transport_of(scope)) is not None:
                transport.abort()
                await asyncio.sleep(0)  # so that the server has noticed, and does not complain

    async def stream_response(self, send: Send) -> None:
        """Sends part by part, each within its time."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STREAM_PART_SECONDS):
                    await send(message)
            except TimeoutError:
                raise TooSlow from None

        await super().stream_response(send_in_time)


class TooSlow(Exception):
    """The reader of a stream did not take a part in time."""


async def _joined(first: Part, source: AsyncIterator[Part]) -> AsyncIterator[Part]:
    yield first
    async for part in source:
        yield part
