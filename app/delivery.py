"""What each socket hears of a wake-up: changes and access answers in, frames out. No I/O.

Whether a user may see a row is never decided here: PostgreSQL answered that, for a class of rows
(`Reader.known`) where the policies allow such an answer, else for each record (`Answer`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from . import metrics
from .access import Policies
from .hub import Hub, Reader, RowClass, Subscriber, View, is_record_key, record_key
from .outlet import text_frame
from .protocol import stale_frames, update_element, updates_frames

MAX_ELEMENTS: Final = 4000  # for one socket in one wake-up; beyond it its keys become stale
MAX_TOLD: Final = 200_000  # for all sockets together: half a second in which nothing else runs

NOTHING: Final[frozenset[str]] = frozenset()
NOBODY: Final[frozenset[Subscriber]] = frozenset()

Refs = dict[str, set[str]]
"""Record ids by table."""


class Change(NamedTuple):
    """One committed change of one record, as `sync.gateway_changes` lists it.

    `after` and `before` are the classes of the row: None where it was not there, or is no longer.
    `moved`: the two differ, or the row is deleted.
    """

    xid: str
    table: str
    record_id: str
    version: int | None
    kind: str
    topics: Sequence[str]
    patch: dict[str, Any] | None
    moved: bool
    access: str | None
    tx_id: str | None
    from_version: int | None
    after: RowClass | None = None
    before: RowClass | None = None


def read_change(raw: Mapping[str, Any], hub: Hub) -> Change:
    """A change from its JSON object."""
    table, kind = raw["table"], raw["kind"]
    after = None if kind == "delete" else hub.row_class(table, raw.get("class"))
    moved = bool(raw.get("moved"))
    return Change(
        xid=str(raw.get("xid")),
        table=table,
        record_id=str(raw.get("id")),
        version=raw.get("version"),
        kind=kind,
        topics=raw.get("topics") or (),
        patch=raw.get("patch"),
        moved=moved,
        access=raw.get("class"),
        tx_id=raw.get("txId"),
        from_version=raw.get("from"),
        after=after,
        before=hub.row_class(table, raw.get("classBefore")) if moved else after,
    )


@dataclass(slots=True)
class Answer:
    """What one reader may see of a wake-up's records, where no answer for a class will do.

    `visible`: `{table: {id: {"class", "version"}}}`; `hidden`: columns to cut, by table;
    `records`: current contents where a patch would not do. `failed`: PostgreSQL could not say, so
    the reader's keys become stale. `asked`: what the answer covers, by table.
    """

    visible: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    hidden: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failed: bool = False
    asked: Refs = field(default_factory=dict)

    def covers(self, table: str, record_id: str) -> bool:
        """Whether the record was asked for."""
        return self.failed or record_id in self.asked.get(table, ())

    def add_records(self, wanted: Refs, raw: Mapping[str, Any]) -> None:
        """Takes in the records asked for; one that is missing has been lost since the probe."""
        for table, ids in wanted.items():
            self.asked.setdefault(table, set()).update(ids)
            for record_id in ids:
                entry = raw.get(table, {}).get(record_id)
                if entry is None:
                    self.visible.get(table, {}).pop(record_id, None)
                else:
                    self.records.setdefault(table, {})[record_id] = entry["record"]

    def add(self, other: "Answer") -> None:
        """Takes in what another answer covers."""
        self.failed = self.failed or other.failed
        self.hidden.update(other.hidden)
        for table, ids in other.asked.items():
            self.asked.setdefault(table, set()).update(ids)
            for mine, theirs in ((self.visible, other.visible), (self.records, other.records)):
                mine.setdefault(table, {}).update(theirs.get(table, {}))


class Element(NamedTuple):
    """One entry of an `updates` frame, whole and bare."""

    whole: bytes
    bare: bytes


class Lost(NamedTuple):
    """The reader cannot see the record (any more): whoever saw it must be told."""

    gone: Element


class Gone(NamedTuple):
    """The reader could see the record and cannot any more: to be purged."""

    element: Element


class Unknown(NamedTuple):
    """PostgreSQL could not say."""


Step = Element | Lost | Gone | Unknown


class Delivery:
    """Turns one wake-up into frames. Each distinct element and frame is encoded once.

    Ask and answer until nothing is missing, then `send` without waiting for anything between.
    """

    def __init__(
        self, hub: Hub, policies: Policies, changes: Sequence[Change], seal: Callable[[str], str]
    ) -> None:
        self._hub = hub
        self._policies = policies
        self._changes = changes
        self._counted = False
        self._seal = seal
        # The class each record ends in: what is asked now is answered for that one.
        self._last = {(change.table, change.record_id): change.after for change in changes}
        self._cursor = ""
        self._overtaken: set[tuple[Reader, str, str]] = set()
        self._failed: set[Reader] = set()
        self._answers: dict[Reader, Answer] = {}
        self._fetched: dict[Reader, Answer] = {}
        self._elements: dict[tuple[int, frozenset[str] | None], Element] = {}
        self._frames: dict[tuple[int, ...], list[bytes]] = {}
        self._plans: dict[Reader, dict[int, list[Step]]] = {}
        self._hidden_from: dict[tuple[int, str], frozenset[str]] = {}

    def keys_of_too_much(self) -> set[str]:
        """The keys concerned, if telling everybody of every change would take too long."""
        told = 0
        keys: set[str] = set()
        for change in self._changes:
            for key, subscribers in self._hub.holders(
                change.table, change.record_id, change.topics
            ):
                told += len(subscribers)
                keys.add(key)
        return keys if told > MAX_TOLD else set()

    # --- what has to be asked --------------------------------------------------------------------

    def unknown(self) -> dict[Reader, Refs]:
        """Per reader one record of each class that he may or may not see."""
        found: dict[Reader, dict[RowClass, Change]] = {}
        cacheable = self._policies.cacheable
        first, self._counted = not self._counted, True
        for change in self._changes:
            after = change.after
            if after is None or self._last[change.table, change.record_id] is not after:
                continue
            holders = self._hub.holders(change.table, change.record_id, change.topics)
            audience = self._hub.audience(holders, after)
            if first:
                metrics.cache.add(audience.size - len(audience.unknown), result="hit")
                metrics.cache.add(len(audience.unknown), result="miss")
            for subscriber in audience.unknown:
                reader = subscriber.reader
                if (
                    (change.table, reader.role) in cacheable
                    and reader not in self._failed
                    and (reader, change.table, change.record_id) not in self._overtaken
                ):
                    found.setdefault(reader, {}).setdefault(after, change)
        asked: dict[Reader, Refs] = {}
        for reader, classes in found.items():
            refs = asked[reader] = {}
            for change in classes.values():
                refs.setdefault(change.table, set()).add(change.record_id)
        return asked

    def learn(self, reader: Reader, refs: Refs, seen: Refs, overtaken: Refs) -> None:
        """Takes in which of `refs` a reader sees. One that was `overtaken` by a later change may
        stand in another class by now, of which nothing was asked.
        """
        for table, ids in refs.items():
            for record_id in ids:
                after = self._last[table, record_id]
                if record_id in overtaken.get(table, ()):
                    self._overtaken.add((reader, table, record_id))
                elif after is not None:
                    # Kept, or asked again: what is known is of bounded size, and may be dropped.
                    reader.learn(after, record_id in seen.get(table, ()))

    def fail(self, reader: Reader) -> None:
        """PostgreSQL could not say what a reader sees: the keys concerned become stale."""
        self._failed.add(reader)

    def uncached(self) -> dict[Reader, Refs]:
        """Per reader the records each of which has to be asked for by itself."""
        found: dict[Reader, Refs] = {}
        cacheable = self._policies.cacheable
        certain = {
            table
            for table in {change.table for change in self._changes}
            if all((table, role) in cacheable for role in self._hub.roles)
        }
        for change in self._changes:
            if change.table in certain:
                continue
            for _, subscribers in self._hub.holders(change.table, change.record_id, change.topics):
                for subscriber in subscribers:
                    reader = subscriber.reader
                    if (change.table, reader.role) not in cacheable and (
                        reader not in self._failed
                    ):
                        answer = self._answers.get(reader)
                        if answer is None or not answer.covers(change.table, change.record_id):
                            refs = found.setdefault(reader, {})
                            refs.setdefault(change.table, set()).add(change.record_id)
        return found

    def wanted(self, answer: Answer) -> Refs:
        """The visible records whose current contents have to be sent instead of patches."""
        found: Refs = {}
        for (table, record_id), steps in _by_record(self._changes).items():
            seen = answer.visible.get(table, {}).get(record_id)
            if seen is not None and not _patches_do([change for _, change in steps], seen):
                found.setdefault(table, set()).add(record_id)
        return found

    def answer(self, reader: Reader, answer: Answer) -> None:
        """Takes in what a reader sees of the records asked for one by one."""
        before = self._answers.get(reader)
        if before is not None:
            answer.add(before)
        self._answers[reader] = answer

    def gained(self) -> dict[Reader, Refs]:
        """Per reader the records that came into his sight: patches would not do."""
        found: dict[Reader, Refs] = {}
        for change in self._changes:
            if change.kind != "update" or not change.moved:
                continue
            for _, subscribers in self._hub.holders(change.table, change.record_id, change.topics):
                for reader in {subscriber.reader for subscriber in subscribers}:
                    if reader not in self._failed and self._gains(reader, change):
                        fetched = self._fetched.get(reader)
                        if fetched is None or not fetched.covers(change.table, change.record_id):
                            refs = found.setdefault(reader, {})
                            refs.setdefault(change.table, set()).add(change.record_id)
        for reader, refs in list(found.items()):
            if sum(map(len, refs.values())) > MAX_ELEMENTS:
                # More than would be sent: he reads again instead.
                self.fail(reader)
                del found[reader]
        return found

    def fetched(self, reader: Reader, answer: Answer) -> None:
        """Takes in current contents of records a reader asked for."""
        before = self._fetched.get(reader)
        if before is not None:
            answer.add(before)
        self._fetched[reader] = answer

    def _gains(self, reader: Reader, change: Change) -> bool:
        after, before = change.after, change.before
        return (
            (change.table, reader.role) in self._policies.cacheable
            and after is not None
            and reader.known.get(after) is True
            and (before is None or reader.known.get(before) is not True)
        )

    # --- sending ---------------------------------------------------------------------------------

    def send(self, cursor: str) -> None:
        """Sends every socket what it may hear, then moves the hub's cursor."""
        self._cursor = cursor
        if self._changes:
            self._send_all(cursor)
        self._hub.cursor = cursor

    def _send_all(self, cursor: str) -> None:
        # Sealed once for all sockets of the wake-up.
        before, after = self._seal(self._hub.cursor or cursor), self._seal(cursor)
        if len(self._changes) == 1 and _is_plain(self._changes[0]):
            rest = self._send_one(self._changes[0], before, after)
            if rest:
                self._send_many(before, after, rest)
        else:
            self._send_many(before, after)

    def _send_one(self, change: Change, before: str, cursor: str) -> Collection[Subscriber]:
        """The ordinary edit, heard by many: one frame a role, written to one socket after another.
        Returns the sockets of whose readers no answer for the class is known.
        """
        holders = self._hub.holders(change.table, change.record_id, change.topics)
        if not holders or change.after is None:
            return NOBODY
        audience = self._hub.audience(holders, change.after)
        for role, listeners in audience.by_role.items():
            element = self._change(0, self._hidden(0, role))
            for text in self._encoded([(change.xid, element)], before, cursor):
                listeners.write(text)
            metrics.frames.add(len(listeners), type="updates")
        return audience.unknown

    def _send_many(
        self, before: str, cursor: str, among: Collection[Subscriber] | None = None
    ) -> None:
        heard: dict[Subscriber, list[tuple[str, Element]]] = {}
        stale: dict[Subscriber, dict[str, None]] = {}
        for position, change in enumerate(self._changes):
            ended: list[View] = []
            matched = self._hub.matches(change.table, change.record_id, change.topics)
            for subscriber, keys in matched.items():
                if among is not None and subscriber not in among:
                    continue
                for step in self._steps(position, change, subscriber.reader):
                    element = _tell(subscriber, keys, change, step, stale, ended, self._cursor)
                    if element is not None:
                        heard.setdefault(subscriber, []).append((change.xid, element))
            # Only now: sockets of one reader share a view, and each has to be told.
            for view in ended:
                view.classes, view.assumed = (), False
        self._dispatch(heard, stale, before, cursor)

    def _dispatch(
        self,
        heard: Mapping[Subscriber, list[tuple[str, Element]]],
        stale: dict[Subscriber, dict[str, None]],
        before: str,
        cursor: str,
    ) -> None:
        for subscriber, elements in heard.items():
            if len(elements) > MAX_ELEMENTS:
                # Rare and large: reading again is cheaper for everybody than a list this long.
                send_stale(subscriber, list(subscriber.keys), "bulk")
                stale.pop(subscriber, None)
        for subscriber, keys_seen in stale.items():
            send_stale(subscriber, list(keys_seen), "access")
        for subscriber, elements in heard.items():
            if len(elements) <= MAX_ELEMENTS:
                for frame in self._encoded(elements, before, cursor):
                    subscriber.send(frame)
        if heard:
            metrics.frames.add(len(heard), type="updates")

    def _encoded(self, elements: list[tuple[str, Element]], before: str, after: str) -> list[bytes]:
        shape = tuple(id(element) for _, element in elements)
        frames = self._frames.get(shape)
        if frames is None:
            groups = [
                [(element.whole, element.bare) for _, element in group]
                for _, group in groupby(elements, key=lambda pair: pair[0])
            ]
            payloads = updates_frames(groups, before, after)
            frames = self._frames[shape] = [text_frame(payload) for payload in payloads]
        return frames

    # --- what to say -----------------------------------------------------------------------------

    def _steps(self, position: int, change: Change, reader: Reader) -> Sequence[Step]:
        """What to tell a reader of a change."""
        if reader in self._failed:
            return (Unknown(),)
        if (change.table, reader.role) in self._policies.cacheable:
            step = self._judge(position, change, reader)
            return () if step is None else (step,)
        answer = self._answers.get(reader)
        if answer is None or answer.failed:
            return (Unknown(),)
        plan = self._plans.get(reader)
        if plan is None:
            plan = self._plans[reader] = self._plan(answer)
        return plan.get(position, ())

    def _judge(self, position: int, change: Change, reader: Reader) -> Step | None:
        """By the classes of the row before and after, each with its answer: yes, no, or unknown.

        A class is unknown after only where a later change of the record is still to be read; that
        one says the rest.
        """
        after = None if change.after is None else reader.known.get(change.after)
        if change.before is change.after or change.kind == "insert":
            if not after:
                return None
            return self._change(position, self._hidden(position, reader.role))
        before = None if change.before is None else reader.known.get(change.before)
        if after and not before:
            return self._record(position, change, reader)
        if after:
            return self._change(position, self._hidden(position, reader.role))
        if before:
            return Gone(self._gone(position))
        if before is None and (change.after is None or after is False):
            return Lost(self._gone(position))
        return None

    def _hidden(self, position: int, role: str) -> frozenset[str]:
        """What a change says of columns that the reader's role is not known to be shown: one may
        have been added since the policies were looked at.
        """
        found = self._hidden_from.get((position, role))
        if found is None:
            change = self._changes[position]
            shown = self._policies.shown.get((change.table, role), NOTHING)
            found = frozenset(change.patch or ()) - shown
            self._hidden_from[position, role] = found
        return found

    def _record(self, position: int, change: Change, reader: Reader) -> Element | None:
        """The current record; it may be newer than the change, or lost again."""
        fetched = self._fetched.get(reader, Answer())
        record = fetched.records.get(change.table, {}).get(change.record_id)
        return None if record is None else self._current(position, record["version"], record)

    def _current(self, position: int, version: int | None, record: Any) -> Element:
        change = self._changes[position]
        key = record_key(change.table, change.record_id)
        whole = update_element(key, version, record=record, tx_id=change.tx_id)
        return Element(whole, update_element(key, version, tx_id=change.tx_id))

    def _plan(self, answer: Answer) -> dict[int, list[Step]]:
        """What to tell a reader at each change, by position, where each record was asked for."""
        plan: dict[int, list[Step]] = {}
        for (table, record_id), steps in _by_record(self._changes).items():
            if not answer.covers(table, record_id):
                continue
            seen = answer.visible.get(table, {}).get(record_id)
            last = steps[-1][0]
            if seen is None:
                if any(change.kind == "delete" or change.moved for _, change in steps):
                    plan.setdefault(last, []).append(Lost(self._gone(last)))
                continue
            hidden = frozenset(answer.hidden.get(table) or ())
            if _patches_do([change for _, change in steps], seen):
                for position, _ in steps:
                    plan.setdefault(position, []).append(self._change(position, hidden))
                continue
            if any(change.kind == "delete" for _, change in steps):
                # Deleted and made again: its version may have fallen, which only `gone` allows.
                plan.setdefault(last, []).append(Gone(self._gone(last)))
            record = answer.records.get(table, {}).get(record_id)
            version = record["version"] if record else seen.get("version")
            plan.setdefault(last, []).append(self._current(last, version, record))
        return plan

    def _change(self, position: int, hidden: frozenset[str]) -> Element:
        element = self._elements.get((position, hidden))
        if element is None:
            change = self._changes[position]
            key = record_key(change.table, change.record_id)
            values = change.patch
            if values is not None and hidden:
                values = {name: value for name, value in values.items() if name not in hidden}
            bare = update_element(key, change.version, tx_id=change.tx_id)
            if change.kind == "insert" and values is not None:
                record = {**values, "id": change.record_id, "version": change.version}
                whole = update_element(key, change.version, record=record, tx_id=change.tx_id)
            else:
                whole = update_element(
                    key,
                    change.version,
                    patch=values,
                    from_version=change.from_version,
                    tx_id=change.tx_id,
                )
            element = self._elements[position, hidden] = Element(whole, bare)
        return element

    def _gone(self, position: int) -> Element:
        element = self._elements.get((position, None))
        if element is None:
            change = self._changes[position]
            text = update_element(record_key(change.table, change.record_id), gone=True)
            element = self._elements[position, None] = Element(text, text)
        return element


