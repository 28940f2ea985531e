"""The wheel holds the package under its own name, the SQL it installs and the apps it serves."""

import subprocess
import sys
import zipfile
from pathlib import Path

from app import __version__, migrate, pages

ROOT = Path(__file__).parents[2]


def test_wheel_works_without_the_checkout(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob(f"rowcast-{__version__}-*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"rowcast", f"rowcast-{__version__}.dist-info"}
    assert "rowcast/py.typed" in names
    assert ("rowcast/demo/index.html" in names) == (pages.apps_folder() / "index.html").is_file()

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(unpacked)},
            text=True,
            capture_output=True,
            check=True,
        ).stdout

    assert run("-m", "rowcast", "sql") == migrate.sql_script()
    where = run("-c", "from rowcast import pages; print(pages.apps_folder())")
    assert where.strip() == str(unpacked / "rowcast" / "demo")
