"""Asks PostgreSQL who may see what, and keeps the answers as long as they hold.

One answer does for all rows of a class where the policies allow it (`Policies`); elsewhere each
record is asked for, as each reader, every time.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import psycopg

from . import calls, metrics
from .access import EVERYONE, Policies, Touch
from .cursors import covers
from .db import Lane
from .delivery import Answer, Delivery, Refs, gone_frame, send_stale
from .errors import from_database
from .hub import Hub, Reader, RowClass, Subscriber, is_record_key, table_of
from .protocol import dumps

log = logging.getLogger("rowcast.rights")

VIEW_READERS: Final = 100  # asked in one statement about their keys
VIEW_KEYS: Final = 200
UNPROVEN_KEYS: Final = 2000  # asked for between two readings of the feed, which wait meanwhile
PROBE_READERS: Final = 500
MAX_ROUNDS: Final = 5

Views = dict[Reader, dict[str, tuple[RowClass, ...] | None]]
"""Per reader and key the classes readable under it; None: too many."""


class Rights:
    """One per relay. Everything that asks raises psycopg.Error where the database is away."""

    def __init__(self, hub: Hub, lane: Lane) -> None:
        self._hub = hub
        self._lane = lane
        self._asking = asyncio.Semaphore(lane.size)
        self.policies = Policies()
        self._touched: Mapping[str, Touch] = {}
        self._touched_before: Collection[str] = ()

    async def look(self, fingerprint: str) -> bool:
        """Loads the policies anew if they are not as this fingerprint says: then no answer holds
        any more. Returns whether that was so.
        """
        if fingerprint == self.policies.fingerprint:
            return False
        await self.load()
        return True

    async def load(self) -> None:
        """Reads what the policies read, and forgets every answer."""
        policies = Policies(json.loads(await calls.policies(self._lane)))
        await calls.note_policies(self._lane, policies.fingerprint or "")
        self.policies = policies
        self._hub.forget_all()

    # --- one wake-up -----------------------------------------------------------------------------

    async def ask_all(self, delivery: Delivery, cursor: str) -> None:
        """Asks until nothing is missing. Sockets come, and change their identity, meanwhile."""
        rounds = 0
        while True:
            unknown, uncached = delivery.unknown(), delivery.uncached()
            gained = {} if unknown else delivery.gained()
            if not unknown and not uncached and not gained:
                return
            rounds += 1
            if rounds > MAX_ROUNDS:
                # Somebody changes faster than he can be asked: the others do not wait for him.
                for reader in {*unknown, *uncached, *gained}:
                    delivery.fail(reader)
                continue
            await asyncio.gather(
                *(self._probe(delivery, *group, cursor) for group in _alike(unknown)),
                *(self._ask_each(delivery, reader, refs) for reader, refs in uncached.items()),
                *(self._fetch(delivery, reader, refs) for reader, refs in gained.items()),
            )

    async def _probe(
        self, delivery: Delivery, readers: Sequence[Reader], refs: Refs, cursor: str
    ) -> None:
        """Which of these records each of these readers sees: one statement for all of them."""
        metrics.probes.add(len(readers))
        claims = [reader.claims for reader in readers]
        try:
            async with self._asking, _timed():
                raw = await calls.probe(self._lane, claims, _refs_text(refs), cursor)
        except psycopg.Error as exc:
            _unless_unavailable(exc)
            if len(readers) == 1:
                delivery.fail(readers[0])
            else:
                # One who cannot be asked must not cost the others their answer.
                await asyncio.gather(
                    *(self._probe(delivery, [reader], refs, cursor) for reader in readers)
                )
            return
        answer = json.loads(raw)
        overtaken = {table: set(ids) for table, ids in answer["overtaken"].items()}
        for reader, seen in zip(readers, answer["seen"], strict=True):
            if seen is None:  # his session has ended, of which the next read tells
                delivery.fail(reader)
                continue
            ids_seen = {table: set(ids) for table, ids in seen.items()}
            delivery.learn(reader, refs, ids_seen, overtaken)

    async def _ask_each(self, delivery: Delivery, reader: Reader, refs: Refs) -> None:
        """Where no answer holds for a class: what a reader sees of each record, decided by RLS."""
        async with self._asking, _timed():
            metrics.probes.add()
            try:
                raw = json.loads(await calls.visible(self._lane, reader.claims, _refs_text(refs)))
                hidden = raw.pop("hidden", None) or {}
                answer = Answer(visible=raw, hidden=hidden, asked=refs)
                wanted = delivery.wanted(answer)
                if wanted:
                    records = await calls.records_for(self._lane, reader.claims, _refs_text(wanted))
                    answer.add_records(wanted, json.loads(records))
            except psycopg.Error as exc:
                _unless_unavailable(exc)
                answer = Answer(failed=True)
            except RecursionError:  # a record nests deeper than Python reads
                answer = Answer(failed=True)
        delivery.answer(reader, answer)

    async def _fetch(self, delivery: Delivery, reader: Reader, refs: Refs) -> None:
        """Current contents of what came into a reader's sight."""
        answer = Answer()
        async with self._asking:
            try:
                records = await calls.records_for(self._lane, reader.claims, _refs_text(refs))
            except psycopg.Error as exc:
                _unless_unavailable(exc)
                delivery.fail(reader)
                return
        try:
            answer.add_records(refs, json.loads(records))
        except RecursionError:
            delivery.fail(reader)
            return
        delivery.fetched(reader, answer)

    # --- what changes who may see what -----------------------------------------------------------

    def touch(self, tables: Mapping[str, Touch]) -> dict[Reader, set[str]]:
        """Forgets the answers that may have changed. Returns the keys to be looked at again."""
        self._touched = tables
        found: dict[Reader, set[str]] = {}
        for table, touch in tables.items():
            for reader in self._hub.readers.values():
                if touch.users is not EVERYONE and not named(reader, touch.users):
                    continue
                reader.forget(table)
                keys = {key for key, _ in reader.views_of(table)}
                if keys:
                    reader.left = reader.left or []
                    found.setdefault(reader, set()).update(keys)
        return found

    def found(self, subscriber: Subscriber, views: Mapping[str, Sequence[str] | None]) -> None:
        """Takes in the classes a subscription found readable under its keys. The reader's other
        sockets may not have been told of what is new among them, and read again.
        """
        reader = subscriber.reader
        for key, texts in views.items():
            view = reader.views.get(key)
            if view is None:
                continue
            if view.assumed:
                # An answer that is under way may be older than what he has just found.
                reader.unproven.add(key)
            before, classes = view.classes, self._hub.row_classes(key, texts)
            if classes is None:
                view.classes = None
            for row_class in classes or ():
                view.add(row_class)
            if (table_of(key), reader.role) in self.policies.cacheable:
                reader.learn_all(classes or ())
            news, view.answered = view.answered and view.classes != before, True
            if news and view.sockets > 1:
                for other in self._hub.sockets_of([reader], key):
                    if other is not subscriber:
                        send_stale(other, [key], "access")

    def unsure(self, reader: Reader, keys: Iterable[str], cursor: str, *, empty: bool) -> list[str]:
        """Of joined keys that were read after a cursor, those under which something may have
        changed since without a word. They are read again; what is seen there is asked for. `empty`:
        nothing was found. Where he is thought to see nothing only that counts, for everybody:
        whatever has happened there, or happens while he asks, he learns nothing of it.
        """
        unsure = [
            key
            for key in keys
            if (view := reader.views.get(key)) is not None
            and not (covers(cursor, view.silent) if view.evidence else empty)
        ]
        for key in unsure:
            if reader.views[key].evidence:
                reader.views[key].assume()
        reader.unproven.update(unsure)
        return unsure

    def take_unproven(self) -> tuple[dict[Reader, set[str]], bool]:
        """The keys whose views have to be asked for, about as many as are asked for at once, and
        whether some are left. Whoever is told meanwhile to read again is unproven anew.
        """
        taken: dict[Reader, set[str]] = {}
        count = 0
        for reader in self._hub.readers.values():
            if reader.unproven:
                if count >= UNPROVEN_KEYS:
                    return taken, True
                count += len(reader.unproven)
                taken[reader], reader.unproven = reader.unproven, set()
        return taken, False

    def put_back(self, taken: Mapping[Reader, set[str]]) -> None:
        """They could not be asked for."""
        for reader, keys in taken.items():
            reader.unproven.update(key for key in keys if key in reader.views)

    async def ask_views(self, asked: Mapping[Reader, set[str]]) -> Views:
        """The classes each reader may see under each of these keys now. Raises psycopg.Error."""
        parts: list[list[tuple[Reader, list[str]]]] = [[]]
        for reader, keys in asked.items():
            ordered = sorted(keys)
            for start in range(0, len(ordered), VIEW_KEYS):
                if len(parts[-1]) >= VIEW_READERS:
                    parts.append([])
                parts[-1].append((reader, ordered[start : start + VIEW_KEYS]))
        found: Views = {}
        for answers in await asyncio.gather(*(self._ask_part(part) for part in parts if part)):
            for reader, classes in answers:
                found.setdefault(reader, {}).update(classes)
        return found

    async def _ask_part(
        self, part: Sequence[tuple[Reader, list[str]]]
    ) -> list[tuple[Reader, dict[str, tuple[RowClass, ...] | None]]]:
        metrics.probes.add(len(part))
        text = dumps([keys for _, keys in part]).decode()
        try:
            async with self._asking, _timed():
                raw = await calls.views(self._lane, [reader.claims for reader, _ in part], text)
        except psycopg.Error as exc:
            _unless_unavailable(exc)
            if len(part) == 1:
                reader, keys = part[0]
                return [(reader, dict.fromkeys(keys))]
            alone = await asyncio.gather(*(self._ask_part([one]) for one in part))
            return [answer for answers in alone for answer in answers]
        return [
            (
                reader,
                dict.fromkeys(keys)
                if answer is None
                else {key: self._hub.row_classes(key, answer.get(key, [])) for key in keys},
            )
            for (reader, keys), answer in zip(part, json.loads(raw), strict=True)
        ]

    def learn(self, seen: Views) -> None:
        """What was found under a key is readable, whatever else is."""
        for reader, views in seen.items():
            for key, classes in views.items():
                if (table_of(key), reader.role) in self.policies.cacheable:
                    reader.learn_all(classes or ())

    def tell_flips(self, seen: Views, cursor: Callable[[], str], upto: str) -> None:
        """Who sees something else than before under a key reads it again; a record he has lost is
        gone. `upto`: the cursor up to which that is told.
        """
        flipped: dict[str, set[Reader]] = {}
        lost: dict[str, set[Reader]] = {}
        for reader, classes in seen.items():
            _tell_left(reader, classes)
            for key, now in classes.items():
                view = reader.views.get(key)
                if view is None:
                    continue
                certain = (table_of(key), reader.role) in self.policies.cacheable
                if certain and view.classes is not None and now is not None:
                    if set(view.classes) == set(now):
                        if not now or self._may_have_returned(table_of(key)):
                            view.silent = upto
                        continue
                    if is_record_key(key) and not now:
                        lost.setdefault(key, set()).add(reader)
                        view.classes = ()
                        continue
                flipped.setdefault(key, set()).add(reader)
        for key, readers in flipped.items():
            for subscriber in self._hub.sockets_of(readers, key):
                send_stale(subscriber, [key], "access")
        for key, readers in lost.items():
            frame = gone_frame(key, cursor())
            for subscriber in self._hub.sockets_of(readers, key):
                subscriber.send(frame)

        self._touched_before = self._touched.keys()

    def _may_have_returned(self, table: str) -> bool:
        """Whether what is seen of a table may have been something else between two answers that
        are equal: there and back takes two transactions. One that an answer has seen already may
        be told of by the next reading of the feed only.
        """
        touch = self._touched.get(table)
        return touch is not None and (touch.xid is None or table in self._touched_before)

    def keep_views(self, proven: Views) -> None:
        for reader, classes in proven.items():
            for key, now in classes.items():
                view = reader.views.get(key)
                if view is not None and key not in reader.unproven:
                    view.classes = now

    def stop_assuming(self, proven: Views) -> None:
        for reader, classes in proven.items():
            for key in classes:
                view = reader.views.get(key)
                if view is not None and key not in reader.unproven:
                    view.assumed = False


