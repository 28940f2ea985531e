"""Files through the gateway: the way of one, and every way round the rules."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
import psycopg
import pytest
import pytest_asyncio

from app import calls, links, stores
from app import files as transfers
from app.config import Settings
from app.db import Streams
from app.errors import Problem
from app.links import Signer
from app.stores import Folder, Store
from tests.gateway.conftest import (
    BOB,
    CAROL,
    SECRET,
    Process,
    Service,
    eventually,
    settings_for,
    token,
    until,
)
from tests.gateway.files import S3, Azure, Files, s3_server, sha256
from tests.sql.engine import TASK_1

CONTENT = bytes(range(256)) * 1000
ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files of a local store are."""
    return tmp_path / "files"


@pytest_asyncio.fixture
async def local(gateway_dsn: str, folder: Path) -> AsyncIterator[Service]:
    """A gateway with a folder."""
    async with Service(settings_for(gateway_dsn, files_url=folder.as_uri())) as running:
        yield running


@pytest.fixture
def files(local: Service) -> Files:
    return Files(local)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server of S3 for the whole run."""
    with s3_server(tmp_path_factory.mktemp("s3"), "rowcast") as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    """The same of Azure, where there is one: `npm install --global azurite`."""
    program = shutil.which("azurite-blob")
    if program is None:  # of 186 MB, too much for every checkout
        pytest.skip("needs azurite-blob in PATH")
    server = Azure(program, tmp_path_factory.mktemp("azure"), "rowcast")
    try:
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture(params=["folder", "bucket", "direct", "azure"])
async def anywhere(
    request: pytest.FixtureRequest, gateway_dsn: str, folder: Path
) -> AsyncIterator[Files]:
    """Files in each kind of store."""
    given: Json = {"files_url": folder.as_uri()}
    if request.param == "azure":
        given = request.getfixturevalue("azure").settings()
    elif request.param != "folder":
        server: S3 = request.getfixturevalue("s3")
        given = server.settings("rowcast", files_direct=request.param == "direct")
    async with Service(settings_for(gateway_dsn, **given)) as running:
        yield Files(running)


def stored(folder: Path) -> list[str]:
    """Everything in the folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def changed(url: str, **parts: str | None) -> str:
    """A link with some parts of its query replaced, or with None removed."""
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)) | parts
    kept = {name: value for name, value in query.items() if value is not None}
    return f"{urlsplit(url).path}?{urlencode(kept, quote_via=quote)}"


def expect_bad_link(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (403, "bad_link"), answer.text


# --- the way of a file ---------------------------------------------------------------------------


async def test_file_goes_up_is_confirmed_and_comes_down(anywhere: Files) -> None:
    id_ = await anywhere.ready(CONTENT, type="application/x-thing", name="My #1 Pic.PNG")
    record = await anywhere.record(id_)
    assert (record["state"], record["size"]) == ("ready", str(len(CONTENT)))
    assert record["sha256"] == sha256(CONTENT)
    answer = await anywhere.get(id_)
    assert answer.content == CONTENT
    headers = answer.headers
    assert headers["content-type"] == "application/x-thing"
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["content-disposition"] == 'attachment; filename="My #1 Pic.PNG"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox;")
    assert headers["cache-control"] == "no-store"


async def test_empty_file_is_a_file(anywhere: Files) -> None:
    id_ = await anywhere.ready(b"")
    answer = await anywhere.get(id_)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await anywhere.record(id_))["sha256"] == sha256(b"")


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=1000-", 206, slice(1000, None)),
        ("bytes=255990-999999999", 206, slice(255990, None)),
        ("bytes=-10", 206, slice(-10, None)),
        ("bytes=-999999", 206, slice(0, None)),
        ("bytes=256000-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-1", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes=0-1,3-4", 200, slice(None)),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), 200, slice(None)),
        ("bytes=" + "9" * 400 + "-", 200, slice(None)),
        ("bytes=NaN-", 200, slice(None)),
        ("lines=0-1", 200, slice(None)),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_one_range_is_served_and_others_do_no_harm(
    files: Files, header: str, status: int, part: slice | None
) -> None:
    id_ = await files.ready(CONTENT)
    answer = await files.get(id_, Range=header)
    if len(header) > 60_000 and answer.status_code in (400, 431):
        return  # the server itself takes no header this long
    assert answer.status_code == status
    if part is not None:
        assert answer.content == CONTENT[part]
    else:
        assert answer.json()["code"] == "bad_range"
        assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"


async def test_range_of_a_bucket_is_read_there(s3: S3, gateway_dsn: str) -> None:
    async with Service(settings_for(gateway_dsn, **s3.settings("rowcast"))) as service:
        files = Files(service)
        id_ = await files.ready(CONTENT)
        answer = await files.get(id_, Range="bytes=100-199")
        assert answer.content == CONTENT[100:200]
        assert answer.headers["content-range"] == f"bytes 100-199/{len(CONTENT)}"


async def test_head_says_what_get_would(files: Files) -> None:
    id_ = await files.ready(CONTENT)
    link = await files.told("download", id_)
    answer = await files.service.http.head(link["url"])
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))
    # Ranges are of GET alone.
    part = await files.service.http.head(link["url"], headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"]) == (200, str(len(CONTENT)))


async def test_range_of_other_bytes_is_not_mixed(files: Files) -> None:
    id_ = await files.ready(CONTENT)
    whole = await files.get(id_, Range="bytes=0-9", If_Range='"another"')
    assert whole.status_code == 200 or whole.content == CONTENT[:10]
    link = await files.told("download", id_)
    other = {"Range": "bytes=0-9", "If-Range": '"another"'}
    assert (await files.service.http.get(link["url"], headers=other)).content == CONTENT
    etag = whole.headers["etag"]
    same = await files.service.http.get(link["url"], headers={**other, "If-Range": etag})
    assert same.content == CONTENT[:10]


@pytest.mark.parametrize(
    ("type_", "shown"),
    [("image/png", True), ("image/webp", True), ("image/svg+xml", False), ("text/html", False)],
)
async def test_only_images_are_shown_in_a_page(files: Files, type_: str, shown: bool) -> None:
    id_ = await files.ready(b"<script>", type=type_)
    kind = "inline" if shown else "attachment"
    answer = await files.get(id_, inline=True)
    assert answer.headers["content-disposition"].startswith(kind)
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert (await files.get(id_)).headers["content-disposition"].startswith("attachment")


async def test_everybody_who_reads_the_record_hears_of_it(local: Service) -> None:
    files = Files(local)
    await local.ready()
    async with local.socket(BOB) as bob:
        await bob.subscribe(f"taskFiles?taskId={TASK_1}")
        id_ = await files.create(CONTENT)
        update = await bob.update(f"taskFiles:{id_}")
        assert update["version"] == 1
        receipt = (await files.put(await files.told("upload", id_), CONTENT)).json()["receipt"]
        await files.told("confirm", id_, receipt=receipt)
        assert (await bob.update(f"taskFiles:{id_}"))["version"] == 2


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("My #1 Pic.PNG", 'attachment; filename="My #1 Pic.PNG"'),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
        ("a;b.txt", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%3Bb.txt"),
        ("né.pdf", "attachment; filename=\"n_.pdf\"; filename*=UTF-8''n%C3%A9.pdf"),
    ],
)
async def test_names_come_back_by_the_header(files: Files, name: str, header: str) -> None:
    id_ = await files.ready(b"x", name=name)
    assert (await files.get(id_)).headers["content-disposition"] == header


