"""One browser, several users: nobody finds anything of the one before."""

import json

from playwright.sync_api import expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site
from tests.e2e.tab import LAUNCH, Tab

ALICE = "00000000-0000-7000-8000-00000000a11c"
CAROL = "00000000-0000-7000-8000-00000000ca01"
CONTRAST = "Check the contrast of the colours"
# What Alice can read and Carol cannot: ids and words of it.
OF_ALICE = (
    ALICE,
    "0000000a0001",
    "0000000b0001",
    "0000000c0001",
    "0000000e0002",
    "Launch",
    "Nobody else reads this.",
    "Written for later",
    CONTRAST,
)


def secrets_in(text: str) -> list[str]:
    return [word for word in OF_ALICE if word in text]


def seen(tab: Tab) -> str:
    """All of a page: its text, its attributes, what is typed in fields."""
    values = "[...document.querySelectorAll('input, textarea')].map(({ value }) => value).join()"
    return f"{tab.page.content()} {tab.page.evaluate(values)}"


def databases_of(tab: Tab, user: str) -> str:
    return json.dumps({k: v for k, v in tab.databases().items() if user in k})


def test_who_signs_in_next_finds_nothing(open_as: Visit) -> None:
    tab = open_as("alice")
    tab.until_kept()
    tab.sign_out()
    expect(tab.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()
    assert not secrets_in(json.dumps(tab.databases()))
    tab.sign_in("carol")
    tab.until_kept()
    expect(tab.card("Plant tomatoes")).to_be_visible()
    assert "tomatoes" in databases_of(tab, CAROL)
    assert not secrets_in(json.dumps(tab.databases()))
    assert not secrets_in(seen(tab))
    assert not secrets_in(json.dumps(tab.kept_files()))
    storage = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }])"
    # When somebody signed out tells his other windows to; it says no more than whose they were.
    assert secrets_in(tab.page.evaluate(storage)) in ([], [ALICE])
    # An address that Alice left behind leads nowhere.
    tab.go(f"/tasks/{LAUNCH}")
    expect(tab.page.get_by_role("heading", name="This board is not here")).to_be_visible()


def test_unsent_changes_wait_for_their_author(open_as: Visit, site: Site, sql: Sql) -> None:
    tab = open_as("alice")
    tab.until_kept()
    site.stop()
    expect(tab.badge).to_have_text("Offline")
    tab.add("Written for later")
    tab.rename(CONTRAST, "Check the colours later")
    tab.sign_out()
    expect(tab.dialog).to_contain_text("2 not sent yet.")
    tab.dialog.get_by_role("button", name="Stay").click()
    expect(tab.badge).to_have_text("Offline2 changes waiting")
    tab.sign_out()
    tab.dialog.get_by_role("button", name="Keep for next time").click()
    tab.page.get_by_role("button", name="carol").click()
    expect(tab.page.get_by_role("alert")).to_have_text("The server cannot be reached.")
    site.start()

    tab.sign_in("carol")
    tab.until_kept()
    assert not secrets_in(seen(tab))
    assert not secrets_in(databases_of(tab, CAROL))
    tab.add("Water the beans")
    tab.until_sent(CAROL)
    assert sql("select count(*) from tasks where title = 'Written for later'") == 0
    # Of Alice nothing is left but what she has not sent.
    left = {
        (name, store)
        for name, stores in tab.databases().items()
        for store, rows in stores.items()
        if ALICE in name and rows
    }
    assert {store for _, store in left} == {"queue"}, left

    tab.sign_out()
    tab.sign_in("alice")
    tab.until_sent()
    for title in ("Written for later", "Check the colours later"):
        expect(tab.card(title, "To do")).to_have_count(1)
        author = "select created_by::text || version from tasks where title = %s"
        assert sql(author, title) in (f"{ALICE}1", "00000000-0000-7000-8000-000000000b0b2")


def test_signing_out_in_one_window_ends_all_of_this_user(open_as: Visit, visit: Visit) -> None:
    first = open_as("alice")
    second = visit(first, name="alice again")
    expect(second.card(CONTRAST)).to_be_visible()
    third = visit(first, name="bob beside them")
    expect(third.card(CONTRAST)).to_be_visible()
    third.in_menu_as("bob")
    expect(third.page.get_by_role("button", name="Bob, you and this window")).to_be_visible()
    first.sign_out()
    for tab in (first, second):
        expect(tab.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()
    third.add("Still at work")
    third.until_sent("00000000-0000-7000-8000-000000000b0b")


def test_one_window_goes_on_as_another_user(open_as: Visit, site: Site) -> None:
    tab = open_as("alice")
    tab.until_kept()
    tab.in_menu_as("carol")
    expect(tab.card("Plant tomatoes")).to_be_visible()
    assert not secrets_in(seen(tab))
    tab.until_kept()
    # A new start without a network: still Carol, with her own data.
    site.stop()
    tab.page.reload()
    expect(tab.card("Plant tomatoes")).to_be_visible()
    assert not secrets_in(seen(tab))
    tab.in_menu_as("alice")
    expect(tab.toasts).to_contain_text("To change user you have to be online.")
