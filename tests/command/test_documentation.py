"""What the documentation says of the command line; the README's example runs as written."""

import re
import shutil
import subprocess
import sys

import pytest
from typer.main import get_command

from app import cli
from tests.command.running import ROOT, Running


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    documented = set(re.findall(r"^\| `rowcast ([a-z]+)", page, re.MULTILINE))
    command = get_command(cli.app)
    assert documented == set(getattr(command, "commands"))  # noqa: B009


@pytest.mark.parametrize(
    "name", ["run", "serve", "migrate", "sql", "types", "doctor", "tail", "remove"]
)
def test_help_of_every_command_says_what_it_does(name: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "app", name, "--help"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert f"rowcast {name}" in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example of the README uses curl")
def test_example_of_the_readme_works(running: Running) -> None:
    readme = (ROOT / "README.md").read_text()
    table, write = re.findall(r"```(?:sql|sh)\n(.*?)```", readme, re.DOTALL)
    environment = {"ROWCAST_DATA_DIR": str(running.home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    created = subprocess.run(
        [sys.executable, "-m", "app", "psql", "--set", "ON_ERROR_STOP=1"],
        cwd=ROOT,
        env=environment,
        input=table,
        text=True,
        capture_output=True,
        check=False,
    )
    assert created.returncode == 0, created.stderr
    answer = subprocess.run(
        ["/bin/sh", "-c", write.replace("localhost:8000", running.url.removeprefix("http://"))],
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert '"status":"applied"' in answer.replace(" ", ""), answer
    assert "It works" in answer
