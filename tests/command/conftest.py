"""Fixtures: `home` a data folder, `running` a `rowcast run` over it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import embedded
from tests.command.running import Running, start, stop


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "data"
    yield path
    embedded.reset(path)


@pytest.fixture
def running(home: Path) -> Iterator[Running]:
    made = start(home)
    yield made
    if made.process.poll() is None:
        stop(made, signal.SIGTERM)