def _tell_left(reader: Reader, keys: Iterable[str]) -> None:
    """Of whoever changed his token while he was asked about is not known what he saw."""
    for subscriber in reader.left or ():
        send_stale(subscriber, keys, "access")
    reader.left = None


def named(reader: Reader, users: Collection[str]) -> bool:
    """Whether a reader is among some users. A uuid may be written in large letters in a token."""
    name = reader.user_id
    return name is not None and (name in users or name.lower() in users)


def _alike(asked: Mapping[Reader, Refs]) -> list[tuple[list[Reader], Refs]]:
    """Readers of whom the same is asked, a statement's worth at a time."""
    groups: dict[str, tuple[list[Reader], Refs]] = {}
    for reader, refs in asked.items():
        groups.setdefault(_refs_text(refs), ([], refs))[0].append(reader)
    return [
        (readers[start : start + PROBE_READERS], refs)
        for readers, refs in groups.values()
        for start in range(0, len(readers), PROBE_READERS)
    ]


def _refs_text(refs: Refs) -> str:
    return dumps({table: sorted(refs[table]) for table in sorted(refs)}).decode()


def _unless_unavailable(exc: psycopg.Error) -> None:
    """Raises it again if the database cannot be reached: then everything is asked again."""
    if from_database(exc).code == "unavailable":
        raise exc
    log.warning("access not known sqlstate=%s", exc.sqlstate)


@asynccontextmanager
async def _timed() -> AsyncIterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        metrics.probe_seconds.observe(time.monotonic() - started)
