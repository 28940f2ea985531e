"""The apps as an installed app: what the browser asks of one, a cold start, an update."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserType, expect

from tests.e2e.conftest import ARGUMENTS, Sql, Visit
from tests.e2e.site import Site, until
from tests.e2e.tab import IDEAS, NOTEBOOK, Tab

DEMO_TASK = "Record a two-minute demo"


def test_the_browser_would_install_it(open_as: Visit) -> None:
    tab = open_as("alice")
    tab.until_kept()
    browser = tab.page.context.new_cdp_session(tab.page)
    # A profile of a test is private, where nothing is installed: that is no fault of the apps.
    found = browser.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [error for error in found if error["errorId"] != "in-incognito"] == []
    manifest = browser.send("Page.getAppManifest")
    assert manifest["errors"] == []
    said: dict[str, Any] = json.loads(manifest["data"])
    assert said["display"] == "standalone"
    sizes: dict[str, str] = tab.page.evaluate(
        """(icons) => Promise.all(icons.map(({ src }) => new Promise((resolve, reject) => {
          const image = new Image();
          image.onload = () => resolve([src, `${image.naturalWidth}x${image.naturalHeight}`]);
          image.onerror = () => reject(new Error(src));
          image.src = src;
        }))).then(Object.fromEntries)""",
        said["icons"],
    )
    for icon in said["icons"]:
        assert icon["sizes"] in ("any", sizes[icon["src"]])
    for shortcut in said["shortcuts"]:
        tab.go(shortcut["url"])
        expect(tab.page.get_by_role("link", name=shortcut["name"], exact=True)).to_have_attribute(
            "aria-current", "page"
        )


def test_the_worker_answers_for_files_and_never_for_data(open_as: Visit, site: Site) -> None:
    tab = open_as("alice")
    tab.until_kept()
    answered: dict[str, bool] = {}
    tab.page.on(
        "response",
        lambda response: answered.update(
            {urlsplit(response.url).path: response.from_service_worker}
        ),
    )
    tab.page.reload()
    expect(tab.card(DEMO_TASK)).to_be_visible()
    tab.add("A write")
    tab.until_sent()
    # As an address in its own tab, too.
    tab.page.evaluate("fetch('/api/docs').then((answer) => answer.text())")
    data = {path for path in answered if path.startswith("/api/")}
    assert {"/api/auth/dev-sign-in", "/api/docs", "/api/realtime/write"} <= data
    assert [path for path in data if answered[path]] == []
    files = {path for path in answered if path.startswith("/assets/")}
    assert files
    assert [path for path in files if not answered[path]] == []
    kept = tab.kept_files()
    assert [path for path in kept if path.startswith("/api")] == []
    on_disk = {
        f"/{file.relative_to(site.folder)}"
        for file in site.folder.rglob("*.*")
        if file.suffix not in (".br", ".gz")
    }
    assert set(kept) == on_disk - {"/sw.js"}


def test_late_parts_are_there_after_the_very_first_visit(open_as: Visit, site: Site) -> None:
    bob = open_as("bob")
    bob.until_kept()
    site.stop()
    expect(bob.badge).to_have_text("Offline")
    # No reload in between: the preview is loaded now.
    bob.page.get_by_role("link", name="Notes", exact=True).click()
    bob.page.get_by_role("link", name=re.compile("Onion soup|Bob's recipes")).first.click()
    bob.page.get_by_role("region", name="Notes").get_by_role("link").first.click()
    expect(bob.page.get_by_label("Preview")).to_contain_text("Patience, mostly.")


def test_it_starts_cold_without_a_network(
    chromium: BrowserType,
    chromium_program: str,
    site: Site,
    tabs: list[Tab],
    tmp_path: Path,
    sql: Sql,
) -> None:
    def start(name: str) -> Tab:
        context = chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium_program, args=ARGUMENTS
        )
        tab = Tab(context.pages[0], site.url, name)
        tabs.append(tab)
        return tab

    first = start("before")
    first.go("/")
    first.sign_in("alice")
    first.until_kept()
    site.stop()
    first.add("Before the battery died")
    expect(first.badge).to_have_text("Offline1 change waiting")
    first.page.context.close()

    second = start("after")
    second.go("/")
    expect(second.card("Before the battery died", "To do")).to_be_visible()
    expect(second.badge).to_have_text("Offline1 change waiting")
    second.go(f"/tasks/{IDEAS}")
    expect(second.card("Dark theme", "In progress")).to_be_visible()
    second.go(f"/notes/{NOTEBOOK}")
    expect(second.page.get_by_role("link", name=re.compile("People to ask"))).to_be_visible()
    site.start()
    second.wake()
    second.until_sent()
    second.page.context.close()
    assert sql("select count(*) from tasks where title = 'Before the battery died'") == 1


def test_a_new_build_is_offered_and_loses_nothing(
    open_as: Visit, visit: Visit, site: Site, sql: Sql
) -> None:
    tab = open_as("bob")
    tab.until_kept()
    other = visit(tab, name="bob again")
    expect(other.card(DEMO_TASK)).to_be_visible()
    site.publish("second")
    # The write is held back, as by a slow network, until the new build is there.
    tab.page.context.route("**/api/realtime/write", lambda route: route.abort())
    tab.add("Between two builds")
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(tab.toasts).to_contain_text("There is a new version.")
    # Until it is taken the old one goes on, with files that are not on the server any more.
    other.go(f"/notes/{NOTEBOOK}")
    other.page.get_by_role("link", name=re.compile("People to ask")).click()
    expect(other.page.get_by_label("Preview")).to_contain_text("never used it")
    assert other.page.locator("[data-build]").count() == 0

    tab.toasts.get_by_role("button", name="Reload").click()
    for each in (tab, other):
        expect(each.page.locator("[data-build=second]")).to_be_attached()
    expect(tab.card("Between two builds", "To do")).to_be_visible()
    caches = "caches.keys()"
    until(lambda: tab.page.evaluate(caches) == ["shell-second"])
    tab.page.context.unroute("**/api/realtime/write")
    tab.wake()
    tab.until_sent()
    assert sql("select count(*) from tasks where title = 'Between two builds'") == 1
    # Nobody is asked a second time.
    tab.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(tab.toasts).to_be_empty()


def test_a_part_that_is_gone_from_the_server_is_told_of(visit: Visit, site: Site) -> None:
    # Without a worker that keeps the files of its build: another build has taken their place.
    for file in site.folder.glob("sw.js*"):
        file.unlink()
    tab = visit(name="alice")
    gone = list((site.folder / "assets").glob("engine-*"))
    assert gone
    for file in gone:
        file.rename(file.with_name(f"old-{file.name}"))
    tab.page.get_by_role("button", name=re.compile("^alice")).click()
    expect(tab.toasts).to_contain_text("A part of the app could not be loaded.")
    for file in gone:
        file.with_name(f"old-{file.name}").rename(file)
    tab.toasts.get_by_role("button", name="Reload").click()
    expect(tab.card(DEMO_TASK)).to_be_visible()
    # The same for a part that is shown in its place.
    for file in (site.folder / "assets").glob("preview-*"):
        file.unlink()
    tab.page.get_by_role("link", name="Notes", exact=True).click()
    tab.page.get_by_role("region", name="Notes").get_by_role("link").first.click()
    part = tab.page.locator(".not-loaded")
    expect(part).to_contain_text("This part could not be loaded.")
    expect(tab.page.get_by_label("Text in Markdown")).to_be_visible()
    expect(part.get_by_role("button", name="Reload")).to_be_visible()
