"""Accounts in the apps: signing up and in, guests, invitations, passwords, sessions that end."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.attachments import ALIVE, NAME, attach, attached, png
from tests.e2e.axe import problems
from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import ROOT, Site, until
from tests.e2e.tab import Tab
from tests.gateway.provider import CLIENT, SECRET
from tests.postgres import Database

ME = re.compile("you and this window", re.IGNORECASE)
PASSWORD = "a horse and a battery"
PHONE = {"viewport": {"width": 375, "height": 720}, "has_touch": True, "is_mobile": True}


@pytest.fixture
def site(db: Database, gateway_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """A gateway with accounts, whose links lead to itself."""
    made = Site(gateway_dsn, tmp_path, accounts=True)
    yield made
    made.close()


@pytest.fixture
def issuer() -> Iterator[str]:
    """A provider that names whoever it was told to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = subprocess.Popen([sys.executable, "-m", "tests.gateway.provider", str(port)], cwd=ROOT)
    yield f"http://127.0.0.1:{port}"
    child.terminate()
    child.wait(20)


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False


def link_to(site: Site, email: str, kind: str) -> str:
    """The path of the link of the last mail of a kind, fragment and all."""
    found: list[Any] = []

    def arrived() -> bool:
        mails = httpx.get(f"{site.url}/api/auth/dev-mails").json()["mails"]
        found[:] = [m for m in mails if (m["to"], m["kind"]) == (email, kind)]
        return bool(found)

    until(arrived)
    return str(found[0]["link"]).removeprefix(site.url)


def fill_in(tab: Tab, email: str, password: str, button: str) -> None:
    tab.page.get_by_label("E-mail address").fill(email)
    tab.page.get_by_label("Password", exact=True).fill(password)
    tab.page.get_by_role("button", name=button, exact=True).click()


def sign_up(tab: Tab, site: Site, email: str) -> None:
    """By the form and the link of the mail, in the same browser. Returns in the app."""
    tab.page.get_by_role("link", name="Create an account").first.click()
    fill_in(tab, email, PASSWORD, "Create account")
    expect(tab.page.get_by_role("heading", name="Look into your mail")).to_be_visible()
    tab.go(link_to(site, email, "sign_up"))
    inside(tab)


def sign_in(tab: Tab, email: str, password: str = PASSWORD) -> None:
    fill_in(tab, email, password, "Sign in")


def inside(tab: Tab) -> None:
    expect(tab.page.get_by_role("button", name=ME)).to_be_attached()
    expect(tab.badge).to_have_text("Saved")


def in_my_menu(tab: Tab, item: str) -> None:
    tab.page.get_by_role("button", name=ME).click()
    tab.page.get_by_role("menuitem", name=item, exact=True).click()


def make_board(tab: Tab, workspace: str, board: str) -> None:
    tab.page.get_by_role("button", name="New workspace").click()
    tab.dialog.get_by_label("Name").fill(workspace)
    tab.dialog.get_by_role("button", name="Create").click()
    tab.in_menu(f"Workspace {workspace}", "New board …")
    tab.dialog.get_by_label("Name").fill(board)
    tab.dialog.get_by_role("button", name="Create").click()
    expect(tab.column("To do")).to_be_visible()


def invite(tab: Tab, email: str) -> None:
    tab.page.get_by_role("button", name="Share", exact=True).click()
    tab.dialog.get_by_label("Share with").fill(email)
    tab.dialog.get_by_role("button", name="Share", exact=True).click()
    said = tab.shared
    expect(said).to_have_text(
        f"{email} is invited: by mail, and in the app once signed in with this address."
    )
    expect(tab.dialog.get_by_role("listitem").filter(has_text=email)).to_contain_text("Invited")