@pytest.mark.parametrize(
    "name",
    [
        "a\r\nSet-Cookie: x=1",
        "gpj.\u202eexe",
        "../../../etc/passwd",
        "x" * 5000,
        "",
        "\0",
        "\ud800",
    ],
    ids=ascii,
)
async def test_names_that_somebody_writes_into_a_link_do_no_harm(files: Files, name: str) -> None:
    """The name stands beside what is signed, so that it may be anything."""
    id_ = await files.ready(b"x")
    link = await files.told("download", id_)
    text = quote(name.encode(errors="surrogatepass"), safe="")
    url = changed(link["url"], name=None) + f"&name={text}"
    answer = await files.service.http.get(url)
    assert (answer.status_code, answer.content) == (200, b"x")
    said = answer.headers["content-disposition"]
    assert said.isascii()
    assert len(said) < 4000
    assert "set-cookie" not in answer.headers
    assert not set("\r\n\0/\\") & set(said)
    assert "%E2%80%AE" not in said


# --- what a link is good for ---------------------------------------------------------------------

ALTERED: list[Json] = [
    {"id": "00000000-0000-7000-8000-000000000001"},
    {"id": "../../etc/passwd"},
    {"object": "x/../../../y"},
    {"size": "1"},
    {"size": "256001"},
    {"size": "0256000"},
    {"size": "NaN"},
    {"type": "text/html"},
    {"type": "text/plain\n"},
    {"sha256": "ab" * 32},
    {"expires": "NaN"},
    {"expires": "inf"},
    {"expires": "99999999999"},
    {"expires": "9" * 400},
    {"expires": "-1"},
    {"expires": None},
    {"until": "99999999999"},
    {"by": "somebody"},
    {"signature": ""},
    {"signature": "0" * 64},
    {"signature": "é"},
    {"signature": None},
    {"inline": "1"},
    {"offset": "1"},
    {"offset": None},
    {"more": "x"},
]


@pytest.mark.parametrize("parts", ALTERED, ids=lambda parts: str(parts)[:40])
async def test_altered_links_store_nothing_and_give_nothing(
    files: Files, folder: Path, parts: Json
) -> None:
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)
    bad = {**link, "url": changed(link["url"], **parts)}
    expect_bad_link(await files.put(bad, CONTENT))
    assert stored(folder) == []
    done = await files.ready(CONTENT)
    down = await files.told("download", done)
    if parts.keys() & {"inline"}:
        parts = {"inline": "7"}
    expect_bad_link(await files.service.http.get(changed(down["url"], **parts)))


async def test_parts_that_stand_twice_are_refused(files: Files) -> None:
    id_ = await files.ready(CONTENT)
    link = await files.told("download", id_)
    for part in ("expires=99999999999", f"id={id_}", "signature=x", "name=y"):
        expect_bad_link(await files.service.http.get(f"{link['url']}&{part}"))
        path, query = link["url"].split("?")
        expect_bad_link(await files.service.http.get(f"{path}?{part}&{query}"))


async def test_link_is_for_one_method(files: Files, folder: Path) -> None:
    up = await files.told("upload", await files.create(CONTENT))
    done = await files.ready(CONTENT)
    before = stored(folder)
    down = await files.told("download", done)
    http = files.service.http
    expect_bad_link(await http.get(up["url"]))
    assert (await http.head(up["url"])).status_code == 403
    expect_bad_link(await http.put(down["url"], content=CONTENT))
    for method in ("POST", "DELETE", "PATCH"):
        assert (await http.request(method, up["url"], content=CONTENT)).status_code == 405
    assert stored(folder) == before


async def test_links_end(files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = await files.create(CONTENT)
    up = await files.told("upload", id_)
    down = await files.told("download", await files.ready(CONTENT))
    assert time.time() + 55 < down["expiresAt"] <= time.time() + 60
    assert time.time() + 890 < up["expiresAt"] <= time.time() + 900
    before = stored(folder)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    expect_bad_link(await files.service.http.get(down["url"]))
    later += 840
    expect_bad_link(await files.put(up, CONTENT))
    assert stored(folder) == before


async def test_settings_cannot_make_downloads_live_longer(run: Any, files: Files) -> None:
    run("select sync.configure('file_download_seconds', 86400)")
    down = await files.told("download", await files.ready(CONTENT))
    assert down["expiresAt"] <= time.time() + 60


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b"", CONTENT * 20])
async def test_body_of_another_length_stores_nothing(
    files: Files, folder: Path, content: bytes, chunked: bool
) -> None:
    link = await files.told("upload", await files.create(CONTENT))

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    # Cut off in the middle: that is an answer, too.
    with contextlib.suppress(httpx.WriteError):
        expect_bad_link(await files.put(link, parts() if chunked else content))
    assert stored(folder) == []


