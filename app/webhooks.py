"""Webhooks: signed as www.standardwebhooks.com describes, and sent to public addresses alone.

The address of a webhook was chosen by a user, perhaps of another mind. So a name is resolved once
for each connection, all it says is looked at, and the connection goes to the very address that was
looked at; certificate and Host are of the name. Redirects are not followed: they are answers.
"""

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore2
import orjson

from . import __version__, worker_calls
from .config import Settings
from .jobs import Hopeless, Job, Later

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
ANSWER_BYTES: Final = 64 * 1024
PATIENCE_SECONDS: Final = 3600.0  # the longest a receiver may ask for
GONE: Final = 410
BUSY: Final = frozenset({429, 503})
# Beyond what ipaddress knows not to be public. Of version 6 only what is given out is: neither what
# stands for addresses of version 4 (mapped, NAT64, 6to4, Teredo) nor what is kept for something.
_PUBLIC_6: Final = IPv6Network("2000::/3")
_SPECIAL: Final = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
)
# Of their own: a name server that never answers keeps a thread for half a minute, and whoever has
# typed its name would have those of the store, of mails and of the database wait.
_RESOLVERS: Final = ThreadPoolExecutor(32, "webhook-names")

Address = IPv4Address | IPv6Address


class NotAllowed(Exception):
    """The address is none that a webhook may go to."""


class Failed(Exception):
    """The receiver has not taken it. The message says why, and nothing it has answered."""


async def send(settings: Settings, job: Job) -> None:
    """Does a job of kind `webhook`: one POST. The receiver may get one twice, with one id."""
    name, body = job.payload["name"], orjson.dumps(job.payload["body"])
    async with job.connection() as connection:
        hook = await worker_calls.webhook(connection, name)
    if hook is None:
        raise Hopeless("there is no address any more")
    secrets = [base64.b64decode(secret) for secret in hook["secrets"]]
    headers = signed(job.payload["id"], int(time.time()), body, secrets)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status, wait = await post(hook["url"], headers, body, settings.webhook_networks)
    except NotAllowed as error:
        raise Failed(str(error)) from None
    except (TimeoutError, httpcore2.TimeoutException):
        raise Failed("it did not answer in time") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, OSError) as error:
        raise Failed(f"it cannot be reached: {type(error).__name__}") from None
    except (ValueError, TypeError):
        raise Hopeless("its address is none") from None
    if 200 <= status < 300:
        return
    if status == GONE:
        async with job.connection() as connection:
            await worker_calls.webhook_gone(connection, name, hook["url"])
        raise Hopeless("it has answered 410: nothing is sent to it any more")
    if status in BUSY and wait is not None:
        raise Later(wait, f"it has answered {status}")
    raise Failed(f"it has answered {status}")


def signed(id_: str, at: int, body: bytes, secrets: Iterable[bytes]) -> dict[str, str]:
    """The headers of a webhook, with a signature by each secret."""
    content = f"{id_}.{at}.".encode() + body
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(
            "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
            for secret in secrets
        ),
    }


async def post(
    url: str, headers: dict[str, str], body: bytes, networks: Sequence[str] = ()
) -> tuple[int, float | None]:
    """The status of the answer, and how long it says to wait. Raises NotAllowed, and what
    httpcore2 does. No proxy, no cookie, no redirect; of the answer's body a little is read.
    """
    parts = urlsplit(url)
    backend = Guarded(networks, plain=parts.scheme == "http")
    sent = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": "application/json",
        "User-Agent": f"Rowcast/{__version__}",
        "Accept": "*/*",
        "Connection": "close",
        **headers,
    }
    times = dict.fromkeys(("connect", "read", "write", "pool"), CONNECT_SECONDS * 2)
    async with (
        httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=backend, retries=0
        ) as pool,
        pool.stream(
            "POST", url, headers=list(sent.items()), content=body, extensions={"timeout": times}
        ) as answer,
    ):
        seen = 0
        async for part in answer.aiter_stream():
            seen += len(part)
            if seen > ANSWER_BYTES:
                break
        return answer.status, _wait(answer.headers)


class Guarded(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses alone, and to the one that was looked at."""

    def __init__(self, networks: Sequence[str], plain: bool) -> None:
        self._inner = httpcore2.AnyIOBackend()
        self._networks = networks
        self._plain = plain

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises NotAllowed unless every address of the name may be gone to."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                found = await loop.run_in_executor(
                    _RESOLVERS, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
                )
        except (socket.gaierror, UnicodeError):
            raise httpcore2.ConnectError("the name cannot be resolved") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            check(address, self._networks, self._plain)
        error: Exception = httpcore2.ConnectError("no address")
        for address in addresses[:4]:
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failure:
                error = failure
        raise error

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise NotAllowed("a webhook goes to no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def check(address: str, networks: Sequence[str] = (), plain: bool = False) -> None:
    """Raises NotAllowed unless an address is public, or in one of these networks; without TLS it
    has to be in one of these.
    """
    found = ip_address(address.partition("%")[0])
    if any(_within(found, ip_network(network, strict=False)) for network in networks):
        return
    if plain:
        raise NotAllowed("without TLS a webhook goes to ROWCAST_WEBHOOK_NETWORKS alone: say https")
    public = found.is_global and not (
        found.is_multicast or found.is_reserved or found.is_private or found.is_link_local
    )
    if (
        not public
        or any(_within(found, network) for network in _SPECIAL)
        or (isinstance(found, IPv6Address) and found not in _PUBLIC_6)
    ):
        raise NotAllowed("the address is not public")


def _within(address: Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


def _wait(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds of a Retry-After; as a date it is passed over."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 8:
            return min(float(value), PATIENCE_SECONDS)
    return None
