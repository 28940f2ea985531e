"""Who is subscribed to what, and what is known of what they may see. Pure bookkeeping: imports
nothing of ours, does no I/O.

A change matches a record key (`tasks:<id>`), collection keys (`tasks?boardId=<id>`) and its
table's key (`tasks`). What a reader may see is decided elsewhere; the hub only remembers, per
class of rows, what PostgreSQL answered, and per key the classes that were readable under it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

MAX_HELD_BYTES: Final = 1 << 20
MAX_VIEW_CLASSES: Final = 64  # under one key; beyond it any loss or gain is assumed to concern it
MAX_KNOWN: Final = 10_000  # answers kept for one reader
MAX_CLASSES: Final = 200_000
MIN_AUDIENCE: Final = 16  # a smaller one is found as quickly
MAX_KEPT: Final = 500_000  # sockets in kept audiences: 4 MB


@dataclass(eq=False, slots=True)
class RowClass:
    """The rows of a table that agree on every column its SELECT policies read.

    One object a class, so that looking an answer up costs no hashing of text. `stamp` rises with
    every answer for it that changes.
    """

    table: str
    text: str
    stamp: int = 0


@dataclass(eq=False, slots=True)
class View:
    """One key as one reader sees it: the classes readable under it, None: too many or not known.

    A key with no class at all has no evidence: he is told nothing of what ends under it. `assumed`:
    he was told to read again, and what he found there is not known yet. `answered`: PostgreSQL has
    said what is under it. `silent`: the cursor up to which something may have ended under it that
    he was not told of, since only who has read it just before may know.
    """

    sockets: int = 0
    classes: tuple[RowClass, ...] | None = ()
    assumed: bool = False
    answered: bool = False
    silent: str | None = None

    @property
    def evidence(self) -> bool:
        """Whether he could read something under this key."""
        return self.assumed or self.classes is None or bool(self.classes)

    def assume(self) -> None:
        """From now on he may have seen anything under this key."""
        self.classes = None
        self.assumed = True

    def add(self, row_class: RowClass) -> None:
        """He has been sent a row of this class."""
        if self.classes is not None and row_class not in self.classes:
            full = len(self.classes) >= MAX_VIEW_CLASSES
            self.classes = None if full else (*self.classes, row_class)


@dataclass(eq=False, slots=True)
class Reader:
    """One identity (role and whole claims) with sockets here, and what is known about it.

    `known`: whether it may see the rows of a class. `unproven`: keys whose view has to be asked
    for before it counts again. `generation` rises whenever its rights may have changed. `left`:
    while it is being asked, the sockets that have gone over to another token.
    """

    identity: str
    claims: str | None
    role: str
    user_id: str | None
    sockets: int = 0
    known: dict[RowClass, bool] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    unproven: set[str] = field(default_factory=set)
    generation: int = 0
    left: list["Subscriber"] | None = None

    def learn(self, row_class: RowClass, readable: bool) -> None:
        """Keeps an answer of PostgreSQL."""
        if len(self.known) >= MAX_KNOWN:
            self.forget_all()
        if self.known.get(row_class) is not readable:
            self.known[row_class] = readable
            row_class.stamp += 1

    def learn_all(self, classes: Iterable[RowClass]) -> None:
        """He was found to see rows of these classes."""
        for row_class in classes:
            self.learn(row_class, readable=True)

    def forget(self, table: str) -> None:
        """What he may see of this table has to be asked anew."""
        self.generation += 1
        for row_class in [known for known in self.known if known.table == table]:
            del self.known[row_class]
            row_class.stamp += 1

    def forget_all(self) -> None:
        """Every answer has to be asked anew."""
        for row_class in self.known:
            row_class.stamp += 1
        self.known.clear()

    def views_of(self, table: str) -> Iterator[tuple[str, View]]:
        """His keys of this table."""
        return ((key, view) for key, view in self.views.items() if table_of(key) == table)


class Wire(Protocol):
    """What a frame may be written to without a look at what waits there: a transport."""

    def write(self, data: bytes) -> None: ...


@dataclass(eq=False, slots=True)
class Subscriber:
    """One socket: who reads from it, its keys, and what waits while one of its keys is joining.

    `keys`: each with the cursor from which on its changes are sent. `cursor` is where the socket
    stood when it began to wait; while nothing waits, the hub's own cursor holds for it. `end`
    closes it: its session has ended. `sink` takes every frame; those to very many sockets go by its
    `wire` while it has one.
    """

    reader: Reader
    sink: Callable[[bytes], None]
    end: Callable[[], None]
    keys: dict[str, str | None] = field(default_factory=dict)
    cursor: str | None = None
    held: list[bytes] | None = None
    held_bytes: int = 0
    wire: Wire | None = None
    greeted: bool = False  # it knows the epoch it began in

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


@dataclass(eq=False, slots=True)
class Listeners:
    """The sockets of one role that hear of an edit: most by their wires, `others` have none now."""

    wires: list[Wire] = field(default_factory=list)
    others: list[Subscriber] = field(default_factory=list)

    def add(self, subscriber: Subscriber) -> None:
        """Takes one in."""
        if subscriber.held is None and subscriber.wire is not None:
            self.wires.append(subscriber.wire)
        else:
            self.others.append(subscriber)

    def write(self, frame: bytes) -> None:
        """To all of them. What is done for each here is paid beside a write of about 4 us."""
        for wire in self.wires:
            try:
                wire.write(frame)
            except RuntimeError:  # of uvloop: the peer has gone
                continue
        for subscriber in self.others:
            subscriber.send(frame)

    def __len__(self) -> int:
        return len(self.wires) + len(self.others)


class Audience(NamedTuple):
    """Who hears of an ordinary edit, by role, each socket once. `unknown`: those of whose readers
    no answer for the class is known. True for one `stamp` of the class.
    """

    stamp: int
    by_role: dict[str, Listeners]
    unknown: set[Subscriber]
    size: int


class Hub:
    """All subscribers of this gateway, indexed by key, and the cursor they have been served to."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.subscribers: set[Subscriber] = set()
        self.readers: dict[str, Reader] = {}
        self.roles: Counter[str] = Counter()
        """How many readers there are of each."""
        self._by_key: dict[str, set[Subscriber]] = {}
        self._audiences: dict[tuple[RowClass, tuple[str, ...]], Audience] = {}
        self._audiences_of: dict[str, list[tuple[RowClass, tuple[str, ...]]]] = {}  # by key
        self._kept = 0  # sockets in all audiences together
        self._classes: dict[tuple[str, str], RowClass] = {}

    def __len__(self) -> int:
        return len(self.subscribers)

    @property
    def key_count(self) -> int:
        """How many distinct keys somebody is subscribed to."""
        return len(self._by_key)

    # --- readers ---------------------------------------------------------------------------------

    def join(
        self,
        identity: str,
        claims: str | None,
        role: str,
        user_id: str | None,
        sink: Callable[[bytes], None],
        end: Callable[[], None],
    ) -> Subscriber:
        """Takes a new socket in."""
        subscriber = Subscriber(self._enter(identity, claims, role, user_id), sink, end)
        self.subscribers.add(subscriber)
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Forgets a socket and all its keys."""
        if subscriber not in self.subscribers:
            return
        self.unsubscribe(subscriber, list(subscriber.keys))
        self.subscribers.discard(subscriber)
        self._leave(subscriber.reader)

    def connect(self, subscriber: Subscriber, wire: Wire | None) -> None:
        """From now on frames may go by this wire; by none while its peer is behind, and once the
        socket closes.
        """
        subscriber.wire = wire
        for key in subscriber.keys:
            self._changed(key)

    def end(self, reader: Reader) -> None:
        """His session has ended: his sockets are closed and forgotten."""
        for subscriber in list(self.subscribers):
            if subscriber.reader is reader:
                subscriber.end()
                self.remove(subscriber)

    def renew(
        self,
        subscriber: Subscriber,
        identity: str,
        claims: str | None,
        role: str,
        user_id: str | None,
        *,
        keep_views: bool,
    ) -> None:
        """The socket has another token. `keep_views`: what it can read is what it could read."""
        before = subscriber.reader
        if before.identity == identity or subscriber not in self.subscribers:
            return
        keys = list(subscriber.keys)
        views = {key: before.views[key] for key in keys}
        self.unsubscribe(subscriber, keys)
        reader = subscriber.reader = self._enter(identity, claims, role, user_id)
        if before.left is not None:
            before.left.append(subscriber)
        self._leave(before)
        self.subscribe(subscriber, keys)
        if keep_views:
            for key, view in views.items():
                known = reader.views[key]
                known.assumed = known.assumed or view.assumed
                known.answered = known.answered or view.answered
                if view.silent is not None:
                    # Whichever of two is the later one, this is not before it.
                    known.silent = view.silent if known.silent is None else self.cursor
                if view.classes is None:
                    known.classes = None
                for row_class in view.classes or ():
                    known.add(row_class)
                reader.unproven.update({key} if view.assumed else ())

    def _enter(self, identity: str, claims: str | None, role: str, user_id: str | None) -> Reader:
        reader = self.readers.get(identity)
        if reader is None:
            reader = self.readers[identity] = Reader(identity, claims, role, user_id)
            self.roles[role] += 1
        reader.sockets += 1
        return reader

    def _leave(self, reader: Reader) -> None:
        reader.sockets -= 1
        if not reader.sockets and self.readers.pop(reader.identity, None) is not None:
            self.roles[reader.role] -= 1
            if not self.roles[reader.role]:
                del self.roles[reader.role]

    def row_class(self, table: str, text: str | None) -> RowClass:
        """The one object of this class."""
        found = self._classes.get((table, text or ""))
        if found is None:
            if len(self._classes) >= MAX_CLASSES:
                self.forget_all()
            found = self._classes[table, text or ""] = RowClass(table, text or "")
        return found

    def row_classes(self, key: str, texts: Sequence[str] | None) -> tuple[RowClass, ...] | None:
        """Classes found under a key; None, for too many, stays None."""
        if texts is None or len(texts) > MAX_VIEW_CLASSES:
            return None
        table = table_of(key)
        return tuple(self.row_class(table, text) for text in texts)

    def forget_all(self) -> None:
        """Every answer has to be asked anew."""
        self._classes.clear()
        self._drop_audiences()
        for reader in self.readers.values():
            reader.generation += 1
            reader.forget_all()
            for key, view in reader.views.items():
                if view.classes:
                    view.assume()
                    reader.unproven.add(key)

    # --- keys ------------------------------------------------------------------------------------

    def subscribe(self, subscriber: Subscriber, keys: Iterable[str]) -> None:
        """Registers keys; one that is there already stays as it is. Not of a forgotten socket."""
        if subscriber not in self.subscribers:
            return
        views = subscriber.reader.views
        for key in keys:
            if key not in subscriber.keys:
                subscriber.keys[key] = self.cursor
                self._by_key.setdefault(key, set()).add(subscriber)
                self._changed(key)
                view = views.get(key)
                if view is None:
                    view = views[key] = View()
                view.sockets += 1

    def begin_anew(self, cursor: str) -> None:
        """Changes before this cursor may have been missed."""
        for subscriber in self.subscribers:
            for key in subscriber.keys:
                subscriber.keys[key] = cursor
        for reader in self.readers.values():
            for view in reader.views.values():
                view.silent = None

    def unsubscribe(self, subscriber: Subscriber, keys: Iterable[str]) -> None:
        """Forgets keys; unknown ones do not matter."""
        reader = subscriber.reader
        for key in keys:
            if key not in subscriber.keys:
                continue
            del subscriber.keys[key]
            view = reader.views[key]
            view.sockets -= 1
            if not view.sockets:
                del reader.views[key]
                reader.unproven.discard(key)
            holders = self._by_key[key]
            holders.discard(subscriber)
            self._changed(key)
            if not holders:
                del self._by_key[key]

    def holders(
        self, table: str, record_id: str, topics: Sequence[str]
    ) -> list[tuple[str, set[Subscriber]]]:
        """The keys that cover a change and are held by somebody, each with its sockets."""
        by_key = self._by_key
        return [
            (key, found)
            for key in match_keys(table, record_id, topics)
            if (found := by_key.get(key)) is not None
        ]

    def audience(
        self, holders: Sequence[tuple[str, set[Subscriber]]], row_class: RowClass
    ) -> Audience:
        """Who may hear of an edit of this class under the keys of these `holders`.

        Kept until somebody joins or leaves or an answer changes: to look at every socket and its
        reader costs as much as to write to it, since nothing of it is in the processor's cache.
        """
        name = (row_class, tuple(key for key, _ in holders))
        kept = self._audiences.get(name)
        if kept is not None and kept.stamp == row_class.stamp:
            return kept
        by_role: dict[str, Listeners] = {}
        unknown: set[Subscriber] = set()
        heard: set[Subscriber] = set()
        for _, subscribers in holders:
            for subscriber in subscribers:
                if subscriber in heard:
                    continue
                heard.add(subscriber)
                readable = subscriber.reader.known.get(row_class)
                if readable:
                    by_role.setdefault(subscriber.reader.role, Listeners()).add(subscriber)
                elif readable is None:
                    unknown.add(subscriber)
        found = Audience(row_class.stamp, by_role, unknown, len(heard))
        if len(heard) >= MIN_AUDIENCE and not unknown:
            for listeners in by_role.values():
                # As they lie in memory: what is next is at hand.
                listeners.wires.sort(key=id)
            self._keep(name, found)
        return found

    def _keep(self, name: tuple[RowClass, tuple[str, ...]], audience: Audience) -> None:
        before = self._audiences.get(name)
        if before is None:
            if self._kept > MAX_KEPT:
                self._drop_audiences()
            for key in name[1]:
                self._audiences_of.setdefault(key, []).append(name)
        self._kept += audience.size - (before.size if before is not None else 0)
        self._audiences[name] = audience

    def _changed(self, key: str) -> None:
        """Whoever holds this key, or what has to wait for it, is another one."""
        for name in self._audiences_of.pop(key, ()):
            audience = self._audiences.pop(name, None)
            if audience is not None:
                self._kept -= audience.size
                for other in name[1]:
                    if other != key:
                        self._audiences_of[other].remove(name)

    def _drop_audiences(self) -> None:
        self._audiences.clear()
        self._audiences_of.clear()
        self._kept = 0

    def matches(
        self, table: str, record_id: str, topics: Sequence[str]
    ) -> dict[Subscriber, list[str]]:
        """The sockets a change concerns, each with those of its keys that match."""
        found: dict[Subscriber, list[str]] = {}
        for key, holders in self.holders(table, record_id, topics):
            for subscriber in holders:
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

    def sockets_with(self, key: str) -> list[Subscriber]:
        """The sockets that hold a key."""
        return list(self._by_key.get(key, ()))

    def sockets_of(self, readers: Iterable[Reader], key: str) -> list[Subscriber]:
        """The sockets of these readers that hold a key."""
        wanted = set(readers)
        return [held for held in self._by_key.get(key, ()) if held.reader in wanted]

    # --- joining ---------------------------------------------------------------------------------

    def subscribers_of(self, key: str) -> Collection[Subscriber]:
        """The sockets that hold a key."""
        return self._by_key.get(key, ())

    def hold(self, subscriber: Subscriber) -> str | None:
        """From now on frames wait. Returns the cursor that is true for all sent so far."""
        if subscriber.held is None:
            subscriber.held = []
            subscriber.cursor = self.cursor
            for key in subscriber.keys:
                self._changed(key)
        return subscriber.cursor

    def release(self, subscriber: Subscriber) -> bool:
        """Sends what waited, in order; the hub's cursor holds for the socket again.

        Returns False if too much had come to be kept: then all its keys are stale.
        """
        waiting, held_bytes = subscriber.held or (), subscriber.held_bytes
        subscriber.held, subscriber.held_bytes = None, 0
        for key in subscriber.keys:
            self._changed(key)
        for frame in waiting:
            subscriber.sink(frame)
        return held_bytes <= MAX_HELD_BYTES

    def cursor_of(self, subscriber: Subscriber) -> str | None:
        """Everything before this cursor, of every acknowledged key, was sent to this socket."""
        return self.cursor if subscriber.held is None else subscriber.cursor


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