async def test_body_of_another_type_stores_nothing(files: Files, folder: Path) -> None:
    link = await files.told("upload", await files.create(CONTENT))
    for type_ in ("text/html", "text/plain; charset=utf-8", "TEXT/PLAIN", ""):
        expect_bad_link(await files.put(link, CONTENT, **{"Content-Type": type_}))
    assert stored(folder) == []


async def test_other_bytes_than_those_named_store_nothing(files: Files, folder: Path) -> None:
    id_ = await files.create(CONTENT, sha256=sha256(CONTENT))
    link = await files.told("upload", id_)
    wrong = await files.put(link, CONTENT[::-1])
    assert (wrong.status_code, wrong.json()["code"]) == (409, "mismatch")
    assert stored(folder) == []
    assert (await files.put(link, CONTENT)).status_code == 200


async def test_link_used_again_changes_nothing(files: Files, folder: Path) -> None:
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)
    receipt = (await files.put(link, CONTENT)).json()["receipt"]
    # Before and after the confirmation.
    for _ in range(2):
        again = await files.put(link, CONTENT[::-1])
        assert (again.status_code, again.json()["code"]) == (409, "uploaded")
        assert len(stored(folder)) == 1
        await files.told("confirm", id_, receipt=receipt)
    assert (await files.get(id_)).content == CONTENT
    refused = await files.ask("upload", id_)
    assert (refused.status_code, refused.json()["code"]) == (409, "uploaded")


async def test_upload_that_ends_after_the_confirmation_changes_nothing(
    files: Files, folder: Path
) -> None:
    """Two with one link at once: the second has begun before the first was there."""
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)
    go = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield CONTENT[::-1][:1000]
        await go.wait()
        yield CONTENT[::-1][1000:]

    late = asyncio.create_task(files.put(link, slowly()))
    await until(lambda: folder.exists() and any((folder / stores.PARTIALS).iterdir()))
    receipt = (await files.put(link, CONTENT)).json()["receipt"]
    await files.told("confirm", id_, receipt=receipt)
    go.set()
    assert (await late).status_code == 200
    assert (await files.get(id_)).content == CONTENT
    # Its bytes are removed once no upload can run any more.
    assert len(stored(folder)) == 2
    await expire(files)
    assert await swept(files) == 0
    assert len(stored(folder)) == 1
    assert (await files.get(id_)).content == CONTENT


async def test_receipts_are_for_what_was_stored(files: Files) -> None:
    first, second = await files.create(CONTENT), await files.create(CONTENT)
    receipt = (await files.put(await files.told("upload", first), CONTENT)).json()["receipt"]
    name, digest, signature = receipt.split(".")
    forged = f"{name}.{'0' * 64}.{signature}"
    # Of another file, forged, or nonsense: as if there were none, so that the bytes are read.
    for bad in (receipt, forged, "x", "..", 5, None, "\ud800"):
        answer = await files.ask("confirm", second, receipt=bad)
        assert (answer.status_code, answer.json()["code"]) in (
            (409, "missing"),
            (400, "bad_request"),
        )
    told = await files.told("confirm", first, receipt=forged)
    assert told["sha256"] == digest == sha256(CONTENT)


async def test_receipt_does_not_stand_for_bytes_that_are_gone(files: Files) -> None:
    id_ = await files.create(CONTENT)
    receipt = (await files.put(await files.told("upload", id_), CONTENT)).json()["receipt"]
    await files.service.gateway.files.store.remove(id_, None)
    answer = await files.ask("confirm", id_, receipt=receipt)
    assert (answer.status_code, answer.json()["code"]) == (409, "missing")


# --- going on ------------------------------------------------------------------------------------

MIB = 1024 * 1024
LARGE = os.urandom(3 * MIB)


class Broken:
    """An upload of LARGE that has brought some of it and hangs."""

    def __init__(self, files: Files, folder: Path) -> None:
        self.files = files
        self.folder = folder
        self.end = asyncio.Event()

    async def begin(self, id_: str, seen: int = 2 * MIB, **more: Any) -> None:
        link = await self.files.told("upload", id_, **more)
        offset = link["offset"]

        async def parts() -> AsyncIterator[bytes]:
            yield LARGE[offset:seen]
            await self.end.wait()
            raise ConnectionError

        self.task = asyncio.create_task(self.files.put(link, parts()))
        await until(lambda: self._arrived() > max(offset, MIB - 1))

    async def cut(self) -> None:
        self.end.set()
        with contextlib.suppress(ConnectionError, httpx.TransportError):
            await self.task
        await until(lambda: all("." in name for name in self.partials()))

    def partials(self) -> list[str]:
        return sorted(path.name for path in (self.folder / stores.PARTIALS).iterdir())

    def _arrived(self) -> int:
        partials = self.folder / stores.PARTIALS
        if not partials.exists():
            return 0
        sizes = [path.stat().st_size for path in partials.iterdir() if "." not in path.name]
        return max(sizes, default=0)


@pytest.fixture
def broken(files: Files, folder: Path) -> Broken:
    return Broken(files, folder)


async def test_upload_that_broke_off_goes_on(files: Files, broken: Broken) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_, 2 * MIB + 1000)
    await broken.cut()
    assert (await files.told("upload", id_))["offset"] == 0
    link = await files.told("upload", id_, resume=True)
    offset = link["offset"]
    assert MIB <= offset <= 2 * MIB + 1000
    receipt = (await files.put(link, LARGE[offset:])).json()["receipt"]
    assert (await files.told("confirm", id_, receipt=receipt))["sha256"] == sha256(LARGE)
    assert (await files.get(id_)).content == LARGE
    assert broken.partials() == []
    again = await files.put(link, LARGE[offset:])
    assert (again.status_code, again.json()["code"]) == (409, "uploaded")


