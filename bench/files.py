"""A file of 1 GiB up and down through the gateway's folder, beside writing and reading it there."""

import hashlib
import http.client
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .results import Figure
from .stage import Say, Stage, member_of, new_id, token, uid

MIB = 1024 * 1024
SIZE = 1024 * MIB
MOST_MIB = 64
TASK = 5


def transfer(stage: Stage, say: Say, _: int) -> list[Figure]:
    """Memory of the gateway at its peak, above what it had before; and speed each way."""
    folder = Path(tempfile.mkdtemp(prefix="rowcast-bench-files-", dir="/var/tmp"))
    part = os.urandom(MIB)
    digest = hashlib.sha256()
    for _ in range(SIZE // MIB):
        digest.update(part)
    user = token(member_of(TASK, 0))
    try:
        say("1 GiB to the disk and back")
        written, read = _by_hand(folder, part)
        with stage.gateway(ROWCAST_FILES_URL=folder.as_uri()) as gateway:
            say("1 GiB up through the gateway")
            client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=600)
            id_ = new_id()
            value = {"taskId": uid(TASK), "name": "large", "size": str(SIZE)}
            value["type"] = "application/octet-stream"
            create = {"type": "create", "table": "taskFiles", "id": id_, "value": value}
            _post(client, user, "realtime/write", {"txId": new_id(), "operations": [create]})
            named = {"table": "taskFiles", "id": id_}
            _post(client, user, "files/download", named, 409)  # everything was imported once
            before = gateway.memory_kib("VmRSS") or 0
            gateway.reset_peak()
            link = _post(client, user, "files/upload", named)
            started = time.monotonic()
            headers = {**link["headers"], "Content-Length": str(SIZE)}
            client.request("PUT", link["url"], _parts(part), headers)
            receipt = _answer(client)["receipt"]
            up = time.monotonic() - started
            told = _post(client, user, "files/confirm", {**named, "receipt": receipt})
            if told["sha256"] != digest.hexdigest():
                raise RuntimeError("what was stored is not what was sent")
            up_peak = (gateway.memory_kib("VmHWM") or 0) - before
            say("1 GiB down")
            gateway.reset_peak()
            link = _post(client, user, "files/download", named)
            started = time.monotonic()
            client.request("GET", link["url"])
            found = hashlib.sha256()
            answer = client.getresponse()
            while piece := answer.read(MIB):
                found.update(piece)
            down = time.monotonic() - started
            if found.hexdigest() != digest.hexdigest():
                raise RuntimeError("what came back is not what was sent")
            down_peak = (gateway.memory_kib("VmHWM") or 0) - before
            total = (gateway.memory_kib("VmHWM") or 0) / 1024
    finally:
        shutil.rmtree(folder)
    return [
        _memory("1 GiB up, memory", up_peak),
        _memory("1 GiB down, memory", down_peak),
        Figure("the gateway meanwhile, all in all", "", f"{total:.0f} MiB", None),
        _speed("1 GiB up", written, up),
        _speed("1 GiB down", read, down),
    ]


def _by_hand(folder: Path, part: bytes) -> tuple[float, float]:
    """Seconds to write the same, hashed and flushed, and to read it, hashed."""
    path = folder / "by-hand"
    started = time.monotonic()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in _parts(part):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    written = time.monotonic() - started
    started = time.monotonic()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(MIB):
            digest.update(piece)
    read = time.monotonic() - started
    path.unlink()
    return written, read


def _parts(part: bytes) -> Iterator[bytes]:
    for _ in range(SIZE // MIB):
        yield part


def _post(
    client: http.client.HTTPConnection, user: str, path: str, body: object, expected: int = 200
) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {user}", "Content-Type": "application/json"}
    client.request("POST", f"/api/{path}", json.dumps(body), headers)
    return _answer(client, expected)


def _answer(client: http.client.HTTPConnection, expected: int = 200) -> dict[str, str]:
    answer = client.getresponse()
    text = answer.read()
    if answer.status != expected:
        raise RuntimeError(f"{answer.status}: {text!r}")
    found: dict[str, str] = json.loads(text)
    return found


def _memory(name: str, kib: float) -> Figure:
    mib = kib / 1024
    return Figure(name, f"limit {MOST_MIB} MiB", f"{mib:.1f} MiB", mib / MOST_MIB, None, 1.0)


def _speed(name: str, by_hand: float, seconds: float) -> Figure:
    size = SIZE / MIB
    return Figure(
        name, f"{size / by_hand:.0f} MiB/s", f"{size / seconds:.0f} MiB/s", by_hand / seconds
    )
