"""What mails say, as text and as HTML. Names in them were chosen by people."""

import re
import unicodedata
import uuid
from collections.abc import Sequence
from datetime import datetime
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .tokens import Signer

LINKS: Final = {
    "sign_up": "/account/verify",
    "reset": "/account/reset",
    "account_exists": "/account/sign-in",
    "invitation": "/account/invitations",
    "export": "/account/data",
}
WITH_TOKEN: Final = frozenset({"sign_up", "reset"})
SUBJECTS: Final = {
    "sign_up": "Confirm your address",
    "account_exists": "You have an account already",
    "reset": "Choose another password",
    "password_changed": "Your password was changed",
    "provider_linked": "Another way to sign in",
    "invitation": "You are invited",
    "export": "Your data is ready",
}


# What each topic of a digest says; others say it in general.
TOPICS: Final = {
    "assigned": ("{by} has assigned a task to you", "Somebody has assigned a task to you"),
    "mentioned": ("{by} mentions you in a comment", "Somebody mentions you in a comment"),
}
OTHER: Final = ("{by} has changed something of yours", "There is news for you")
ACTIONS: Final = {
    "sign_up": "Confirm the address",
    "reset": "Choose a password",
    "account_exists": "Sign in",
    "invitation": "See the invitation",
    "export": "Download it",
}
UNSUBSCRIBE: Final = "/api/mail/unsubscribe"


class _Whole(UnstructuredHeader, BaseHeader):
    """In one line: folded, an address longer than that is encoded as words, and mail programs that
    look for it find none.
    """

    max_count = 1

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS: Final = HeaderRegistry()
_HEADERS.map_to_type("list-unsubscribe", _Whole)
_POLICY: Final = SMTP.clone(header_factory=_HEADERS)


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)


def page(name: str, **values: Any) -> str:
    """A template as HTML, every value escaped."""
    return _templates().get_template(name).render(**values)


