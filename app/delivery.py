"""What each socket hears of a wake-up: changes and access answers in, frames out. No I/O.

Whether a user may see a row is never decided here: PostgreSQL answered that, in `Answer`, for
every changed record and every identity that asked for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, NamedTuple

from . import metrics
from .hub import Hub, Interest, Subscriber, is_record_key, record_key
from .outlet import text_frame
from .protocol import stale_frames, update_element, updates_frames

MAX_ELEMENTS: Final = 4000  # for one socket in one wake-up; beyond it its keys become stale


class Change(NamedTuple):
    """One committed change of one record, as `sync.gateway_changes` lists it.

    `moved`: a column its table's policies read has changed, or the row is deleted. `access`: the
    class of the row after the change; rows of one class are seen by the same people.
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


def read_change(raw: Mapping[str, Any]) -> Change:
    """A change from its JSON object."""
    return Change(
        xid=str(raw.get("xid")),
        table=raw["table"],
        record_id=str(raw.get("id")),
        version=raw.get("version"),
        kind=raw["kind"],
        topics=raw.get("topics") or (),
        patch=raw.get("patch"),
        moved=bool(raw.get("moved")),
        access=raw.get("class"),
        tx_id=raw.get("txId"),
        from_version=raw.get("from"),
    )


@dataclass(slots=True)
class Answer:
    """What one identity may see of a wake-up's records.

    `visible`: `{table: {id: {"class", "version"}}}`; `hidden`: columns to cut, by table;
    `records`: current contents where a patch would not do. `failed`: PostgreSQL could not say, so
    the identity's keys become stale. `asked`: what the answer covers, by table.
    """

    visible: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    hidden: dict[str, list[str]] = field(default_factory=dict)
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failed: bool = False
    asked: dict[str, set[str]] = field(default_factory=dict)

    def add_records(self, wanted: Mapping[str, Sequence[str]], raw: Mapping[str, Any]) -> None:
        """Takes in the records asked for; one that is missing has been lost since the probe."""
        for table, ids in wanted.items():
            for record_id in ids:
                entry = raw.get(table, {}).get(record_id)
                if entry is None:
                    del self.visible[table][record_id]
                else:
                    self.records.setdefault(table, {})[record_id] = entry["record"]


class Element(NamedTuple):
    """One entry of an `updates` frame, whole and bare."""

    whole: bytes
    bare: bytes


class Lost(NamedTuple):
    """The identity cannot see the record (any more): whoever saw it must be told."""

    gone: Element


Step = Element | Lost


def interests(hub: Hub, changes: Sequence[Change]) -> dict[str, Interest]:
    """Per identity the records its sockets are subscribed to, among those changed."""
    found: dict[str, Interest] = {}
    for change in changes:
        for subscriber in hub.matches(change.table, change.record_id, change.topics):
            interest = found.get(subscriber.identity)
            if interest is None:
                interest = found[subscriber.identity] = Interest(subscriber.claims, {})
            interest.refs.setdefault(change.table, set()).add(change.record_id)
    return found


def wanted_records(changes: Sequence[Change], answer: Answer) -> dict[str, list[str]]:
    """The visible records whose current contents have to be sent instead of patches."""
    wanted: dict[str, list[str]] = {}
    for (table, record_id), steps in _by_record(changes).items():
        seen = answer.visible.get(table, {}).get(record_id)
        if seen is not None and not _patches_do([change for _, change in steps], seen):
            wanted.setdefault(table, []).append(record_id)
    return wanted


class Delivery:
    """Turns one wake-up into frames. Each distinct element and frame is encoded once."""

    def __init__(
        self,
        changes: Sequence[Change],
        answers: Mapping[str, Answer],
        seal: Callable[[str], str],
    ) -> None:
        self._changes = changes
        self._answers = answers
        self._seal = seal
        self._elements: dict[tuple[int, frozenset[str] | None], Element] = {}
        self._frames: dict[tuple[int, ...], list[bytes]] = {}

    def send(self, hub: Hub, cursor: str) -> None:
        """Sends every socket what it may hear, then moves the hub's cursor."""
        plans = {identity: self._plan(answer) for identity, answer in self._answers.items()}
        steps: dict[Subscriber, list[tuple[str, Element]]] = {}
        stale: dict[Subscriber, dict[str, None]] = {}
        for position, change in enumerate(self._changes):
            matched = hub.matches(change.table, change.record_id, change.topics)
            for subscriber, keys in matched.items():
                answer = self._answers.get(subscriber.identity)
                # A socket of a known identity may have joined while PostgreSQL was asked.
                unasked = answer is None or (
                    change.record_id not in answer.asked.get(change.table, ())
                )
                if answer is None or answer.failed or unasked:
                    stale.setdefault(subscriber, {}).update(dict.fromkeys(keys))
                    continue
                for step in plans[subscriber.identity].get(position, ()):
                    element = _tell(subscriber, keys, step, stale)
                    if element is not None:
                        steps.setdefault(subscriber, []).append((change.xid, element))
        for subscriber, elements in steps.items():
            if len(elements) > MAX_ELEMENTS:
                # Rare and large: reading again is cheaper for everybody than a list this long.
                send_stale(subscriber, list(subscriber.keys), "bulk")
                stale.pop(subscriber, None)
        for subscriber, keys_seen in stale.items():
            send_stale(subscriber, list(keys_seen), "access")
        # Sealed once for all sockets of the wake-up.
        seal = self._seal if steps else str
        before, after = seal(hub.cursor or cursor), seal(cursor)
        for subscriber, elements in steps.items():
            if len(elements) <= MAX_ELEMENTS:
                for frame in self._encoded(elements, before, after):
                    metrics.frames.add(type="updates")
                    subscriber.send(frame)
        hub.cursor = cursor

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

    def _plan(self, answer: Answer) -> dict[int, list[Step]]:
        """What to tell this identity's sockets at each change, by position."""
        plan: dict[int, list[Step]] = {}
        if answer.failed:
            return plan
        for (table, record_id), steps in _by_record(self._changes).items():
            if record_id not in answer.asked.get(table, ()):
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
                plan.setdefault(last, []).append(self._gone(last))
            record = answer.records.get(table, {}).get(record_id)
            version = record["version"] if record else seen.get("version")
            key = record_key(table, record_id)
            tx_id = self._changes[last].tx_id
            whole = update_element(key, version, record=record, tx_id=tx_id)
            bare = update_element(key, version, tx_id=tx_id)
            plan.setdefault(last, []).append(Element(whole, bare))
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


def send_stale(subscriber: Subscriber, keys: Sequence[str], reason: str) -> None:
    """Tells a socket to read these keys again. What it can read now is asked before the next
    change is told: without evidence nobody hears that something he never saw is gone.
    """
    subscriber.unproven.update(key for key in keys if subscriber.keys.get(key) is False)
    for payload in stale_frames(keys, reason):
        metrics.frames.add(type="stale")
        subscriber.send(text_frame(payload))


def _tell(
    subscriber: Subscriber,
    keys: Sequence[str],
    step: Step,
    stale: dict[Subscriber, dict[str, None]],
) -> Element | None:
    """The element this socket gets for a step; keeps its evidence and its stale keys."""
    if isinstance(step, Element):
        for key in keys:
            subscriber.keys[key] = True
        return step
    element: Element | None = None
    for key in keys:
        if not subscriber.keys[key]:
            continue
        if is_record_key(key):
            # He could read it under its own key, so its end is no secret to him.
            element = step.gone
            subscriber.keys[key] = False
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
