"""Fixtures: the example apps in a real Chromium, from a gateway that can be stopped.

`site` is the gateway on `db`; `visit` opens a browser profile, `open_as` does and signs in. What
fails leaves pictures and logs of all its tabs in `.failures/`, and the logs in the report.
"""

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, BrowserType, Error, expect, sync_playwright

from app import pages
from tests.e2e.site import ROOT, Site
from tests.e2e.tab import Tab
from tests.postgres import Database

FAILURES = ROOT / ".failures"
REQUIRED = "ROWCAST_REQUIRE_BROWSER"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# No sandbox: Chromium as root does without. The others keep it from calling home.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LINES = 40

Sql: TypeAlias = Callable[..., Any]
Visit: TypeAlias = Callable[..., Tab]

expect.set_options(timeout=15_000)


def missing(what: str) -> None:
    """Skips, or fails where the tests have to run."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{what} ({REQUIRED} is set: these tests may not be skipped)", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def chromium_program() -> str:
    """Where Chromium is: ROWCAST_CHROMIUM, else the usual names."""
    named = os.environ.get("ROWCAST_CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else PROGRAMS)), None)
    if found is None:
        missing("no Chromium. Debian, Ubuntu: apt install chromium; or ROWCAST_CHROMIUM=<program>")
    if not (pages.apps_folder() / "index.html").is_file():
        missing("the example apps are not built: make demo")
    assert found is not None
    return found


# For this package alone: as long as it lives it holds an event loop, which other tests need.
@pytest.fixture(scope="package")
def chromium(chromium_program: str) -> Iterator[BrowserType]:
    """The kind of browser. `browser` is one that runs."""
    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="package")
def browser(chromium: BrowserType, chromium_program: str) -> Iterator[Browser]:
    running = chromium.launch(executable_path=chromium_program, args=ARGUMENTS)
    yield running
    running.close()


@pytest.fixture
def site(db: Database, gateway_dsn: str, tmp_path: Path) -> Iterator[Site]:
    """A running gateway with the apps."""
    made = Site(gateway_dsn, tmp_path)
    yield made
    made.close()


@pytest.fixture
def sql(conn: psycopg.Connection) -> Sql:
    """Runs SQL as superuser, committed; the first column of its first row."""

    def run(statement: str, *parameters: Any) -> Any:
        cursor = conn.execute(statement.encode(), parameters)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]

    return run


@pytest.fixture
def tabs(request: pytest.FixtureRequest) -> Iterator[list[Tab]]:
    """All tabs of the test. None of them may have thrown anything."""
    made: list[Tab] = []
    request.node.stash[TABS] = made
    yield made
    errors = [f"{tab.name}: {error}" for tab in made for error in tab.errors]
    assert not errors, "\n".join(errors)


@pytest.fixture
def visit(site: Site, browser: Browser, tabs: list[Tab]) -> Iterator[Visit]:
    """`visit()` opens the apps in a profile of its own, `visit(tab)` in another tab of that one's.

    What is named besides goes to the profile: `viewport=...`, `color_scheme=...`.
    """
    contexts: list[BrowserContext] = []

    def open_(beside: Tab | None = None, /, name: str = "visitor", **options: Any) -> Tab:
        if beside is None:
            context = browser.new_context(**options)
            contexts.append(context)
        else:
            context = beside.page.context
        tab = Tab(context.new_page(), site.url, name)
        tabs.append(tab)
        tab.go("/" if beside is None else beside.page.url.removeprefix(site.url))
        return tab

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def open_as(visit: Visit) -> Visit:
    """`open_as("alice")`: a profile in which Alice has signed in, and looks at her first board."""

    def open_(name: str, **options: Any) -> Tab:
        tab = visit(name=name, **options)
        tab.sign_in(name)
        return tab

    return open_


TABS = pytest.StashKey[list[Tab]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what all tabs show and have said when a test fails."""
    report = yield
    tabs = item.stash.get(TABS, [])
    if call.when == "call" and report.failed:
        folder = FAILURES / re.sub(r"\W+", "-", item.name).strip("-")
        shutil.rmtree(folder, ignore_errors=True)
        for number, tab in enumerate(tabs, 1):
            _keep(report, folder, f"{number}-{tab.name}", tab)
    return report


def _keep(report: pytest.TestReport, folder: Path, name: str, tab: Tab) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    log = [*tab.log, *(f"thrown: {error}" for error in tab.errors)]
    (folder / f"{name}.log").write_text("\n".join(log))
    picture = folder / f"{name}.png"
    try:
        tab.page.screenshot(path=picture, timeout=5000)
        seen = str(picture.relative_to(ROOT))
    except Error as error:
        seen = f"no picture: {error.message.splitlines()[0]}"
    report.sections.append((f"tab {name}: {seen}", "\n".join(log[-LINES:])))
