"""What every page has to be: as wide as the screen, readable, and each of its parts with a name."""

from playwright.sync_api import expect

from tests.e2e.conftest import REQUIRED, missing
from tests.e2e.site import ROOT
from tests.e2e.tab import Tab

AXE = ROOT / "client" / "node_modules" / "axe-core" / "axe.min.js"
# What turns for as long as something is under way is not waited for.
SETTLED = """async () => {
  const ends = (animation) => animation.effect.getComputedTiming().endTime !== Infinity;
  const moves = document.getAnimations().filter(ends);
  await Promise.all(moves.map((animation) => animation.finished.catch(() => {})));
  await document.fonts.ready;
}"""
WIDE = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth"


def problems(tab: Tab, place: str) -> list[str]:
    """What is wrong with what a tab shows now: `place`, in the words of the test."""
    if not AXE.is_file():
        missing(f"axe-core is not installed: make install ({REQUIRED})")
    expect(tab.page.get_by_role("main")).to_be_attached()
    expect(tab.page.locator(".loading")).to_have_count(0)
    tab.page.evaluate(SETTLED)
    wider = tab.page.evaluate(WIDE)
    tab.page.evaluate(AXE.read_text())
    found = tab.page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [f"{place}: {wider} pixels wider than the screen"] * (wider > 0) + [
        f"{place}: {rule['id']}: {node['html'][:120]}: {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
