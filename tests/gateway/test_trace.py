"""The caller's trace context: in every line logged for his request, and in no other."""

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.datastructures import Headers

from app import serve, trace
from tests.gateway.conftest import ALICE, BOB, Service, transaction
from tests.gateway.test_socket import create

WRITE = "/api/realtime/write"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LATER = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes.later"
MALFORMED = [
    "",
    "x",
    TRACE.upper(),
    f"{TRACE}-more",
    f"ff{TRACE[2:]}",
    TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32),
    TRACE.replace("00f067aa0ba902b7", "0" * 16),
    f"{TRACE}\n",
    f" {TRACE}",
    LATER + "x" * 300,
]


@pytest.mark.parametrize("value", [TRACE, LATER])
def test_a_trace_context_is_taken_as_it_comes(value: str) -> None:
    assert trace.read(Headers({"traceparent": value})) == value


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_trace_context_is_ignored(value: str) -> None:
    assert trace.read(Headers({"traceparent": value})) == ""


def test_two_trace_contexts_are_ignored() -> None:
    raw = [(b"traceparent", TRACE.encode())] * 2
    assert trace.read(Headers(raw=raw)) == ""


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the gateway logs, as it would stand on standard error."""
    written: list[str] = []
    config = serve.log_lines("info")

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Kept()
    handler.setFormatter(logging.Formatter(config["formatters"]["line"]["format"]))
    for name in config["handlers"]["stderr"]["filters"]:
        handler.addFilter(config["filters"][name]["()"]())
    logger = logging.getLogger("rowcast")
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


def about(lines: list[str], log_id: str) -> list[str]:
    return [line for line in lines if log_id in line]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/realtime/query", {"table": "tasks"}),
        (WRITE, transaction(create(str(uuid.uuid4())))),
        (WRITE, {"transactions": [transaction(create(str(uuid.uuid4())))]}),
    ],
    ids=["query", "write", "batch"],
)
async def test_a_log_id_stands_beside_the_trace_context(
    service: Service, run: Callable[..., Any], lines: list[str], path: str, body: Any
) -> None:
    run(
        "create function public.fail() returns boolean language plpgsql as"
        " $$ begin raise exception using errcode = 'XX000'; end $$;"
        " create policy fail on public.tasks as restrictive using (public.fail())"
    )
    answer = await service.post(path, body, traceparent=TRACE)
    (log_id,) = {
        problem["logId"]
        for problem in [answer.json(), *(r["error"] for r in answer.json().get("results", []))]
        if "logId" in problem
    }
    assert [line.endswith(f" traceparent={TRACE}") for line in about(lines, log_id)] == [True]


async def test_requests_that_share_a_call_keep_their_own_trace_context(
    service: Service, run: Callable[..., Any], lines: list[str]
) -> None:
    run(
        "create or replace function sync.gateway_write(p_claims text[], p_bodies text[],"
        " p_dry_run boolean[] default null, p_schemas bigint[] default null)"
        " returns table (ord integer, status integer, body text, again boolean)"
        " language plpgsql as $$ begin raise exception using errcode = 'XX000'; end $$"
    )
    others = [TRACE[:-2] + f"{number:02x}" for number in range(8)]
    answers = await asyncio.gather(
        *(service.post(WRITE, transaction(), ALICE, traceparent=each) for each in others),
        service.post(WRITE, transaction(), BOB),
    )
    ids = [json.loads(answer.text)["logId"] for answer in answers]
    for log_id, expected in zip(ids, [f" traceparent={each}" for each in others], strict=False):
        (line,) = about(lines, log_id)
        assert line.endswith(expected)
    (line,) = about(lines, ids[-1])
    assert "traceparent" not in line
