"""Two tabs of one user: one queue, one sender."""

import json
from typing import Any

from playwright.sync_api import Request, expect

from tests.e2e.conftest import Sql, Visit
from tests.e2e.site import Site
from tests.e2e.tab import Tab

DEMO_TASK = "Record a two-minute demo"


def locks(tab: Tab) -> dict[str, Any]:
    """Who holds and who waits for the sender's lock."""
    found: dict[str, Any] = tab.page.evaluate("""async () => {
      const { held, pending } = await navigator.locks.query();
      const senders = (locks) => locks
        .filter(({ name }) => name.endsWith(":sender"))
        .map(({ clientId }) => clientId);
      return { held: senders(held), pending: senders(pending) };
    }""")
    return found


def keep_writes(tab: Tab, writes: list[tuple[str, str]]) -> None:
    """From now on: who sends which transactions."""

    def sent(request: Request) -> None:
        if request.url.endswith("/api/realtime/write"):
            body = json.loads(request.post_data or "")
            transactions = body.get("transactions", [body])
            writes.extend((tab.name, transaction["txId"]) for transaction in transactions)

    tab.page.on("request", sent)


def test_tabs_share_a_queue_and_hand_over_its_sending(
    open_as: Visit, visit: Visit, site: Site, sql: Sql
) -> None:
    first = open_as("alice")
    second = visit(first, name="alice again")
    third = visit(first, name="alice once more")
    for tab in (second, third):
        expect(tab.card(DEMO_TASK)).to_be_visible()
    for tab in (first, second, third):
        tab.until_kept()
    before = locks(first)
    assert len(before["held"]) == 1, before
    writes: list[tuple[str, str]] = []
    for tab in (first, second, third):
        keep_writes(tab, writes)

    # With a gateway: what the other tabs write, the first one sends.
    second.add("From the second")
    second.until_sent()
    expect(first.card("From the second")).to_be_visible()
    assert {name for name, _ in writes} == {"alice"}

    site.stop()
    for tab in (first, second, third):
        expect(tab.badge).to_have_text("Offline")
    first.rename(DEMO_TASK, "Record something")
    expect(second.card("Record something")).to_be_visible()
    second.rename("Record something", "Record nothing")
    expect(first.card("Record nothing")).to_be_visible()
    third.add("From the third")
    for tab in (first, second, third):
        expect(tab.badge).to_have_text("Offline3 changes waiting")
        expect(tab.card("From the third")).to_be_visible()

    first.page.close()
    second.page.wait_for_function("""async (old) => {
      const { held } = await navigator.locks.query();
      return held.some(({ name, clientId }) => name.endsWith(":sender") && clientId !== old);
    }""", arg=before["held"][0])  # fmt: skip
    second.add("Without the first")
    expect(third.badge).to_have_text("Offline4 changes waiting")

    writes.clear()
    site.start()
    for tab in (second, third):
        tab.wake()
    for tab in (second, third):
        tab.until_sent()
        expect(tab.badge).to_have_text("Saved")
        for title in ("Record nothing", "From the third", "Without the first"):
            expect(tab.card(title, "To do")).to_have_count(1)
    delivered = {name for name, _ in writes}
    assert len(delivered) == 1, writes
    assert len({tx_id for _, tx_id in writes}) == 4, writes
    versions = "select jsonb_object_agg(title, version) from tasks where version <> 1 or title ~ %s"
    assert sql(versions, "^(From|Without) the") == {
        "Record nothing": 3,
        "From the second": 1,
        "From the third": 1,
        "Without the first": 1,
    }
