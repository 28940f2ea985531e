"""Counters and gauges, and their Prometheus text. No I/O, one process, one thread."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

Labels = tuple[tuple[str, str], ...]

# Codes of refusals and kinds of jobs are given by applications: what they make up for each row,
# say, would fill the memory of whoever keeps series.
MAX_SERIES: Final = 500
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counter:
    """A number that only grows, one series a set of labels."""

    kind = "counter"

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._series: dict[Labels, float] = {}

    def add(self, amount: float = 1, /, **labels: str) -> None:
        """Adds `amount` to the series of these labels; beyond so many series, to one for all."""
        series = _series(labels, self._series)
        self._series[series] = self._series.get(series, 0) + amount

    def value(self, **labels: str) -> float:
        """The present value of a series, 0 where nothing was added."""
        return self._series.get(tuple(sorted(labels.items())), 0)

    def lines(self) -> Iterator[str]:
        """The samples in Prometheus text form."""
        for labels, value in self._series.items():
            yield f"{self.name}{_labels(labels)} {_number(value)}"


class Gauge:
    """A number read when it is asked for; None while it is not known."""

    kind = "gauge"

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.read: Callable[[], float | None] = lambda: None

    def lines(self) -> Iterator[str]:
        """The sample in Prometheus text form."""
        value = self.read()
        if value is not None:
            yield f"{self.name} {_number(value)}"


class Gauges:
    """Numbers read when they are asked for, one a set of labels; none while they are not known."""

    kind = "gauge"

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.read: Callable[[], Mapping[Labels, float]] = dict

    def lines(self) -> Iterator[str]:
        """The samples in Prometheus text form."""
        for labels, value in self.read().items():
            yield f"{self.name}{_labels(labels)} {_number(value)}"


class Histogram:
    """Counts of observations at or below each bound, one series a set of labels."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self.name = name
        self.text = text
        self.bounds = bounds
        # Without labels there from the start; the sum is behind the counts.
        self._series: dict[Labels, list[float]] = {} if labels else {(): self._none()}

    def observe(self, value: float, **labels: str) -> None:
        """Counts one observation."""
        series = _series(labels, self._series)
        found = self._series.get(series)
        if found is None:
            found = self._series[series] = self._none()
        found[bisect_left(self.bounds, value)] += 1
        found[-1] += value

    def lines(self) -> Iterator[str]:
        """Cumulative buckets, sum and count in Prometheus text form."""
        for labels, (*counts, amount) in self._series.items():
            total = 0.0
            for bound, count in zip((*self.bounds, None), counts, strict=True):
                total += count
                limit = "+Inf" if bound is None else _number(bound)
                yield f"{self.name}_bucket{_labels((*labels, ('le', limit)))} {_number(total)}"
            yield f"{self.name}_sum{_labels(labels)} {_number(amount)}"
            yield f"{self.name}_count{_labels(labels)} {_number(total)}"

    def _none(self) -> list[float]:
        return [0] * (len(self.bounds) + 2)


