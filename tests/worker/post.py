"""An SMTP server of a test, as a process would meet it: a socket and what was said on it."""

import asyncio
import email
import email.policy
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Post:
    """What arrived, and how it answers."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answers: list[str] = []
        self.passwords: list[Any] = []
        self.port = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 taken"

    def allows(
        self, _server: Any, _session: Any, _envelope: Any, _how: str, said: Any
    ) -> AuthResult:
        """Whether somebody may sign in."""
        self.passwords.append(said)
        return AuthResult(success=True)


class AnyPort(Controller):
    """On a free port: the stock one connects to the port it was told."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call, unused-ignore]


@contextmanager
def listening() -> Iterator[Post]:
    post = Post()
    controller = AnyPort(
        post, hostname="127.0.0.1", port=0, authenticator=post.allows, auth_require_tls=False
    )
    controller.start()
    post.port = controller.port
    try:
        yield post
    finally:
        controller.stop()
