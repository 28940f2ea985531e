"""A tab of a browser, in the words of the apps."""

import json
import re
from base64 import b64encode
from typing import Any, TypeAlias

from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.e2e.site import until

LAUNCH = "00000000-0000-7000-8000-0000000b0001"
IDEAS = "00000000-0000-7000-8000-0000000b0002"
NOTEBOOK = "00000000-0000-7000-8000-0000000e0001"
DRAFT = "00000000-0000-7000-8000-0000000f0001"
# Of every user's notes one that he has not opened when he signs in.
ONLY_NOTES = ("Onion soup", "Nobody else reads this.", "Beans after potatoes.")

# Everything any user has on this device, by database and store; and what the service worker keeps.
DATABASES = """async () => {
  const done = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  const found = {};
  for (const { name } of await indexedDB.databases()) {
    const database = await done(indexedDB.open(name));
    found[name] = {};
    for (const store of database.objectStoreNames) {
      found[name][store] = await done(database.transaction(store).objectStore(store).getAll());
    }
    database.close();
  }
  return found;
}"""
CACHES = """async () => {
  const found = {};
  for (const name of await caches.keys()) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) {
      found[new URL(request.url).pathname] = await (await cache.match(request)).text();
    }
  }
  return found;
}"""
# What the browser makes of files that come from outside: no test can hold them with a mouse.
BRING = """(element, [event, files]) => {
  const transfer = new DataTransfer();
  for (const [name, type, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const options = { bubbles: true, cancelable: true };
  element.dispatchEvent(
    event === "paste"
      ? new ClipboardEvent(event, { ...options, clipboardData: transfer })
      : new DragEvent(event, { ...options, dataTransfer: transfer }),
  );
}"""

# A name, a media type, the bytes.
File: TypeAlias = tuple[str, str, bytes]


class Tab:
    """A page with the apps. What it says on its console is in `log`, what it throws in `errors`."""

    def __init__(self, page: Page, url: str, name: str) -> None:
        self.page = page
        self.url = url
        self.name = name
        self.log: list[str] = []
        self.errors: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error.stack or error)))
        page.on("requestfailed", lambda request: self.log.append(f"failed: {request.url}"))
        page.on("framenavigated", lambda frame: self.log.append(f"at: {frame.url}"))

    def _said(self, kind: str, text: str) -> None:
        self.log.append(f"{kind}: {text}")
        if "Content Security Policy" in text:
            self.errors.append(text)

    # --- going somewhere -------------------------------------------------------------------------

    def go(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, name: str) -> None:
        """As a demo user. Returns when his boards are there."""
        self.page.get_by_role("button", name=re.compile(f"^{name}")).click()
        expect(self.page.get_by_role("navigation", name="Boards")).to_be_visible()
        expect(self.badge).to_have_text("Saved")

    def sign_out(self) -> None:
        self.page.get_by_role("button", name="you and this window").click()
        self.page.get_by_role("menuitem", name="Sign out").click()

    def in_menu_as(self, user: str) -> None:
        """Uses this window as somebody else."""
        self.page.get_by_role("button", name="you and this window").click()
        self.page.get_by_role("menuitemradio", name=user).click()

    def in_menu(self, menu: str, item: str) -> None:
        self.page.get_by_role("button", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def until_kept(self) -> None:
        """Waits until the worker keeps the files, and the device what the user can read."""
        self.page.evaluate("navigator.serviceWorker.ready.then(() => {})")
        until(lambda: any(word in json.dumps(self.databases()) for word in ONLY_NOTES))

    def until_sent(self, user: str = "") -> None:
        """Waits until nothing (of this user) waits for the server. The badge takes a moment."""
        until(lambda: not any(self.databases()[name].get("queue") for name in self.of(user)))

    def until_not_kept(self, *words: str) -> None:
        """Waits until nothing with these words is left on this device."""
        until(lambda: not any(word in json.dumps(self.databases()) for word in words))

    def wake(self) -> None:
        """Says that there is a network again, as the browser does: a pause between tries ends."""
        self.page.evaluate("dispatchEvent(new Event('online'))")

    # --- what is seen ----------------------------------------------------------------------------

    @property
    def badge(self) -> Locator:
        """Whether everything is saved."""
        return self.page.locator(".status-bar .badge[role=status]")

    @property
    def toasts(self) -> Locator:
        return self.page.locator(".toasts")

    @property
    def shared(self) -> Locator:
        """What the dialog of sharing answers."""
        return self.dialog.locator(".invite").get_by_role("status")

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog")

    def column(self, label: str) -> Locator:
        return self.page.get_by_role("region", name=label, exact=True)

    def card(self, title: str, column: str | None = None) -> Locator:
        where = self.page if column is None else self.column(column)
        return where.get_by_role("link", name=title, exact=True)

    def cards(self, column: str) -> Locator:
        return self.column(column).locator(".card-title")

    # --- what is done ----------------------------------------------------------------------------

    def add(self, title: str, column: str = "To do") -> None:
        field = self.page.get_by_label(f"Add a task to {column}")
        field.fill(title)
        field.press("Enter")
        expect(self.card(title, column)).to_be_visible()

    def open(self, title: str) -> Locator:
        """Opens a task; its dialog."""
        self.card(title).click()
        expect(self.dialog).to_be_visible()
        return self.dialog

    def close(self) -> None:
        self.page.keyboard.press("Escape")
        expect(self.dialog).to_have_count(0)

    def rename(self, title: str, new: str) -> None:
        """Another title for a task, in its dialog."""
        field = self.open(title).get_by_label("Title", exact=True)
        field.fill(new)
        field.press("Enter")
        self.close()
        expect(self.card(new)).to_be_visible()

    def choose(self, button: str, *files: File) -> None:
        """Chooses files by a button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name=button).click()
        chooser.value.set_files(
            [FilePayload(name=name, mimeType=kind, buffer=data) for name, kind, data in files]
        )

    def bring(self, event: str, target: str, *files: File) -> None:
        """Pastes files, or drops them (`event`), at an element."""
        given = [[name, kind, b64encode(data).decode()] for name, kind, data in files]
        self.page.locator(target).first.evaluate(BRING, [event, given])

    # --- what is kept ----------------------------------------------------------------------------

    def of(self, user: str) -> list[str]:
        """The names of the databases of a user."""
        return [name for name in self.databases() if user in name]

    def databases(self) -> dict[str, dict[str, list[Any]]]:
        """What is in IndexedDB, by database and store."""
        found: dict[str, dict[str, list[Any]]] = self.page.evaluate(DATABASES)
        return found

    def kept_files(self) -> dict[str, str]:
        """What the service worker keeps, by path."""
        found: dict[str, str] = self.page.evaluate(CACHES)
        return found
