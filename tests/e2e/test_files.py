"""Files: attached to tasks, shown in notes; what is waited for, given up, refused, and lost."""

import re

from playwright.sync_api import Locator, Response, Route, expect

from tests.e2e.attachments import ALIVE, NAME, REPORT, attach, attached, files_of, png
from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site, until
from tests.e2e.tab import DRAFT, LAUNCH, NOTEBOOK, Tab

DEMO_TASK = "Record a two-minute demo"
TASK = "select id from tasks where title = 'Record a two-minute demo'"
FILES = "select count(*) from task_files where deleted is null"
CONTENT = "**/api/files/content*"
# How far the bars of progress have been, once a test has asked.
WATCH = """() => {
  window.sent = [];
  new MutationObserver(() => {
    const bars = document.querySelectorAll("progress");
    for (const { value, max } of bars) window.sent.push(value / max);
  }).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
# The first upload breaks off in the middle.
BREAK = """() => {
  const { send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.send = function (body) {
    this.upload.addEventListener("progress", ({ loaded, total }) => {
      if (loaded > total / 2) this.abort();
    });
    XMLHttpRequest.prototype.send = send;
    send.call(this, body);
  };
}"""
# As one who has lost his right and knows how to ask by hand.
ASK = """async ([user, id]) => {
  const post = (path, body, headers = {}) =>
    fetch(path, { method: "POST", body: JSON.stringify(body), headers, credentials: "omit" });
  const { token } = await (await post("/api/auth/dev-sign-in", { user })).json();
  const body = { table: "taskFiles", id };
  return (await post("/api/files/download", body, { Authorization: `Bearer ${token}` })).status;
}"""


def held(tab: Tab) -> list[Route]:
    """Uploads of this tab stop here from now on."""
    routes: list[Route] = []

    def hold(route: Route) -> None:
        routes.append(route)

    tab.page.route(CONTENT, hold)
    return routes


def arrived(tab: Tab, routes: list[Route]) -> None:
    """Waits until one is there. Asking the page anything lets what it has sent come in."""
    until(lambda: tab.page.title() and routes)


def loaded(picture: Locator) -> None:
    """Waits until a picture is one."""
    expect(picture).to_have_js_property("complete", True)
    until(lambda: picture.evaluate("(image) => image.naturalWidth") > 0)


def test_a_file_is_attached_seen_by_others_and_saved_as_it_was(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    picture = png(600)
    line = alice.page.context.new_cdp_session(alice.page)
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1 << 20},
    )
    alice.page.evaluate(WATCH)
    alice.open(DEMO_TASK)
    attach(alice, (NAME, "image/png", picture))
    bar = alice.page.get_by_role("progressbar", name=f"Upload of {NAME}")
    expect(bar).to_be_visible()
    expect(attached(alice, NAME)).to_be_enabled()
    assert [part for part in alice.page.evaluate("window.sent") if 0 < part < 1]
    expect(bar).to_have_count(0)
    said = alice.page.get_by_role("status").filter(has_text=NAME)
    expect(said).to_have_text(f"{NAME} is attached.")
    expect(alice.badge).to_have_text("Saved")

    expect(bob.page.locator(".card", has_text=DEMO_TASK).locator(".clip")).to_have_text(
        "Attachments: 1"
    )
    bob.open(DEMO_TASK)
    expect(files_of(bob)).to_contain_text("1.1 MB · Alice · just now")
    loaded(files_of(bob).locator("img"))
    with bob.page.expect_download() as download:
        attached(bob, NAME).click()
    assert download.value.suggested_filename == NAME
    assert download.value.path().read_bytes() == picture
    # Others see at once what comes and goes.
    bob.bring("drop", "dialog", REPORT)
    bob.bring("paste", "dialog textarea", ("image.png", "image/png", png(8)))
    expect(attached(bob, REPORT[0])).to_be_enabled()
    for name in (REPORT[0], "image.png"):
        expect(attached(alice, name)).to_be_enabled()
    files_of(alice).get_by_role("button", name="Remove Report.pdf").click()
    expect(attached(bob, REPORT[0])).to_have_count(0)
    alice.toasts.get_by_role("button", name="Restore").click()
    expect(attached(bob, REPORT[0])).to_be_enabled()


def test_without_a_network_a_file_waits_and_goes_on_by_itself(
    open_as: Visit, site: Site, sql: Sql
) -> None:
    alice = open_as("alice")
    alice.until_kept()
    alice.open(DEMO_TASK)
    site.stop()
    expect(alice.badge).to_have_text("Offline")
    attach(alice, REPORT)
    waiting = files_of(alice).get_by_role("status")
    expect(waiting).to_have_text("Waiting for the network; goes on by itself")
    expect(alice.badge).to_contain_text("1 file waiting")
    alice.until_sent("nobody")
    # Its bytes are on this device, and so it is still there after a reload.
    until(lambda: any(kept["bytes"] for kept in uploads_of(alice)))
    alice.page.reload()
    expect(waiting).to_have_text("Waiting for the network; goes on by itself")
    # One that has come to another page by then.
    attach(alice, ("Second.txt", "text/plain", b""))
    site.start()
    alice.wake()
    for name in (REPORT[0], "Second.txt"):
        expect(attached(alice, name)).to_be_enabled()
    expect(alice.badge).to_have_text("Saved")
    until(lambda: not any(kept["files"] or kept["bytes"] for kept in uploads_of(alice)))
    with alice.page.expect_download() as download:
        attached(alice, REPORT[0]).click()
    assert download.value.path().read_bytes() == REPORT[2]
    site.stop()
    attached(alice, "Second.txt").click()
    expect(alice.toasts).to_contain_text("cannot be downloaded. The server cannot be reached.")


def uploads_of(tab: Tab) -> list[dict[str, list[object]]]:
    return [kept for name, kept in tab.databases().items() if name.startswith("rowcast-files:")]


def test_what_the_network_breaks_off_is_sent_again(open_as: Visit, sql: Sql) -> None:
    alice = open_as("alice")
    alice.open(DEMO_TASK)
    broken = held(alice)
    attach(alice, REPORT)
    arrived(alice, broken)
    broken[0].abort()
    alice.page.unroute(CONTENT)
    alice.wake()
    expect(attached(alice, REPORT[0])).to_be_enabled()


def test_an_upload_goes_on_where_it_broke_off(open_as: Visit) -> None:
    alice = open_as("alice")
    line = alice.page.context.new_cdp_session(alice.page)
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 1 << 20},
    )
    alice.page.evaluate(BREAK)
    answers: list[Response] = []
    alice.page.on(
        "response",
        lambda response: answers.append(response) if response.url.endswith("/upload") else None,
    )
    picture = png(1200)
    alice.open(DEMO_TASK)
    attach(alice, (NAME, "image/png", picture))
    expect(attached(alice, NAME)).to_be_enabled()
    # The second time from the middle, and what arrived is what was chosen.
    first, second = (answer.json()["offset"] for answer in answers)
    assert first == 0
    assert 0 < second < len(picture)
    with alice.page.expect_download() as download:
        attached(alice, NAME).click()
    assert download.value.path().read_bytes() == picture


def test_a_member_who_is_sent_away_loses_files_and_links(open_as: Visit, sql: Sql) -> None:
    sql("select sync.configure('file_download_seconds', 2)")
    alice, bob = open_as("alice"), open_as("bob")
    alice.open(DEMO_TASK)
    attach(alice, REPORT)
    expect(attached(alice, REPORT[0])).to_be_enabled()
    alice.close()
    bob.open(DEMO_TASK)
    with bob.page.expect_response("**/api/files/download") as answer:
        attached(bob, REPORT[0]).click()
    url = answer.value.json()["url"]
    id_ = str(sql("select id from task_files"))
    assert bob.page.evaluate(ASK, ["bob", id_]) == 200
    sql("update workspaces set member_ids = '[]' where name = 'Demo'")
    expect(bob.page.get_by_role("heading", name="This board is not here")).to_be_visible()
    expect(bob.page.get_by_text(REPORT[0])).to_have_count(0)
    bob.until_not_kept(REPORT[0], id_)
    assert bob.page.evaluate(ASK, ["bob", id_]) == 403
    until(lambda: not bob.page.evaluate(ALIVE, url))


def test_an_upload_is_given_up(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    bob.open(DEMO_TASK)
    alice.open(DEMO_TASK)
    held(alice)
    attach(alice, REPORT)
    expect(files_of(bob)).to_contain_text("on its way")
    files_of(alice).get_by_role("button", name="Cancel Report.pdf").click()
    for tab in (alice, bob):
        expect(files_of(tab).get_by_role("listitem")).to_have_count(0)
    expect(files_of(alice).get_by_role("button", name="Add files")).to_be_focused()
    alice.until_sent()
    assert sql(FILES) == 0
    alice.page.reload()
    expect(files_of(alice)).to_be_visible()
    expect(files_of(alice).get_by_role("listitem")).to_have_count(0)


def test_a_refusal_says_why_and_may_be_tried_again(open_as: Visit, sql: Sql) -> None:
    sql("select sync.configure('max_file_bytes', 100)")
    sql("select sync.configure('file_quota_bytes', 150)")
    sql(
        "alter table task_files add constraint no_zip check (type <> 'application/zip');"
        "comment on constraint no_zip on task_files is 'Archives are not attached here'"
    )
    alice = open_as("alice")
    alice.open(DEMO_TASK)
    rows = files_of(alice).get_by_role("listitem")
    attach(
        alice,
        ("Long.txt", "text/plain", b"x" * 101),
        ("Packed.zip", "application/zip", b"PK"),
        ("First.txt", "text/plain", b"x" * 90),
    )
    expect(attached(alice, "First.txt")).to_be_enabled()
    attach(alice, ("Full.txt", "text/plain", b"x" * 90))
    for name, why in (
        ("Long.txt", "The file is larger than files may be here."),
        ("Packed.zip", "Archives are not attached here."),
        ("Full.txt", "Your files would take more room than you have; delete some."),
    ):
        expect(rows.filter(has_text=name).get_by_role("status")).to_have_text(why)
    # It is said here, and not once more among other changes.
    expect(alice.page.get_by_role("button", name="refused")).to_have_count(0)
    expect(alice.badge).to_have_text("Saved")
    alice.page.reload()
    expect(rows.filter(has_text="Packed.zip").get_by_role("status")).to_have_text(
        "Archives are not attached here."
    )
    files_of(alice).get_by_role("button", name="Discard Packed.zip").click()
    sql("select sync.configure('max_file_bytes', 1000)")
    sql("select sync.configure('file_quota_bytes', 1000)")
    files_of(alice).get_by_role("button", name="Retry Full.txt").click()
    files_of(alice).get_by_role("button", name="Retry Long.txt").click()
    for name in ("Full.txt", "Long.txt"):
        expect(attached(alice, name)).to_be_enabled()
    expect(rows).to_have_count(3)
    # Where the right is gone.
    routes = held(alice)
    attach(alice, ("Late.txt", "text/plain", b"late"))
    arrived(alice, routes)
    carol = "00000000-0000-7000-8000-00000000ca01"
    sql("update workspaces set owner_id = %s, member_ids = '[]'", carol)
    expect(alice.page.get_by_role("heading", name="This board is not here")).to_be_visible()
    assert sql("select count(*) from task_files where name = 'Late.txt' and state = 'ready'") == 0


def test_signing_out_asks_for_files_and_takes_them_along(open_as: Visit) -> None:
    alice = open_as("alice")
    alice.open(DEMO_TASK)
    held(alice)
    attach(alice, REPORT)
    expect(alice.badge).to_have_text("Uploading 1 file")
    alice.close()
    # Another user of this window sees nothing of it; hers goes on when she is back.
    alice.in_menu_as("bob")
    expect(alice.page.get_by_role("button", name="Bob, you and this window")).to_be_visible()
    alice.open(DEMO_TASK)
    expect(files_of(alice).get_by_role("progressbar")).to_have_count(0)
    expect(alice.badge).to_have_text("Saved")
    alice.close()
    alice.in_menu_as("alice")
    expect(alice.badge).to_have_text("Uploading 1 file")
    alice.sign_out()
    expect(alice.dialog).to_contain_text("1 file not uploaded.")
    alice.dialog.get_by_role("button", name="Discard").click()
    expect(alice.page.get_by_role("heading", name="Tasks and notes")).to_be_visible()
    until(lambda: not any(kept["files"] for kept in uploads_of(alice)))
    assert not any("00a11c" in name for name in alice.databases())


def test_an_image_in_a_note_is_seen_by_others(open_as: Visit, sql: Sql) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.go(f"/notes/{NOTEBOOK}/{DRAFT}")
    area = alice.page.get_by_label("Text in Markdown")
    area.fill("before\n\nafter")
    area.evaluate("(area) => area.setSelectionRange(7, 7)")
    routes = held(alice)
    alice.bring("paste", "textarea", ("Pic [1]_*.png", "image/png", png(40)))
    until(lambda: sql("select count(*) from note_files") == 1)
    id_ = sql("select id from note_files")
    expect(area).to_have_value(f"before\n![Pic \\[1\\]\\_\\*.png](files/{id_})\nafter")
    preview = bob.page.get_by_label("Preview")
    expect(preview).to_contain_text("Pic [1]_*.png This image is on its way.")
    expect(alice.page.get_by_label("Preview")).to_contain_text("Pic [1]_*.png Uploading")
    arrived(alice, routes)
    alice.page.unroute(CONTENT)  # and goes on
    for tab in (alice, bob):
        loaded(tab.page.get_by_role("img", name="Pic [1]_*.png"))
    # Its link has died, and the page asks for another.
    image = preview.get_by_role("img", name="Pic [1]_*.png")
    image.evaluate("(image) => { image.src = image.src.replace('signature=', 'signature=x') }")
    expect(image).not_to_have_attribute("src", re.compile("signature=x"))
    loaded(image)
    # What is no image is a link to save it; what is given up leaves the text.
    alice.choose("Insert images", REPORT)
    with bob.page.expect_download() as download:
        preview.get_by_role("button", name="Report.pdf").click()
    assert download.value.suggested_filename == REPORT[0]
    held(alice)
    alice.bring("drop", "article", ("Other.png", "image/png", png(8)))
    expect(area).to_have_value(re.compile("Other"))
    alice.page.get_by_role("button", name="Cancel Other.png").click()
    expect(area).not_to_have_value(re.compile("Other"))
    # Out of the text it still takes room: it can be removed for good.
    area.fill(f"![nobody's](files/{LAUNCH}) ![far](https://example.com/x.png)")
    expect(preview).to_contain_text("nobody's This image is not here, or not for you.")
    expect(preview.get_by_role("link", name="far")).to_be_visible()
    bob.page.get_by_text("Not in the text: 2").click()
    for name in ("Pic [1]_*.png", REPORT[0]):
        bob.page.get_by_role("button", name=f"Remove {name}").click()
    expect(alice.page.get_by_text("Not in the text")).to_have_count(0)
