"""The caller's trace context: from the header `traceparent` to what is logged for the request."""

import logging
import re
from contextvars import ContextVar
from typing import Final

from starlette.datastructures import Headers

# W3C Trace Context, section 3.2.2: a later version may be longer, `ff` and zero ids are invalid.
_FORM: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]*)?",
    re.ASCII,
)
MAX_BYTES: Final = 256

current: ContextVar[str] = ContextVar("traceparent", default="")
"""What the work under way is done for; empty where the caller said nothing."""


def read(headers: Headers) -> str:
    """The header as it came; empty without one, with several, or with one that is malformed."""
    values = headers.getlist("traceparent")
    if len(values) != 1 or len(values[0]) > MAX_BYTES:
        return ""
    found = _FORM.fullmatch(values[0])
    if found is None or (found[1] == "00" and found[2]):
        return ""
    return values[0]


class Tracing(logging.Filter):
    """Puts the trace context into each record: `traceparent`, and `trace` as text for a line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps every record."""
        found = current.get()
        record.__dict__["traceparent"] = found
        record.__dict__["trace"] = f" traceparent={found}" if found else ""
        return True
