"""Fixtures: `installed` a folder with the package in its node_modules."""

from pathlib import Path

import pytest

from tests.documentation.pages import MODULES, install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not MODULES.is_dir():
        pytest.skip("the client is not installed (make install)")
    folder = tmp_path_factory.mktemp("apps")
    install(folder)
    return folder