def _is_plain(change: Change) -> bool:
    """An edit after which everybody sees the row who saw it before."""
    return change.kind == "update" and not change.moved


def gone_frame(key: str, cursor: str) -> bytes:
    """A frame that says a record is gone and moves no cursor."""
    element = update_element(key, gone=True)
    return text_frame(updates_frames([[(element, element)]], cursor, cursor)[0])


def send_stale(
    subscriber: Subscriber,
    keys: Iterable[str],
    reason: str,
    *,
    proven: bool = False,
    epoch: str | None = None,
) -> None:
    """Tells a socket to read these keys again. Until it has been asked anew what he can read under
    them, he is taken to see something there; `proven`: it has just been asked. `epoch`: another
    one than the socket was told before.
    """
    reader = subscriber.reader
    told = [key for key in keys if key in subscriber.keys]
    if not proven:
        for key in told:
            reader.views[key].assume()
        reader.unproven.update(told)
    for payload in stale_frames(told, reason, epoch):
        metrics.frames.add(type="stale")
        subscriber.send(text_frame(payload))


def _tell(
    subscriber: Subscriber,
    keys: Sequence[str],
    change: Change,
    step: Step,
    stale: dict[Subscriber, dict[str, None]],
    ended: list[View],
    cursor: str,
) -> Element | None:
    """The element this socket gets for a step; keeps its views and its stale keys. `ended`: views
    of records of which nothing is left to see. `cursor`: up to where is told.
    """
    views = subscriber.reader.views
    if isinstance(step, Unknown):
        stale.setdefault(subscriber, {}).update(dict.fromkeys(keys))
        return None
    if isinstance(step, Element):
        if change.after is not None:
            for key in keys:
                if change.moved or change.kind == "insert" or not views[key].evidence:
                    views[key].add(change.after)
        return step
    if isinstance(step, Gone):
        ended.extend(views[key] for key in keys if is_record_key(key))
        return step.element
    element: Element | None = None
    for key in keys:
        if not views[key].evidence:
            views[key].silent = cursor
            continue
        if is_record_key(key):
            # He could read it under its own key, so its end is no secret to him.
            element = step.gone
            ended.append(views[key])
        else:
            stale.setdefault(subscriber, {})[key] = None
    return element


def _patches_do(changes: Sequence[Change], seen: Mapping[str, Any]) -> bool:
    """Whether the listed changes may be passed on as they are: each was made in the class that
    the reader may see now. Otherwise they could show what the row held when it was hidden.
    """
    return all(
        change.kind != "delete"
        and (not change.moved or change.kind == "insert")
        and change.access == seen.get("class")
        for change in changes
    )


def _by_record(
    changes: Sequence[Change],
) -> dict[tuple[str, str], list[tuple[int, Change]]]:
    found: dict[tuple[str, str], list[tuple[int, Change]]] = {}
    for position, change in enumerate(changes):
        found.setdefault((change.table, change.record_id), []).append((position, change))
    return found