def test_signed_up_invited_at_work_together_sent_away(visit: Visit, site: Site, sql: Sql) -> None:
    ann = visit(name="ann")
    sign_up(ann, site, "ann@example.net")
    assert "token" not in ann.page.url
    expect(ann.page.get_by_role("button", name=ME)).to_contain_text("ann")
    make_board(ann, "Garden", "Spring")
    ann.add("Sow beans")
    invite(ann, "Ben@Example.net".lower())
    # A second time, in other letters, is none.
    ann.dialog.get_by_label("Share with").fill("BEN@example.net")
    ann.dialog.get_by_role("button", name="Share", exact=True).click()
    expect(ann.shared).to_have_text("ben@example.net is invited already.")
    ann.close()

    # Ben has no account yet: the mail leads him in.
    ben = visit(name="ben")
    ben.go(link_to(site, "ben@example.net", "invitation"))
    expect(ben.page.get_by_text("You are invited.")).to_be_visible()
    sign_up(ben, site, "ben@example.net")
    expect(ben.card("Sow beans")).to_be_visible()
    ben.add("Plant onions")
    expect(ann.card("Plant onions")).to_be_visible()

    # What one attaches the other has, until he is sent away.
    sql("select sync.configure('file_download_seconds', 2)")
    picture = png(300)
    ann.open("Sow beans")
    attach(ann, (NAME, "image/png", picture))
    expect(attached(ann, NAME)).to_be_enabled()
    ann.close()
    ben.open("Sow beans")
    with (
        ben.page.expect_response("**/api/files/download") as link,
        ben.page.expect_download() as download,
    ):
        attached(ben, NAME).click()
    assert download.value.suggested_filename == NAME
    assert download.value.path().read_bytes() == picture

    ben.until_sent()
    ann.page.get_by_role("button", name="Share", exact=True).click()
    expect(ann.dialog.get_by_role("listitem")).to_have_count(2)
    ann.dialog.get_by_role("button", name="Remove").click()
    ann.close()
    expect(ben.page.get_by_role("heading", name="This board is not here")).to_be_visible()
    expect(ben.page.get_by_text(NAME)).to_have_count(0)
    ben.until_not_kept("Sow beans", NAME)
    url = link.value.json()["url"]
    until(lambda: not ben.page.evaluate(ALIVE, url))


def test_who_has_an_account_accepts_or_declines(visit: Visit, site: Site, open_as: Visit) -> None:
    ann, alice = visit(name="ann"), open_as("alice")
    sign_up(ann, site, "ann@example.net")
    invite(alice, "ann@example.net")
    ann.page.get_by_role("link", name="An invitation").click()
    expect(ann.page.get_by_role("listitem").filter(has_text="Demo")).to_be_visible()
    # Taken back, it is gone for both.
    alice.dialog.get_by_role("button", name="Take back the invitation of ann@example.net").click()
    expect(ann.page.get_by_role("heading", name="Nothing waits for you")).to_be_visible()
    alice.close()
    invite(alice, "ann@example.net")
    ann.page.get_by_role("button", name="Decline").click()
    expect(alice.dialog.get_by_text("ann@example.net", exact=False)).to_have_count(1)  # the status
    alice.close()
    invite(alice, "ann@example.net")
    ann.page.get_by_role("button", name="Accept").click()
    expect(ann.toasts).to_contain_text("“Demo” is in your sidebar now.")
    ann.page.get_by_role("link", name="Launch", exact=True).click()
    expect(ann.card("Record a two-minute demo")).to_be_visible()
    expect(alice.dialog.get_by_role("listitem").filter(has_text="ann")).to_contain_text("Remove")


def test_a_notebook_is_shared_by_address(visit: Visit, site: Site, open_as: Visit) -> None:
    alice, ann = open_as("alice"), visit(name="ann")
    alice.page.get_by_role("link", name="Notes", exact=True).click()
    alice.in_menu("Notebook Launch notes", "Share …")
    alice.dialog.get_by_label("Share with").fill("ann@example.net")
    alice.dialog.get_by_role("button", name="Share", exact=True).click()
    expect(alice.dialog.get_by_role("listitem").last).to_contain_text("Invited")
    sign_up(ann, site, "ann@example.net")
    ann.page.get_by_role("link", name="Notes", exact=True).click()
    expect(ann.page.get_by_role("navigation", name="Notebooks")).to_contain_text("Launch notes")


def test_a_guest_stays_who_he_is(visit: Visit, site: Site, sql: Sql) -> None:
    guest = visit(name="guest")
    guest.page.get_by_role("button", name="Try without an account").click()
    inside(guest)
    make_board(guest, "Trip", "Packing")
    guest.add("Tent")
    guest.until_sent()
    in_my_menu(guest, "Sign out")
    expect(guest.dialog).to_contain_text("You are a guest")
    guest.dialog.get_by_role("link", name="Create an account").click()
    fill_in(guest, "gus@example.net", PASSWORD, "Create account")
    link = link_to(site, "gus@example.net", "sign_up")
    # In another tab; the first goes on by itself.
    other = visit(guest, name="the mail's tab")
    other.go(link)
    for tab in (other, guest):
        inside(tab)
        expect(tab.card("Tent")).to_be_visible()
    assert sql("select count(*) from accounts.users where email = 'gus@example.net'") == 1
    elsewhere = visit(name="elsewhere")
    sign_in(elsewhere, "gus@example.net")
    expect(elsewhere.card("Tent")).to_be_visible()


