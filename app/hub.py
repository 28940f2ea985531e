"""Who is subscribed to what. Pure bookkeeping: imports nothing of ours, does no I/O.

A change matches a record key (`tasks:<id>`), collection keys (`tasks?boardId=<id>`) and its
table's key (`tasks`). What a subscriber may see is decided elsewhere; the hub only remembers, per
key, whether there is *evidence* that he could read something under it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

MAX_HELD_BYTES = 1 << 20

Refs = dict[str, set[str]]
"""Record ids by table."""


class Interest(NamedTuple):
    """What the sockets of one identity (role and whole claims) want to know about."""

    claims: str | None
    refs: Refs


@dataclass(eq=False, slots=True)
class Subscriber:
    """One socket: its identity, its keys, and what waits while one of its keys is joining.

    `keys` maps each key to its evidence; `unproven` are those told to read again whose evidence
    has to be asked for anew before the next change is told. `cursor` is where the socket stood
    when it began to wait; while nothing waits, the hub's own cursor holds for it.
    """

    identity: str
    claims: str | None
    sink: Callable[[bytes], None]
    keys: dict[str, bool] = field(default_factory=dict)
    unproven: set[str] = field(default_factory=set)
    cursor: str | None = None
    held: list[bytes] | None = None
    held_bytes: int = 0

    def send(self, frame: bytes) -> None:
        """Passes a frame on, or keeps it behind the replay that is under way."""
        if self.held is None:
            self.sink(frame)
            return
        self.held_bytes += len(frame)
        if self.held_bytes > MAX_HELD_BYTES:
            self.held.clear()
        else:
            self.held.append(frame)


class Hub:
    """All subscribers of this gateway, indexed by key, and the cursor they have been served to."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.subscribers: set[Subscriber] = set()
        self._by_key: dict[str, set[Subscriber]] = {}

    def __len__(self) -> int:
        return len(self.subscribers)

    @property
    def key_count(self) -> int:
        """How many distinct keys somebody is subscribed to."""
        return len(self._by_key)

    def add(self, subscriber: Subscriber) -> None:
        """Takes a new socket in."""
        self.subscribers.add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Forgets a socket and all its keys."""
        self.unsubscribe(subscriber, list(subscriber.keys))
        self.subscribers.discard(subscriber)

    def subscribe(self, subscriber: Subscriber, keys: Iterable[str]) -> None:
        """Registers keys; one that is there already stays as it is."""
        for key in keys:
            if key not in subscriber.keys:
                subscriber.keys[key] = False
                self._by_key.setdefault(key, set()).add(subscriber)

    def unsubscribe(self, subscriber: Subscriber, keys: Iterable[str]) -> None:
        """Forgets keys; unknown ones do not matter."""
        for key in keys:
            if subscriber.keys.pop(key, None) is None:
                continue
            holders = self._by_key.get(key)
            if holders is not None:
                holders.discard(subscriber)
                if not holders:
                    del self._by_key[key]

    def hold(self, subscriber: Subscriber) -> str | None:
        """From now on frames wait. Returns the cursor that is true for all sent so far."""
        if subscriber.held is None:
            subscriber.held = []
            subscriber.cursor = self.cursor
        return subscriber.cursor

    def release(self, subscriber: Subscriber) -> bool:
        """Sends what waited, in order; the hub's cursor holds for the socket again.

        Returns False if too much had come to be kept: then all its keys are stale.
        """
        waiting, held_bytes = subscriber.held or (), subscriber.held_bytes
        subscriber.held, subscriber.held_bytes = None, 0
        for frame in waiting:
            subscriber.sink(frame)
        return held_bytes <= MAX_HELD_BYTES

    def cursor_of(self, subscriber: Subscriber) -> str | None:
        """Everything before this cursor, of every acknowledged key, was sent to this socket."""
        return self.cursor if subscriber.held is None else subscriber.cursor

    def matches(
        self, table: str, record_id: str, topics: Sequence[str]
    ) -> dict[Subscriber, list[str]]:
        """The sockets a change concerns, each with those of its keys that match."""
        found: dict[Subscriber, list[str]] = {}
        for key in match_keys(table, record_id, topics):
            for subscriber in self._by_key.get(key, ()):
                found.setdefault(subscriber, []).append(key)
        return found

    def of_table(self, table: str) -> dict[Subscriber, list[str]]:
        """The sockets with any key of this table, each with those keys."""
        found: dict[Subscriber, list[str]] = {}
        for key, holders in self._by_key.items():
            if table_of(key) == table:
                for subscriber in holders:
                    found.setdefault(subscriber, []).append(key)
        return found


def match_keys(table: str, record_id: str, topics: Sequence[str]) -> list[str]:
    """Every key that covers a change of this record; `topics` are `column=<encoded value>`."""
    return [record_key(table, record_id), *(f"{table}?{topic}" for topic in topics), table]


def record_key(table: str, record_id: str) -> str:
    """The key of one record; its id is percent-encoded like the value of a collection key."""
    return f"{table}:{quote(record_id, safe='')}"


def table_of(key: str) -> str:
    """The wire name of the table a key belongs to."""
    for position, character in enumerate(key):
        if character in ":?":
            return key[:position]
    return key


def is_record_key(key: str) -> bool:
    """Whether a key names one record."""
    return len(table := table_of(key)) < len(key) and key[len(table)] == ":"
