"""Whether a gateway may serve: its settings, the version of the database, what the doctor finds."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import Final

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
    """The gateway must not serve; the message says why, and what to do."""


def check_settings(settings: Settings) -> None:
    """Raises Unfit where settings are for development and the gateway is not."""
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
        if exc.sqlstate in _NOT_INSTALLED:
            raise Unfit("Rowcast is not installed in this database: run `rowcast migrate`") from exc
        raise
    check_version(state.get("version"), state.get("migration"))
    if state.get("epoch") != state.get("storedEpoch"):
        await calls.settle(lane)  # as the relay would
    if settings.env != "production":
        return
    errors = json.loads(await calls.doctor_errors(lane))
    if errors:
        found = "; ".join(f"{error['code']} {error['object'] or ''}".strip() for error in errors)
        raise Unfit(f"`rowcast doctor` finds errors in the database: {found}")


def check_version(version: str | None, migration: str | None) -> None:
    """Raises Unfit where the database was last migrated by an older version. A newer one will do:
    it is how gateways are replaced one after the other.
    """
    ours = max(step.name for step in migrate.steps(migrate.sql_folder()) if step.is_migration)
    if numbers(version or "") < numbers(__version__) or (migration or "") < ours:
        raise Unfit(
            f"the database is at version {version or 'unknown'}, older than this gateway "
            f"({__version__}): run `rowcast migrate` of this version first"
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
