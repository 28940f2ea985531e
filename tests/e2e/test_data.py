"""Taking one's data along and bringing it in, with a worker that does it."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site
from tests.postgres import Database
from tests.worker.process import Worker, working

# Where the bar has been.
WATCH = """() => {
  window.been = [];
  new MutationObserver(() => {
    const bar = document.querySelector('progress[aria-label="Export"]');
    if (bar) window.been.push(bar.value);
  }).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""
WIDE = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def worker(db: Database, site: Site) -> Iterator[Worker]:
    store = (site.folder.parent / "data" / "files").resolve()
    with working(db, ROWCAST_FILES_URL=store.as_uri()) as found:
        yield found


def test_export_shows_how_far_it_is_and_its_file_comes_back_in(
    open_as: Visit, sql: Sql, db: Database, worker: Worker, tmp_path: Path
) -> None:
    alice = open_as("alice")
    page = alice.page
    gate = db.connect(autocommit=False)
    gate.execute("lock table public.comments in access exclusive mode")
    alice.go("/account/data")
    page.evaluate(WATCH)
    # By keyboard alone.
    button = page.get_by_role("button", name="Export everything")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("progressbar", name="Export")).to_be_visible()
    expect(button).to_be_disabled()
    gate.rollback()
    saved = page.get_by_role("button", name="export-")
    expect(saved).to_be_visible()
    expect(page.get_by_role("progressbar", name="Export")).to_have_count(0)
    assert page.evaluate("been.length && been.every((n, i) => !i || n >= been[i - 1])")
    saved.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    path = tmp_path / "export.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert "tables/tasks.ndjson" in archive.namelist()

    before = sql("select count(*) from workspaces")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a file").click()
    chooser.value.set_files(path)
    expect(page.get_by_text("files are in.")).to_be_visible()
    assert sql("select count(*) from workspaces") > before
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Import a file").click()
    chooser.value.set_files({"name": "x.zip", "mimeType": "application/zip", "buffer": b"no"})
    expect(page.get_by_role("alert")).to_contain_text("no zip")


def test_choice_of_mails_is_kept_and_fits_a_phone(open_as: Visit, sql: Sql) -> None:
    bob = open_as("bob")
    bob.page.set_viewport_size({"width": 360, "height": 740})
    bob.go("/account/data")
    box = bob.page.get_by_role("checkbox", name="A task is assigned to me")
    expect(box).to_be_checked()
    box.focus()
    bob.page.keyboard.press("Space")
    expect(box).not_to_be_checked()
    bob.until_sent()
    assert sql("select assigned from notification_settings") is False
    bob.page.keyboard.press("Space")
    bob.until_sent()
    assert sql("select assigned from notification_settings") is True
    assert not bob.page.evaluate(WIDE)
