"""The workflow of GitHub: valid, and in step with `make ci`."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SCHEMA = "vendor.github-workflows"
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
# `make test` in parts: Python's on each PostgreSQL, the browser's, the client's.
PARTS = {"test": {"test", "e2e", "test-client"}}


def workflow() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    return read


def steps(job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = workflow()["jobs"][job]["steps"]
    return found


def called() -> set[str]:
    """The targets of make that some step calls."""
    runs = [step.get("run", "") for job in workflow()["jobs"] for step in steps(job)]
    return {target for run in runs for target in re.findall(r"\bmake ([a-z0-9-]+)", run)}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_is_valid(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMA, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_workflow_does_all_that_make_ci_does_and_nothing_that_is_not_there() -> None:
    ci = re.search(r"^ci: ([a-z0-9 -]+?) ##", MAKEFILE, re.MULTILINE)
    assert ci is not None
    wanted = {part for target in ci[1].split() for part in PARTS.get(target, {target})}
    assert wanted <= called()
    targets = set(re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE))
    assert called() <= targets


def test_actions_are_pinned_and_keep_no_credentials() -> None:
    used = [step for job in workflow()["jobs"] for step in steps(job) if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    for job in workflow()["jobs"].values():
        assert set(job.get("permissions", {})) <= {"contents", "id-token"}
        assert job.get("permissions", {}).get("contents", "read") == "read"


def test_oldest_and_newest_postgres_are_tested() -> None:
    matrix = workflow()["jobs"]["test"]["strategy"]["matrix"]
    assert {"15", "18"} <= set(matrix["postgres"])
    assert "3.11" in matrix["python"]


def test_publishing_waits_for_everything_and_keeps_no_token() -> None:
    jobs = workflow()["jobs"]
    publishing = {name for name in jobs if name.startswith("publish")}
    assert len(publishing) == 2
    for name in publishing:
        assert set(jobs[name]["needs"]) == set(jobs) - publishing
        assert jobs[name]["if"] == "github.ref_type == 'tag'"
        assert jobs[name]["permissions"]["id-token"] == "write"
    assert not re.search(
        r"\$\{\{\s*secrets", (ROOT / ".github/workflows/ci.yml").read_text("utf-8")
    )
    assert workflow()["permissions"] == {"contents": "read"}