requests = Counter("rowcast_http_requests_total", "HTTP answers by route and status.")
request_seconds = Histogram(
    "rowcast_http_request_seconds",
    "Time to the start of an HTTP answer.",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
refusals = Counter("rowcast_refusals_total", "Refusals by code.")
write_batch = Histogram(
    "rowcast_write_batch_requests", "Requests in one write call.", (1, 2, 4, 8, 16, 32)
)
write_retries = Counter("rowcast_write_retries_total", "Requests repeated alone.")
writes_waiting = Gauge("rowcast_writes_waiting", "Writes taken and not yet answered.")
connections_waiting = Gauge(
    "rowcast_connections_waiting", "Requests that wait for a connection to PostgreSQL."
)
sockets = Gauge("rowcast_sockets", "Open sockets.")
keys = Gauge("rowcast_keys", "Distinct keys somebody is subscribed to.")
relay_lag = Gauge("rowcast_relay_idle_seconds", "Seconds since the feed was last read to its end.")
_DELAYS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
delivery_seconds = Histogram(
    "rowcast_delivery_seconds",
    "From the start of a transaction to its changes being on their way to sockets.",
    _DELAYS,
)
bell_seconds = Histogram(
    "rowcast_doorbell_read_seconds", "From the doorbell to the feed read to its end.", _DELAYS
)
horizon = Gauge(
    "rowcast_feed_horizon_seconds",
    "Since when the oldest transaction that writes has been running; 0: none is.",
)
changes = Counter("rowcast_changes_total", "Changes read from the feed.")
probes = Counter("rowcast_access_probes_total", "Statements that asked who may read a change.")
probe_seconds = Histogram(
    "rowcast_access_probe_seconds", "Time of a statement that asked who may read.", _DELAYS
)
cache = Counter(
    "rowcast_access_cache_total",
    "Whether it was known if a socket may read a change (hit) or had to be asked (miss).",
)
frames = Counter("rowcast_frames_total", "Frames sent to sockets by type.")
signals_dropped = Counter(
    "rowcast_signals_dropped_total", "Broadcasts not sent on: too many, or access not known."
)
closed = Counter("rowcast_sockets_closed_total", "Sockets closed by the gateway, by code.")
# Of the database as a whole: every gateway says the same.
feed_bytes = Gauge("rowcast_feed_bytes", "Size of the feed on disk, indexes too.")
feed_seconds = Gauge("rowcast_feed_oldest_seconds", "Age of the oldest change in the feed.")
receipts_bytes = Gauge("rowcast_receipts_bytes", "Size of the receipts on disk, indexes too.")
receipts_seconds = Gauge("rowcast_receipts_oldest_seconds", "Age of the oldest receipt.")
relays_asleep = Gauge("rowcast_relays_asleep", "Relays that writers ring for.")
relays_awake = Gauge("rowcast_relays_awake", "Relays that read without being rung for.")
relays_behind = Gauge(
    "rowcast_relays_behind_seconds",
    "Seconds since the slowest relay of all gateways had read the feed to its end.",
)

jobs = Gauges("rowcast_jobs", "Jobs that wait, run or are held, by kind and state.")
jobs_late = Gauges("rowcast_jobs_late_seconds", "How late the oldest job is that is due, by kind.")
job_attempts = Counter("rowcast_job_attempts_total", "Attempts at jobs, by kind and outcome.")
job_seconds = Histogram(
    "rowcast_job_seconds",
    "Time of an attempt at a job, by kind.",
    (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600),
    "kind",
)
jobs_doing = Gauge("rowcast_worker_jobs", "Jobs that this worker is doing.")
worker_idle = Gauge(
    "rowcast_worker_idle_seconds", "Seconds since this worker has last looked after the queue."
)

Metric = Counter | Gauge | Gauges | Histogram

GATEWAY: Final[tuple[Metric, ...]] = (
    requests,
    request_seconds,
    refusals,
    write_batch,
    write_retries,
    writes_waiting,
    connections_waiting,
    sockets,
    keys,
    relay_lag,
    delivery_seconds,
    bell_seconds,
    horizon,
    changes,
    probes,
    probe_seconds,
    cache,
    frames,
    signals_dropped,
    closed,
    feed_bytes,
    feed_seconds,
    receipts_bytes,
    receipts_seconds,
    relays_asleep,
    relays_awake,
    relays_behind,
)
WORKER: Final[tuple[Metric, ...]] = (
    jobs,
    jobs_late,
    job_attempts,
    job_seconds,
    jobs_doing,
    worker_idle,
)

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def text(of: Sequence[Metric]) -> str:
    """These in the Prometheus text format, version 0.0.4."""
    lines: list[str] = []
    for metric in of:
        lines.append(f"# HELP {metric.name} {metric.text}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines.extend(metric.lines())
    return "\n".join(lines) + "\n"


def _series(labels: Mapping[str, str], known: Mapping[Labels, object]) -> Labels:
    if not labels:
        return ()
    series = tuple(sorted(labels.items()))
    if series in known or len(known) < MAX_SERIES:
        return series
    return tuple((name, "other") for name, _ in series)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