async def test_upload_goes_on_at_another_gateway_and_breaks_off_again(
    files: Files, broken: Broken, folder: Path, gateway_dsn: str
) -> None:
    id_ = await files.create(LARGE, sha256=sha256(LARGE))
    await broken.begin(id_, MIB + 100_000)
    await broken.cut()
    async with Service(settings_for(gateway_dsn, files_url=folder.as_uri())) as other:
        second = Broken(Files(other), folder)
        await second.begin(id_, 2 * MIB + MIB // 2, resume=True)
        await second.cut()
    link = await files.told("upload", id_, resume=True)
    assert link["offset"] > MIB + 5
    assert (await files.put(link, LARGE[link["offset"] :])).status_code == 200
    assert (await files.told("confirm", id_))["sha256"] == sha256(LARGE)


async def test_connection_that_is_lost_unnoticed_does_not_keep_the_next_waiting(
    files: Files, broken: Broken
) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_)
    link = await files.told("upload", id_, resume=True)
    assert link["offset"] >= MIB
    assert (await files.put(link, LARGE[link["offset"] :])).status_code == 200
    await broken.cut()
    assert broken.partials() == []
    assert (await files.told("confirm", id_))["sha256"] == sha256(LARGE)


async def test_gateway_that_stops_leaves_what_it_has(files: Files, broken: Broken) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_)
    (arrival,) = files.service.gateway.files._uploading[id_]
    stopping = [task for task in asyncio.all_tasks() if "RequestResponseCycle" in repr(task)]
    for task in stopping:
        task.cancel()
    await arrival.over.wait()
    broken.end.set()
    with contextlib.suppress(ConnectionError, httpx.TransportError):
        await broken.task
    assert (await files.told("upload", id_, resume=True))["offset"] >= MIB


async def test_what_was_left_is_taken_once(files: Files, broken: Broken, folder: Path) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_)
    await broken.cut()
    link = await files.told("upload", id_, resume=True)
    rest = LARGE[link["offset"] :]
    one, two = await asyncio.gather(*(files.put(link, rest) for _ in range(2)))
    first, second = sorted((one, two), key=lambda answer: answer.status_code)
    assert first.status_code == 200
    assert second.json()["code"] in ("moved_on", "uploaded")
    assert len(stored(folder)) == 1
    assert (await files.told("confirm", id_))["sha256"] == sha256(LARGE)


@pytest.mark.parametrize("more", [1, -1, MIB])
async def test_rest_of_another_length_stores_nothing(
    files: Files, broken: Broken, folder: Path, more: int
) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_)
    await broken.cut()
    link = await files.told("upload", id_, resume=True)
    content = bytes(len(LARGE) - link["offset"] + more)

    async def parts() -> AsyncIterator[bytes]:
        yield content

    expect_bad_link(await files.put(link, content))
    expect_bad_link(await files.put(link, parts()))
    assert stored(folder) == []


async def test_nobody_goes_on_with_what_another_has_sent(
    local: Service, files: Files, broken: Broken
) -> None:
    id_ = await files.create(LARGE)
    await broken.begin(id_)
    bob = Files(local, BOB)
    # Neither is it ended for him.
    assert (await bob.told("upload", id_, resume=True))["offset"] == 0
    assert not broken.task.done()
    await broken.cut()
    assert (await bob.told("upload", id_, resume=True))["offset"] == 0


async def test_bytes_that_rotted_meanwhile_are_sent_again(files: Files, broken: Broken) -> None:
    id_ = await files.create(LARGE, sha256=sha256(LARGE))
    await broken.begin(id_)
    await broken.cut()
    (partial,) = broken.partials()
    (broken.folder / stores.PARTIALS / partial).write_bytes(bytes(MIB))
    link = await files.told("upload", id_, resume=True)
    assert link["offset"] == MIB
    wrong = await files.put(link, LARGE[MIB:])
    assert (wrong.status_code, wrong.json()["code"]) == (409, "mismatch")
    assert stored(broken.folder) == []
    link = await files.told("upload", id_, resume=True)
    assert link["offset"] == 0
    assert (await files.put(link, LARGE)).status_code == 200


async def test_what_broke_off_is_swept(
    run: Callable[..., Any], files: Files, broken: Broken, folder: Path
) -> None:
    store = files.service.gateway.files.store
    for how in ("time", "record"):
        broken.end.clear()
        id_ = await files.create(LARGE)
        await broken.begin(id_)
        await broken.cut()
        (partial,) = broken.partials()
        if how == "record":
            run("delete from public.task_files where id = %s", id_)
            await expire(files)
            assert await swept(files) == 1
        else:
            for age, there in ((stores.PARTIAL_SECONDS, True), (stores.LEFT_SECONDS, False)):
                old = time.time() - age - 1
                os.utime(folder / stores.PARTIALS / partial, (old, old))
                await store.tidy()
                assert (stored(folder) != []) is there
    assert stored(folder) == []


async def test_bucket_begins_anew(s3: S3, gateway_dsn: str) -> None:
    async with Service(settings_for(gateway_dsn, **s3.settings("rowcast"))) as service:
        files = Files(service)
        id_ = await files.create(CONTENT, sha256=sha256(CONTENT))
        link = await files.told("upload", id_, resume=True)
        assert link["offset"] == 0

        async def short() -> AsyncIterator[bytes]:
            yield CONTENT[:-1]

        expect_bad_link(await files.put(link, short()))
        assert (await files.put(link, CONTENT[::-1])).json()["code"] == "mismatch"
        assert await service.gateway.files.store.sizes(id_) == {}
        assert (await files.put(link, CONTENT)).status_code == 200


# --- rights --------------------------------------------------------------------------------------


async def test_strangers_get_no_links(local: Service) -> None:
    alice, carol = Files(local), Files(local, CAROL)
    pending, ready = await alice.create(CONTENT), await alice.ready(CONTENT)
    for what, id_ in (("upload", pending), ("confirm", pending), ("download", ready)):
        answer = await carol.ask(what, id_)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        unsigned = await local.http.post(f"/api/files/{what}", json={"table": "x", "id": id_})
        assert unsigned.status_code == 401


