"""Sign-in by an OpenID Connect provider that runs in a process of its own."""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from tests.gateway.conftest import Service, eventually, settings_for
from tests.gateway.provider import CLIENT, SECRET
from tests.gateway.test_accounts import PASSWORD, Browser, Run, closed_browsers, code

__all__ = ["closed_browsers"]

DORA: dict[str, Any] = {"sub": "7", "email": "Dora@example.org", "email_verified": True}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.provider", str(port)], cwd=Path(__file__).parents[2]
    )
    yield f"http://127.0.0.1:{port}"
    child.terminate()
    child.wait(20)


@pytest_asyncio.fixture
async def site(gateway_dsn: str, issuer: str) -> AsyncIterator[Service]:
    listed = [
        {"id": "test", "name": "Test", "issuer": issuer, "clientId": CLIENT, "clientSecret": SECRET}
    ]
    settings = settings_for(
        gateway_dsn,
        accounts=True,
        public_url="http://app.example",
        oidc_providers=json.dumps(listed),
    )
    async with Service(settings) as running:
        await running.ready()

        async def there() -> bool:
            async with httpx.AsyncClient() as http:
                try:
                    return (await http.get(f"{issuer}/keys")).status_code == 200
                except httpx.HTTPError:
                    return False

        await eventually(there)
        yield running


@pytest.fixture
def browser(site: Service) -> Browser:
    return Browser(site)


async def say(issuer: str, fault: str = "", /, **claims: Any) -> None:
    async with httpx.AsyncClient() as http:
        await http.post(f"{issuer}/say", json={"claims": claims, "fault": fault})


async def go(browser: Browser, **change: str) -> str:
    """Through the provider and back, as a browser goes; where it ends."""
    start = await browser.http.get("/api/auth/oidc/test/start?next=/tasks/1?a=b")
    assert start.status_code == 303
    back = (await browser.http.get(start.headers["location"])).headers["location"]
    parts = urlsplit(back)
    assert f"{parts.scheme}://{parts.netloc}" == "http://app.example"
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()} | change
    done = await browser.http.get(parts.path, params=asked)
    assert done.status_code == 303
    return str(done.headers["location"])


HOME = "http://app.example/tasks/1?a=b"
FAILED = "http://app.example/account/sign-in#error=oidc_failed"


async def test_who_comes_from_the_provider_is_signed_in(browser: Browser, issuer: str) -> None:
    await say(issuer, **DORA)
    assert await go(browser) == HOME
    user = (await browser.post("refresh")).json()["user"]
    assert (user["email"], user["providers"]) == ("dora@example.org", ["test"])
    again = Browser(browser.service)
    await say(issuer, **{**DORA, "email": "other@example.org"})
    assert await go(again) == HOME
    assert (await again.post("refresh")).json()["user"]["id"] == user["id"]


async def test_a_verified_address_finds_the_account_and_its_owner_is_told(
    browser: Browser, issuer: str
) -> None:
    signed = await browser.sign_up("dora@example.org")
    await say(issuer, **DORA)
    other = Browser(browser.service)
    assert await go(other) == HOME
    assert (await other.post("refresh")).json()["user"]["id"] == signed["user"]["id"]
    assert await other.mail("provider_linked", "dora@example.org")


@pytest.mark.parametrize("verified", [False, None, "true", 1])
async def test_an_address_that_is_not_verified_finds_nobody(
    browser: Browser, issuer: str, verified: Any
) -> None:
    signed = await browser.sign_up("dora@example.org")
    await say(issuer, **{**DORA, "email_verified": verified})
    other = Browser(browser.service)
    assert await go(other) == HOME
    user = (await other.post("refresh")).json()["user"]
    assert user["id"] != signed["user"]["id"]
    assert "email" not in user


