"""An identity provider on loopback: a document with the key in use and the next one."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from .stage import claims

ALGORITHM = "ES256"
AHEAD_SECONDS = 200  # less than what the database takes for clocks that differ


class Provider:
    """Use it as a context."""

    def __init__(self) -> None:
        self._keys = [_Key(1), _Key(2)]
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                keys = [key.public for key in provider._keys]
                self.wfile.write(json.dumps({"keys": keys}).encode())

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def rotate(self) -> None:
        """Withdraws the key in use and publishes another."""
        self._keys = [self._keys[1], _Key(self._keys[1].number + 1)]

    def token(self, user: int) -> str:
        """A token by the key in use, as of later."""
        key = self._keys[0]
        return jwt.encode(
            {**claims(user), "iat": time.time() + AHEAD_SECONDS},
            key.private,
            algorithm=ALGORITHM,
            headers={"kid": str(key.number)},
        )


class _Key:
    def __init__(self, number: int) -> None:
        self.number = number
        self.private = ec.generate_private_key(ec.SECP256R1())
        algorithm = jwt.get_algorithm_by_name(ALGORITHM)
        public = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public = {**public, "kid": str(number), "alg": ALGORITHM, "use": "sig"}
