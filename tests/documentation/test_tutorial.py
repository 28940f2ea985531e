"""The tutorial, from an empty folder to an app of two users, done as it says."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import embedded
from tests.command.running import Running, start, stop
from tests.documentation.pages import DOCS, MODULES, ROOT, TESTS, blocks, run, vitest, write_files

PAGE = DOCS / "tutorial" / "first-app.md"


@pytest.fixture
def folder(installed: Path) -> Path:
    """The empty folder, beside what stands for the checkout."""
    command = installed / "rowcast" / ".venv" / "bin" / "rowcast"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m app "$@"\n')
    command.chmod(0o755)
    made = installed / "shopping"
    made.mkdir()
    return made


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    """`rowcast run` in it, on a port of its own."""
    made = start(folder / ".data")
    yield made
    stop(made, signal.SIGTERM)
    embedded.reset(folder / ".data")


def test_tutorial_does_what_it_says(folder: Path, running: Running) -> None:
    commands = [line for block in blocks(PAGE, "sh") for line in block.splitlines()]
    by_hand = ("make ", "mkdir ", "cd ", "npm install ", "npx vite")
    own = [line for line in commands if not line.startswith(by_hand)]
    assert own.pop(0) == "../rowcast/.venv/bin/rowcast run"
    wanted = {word for line in commands if line.startswith("npm install ") for word in line.split()}
    for name in wanted - {"npm", "install", "--save-dev", "rowcast"}:
        assert (MODULES / name).is_dir(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in next(line for line in commands if line.startswith("make ")).split()[1:]:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

    write_files(PAGE, folder)
    for line in own:
        run("sh", "-c", line, cwd=folder)
    path = f"{MODULES / '.bin'}:{os.environ['PATH']}"
    run("npm", "run", "--silent", "build", cwd=folder, PATH=path)
    assert (folder / "dist" / "index.html").is_file()
    for name in ("first-app.test.tsx", "browser.ts", "network.ts", "vitest.config.ts"):
        (folder / name).write_text((TESTS / name).read_text())
    vitest(folder, GATEWAY=running.url)