def test_refusals_say_nothing_of_who_has_an_account(visit: Visit, site: Site) -> None:
    tab = visit(name="stranger")
    for email in ("alice@example.com", "nobody@example.com"):
        tab.go("/account/sign-in")
        sign_in(tab, email, "not the password")
        expect(tab.page.get_by_role("alert")).to_have_text("Address and password do not match.")
        expect(tab.page.get_by_label("Password", exact=True)).to_be_focused()
        tab.page.get_by_role("link", name="Forgot your password?").click()
        tab.page.get_by_label("E-mail address").fill(email)
        tab.page.get_by_role("button", name="Send the link").click()
        expect(tab.page.get_by_role("main")).to_contain_text("If there is an account with")
        tab.go("/account/sign-up")
        fill_in(tab, email, PASSWORD, "Create account")
        expect(tab.page.get_by_role("main")).to_contain_text(f"We have sent a mail to {email}")


def test_too_many_attempts_show_how_long_to_wait(visit: Visit, site: Site, sql: Sql) -> None:
    sql("select accounts.set_limit('sign_in_pair', 1, 10)")
    tab = visit(name="hasty")
    sign_in(tab, "alice@example.com", "wrong")
    expect(tab.page.get_by_role("alert")).to_have_text("Address and password do not match.")
    sign_in(tab, "alice@example.com", "wrong again")
    expect(tab.page.get_by_role("alert")).to_have_text(
        re.compile(r"^Too many attempts. You can try again in \d+ minutes.$")
    )
    expect(tab.page.get_by_role("button", name=re.compile(r"^Wait \d:\d\d$"))).to_be_visible()


def test_passwords_are_changed_and_reset(visit: Visit, site: Site) -> None:
    first, second = visit(name="first"), visit(name="second")
    sign_up(first, site, "ann@example.net")
    sign_in(second, "ann@example.net")
    inside(second)
    in_my_menu(first, "Account …")
    first.page.get_by_label("Current password").fill("wrong")
    first.page.get_by_label("New password").fill("another horse entirely")
    first.page.get_by_role("button", name="Change password").click()
    expect(first.page.get_by_role("alert")).to_have_text("This is not the right password.")
    first.page.get_by_label("Current password").fill(PASSWORD)
    first.page.get_by_role("button", name="Change password").click()
    expect(first.toasts).to_contain_text("Your password is changed.")
    expect(first.badge).to_have_text("Saved")
    # The other device is out; what it writes waits for its user.
    again = second.page.get_by_role("button", name="Sign in again")
    expect(again).to_be_visible()
    make_board(second, "Later", "Kept")
    again.click()
    second.dialog.get_by_label("Password", exact=True).fill("another horse entirely")
    second.dialog.get_by_role("button", name="Sign in", exact=True).click()
    expect(second.badge).to_have_text("Saved")
    expect(first.page.get_by_role("heading", name="Later")).to_be_visible()

    third = visit(name="third")
    third.page.get_by_role("link", name="Forgot your password?").click()
    third.page.get_by_label("E-mail address").fill("ann@example.net")
    third.page.get_by_role("button", name="Send the link").click()
    third.go(link_to(site, "ann@example.net", "reset"))
    third.page.get_by_label("New password").fill("a third one, then")
    third.page.get_by_role("button", name="Set the password").click()
    expect(third.page.get_by_role("heading", name="Later")).to_be_visible()
    expect(first.page.get_by_role("button", name="Sign in again")).to_be_visible()


def test_a_link_in_another_browser_asks_for_the_password(visit: Visit, site: Site) -> None:
    tab, elsewhere = visit(name="ann"), visit(name="elsewhere")
    tab.go("/account/sign-up")
    fill_in(tab, "ann@example.net", PASSWORD, "Create account")
    link = link_to(site, "ann@example.net", "sign_up")
    elsewhere.go(link)
    elsewhere.page.get_by_label("Password", exact=True).fill("a guess of mine")
    elsewhere.page.get_by_role("button", name="Confirm").click()
    expect(elsewhere.page.get_by_role("alert")).to_have_text("This is not the right password.")
    elsewhere.page.get_by_label("Password", exact=True).fill(PASSWORD)
    elsewhere.page.get_by_role("button", name="Confirm").click()
    inside(elsewhere)
    tab.go(link)
    expect(tab.page.get_by_role("alert")).to_contain_text("This link has been used")


