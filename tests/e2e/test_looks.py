"""Hands and eyes: mouse, finger, keys, screen readers, small screens, both looks."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.e2e.axe import problems
from tests.e2e.conftest import Sql, Visit
from tests.e2e.tab import DRAFT, LAUNCH, NOTEBOOK, Tab

DEMO_TASK = "Record a two-minute demo"
CONTRAST = "Check the contrast of the colours"
PHONE = {"viewport": {"width": 375, "height": 720}, "has_touch": True, "is_mobile": True}
TITLES = [DEMO_TASK, CONTRAST, "Proofread the tutorial", "Ask five people to try it"]


def box(tab: Tab, title: str) -> tuple[float, float]:
    """The middle of a card."""
    found = tab.card(title).bounding_box()
    assert found is not None
    return found["x"] + found["width"] / 2, found["y"] + found["height"] / 2


def test_a_card_is_dragged_with_the_mouse(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    mouse = alice.page.mouse
    x, y = box(alice, DEMO_TASK)
    to_x, to_y = box(alice, "Reserve the domain")
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 20, y + 20)
    expect(alice.page.locator(".floating")).to_be_visible()
    mouse.move(to_x, to_y - 8, steps=5)
    expect(alice.column("Done")).to_have_attribute("data-into", "true")
    mouse.up()
    expect(alice.page.locator(".floating")).to_have_count(0)
    expect(alice.dialog).to_have_count(0)  # it was no click
    for tab in (alice, bob):
        expect(tab.cards("Done")).to_have_text(
            ["Choose a licence", DEMO_TASK, "Reserve the domain"]
        )
    alice.until_sent()
    assert sql("select status from tasks where title = %s", DEMO_TASK) == "done"
    # Let go with Escape it stays where it was.
    x, y = box(alice, CONTRAST)
    mouse.move(x, y)
    mouse.down()
    mouse.move(to_x, to_y, steps=3)
    alice.page.keyboard.press("Escape")
    mouse.up()
    expect(alice.card(CONTRAST, "To do")).to_be_visible()
    # Two operations, one step of undo.
    alice.page.get_by_role("button", name="Undo").click()
    for tab in (alice, bob):
        expect(tab.cards("To do")).to_have_text(TITLES)


def test_a_card_is_dragged_with_a_finger(open_as: Visit) -> None:
    alice = open_as("alice", **PHONE)
    hand = alice.page.context.new_cdp_session(alice.page)

    def touch(kind: str, *at: float) -> None:
        points = [{"x": at[0], "y": at[1]}] if at else []
        hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    x, y = box(alice, CONTRAST)
    touch("touchStart", x, y)
    expect(alice.page.locator(".floating")).to_be_visible()  # held long enough
    touch("touchMove", x, y - 60)
    touch("touchMove", x, y - 110)
    touch("touchEnd")
    expect(alice.cards("To do")).to_have_text([CONTRAST, DEMO_TASK, *TITLES[2:]])
    expect(alice.dialog).to_have_count(0)
    alice.page.get_by_label("Boards and notebooks").tap()
    expect(alice.page.get_by_role("navigation", name="Boards")).to_be_in_viewport()


def test_everything_goes_by_keys(open_as: Visit) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    keys = alice.page.keyboard
    alice.card(DEMO_TASK).focus()
    keys.press("ArrowDown")
    expect(alice.card(CONTRAST)).to_be_focused()
    keys.press("ArrowRight")
    expect(alice.card("Load test with 1 000 clients")).to_be_focused()
    keys.press("ArrowLeft")
    expect(alice.card(CONTRAST)).to_be_focused()
    # With Shift the task goes along, and the focus with it; it is said where it is.
    keys.press("Shift+ArrowRight")
    expect(alice.card(CONTRAST, "In progress")).to_be_focused()
    said = alice.page.get_by_role("status").filter(has_text=CONTRAST)
    expect(said).to_have_text(f"{CONTRAST}: In progress, 2 of 3")
    keys.press("Shift+ArrowUp")
    expect(alice.card(CONTRAST)).to_be_focused()
    for tab in (alice, bob):
        expect(tab.cards("In progress")).to_have_text(
            [CONTRAST, "Write the announcement", "Load test with 1 000 clients"]
        )
    # A dialog takes the focus, keeps it, and gives it back.
    keys.press("Enter")
    expect(alice.dialog).to_be_visible()
    for _ in range(30):
        keys.press("Tab")
        inside = (
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert alice.page.evaluate(inside)
    keys.press("Escape")
    expect(alice.dialog).to_have_count(0)
    expect(alice.card(CONTRAST)).to_be_focused()
    menu = alice.page.get_by_role("button", name="Workspace Demo")
    menu.press("Enter")
    expect(alice.page.get_by_role("menuitem", name="New board …")).to_be_focused()
    keys.press("ArrowUp")
    expect(alice.page.get_by_role("menuitem", name="Delete")).to_be_focused()
    keys.press("Escape")
    expect(menu).to_be_focused()


def attach_some(tab: Tab) -> None:
    """A task with a file, one that is under way, and one that is refused."""
    tab.open(DEMO_TASK)
    tab.choose("Add files", ("Plan.txt", "text/plain", b"text"))
    files = tab.page.get_by_role("region", name="Attachments")
    expect(files.get_by_role("button", name="Plan.txt", exact=True)).to_be_enabled()
    tab.page.route("**/api/files/upload", lambda route: route.fulfill(status=404, json={}))
    tab.choose("Add files", ("Refused.txt", "text/plain", b"text"))
    expect(files.get_by_role("button", name="Retry Refused.txt")).to_be_visible()
    tab.page.unroute("**/api/files/upload")
    tab.page.route("**/api/files/content*", lambda route: None)
    tab.choose("Add files", ("A long name: " + "Donau" * 40, "text/plain", b"text"))
    expect(files.get_by_role("progressbar")).to_be_visible()


def insert_one(tab: Tab) -> None:
    """A note with an image that is under way, as it is read."""
    tab.choose("Insert images", ("Sketch.png", "image/png", b"no picture yet"))
    expect(tab.page.get_by_role("progressbar")).to_be_visible()
    read = tab.page.get_by_role("button", name="Read")
    if read.is_visible():
        read.click()
    expect(tab.page.get_by_label("Preview")).to_contain_text("Sketch.png")


def look_at_refused(tab: Tab) -> None:
    """Two changes that no table takes, one of a title that goes on and on."""
    for title in ("HURRY", "A LONG TITLE: " + "DONAUDAMPFSCHIFFFAHRT" * 12):
        field = tab.page.get_by_label("Add a task to To do")
        field.fill(title)
        field.press("Enter")
    tab.page.get_by_role("button", name="2 refused").click()
    expect(tab.dialog.get_by_role("button", name="Discard all")).to_be_visible()


def menu_of_user(tab: Tab) -> None:
    drawer = tab.page.get_by_role("button", name="Boards and notebooks")
    if drawer.is_visible():
        drawer.click()
    tab.page.get_by_role("button", name="you and this window").click()


def show_devtools(tab: Tab) -> None:
    menu_of_user(tab)
    tab.page.get_by_role("menuitem", name="Show devtools").click()
    expect(tab.page.get_by_role("tab", name="keys")).to_be_visible()


PLACES: dict[str, Callable[[Tab], object]] = {
    "sign-in": lambda tab: expect(tab.page.get_by_role("heading", level=1)).to_be_visible(),
    "board": lambda tab: expect(tab.card(DEMO_TASK)).to_be_visible(),
    "task": lambda tab: tab.open(DEMO_TASK),
    "files": attach_some,
    "filtered": lambda tab: tab.page.get_by_label("Search tasks").fill("nothing like it"),
    "share": lambda tab: tab.page.get_by_role("button", name="Share", exact=True).click(),
    "menu": lambda tab: tab.page.get_by_role("button", name="Board", exact=True).click(),
    "user": menu_of_user,
    "devtools": show_devtools,
    "refused": look_at_refused,
    "account": lambda tab: tab.go("/account"),
    "note": lambda tab: tab.go(f"/notes/{NOTEBOOK}/{DRAFT}"),
    "image": insert_one,
    "notes": lambda tab: tab.go(f"/notes/{NOTEBOOK}"),
    "gone": lambda tab: tab.go(f"/tasks/{LAUNCH[:-1]}9"),
}
# To which one does not come from a board.
ELSEWHERE = ("sign-in", "account", "note", "image", "notes", "gone")


@pytest.mark.parametrize(
    "options",
    [{}, {"color_scheme": "dark"}, PHONE],
    ids=["light", "dark", "phone"],
)
def test_every_page_can_be_read_and_named(visit: Visit, sql: Sql, options: dict[str, Any]) -> None:
    sql("alter table tasks add constraint no_shouting check (title <> upper(title))")
    tab = visit(name="alice", **options)
    found: list[str] = []
    for place, go in PLACES.items():
        if place not in ELSEWHERE:
            tab.go(f"/tasks/{LAUNCH}")
        if place == "board":
            tab.go("/")
            tab.sign_in("alice")
            tab.add("A long title: " + "Donaudampfschifffahrt" * 12 + " 🚢")
        elif place not in ELSEWHERE:
            expect(tab.card(DEMO_TASK)).to_be_visible()
        go(tab)
        found += problems(tab, place)
    assert not found, "\n".join(sorted(set(found)))


def test_the_parts_of_a_page_have_names(open_as: Visit) -> None:
    page = open_as("alice").page
    for name in ("Apps", "Boards"):
        expect(page.get_by_role("navigation", name=name)).to_be_visible()
    for column in ("To do", "In progress", "Done"):
        expect(page.get_by_role("region", name=column)).to_be_visible()
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_have_text("Launch")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    assert re.search("Tasks", page.title())