def message(mail: dict[str, Any], public_url: str, signer: Signer, sender: str) -> EmailMessage:
    """The mail of a row of the outbox. The same each time but for boundaries, with one Message-ID:
    sent twice, it is shown once. Raises ValueError for an address no mail can be sent to.
    """
    made = render(mail, public_url, signer)
    host = urlsplit(public_url).hostname or "localhost"
    said = EmailMessage(policy=_POLICY)
    said["From"] = sender
    said["To"] = _address(made["to"])
    said["Subject"] = made["subject"]
    said["Date"] = format_datetime(datetime.fromisoformat(made["createdAt"]))
    said["Message-ID"] = f"<{made['id']}@{host}>"
    said["Auto-Submitted"] = "auto-generated"
    unsubscribe = _unsubscribe(mail, public_url, signer)
    if unsubscribe:
        said["List-Unsubscribe"] = f"<{unsubscribe}>"
        said["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    said.set_content(made["text"])
    html = page(
        "mail.html",
        subject=made["subject"],
        said=_said(mail["kind"], mail["details"], public_url),
        items=_items(mail["details"], public_url),
        link=made.get("link"),
        action=ACTIONS.get(mail["kind"], "Open"),
        unsubscribe=unsubscribe,
    )
    said.add_alternative(html, subtype="html")
    return said


def _address(text: str) -> Address:
    """Its domain in ASCII, so that any server takes it. Raises ValueError."""
    local, _, domain = text.rpartition("@")
    return Address(username=local, domain=domain.encode("idna").decode())


def render(mail: dict[str, Any], public_url: str, signer: Signer) -> dict[str, Any]:
    """`{id, kind, to, subject, text, link?, createdAt}` of a row of the outbox."""
    kind, link = str(mail["kind"]), None
    if kind in LINKS:
        link = public_url + LINKS[kind]
        if kind in WITH_TOKEN:
            link += "#token=" + signer.link(uuid.UUID(mail["id"]), mail.get("tokenHash"))
    made = {
        "id": mail["id"],
        "kind": kind,
        "to": mail["recipient"],
        "subject": _subject(kind, mail["details"], public_url),
        "text": _text(mail, public_url, link, _unsubscribe(mail, public_url, signer)),
        "createdAt": mail["createdAt"],
    }
    return {**made, "link": link} if link else made


def _subject(kind: str, details: dict[str, Any], public_url: str) -> str:
    if kind != "digest":
        return SUBJECTS.get(kind, kind)
    items = _items(details, public_url)
    if len(items) == 1:
        return f"{items[0]['said']}: {items[0]['title']}"[:150]
    return f"{len(items)} things that concern you"


def _text(mail: dict[str, Any], public_url: str, link: str | None, unsubscribe: str | None) -> str:
    parts = [_said(mail["kind"], mail["details"], public_url)]
    items = _items(mail["details"], public_url)
    if items:
        parts.append("\n".join(f"- {i['said']}: {i['title']}\n  {i['link']}" for i in items))
    if link:
        parts.append(link)
    if unsubscribe:
        parts.append(f"No more mails like this: {unsubscribe}")
    return "\n\n".join(parts) + "\n"


def _items(details: dict[str, Any], public_url: str) -> list[dict[str, str]]:
    """What a digest tells. A path is one of ours, whatever a trigger was given."""
    found = []
    items: Sequence[dict[str, Any]] = details.get("items") or ()
    for item in items:
        by, general = TOPICS.get(item["topic"], OTHER)
        name, path = _name(item, "by"), str(item.get("path") or "/")
        ours = path.isascii() and path.isprintable() and path.startswith("/") and " " not in path
        found.append(
            {
                "said": by.format(by=name) if name else general,
                "title": _name(item, "title") or "without a title",
                "link": public_url + (path if ours else "/"),
            }
        )
    return found


def _unsubscribe(mail: dict[str, Any], public_url: str, signer: Signer) -> str | None:
    """Where the reader of a digest unsubscribes from its topics, without signing in."""
    items = mail["details"].get("items")
    if not items:
        return None
    user, topics = mail["details"]["user"], sorted({item["topic"] for item in items})
    token = signer.unsubscribing(uuid.UUID(user), topics)
    query = urlencode({"user": user, "topics": ",".join(topics), "token": token})
    return f"{public_url}{UNSUBSCRIBE}?{query}"


def _said(kind: str, details: dict[str, Any], public_url: str) -> str:
    match kind:
        case "digest":
            said = f"This concerns you at {public_url}:"
        case "sign_up":
            said = (
                f"Somebody, you we hope, signs up at {public_url} with this address. "
                "Open this link within a day to confirm it. If it was not you, do nothing."
            )
        case "account_exists":
            said = (
                f"Somebody, you we hope, wanted to sign up at {public_url} with this address, "
                "which has an account already. Sign in, or ask for another password there."
            )
        case "reset":
            said = (
                f"Open this link within an hour to choose another password for {public_url}. "
                "If you did not ask for it, do nothing."
            )
        case "password_changed":
            said = (
                f"Your password for {public_url} was changed, and other devices were signed out. "
                "If it was not you, ask for another one there at once."
            )
        case "export":
            said = (
                f"What you may read at {public_url} is in one file now. Download it there; it "
                "stays for some days. If you did not ask for it, do nothing."
            )
        case "provider_linked":
            said = (
                f"From now on you also sign in at {public_url} by {_name(details, 'provider')}, "
                "which says that this address is yours."
            )
        case _:
            said = (
                f"{_name(details, 'by') or 'Somebody'} invites you to "
                f'"{_name(details, "to")}" at {public_url}. Sign in or sign up with this address.'
            )
    return said


def _name(details: dict[str, Any], key: str) -> str:
    """In one line, and nothing a mail program would make a link of. What is written from right to
    left leaves the order of the words around it alone.
    """
    shown = "".join(c if c.isprintable() else " " for c in str(details.get(key) or "")).strip()
    shown = re.sub(r"(?<=\w)\.(?=[^\W\d_])|://|@", " ", shown)
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in shown):
        return f"\N{FIRST STRONG ISOLATE}{shown}\N{POP DIRECTIONAL ISOLATE}"
    return shown
