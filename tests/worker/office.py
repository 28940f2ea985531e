"""An SMTP server as a process of its own, with TLS and a password: `python -m ... FOLDER`.

Prints its port. Mails are in the Maildir `FOLDER/mails`, the certificate is `FOLDER/tls.pem`.
"""

import datetime as dt
import email.policy
import ipaddress
import mailbox
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.worker.post import AnyPort

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "rowcast", "p@ss word"
PATIENCE_SECONDS = 30


class Office:
    """Such a server, running."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def mails(self) -> list[EmailMessage]:
        """What has arrived."""
        folder = self.folder / "mails" / "new"
        found = []
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            with path.open("rb") as file:
                parsed = email.message_from_binary_file(file, policy=email.policy.default)
            assert isinstance(parsed, EmailMessage)
            found.append(parsed)
        return found


@contextmanager
def office(folder: Path) -> Iterator[Office]:
    """A server for as long as this lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Office(folder, int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)


def certificate(folder: Path) -> ssl.SSLContext:
    """Of this machine, for an hour; what it is to be trusted by is `tls.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "tls.pem").write_bytes(made.public_bytes(pem))
    (folder / "tls.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    return context


def _allows(_server: Any, _session: Any, _envelope: Any, _how: str, said: Any) -> AuthResult:
    right = LoginPassword(USER.encode(), PASSWORD.encode())
    return AuthResult(success=said == right)


def main() -> None:
    folder = Path(sys.argv[1])
    mailbox.Maildir(folder / "mails")
    controller = AnyPort(
        Mailbox(folder / "mails"),
        hostname="127.0.0.1",
        port=0,
        tls_context=certificate(folder),
        require_starttls=True,
        authenticator=_allows,
        auth_required=True,
    )
    controller.start()
    print(controller.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
