"""What every file of the repository must hold to."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from app import __version__

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
REQUIREMENT = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s;]+( ; [^\\]+)? \\", re.IGNORECASE)
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_requirements_and_hashes_and_no_address(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert REQUIREMENT.fullmatch(line) or HASH.fullmatch(line), line


def test_development_uses_the_versions_of_the_runtime_lock() -> None:
    runtime, dev = (
        {line for line in (ROOT / "locks" / name).read_text().splitlines() if "==" in line}
        for name in ("runtime.txt", "dev.txt")
    )
    assert {line.split(" ")[0] for line in runtime} <= {line.split(" ")[0] for line in dev}


def test_lock_of_the_client_holds_versions_and_hashes_and_no_address() -> None:
    packages = json.loads((ROOT / "client" / "package-lock.json").read_text())["packages"]
    del packages[""]
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_changelog_and_package_name_the_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    for name in ("package.json", "package-lock.json"):
        assert json.loads((ROOT / "client" / name).read_text())["version"] == __version__, name


def test_declared_dependencies_are_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    locked = (ROOT / "locks" / "dev.txt").read_text()
    for requirement in wanted:
        name = re.split(r"[\[=<>]", requirement)[0].replace("_", "-").replace(".", "-")
        assert re.search(rf"^{name}==", locked, re.MULTILINE), f"{name}: run `make lock`"


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"^{target}:.* ## \S", makefile, re.MULTILINE), target


@pytest.mark.skipif(shutil.which("git") is None, reason="lists the files with git")
def test_links_between_pages_lead_somewhere() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    for name in listed.stdout.split():
        page = ROOT / name
        for target, place in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            if "://" not in target:
                found = page.parent / target if target else page
                assert found.exists(), f"{name}: {target}"
                assert not place or place in places(found), f"{name}: {target}#{place}"


def places(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
