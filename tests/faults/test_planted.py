"""The faults that `make planted-faults` plants still have a place to be planted."""

import shutil
from pathlib import Path

import pytest

from tests.faults.planted import FAULTS, ROOT, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_applies_and_its_tests_exist(fault: Fault, tmp_path: Path) -> None:
    target = tmp_path / fault.path
    target.parent.mkdir(parents=True)
    shutil.copy(ROOT / fault.path, target)
    fault.plant(tmp_path)
    if target.suffix == ".py":
        compile(target.read_text(), str(target), "exec")
    for test in fault.caught_by:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()
