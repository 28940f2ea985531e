"""Refusals: one exception, its RFC 9457 form, and the mapping of database errors to it."""

import logging
import re
import uuid
from http import HTTPStatus
from typing import Any

import orjson
import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests
from starlette.responses import Response

from . import metrics

log = logging.getLogger("rowcast.errors")

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1

_PROBLEM_STATE = re.compile(r"PT[45]\d\d")
# SQLSTATEs of PostgreSQL that have an answer of their own; everything else is a 500 with a log id.
_RETRY = frozenset({"40001", "40P01", "55P03"})
_STANDBY = "25006"  # not promoted yet; it makes no cursors either
_ENCODING = frozenset({"22021", "22P05"})
_UNAVAILABLE_CLASSES = frozenset({"08", "53", "57"})


class Problem(Exception):
    """A refusal that reaches the client as `application/problem+json`.

    `status` is the HTTP status, `code` the stable word a program branches on, `detail` a sentence
    for people, `extra` further members (`table`, `id`, `key`, `op`, `limit`, `retryAfter`, ...).
    """

    def __init__(self, status: int, code: str, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or code)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra

    def body(self) -> dict[str, Any]:
        """The members of the problem document, without those that are empty."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "code": self.code,
        }
        if self.detail:
            document["detail"] = self.detail
        document.update({name: value for name, value in self.extra.items() if value is not None})
        return document

    def text(self) -> str:
        """The problem document as JSON."""
        return orjson.dumps(self.body()).decode()


def title(status: int) -> str:
    """The HTTP phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def response(problem: Problem) -> Response:
    """The HTTP answer of a refusal; says when to try again if it knows."""
    metrics.refusals.add(code=problem.code)
    headers = {}
    retry_after = problem.extra.get("retryAfter")
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif problem.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        headers["Content-Range"] = f"bytes */{problem.extra['size']}"
    return Response(problem.text(), problem.status, headers, MEDIA_TYPE)


def unavailable(detail: str = "The database cannot be reached; try again") -> Problem:
    """503 `unavailable`, to be tried again after a second."""
    return Problem(503, "unavailable", detail, retryAfter=RETRY_SECONDS)


def too_many(detail: str) -> Problem:
    """429 `too_many_requests`: this user has too much under way; nothing was done."""
    return Problem(429, "too_many_requests", detail, retryAfter=RETRY_SECONDS)


def retry() -> Problem:
    """503 `retry`: a lock or a race, nothing was done, the same request will do."""
    return Problem(
        503, "retry", "Busy with another change; try the same again", retryAfter=RETRY_SECONDS
    )


def from_database(exc: psycopg.Error) -> Problem:
    """Turns an error of PostgreSQL or the driver into a refusal.

    `PTxyz` (PostgREST's convention) becomes status xyz with the members of its JSON DETAIL. Of
    any other error nothing leaves but a code, and for unknown ones a log id: messages and details
    of PostgreSQL can hold values of rows the caller may not read.
    """
    state = exc.sqlstate or ""
    if _PROBLEM_STATE.fullmatch(state):
        members = _members(exc.diag.message_detail)
        code = str(members.pop("code", "refused"))
        for name in ("status", "detail", "type", "title"):
            members.pop(name, None)
        return Problem(int(state[2:]), code, exc.diag.message_primary or "", **members)
    if state in _RETRY:
        return retry()
    if state == _STANDBY:
        return unavailable("The database takes no writes for now; try again")
    if state in _ENCODING or (isinstance(exc, psycopg.DataError) and not state):
        return Problem(400, "bad_encoding", "The text holds a character that cannot be stored")
    if state == "57014":
        return Problem(503, "timeout", "The request took too long", retryAfter=RETRY_SECONDS)
    if (
        isinstance(exc, PoolTimeout | TooManyRequests)
        or state[:2] in _UNAVAILABLE_CLASSES
        or isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError)
    ):
        return unavailable()
    return unexpected(exc)


def unexpected(exc: BaseException) -> Problem:
    """500 with a log id. Logs the class and the place, never a message: it may hold row data."""
    log_id = uuid.uuid4().hex
    state = exc.sqlstate if isinstance(exc, psycopg.Error) else None
    log.error(
        "unexpected error id=%s class=%s sqlstate=%s function=%s at=%s",
        log_id,
        type(exc).__name__,
        state,
        _sql_function(exc),
        _place(exc),
    )
    return Problem(500, "internal", logId=log_id)


def _members(detail: str | None) -> dict[str, Any]:
    """DETAIL of a `PTxyz` error; anything but a JSON object counts as none."""
    try:
        members = orjson.loads(detail or "{}")
    except orjson.JSONDecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def _place(exc: BaseException) -> str:
    """`file:line` of the last three frames, innermost last."""
    places = []
    frame = exc.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " ".join(places[-3:])


def _sql_function(exc: BaseException) -> str | None:
    """The innermost SQL function named by CONTEXT: names and lines of code, no values."""
    if not isinstance(exc, psycopg.Error) or not exc.diag.context:
        return None
    found = re.findall(r"PL/pgSQL function (\S+?)\(.*?\) line (\d+)", exc.diag.context)
    return ":".join(found[0]) if found else None
