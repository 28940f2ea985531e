"""Who is where: the peers of record keys and what is broadcast among them. No I/O.

A socket subscribed to a record's key is a listener; with a state it is a peer as well. Whether a
user may read the record is asked of PostgreSQL, again whenever something was committed, and what
it answered counts for a few seconds: without an answer nobody hears or is heard.
"""

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from . import metrics
from .hub import Hub, Subscriber, is_record_key
from .limits import Bucket
from .outlet import text_frame
from .protocol import ErrorFrame, dumps, encode, presence_frames

MAX_STATE_BYTES: Final = 4096
MAX_PAYLOAD_BYTES: Final = 16 * 1024
MAX_STATES: Final = 32  # keys one socket may have a state under
MAX_FOREIGN: Final = 100_000  # peers of other gateways
MAX_WAITING_BYTES: Final = 4 << 20  # broadcasts not yet sent on
FRAMES_PER_SECOND: Final = 20.0  # of each kind and socket

# Answers of PostgreSQL. Together with the time to hear of a commit: a reader who lost the record
# is out within a second.
ASK_SECONDS: Final = 0.4  # not asked again sooner
OLD_SECONDS: Final = 2.0  # asked again though nothing was committed
DEAD_SECONDS: Final = 5.0  # not believed any more

REFRESH_SECONDS: Final = 3.0  # other gateways are told again
SILENCE_SECONDS: Final = 9.0  # a peer of another gateway that is not told again is gone
EVENT_SECONDS: Final = 5.0  # a broadcast that could not be sent by then is not sent