async def test_who_loses_access_between_link_and_upload_confirms_nothing(
    run: Callable[..., Any], local: Service, folder: Path
) -> None:
    bob = Files(local, BOB)
    id_, ready = await bob.create(CONTENT), await bob.ready(CONTENT)
    up, down = await bob.told("upload", id_), await bob.told("download", ready)
    run("delete from public.workspace_members where user_id = %s", BOB)
    receipt = (await bob.put(up, CONTENT)).json()["receipt"]
    assert (await bob.ask("confirm", id_, receipt=receipt)).status_code == 403
    for what, file in (("upload", id_), ("download", ready)):
        assert (await bob.ask(what, file)).status_code == 403
    # What was given out lives on for its minute, and no longer (test_links_end).
    assert (await local.http.get(down["url"])).status_code == 200
    run("delete from public.task_files where id = %s", id_)
    await expire(bob)
    assert await swept(bob) == 1
    assert len(stored(folder)) == 1


# --- what breaks ---------------------------------------------------------------------------------


async def test_confirmation_finds_what_was_stored_without_a_receipt(anywhere: Files) -> None:
    """The answer to the upload was lost, with the gateway perhaps."""
    id_ = await anywhere.create(CONTENT)
    missing = await anywhere.ask("confirm", id_)
    assert (missing.status_code, missing.json()["code"]) == (409, "missing")
    assert (await anywhere.put(await anywhere.told("upload", id_), CONTENT)).status_code == 200
    told = await anywhere.told("confirm", id_)
    assert told["sha256"] == sha256(CONTENT)
    assert await anywhere.told("confirm", id_) == told
    assert (await anywhere.get(id_)).content == CONTENT


async def test_other_gateway_confirms_and_serves(gateway_dsn: str, folder: Path) -> None:
    settings = settings_for(gateway_dsn, files_url=folder.as_uri())
    async with Service(settings) as one, Service(settings) as two:
        first, second = Files(one), Files(two)
        id_ = await first.create(CONTENT)
        link = await first.told("upload", id_)
        receipt = (await second.put(link, CONTENT)).json()["receipt"]
        await first.told("confirm", id_, receipt=receipt)
        down = await first.told("download", id_)
        assert (await two.http.get(down["url"])).content == CONTENT


async def test_upload_that_breaks_off_leaves_nothing(files: Files, folder: Path) -> None:
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)

    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        await until(lambda: bool(stored(folder)))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.put(link, broken())
    await until(lambda: stored(folder) == [])
    assert (await files.put(link, CONTENT)).status_code == 200


@pytest.mark.parametrize("how", ["silent", "deadline", "trickle"])
async def test_upload_that_never_ends_is_cut(
    files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)
    if how == "silent":
        monkeypatch.setattr(transfers, "SILENT_SECONDS", 0.2)
    if how == "trickle":
        # Not silent at all, but a byte at a time.
        monkeypatch.setattr(transfers, "GRACE_SECONDS", 0.2)
        monkeypatch.setattr(transfers, "SLOWEST", 1e9)

    host = urlsplit(files.service.url)
    reader, writer = await asyncio.open_connection(host.hostname, host.port)
    lines = [
        f"PUT {link['url']} HTTP/1.1",
        f"Host: {host.netloc}",
        "Content-Type: text/plain",
        f"Content-Length: {len(CONTENT)}",
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + CONTENT[:1000])
    await until(lambda: bool(stored(folder)))
    if how == "deadline":
        late = time.time() + 100_000
        monkeypatch.setattr(time, "time", lambda: late)
        writer.write(CONTENT[1000:2000])
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"}")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"too_slow"' in answer
    assert stored(folder) == []


