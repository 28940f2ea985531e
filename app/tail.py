"""`rowcast tail`: the feed as lines of text, while it is written."""

import json
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
from rich.text import Text

from .calls import CHANGES, RING
from .protocol import loads

LISTEN: LiteralString = "listen rowcast"
COLOURS = {"insert": "green", "update": "yellow", "delete": "red"}


def follow(dsn: str, poll_seconds: float) -> Iterator[Text]:
    """Yields a line per change committed from now on, without end. Raises psycopg.Error.

    Needs the gateway's login: it shows every change, whoever may read the row.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(LISTEN)
        cursor = None
        while True:
            # Who looked at the bell before is heard at the next look.
            conn.execute(RING)
            row = conn.execute(CHANGES, (cursor, False)).fetchone()
            answer: dict[str, Any] = loads(row[0]) if row else {}
            cursor = answer.get("cursor", cursor)
            yield from lines(answer)
            for _ in conn.notifies(timeout=poll_seconds, stop_after=1):
                pass  # a notification says no more than that it is time to look


def lines(answer: dict[str, Any]) -> Iterator[Text]:
    """One answer of `sync.gateway_changes` as text."""
    if answer.get("stale"):
        yield Text("the feed began anew; changes before this line may be missing", style="magenta")
    for table in answer.get("behind", ()):
        yield Text(f"{table}: more changes than can be listed", style="magenta")
    for change in answer.get("changes", ()):
        yield _line(change)


def _line(change: dict[str, Any]) -> Text:
    kind = change["kind"]
    record = change["table"] if change.get("id") is None else f"{change['table']}:{change['id']}"
    line = Text.assemble(
        (str(change.get("at", ""))[11:23], "dim"),
        " ",
        (f"{kind:8}", COLOURS.get(kind, "magenta")),
        (record, "bold"),
    )
    if change.get("version") is not None:
        line.append(f" v{change['version']}", style="cyan")
    if change.get("patch"):
        line.append(" " + json.dumps(change["patch"], ensure_ascii=False))
    return line
