"""Counters and gauges, and their Prometheus text. No I/O, one process, one thread."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counter:
    """A number that only grows, one series a set of labels."""

    kind = "counter"

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._series: dict[tuple[tuple[str, str], ...], float] = {}

    def add(self, amount: float = 1, /, **labels: str) -> None:
        """Adds `amount` to the series of these labels."""
        series = tuple(sorted(labels.items()))
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


class Histogram:
    """Counts of observations at or below each bound."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.text = text
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Counts one observation."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        """Cumulative buckets, sum and count in Prometheus text form."""
        total = 0
        for bound, count in zip((*self.bounds, None), self._counts, strict=True):
            total += count
            limit = "+Inf" if bound is None else _number(bound)
            yield f'{self.name}_bucket{{le="{limit}"}} {total}'
        yield f"{self.name}_sum {_number(self._sum)}"
        yield f"{self.name}_count {total}"


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

_ALL: tuple[Counter | Gauge | Histogram, ...] = (
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


def text() -> str:
    """Everything in the Prometheus text format, version 0.0.4."""
    lines: list[str] = []
    for metric in _ALL:
        lines.append(f"# HELP {metric.name} {metric.text}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines.extend(metric.lines())
    return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
