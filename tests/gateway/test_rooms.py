"""The rooms of presence by themselves: what listeners are told as answers come, age and change."""

import json
from typing import Any

from app import presence
from app.hub import Hub
from app.outlet import payload_of
from app.presence import Presence

KEY = "tasks:1"


class House:
    """Rooms, and a clock of their own."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.rooms = Presence(self.hub, expiry_seconds=1000)
        self.now = 100.0

    def enter(self, user: str) -> "Visitor":
        return Visitor(self, user)

    def turn(self, **readable: bool) -> presence.Told:
        """One turn in which these users get an answer."""
        self.rooms.advance(self.now)
        self.rooms.expire(self.now)
        for identity, (_, keys) in self.rooms.questions(self.now, sweep=True).items():
            if identity in readable:
                self.rooms.learn(identity, keys, keys if readable[identity] else set(), self.now)
        return self.rooms.deliver(self.now)


class Visitor:
    """A socket on the key, and the frames it got since it was last asked."""

    def __init__(self, house: House, user: str) -> None:
        self._house = house
        self._frames: list[Any] = []
        subscriber = house.hub.join(user, None, "authenticated", user, self._take, lambda: None)
        house.hub.subscribe(subscriber, [KEY])
        self.peer = house.rooms.join(subscriber, user, None, user, house.now)
        house.rooms.subscribed(self.peer, [KEY])

    def _take(self, frame: bytes) -> None:
        self._frames.append(json.loads(payload_of(frame)))

    def say(self, **state: Any) -> None:
        self._house.rooms.say(self.peer, KEY, state or None)

    def shout(self, event: str) -> None:
        self._house.rooms.broadcast(self.peer, KEY, event, None, self._house.now)

    def events(self) -> list[str]:
        """The events among the frames it got since it was last asked."""
        frames, self._frames = self._frames, []
        return [frame["event"] for frame in frames if frame["type"] == "broadcast"]

    def heard(self) -> list[Any]:
        """Per frame the states by user, and whether it is the whole list."""
        frames, self._frames = self._frames, []
        return [
            ({peer["userId"]: peer["state"] for peer in frame["peers"]}, "full" in frame)
            for frame in frames
        ]


def test_without_an_answer_nobody_hears_or_is_heard() -> None:
    house = House()
    a, b = house.enter("a"), house.enter("b")
    a.say(n=1)
    assert house.turn().peers == []
    assert house.turn(b=True).peers == []
    assert (a.heard(), b.heard()) == ([], [])
    assert [entry[3] for entry in house.turn(a=True, b=True).peers] == ['{"n":1}']
    # He knew that nobody was there, so what has changed is enough.
    assert (a.heard(), b.heard()) == ([], [({"a": {"n": 1}}, False)])


def test_whoever_comes_while_others_are_asked_hears_what_is_broadcast_after() -> None:
    house = House()
    a = house.enter("a")
    a.shout("before")
    ((identity, (_, keys)),) = house.rooms.questions(house.now, sweep=False).items()
    b = house.enter("b")
    a.shout("after")
    house.rooms.learn(identity, keys, keys, house.now)
    house.rooms.deliver(house.now)
    house.turn(a=True, b=True)
    assert b.events() == ["after"]


def test_broadcasts_stay_in_order_while_nothing_is_known_of_their_sender() -> None:
    house = House()
    a, b = house.enter("a"), house.enter("b")
    a.shout("one")
    house.rooms.questions(house.now, sweep=False)
    a.shout("two")
    assert house.rooms.deliver(house.now).events == []
    house.turn(a=True, b=True)
    assert b.events() == ["one", "two"]


def test_whoever_could_not_be_asked_for_a_while_is_told_anew() -> None:
    house = House()
    a, b = house.enter("a"), house.enter("b")
    a.say(n=1)
    house.turn(a=True, b=True)
    b.heard()
    house.now += presence.DEAD_SECONDS + 1
    a.say()
    house.turn()
    assert b.heard() == []
    house.turn(a=True, b=True)
    # Even that nobody is there any more.
    assert b.heard() == [({}, True)]
    assert house.rooms.rooms == 0


def test_whoever_may_not_read_any_more_is_told_an_empty_list_once() -> None:
    house = House()
    a, b, c = house.enter("a"), house.enter("b"), house.enter("c")
    a.say(n=1)
    b.say(n=2)
    house.turn(a=True, b=True, c=False)
    assert (b.heard(), c.heard()) == ([({"a": {"n": 1}}, True)], [])
    house.now += 1
    house.rooms.moved(house.now - 0.5)
    told = house.turn(a=True, b=False, c=False)
    assert [(entry[2], entry[3]) for entry in told.peers] == [("b", None)]
    assert (b.heard(), c.heard()) == ([({}, True)], [])
    assert a.heard()[-1] == ({"b": None}, False)
    house.now += 1
    a.say(n=3)
    house.turn(a=True, b=False, c=False)
    assert (b.heard(), c.heard()) == ([], [])


def test_an_answer_is_asked_again_soon_after_a_commit_and_late_without_one() -> None:
    house = House()
    a = house.enter("a")
    a.say(n=1)
    house.turn(a=True)
    house.now += 1
    assert house.rooms.questions(house.now, sweep=True) == {}
    house.rooms.moved(house.now)
    assert list(house.rooms.questions(house.now, sweep=True)) == ["a"]
    house.turn(a=True)
    house.now += presence.OLD_SECONDS + 0.1
    assert list(house.rooms.questions(house.now, sweep=True)) == ["a"]


def test_foreign_peers_come_change_leave_and_fall_silent() -> None:
    house = House()
    b = house.enter("b")
    for name in ("x", "y"):
        house.rooms.hear_peer("g", KEY, name, name, '{"n":1}', house.now)
    house.turn(b=True)
    assert b.heard() == [({"x": {"n": 1}, "y": {"n": 1}}, True)]
    house.rooms.hear_peer("g", KEY, "x", "x", None, house.now)
    house.turn(b=True)
    assert b.heard() == [({"x": None}, False)]
    house.now += presence.SILENCE_SECONDS + 0.1
    house.turn(b=True)
    assert b.heard() == [({"y": None}, False)]
    assert house.rooms.rooms == 0


def test_copies_of_other_gateways_peers_are_of_bounded_number(monkeypatch: Any) -> None:
    monkeypatch.setattr(presence, "MAX_FOREIGN", 3)
    house = House()
    for number in range(10):
        house.rooms.hear_peer("g", f"tasks:{number}", str(number), None, "{}", house.now)
    assert house.rooms.rooms == 3
    house.rooms.lose("g")
    house.turn()
    assert house.rooms.rooms == 0
    house.rooms.hear_peer("g", KEY, "x", None, "{}", house.now)
    assert house.rooms.rooms == 1


def test_a_long_list_takes_several_frames() -> None:
    house = House()
    b = house.enter("b")
    for number in range(300):
        state = json.dumps({"n": "x" * 3000})
        house.rooms.hear_peer("g", KEY, str(number), str(number), state, house.now)
    house.turn(b=True)
    frames = b.heard()
    assert [full for _, full in frames] == [True, False]
    assert sum(len(peers) for peers, _ in frames) == 300
