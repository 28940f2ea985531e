"""The code of Rowcast's own kinds of job."""

import functools
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from . import exports, files, imports, mails, webhooks, worker_calls
from .config import Settings
from .jobs import Code, Hopeless, Job
from .tokens import Signer

SMTP_SECONDS: Final = 20.0
REFUSED: Final = 500  # codes from here on: it would be the same again


def code(settings: Settings, conninfo: str) -> dict[str, Code]:
    """What a worker with these settings can do, by kind. Mails wait where no server is set."""
    found: dict[str, Code] = {
        "prune": _prune,
        "sweep": functools.partial(_sweep, settings, conninfo),
        "digest": _digest,
        "export": functools.partial(exports.export, settings),
        "import": functools.partial(imports.import_, settings),
        "purge": _purge,
        "statistics": _statistics,
        "webhook": functools.partial(webhooks.send, settings),
    }
    if settings.smtp_url is not None:
        found["mail"] = functools.partial(_mail, settings, Signer(settings))
    return found


async def _prune(job: Job) -> None:
    """Ends what is older than the retention."""
    async with job.connection() as connection:
        await worker_calls.job_prune(connection, job.timeout_seconds)


async def _sweep(settings: Settings, conninfo: str, _: Job) -> Any:
    """Removes files that were abandoned or deleted long ago; orphans where the settings say that
    the store is this database's alone.
    """
    await files.sweep_once(settings, conninfo, orphans=settings.files_exclusive)


async def _purge(job: Job) -> None:
    """Ends records that were deleted long ago, some of a table at a time, each for itself."""
    async with job.connection() as connection:
        while await worker_calls.job_purge(connection, job.timeout_seconds):
            pass


async def _statistics(job: Job) -> None:
    """Gathers statistics that autovacuum does not."""
    async with job.connection() as connection:
        await worker_calls.job_statistics(connection, job.timeout_seconds)


async def _digest(job: Job) -> None:
    """Makes one mail of what a user is to be told of."""
    async with job.connection() as connection:
        await worker_calls.job_digest(connection, job.payload["user"])


async def _mail(settings: Settings, signer: Signer, job: Job) -> None:
    """Sends a mail of the outbox, unless that was done. Killed between the server's answer and the
    note of it, it is sent again with the same Message-ID.
    """
    async with job.connection() as connection:
        mail = await worker_calls.job_mail(connection, job.payload["id"])
    if mail is None:
        return
    try:
        message = mails.message(mail, settings.public_url or "", signer, settings.mail_from or "")
    except ValueError as error:
        raise Hopeless(f"no mail can be made of it: {error}") from error
    server = urlsplit(settings.smtp_url or "")
    tls = server.scheme == "smtps"
    try:
        await aiosmtplib.send(
            message,
            hostname=server.hostname,
            port=server.port or (465 if tls else 587),
            username=unquote(server.username) if server.username else None,
            password=unquote(server.password) if server.password else None,
            use_tls=tls,
            # A password is not said in the open, even where somebody on the way hides STARTTLS.
            start_tls=True if server.username and not tls else None,
            timeout=SMTP_SECONDS,
        )
    except aiosmtplib.SMTPNotSupported as error:
        if mail["recipient"].isascii():
            raise
        raise Hopeless("the server does not take such an address") from error
    except aiosmtplib.SMTPRecipientsRefused as error:
        if all(one.code >= REFUSED for one in error.recipients):
            raise Hopeless("the server refuses the address") from error
        raise
    except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPRecipientRefused) as error:
        if error.code >= REFUSED:
            raise Hopeless(f"the server refuses it ({error.code})") from error
        raise
    async with job.connection() as connection:
        await worker_calls.job_mailed(connection, job.payload["id"])