async def test_transfers_of_one_user_are_bounded(
    files: Files, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await files.told("upload", await files.create(CONTENT))
    go = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        await go.wait()

    open_ = [asyncio.create_task(files.put(link, waiting())) for _ in range(2)]
    await until(lambda: len(stored(folder)) == 2)
    third = await files.put(link, CONTENT)
    assert (third.status_code, third.json()["code"]) == (429, "too_many_requests")
    go.set()
    for answer in await asyncio.gather(*open_):
        expect_bad_link(answer)


@pytest_asyncio.fixture
async def separate(process: tuple[Process, str], folder: Path) -> tuple[Process, str]:
    """A gateway as a process of its own, with a folder; and its address."""
    run, place = process
    run.end(signal.SIGKILL)
    run._environment["ROWCAST_FILES_URL"] = folder.as_uri()
    run.start()
    address = f"http://{place}"

    async def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=address) as http:
                return (await http.get("/readyz")).status_code == 200
        return False

    await eventually(answers)
    return run, address


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
async def test_large_file_takes_little_memory(
    separate: tuple[Process, str], service: Service
) -> None:
    """The whole GiB is measured by `make bench`."""
    run, address = separate
    assert run.child is not None
    status = Path(f"/proc/{run.child.pid}/status")
    part, count = os.urandom(1 << 20), 96

    def peak() -> int:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1])

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield part

    files = Files(service)
    small = await files.create(CONTENT)
    id_ = await files.create(part, size=str(len(part) * count))
    headers = {"Authorization": f"Bearer {token()}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=120) as http:

        async def ask(what: str, id_: str) -> Json:
            body = {"table": "taskFiles", "id": id_}
            answer = await http.post(f"/api/files/{what}", json=body)
            told: Json = answer.json()
            return told

        # Whatever is imported once is there.
        first = await ask("upload", small)
        await http.put(first["url"], content=CONTENT, headers=first["headers"])
        await ask("confirm", small)
        await http.get((await ask("download", small))["url"])
        before = peak()
        link = await ask("upload", id_)
        length = {**link["headers"], "Content-Length": str(len(part) * count)}
        assert (await http.put(link["url"], content=parts(), headers=length)).status_code == 200
        # Without the receipt, so that all of it is read once more.
        assert (await ask("confirm", id_))["state"] == "ready"
        seen = 0
        async with http.stream("GET", (await ask("download", id_))["url"]) as answer:
            async for piece in answer.aiter_raw():
                seen += len(piece)
    assert seen == len(part) * count
    assert peak() - before < 48 * 1024


@pytest.mark.faults
async def test_killed_gateway_leaves_no_file_that_could_be_seen(
    separate: tuple[Process, str], service: Service, folder: Path
) -> None:
    """kill -9 in the middle of an upload: no object, only a partial file, which is swept."""
    run, address = separate
    files = Files(service)
    id_ = await files.create(CONTENT)
    headers = {"Authorization": f"Bearer {token()}"}

    async def killing() -> AsyncIterator[bytes]:
        yield CONTENT[:-1]
        await until(lambda: bool(stored(folder)))
        run.end(signal.SIGKILL)
        yield CONTENT[-1:]

    async with httpx.AsyncClient(base_url=address, headers=headers) as http:
        body = {"table": "taskFiles", "id": id_}
        link = (await http.post("/api/files/upload", json=body)).json()
        with pytest.raises(httpx.TransportError):
            await http.put(link["url"], content=killing(), headers=link["headers"])
    (partial,) = stored(folder)
    assert partial.startswith(stores.PARTIALS)
    assert (await files.record(id_))["state"] == "pending"
    store = Folder(folder)
    assert await store.sizes(id_) == {}
    await store.tidy()
    assert stored(folder) == [partial]  # somebody may be writing it
    old = time.time() - stores.PARTIAL_SECONDS - 1
    os.utime(folder / partial, (old, old))
    await store.tidy()
    assert stored(folder) == []


async def test_store_that_fails_is_503_and_tells_nothing(
    gateway_dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    async with Service(settings_for(gateway_dsn, files_url=blocked.as_uri())) as service:
        files = Files(service)
        id_ = await files.create(CONTENT)
        answer = await files.put(await files.told("upload", id_), CONTENT)
        assert (answer.status_code, answer.json()["code"]) == (503, "store")
        assert answer.headers["retry-after"]
        assert blocked.name not in answer.text


# --- direct --------------------------------------------------------------------------------------


async def direct_link(s3: S3, service: Service) -> tuple[Files, str, Json]:
    files = Files(service)
    id_ = await files.create(CONTENT)
    link = await files.told("upload", id_)
    assert link["url"].startswith(s3.endpoint)
    return files, id_, link


@pytest_asyncio.fixture
async def direct(s3: S3, gateway_dsn: str) -> AsyncIterator[tuple[Files, str, Json]]:
    """A pending file and its link to the bucket."""
    settings = settings_for(gateway_dsn, **s3.settings("rowcast", files_direct=True))
    async with Service(settings) as service:
        yield await direct_link(s3, service)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Amz-Signature", "0" * 64), ("X-Amz-Expires", "999999"), ("X-Amz-Expires", "NaN"),
        ("X-Amz-SignedHeaders", "host"), ("X-Amz-Date", "20200101T000000Z"),
    ],
)  # fmt: skip
async def test_bucket_refuses_altered_links(
    direct: tuple[Files, str, Json], name: str, value: str
) -> None:
    files, id_, link = direct
    parts = urlsplit(link["url"])
    query = dict(parse_qsl(parts.query)) | {name: value}
    url = parts._replace(query=urlencode(query, quote_via=quote)).geturl()
    async with httpx.AsyncClient() as http:
        answer = await http.put(url, content=CONTENT, headers=link["headers"])
    assert answer.status_code in (400, 403)
    assert (await files.ask("confirm", id_)).json()["code"] == "missing"


async def test_bucket_takes_one_object_of_one_length_and_type_once(
    direct: tuple[Files, str, Json],
) -> None:
    files, id_, link = direct
    headers = link["headers"]
    async with httpx.AsyncClient() as http:
        put = http.put
        assert (await put(link["url"], content=CONTENT + b"x", headers=headers)).status_code == 403
        other = {**headers, "Content-Type": "text/html"}
        assert (await put(link["url"], content=CONTENT, headers=other)).status_code == 403
        plain = {"Content-Type": headers["Content-Type"]}
        assert (await put(link["url"], content=CONTENT, headers=plain)).status_code == 403
        elsewhere = link["url"].replace(id_, "00000000-0000-7000-8000-000000000001")
        assert (await put(elsewhere, content=CONTENT, headers=headers)).status_code == 403
        assert (await http.get(link["url"])).status_code == 403
        assert (await http.delete(link["url"])).status_code == 403
        assert (await put(link["url"], content=CONTENT, headers=headers)).status_code == 200
        again = await put(link["url"], content=CONTENT[::-1], headers=headers)
        assert again.status_code == 412
        assert (await files.told("confirm", id_))["sha256"] == sha256(CONTENT)
        after = await put(link["url"], content=CONTENT[::-1], headers=headers)
        assert after.status_code == 412
    assert (await files.get(id_)).content == CONTENT


async def test_wrong_bytes_in_a_bucket_make_room_for_the_right_ones(
    direct: tuple[Files, str, Json],
) -> None:
    files, _, _ = direct
    id_ = await files.create(CONTENT, sha256=sha256(CONTENT))
    async with httpx.AsyncClient() as http:
        for content, status in ((CONTENT[::-1], 409), (CONTENT, 200)):
            link = await files.told("upload", id_)
            sent = await http.put(link["url"], content=content, headers=link["headers"])
            assert sent.status_code == 200
            assert (await files.ask("confirm", id_)).status_code == status


