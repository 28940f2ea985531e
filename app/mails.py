"""What the mails of accounts say. Plain text; names in them were chosen by people."""

import re
import uuid
from typing import Any, Final

from .tokens import Signer

LINKS: Final = {
    "sign_up": "/account/verify",
    "reset": "/account/reset",
    "account_exists": "/account/sign-in",
    "invitation": "/account/invitations",
}
WITH_TOKEN: Final = frozenset({"sign_up", "reset"})
SUBJECTS: Final = {
    "sign_up": "Confirm your address",
    "account_exists": "You have an account already",
    "reset": "Choose another password",
    "password_changed": "Your password was changed",
    "provider_linked": "Another way to sign in",
    "invitation": "You are invited",
}


def render(mail: dict[str, Any], public_url: str, signer: Signer) -> dict[str, Any]:
    """`{id, kind, to, subject, text, link?, createdAt}` of a row of the outbox."""
    kind, link = str(mail["kind"]), None
    if kind in LINKS:
        link = public_url + LINKS[kind]
        if kind in WITH_TOKEN:
            link += "#token=" + signer.link(uuid.UUID(mail["id"]))
    made = {
        "id": mail["id"],
        "kind": kind,
        "to": mail["recipient"],
        "subject": SUBJECTS.get(kind, kind),
        "text": _text(kind, mail["details"], public_url, link),
        "createdAt": mail["createdAt"],
    }
    return {**made, "link": link} if link else made


def _text(kind: str, details: dict[str, Any], public_url: str, link: str | None) -> str:
    match kind:
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
    return f"{said}\n\n{link}\n" if link else f"{said}\n"


def _name(details: dict[str, Any], key: str) -> str:
    """In one line, and nothing a mail program would make a link of."""
    shown = "".join(c if c.isprintable() else " " for c in str(details.get(key) or ""))
    return re.sub(r"(?<=\w)\.(?=[^\W\d_])|://|@", " ", shown)
