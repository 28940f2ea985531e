"""Whether a gateway may serve, or a worker work: its settings, the version of the database, what
the doctor finds.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg

from . import __version__, calls, migrate
from .config import DEVELOPMENT, Settings
from .db import Lane

log = logging.getLogger("rowcast.fitness")

AGAIN_SECONDS: Final = 0.5
MIN_KINDS: Final = 10  # of characters; 24 random bytes in hex have nearly all 16
_WORDS: Final = re.compile(r"change.?me|your.?secret|example|password|secret", re.IGNORECASE)
_NOT_INSTALLED: Final = frozenset({"3F000", "42883", "42P01"})


class Unfit(Exception):
    """It must not go on; the message says why, and what to do."""


def check_settings(settings: Settings) -> None:
    """Raises Unfit where settings are for development and the process is not."""
    if settings.env != "production":
        return
    if settings.dev_sign_in:
        raise Unfit(
            "ROWCAST_DEV_SIGN_IN lets anybody in without a password; it needs "
            "ROWCAST_ENV=development"
        )
    secrets = {
        "ROWCAST_JWT_SECRET": (settings.jwt_secret,),
        "ROWCAST_JWT_PREVIOUS_SECRETS": settings.previous_secrets,
    }
    for name, values in secrets.items():
        if any(guessable(value) for value in values if value is not None):
            raise Unfit(
                f"{name} is made for development or could be guessed. Take random bytes, as of "
                "`openssl rand -hex 32`, or set ROWCAST_ENV=development"
            )


def guessable(secret: str) -> bool:
    """Whether it is a placeholder, a word, or one of development."""
    return (
        secret.startswith(DEVELOPMENT)
        or len(set(secret)) < MIN_KINDS
        or _WORDS.search(secret) is not None
    )


async def check_database(lane: Lane, settings: Settings) -> None:
    """Raises Unfit where the database is of an older version or, in production, where the doctor
    finds an error; psycopg.Error where it cannot be asked.
    """
    try:
        state = json.loads(await calls.status(lane))
    except psycopg.Error as exc:
        check_installed(exc.sqlstate)
        raise
    check_version(state.get("version"), state.get("migration"))
    if state.get("epoch") != state.get("storedEpoch"):
        await calls.settle(lane)  # as the relay would
    if settings.env != "production":
        return
    check_findings(json.loads(await calls.doctor_errors(lane)))


def check_installed(state: str | None) -> None:
    """Raises Unfit where a SQLSTATE says that what was called is not there."""
    if state in _NOT_INSTALLED:
        raise Unfit("Rowcast is not installed in this database: run `rowcast migrate`")


def check_findings(errors: Sequence[Mapping[str, Any]]) -> None:
    """Raises Unfit where the doctor has found errors: [{code, object}]. Another epoch is none: a
    gateway starts a new history where it meets one.
    """
    found = [
        f"{error['code']} {error['object'] or ''}".strip()
        for error in errors
        if error["code"] != "epoch_differs"
    ]
    if found:
        raise Unfit(f"`rowcast doctor` finds errors in the database: {'; '.join(found)}")


def check_version(version: str | None, migration: str | None) -> None:
    """Raises Unfit where the database was last migrated by an older version. A newer one will do:
    it is how gateways are replaced one after the other.
    """
    ours = max(step.name for step in migrate.steps(migrate.sql_folder()) if step.is_migration)
    if numbers(version or "") < numbers(__version__) or (migration or "") < ours:
        raise Unfit(
            f"the database is at version {version or 'unknown'} ({migration}), older than this "
            f"program ({__version__}, {ours}): run `rowcast migrate` of this version first"
        )


def numbers(version: str) -> tuple[int, ...]:
    """`1.10.2` as numbers, which compare as versions do."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


async def look(lane: Lane, settings: Settings, unfit: Callable[[Unfit], None]) -> None:
    """Returns when the database has been found fit, however long that takes. Where it is not,
    says so to `unfit`, and never returns.
    """
    waiting = False
    while True:
        try:
            await check_database(lane, settings)
        except Unfit as exc:
            log.error("%s", exc)
            unfit(exc)
            await asyncio.Event().wait()
        except psycopg.Error as exc:
            if not waiting:
                log.warning("waiting for the database class=%s", type(exc).__name__)
            waiting = True
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return