class Refused(Exception):
    """A frame that is answered by an error."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class State(NamedTuple):
    """What a peer shows: the element of a frame, and the state in it as JSON text."""

    peer: str
    user_id: str | None
    text: str

    @property
    def element(self) -> bytes:
        """As it stands in `peers`."""
        return b'{"peer":%b,"userId":%b,"state":%b}' % (
            dumps(self.peer),
            dumps(self.user_id),
            self.text.encode(),
        )

    @property
    def gone(self) -> bytes:
        """As it stands in `peers` once it has left."""
        return self._replace(text="null").element


@dataclass(eq=False, slots=True)
class Peer:
    """One socket. `said`: states that came and are not taken over yet, the last one by key."""

    name: str
    subscriber: Subscriber
    identity: str
    claims: str | None
    user_id: str | None
    sink: Callable[[bytes], None]
    presences: Bucket
    broadcasts: Bucket
    keys: set[str] = field(default_factory=set)
    said: dict[str, State | None] = field(default_factory=dict)
    present: dict[str, None] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Mine:
    """The state of a peer of this gateway, until `ends_at` unless it is said again."""

    peer: Peer
    state: State
    ends_at: float


@dataclass(eq=False, slots=True)
class Foreign:
    """The state of a peer of another gateway, and when that was last told."""

    gateway: str
    state: State
    told_at: float


@dataclass(eq=False, slots=True)
class Room:
    """A record key with peers. `shown`: what listeners were told; `announced`: what of it other
    gateways were told, and when. `told`: the listeners who were told something, True while what
    has changed is enough for them.
    """

    key: str
    mine: dict[str, Mine] = field(default_factory=dict)
    foreign: dict[str, Foreign] = field(default_factory=dict)
    shown: dict[str, State] = field(default_factory=dict)
    announced: dict[str, tuple[State, float]] = field(default_factory=dict)
    told: dict[Peer, bool] = field(default_factory=dict)


class Event(NamedTuple):
    """A broadcast: its frame as JSON text, and who sent it, None on another gateway."""

    key: str
    text: str
    sender: Peer | None
    at: float


class Told(NamedTuple):
    """What other gateways have to hear: `[key, peer, userId, state | None]` and `[key, text]`."""

    peers: list[tuple[str, str, str | None, str | None]]
    events: list[tuple[str, str]]


Questions = dict[str, tuple[str | None, set[str]]]
"""By identity: its claims, and the keys of which is not known whether it may read them."""


class Presence:
    """The peers of this gateway and the copies of those of others. Times are of one clock."""

    def __init__(self, hub: Hub, expiry_seconds: float) -> None:
        self._hub = hub
        self._expiry = expiry_seconds
        self._peers: dict[Subscriber, Peer] = {}
        self._rooms: dict[str, Room] = {}
        self._dirty: dict[str, None] = {}
        self._saying: dict[Peer, None] = {}
        self._events: deque[Event] = deque()
        self._event_bytes = 0
        self._asked = 0  # of the events, the first so many
        self._foreign = 0
        self._access: dict[tuple[str, str], tuple[bool, float]] = {}
        self._moved_at = 0.0
        self.interest = 0

    # --- sockets ---------------------------------------------------------------------------------

    def join(
        self,
        subscriber: Subscriber,
        identity: str,
        claims: str | None,
        user_id: str | None,
        now: float,
    ) -> Peer:
        """A socket was welcomed."""
        peer = self._peers[subscriber] = Peer(
            secrets.token_urlsafe(9),
            subscriber,
            identity,
            claims,
            user_id,
            subscriber.sink,
            Bucket(FRAMES_PER_SECOND, FRAMES_PER_SECOND, now),
            Bucket(FRAMES_PER_SECOND, FRAMES_PER_SECOND, now),
        )
        return peer

    def renew(self, peer: Peer, identity: str, claims: str | None) -> None:
        """The socket has another token, with which it may see something else."""
        peer.identity, peer.claims = identity, claims
        for key in peer.keys:
            self._touch(key)

    def leave(self, peer: Peer) -> None:
        """The socket has ended."""
        self.unsubscribed(peer, list(peer.keys))
        self._peers.pop(peer.subscriber, None)

    def subscribed(self, peer: Peer, keys: Iterable[str]) -> None:
        """The socket has joined these keys, as far as the hub knows of them."""
        for key in keys:
            if is_record_key(key) and key in peer.subscriber.keys and key not in peer.keys:
                peer.keys.add(key)
                self.interest += 1
                self._touch(key)

    def unsubscribed(self, peer: Peer, keys: Iterable[str]) -> None:
        """The socket has left these keys."""
        for key in keys:
            if key not in peer.keys:
                continue
            peer.keys.discard(key)
            self.interest -= 1
            peer.said.pop(key, None)
            peer.present.pop(key, None)
            room = self._rooms.get(key)
            if room is not None:
                room.mine.pop(peer.name, None)
                room.told.pop(peer, None)
                self._dirty[key] = None

    # --- what sockets say ------------------------------------------------------------------------

    def say(self, peer: Peer, key: str, value: dict[str, Any] | None) -> None:
        """A state under a key, None to leave. The last one counts. Raises Refused."""
        _check_key(peer, key)
        state = None
        if value is not None:
            text = _json(value, MAX_STATE_BYTES, "state")
            if key not in peer.present and len(peer.present) >= MAX_STATES:
                raise Refused("too_many_keys", f"At most {MAX_STATES} keys with a state")
            peer.present[key] = None
            state = State(peer.name, peer.user_id, text)
        elif key not in peer.present:
            return
        # Behind those that wait, so that each key has its turn.
        peer.said.pop(key, None)
        peer.said[key] = state
        self._saying[peer] = None

    def broadcast(self, peer: Peer, key: str, event: str, payload: Any, now: float) -> None:
        """An event for all who can read the record now. Raises Refused."""
        _check_key(peer, key)
        if peer.broadcasts.take(now):
            raise Refused("rate", f"At most {FRAMES_PER_SECOND:.0f} broadcasts a second")
        body = _json(payload, MAX_PAYLOAD_BYTES, "payload")
        try:
            head = dumps({"type": "broadcast", "key": key, "event": event})[:-1].decode()
        except ValueError:
            raise Refused("bad_frame", "The event cannot be sent on") from None
        user = dumps(peer.user_id).decode()
        self._queue(Event(key, f'{head},"payload":{body},"from":{user}}}', peer, now))

    # --- what other gateways say -----------------------------------------------------------------

    def hear_peer(
        self, gateway: str, key: str, name: str, user_id: str | None, text: str | None, now: float
    ) -> None:
        """A peer elsewhere has this state, or None: has left."""
        room = self._rooms.get(key)
        known = room.foreign.get(name) if room is not None else None
        if text is None:
            if room is not None and known is not None:
                self._drop_foreign(room, name)
            return
        state = State(name, user_id, text)
        if known is not None:
            known.told_at = now
            if known.state == state:
                return
            known.state = state
        elif self._foreign < MAX_FOREIGN:
            if room is None:
                room = self._rooms[key] = Room(key)
            room.foreign[name] = Foreign(gateway, state, now)
            self._foreign += 1
        self._dirty[key] = None

    def hear_event(self, key: str, text: str, now: float) -> None:
        """Something was broadcast elsewhere."""
        if self._hub.subscribers_of(key):
            self._queue(Event(key, text, None, now))

    def lose(self, gateway: str | None) -> None:
        """A gateway has stopped; None: nothing is known of any of them now."""
        for room in self._rooms.values():
            for name in [n for n, f in room.foreign.items() if gateway in (None, f.gateway)]:
                self._drop_foreign(room, name)

    def excuse(self, now: float) -> None:
        """Nothing could be heard for a while: nobody is gone for having been silent."""
        for room in self._rooms.values():
            for foreign in room.foreign.values():
                foreign.told_at = now

    # --- access ----------------------------------------------------------------------------------

    def moved(self, now: float) -> None:
        """Something was committed: who may read what may be another matter now."""
        self._moved_at = now

    def questions(self, now: float, sweep: bool) -> Questions:
        """What has to be asked before `deliver`; with `sweep` of every room with listeners."""
        found: Questions = {}
        keys = dict.fromkeys(self._rooms if sweep else self._rooms.keys() & self._dirty)
        keys.update(dict.fromkeys(event.key for event in self._events))
        for key in keys:
            for peer in self._listeners(key):
                known = self._access.get((peer.identity, key))
                if known is None or self._is_old(known[1], now):
                    found.setdefault(peer.identity, (peer.claims, set()))[1].add(key)
        self._asked = len(self._events)
        return found

    def learn(self, identity: str, keys: Iterable[str], readable: set[str], asked: float) -> None:
        """What PostgreSQL answered to a question that was sent at `asked`."""
        for key in keys:
            answer, before = key in readable, self._access.get((identity, key))
            self._access[identity, key] = answer, asked
            if before is None or before[0] != answer or asked - before[1] > DEAD_SECONDS:
                self._touch(key)

    def _is_old(self, asked: float, now: float) -> bool:
        age = now - asked
        return age > OLD_SECONDS or (asked <= self._moved_at and age > ASK_SECONDS)

    def _may(self, peer: Peer, key: str, now: float) -> bool | None:
        known = self._access.get((peer.identity, key))
        if known is None or now - known[1] > DEAD_SECONDS:
            return None
        return known[0]

    # --- turns -----------------------------------------------------------------------------------

    @property
    def rooms(self) -> int:
        """How many keys have peers."""
        return len(self._rooms)

    @property
    def pending(self) -> bool:
        """Whether there is something to do at once."""
        return bool(self._dirty or self._events or self._saying)

    def advance(self, now: float) -> None:
        """Takes over what peers have said, each as often as it may."""
        for peer in list(self._saying):
            while peer.said and not peer.presences.take(now):
                key = next(iter(peer.said))
                state = peer.said.pop(key)
                room = self._rooms.get(key)
                if state is None:
                    peer.present.pop(key, None)
                    if room is not None:
                        room.mine.pop(peer.name, None)
                else:
                    if room is None:
                        room = self._rooms[key] = Room(key)
                    room.mine[peer.name] = Mine(peer, state, now + self._expiry)
                    peer.present[key] = None
                self._dirty[key] = None
            if not peer.said:
                del self._saying[peer]

    def expire(self, now: float) -> None:
        """Ends what was not said again in time, and forgets old answers."""
        for key, room in self._rooms.items():
            for mine in [m for m in room.mine.values() if m.ends_at <= now]:
                del room.mine[mine.peer.name]
                mine.peer.present.pop(key, None)
                self._dirty[key] = None
            for name in [n for n, f in room.foreign.items() if f.told_at < now - SILENCE_SECONDS]:
                self._drop_foreign(room, name)
            if any(self._may(peer, key, now) is None for peer in room.told):
                self._dirty[key] = None
        self._access = {
            pair: known for pair, known in self._access.items() if now - known[1] <= DEAD_SECONDS
        }

    def deliver(self, now: float) -> Told:
        """Sends what has changed to the sockets here; returns what others have to hear."""
        told = Told([], [])
        dirty, self._dirty = self._dirty, {}
        for key in dirty:
            room = self._rooms.get(key)
            if room is not None:
                self._deliver_room(room, now, told)
        # After the states: who is told of an event knows its sender. What came since the questions
        # waits, since of some who listen by now nothing was asked.
        events = [self._events.popleft() for _ in range(self._asked)]
        waiting = [event for event in events if not self._deliver_event(event, now, told)]
        self._events.extendleft(reversed(waiting))
        self._asked, self._event_bytes = 0, sum(len(event.text) for event in self._events)
        return told

    def due(self, now: float) -> Told:
        """What other gateways have to be told again."""
        told = Told([], [])
        for room in self._rooms.values():
            for name, (state, at) in room.announced.items():
                if at <= now - REFRESH_SECONDS:
                    room.announced[name] = state, now
                    told.peers.append((room.key, name, state.user_id, state.text))
        return told

    def announce_all(self) -> None:
        """Another gateway has come, or did not hear us: all is due."""
        for room in self._rooms.values():
            for name, (state, _) in room.announced.items():
                room.announced[name] = state, float("-inf")

    def _deliver_room(self, room: Room, now: float, told: Told) -> None:
        mine = {name: m.state for name, m in room.mine.items() if self._shows(m.peer, room, now)}
        for name, state in mine.items():
            if room.announced.get(name, (None,))[0] != state:
                room.announced[name] = state, now
                told.peers.append((room.key, name, state.user_id, state.text))
        for name in [n for n in room.announced if n not in mine]:
            state, _ = room.announced.pop(name)
            told.peers.append((room.key, name, state.user_id, None))
        current = {name: f.state for name, f in room.foreign.items()} | mine
        changed = {
            name: state.element for name, state in current.items() if room.shown.get(name) != state
        }
        changed |= {name: s.gone for name, s in room.shown.items() if name not in current}
        self._tell(room, current, changed, now)
        room.shown = current
        # Whoever has still to hear of the end is told at his next turn by an empty list.
        if not room.mine and not room.foreign and all(room.told.values()):
            del self._rooms[room.key]

    def _tell(
        self, room: Room, current: dict[str, State], changed: dict[str, bytes], now: float
    ) -> None:
        key, everybody = room.key, _Frames(room.key, current)
        for peer in self._listeners(key):
            may = self._may(peer, key, now)
            before = room.told.get(peer)
            if may is None:
                # Not known at this moment: whatever he was told, he will be told all anew.
                if before:
                    room.told[peer] = False
                continue
            if not may:
                if before is not None:
                    del room.told[peer]
                    _send(peer, presence_frames(key, [], full=True))
                continue
            room.told[peer] = True
            if before:
                _send(peer, everybody.changes(changed, peer.name))
            elif before is False or current.keys() - {peer.name}:
                _send(peer, everybody.all(peer.name))

    def _shows(self, peer: Peer, room: Room, now: float) -> bool:
        may = self._may(peer, room.key, now)
        return peer.name in room.announced if may is None else may

    def _deliver_event(self, event: Event, now: float, told: Told) -> bool:
        """Whether it is done with: not while nothing is known of its sender."""
        sender = event.sender
        if now - event.at > EVENT_SECONDS:
            metrics.signals_dropped.add()
            return True
        if sender is not None:
            if event.key not in sender.keys:
                return True
            may = self._may(sender, event.key, now)
            if may is None:
                return False
            if not may:
                _refuse(sender, "forbidden", "No such record, or you may not read it")
                return True
            told.events.append((event.key, event.text))
        frame = text_frame(event.text.encode())
        for peer in self._listeners(event.key):
            if peer is not sender and self._may(peer, event.key, now):
                metrics.frames.add(type="broadcast")
                peer.sink(frame)
        return True

    # --- helpers ---------------------------------------------------------------------------------

    def _listeners(self, key: str) -> Iterator[Peer]:
        for subscriber in list(self._hub.subscribers_of(key)):
            peer = self._peers.get(subscriber)
            if peer is not None and key in peer.keys:
                yield peer

    def _queue(self, event: Event) -> None:
        self._event_bytes += len(event.text)
        if self._event_bytes > MAX_WAITING_BYTES:
            self._event_bytes -= len(event.text)
            metrics.signals_dropped.add()
            return
        self._events.append(event)

    def _drop_foreign(self, room: Room, name: str) -> None:
        del room.foreign[name]
        self._foreign -= 1
        self._dirty[room.key] = None

    def _touch(self, key: str) -> None:
        if key in self._rooms:
            self._dirty[key] = None


class _Frames:
    """The frames of a room, encoded once for all who get the same."""

    def __init__(self, key: str, current: dict[str, State]) -> None:
        self._key = key
        self._current = current
        self._all: list[bytes] | None = None
        self._changes: list[bytes] | None = None

    def all(self, but: str) -> list[bytes]:
        """Everybody but one."""
        if but in self._current:
            others = [s.element for name, s in self._current.items() if name != but]
            return presence_frames(self._key, others, full=True)
        if self._all is None:
            elements = [s.element for s in self._current.values()]
            self._all = presence_frames(self._key, elements, full=True)
        return self._all

    def changes(self, changed: dict[str, bytes], but: str) -> list[bytes]:
        """What has changed, but of one's own."""
        if but in changed:
            others = [element for name, element in changed.items() if name != but]
            return presence_frames(self._key, others)
        if self._changes is None:
            self._changes = presence_frames(self._key, list(changed.values()))
        return self._changes


def _send(peer: Peer, payloads: Iterable[bytes]) -> None:
    for payload in payloads:
        metrics.frames.add(type="presence")
        peer.sink(text_frame(payload))


def _refuse(peer: Peer, code: str, message: str) -> None:
    peer.sink(text_frame(encode(ErrorFrame(code=code, message=message))))


def _check_key(peer: Peer, key: str) -> None:
    if not is_record_key(key):
        raise Refused("bad_key", "Presence and broadcasts are for the key of a record")
    if key not in peer.keys:
        raise Refused("not_subscribed", "Subscribe to the key first")


def _json(value: Any, most: int, what: str) -> str:
    try:
        text = dumps(value)
    except (ValueError, RecursionError):
        raise Refused("bad_frame", f"The {what} holds what JSON cannot carry") from None
    if len(text) > most:
        raise Refused("too_large", f"The {what} has more than {most} bytes")
    return text.decode()
