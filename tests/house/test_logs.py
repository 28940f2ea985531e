"""What a message looks like on standard error."""

import io
import json
import logging
import sys

import pytest

from app import logs, trace

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def formatter(form: logs.Form) -> logging.Formatter:
    """As `dictConfig` makes it."""
    given = dict(logs.configuration("info", form)["formatters"]["line"])
    made: logging.Formatter = given.pop("()")(**given)
    return made


def record() -> logging.LogRecord:
    try:
        raise ValueError("the title of a task")
    except ValueError:
        made = logging.LogRecord(
            "rowcast.x", logging.ERROR, "x.py", 1, "failed id=%s", ("ab",), sys.exc_info()
        )
    trace.Tracing().filter(made)
    return made


def test_line_of_json_says_where_and_never_what_an_exception_says() -> None:
    token = trace.current.set(TRACE)
    try:
        text = formatter("json").format(record())
    finally:
        trace.current.reset(token)
    line = json.loads(text)
    assert "\n" not in text
    assert line.pop("time").endswith("Z")
    assert line.pop("at").startswith("test_logs.py:")
    assert line == {
        "level": "error",
        "logger": "rowcast.x",
        "message": "failed id=ab",
        "traceparent": TRACE,
        "traceId": TRACE.split("-")[1],
        "exception": "ValueError",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_form_holds_what_an_exception_says(form: logs.Form) -> None:
    text = formatter(form).format(record())
    assert "title of a task" not in text
    assert "ValueError" in text


@pytest.mark.parametrize(("terminal", "kind"), [(True, logs.Lines), (False, logs.JsonLines)])
def test_json_where_nobody_reads_along(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: type
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    assert isinstance(formatter("auto"), kind)
