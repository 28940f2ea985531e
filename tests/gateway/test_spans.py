"""One trace leads from the caller's header to what PostgreSQL was asked."""

import asyncio
import http.server
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from app import serve, spans
from tests.gateway.conftest import ALICE, Service, eventually, transaction
from tests.gateway.test_socket import create

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID, PARENT = (int(part, 16) for part in TRACE.split("-")[1:3])


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    spans.use(exporter, at_once=True)
    yield exporter
    spans.forget()


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


def ids(span: ReadableSpan) -> SpanContext:
    found: SpanContext = span.context
    return found


async def test_trace_leads_from_the_header_to_the_statement(
    service: Service, exported: InMemorySpanExporter
) -> None:
    body = {"table": "tasks", "where": {"title": "a value nobody may see"}}
    await service.post("/api/realtime/query", body, traceparent=TRACE)
    request = one(exported, "POST /api/realtime/query")
    (statement,) = [
        span
        for span in exported.get_finished_spans()
        if span.context is not None
        and span.parent is not None
        and span.parent.span_id == ids(request).span_id
    ]
    assert ids(request).trace_id == TRACE_ID
    assert request.parent is not None
    assert request.parent.span_id == PARENT
    assert statement.name == "sync.gateway_query"
    assert ids(statement).trace_id == TRACE_ID
    assert "nobody may see" not in "".join(span.to_json() for span in exported.get_finished_spans())


async def test_a_batch_is_linked_to_each_request_in_it(
    service: Service, exported: InMemorySpanExporter
) -> None:
    others = [f"00-{uuid.uuid4().hex}-{number:016x}-01" for number in range(1, 9)]
    await asyncio.gather(
        *(
            service.post(
                "/api/realtime/write",
                transaction(create(str(uuid.uuid4()))),
                ALICE,
                traceparent=each,
            )
            for each in others
        )
    )
    batches = [span for span in exported.get_finished_spans() if span.name == "write batch"]
    linked = {link.context.trace_id for span in batches for link in span.links}
    assert linked == {int(each.split("-")[1], 16) for each in others}
    below = [span for span in exported.get_finished_spans() if span.name == "sync.gateway_write"]
    assert {span.parent.span_id for span in below if span.parent} >= {
        ids(span).span_id for span in batches
    }


def test_traces_are_exported_as_the_standard_variables_say(gateway_dsn: str) -> None:
    """By a gateway of its own, to a collector that keeps what it gets."""
    got: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    listener = serve.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    listener.close()
    child = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"],
        cwd=Path(__file__).parents[2],
        env={
            "PATH": os.environ["PATH"],
            "ROWCAST_DATABASE_URL": gateway_dsn,
            "ROWCAST_JWT_SECRET": "8b3f" + uuid.uuid4().hex,
            "PORT": str(port),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_SERVICE_NAME": "the-gateway",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
        },
        stderr=subprocess.DEVNULL,
    )

    async def reached() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def arrived() -> bool:
                try:
                    await client.get("/readyz", headers={"traceparent": TRACE})
                except httpx.TransportError:
                    return False
                return any(bytes.fromhex(TRACE.split("-")[1]) in body for _, body in got)

            await eventually(arrived, 30)

    try:
        asyncio.run(reached())
    finally:
        child.terminate()
        child.wait(20)
        collector.shutdown()
        collector.server_close()
    assert {path for path, _ in got} == {"/v1/traces"}
    assert any(b"the-gateway" in body for _, body in got)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_nothing_is_traced_unless_asked_for(environment: dict[str, str], expected: bool) -> None:
    assert spans.wanted(environment) is expected
