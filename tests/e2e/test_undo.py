"""Steps back and forth of one tab, among the changes of others."""

from playwright.sync_api import expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.tab import Tab

DEMO_TASK = "Record a two-minute demo"
SKIPPED = "Somebody has changed it since: that part stays as it is."


def undo(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Undo").click()


def tags(tab: Tab) -> list[str]:
    return tab.dialog.locator(".tag.removable").all_inner_texts()


def test_a_change_of_somebody_else_is_not_undone(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    alice.rename(DEMO_TASK, "By Alice")
    expect(bob.card("By Alice")).to_be_visible()
    bob.rename("By Alice", "By Bob")
    expect(alice.card("By Bob")).to_be_visible()
    undo(alice)
    expect(alice.toasts).to_contain_text(SKIPPED)
    expect(alice.card("By Bob")).to_be_visible()
    expect(alice.page.get_by_role("button", name="Undo")).to_be_disabled()
    undo(bob)
    for tab in (alice, bob):
        expect(tab.card("By Alice")).to_be_visible()
    assert sql("select count(*) from tasks where title = 'By Alice'") == 1


def test_the_keys_say_what_they_left_alone_too(open_as: Visit) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    alice.rename(DEMO_TASK, "By Alice")
    expect(bob.card("By Alice")).to_be_visible()
    bob.rename("By Alice", "By Bob")
    expect(alice.card("By Bob")).to_be_visible()
    alice.page.keyboard.press("Control+z")
    expect(alice.toasts).to_contain_text(SKIPPED)


def test_undoing_a_tag_keeps_those_of_others(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.open(DEMO_TASK)
    for tab, tag in ((alice, "soon"), (bob, "fun")):
        field = tab.dialog.get_by_label("Add a tag")
        field.fill(tag)
        field.press("Enter")
        expect(alice.dialog.get_by_role("button", name=f"Remove tag {tag}")).to_be_visible()
        expect(bob.dialog.get_by_role("button", name=f"Remove tag {tag}")).to_be_visible()
    alice.dialog.get_by_role("button", name="Remove tag launch").click()
    expect(bob.dialog.get_by_role("button", name="Remove tag launch")).to_have_count(0)
    alice.close()
    undo(alice)
    expect(bob.dialog.get_by_role("button", name="Remove tag launch")).to_be_visible()
    undo(alice)
    expect(bob.dialog.get_by_role("button", name="Remove tag soon")).to_have_count(0)
    assert tags(bob) == ["launch", "video", "fun"]
    bob.close()
    alice.until_sent()
    assert sql("select tags from tasks where title = %s", DEMO_TASK) == ["launch", "video", "fun"]


def test_keys_take_steps_back_and_forth(open_as: Visit) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    alice.rename(DEMO_TASK, "First")
    alice.add("Second")
    keys = alice.page.keyboard
    # In a text field the keys belong to the browser, which undoes typing.
    field = alice.page.get_by_label("Add a task to To do")
    field.press_sequentially("typed")
    field.press("Control+z")
    expect(alice.card("Second")).to_be_visible()
    field.fill("")
    alice.card("First").focus()
    keys.press("Control+z")
    expect(alice.card("Second")).to_have_count(0)
    keys.press("Control+z")
    expect(alice.card(DEMO_TASK)).to_be_visible()
    expect(alice.page.get_by_role("button", name="Undo")).to_be_disabled()
    keys.press("Control+Shift+z")
    expect(alice.card("First")).to_be_visible()
    keys.press("Control+Shift+z")
    for tab in (alice, bob):
        expect(tab.card("First")).to_be_visible()
        expect(tab.card("Second")).to_be_visible()
    expect(alice.page.get_by_role("button", name="Redo")).to_be_disabled()
