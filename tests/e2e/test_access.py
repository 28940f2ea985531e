"""Rights end, and writes are refused: what is shown then, and what is left on the device."""

import json

from playwright.sync_api import expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site
from tests.e2e.tab import Tab

DEMO_TASK = "Record a two-minute demo"


def send_bob_away(alice: Tab) -> None:
    alice.page.get_by_role("button", name="Share", exact=True).click()
    alice.dialog.get_by_role("button", name="Remove").click()
    expect(alice.dialog.get_by_role("button", name="Remove")).to_have_count(0)
    alice.close()


def test_a_board_disappears_with_the_right_to_see_it(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    bob.until_kept()
    assert DEMO_TASK in json.dumps(bob.databases())
    send_bob_away(alice)

    expect(bob.page.get_by_role("heading", name="This board is not here")).to_be_visible()
    expect(bob.page.get_by_role("navigation", name="Boards")).not_to_contain_text("Launch")
    bob.until_not_kept(DEMO_TASK, "0000000c0001", "What is left to do before")
    # What he still shares with her stays.
    bob.page.get_by_role("link", name="Notes", exact=True).click()
    expect(bob.page.get_by_role("navigation", name="Notebooks")).to_contain_text("Launch notes")
    # Asked in again he has it again.
    alice.page.get_by_role("button", name="Share", exact=True).click()
    alice.dialog.get_by_label("Share with").fill("Bob")
    alice.dialog.get_by_role("button", name="Share", exact=True).click()
    expect(alice.shared).to_have_text("Bob is in.")
    bob.page.get_by_role("link", name="Tasks", exact=True).click()
    bob.page.get_by_role("link", name="Launch", exact=True).click()
    expect(bob.card(DEMO_TASK)).to_be_visible()


def test_what_was_written_without_the_right_to_is_refused_with_its_reason(
    open_as: Visit, site: Site, sql: Sql
) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    bob.until_kept()
    site.stop()
    expect(bob.badge).to_have_text("Offline")
    bob.rename(DEMO_TASK, "Mine now")
    bob.add("Mine, too")
    sql("update workspaces set member_ids = '[]' where name = 'Demo'")
    site.start()
    bob.wake()
    refused = bob.page.get_by_role("button", name="2 refused")
    refused.click()
    items = bob.dialog.get_by_role("listitem")
    expect(items).to_have_text(
        [
            "Title of a task: “Mine now”It is not there any more, or you may not change it."
            "RetryDiscard",
            "New task “Mine, too”It is not there any more, or you may not change it.RetryDiscard",
        ]
    )
    bob.page.reload()
    refused.click()
    items.nth(1).get_by_role("button", name="Discard").click()
    expect(items).to_have_count(1)
    # His right is given back: now it may be tried again.
    sql(
        "update workspaces set member_ids = '[\"00000000-0000-7000-8000-000000000b0b\"]'"
        " where name = 'Demo'"
    )
    items.first.get_by_role("button", name="Retry").click()
    expect(bob.dialog).to_have_count(0)
    expect(alice.card("Mine now")).to_be_visible()
    assert sql("select count(*) from tasks where title like 'Mine%%'") == 1


def test_a_refused_value_is_taken_back_and_explained(open_as: Visit, sql: Sql) -> None:
    sql(
        "alter table tasks add constraint no_shouting check (title <> upper(title));"
        "comment on constraint no_shouting on tasks is 'A title is not all capitals.'"
    )
    alice, bob = open_as("alice"), open_as("bob")
    field = alice.open(DEMO_TASK).get_by_label("Title", exact=True)
    field.fill("QUICK")
    field.press("Enter")
    expect(field).to_have_value(DEMO_TASK)
    alice.close()
    expect(alice.card(DEMO_TASK)).to_be_visible()
    alice.page.get_by_label("Add a task to Done").fill("HURRY")
    alice.page.get_by_label("Add a task to Done").press("Enter")
    alice.page.get_by_role("button", name="2 refused").click()
    expect(alice.dialog.get_by_role("listitem")).to_have_text(
        [
            "Title of a task: “QUICK”A title is not all capitals.RetryDiscard",
            "New task “HURRY”A title is not all capitals.RetryDiscard",
        ]
    )
    alice.dialog.get_by_role("button", name="Discard all").click()
    expect(alice.dialog).to_have_count(0)
    expect(alice.card("HURRY")).to_have_count(0)
    expect(alice.badge).to_have_text("Saved")
    # What comes after a refusal goes on.
    alice.rename(DEMO_TASK, "Quick")
    expect(bob.card("Quick")).to_be_visible()
    assert sql("select count(*) from tasks where title = upper(title)") == 0
