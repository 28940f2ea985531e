"""Spans of OpenTelemetry, where it is installed (`rowcast[traces]`) and configured (`OTEL_*`).

Requests, what they ask of PostgreSQL, and batches that many requests share. The names of functions
and routes are in them, never values. Where nothing is configured this costs a comparison.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from . import __version__, trace

log = logging.getLogger("rowcast.spans")

EXPORTERS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_tracer: Any = None
_NOTHING: Final = nullcontext()


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    return (
        environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and any(environment.get(name) for name in EXPORTERS)
    )


def configure() -> None:
    """Starts exporting where that is wanted. Address, headers, sampling, resource and batches are
    as the `OTEL_*` variables say.
    """
    if not wanted(os.environ):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.error("OTEL_* asks for traces, and rowcast[traces] is not installed")
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", "rowcast")
    use(OTLPSpanExporter())


def use(exporter: Any, *, at_once: bool = False) -> None:
    """Exports by this exporter."""
    global _tracer  # noqa: PLW0603  one process, one tracer
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(
        SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter)
    )
    _tracer = provider.get_tracer("rowcast", __version__)


def forget() -> None:
    """Exports nothing any more."""
    global _tracer  # noqa: PLW0603
    _tracer = None


def span(
    name: str, kind: str = "internal", links: Iterable[str] = (), **said: Any
) -> AbstractContextManager[Any]:
    """A part of what `trace.current` says is under way, which it is inside; None without traces.

    `kind`: server, client or internal. `links`: other traces that it is done for. `said`:
    attributes, `_` for the dot in their names.
    """
    return _NOTHING if _tracer is None else _span(name, kind, links, said)


@contextmanager
def _span(name: str, kind: str, links: Iterable[str], said: Mapping[str, Any]) -> Iterator[Any]:
    from opentelemetry import trace as otel

    made = _tracer.start_span(
        name,
        context=_context(trace.current.get()),
        kind=otel.SpanKind[kind.upper()],
        links=[otel.Link(_of(text)) for text in dict.fromkeys(links) if text],
        attributes={key.replace("_", "."): value for key, value in said.items()},
    )
    found = made.get_span_context()
    flags = f"{int(found.trace_flags):02x}"
    outer = trace.current.set(f"00-{found.trace_id:032x}-{found.span_id:016x}-{flags}")
    try:
        yield made
    except BaseException as exc:
        # Its class alone: what it says may hold values of rows.
        made.set_status(otel.StatusCode.ERROR, type(exc).__name__)
        raise
    finally:
        trace.current.reset(outer)
        made.end()


def _of(traceparent: str) -> Any:
    from opentelemetry import trace as otel

    _, trace_id, span_id, flags = traceparent.split("-")[:4]
    return otel.SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=otel.TraceFlags(int(flags, 16)),
    )


def _context(traceparent: str) -> Any:
    from opentelemetry import trace as otel
    from opentelemetry.context import Context

    # An empty one of our own: the task's may be that of another request.
    if not traceparent:
        return Context()
    return otel.set_span_in_context(otel.NonRecordingSpan(_of(traceparent)), Context())
