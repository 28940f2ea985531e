"""How messages are written: a line of text each, or of JSON. Nothing of rows is in either."""

import asyncio
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from .trace import Tracing

log = logging.getLogger("rowcast.logs")

Form = Literal["auto", "text", "json"]


class JsonLines(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, and `traceparent` where the
    work has one. Of an exception its class and where it was raised, never what it says: that may
    hold values of rows.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if traceparent := record.__dict__.get("traceparent"):
            line["traceparent"] = traceparent
            line["traceId"] = traceparent.split("-")[1]
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = places(record.exc_info[2])
        return orjson.dumps(line, option=orjson.OPT_NON_STR_KEYS).decode()


class Lines(logging.Formatter):
    """One line of text; of an exception the same as in JSON."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return f"{ei[0].__name__} at {places(ei[2])}"


def places(frames: Any) -> str:
    """`file:line` of the last three frames, innermost last."""
    found = traceback.extract_tb(frames)[-3:]
    return " ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in found)


def configuration(level: str, form: Form = "auto") -> dict[str, Any]:
    """For `logging.config.dictConfig`: messages on standard error, from this level on."""
    text = form == "text" or (form == "auto" and sys.stderr.isatty())
    line = "%(asctime)s %(levelname)s %(name)s %(message)s%(trace)s"
    formatter = {"()": Lines, "fmt": line} if text else {"()": JsonLines}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"trace": {"()": Tracing}},
        "formatters": {"line": formatter},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["trace"],
            }
        },
        # Of what others say, nothing below info: there are frames of sockets in it, tokens and all.
        "root": {"handlers": ["stderr"], "level": "INFO" if level == "debug" else level.upper()},
        # Addresses that others are asked at may hold a secret, as those of webhooks do.
        "loggers": {
            "rowcast": {"level": level.upper()},
            "httpx2": {"level": "WARNING"},
            "httpcore2": {"level": "WARNING"},
        },
    }


def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For a loop, in place of its own, which shows what an exception says and calls were given."""
    what = str(context.get("message", "")).partition("(")[0]
    log.error("%s", what, exc_info=context.get("exception"))
