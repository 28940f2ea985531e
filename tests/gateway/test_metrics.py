"""Every metric that the dashboard and the alerts name is there, and moves."""

import asyncio
import json
import re
import shutil
import subprocess
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import metrics, presence, relay
from tests.gateway.conftest import ALICE, BOB, Service, eventually, settings_for, transaction
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database
from tests.sql.engine import TASK_1, title

FOLDER = Path(__file__).parents[2] / "docker" / "metrics"
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
RULES = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
SAMPLE = re.compile(r"^(rowcast_\w+)(\{.*\})? (\S+)$", re.MULTILINE)


def named(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\browcast_\w+", text)}


def test_only_metrics_that_exist_are_named() -> None:
    known = set()
    for metric in metrics._ALL:
        parts = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        known |= {metric.name + part for part in parts}
    assert named(RULES) <= known
    assert named(PANELS) <= known
    # And nothing is measured that nobody looks at.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named(PANELS)}
    assert {metric.name for metric in metrics._ALL} <= shown


def test_labels_that_are_named_exist() -> None:
    source = "".join(path.read_text("utf-8") for path in (FOLDER.parents[1] / "app").glob("*.py"))
    for text in RULES + PANELS:
        for name, labels in re.findall(r"(rowcast_\w+)\{([^}]*)\}", text):
            for label in re.findall(r"(\w+)=~?\"", labels):
                assert re.search(rf"\.add\(.*\b{label}=", source), f"{name}: {label}"


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


class Watch:
    """What each series was seen to be; the names of those that were seen to change."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.seen: dict[str, set[str]] = defaultdict(set)

    async def look(self) -> None:
        text = (await self.service.http.get("/metrics")).text
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


async def test_every_metric_moves(
    db: Database, gateway_dsn: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "OVERVIEW_SECONDS", 0.05)
    # As the login has it in a database that was not cloned.
    dsn = f"{gateway_dsn} options='-c lock_timeout=200ms'"
    async with Service(settings_for(dsn, pool_size=2)) as service:
        watch = Watch(service)
        await watch.look()
        looking = asyncio.create_task(watch.forever())
        try:
            await service.ready()
            await everything(db, service, run, monkeypatch)
            wanted = named(RULES) | named(PANELS)

            async def all_moved() -> bool:
                return wanted <= watch.moved

            try:
                await eventually(all_moved, 20)
            except TimeoutError:
                pytest.fail(f"did not move: {sorted(wanted - watch.moved)}")
        finally:
            looking.cancel()


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
