"""The web client's uploader against the real gateway, with the whole client around it."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.conftest import ALICE, Service, settings_for, token
from tests.gateway.files import S3, s3_server
from tests.sql.engine import TASK_1

CLIENT = Path(__file__).parents[2] / "client"
CONTENT = bytes(at * 7 % 251 for at in range(3_000_000))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client and what it is to do, as one file for Node."""
    assert shutil.which("node"), "Node is missing: version 20 or newer runs the web client's tests"
    if not (CLIENT / "node_modules").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=CLIENT, check=True)
    folder = tmp_path_factory.mktemp("uploader")
    build = [str(CLIENT / "node_modules/.bin/vite"), "build", "--logLevel", "error"]
    ssr = ["--ssr", "test/uploads-on-a-gateway.ts", "--outDir", str(folder), "--emptyOutDir"]
    subprocess.run([*build, *ssr], cwd=CLIENT, check=True)
    (file,) = folder.glob("*.js")
    return file.rename(file.with_suffix(".mjs"))


@pytest.mark.parametrize("store", ["folder", "bucket"])
async def test_files_go_up_and_come_down(
    script: Path, gateway_dsn: str, tmp_path: Path, store: str
) -> None:
    """Into a folder through the gateway, and into a bucket directly."""
    given = {"files_url": (tmp_path / "files").as_uri()}
    if store == "bucket":
        with s3_server(tmp_path, "rowcast") as server:
            await _uploads(script, gateway_dsn, **_direct(server))
    else:
        await _uploads(script, gateway_dsn, **given)


def _direct(server: S3) -> dict[str, object]:
    return server.settings("rowcast", files_direct=True)


async def _uploads(script: Path, gateway_dsn: str, **given: object) -> None:
    async with Service(settings_for(gateway_dsn, **given)) as service:
        await service.ready()
        setup = {"url": service.url, "token": token(ALICE), "task": TASK_1}
        process = await asyncio.create_subprocess_exec(
            "node",
            "--experimental-websocket",
            str(script),
            json.dumps(setup),
            stdout=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    found = json.loads(out)
    digest = hashlib.sha256(CONTENT).hexdigest()
    record = found["record"]
    assert (record["state"], record["sha256"]) == ("ready", digest)
    assert (record["name"], record["type"]) == ("My #1 Pic.PNG", "image/png")
    assert found["steps"][-1] == "ready"
    assert {"uploading", "confirming"} <= set(found["steps"])
    assert found["saved"] == {"same": True, "disposition": 'attachment; filename="My #1 Pic.PNG"'}
    assert found["shown"] == {"same": True, "disposition": 'inline; filename="My #1 Pic.PNG"'}
    assert found["resumed"]["same"] is True
    assert (found["refused"], found["unknown"]) == ("forbidden", "forbidden")
