"""Two people at once: what one does the other sees, without reloading anything."""

import re

from playwright.sync_api import Locator, expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.tab import DRAFT, NOTEBOOK

DEMO_TASK = "Record a two-minute demo"


def test_a_board_changes_under_the_eyes_of_both(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    alice.add("Bake a cake")
    expect(bob.card("Bake a cake", "To do")).to_be_visible()
    bob.rename("Bake a cake", "Bake two cakes")
    expect(alice.card("Bake two cakes", "To do")).to_be_visible()

    dialog = bob.open("Bake two cakes")
    dialog.get_by_label("Status").select_option("In progress")
    expect(alice.card("Bake two cakes", "In progress")).to_be_visible()
    expect(alice.card("Bake two cakes", "To do")).to_have_count(0)

    alice.open("Bake two cakes")
    expect(bob.dialog.get_by_label("Alice on this task now")).to_be_visible()
    for tab, text in ((alice, "With cherries?"), (bob, "Of course.")):
        tab.dialog.get_by_label("Write a comment").fill(text)
        tab.dialog.get_by_role("button", name="Comment", exact=True).click()
    for tab in (alice, bob):
        expect(tab.dialog.locator(".comment-text")).to_have_text(["With cherries?", "Of course."])

    bob.dialog.get_by_role("button", name="Delete task").click()
    expect(alice.dialog).to_contain_text("This task is not here any more.")
    alice.close()
    expect(alice.card("Bake two cakes")).to_have_count(0)
    bob.toasts.get_by_role("button", name="Restore").click()
    expect(alice.card("Bake two cakes", "In progress")).to_be_visible()
    assert sql("select status from tasks where title = 'Bake two cakes'") == "in_progress"


def test_a_note_changes_under_the_eyes_of_both(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.go(f"/notes/{NOTEBOOK}/{DRAFT}")
        expect(tab.page.get_by_label("Title", exact=True)).to_have_value("Announcement, draft")
    expect(alice.page.get_by_label("Bob on this note now").first).to_be_visible()

    alice.page.get_by_label("Text in Markdown").fill("# Soon\n\n**Really** soon.")
    expect(bob.page.get_by_label("Text in Markdown")).to_have_value("# Soon\n\n**Really** soon.")
    expect(bob.page.get_by_label("Preview").get_by_role("heading", name="Soon")).to_be_visible()
    bob.page.get_by_label("Title", exact=True).fill("Announced")
    expect(alice.page.get_by_label("Title", exact=True)).to_have_value("Announced")
    row = alice.page.get_by_role("region", name="Notes").get_by_role("link")
    expect(row.filter(has_text="Announced")).to_contain_text("Soon")

    bob.page.get_by_label("Add a tag").fill("ready")
    bob.page.get_by_label("Add a tag").press("Enter")
    expect(alice.page.get_by_role("button", name="Remove tag ready")).to_be_visible()
    assert sql("select tags::text from notes where id = %s", DRAFT) == '["writing", "ready"]'


def test_what_others_type_does_not_move_the_caret(open_as: Visit) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.go(f"/notes/{NOTEBOOK}/{DRAFT}")
    text = bob.page.get_by_label("Text in Markdown")
    expect(text).to_have_value(re.compile("^Your database"))
    others = alice.page.get_by_label("Text in Markdown")
    type_after(text, "Your ", "own ")
    expect(others).to_have_value(re.compile("^Your own database"))
    type_after(others, "", "News: ")
    expect(text).to_have_value(re.compile("^News: Your own database"))
    # The caret stays with the word it stood behind.
    text.press_sequentially("good ")
    expect(others).to_have_value(re.compile("^News: Your own good database"))


def type_after(text: Locator, before: str, new: str) -> None:
    """Types in a text, behind what it begins with."""
    text.press("Control+Home")
    for _ in before:
        text.press("ArrowRight")
    text.press_sequentially(new)


def test_a_confirmed_edit_never_shows_the_old_value_again(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    expect(bob.card(DEMO_TASK)).to_be_visible()
    # Every text that a card of this task ever shows, in whichever column, and where it stands.
    watch = """() => {
      const id = [...document.querySelectorAll(".card-title")]
        .find((card) => card.textContent === "Record a two-minute demo").id;
      window.shown = [];
      const look = () => {
        const now = [...document.querySelectorAll(".card-title")]
          .filter((card) => card.id === id)
          .map((card) => `${card.closest("section").ariaLabel}: ${card.textContent}`)
          .join(" | ");
        if (window.shown.at(-1) !== now) window.shown.push(now);
      };
      look();
      new MutationObserver(look).observe(document.getElementById("app"), {
        subtree: true, childList: true, characterData: true, attributes: true,
      });
    }"""
    for tab in (alice, bob):
        tab.page.evaluate(watch)
    titles = [f"Take {number}" for number in range(1, 6)]
    for before, after in zip([DEMO_TASK, *titles], titles, strict=False):
        alice.rename(before, after)
        expect(alice.badge).to_have_text("Saved")
    alice.open(titles[-1]).get_by_label("Status").select_option("Done")
    alice.close()
    expect(bob.card(titles[-1], "Done")).to_be_visible()
    expect(alice.badge).to_have_text("Saved")
    states = [f"To do: {title}" for title in (DEMO_TASK, *titles)] + [f"Done: {titles[-1]}"]
    for tab in (alice, bob):
        shown = tab.page.evaluate("window.shown")
        assert shown == states, tab.name
    assert sql("select version from tasks where title = %s", titles[-1]) == 1 + len(states) - 1
