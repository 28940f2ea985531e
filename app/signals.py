"""Carries presence and broadcasts: asks who may read what, sends, and exchanges parcels with the
other gateways through PostgreSQL (`sync.gateway_signal`).

One task, in turns of some tens of milliseconds: what comes meanwhile shares a turn, its questions
a statement and its parcels a commit. A gateway without a socket on a record key does nothing.

A parcel is `{"p": [[key, peer, userId, state | null]], "e": [[key, frame]], "bye"?}`. States are
told again every few seconds, and every parcel is a sign of life: whatever is lost, with a killed
gateway or a crash of PostgreSQL, is mended by that alone.
"""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson
import psycopg

from . import calls
from .auth import Session
from .db import Lane
from .errors import from_database
from .hub import Hub, Subscriber
from .presence import REFRESH_SECONDS, SILENCE_SECONDS, Peer, Presence, Questions, Told
from .protocol import Broadcast, dumps
from .protocol import Presence as PresenceFrame

log = logging.getLogger("rowcast.signals")

TURN_SECONDS: Final = 0.025
LOOP_SHARE: Final = 0.25  # of the event loop's time, at most
SWEEP_SECONDS: Final = 0.25
READ_SECONDS: Final = 1.0  # without a ring
GAP_SECONDS: Final = 3.0
RETRY_SECONDS: Final = 0.5
STOP_AGAIN_SECONDS: Final = 0.2
FAREWELL_SECONDS: Final = 2.0
MAX_PARCEL_BYTES: Final = 256 * 1024
MAX_ASKED: Final = 200  # callers in one statement