def test_signed_out_everywhere_and_without_a_network(visit: Visit, site: Site, sql: Sql) -> None:
    first, second = visit(name="first"), visit(name="second")
    sign_up(first, site, "ann@example.net")
    sign_in(second, "ann@example.net")
    inside(second)
    in_my_menu(first, "Account …")
    first.page.get_by_role("button", name="Sign out everywhere").click()
    expect(first.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()
    expect(second.page.get_by_role("button", name="Sign in again")).to_be_visible()
    assert sql("select count(*) from accounts.sessions") == 0

    sign_in(first, "ann@example.net")
    inside(first)
    first.page.evaluate("navigator.serviceWorker.ready.then(() => {})")
    site.stop()
    expect(first.badge).to_have_text("Offline")
    # A start without a network, whatever became of the token.
    first.page.reload()
    expect(first.badge).to_have_text("Offline")
    expect(first.page.get_by_role("button", name=ME)).to_contain_text("ann")
    in_my_menu(first, "Sign out")
    expect(first.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()
    site.start()
    first.wake()
    until(lambda: sql("select count(*) from accounts.sessions") == 0)
    first.page.reload()
    expect(first.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()


def test_tabs_that_renew_at_once_stay_signed_in(visit: Visit, site: Site, sql: Sql) -> None:
    sql("update sync_internal.settings set value = 20 where name = 'token_seconds'")
    first = visit(name="first")
    sign_up(first, site, "ann@example.net")
    tabs = [first, *(visit(first, name=f"tab {n}") for n in (2, 3))]
    before = sql("select rotated_at from accounts.sessions")
    until(lambda: sql("select rotated_at > %s from accounts.sessions", before))
    for tab in tabs:
        tab.page.reload()
    for tab in tabs:
        inside(tab)
    assert sql("select count(*) from accounts.sessions") == 1
    kept = json.dumps(first.page.evaluate("[{ ...localStorage }, { ...sessionStorage }]"))
    assert "eyJ" not in kept
    assert "token" not in kept


def test_a_provider_leads_in(visit: Visit, site: Site, issuer: str) -> None:
    listed = {"id": "p", "name": "Example", "issuer": issuer}
    known = {"clientId": CLIENT, "clientSecret": SECRET}
    site.stop()
    site.start(ROWCAST_OIDC_PROVIDERS=json.dumps([listed | known]))
    until(lambda: answers(f"{issuer}/keys"))
    claims = {"sub": "7", "email": "dora@example.net", "email_verified": True}
    httpx.post(f"{issuer}/say", json={"claims": claims})
    tab = visit(name="dora")
    tab.page.get_by_role("button", name="Sign in with Example").click()
    inside(tab)
    expect(tab.page.get_by_role("button", name=ME)).to_contain_text("dora")
    in_my_menu(tab, "Account …")
    tab.page.get_by_role("button", name="Send me a link").click()
    expect(tab.page.get_by_role("main")).to_contain_text("A mail to dora@example.net is on its way")
    tab.go("/account/sign-in#error=oidc_denied")
    expect(tab.page.get_by_role("alert")).to_contain_text("you declined")


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, PHONE],
    ids=["light", "dark", "phone"],
)
def test_every_page_of_accounts_can_be_read_and_named(
    visit: Visit, site: Site, options: dict[str, Any]
) -> None:
    tab = visit(name="ann", **options)
    press = tab.page.get_by_role
    alert, heading = tab.page.get_by_role("alert"), tab.page.get_by_role("heading", level=1)
    found: list[str] = []

    def go(page: str) -> None:
        tab.go("/")  # a fragment alone loads no page
        tab.go(f"/account/{page}")
        expect(heading).to_be_visible()

    def look(place: str) -> None:
        found.extend(problems(tab, place))

    for page in ("sign-in", "sign-up", "forgot", "reset", "reset#token=x", "mails"):
        go(page)
        look(page)
    go("reset#token=x")
    tab.page.get_by_label("New password").fill(PASSWORD)
    press("button", name="Set the password").click()
    expect(alert).to_be_visible()
    look("a link to reset that is none")
    go("verify#token=x")
    expect(alert).to_be_visible()
    look("a link to verify that is none")
    go("sign-in")
    sign_in(tab, "nobody@example.net")
    expect(alert).to_be_visible()
    look("not signed in")
    go("sign-up")
    fill_in(tab, "ann@example.net", "ann@example.net", "Create account")
    expect(alert).to_be_visible()
    look("a password that is none")
    fill_in(tab, "ann@example.net", PASSWORD, "Create account")
    expect(heading).to_have_text("Look into your mail")
    look("a mail of signing up")
    go("mails")
    expect(tab.page.get_by_text("ann@example.net")).to_be_visible()
    look("mails that were sent")
    go("forgot")
    tab.page.get_by_label("E-mail address").fill("ann@example.net")
    press("button", name="Send the link").click()
    expect(heading).to_have_text("Look into your mail")
    look("a mail to reset")
    go("sign-in")
    press("button", name="Try without an account").click()
    inside(tab)
    for page in ("", "invitations", "data", "sign-up"):
        go(page)
        look(f"a guest's {page or 'account'}")
    assert not found, "\n".join(sorted(set(found)))
