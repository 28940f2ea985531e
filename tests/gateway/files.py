"""Files as a client handles them, and a server of S3 to keep them in."""

import base64
import hashlib
import hmac
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.conftest import ALICE, Service
from tests.sql.engine import TASK_1, create, new_id

S3_SECONDS = 60.0


class Files:
    """One user's files of one task."""

    def __init__(self, service: Service, user: str = ALICE) -> None:
        self.service = service
        self.user = user

    async def create(self, content: bytes, **more: Any) -> str:
        """A pending file for this content."""
        id_ = new_id()
        given = {
            "taskId": TASK_1, "name": "a.txt", "type": "text/plain", "size": str(len(content)),
            **more,
        }  # fmt: skip
        await self.service.write(create("taskFiles", id_, **given), user=self.user)
        return id_

    async def ask(self, what: str, id_: str, **more: Any) -> httpx.Response:
        body = {"table": "taskFiles", "id": id_, **more}
        return await self.service.post(f"/api/files/{what}", body, self.user)

    async def told(self, what: str, id_: str, **more: Any) -> Any:
        answer = await self.ask(what, id_, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, link: Any, content: Any, **headers: str) -> httpx.Response:
        return await self.service.http.put(
            link["url"], content=content, headers={**link["headers"], **headers}
        )

    async def ready(self, content: bytes, **more: Any) -> str:
        """A file that went all the way."""
        id_ = await self.create(content, **more)
        answer = await self.put(await self.told("upload", id_), content)
        assert answer.status_code == 200, answer.text
        receipt = answer.json()["receipt"] if answer.content else None
        assert (await self.told("confirm", id_, receipt=receipt))["state"] == "ready"
        return id_

    async def record(self, id_: str) -> Any:
        body = {"pointers": [{"table": "taskFiles", "id": id_}]}
        answer = await self.service.post("/api/realtime/getRecords", body, self.user)
        return answer.json()["recordMap"]["taskFiles"][id_]

    async def get(self, id_: str, inline: bool = False, **headers: str) -> httpx.Response:
        link = await self.told("download", id_, inline=inline)
        return await self.service.http.get(link["url"], headers=headers)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class EndedError(Exception):
    """The server ended by itself."""


class S3:
    """SeaweedFS on free ports: it checks signatures, and writes once where that is asked."""

    def __init__(self, folder: Path) -> None:
        self.key, self.secret = "files", secrets.token_urlsafe(24)
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = [{"accessKey": self.key, "secretKey": self.secret}]
        identities = [{"name": "gateway", "credentials": keys, "actions": rights}]
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir()
        master, volume, filer, port = _free_ports()
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [
            "weed", "-logdir", str(folder), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-dir={folder / 'data'}", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", "-s3", f"-s3.port={port}", f"-s3.config={config}",
            "-volume.max=8", "-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-master.port.grpc={master + 1}", f"-volume.port.grpc={volume + 1}",
            f"-filer.port.grpc={filer + 1}", f"-s3.port.grpc={port + 1}", "-s3.iam=false",
        ]  # fmt: skip
        program = _program("weed")
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([program, *command[1:]], stdout=log, stderr=log)
        self.log = folder / "log"

    def url(self, bucket: str, prefix: str = "") -> str:
        return f"s3://{bucket}/{prefix}"

    def settings(self, bucket: str, **more: Any) -> dict[str, Any]:
        return {
            "files_url": self.url(bucket, "some/where"),
            "files_endpoint": self.endpoint,
            "files_key_id": self.key,
            "files_secret_key": self.secret,
            **more,
        }

    def make_bucket(self, name: str) -> None:
        """Waits for the server, which answers before it can store anything."""
        import obstore
        from obstore.store import S3Store

        deadline = time.monotonic() + S3_SECONDS
        store = S3Store(
            name,
            config={
                "access_key_id": self.key,
                "secret_access_key": self.secret,
                "endpoint": self.endpoint,
                "region": "us-east-1",
            },
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        made = False
        while True:
            try:
                made = made or self._create(name)
                obstore.put(store, "probe", b"x")
                obstore.delete(store, "probe")
            except (httpx.TransportError, obstore.exceptions.BaseError, OSError) as error:
                if self._process.poll() is not None:
                    raise EndedError(self.log.read_text()[-2000:]) from error
                if time.monotonic() > deadline:
                    raise AssertionError(self.log.read_text()[-2000:]) from error
                time.sleep(0.1)  # polls a server that tells nobody when it is ready
            else:
                return

    def _create(self, name: str) -> bool:
        from app.config import Settings
        from app.links import presign

        settings = Settings(database_url="host=x", **self.settings(name))
        url = presign(settings, "PUT", "", {}, 60, time.time())
        answer = httpx.put(url)
        assert answer.status_code in (200, 409, 500, 503), answer.text
        return answer.status_code in (200, 409)

    def stop(self) -> None:
        """It takes SIGTERM lightly."""
        self._process.kill()
        self._process.wait(20)


class Azure:
    """Azurite on a free port, with a container. It has one account, whose key is no secret."""

    account = "devstoreaccount1"
    secret = (
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    )

    def __init__(self, program: str, folder: Path, container: str) -> None:
        port = _free_ports()[0]
        self.endpoint = f"http://127.0.0.1:{port}/{self.account}"
        self.container = container
        command = [
            program, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence",
            "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", str(port),
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        deadline = time.monotonic() + S3_SECONDS
        while True:
            try:
                assert self._make() == 201
            except httpx.TransportError:
                assert self._process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)  # polls a server that tells nobody when it is ready
            else:
                return

    def settings(self) -> dict[str, Any]:
        return {
            "files_url": f"az://{self.container}/some/where",
            "files_endpoint": self.endpoint,
            "files_key_id": self.account,
            "files_secret_key": self.secret,
        }

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def _make(self) -> int:
        said = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        lines = [f"{name}:{value}" for name, value in said.items()]
        path = f"/{self.account}/{self.account}/{self.container}"
        text = "\n".join(("PUT", *[""] * 11, *lines, path, "restype:container"))
        digest = hmac.digest(base64.b64decode(self.secret), text.encode(), "sha256")
        said["Authorization"] = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        url = f"{self.endpoint}/{self.container}?restype=container"
        return httpx.put(url, headers=said).status_code


def _program(name: str) -> str:
    import sysconfig

    return str(Path(sysconfig.get_path("scripts")) / name)


def _free_ports() -> list[int]:
    """Four ports, each with the one after it free too."""
    found: list[int] = []
    while len(found) < 4:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            if port > 60000:
                continue
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            if all(abs(port - other) > 1 for other in found):
                found.append(port)
    return found


@contextmanager
def s3_server(folder: Path, bucket: str) -> Iterator[S3]:
    """A server with a bucket. A port that somebody took meanwhile ends it: then it has others."""
    for last in (False, False, True):
        place = folder / secrets.token_hex(4)
        place.mkdir()
        server = S3(place)
        try:
            try:
                server.make_bucket(bucket)
            except EndedError:
                if last:
                    raise
                continue
            yield server
            return
        finally:
            server.stop()
