"""Accounts over HTTP, from sign-up to the last sign-out, on a real database."""

import asyncio
import base64
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import httpx
import jwt
import psycopg
import pytest
import pytest_asyncio

from app import mails, tokens
from app.db import Lane
from tests.gateway.conftest import (
    ALICE,
    BOARD,
    SECRET,
    TLS,
    Service,
    eventually,
    settings_for,
    token,
    transaction,
)
from tests.gateway.test_socket import create
from tests.postgres import Database, Server

pytestmark = pytest.mark.both_versions

Run = Callable[..., Any]
PASSWORD = "correct horse battery"
JSON = {"content-type": "application/json"}


class Browser:
    """Cookies of its own, and an Origin."""

    opened: ClassVar[list["Browser"]] = []

    def __init__(self, service: Service) -> None:
        self.service = service
        self.opened.append(self)
        self.http = httpx.AsyncClient(base_url=service.url, timeout=30, verify=TLS)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {**JSON, "origin": self.service.url, **headers}
        return await self.http.post(
            f"/api/auth/{path}", content=json.dumps(body or {}), headers=sent
        )

    def cookie(self, name: str = "rowcast_account") -> str | None:
        return next((c.value for c in self.http.cookies.jar if c.name == name), None)

    def copy(self) -> "Browser":
        """Another with the same cookies: a thief, or a tab."""
        other = Browser(self.service)
        for cookie in self.http.cookies.jar:
            other.http.cookies.jar.set_cookie(cookie)
        return other

    async def mail(self, kind: str, to: str) -> dict[str, Any]:
        answer = await self.http.get("/api/auth/dev-mails")
        return next(m for m in answer.json()["mails"] if m["kind"] == kind and m["to"] == to)

    async def link(self, kind: str, to: str) -> str:
        text: str = (await self.mail(kind, to))["link"]
        return text.partition("#token=")[2]

    async def sign_up(self, email: str, password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.post("sign-up", {"email": email, "password": password})
        assert (answer.status_code, answer.json()) == (202, {"status": "check_mail"})
        done = await self.post("verify", {"token": await self.link("sign_up", email)})
        assert done.status_code == 200, done.text
        found: dict[str, Any] = done.json()
        return found

    async def me(self, bearer: str) -> httpx.Response:
        return await self.http.get("/api/auth/me", headers={"authorization": f"Bearer {bearer}"})


@pytest_asyncio.fixture
async def site(gateway_dsn: str) -> AsyncIterator[Service]:
    settings = settings_for(gateway_dsn, accounts=True, public_url="http://app.example")
    async with Service(settings) as running:
        await running.ready()
        yield running


@pytest_asyncio.fixture
async def browser(site: Service) -> AsyncIterator[Browser]:
    yield Browser(site)


@pytest_asyncio.fixture(autouse=True)
async def closed_browsers() -> AsyncIterator[None]:
    yield
    while Browser.opened:
        await Browser.opened.pop().http.aclose()


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_who_signs_up_confirms_his_address_and_works(browser: Browser, run: Run) -> None:
    signed = await browser.sign_up("Dora@Example.org".lower())
    assert signed["user"]["email"] == "dora@example.org"
    assert not signed["user"]["guest"]
    assert (await browser.me(signed["token"])).json()["user"]["id"] == signed["user"]["id"]
    stored = run("select password_hash from accounts.users where email = 'dora@example.org'")
    assert stored.startswith("$argon2id$")
    again = await browser.post("sign-in", {"email": " DORA@example.org ", "password": PASSWORD})
    assert again.json()["user"]["id"] == signed["user"]["id"]
    claims = jwt.decode(signed["token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] <= 600
    assert (claims["email"], claims["email_verified"]) == ("dora@example.org", True)


async def test_cookies_are_out_of_reach_of_scripts_and_other_sites(browser: Browser) -> None:
    answer = await browser.post("guest")
    (text,) = answer.headers.get_list("set-cookie")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(text.split("; "))


async def test_with_https_the_cookie_is_of_this_host_alone(gateway_dsn: str) -> None:
    settings = settings_for(
        gateway_dsn, accounts=True, public_url="https://app.example", dev_sign_in=False
    )
    async with Service(settings) as service:
        await service.ready()
        browser = Browser(service)
        answer = await browser.post("guest", origin="https://app.example")
        (text,) = answer.headers.get_list("set-cookie")
        assert text.startswith("__Host-rowcast_account=")
        assert "Secure" in text.split("; ")
        assert "Domain" not in text


async def test_a_taken_address_is_answered_like_a_new_one(browser: Browser, run: Run) -> None:
    await browser.sign_up("dora@example.org")
    other = Browser(browser.service)
    body = {"email": "dora@example.org", "password": "something else entirely"}
    taken, new = (
        await other.post("sign-up", body),
        await other.post("sign-up", {**body, "email": "erik@example.org"}),
    )
    assert (taken.status_code, taken.content) == (new.status_code, new.content)
    mail = await other.mail("account_exists", "dora@example.org")
    assert "#token" not in mail["link"]
    assert run("select count(*) from accounts.users where email = 'dora@example.org'") == 1


async def test_unknown_and_known_addresses_are_refused_alike(
    browser: Browser, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_up("dora@example.org")
    # The address counts by itself, and each of these the first time.
    await Browser(browser.service).sign_up("erik@example.org")
    passwords = browser.service.gateway.passwords
    assert passwords is not None
    asked: list[str] = []
    verify = passwords._hasher.verify_and_update

    def noted(password: str, known: str) -> Any:
        asked.append(known)
        return verify(password, known)

    monkeypatch.setattr(passwords._hasher, "verify_and_update", noted)
    answers = [
        await browser.post("sign-in", {"email": email, "password": "wrong horse"})
        for email in ("dora@example.org", "nobody@example.org")
    ]
    assert answers[0].status_code == answers[1].status_code == 401
    assert answers[0].content == answers[1].content
    # A hash of the same strength is verified for either.
    assert len(asked) == 2
    assert asked[0].split("$")[:4] == asked[1].split("$")[:4]
    kept = " + ".join(
        f"(select count(*) from {table})"
        for table in ("accounts.links", "accounts.mails", "jobs.pgqueuer", "accounts.buckets")
    )
    resets, made = [], [run(f"select {kept}")]
    for email in ("erik@example.org", "nobody@example.org"):
        resets.append(await browser.post("request-reset", {"email": email}))
        made.append(run(f"select {kept}"))
    assert resets[0].content == resets[1].content
    assert resets[0].status_code == resets[1].status_code == 202
    # As many rows are written for either, and nobody gets a mail that he cannot use.
    assert made[1] - made[0] == made[2] - made[1]
    mails = (await browser.http.get("/api/auth/dev-mails")).json()["mails"]
    assert [m["to"] for m in mails if m["kind"] == "reset"] == ["erik@example.org"]
    stray = "from accounts.mails where recipient = 'nobody@example.org'"
    assert run(f"select accounts.worker_mail(id) {stray}") is None
    run("update accounts.mails set expires_at = expires_at - interval '1 day'")
    run("select accounts.prune()")
    assert run(f"select count(*) {stray}") == 0


async def test_another_browser_needs_the_password_of_the_sign_up(browser: Browser) -> None:
    await browser.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
    link = await browser.link("sign_up", "dora@example.org")
    other = Browser(browser.service)
    assert code(await other.post("verify", {"token": link})) == (403, "password_needed")
    wrong = await other.post("verify", {"token": link, "password": "a guess at it"})
    assert code(wrong) == (403, "wrong_credentials")
    right = await other.post("verify", {"token": link, "password": PASSWORD})
    assert right.status_code == 200
    assert code(await browser.post("verify", {"token": link})) == (410, "link_spent")


async def test_two_sign_ups_of_one_address_end_in_one_user(browser: Browser, run: Run) -> None:
    other = Browser(browser.service)
    links = []
    for one in (browser, other):
        await one.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
        links.append(await one.link("sign_up", "dora@example.org"))
    assert links[0] != links[1]
    answers = await asyncio.gather(
        browser.post("verify", {"token": links[0]}), other.post("verify", {"token": links[1]})
    )
    assert sorted(answer.status_code for answer in answers) == [200, 410]
    assert run("select count(*) from accounts.users where email = 'dora@example.org'") == 1


async def test_two_tabs_that_refresh_at_once_get_the_same_successor(browser: Browser) -> None:
    await browser.post("guest")
    tabs = [browser.copy() for _ in range(4)]
    answers = await asyncio.gather(*(tab.post("refresh") for tab in tabs))
    assert {answer.status_code for answer in answers} == {200}
    assert len({tab.cookie() for tab in tabs}) == 1
    assert tabs[0].cookie() != browser.cookie()
    # A reply that was lost: the same again, with the old one.
    assert (await browser.post("refresh")).status_code == 200
    assert browser.cookie() == tabs[0].cookie()
    assert (await browser.post("refresh")).status_code == 200


async def test_a_cookie_used_again_later_ends_its_session(browser: Browser, run: Run) -> None:
    await browser.post("guest")
    thief = browser.copy()
    signed = (await browser.post("refresh")).json()
    run("update accounts.sessions set rotated_at = now() - interval '2 minutes'")
    async with browser.service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": signed["token"]})
        await socket.expect("welcome")
        assert code(await thief.post("refresh")) == (401, "session_ended")
        assert await socket.closed() == 4401
    assert code(await browser.post("refresh")) == (401, "session_ended")
    assert (await browser.me(signed["token"])).status_code == 401


async def test_who_knows_only_the_id_cannot_end_a_session(browser: Browser) -> None:
    await browser.post("guest")
    own = tokens.Cookie.read(browser.cookie())
    assert own is not None
    forged = tokens.Cookie(own.session, bytes(32), own.secret)
    stranger = Browser(browser.service)
    stranger.http.cookies.set("rowcast_account", forged.text())
    assert code(await stranger.post("refresh")) == (401, "session_ended")
    assert (await browser.post("refresh")).status_code == 200


async def test_signing_in_never_takes_over_the_session_a_browser_brings(
    browser: Browser,
) -> None:
    """Session fixation: a cookie somebody put there is of no use to him afterwards."""
    await browser.sign_up("dora@example.org")
    mallory = Browser(browser.service)
    await mallory.post("guest")
    victim = mallory.copy()
    planted = victim.cookie()
    body = {"email": "dora@example.org", "password": PASSWORD}
    signed = (await victim.post("sign-in", body)).json()
    assert victim.cookie() != planted
    assert (await mallory.post("refresh")).json()["user"]["id"] != signed["user"]["id"]


async def test_a_guest_becomes_a_user_and_keeps_what_he_has(browser: Browser, run: Run) -> None:
    guest = (await browser.post("guest")).json()
    assert guest["user"]["guest"]
    bearer = {"authorization": f"Bearer {guest['token']}"}
    space = str(uuid.uuid4())
    write = transaction(
        {"type": "create", "table": "workspaces", "id": space, "value": {"name": "x"}}
    )
    answer = await browser.service.post("/api/realtime/write", write, None, **bearer)
    assert answer.status_code == 200, answer.text
    elsewhere = browser.copy()
    signed = await browser.sign_up("dora@example.org")
    assert signed["user"]["id"] == guest["user"]["id"]
    assert not signed["user"]["guest"]
    assert (
        str(run("select owner_id from public.workspaces where id = %s", space))
        == (signed["user"]["id"])
    )
    # Whoever had the guest's session has nothing of the user.
    assert (await elsewhere.post("refresh")).status_code == 401
    assert (await browser.me(guest["token"])).status_code == 401


async def test_signing_out_ends_token_and_socket_of_this_session_alone(browser: Browser) -> None:
    await browser.sign_up("dora@example.org")
    other = Browser(browser.service)
    body = {"email": "dora@example.org", "password": PASSWORD}
    kept = (await other.post("sign-in", body)).json()["token"]
    gone = (await browser.post("refresh")).json()["token"]
    service = browser.service
    async with service.connect() as one, service.connect() as two:
        for socket, bearer in ((one, gone), (two, kept)):
            await socket.send({"type": "hello", "protocol": 1, "token": bearer})
            await socket.expect("welcome")
        assert (await browser.post("sign-out")).status_code == 204
        assert browser.cookie() is None
        assert (await browser.me(gone)).status_code == 401
        assert await one.closed() == 4401
        assert (await two.pong())["type"] == "pong"
        assert (await other.post("sign-out-everywhere")).status_code == 204
        assert await two.closed() == 4401
    assert (await other.me(kept)).status_code == 401


async def test_a_live_socket_is_renewed_with_the_next_token(browser: Browser) -> None:
    first = (await browser.post("guest")).json()["token"]
    async with browser.service.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, "token": first})
        await socket.expect("welcome")
        second = (await browser.post("refresh")).json()["token"]
        await socket.send({"type": "auth", "token": second})
        assert (await socket.expect("authed"))["expiresAt"]


async def test_another_password_ends_the_other_sessions(browser: Browser) -> None:
    await browser.sign_up("dora@example.org")
    other = Browser(browser.service)
    body = {"email": "dora@example.org", "password": PASSWORD}
    await other.post("sign-in", body)
    wrong = await browser.post("change-password", {"current": "no", "password": "a new one it is"})
    assert code(wrong) == (403, "wrong_credentials")
    changed = await browser.post(
        "change-password", {"current": PASSWORD, "password": "a new one it is"}
    )
    assert changed.status_code == 200
    assert (await browser.post("refresh")).status_code == 200
    assert code(await other.post("refresh")) == (401, "session_ended")
    assert code(await other.post("sign-in", body)) == (401, "wrong_credentials")
    assert await browser.mail("password_changed", "dora@example.org")


async def test_a_reset_sets_the_password_once_and_ends_every_session(browser: Browser) -> None:
    await browser.sign_up("dora@example.org")
    other = Browser(browser.service)
    await other.post("request-reset", {"email": "dora@example.org"})
    link = await other.link("reset", "dora@example.org")
    weak = await other.post("reset", {"token": link, "password": "short"})
    assert code(weak) == (400, "weak_password")
    done = await other.post("reset", {"token": link, "password": "a new one it is"})
    assert done.status_code == 200
    assert (await other.me(done.json()["token"])).status_code == 200
    assert code(await browser.post("refresh")) == (401, "session_ended")
    spent = await browser.post("reset", {"token": link, "password": "and another one"})
    assert code(spent) == (410, "link_spent")
    body = {"email": "dora@example.org", "password": "a new one it is"}
    assert (await browser.post("sign-in", body)).status_code == 200


async def test_strangers_keep_nobody_from_his_reset(
    site: Service, browser: Browser, run: Run
) -> None:
    await browser.sign_up("dora@example.org")
    stranger = Browser(site)
    for email in ("dora@example.org", "nobody@example.org"):
        answers = [await stranger.post("request-reset", {"email": email}) for _ in range(6)]
        assert {(a.status_code, a.text) for a in answers} == {(202, '{"status":"check_mail"}')}
    mails = "select count(*) from accounts.mails where kind = 'reset' and expires_at > now()"
    assert run(mails) == 5
    for _ in range(4):
        await stranger.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
    asked = await browser.post("request-reset", {"email": "dora@example.org"})
    assert asked.status_code == 202
    # A link that a stranger has asked for is in her mailbox alone, and is as good as hers.
    link = await browser.link("reset", "dora@example.org")
    done = await browser.post("reset", {"token": link, "password": "a new one it is"})
    assert done.status_code == 200


async def test_links_grow_old(browser: Browser, run: Run) -> None:
    await browser.post("sign-up", {"email": "dora@example.org", "password": PASSWORD})
    link = await browser.link("sign_up", "dora@example.org")
    run("update accounts.links set expires_at = now() - interval '1 s'")
    assert code(await browser.post("verify", {"token": link})) == (410, "link_spent")


async def test_attempts_are_limited_alike_for_known_and_unknown(browser: Browser, run: Run) -> None:
    await browser.sign_up("dora@example.org")
    run("select accounts.set_limit('sign_in_pair', 2, 60)")
    seen = []
    for email in ("dora@example.org", "nobody@example.org"):
        body = {"email": email, "password": "wrong horse"}
        seen.append([(await browser.post("sign-in", body)).status_code for _ in range(3)])
        limited = await browser.post("sign-in", body)
        assert code(limited) == (429, "rate_limited")
        assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert seen == [[401, 401, 429]] * 2


DORA = {"email": "dora@example.org", "password": "wrong horse"}
DOORS: list[tuple[str, str, Any]] = [
    ("sign_up_address", "sign-up", {"email": "new@example.org", "password": PASSWORD}),
    ("mail_recipient", "sign-up", {"email": "new@example.org", "password": PASSWORD}),
    ("sign_in_account", "sign-in", DORA),
    ("sign_in_pair", "sign-in", DORA),
    ("sign_in_address", "sign-in", DORA),
    ("guest_address", "guest", {}),
    ("sign_up_address", "request-reset", {"email": "dora@example.org"}),
    ("link_address", "reset", {"password": "another horse battery"}),
    ("link_address", "verify", {"password": "wrong horse"}),
    ("sign_in_pair", "verify", {"password": "wrong horse"}),
    ("password_user", "change-password", {"current": "wrong horse", "password": PASSWORD}),
]


@pytest.mark.parametrize(("limit", "door", "body"), DOORS)
async def test_every_door_says_when_to_come_again(
    browser: Browser, run: Run, limit: str, door: str, body: Any
) -> None:
    await browser.sign_up("dora@example.org")
    if door == "reset":
        await browser.post("request-reset", {"email": "dora@example.org"})
        body = {**body, "token": await browser.link("reset", "dora@example.org")}
    elif door == "verify":
        await browser.post("sign-up", {"email": "erik@example.org", "password": PASSWORD})
        body = {**body, "token": await browser.link("sign_up", "erik@example.org")}
    asking = browser if door == "change-password" else Browser(browser.service)
    run("delete from accounts.buckets")
    run(f"select accounts.set_limit('{limit}', 1, 60)")
    assert (await asking.post(door, body)).status_code != 429
    refused = await asking.post(door, body)
    assert code(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["retryAfter"] == int(refused.headers["retry-after"])


async def test_right_passwords_use_up_no_attempts(browser: Browser, run: Run) -> None:
    await browser.sign_up("dora@example.org")
    run("select accounts.set_limit('sign_in_pair', 1, 1)")
    body = {"email": "dora@example.org", "password": PASSWORD}
    assert [(await browser.post("sign-in", body)).status_code for _ in range(3)] == [200] * 3


async def test_guesses_at_once_are_counted_before_they_are_verified(
    browser: Browser, run: Run
) -> None:
    run("select accounts.set_limit('sign_in_pair', 3, 1)")
    body = {"email": "nobody@example.org", "password": "wrong horse"}
    answers = await asyncio.gather(*(browser.post("sign-in", body) for _ in range(8)))
    assert sorted(a.status_code for a in answers) == [401] * 3 + [429] * 5


async def test_a_gateway_killed_between_the_steps_leaves_no_session(
    browser: Browser, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_up("dora@example.org")
    before = run("select count(*) from accounts.sessions")
    assert browser.service.gateway.passwords is not None

    async def killed(*_: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(browser.service.gateway.passwords, "verify", killed)
        body = {"email": "dora@example.org", "password": PASSWORD}
        assert (await browser.post("sign-in", body)).status_code == 500
    assert run("select count(*) from accounts.sessions") == before
    body = {"email": "dora@example.org", "password": PASSWORD}
    assert (await browser.post("sign-in", body)).status_code == 200


async def test_a_password_changed_while_the_old_one_is_verified_makes_no_session(
    browser: Browser, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_up("dora@example.org")
    passwords = browser.service.gateway.passwords
    assert passwords is not None
    verify = passwords.verify

    async def slow(password: str, known: str | None) -> Any:
        answer = await verify(password, known)
        run("update accounts.users set password_hash = 'x' where email = 'dora@example.org'")
        return answer

    monkeypatch.setattr(passwords, "verify", slow)
    body = {"email": "dora@example.org", "password": PASSWORD}
    assert code(await browser.post("sign-in", body)) == (401, "wrong_credentials")


@pytest.mark.parametrize("path", ["sign-in", "sign-up", "guest", "refresh", "sign-out"])
async def test_pages_of_other_sites_are_refused(browser: Browser, path: str) -> None:
    await browser.post("guest")
    foreign = await browser.post(path, {}, origin="https://evil.example")
    assert code(foreign) == (403, "origin")
    form = await browser.post(path, {}, **{"content-type": "application/x-www-form-urlencoded"})
    assert code(form) == (415, "bad_media_type")
    plain = await browser.post(path, {}, **{"content-type": "text/plain"})
    assert code(plain) == (415, "bad_media_type")
    assert (await browser.post("refresh")).status_code == 200


async def test_the_session_cookie_is_good_for_nothing_else(browser: Browser) -> None:
    await browser.post("guest")
    answer = await browser.http.post(
        "/api/realtime/query", json={"table": "boards"}, headers={"origin": browser.service.url}
    )
    assert answer.status_code == 401
    async with browser.service.connect(
        additional_headers={"cookie": f"rowcast_account={browser.cookie()}"},
        origin=browser.service.url,
    ) as socket:
        await socket.send({"type": "hello", "protocol": 1})
        assert await socket.closed() == 4401


async def test_disabled_users_are_out_within_a_second(browser: Browser, run: Run) -> None:
    signed = await browser.sign_up("dora@example.org")
    user = signed["user"]["id"]
    run("select accounts.set_limit('sign_in_pair', 0, 1)")
    took = []
    for _ in range(20):
        body = {"email": "dora@example.org", "password": PASSWORD}
        bearer = (await browser.post("sign-in", body)).json()["token"]
        async with browser.service.connect() as socket:
            await socket.send({"type": "hello", "protocol": 1, "token": bearer})
            await socket.expect("welcome")
            began = time.monotonic()
            # In whatever spelling.
            run("select sync.disable_user(%s)", user.upper())
            assert (await browser.me(bearer)).status_code == 401
            assert await socket.closed() == 4401
            took.append(time.monotonic() - began)
        assert code(await browser.post("sign-in", body)) == (403, "disabled")
        run("select sync.enable_user(%s)", user.upper())
        assert (await browser.me(bearer)).status_code == 401
    assert max(took) < 5
    print("disabled: slowest of 20", max(took))


async def test_everybody_can_be_signed_out_at_once(browser: Browser, run: Run) -> None:
    mine = (await browser.post("guest")).json()["token"]
    async with browser.service.connect() as socket, browser.service.socket(ALICE) as other:
        await socket.send({"type": "hello", "protocol": 1, "token": mine})
        await socket.expect("welcome")
        run("select sync.end_all_sessions()")
        assert {await socket.closed(), await other.closed()} == {4401}
    assert (await browser.me(mine)).status_code == 401
    assert (await browser.post("refresh")).status_code == 401
    again = (await browser.post("guest")).json()["token"]
    assert (await browser.me(again)).status_code == 200


async def test_keys_are_rotated_without_signing_anybody_out(
    browser: Browser, gateway_dsn: str
) -> None:
    old = (await browser.post("guest")).json()["token"]
    elsewhere = Browser(browser.service)
    await elsewhere.post("sign-up", {"email": "erik@example.org", "password": PASSWORD})
    signer = browser.service.gateway.signer
    flow, known = signer.seal({"state": "x"}), signer.browser(uuid.UUID(ALICE))
    given = {"accounts": True, "public_url": "http://app.example", "jwt_secret": "n" * 40}
    kept = settings_for(gateway_dsn, **given, jwt_previous_secrets=SECRET)
    async with Service(kept) as service:
        await service.ready()
        moved = Browser(service)
        moved.http.cookies.set("rowcast_account", browser.cookie() or "")
        assert (await moved.me(old)).status_code == 200
        new = (await moved.post("refresh")).json()["token"]
        assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
        assert (await moved.me(new)).status_code == 200
        # What waits in the outbox, who is on his way to a provider, and where one is known.
        link = await moved.link("sign_up", "erik@example.org")
        done = await moved.post("verify", {"token": link, "password": PASSWORD})
        assert done.status_code == 200, done.text
        signer = service.gateway.signer
        assert (signer.unseal(flow) or {})["state"] == "x"
        assert signer.known(known) is not None
    async with Service(settings_for(gateway_dsn, **given)) as service:
        await service.ready()
        moved = Browser(service)
        assert (await moved.me(old)).status_code == 401
        assert (await moved.me(new)).status_code == 200
        signer = service.gateway.signer
        assert (signer.unseal(flow), signer.known(known)) == (None, None)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def own(**given: Any) -> str:
    """A token as the gateway makes them, but for what is given."""
    claims = {
        "sub": ALICE,
        "role": "authenticated",
        "iss": "http://app.example",
        "aud": "http://app.example",
        "iat": time.time(),
        "exp": time.time() + 60,
        **given.get("claims", {}),
    }
    headers = {"kid": tokens.key_id(SECRET), **given.get("headers", {})}
    return jwt.encode(
        {n: v for n, v in claims.items() if v is not None},
        given.get("secret", SECRET),
        algorithm=given.get("algorithm", "HS256"),
        headers={n: v for n, v in headers.items() if v is not None},
    )


BAD = {
    "none": None,
    "expired": own(claims={"exp": time.time() - 60}),
    "not yet": own(claims={"nbf": time.time() + 600}),
    "wrong issuer": own(claims={"iss": "http://other.example"}),
    "no issuer": own(claims={"iss": None}),
    "wrong audience": own(claims={"aud": "http://other.example"}),
    "alg none": f"{part({'alg': 'none', 'kid': tokens.key_id(SECRET)})}."
    f"{part({'sub': ALICE, 'exp': 1e10})}.",
    "another algorithm": own(algorithm="HS512", secret=SECRET * 2),
    "another key": own(secret="another secret of enough bytes to be one"),
    "kid as a path": own(
        headers={"kid": "../../dev/null"}, secret="another secret of enough bytes to be one"
    ),
    "kid of nothing": own(headers={"kid": ""}, secret="\0" * 32),
    "unknown session": own(claims={"rowcast_session": None, "sub": None}),
}


NO_FILE = {"table": "taskFiles", "id": BOARD}


@pytest.mark.parametrize("name", BAD)
async def test_bad_tokens_are_401_and_reach_no_database(
    site: Service, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.gateway.verifier.verify(own())

    async def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("a statement")

    bad = BAD[name]
    sent = {"authorization": f"Bearer {bad}"} if bad else {}
    monkeypatch.setattr(site.gateway.database.work, "rows", asked)
    monkeypatch.setattr(site.gateway.database.work, "connection", asked)
    for path, body in (
        ("/api/realtime/query", {"table": "boards"}),
        ("/api/realtime/getRecords", {"pointers": [{"table": "boards", "id": BOARD}]}),
        ("/api/realtime/write", transaction(create(str(uuid.uuid4())))),
        *((f"/api/files/{door}", NO_FILE) for door in ("upload", "confirm", "download")),
    ):
        answer = await site.post(path, body, None, **sent)
        assert answer.status_code == 401, answer.text
        assert answer.headers["www-authenticate"] == "Bearer"
    assert (await site.http.get("/api/auth/me", headers=sent)).status_code == 401
    async with site.connect() as socket:
        await socket.send({"type": "hello", "protocol": 1, **({"token": bad} if bad else {})})
        assert await socket.closed() == 4401


async def test_tokens_in_the_address_or_twice_are_401(site: Service) -> None:
    answer = await site.http.post(
        f"/api/realtime/query?token={own()}&access_token={own()}", json={"table": "boards"}
    )
    assert answer.status_code == 401
    twice = [("authorization", f"Bearer {own()}"), ("authorization", f"Bearer {own()}")]
    answer = await site.http.post("/api/realtime/query", json={"table": "boards"}, headers=twice)
    assert answer.status_code == 401


async def test_a_token_cannot_name_a_session_that_is_not_its_users(
    browser: Browser,
) -> None:
    signed = (await browser.post("guest")).json()
    claims = jwt.decode(signed["token"], options={"verify_signature": False})
    session = claims["rowcast_session"]
    assert (await browser.me(own(claims={"rowcast_session": session}))).status_code == 401
    assert (await browser.me(own(claims={"rowcast_session": "x' or true"}))).status_code == 401


async def test_demo_users_sign_in_where_the_development_sign_in_is_on(
    browser: Browser, gateway_dsn: str
) -> None:
    body = {"email": "alice@example.com", "password": "rowcast demo"}
    assert (await browser.post("sign-in", body)).json()["user"]["id"] == ALICE
    settings = settings_for(
        gateway_dsn, accounts=True, public_url="http://app.example", dev_sign_in=False
    )
    async with Service(settings) as service:
        await service.ready()
        stranger = Browser(service)
        assert code(await stranger.post("sign-in", body)) == (401, "wrong_credentials")
        assert (await stranger.http.get("/api/auth/dev-mails")).status_code == 404


async def records(service: Service, table: str, bearer: str) -> dict[str, Any]:
    answer = await service.post(
        "/api/realtime/query", {"table": table}, None, authorization=f"Bearer {bearer}"
    )
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["recordMap"].get(table, {})
    return found


def invitation(email: str, workspace: str) -> dict[str, Any]:
    return {
        "type": "create",
        "table": "workspaceInvitations",
        "id": str(uuid.uuid4()),
        "value": {"workspaceId": workspace, "email": email},
    }


DEMO = "00000000-0000-7000-8000-0000000a0001"
CAROLS = "00000000-0000-7000-8000-0000000a0002"


async def test_who_signs_up_with_an_invited_address_is_a_member(browser: Browser, run: Run) -> None:
    service = browser.service
    await service.write(invitation("Dora@Example.org", DEMO), user=ALICE)
    mail = await browser.mail("invitation", "dora@example.org")
    assert "Demo" in mail["text"]
    signed = await browser.sign_up("dora@example.org")
    assert DEMO in await records(service, "workspaces", signed["token"])
    assert run("select count(*) from public.workspace_invitations") == 0


async def test_who_is_new_has_a_name(browser: Browser) -> None:
    async def name(signed: dict[str, Any]) -> Any:
        profiles = await records(browser.service, "profiles", signed["token"])
        return profiles[signed["user"]["id"]]["name"]

    assert await name((await browser.post("guest")).json()) == "Guest"
    signed = await browser.sign_up("dora@example.org")
    assert await name(signed) == "dora"
    me = signed["user"]["id"]
    renamed = {"type": "set", "table": "profiles", "id": me, "key": "name", "value": "Dora D."}
    await browser.service.write(renamed, user=me)
    assert await name(signed) == "Dora D."


async def test_the_inviter_cannot_tell_who_has_an_account(browser: Browser) -> None:
    service = browser.service
    signed = await browser.sign_up("dora@example.org")
    answers = []
    for email in ("dora@example.org", "nobody@example.org"):
        answer = await service.write(invitation(email, DEMO), user=ALICE)
        (record,) = answer["recordMap"]["workspaceInvitations"].values()
        answers.append({k: v for k, v in record.items() if k not in ("id", "email", "createdAt")})
    assert answers[0] == answers[1]
    members = (await records(service, "workspaces", token(ALICE)))[DEMO]["memberIds"]
    assert signed["user"]["id"] not in members
    # Who has an account reads it, and accepts.
    (invited,) = (await records(service, "workspaceInvitations", signed["token"])).values()
    assert (invited["email"], invited["workspaceName"]) == ("dora@example.org", "Demo")
    accept = {
        "type": "call",
        "fn": "acceptWorkspaceInvitation",
        "args": {"id": invited["id"]},
    }
    bearer = {"authorization": f"Bearer {signed['token']}"}
    done = await service.post("/api/realtime/write", transaction(accept), None, **bearer)
    assert done.status_code == 200, done.text
    assert DEMO in await records(service, "workspaces", signed["token"])


async def test_invitations_are_for_owners_and_for_the_invited(browser: Browser) -> None:
    service = browser.service
    absent = str(uuid.uuid4())
    refused = [
        await service.post(
            "/api/realtime/write", transaction(invitation("dora@example.org", space)), ALICE
        )
        for space in (CAROLS, absent)
    ]
    seen = [(a.status_code, a.json()["code"], a.json().get("detail")) for a in refused]
    assert seen[0] == seen[1]
    assert seen[0][:2] == (403, "forbidden")
    made = invitation("dora@example.org", DEMO)
    await service.write(made, user=ALICE)
    mallory = (await browser.post("guest")).json()["token"]
    assert await records(service, "workspaceInvitations", mallory) == {}
    accept = {"type": "call", "fn": "acceptWorkspaceInvitation", "args": {"id": made["id"]}}
    # Also one who says the address is his, unverified.
    for bearer in (
        mallory,
        token(str(uuid.uuid4()), email="dora@example.org"),
        token(str(uuid.uuid4()), email="dora@example.org", email_verified="false"),
    ):
        named = {"authorization": f"Bearer {bearer}"}
        answer = await service.post("/api/realtime/write", transaction(accept), None, **named)
        assert code(answer) == (403, "forbidden")


async def test_nothing_secret_is_in_any_log(
    db: Database, browser: Browser, run: Run, caplog: pytest.LogCaptureFixture, pg: Server
) -> None:
    caplog.set_level(logging.DEBUG)
    password = "zzsecretpassword"
    await browser.post("guest")
    signed = await browser.sign_up("dora@example.org", password)
    secret = [password, signed["token"], browser.cookie() or "-", "zzrowcontent"]
    await browser.post("sign-in", {"email": "dora@example.org", "password": password + "!"})
    await browser.post("request-reset", {"email": "dora@example.org"})
    secret.append(await browser.link("reset", "dora@example.org"))
    await browser.post("reset", {"token": secret[-1], "password": password + "2"})
    await browser.post("reset", {"token": secret[-1], "password": password + "3"})
    old = browser.copy()
    await browser.post("refresh")
    run("update accounts.sessions set rotated_at = now() - interval '2 minutes'")
    await old.post("refresh")
    space = str(uuid.uuid4())
    for value in ({"name": "zzrowcontent"}, {"name": "zzrowcontent" * 40}, {"name": 7}):
        operation = {"type": "create", "table": "workspaces", "id": space, "value": value}
        await browser.service.post("/api/realtime/write", transaction(operation))

    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError(password)

    browser.service.gateway.database.work.rows = broken  # type: ignore[method-assign]
    answer = await browser.post("sign-in", {"email": "dora@example.org", "password": password})
    assert code(answer) == (500, "internal")
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    logged = "".join(r.getMessage() + str(r.exc_text or "") for r in ours) + pg.log
    assert "unexpected error" in logged
    for word in secret:
        assert word not in logged


async def test_sign_ups_are_counted_before_a_password_is_hashed(
    browser: Browser, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever asks often enough keeps everybody's sign-in waiting for the hasher."""
    run("select accounts.set_limit('sign_up_address', 2, 1)")
    passwords = browser.service.gateway.passwords
    assert passwords is not None
    hashed, real = [], passwords.hash

    async def noted(password: str) -> str:
        hashed.append(password)
        return await real(password)

    monkeypatch.setattr(passwords, "hash", noted)
    answers = [
        await browser.post("sign-up", {"email": f"{n}@example.org", "password": PASSWORD})
        for n in range(4)
    ]
    assert [a.status_code for a in answers] == [202, 202, 429, 429]
    assert len(hashed) == 2


async def test_a_browser_that_signed_in_before_is_not_locked_out_by_strangers(
    browser: Browser, run: Run
) -> None:
    await browser.sign_up("dora@example.org")
    await browser.post("sign-out")
    run("select accounts.set_limit('sign_in_account', 2, 1)")
    stranger = Browser(browser.service)
    wrong = {"email": "dora@example.org", "password": "wrong horse"}
    assert [(await stranger.post("sign-in", wrong)).status_code for _ in range(3)] == [401] * 2 + [
        429
    ]
    # His attempts are his own, and as few.
    run("select accounts.set_limit('sign_in_pair', 3, 1)")
    right = {"email": " DORA@example.org", "password": PASSWORD}
    assert (await browser.post("sign-in", right)).status_code == 200
    seen = [(await browser.post("sign-in", wrong)).status_code for _ in range(4)]
    assert seen == [401] * 3 + [429]
    # What one browser is known by is good for nobody else's account, nor when forged.
    await stranger.sign_up("mallory@example.org")
    assert code(await stranger.post("sign-in", wrong)) == (429, "rate_limited")
    known = browser.cookie("rowcast_known") or ""
    forger = Browser(browser.service)
    forger.http.cookies.set("rowcast_known", ("A" if known[0] != "A" else "B") + known[1:])
    assert code(await forger.post("sign-in", wrong)) == (429, "rate_limited")


async def test_guests_invite_nobody(browser: Browser, run: Run) -> None:
    """Else anybody may have mails of his wording sent to anybody."""
    guest = (await browser.post("guest")).json()
    bearer = {"authorization": f"Bearer {guest['token']}"}
    space = str(uuid.uuid4())
    operations = [
        {
            "type": "create",
            "table": "workspaces",
            "id": space,
            "value": {"name": "buy at spam.example"},
        },
        invitation("victim@example.org", space),
    ]
    answer = await browser.service.post(
        "/api/realtime/write", transaction(*operations), None, **bearer
    )
    assert code(answer) == (403, "sign_up_first")
    assert run("select count(*) from accounts.mails") == 0


async def test_own_tokens_count_whatever_algorithms_others_may_use(gateway_dsn: str) -> None:
    settings = settings_for(
        gateway_dsn,
        accounts=True,
        public_url="http://app.example",
        dev_sign_in=False,
        jwt_jwks_url="http://127.0.0.1:9/keys",
        jwt_algorithms=("RS256",),
    )
    async with Service(settings) as service:
        await service.ready()
        signed = (await Browser(service).post("guest")).json()
        assert (await Browser(service).me(signed["token"])).status_code == 200
        assert (await Browser(service).me(token(ALICE))).status_code == 401


async def test_links_sent_before_everybody_was_signed_out_are_of_no_use(
    browser: Browser, run: Run
) -> None:
    await browser.sign_up("dora@example.org")
    await browser.post("request-reset", {"email": "dora@example.org"})
    link = await browser.link("reset", "dora@example.org")
    run("select sync.end_all_sessions()")
    answer = await browser.post("reset", {"token": link, "password": "another one at last"})
    assert code(answer) == (410, "link_spent")


async def test_every_door_can_be_repeated(browser: Browser, run: Run) -> None:
    """A connection that is lost after the commit: the gateway says the same again."""
    lane = browser.service.gateway.database.work
    once = Lane.rows

    async def twice(self: Lane, *given: Any, **named: Any) -> Any:
        await once(self, *given, **named)
        return await once(self, *given, **named)

    lane.rows = twice.__get__(lane)  # type: ignore[method-assign]
    await browser.post("guest")
    signed = await browser.sign_up("dora@example.org")
    assert (await browser.post("refresh")).status_code == 200
    changed = {"current": PASSWORD, "password": "a new one it is"}
    assert (await browser.post("change-password", changed)).status_code == 200
    await browser.post("request-reset", {"email": "dora@example.org"})
    link = await browser.link("reset", "dora@example.org")
    assert (await browser.post("reset", {"token": link, "password": PASSWORD})).status_code == 200
    body = {"email": "dora@example.org", "password": PASSWORD}
    assert (await browser.post("sign-in", body)).json()["user"]["id"] == signed["user"]["id"]
    assert (await browser.post("sign-out")).status_code == 204
    assert run("select count(*) from accounts.users where not is_demo") == 1


async def test_accounts_do_not_exist_where_they_are_not_turned_on(service: Service) -> None:
    answer = await service.http.post("/api/auth/sign-in", json={})
    assert answer.status_code == 404


async def test_sessions_outlive_a_restart_of_the_gateway(
    browser: Browser, gateway_dsn: str
) -> None:
    await browser.post("guest")
    cookie = browser.cookie()
    settings = settings_for(gateway_dsn, accounts=True, public_url="http://app.example")
    async with Service(settings) as service:
        other = Browser(service)
        other.http.cookies.set("rowcast_account", cookie or "")

        async def refreshed() -> bool:
            return (await other.post("refresh")).status_code == 200

        await eventually(refreshed)


def test_tables_of_accounts_cannot_be_made_live(conn: psycopg.Connection) -> None:
    for name in ("users", "sessions", "links", "mails", "identities"):
        with pytest.raises(psycopg.Error, match="Rowcast's own"):
            conn.execute(f"select sync.enable('accounts.{name}')".encode())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Release 1.2 of a.b", "Release 1.2 of a b"),
        ("https://evil.example/x", "https evil example/x"),
        ("www.evil1.example", "www evil1 example"),
        ("dora@evil.example", "dora evil example"),
        ("two\r\nlines\u202e", "two  lines"),
    ],
)
def test_names_in_mails_are_no_links(name: str, shown: str) -> None:
    mail: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "kind": "invitation",
        "recipient": "d@example.org",
    }
    mail |= {"details": {"by": "A", "to": name}, "createdAt": ""}
    signer = tokens.Signer(settings_for("", accounts=True, public_url="http://app.example"))
    assert f'"{shown}"' in mails.render(mail, "http://app.example", signer)["text"]
