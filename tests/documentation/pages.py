"""What a page of the documentation holds, and a folder in which its code runs.

A code block after a line that holds a path in backquotes and a colon is that file; several blocks
of one file follow each other in it. The package is packed as npm would publish it; what else is
installed comes from the client's folder.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODULES = ROOT / "client" / "node_modules"
TESTS = Path(__file__).parent

FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def files(page: Path) -> dict[str, str]:
    """The files a page names, by their path."""
    found: dict[str, str] = {}
    for path, text in FILE.findall(page.read_text("utf-8")):
        found[path] = found[path] + "\n" + text if path in found else text
    return found


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return [text for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


def write_files(page: Path, folder: Path) -> None:
    """Writes the files a page names."""
    for path, text in files(page).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; AssertionError with all of it where it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def install(folder: Path) -> None:
    """Makes node_modules in a folder."""
    client, package, modules = ROOT / "client", folder / "package", folder / "node_modules"
    shutil.copytree(client / "src", package / "src")
    for name in ("package.json", "README.md", "SPEC.md"):
        shutil.copy(client / name, package)
    tsc = MODULES / ".bin" / "tsc"
    run(tsc, "-p", client / "tsconfig.build.json", "--outDir", package / "dist", cwd=client)
    (packed,) = json.loads(run("npm", "pack", "--json", "--silent", "./package", cwd=folder))
    (modules / "rowcast").mkdir(parents=True)
    run("tar", "-xzf", packed["filename"], "--strip=1", "-C", "node_modules/rowcast", cwd=folder)
    for found in MODULES.iterdir():
        if found.name != ".bin" and found.is_dir():
            (modules / found.name).symlink_to(found)


def vitest(folder: Path, *arguments: str, **environment: str) -> str:
    """Runs the tests in a folder."""
    program = MODULES / "vitest" / "vitest.mjs"
    return run("node", program, "run", *arguments, cwd=folder, CI="1", **environment)
