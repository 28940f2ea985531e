"""Every metric that the dashboard and the alerts name is there, and moves."""

import asyncio
import json
import re
import shutil
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app import metrics, presence, relay, serve
from tests.gateway.conftest import ALICE, BOB, Service, eventually, settings_for, transaction
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database
from tests.sql.engine import TASK_1, title
from tests.worker.process import working
from tests.worker.test_worker import SETUP, enqueue

FOLDER = Path(__file__).parents[2] / "docker" / "metrics"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
RULES = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ALL = (*metrics.GATEWAY, *metrics.WORKER)
SERIES = {
    'rowcast_jobs{kind="hopeless",state="held"}',
    'rowcast_jobs{kind="mail",state="queued"}',
    'rowcast_jobs_late_seconds{kind="nobodys"}',
    'rowcast_job_attempts_total{kind="note",outcome="done"}',
    'rowcast_job_attempts_total{kind="poison",outcome="failed"}',
}
SAMPLE = re.compile(r"^(rowcast_\w+)(\{.*\})? (\S+)$", re.MULTILINE)


def named(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\browcast_\w+", text)}


def test_only_metrics_that_exist_are_named() -> None:
    known = set()
    for metric in ALL:
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        known |= {metric.name + part for part in parts}
    assert named(RULES) <= known
    assert named(PANELS) <= known
    # And nothing is measured that nobody looks at.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named(PANELS)}
    assert {metric.name for metric in ALL} <= shown


def test_labels_that_are_named_exist() -> None:
    source = "".join(path.read_text("utf-8") for path in (FOLDER.parents[1] / "app").glob("*.py"))
    for text in RULES + PANELS:
        for name, labels in re.findall(r"(rowcast_\w+)\{([^}]*)\}", text):
            for label in re.findall(r"(\w+)=~?\"", labels):
                given = rf"\.add\(.*\b{label}=|\(\"{label}\", "
                assert re.search(given, source), f"{name}: {label}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
def test_expressions_are_understood_by_prometheus(tmp_path: Path) -> None:
    rules = [
        {"record": f"a:b{number}", "expr": text.replace("$__rate_interval", "1m")}
        for number, text in enumerate(PANELS)
    ]
    (tmp_path / "panels.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]})
    )
    for command in (
        ["rules", str(tmp_path / "panels.yml")],
        ["rules", str(FOLDER / "alerts.yml")],
        ["config", str(FOLDER / "prometheus.yml")],
    ):
        done = subprocess.run(
            ["promtool", "check", *command], text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def of(metrics_: tuple[metrics.Metric, ...]) -> set[str]:
    """What the dashboard and the alerts name of these."""
    names = tuple(metric.name for metric in metrics_)
    ends = ("", "_bucket", "_sum", "_count")
    return (named(RULES) | named(PANELS)) & {name + end for name in names for end in ends}


class Watch:
    """What each series was seen to be; the names of those that were seen to change."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.seen: dict[str, set[str]] = defaultdict(set)

    async def look(self) -> None:
        try:
            text = (await self.http.get("/metrics")).text
        except httpx.TransportError:
            return
        for name, labels, value in SAMPLE.findall(text):
            series = name + labels
            if series not in self.seen and self.seen:
                self.seen[series].add("absent")
            self.seen[series].add(value)

    async def forever(self) -> None:
        while True:
            await self.look()

    @property
    def moved(self) -> set[str]:
        return {series.partition("{")[0] for series, seen in self.seen.items() if len(seen) > 1}


async def test_every_metric_of_a_gateway_moves(
    db: Database, gateway_dsn: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "OVERVIEW_SECONDS", 0.05)
    # As the login has it in a database that was not cloned.
    dsn = f"{gateway_dsn} options='-c lock_timeout=200ms'"
    async with Service(settings_for(dsn, pool_size=2)) as service:
        watch = Watch(service.http)
        await watch.look()
        looking = asyncio.create_task(watch.forever())
        try:
            await service.ready()
            await everything(db, service, run, monkeypatch)
            await all_moved(watch, of(metrics.GATEWAY))
        finally:
            looking.cancel()


async def test_every_metric_of_a_worker_moves(db: Database, run: Callable[..., Any]) -> None:
    run(SETUP)
    with serve.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    with db.connect() as conn, db.connect() as gate, working(db, ROWCAST_WORKER_PORT=str(port)):
        for kind in ("note", "poison", "hopeless"):
            enqueue(conn, kind)
        # One that is under way until it was seen to be.
        gate.execute("select pg_advisory_lock(7)")
        enqueue(conn, "up", gate=7)
        # Of a kind that no worker has code for.
        run("select jobs.allow('nobodys')")
        enqueue(conn, "nobodys")
        # Told to wait, and nobody is called for it.
        enqueue(conn, "mail")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            watch = Watch(http)
            looking = asyncio.create_task(watch.forever())
            try:
                await all_moved(watch, {"rowcast_worker_jobs"})
                gate.execute("select pg_advisory_unlock(7)")
                await all_moved(watch, of(metrics.WORKER))
                # The queue is counted every ten seconds.
                await eventually(partial(is_told, watch, SERIES), 40)
                assert 'rowcast_jobs_late_seconds{kind="mail"}' not in watch.seen
            finally:
                looking.cancel()


async def is_told(watch: Watch, series: set[str]) -> bool:
    return series <= set(watch.seen)


async def all_moved(watch: Watch, wanted: set[str]) -> None:
    assert wanted

    async def moved() -> bool:
        return wanted <= watch.moved

    try:
        await eventually(moved, 40)
    except TimeoutError:
        pytest.fail(f"did not move: {sorted(wanted - watch.moved)}")


def test_series_are_bounded_whatever_labels_are_made_up() -> None:
    counter = metrics.Counter("x", "x")
    histogram = metrics.Histogram("y", "y", (1,), "kind")
    for number in range(2 * metrics.MAX_SERIES):
        counter.add(code=str(number))
        histogram.observe(2, kind=str(number))
    assert len(list(counter.lines())) == metrics.MAX_SERIES + 1
    assert counter.value(code="other") == metrics.MAX_SERIES
    assert f'y_count{{kind="other"}} {metrics.MAX_SERIES}' in list(histogram.lines())
    counter.add(code="3")
    assert counter.value(code="3") == 2


async def everything(
    db: Database, service: Service, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moves them all."""
    async with service.socket(BOB) as bob, service.socket(ALICE) as alice:
        await bob.subscribe(KEY)
        await alice.subscribe(KEY)
        await service.write(create(str(uuid.uuid4())))
        await bob.expect("updates")
        for _ in range(3):
            await service.write(title(TASK_1, uuid.uuid4().hex))
            await bob.expect("updates")
        await service.post("/api/realtime/query", {"table": "nothing"})
        # A policy is asked where no answer holds.
        run("create policy seen on public.tasks as restrictive using (version > 0)")
        await bob.expect("stale")
        await service.write(title(TASK_1, "asked"))
        # A row that somebody holds: writes wait, are repeated, and so do requests for a connection.
        holder = db.connect(autocommit=False)
        holder.execute("select 1 from public.tasks where id = %s for update", (TASK_1,))
        holder.execute("select pg_current_xact_id()")
        waiting = [
            asyncio.create_task(
                service.post("/api/realtime/write", transaction(title(TASK_1, str(n))), user)
            )
            for n in range(12)
            for user in (ALICE, BOB)
        ]
        reads = [
            asyncio.create_task(service.post("/api/realtime/query", {"table": "tasks"}, BOB))
            for _ in range(20)
        ]

        async def retried() -> bool:
            return metrics.write_retries.value() > 0 and service.gateway.relay.horizon_seconds > 0

        await eventually(retried)
        holder.rollback()
        await asyncio.gather(*waiting, *reads)
        # More broadcasts than may wait.
        monkeypatch.setattr(presence, "MAX_WAITING_BYTES", 0)
        await alice.subscribe(f"tasks:{TASK_1}")
        await alice.send(
            {"type": "broadcast", "key": f"tasks:{TASK_1}", "event": "x", "payload": 1}
        )
        await alice.pong()
    async with service.connect() as stranger:
        await stranger.send({"type": "ping"})
        await stranger.closed()