async def test_confirmation_that_lags_behind_removes_nothing_that_was_confirmed(
    direct: tuple[Files, str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read wrong bytes; meanwhile another has made room and the right ones have come."""
    files, _, _ = direct
    id_ = await files.create(CONTENT, sha256=sha256(CONTENT))
    looked, go_on = asyncio.Event(), asyncio.Event()
    reject = calls.reject_upload

    async def lag(*given: Any) -> bool:
        if not looked.is_set():
            looked.set()
            await go_on.wait()
        return await reject(*given)

    monkeypatch.setattr(calls, "reject_upload", lag)
    async with httpx.AsyncClient() as http:

        async def put(content: bytes) -> str:
            link = await files.told("upload", id_)
            sent = await http.put(link["url"], content=content, headers=link["headers"])
            assert sent.status_code == 200
            url: str = link["url"]
            return url

        wrong = await put(CONTENT[::-1])
        lagging = asyncio.create_task(files.ask("confirm", id_))
        await looked.wait()
        assert (await files.ask("confirm", id_)).json()["code"] == "mismatch"
        right = await put(CONTENT)
        assert urlsplit(right).path != urlsplit(wrong).path
        assert (await files.told("confirm", id_))["state"] == "ready"
        go_on.set()
        assert (await lagging).json()["code"] == "mismatch"
    assert (await files.get(id_)).content == CONTENT


# --- sweeping ------------------------------------------------------------------------------------


async def expire(files: Files) -> None:
    """No upload can run any more."""
    dsn = files.service.gateway.settings.database_url or ""
    with psycopg.connect(dsn.replace("rowcast_gateway", "postgres"), autocommit=True) as conn:
        conn.execute("update sync_internal.files set busy_until = now() - interval '1 second'")


async def swept(files: Files) -> int:
    gateway = files.service.gateway
    return await transfers.sweep(gateway.files.store, gateway.database.aside)


async def test_sweep_removes_what_is_gone_and_nothing_else(
    run: Callable[..., Any], anywhere: Files
) -> None:
    kept, gone = await anywhere.ready(CONTENT), await anywhere.ready(CONTENT)
    pending = await anywhere.create(CONTENT)
    await anywhere.put(await anywhere.told("upload", pending), CONTENT)
    run("delete from public.task_files where id = %s", gone)
    assert await swept(anywhere) == 0  # an upload might still run
    store = anywhere.service.gateway.files.store
    assert len(await store.sizes(gone)) == 1
    await expire(anywhere)
    assert await swept(anywhere) == 1
    assert await store.sizes(gone) == {}
    assert len(await store.sizes(pending)) == 1
    assert (await anywhere.get(kept)).content == CONTENT


async def test_sweep_goes_on_past_what_it_cannot_remove(
    run: Callable[..., Any], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "SWEPT_AT_ONCE", 2)
    ids = [await files.ready(b"x") for _ in range(7)]
    run("delete from public.task_files")
    await expire(files)
    store = files.service.gateway.files.store
    remove, stubborn = store.remove, {ids[0], ids[3]}

    async def failing(id_: str, keep: str | None) -> None:
        if id_ in stubborn:
            raise stores.unreachable(PermissionError())
        await remove(id_, keep)

    monkeypatch.setattr(store, "remove", failing)
    with pytest.raises(Problem, match="2 files"):
        await swept(files)
    assert {id_ for id_ in ids if await store.sizes(id_)} == stubborn
    stubborn.clear()
    assert await swept(files) == 2
    assert await swept(files) == 0


async def test_sweep_ends_where_the_store_lets_nothing_go(
    run: Callable[..., Any], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(transfers.LEFT_IN_A_ROW + 2):
        await files.ready(b"x")
    run("delete from public.task_files")
    await expire(files)
    asked = 0

    async def failing(*_: Any) -> None:
        nonlocal asked
        asked += 1
        raise stores.unreachable(ConnectionError())

    monkeypatch.setattr(files.service.gateway.files.store, "remove", failing)
    with pytest.raises(Problem):
        await swept(files)
    assert asked == transfers.LEFT_IN_A_ROW


async def test_orphans_go_also_where_one_stays(
    local: Service, folder: Path, gateway_dsn: str
) -> None:
    store: Store = local.gateway.files.store
    strange = [f"00000000-0000-7000-8000-00000000000{n}" for n in range(3)]
    for id_ in strange:
        async with store.writer(id_, "x") as writer:
            await writer.write(b"x")
    # What is no empty folder cannot go.
    (folder / strange[0] / "sub").mkdir()
    (folder / strange[0] / "sub" / "x").write_text("")
    old = time.time() - 100_000
    for path in stored(folder):
        os.utime(folder / path, (old, old))
    settings = Settings(database_url=gateway_dsn, jwt_secret=SECRET, files_url=folder.as_uri())
    with pytest.raises(Problem, match="1 files"):
        await transfers.sweep_once(settings, gateway_dsn, True)
    assert not any(strange[1] in path or strange[2] in path for path in stored(folder))


async def test_two_sweeps_at_once_do_no_harm(run: Callable[..., Any], files: Files) -> None:
    ids = [await files.ready(b"x") for _ in range(5)]
    run("delete from public.task_files")
    await expire(files)
    counts = await asyncio.gather(*(swept(files) for _ in range(4)))
    assert sum(counts) == len(ids)


async def test_orphans_are_removed_when_old_and_unknown(
    local: Service, folder: Path, gateway_dsn: str
) -> None:
    files = Files(local)
    known = await files.ready(CONTENT)
    strange = "00000000-0000-7000-8000-00000000dead"
    store: Store = local.gateway.files.store
    for id_ in (strange, strange.replace("dead", "beef")):
        async with store.writer(id_, "x") as writer:
            await writer.write(b"x")
    (folder / "no id").mkdir()
    (folder / "no id" / "x").write_text("")
    old = time.time() - 100_000
    for path in stored(folder):
        if "beef" not in path:
            os.utime(folder / path, (old, old))
    settings = Settings(database_url=gateway_dsn, jwt_secret=SECRET, files_url=folder.as_uri())
    assert await transfers.sweep_once(settings, gateway_dsn, True) == (0, 1)
    left = stored(folder)
    assert not any(strange in path for path in left)
    assert sum(known in path or "beef" in path or "no id" in path for path in left) == 3


async def test_command_sweeps_as_the_gateway_does(
    run: Callable[..., Any], files: Files, folder: Path, gateway_dsn: str
) -> None:
    await files.ready(CONTENT)
    run("delete from public.task_files")
    await expire(files)
    environment = {
        "PATH": os.environ["PATH"],
        "ROWCAST_DATABASE_URL": gateway_dsn,
        "ROWCAST_FILES_URL": folder.as_uri(),
    }
    for said in ("1 files are gone, and 0 orphans", "0 files are gone, and 0 orphans"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "sweep", "--orphans",
            cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert (process.returncode, out.decode().strip()) == (0, said)
    assert stored(folder) == []


async def test_sweeper_lives_on_whatever_went_wrong(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = asyncio.Event()
    count = 0

    async def failing(*_: Any) -> int:
        nonlocal count
        count += 1
        if count > 1:
            again.set()
        raise RuntimeError

    monkeypatch.setattr(transfers, "sweep", failing)
    for name in ("FIRST_SWEEP_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(transfers, name, 0.01)
    sweeping = asyncio.create_task(files.service.gateway.files._sweep_forever())
    async with asyncio.timeout(10):
        await again.wait()
    sweeping.cancel()


# --- logs ----------------------------------------------------------------------------------------


async def test_nothing_secret_is_logged(
    gateway_dsn: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("rowcast", "uvicorn", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    async with Service(
        settings_for(gateway_dsn, files_url=folder.as_uri()), access_log=False
    ) as service:
        files = Files(service)
        id_ = await files.create(CONTENT, name="a secret name")
        up = await files.told("upload", id_)
        await files.put({**up, "url": changed(up["url"], size="1")}, CONTENT)
        receipt = (await files.put(up, CONTENT)).json()["receipt"]
        await files.told("confirm", id_, receipt=receipt)
        down = await files.told("download", id_)
        await service.http.get(down["url"])
        os.rename(folder, f"{folder} moved")  # noqa: PTH104
        assert (await service.http.get(down["url"])).status_code == 404
        lines = [
            record.getMessage()
            for record in caplog.records
            # What the test's own client says is not the gateway's log.
            if not record.name.startswith(("httpx", "httpcore", "asyncio"))
        ]
        key = bytes.fromhex(await calls.file_key(service.gateway.database.work)).hex()
    secrets = [key, token()[:40], receipt, "a secret name"]
    secrets += [dict(parse_qsl(urlsplit(link["url"]).query))["signature"] for link in (up, down)]
    for secret in secrets:
        assert not any(secret in line for line in lines)


# --- pure ----------------------------------------------------------------------------------------


def test_signature_does_not_run_over_the_edges_of_parts() -> None:
    signer = Signer(b"key")
    link = links.Link("PUT", "id", "o", 1, "a/b", "", 0, "by", 100, 200)
    query = parse_qsl(urlsplit(signer.url(link)).query, keep_blank_values=True)
    assert signer.read("PUT", query, 50) == link
    shifted = {**dict(query), "id": "id\no", "object": "1"}
    with pytest.raises(Problem):
        signer.read("PUT", list(shifted.items()), 50)
    with pytest.raises(Problem):
        Signer(b"other").read("PUT", query, 50)
    with pytest.raises(Problem):
        signer.read("PUT", query, 100)


def test_address_at_amazon_names_the_bucket_in_its_host() -> None:
    settings = Settings(
        database_url="host=x",
        files_url="s3://examplebucket",
        files_key_id="AKIAIOSFODNN7EXAMPLE",
        files_secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        files_region="us-east-1",
        files_endpoint=None,
    )
    at = 1369353600.0
    url = links.presign(settings, "GET", "/test.txt", {}, 86400, at)
    assert url.startswith("https://examplebucket.s3.us-east-1.amazonaws.com/test.txt?")
    assert "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request" in url
    assert len(dict(parse_qsl(urlsplit(url).query))["X-Amz-Signature"]) == 64


@pytest.mark.parametrize(
    "given",
    [
        {"files_url": "ftp://x"}, {"files_url": "s3://"}, {"files_url": "file://"},
        {"files_url": "/srv"}, {"files_endpoint": "ftp://x"}, {"files_direct": True},
        {"files_direct": True, "files_url": "s3://b"},
        {"files_direct": True, "files_url": "gs://b", "files_key_id": "k", "files_secret_key": "s"},
    ],
)  # fmt: skip
def test_settings_of_stores_are_checked(given: Json) -> None:
    with pytest.raises(ValueError, match="ROWCAST_FILES"):
        Settings(database_url="host=x", **given)


@pytest.mark.parametrize(("url", "kind"), [("gs://b/p", "GCSStore"), ("az://c/p", "AzureStore")])
def test_other_clouds_are_a_setting(url: str, kind: str) -> None:
    given: Json = {"files_key_id": "account", "files_secret_key": "c2VjcmV0"}
    if kind == "GCSStore":
        key = {
            "private_key": "x",
            "client_email": "a@b",
            "private_key_id": "k",
            "disable_oauth": True,
        }
        given = {"files_secret_key": json.dumps(key)}
    store = stores.open_store(Settings(database_url="host=x", files_url=url, **given))
    assert type(store._bucket).__name__ == kind


@pytest.mark.parametrize("direct", [False, True])
async def test_pages_may_send_to_the_bucket_where_uploads_go_there(
    gateway_dsn: str, direct: bool
) -> None:
    given: Json = {
        "files_url": "s3://bucket/x", "files_key_id": "k", "files_secret_key": "s",
        "files_endpoint": "https://s3.example.com/base",
    }  # fmt: skip
    async with Service(settings_for(gateway_dsn, files_direct=direct, **given)) as service:
        policy = (await service.http.get("/")).headers["content-security-policy"]
    assert ("connect-src 'self' https://s3.example.com;" in policy) is direct


async def test_what_a_thread_works_on_is_not_taken_away_when_its_task_is_cancelled() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait(20)
        done.set()

    task = asyncio.create_task(stores.in_thread(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_one_user_does_not_take_all_places() -> None:
    streams = Streams(4, 1)
    async with streams.slot("ann"), streams.slot("bob"):
        with pytest.raises(Problem, match="finish one"):
            async with streams.slot("ann"):
                pass