async def test_a_sign_up_made_in_advance_is_no_way_into_the_account(
    browser: Browser, issuer: str
) -> None:
    """Pre-registration: the stranger has chosen a password, and the owner comes by his provider."""
    stranger = Browser(browser.service)
    await stranger.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
    link = await stranger.link("sign_up", "dora@example.org")
    await say(issuer, **DORA)
    assert await go(browser) == HOME
    body = {"email": "dora@example.org", "password": PASSWORD}
    assert code(await stranger.post("sign-in", body)) == (401, "wrong_credentials")
    assert code(await stranger.post("verify", {"token": link})) == (410, "link_spent")


async def test_a_guest_becomes_the_user_of_the_provider(browser: Browser, issuer: str) -> None:
    guest = (await browser.post("guest")).json()["user"]["id"]
    elsewhere = browser.copy()
    await say(issuer, **DORA)
    assert await go(browser) == HOME
    user = (await browser.post("refresh")).json()["user"]
    assert (user["id"], user["guest"]) == (guest, False)
    assert (await elsewhere.post("refresh")).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"iss": "http://other.example"},
        {"aud": "other"},
        {"aud": ["rowcast", "other"]},
        {"azp": "other"},
        {"exp": 1},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=str,
)
async def test_what_the_provider_says_wrongly_signs_nobody_in(
    browser: Browser, issuer: str, claims: dict[str, Any], run: Run
) -> None:
    await say(issuer, **{**DORA, **claims})
    assert await go(browser) == FAILED
    assert browser.cookie() is None
    assert run("select count(*) from accounts.users where not is_demo") == 0


@pytest.mark.parametrize("fault", ["another key", "alg none"])
async def test_signatures_are_verified(browser: Browser, issuer: str, fault: str) -> None:
    await say(issuer, fault, **DORA)
    assert await go(browser) == FAILED


async def test_who_declines_is_told(browser: Browser, issuer: str) -> None:
    await say(issuer, "denied")
    assert await go(browser) == "http://app.example/account/sign-in#error=oidc_denied"


@pytest.mark.parametrize(
    "change", [{"state": "x"}, {"state": ""}, {"code": "x"}, {"iss": "http://evil"}], ids=str
)
async def test_the_way_back_is_of_this_browser_and_this_provider(
    browser: Browser, issuer: str, change: dict[str, str]
) -> None:
    await say(issuer, **DORA)
    assert await go(browser, **change) == FAILED


async def test_a_way_back_without_a_way_there_leads_nowhere(browser: Browser, issuer: str) -> None:
    """Somebody else's code and state, given to a visitor as a link."""
    await say(issuer, **DORA)
    start = await browser.http.get("/api/auth/oidc/test/start")
    back = urlsplit((await browser.http.get(start.headers["location"])).headers["location"])
    visitor = Browser(browser.service)
    done = await visitor.http.get(f"{back.path}?{back.query}")
    assert done.headers["location"] == FAILED
    assert visitor.cookie() is None


@pytest.mark.parametrize(
    "path", ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\x", "/a\r\nb", "x"]
)
async def test_the_way_on_stays_here(browser: Browser, issuer: str, path: str) -> None:
    await say(issuer, **DORA)
    start = await browser.http.get("/api/auth/oidc/test/start", params={"next": path})
    back = urlsplit((await browser.http.get(start.headers["location"])).headers["location"])
    done = await browser.http.get(f"{back.path}?{back.query}")
    assert done.headers["location"] == "http://app.example/"


async def test_starting_from_another_site_is_refused(browser: Browser) -> None:
    answer = await browser.http.get(
        "/api/auth/oidc/test/start", headers={"sec-fetch-site": "cross-site"}
    )
    assert code(answer) == (403, "origin")


async def test_an_address_that_is_said_to_be_verified_and_not_said_is_none(
    browser: Browser, issuer: str
) -> None:
    await say(issuer, sub="8", email_verified=True)
    assert await go(browser) == HOME
    assert "email" not in (await browser.post("refresh")).json()["user"]
