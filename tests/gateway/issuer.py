"""An identity provider's document of keys, and tokens that its keys sign."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest

from tests.gateway.conftest import ALICE


class Issuer:
    """A key server on loopback that counts how often it is asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.keys: list[Any] = []
        self.asked = 0
        self.broken = False
        self.raw: bytes | None = None
        """What is answered instead, status line and all."""
        self.open = threading.Event()
        """Unset: the answer trickles until it is set."""
        self.moved_to = "/keys"
        self.open.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if issuer.raw is not None:
                    self.wfile.write(issuer.raw)
                    return
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", issuer.moved_to)
                    self.end_headers()
                    return
                self.send_response(500 if issuer.broken else 200)
                self.end_headers()
                text = json.dumps({"keys": issuer.keys}).encode()
                with contextlib.suppress(OSError):
                    self.wfile.write(text[:1])
                    while not issuer.open.wait(0.01):
                        self.wfile.write(b" ")
                    self.wfile.write(text[1:])

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/keys"

    def stop(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def add(self, key_id: str, private: Any, algorithm: str) -> None:
        """Serves the public half of a key."""
        public = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
        self.keys.append({**public, "kid": key_id, "alg": algorithm, "use": "sig"})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.stop()


def signed(private: Any, algorithm: str, key_id: str | None, user: str = ALICE, **more: Any) -> str:
    """A token for a minute."""
    headers = {"kid": key_id} if key_id else None
    claims = {"sub": user, "exp": time.time() + 60, **more}
    return jwt.encode(claims, private, algorithm=algorithm, headers=headers)
