"""The gateway is gone: work goes on, survives a reload, and arrives once."""

import json
import re
import signal

import pytest
from playwright.sync_api import Route, expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site, until
from tests.e2e.tab import IDEAS, LAUNCH, NOTEBOOK

DEMO_TASK = "Record a two-minute demo"
CONTRAST = "Check the contrast of the colours"
RECEIPTS = "select count(*) from sync_internal.receipts"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_what_is_done_without_a_gateway_arrives_once(
    how: signal.Signals, open_as: Visit, site: Site, sql: Sql
) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    for tab in (alice, bob):
        tab.until_kept()
    receipts = sql(RECEIPTS)

    site.stop(how)
    for tab in (alice, bob):
        expect(tab.badge).to_have_text("Offline")
    alice.rename(DEMO_TASK, "Record a demo")
    alice.add("Written on a train")
    expect(alice.badge).to_have_text("Offline2 changes waiting")

    alice.page.reload()
    expect(alice.card("Record a demo", "To do")).to_be_visible()
    expect(alice.card("Written on a train", "To do")).to_be_visible()
    expect(alice.card(CONTRAST)).to_be_visible()
    expect(alice.badge).to_have_text("Offline2 changes waiting")
    alice.rename("Written on a train", "Written in a tunnel")
    expect(alice.badge).to_have_text("Offline3 changes waiting")

    # The same task in another place, and another task.
    bob.open(DEMO_TASK).get_by_label("Priority").select_option("Low")
    bob.close()
    bob.rename(CONTRAST, "Check the colours")
    expect(bob.badge).to_have_text("Offline2 changes waiting")

    site.start()
    for tab in (alice, bob):
        tab.wake()
        tab.until_sent()
    for tab in (alice, bob):
        for title in ("Record a demo", "Written in a tunnel", "Check the colours"):
            expect(tab.card(title, "To do")).to_have_count(1)
        card = tab.column("To do").locator(".card").filter(has_text="Record a demo")
        expect(card.get_by_label("low priority")).to_be_visible()
    assert sql(RECEIPTS) == receipts + 5
    versions = "select jsonb_object_agg(title, version) from tasks where title = any(%s)"
    assert sql(versions, ["Record a demo", "Written in a tunnel", "Check the colours"]) == {
        "Record a demo": 3,
        "Written in a tunnel": 2,
        "Check the colours": 2,
    }
    assert sql("select count(*) from tasks where board_id = %s", LAUNCH) == 9


def test_a_write_whose_answer_was_lost_is_sent_again_and_done_once(
    open_as: Visit, sql: Sql
) -> None:
    alice, bob = open_as("alice"), open_as("bob")
    receipts = sql(RECEIPTS)
    sent: list[str] = []

    def lose(route: Route) -> None:
        sent.append(route.request.post_data or "")
        route.fetch()
        if len(sent) == 1:
            route.abort()
        else:
            route.fallback()

    alice.page.route("**/api/realtime/write", lose)
    alice.add("Twice or not at all?")
    expect(bob.card("Twice or not at all?")).to_be_visible()
    alice.until_sent()
    assert len(sent) == 2
    assert sent[0] == sent[1]
    for tab in (alice, bob):
        expect(tab.card("Twice or not at all?")).to_have_count(1)
    assert sql(RECEIPTS) == receipts + 1
    assert sql("select version from tasks where title = 'Twice or not at all?'") == 1


def test_what_nobody_has_looked_at_is_there_too(open_as: Visit, site: Site) -> None:
    bob = open_as("bob")
    sent: list[str | bytes] = []

    def keep(frame: str | bytes) -> None:
        sent.append(frame)

    bob.page.on("websocket", lambda socket: socket.on("framesent", keep))
    bob.page.reload()
    bob.until_kept()

    def keys() -> set[str]:
        bob.databases()  # what was sent meanwhile is heard of
        asked = [json.loads(frame) for frame in sent]
        return {key for frame in asked if frame["type"] == "subscribe" for key in frame["keys"]}

    # What is kept may be what was kept before.
    until(lambda: f"tasks?boardId={IDEAS}" in keys())
    assert not keys() & {"tasks", "notes"}  # that would be everybody's
    site.stop()
    expect(bob.badge).to_have_text("Offline")
    bob.go(f"/tasks/{IDEAS}")
    expect(bob.card("Keyboard shortcuts", "To do")).to_be_visible()
    bob.go(f"/notes/{NOTEBOOK}")
    expect(bob.page.get_by_role("link", name=re.compile("People to ask"))).to_be_visible()
    bob.page.get_by_role("link", name=re.compile("People to ask")).click()
    expect(bob.page.get_by_label("Text in Markdown")).to_have_value(re.compile("never used it"))
    # A page of the apps that is loaded late is kept, too.
    expect(bob.page.get_by_label("Preview")).to_contain_text("never used it")
    # What was made on a plane can be made more of.
    bob.page.get_by_role("link", name="Tasks", exact=True).click()
    bob.in_menu("Workspace Demo", "New board …")
    bob.dialog.get_by_label("Name").fill("Clouds")
    bob.dialog.get_by_role("button", name="Create").click()
    bob.add("Cumulus")
    bob.page.reload()
    expect(bob.card("Cumulus", "To do")).to_be_visible()
    expect(bob.page.get_by_label("Name of the board")).to_have_value("Clouds")


def test_connection_comes_back_by_itself(open_as: Visit, site: Site, sql: Sql) -> None:
    alice = open_as("alice")
    site.stop()
    alice.add("Patience")
    expect(alice.badge).to_have_text("Offline1 change waiting")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    alice.page.route("**/api/realtime/write", hold)
    alice.page.evaluate("""() => {
      window.said = [];
      const look = () => {
        const badge = document.querySelector(".status-bar .badge[role=status]");
        const text = badge?.textContent.trim();
        if (window.said.at(-1) !== text) window.said.push(text);
      };
      look();
      const all = { subtree: true, childList: true, characterData: true };
      new MutationObserver(look).observe(document.getElementById("app"), all);
    }""")
    site.start()
    expect(alice.badge).to_have_text("Saving 1 change", timeout=40_000)
    alice.page.unroute("**/api/realtime/write")
    for route in held:
        route.fallback()
    expect(alice.badge).to_have_text("Saved")
    # It never says so too early.
    said = alice.page.evaluate("window.said")
    assert said == ["Offline1 change waiting", "Saving 1 change", "Saved"]
    alice.until_sent()
    assert sql("select count(*) from tasks where title = 'Patience'") == 1


def test_a_page_that_keeps_nothing_asks_before_it_ends(visit: Visit) -> None:
    tab = visit(name="alice")
    tab.page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
    tab.page.reload()
    tab.page.get_by_role("button", name=re.compile("^alice")).click()
    expect(tab.badge).to_have_text("Not kept on this device")
    tab.page.context.route("**/api/realtime/write", lambda route: route.abort())
    tab.add("Nowhere but here")
    with tab.page.expect_event("dialog") as asked:
        tab.page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    # Once it is sent nothing holds the page.
    tab.page.context.unroute("**/api/realtime/write")
    tab.wake()
    expect(tab.badge).to_have_text("Not kept on this device")
    with tab.page.expect_event("close"):
        tab.page.close(run_before_unload=True)