class Signals:
    """One per gateway. `start` it, `stop` it, and tell it of sockets and their frames."""

    def __init__(self, hub: Hub, lane: Lane, heartbeat_seconds: float) -> None:
        self.presence = Presence(hub, 2 * heartbeat_seconds)
        self._hub = hub
        self._lane = lane
        self._id = str(uuid.uuid4())
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._others: dict[str, float] = {}
        self._cursor: str | None = None
        self._feed_cursor: str | None = None
        self._unread = True
        self._since = 0.0
        self._read_at = self._sweep_at = self._beacon_at = float("-inf")

    def start(self) -> None:
        """Starts the task."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the task and says goodbye."""
        if self._task is None:
            return
        # Again until it helps, as in the relay: a wait may swallow its cancellation.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=STOP_AGAIN_SECONDS)
        with contextlib.suppress(psycopg.Error, TimeoutError):
            # In vain they would notice the silence.
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._retire()

    def fed(self) -> None:
        """The relay has read the feed: somebody may have rung for a signal, too."""
        if self._hub.cursor != self._feed_cursor:
            self._feed_cursor = self._hub.cursor
            self.presence.moved(time.monotonic())
        self._unread = True
        if self.presence.interest:
            self._awake.set()

    # --- sockets ---------------------------------------------------------------------------------

    def join(self, subscriber: Subscriber, session: Session) -> Peer:
        """A socket was welcomed."""
        return self.presence.join(
            subscriber, session.identity, session.claims, session.user_id, time.monotonic()
        )

    def renew(self, peer: Peer, session: Session) -> None:
        """A socket has another token of the same user."""
        self.presence.renew(peer, session.identity, session.claims)
        self._awake.set()

    def leave(self, peer: Peer) -> None:
        """A socket has ended."""
        self.presence.leave(peer)
        self._awake.set()

    def subscribed(self, peer: Peer, keys: Iterable[str]) -> None:
        """A socket has joined keys."""
        if not self.presence.interest:
            self._since = time.monotonic()
        self.presence.subscribed(peer, keys)
        self._awake.set()

    def unsubscribed(self, peer: Peer, keys: Iterable[str]) -> None:
        """A socket has left keys."""
        self.presence.unsubscribed(peer, keys)
        self._awake.set()

    def handle(self, peer: Peer, frame: PresenceFrame | Broadcast) -> None:
        """Takes a frame in. Raises presence.Refused."""
        if isinstance(frame, PresenceFrame):
            self.presence.say(peer, frame.key, frame.state)
        else:
            now = time.monotonic()
            self.presence.broadcast(peer, frame.key, frame.event, frame.payload, now)
        self._awake.set()

    # --- turns -----------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await self._wait()
            pause = TURN_SECONDS
            try:
                pause = max(pause, await self._turn() / LOOP_SHARE)
            except psycopg.Error as exc:
                log.warning("signals wait sqlstate=%s class=%s", exc.sqlstate, type(exc).__name__)
                pause = RETRY_SECONDS
            except Exception as exc:  # noqa: BLE001
                # Something of another form must not end presence for everybody.
                log.error("signals not understood class=%s", type(exc).__name__)
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _wait(self) -> None:
        """Until somebody said something, or it is time to look at what is there."""
        presence = self.presence
        if presence.pending:
            return
        patience = None
        if presence.interest or presence.rooms:
            patience = max(0.0, self._sweep_at - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._awake.wait()

    async def _turn(self) -> float:
        """Returns the seconds for which nothing else could run. Raises psycopg.Error."""
        self._awake.clear()
        presence, now = self.presence, time.monotonic()
        sweep = now >= self._sweep_at
        if sweep:
            self._sweep_at = now + SWEEP_SECONDS
        if presence.interest and (self._unread or now - self._read_at >= READ_SECONDS):
            await self._read()
        started = time.monotonic()
        presence.advance(started)
        if sweep:
            presence.expire(started)
        questions = presence.questions(started, sweep)
        spent = time.monotonic() - started
        await self._ask(questions)
        started = time.monotonic()
        told = presence.deliver(started)
        if sweep:
            told.peers.extend(presence.due(started).peers)
        spent += time.monotonic() - started
        await self._tell(told)
        if not presence.interest and self._cursor is not None:
            # Only now: the others had to hear of those who have left.
            await self._retire()
        return spent

    async def _retire(self) -> None:
        """Hears nothing more, and says so."""
        others, self._others, self._cursor = self._others, {}, None
        self._beacon_at = float("-inf")
        self.presence.lose(None)
        if others:
            await calls.signal(self._lane, self._id, ['{"bye":true}'], trim=False)

    async def _ask(self, questions: Questions) -> None:
        asked = list(questions.items())
        for start in range(0, len(asked), MAX_ASKED):
            await self._ask_some(dict(asked[start : start + MAX_ASKED]))

    async def _ask_some(self, questions: Questions) -> None:
        at = time.monotonic()
        claims = [claims for claims, _ in questions.values()]
        keys = [sorted(keys) for _, keys in questions.values()]
        try:
            answer = json.loads(await calls.views(self._lane, claims, dumps(keys).decode()))
        except psycopg.Error as exc:
            if from_database(exc).code == "unavailable":
                raise
            if len(questions) == 1:
                log.warning("access not known sqlstate=%s", exc.sqlstate)
                for identity, (_, asked) in questions.items():
                    self.presence.learn(identity, asked, set(), at)
            else:
                # One of them has claims his policies cannot be asked with.
                for identity, question in questions.items():
                    await self._ask_some({identity: question})
            return
        for (identity, (_, asked)), found in zip(questions.items(), answer, strict=True):
            # None: his session has ended, and the relay is about to close his socket.
            readable = {key for key, classes in (found or {}).items() if classes}
            self.presence.learn(identity, asked, readable, at)

    # --- the other gateways ----------------------------------------------------------------------

    async def _read(self) -> None:
        self._unread = False
        answer = json.loads(await calls.signals(self._lane, self._id, self._cursor))
        presence, now = self.presence, time.monotonic()
        if now - self._read_at > GAP_SECONDS:
            presence.excuse(now)
        self._read_at, self._cursor = now, answer["cursor"]
        for gateway, age, body in answer["signals"]:
            if age < SILENCE_SECONDS:
                self._hear(gateway, orjson.loads(body), now - age)
        self._others = {g: at for g, at in self._others.items() if at > now - SILENCE_SECONDS}

    def _hear(self, gateway: str, parcel: dict[str, Any], at: float) -> None:
        presence = self.presence
        if parcel.get("bye"):
            self._others.pop(gateway, None)
            presence.lose(gateway)
            return
        if gateway not in self._others:
            presence.announce_all()
            self._sweep_at = float("-inf")
        self._others[gateway] = at
        for key, name, user_id, text in parcel.get("p", ()):
            presence.hear_peer(gateway, key, name, user_id, text, at)
        if at >= self._since:
            for key, text in parcel.get("e", ()):
                presence.hear_event(key, text, at)

    async def _tell(self, told: Told) -> None:
        """Nothing is told while nobody would hear it, but that we are here."""
        now = time.monotonic()
        beacon = self.presence.interest > 0 and now - self._beacon_at >= REFRESH_SECONDS
        bodies = list(_parcels(told)) if self._others else []
        if not bodies and not beacon:
            return
        try:
            await calls.signal(self._lane, self._id, bodies or ["{}"], trim=beacon)
        except psycopg.Error:
            self.presence.announce_all()
            raise
        if beacon:
            self._beacon_at = now


def _parcels(told: Told) -> Iterator[str]:
    """Parcels of a bearable size."""
    for name, entries in (("p", told.peers), ("e", told.events)):
        part: list[str] = []
        used = 0
        for entry in entries:
            text = orjson.dumps(entry).decode()
            if used + len(text) > MAX_PARCEL_BYTES:
                yield f'{{"{name}":[{",".join(part)}]}}'
                part, used = [], 0
            part.append(text)
            used += len(text)
        if part:
            yield f'{{"{name}":[{",".join(part)}]}}'
