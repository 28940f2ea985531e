"""What a browser gets to see: the built apps, or what to do where there are none."""

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app import main
from app.pages import IMMUTABLE, REVALIDATED

from .conftest import Service, settings_for

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FILES = {
    "index.html": "<!doctype html><title>the apps</title>",
    "sw.js": "// worker",
    "manifest.webmanifest": "{}",
    "icons/192.png": "png",
    "assets/main-x1.js": "// code",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the apps would be; nothing is there yet."""
    dist = tmp_path / "dist"
    monkeypatch.setattr(main, "apps_folder", lambda: dist)
    return dist


def build(folder: Path) -> None:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest_asyncio.fixture
async def service(folder: Path, gateway_dsn: str) -> AsyncIterator[Service]:
    async with Service(settings_for(gateway_dsn)) as made:
        yield made


async def get(service: Service, path: str, **more: Any) -> httpx.Response:
    return await service.http.get(path, headers=BROWSER | more)


async def test_every_file_of_the_apps_is_kept_as_long_as_it_is_right(
    service: Service, folder: Path
) -> None:
    build(folder)
    for name, text in FILES.items():
        answer = await get(service, f"/{name}")
        assert (answer.status_code, answer.text) == (200, text), name
        expected = IMMUTABLE if name.startswith("assets/") else REVALIDATED
        assert answer.headers.get_list("cache-control") == [expected], name
        again = await get(service, f"/{name}", **{"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        assert again.headers["cache-control"] == expected


@pytest.mark.parametrize(
    "path", ["/", "/tasks", "/tasks/a-board/a-task", "/notes/x?y=1", "/icons/"]
)
async def test_an_address_of_the_apps_can_be_reloaded(
    service: Service, folder: Path, path: str
) -> None:
    build(folder)
    answer = await get(service, path)
    assert (answer.status_code, answer.text) == (200, FILES["index.html"])
    assert answer.headers["cache-control"] == REVALIDATED


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP;q=0.5, br;q=0", "gzip"),
        ("br; q=0.000, gzip;q=0", None),
        ("identity", None),
        ("", None),
        ("abr, x;;,;q", None),
    ],
)
@pytest.mark.parametrize("name", ["assets/main-x1.js", "index.html", "tasks/a-board"])
async def test_files_go_out_as_the_build_has_compressed_them(
    service: Service, folder: Path, name: str, accepted: str, encoding: str | None
) -> None:
    build(folder)
    file = name if name.startswith("assets") else "index.html"
    text = FILES[file].encode() * 20
    (folder / file).write_bytes(text)
    (folder / f"{file}.gz").write_bytes(gzip.compress(text))
    (folder / f"{file}.br").write_bytes(b"as if by brotli")
    address = f"/{name}"
    async with service.http.stream(
        "GET", address, headers=BROWSER | {"accept-encoding": accepted}
    ) as answer:
        sent = b"".join([part async for part in answer.aiter_raw()])
    forms = {"br": b"as if by brotli", "gzip": gzip.compress(text), None: text}
    assert answer.headers.get("content-encoding") == encoding
    assert len(sent) == len(forms[encoding]) == int(answer.headers["content-length"])
    assert "javascript" in answer.headers["content-type"] or file == "index.html"
    assert answer.headers["content-type"].startswith("text/")
    assert answer.headers["vary"] == "Accept-Encoding"
    expected = IMMUTABLE if name.startswith("assets/") else REVALIDATED
    assert answer.headers["cache-control"] == expected
    # The same form again is not sent twice; another one is, under an ETag of its own.
    same = {"accept-encoding": accepted, "if-none-match": answer.headers["etag"]}
    again = await get(service, address, **same)
    assert (again.status_code, again.headers["vary"]) == (304, "Accept-Encoding")
    other = "identity" if encoding else "gzip"
    assert (await get(service, address, **same | {"accept-encoding": other})).status_code == 200
    assert (await get(service, f"/{file}.br")).status_code == 404


async def test_answers_of_the_api_are_not_compressed(service: Service, folder: Path) -> None:
    """Their length would tell a secret that stands beside what an attacker has chosen."""
    answer = await get(service, "/api/openapi.json", **{"accept-encoding": "br, gzip"})
    assert len(answer.content) > 1000
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("path", ["/api/x", "/api/", "/assets/gone-x2.js", "/static/gone.css"])
async def test_what_is_no_page_stays_missing(
    service: Service, folder: Path, path: str, built: bool
) -> None:
    if built:
        build(folder)
    answer = await get(service, path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path", ["/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/a%00b"]
)
async def test_nothing_outside_the_folder_is_served(
    service: Service, folder: Path, path: str
) -> None:
    build(folder)
    (folder.parent / "secret.txt").write_text("secret")
    assert (await service.http.get(path)).status_code == 404


async def test_whoever_is_no_browser_gets_no_page(service: Service, folder: Path) -> None:
    build(folder)
    assert (await service.http.get("/nowhere")).status_code == 404
    assert (await service.http.post("/nowhere", headers=BROWSER)).status_code == 404
    assert (await service.http.post("/tasks", headers=BROWSER)).status_code == 404


async def test_a_page_may_load_from_its_own_origin_alone(service: Service, folder: Path) -> None:
    build(folder)
    rules = dict(
        rule.strip().split(" ", 1)
        for rule in (await get(service, "/")).headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == "'none'"
    for kind in ("script", "style", "connect", "manifest", "worker"):
        assert rules[f"{kind}-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"


async def test_without_a_build_the_page_says_how_to_make_one(
    service: Service, folder: Path
) -> None:
    answer = await get(service, "/")
    assert answer.status_code == 200
    assert "make demo" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    # The worker of apps that were here lets go of the browser.
    assert "unregister" in (await get(service, "/sw.js")).text
    assert (await service.http.get("/manifest.webmanifest")).status_code == 404
    build(folder)
    assert (await get(service, "/")).text == FILES["index.html"]


async def test_without_the_development_sign_in_there_are_no_apps(
    folder: Path, gateway_dsn: str
) -> None:
    build(folder)
    async with Service(settings_for(gateway_dsn, dev_sign_in=False)) as service:
        assert "make demo" in (await get(service, "/")).text
        assert (await get(service, "/assets/main-x1.js")).status_code == 404
