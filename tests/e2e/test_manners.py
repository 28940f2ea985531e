"""What people type, forget and do twice."""

from playwright.sync_api import expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site
from tests.e2e.tab import DRAFT, NOTEBOOK

DEMO_TASK = "Record a two-minute demo"
ODD = [
    "👩‍👩‍👧‍👦 🏳️‍🌈 日本語 العربية",
    "<b onclick=alert(1)>not bold</b>",
    "'; drop table tasks; --",
    "%s {{x}} \\n \\u0000 &amp;",
]


def test_odd_titles_are_titles(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for title in ODD:
        alice.add(f"  {title} ")
    for title in ODD:
        expect(bob.card(title, "To do")).to_be_visible()
    alice.until_sent()
    assert sql("select count(*) from tasks where title = any(%s)", ODD) == len(ODD)


def test_nothing_is_no_task_and_an_empty_title_has_a_word(open_as: Visit, sql: Sql) -> None:
    alice = open_as("alice")
    tasks = sql("select count(*) from tasks")
    field = alice.page.get_by_label("Add a task to To do")
    field.fill("   ")
    field.press("Enter")
    expect(field).to_have_value("")
    expect(alice.cards("To do")).to_have_count(4)
    field.fill("x" * 600)
    expect(field).to_have_value("x" * 500)
    field.press("Enter")
    expect(alice.card("x" * 500)).to_be_visible()
    title = alice.open(DEMO_TASK).get_by_label("Title", exact=True)
    title.fill("")
    title.press("Enter")
    alice.close()
    expect(alice.card("Untitled", "To do")).to_be_visible()
    expect(alice.page.get_by_role("button", name="refused")).to_have_count(0)
    alice.until_sent()
    assert sql("select count(*) from tasks") == tasks + 1


def test_a_new_board_is_empty_and_says_what_to_do(open_as: Visit) -> None:
    alice = open_as("alice")
    alice.in_menu("Workspace Demo", "New board …")
    name = alice.dialog.get_by_label("Name")
    name.fill("   ")
    name.press("Enter")
    expect(alice.dialog).to_have_count(0)
    alice.in_menu("Workspace Demo", "New board …")
    name.fill("Spring")
    name.press("Enter")
    expect(alice.page.get_by_label("Name of the board")).to_have_value("Spring")
    expect(alice.page.get_by_role("navigation", name="Boards")).to_contain_text("Spring")
    for column in ("To do", "In progress", "Done"):
        expect(alice.page.get_by_label(f"Add a task to {column}")).to_be_visible()
    alice.add("Sow")
    alice.page.get_by_label("Search tasks").fill("nothing like it")
    expect(alice.card("Sow")).to_have_count(0)
    expect(alice.page.get_by_text("Nothing matches.")).to_be_visible()
    alice.page.get_by_role("button", name="Show all tasks").click()
    expect(alice.card("Sow")).to_be_visible()


def test_a_date_is_written_when_it_is_whole(open_as: Visit, sql: Sql) -> None:
    alice = open_as("alice")
    alice.open(DEMO_TASK)
    due = alice.dialog.get_by_label("Due")
    due.press("ArrowUp")  # into the month
    due.press_sequentially("12312030")
    expect(due).to_have_value("2030-12-31")
    alice.close()
    alice.until_sent()
    row = "select jsonb_build_array(due_date, version) from tasks where title = %s"
    assert sql(row, DEMO_TASK)[0] == "2030-12-31"
    assert sql(row, DEMO_TASK)[1] <= 3  # the month, perhaps, and then the whole


def test_nobody_is_asked_in_twice(open_as: Visit) -> None:
    alice = open_as("alice")
    alice.page.get_by_role("button", name="Share", exact=True).click()
    name, said = alice.dialog.get_by_label("Share with"), alice.shared
    for typed, answer in (
        ("mallory", "Nobody signs in as “mallory”."),
        (" BOB ", "Bob is in already."),
        ("alice", "Alice is in already."),
    ):
        name.fill(typed)
        name.press("Enter")
        expect(said).to_have_text(answer)


def test_a_part_that_cannot_be_loaded_takes_nothing_else_along(open_as: Visit, site: Site) -> None:
    # As for a page that is older than the files of its server.
    for part in (site.folder / "assets").glob("preview-*"):
        part.unlink()
    bob = open_as("bob")
    bob.page.get_by_role("link", name="Notes", exact=True).click()
    bob.page.get_by_role("link", name="Launch notes").click()
    bob.page.get_by_role("region", name="Notes").get_by_role("link").first.click()
    expect(bob.page.get_by_text("This part could not be loaded.")).to_be_visible()
    bob.page.get_by_label("Text in Markdown").fill("All the same")
    bob.until_sent()


def test_markdown_of_others_runs_nothing(open_as: Visit) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.go(f"/notes/{NOTEBOOK}/{DRAFT}")
    alice.page.get_by_label("Text in Markdown").fill(
        "<script>window.run = 1</script><img src=x onerror='window.run = 1'>\n\n"
        "[press](javascript:window.run=1)\n\nThe end"
    )
    expect(bob.page.get_by_label("Preview")).to_contain_text("The end")
    bob.page.get_by_label("Preview").get_by_text("press").click()
    assert bob.page.evaluate("window.run") is None
