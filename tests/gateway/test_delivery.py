"""Who hears what of a wake-up, given what PostgreSQL answered."""

import json
from typing import Any

import pytest

from app.delivery import Answer, Change, Delivery, interests, wanted_records
from app.hub import Hub, Subscriber
from app.outlet import payload_of


def change(
    record_id: str = "1",
    version: int = 2,
    kind: str = "update",
    access: str | None = "A",
    **given: Any,
) -> Change:
    members: dict[str, Any] = {
        "xid": "100",
        "table": "tasks",
        "record_id": record_id,
        "version": version,
        "kind": kind,
        "topics": ["boardId=b"],
        "patch": {"title": f"v{version}"} if kind != "delete" else None,
        "moved": kind == "delete",
        "access": access,
        "tx_id": None,
        "from_version": None,
    }
    return Change(**{**members, **given})


def sees(access: str = "A", version: int = 2, record_id: str = "1", **given: Any) -> Answer:
    visible = {"tasks": {record_id: {"class": access, "version": version}}}
    return Answer(visible, **{"asked": {"tasks": {record_id}}} | given)


NOTHING = Answer({"tasks": {}}, asked={"tasks": {"1"}})


class Screen:
    """One socket and the frames it got."""

    def __init__(self, hub: Hub, *keys: str, evidence: bool = False, identity: str = "me") -> None:
        self.frames: list[Any] = []
        self.raw: list[bytes] = []
        self.subscriber = Subscriber(identity, None, self._take)
        hub.add(self.subscriber)
        hub.subscribe(self.subscriber, keys)
        for key in keys:
            self.subscriber.keys[key] = evidence

    def _take(self, frame: bytes) -> None:
        self.raw.append(frame)
        self.frames.append(json.loads(payload_of(frame)))

    @property
    def updates(self) -> list[Any]:
        return [u for frame in self.frames if frame["type"] == "updates" for u in frame["updates"]]

    @property
    def stale(self) -> list[str]:
        return [key for frame in self.frames if frame["type"] == "stale" for key in frame["keys"]]


@pytest.fixture
def hub() -> Hub:
    made = Hub()
    made.cursor = "old"
    return made


def deliver(hub: Hub, changes: list[Change], answer: Answer) -> None:
    Delivery(changes, {"me": answer}, str).send(hub, "new")


def test_a_visible_update_is_a_patch(hub: Hub) -> None:
    screen = Screen(hub, "tasks?boardId=b")
    deliver(hub, [change(tx_id="tx")], sees())
    assert screen.frames == [
        {
            "type": "updates",
            "cursor": "new",
            "updates": [
                {"key": "tasks:1", "version": 2, "txId": "tx", "patch": {"title": "v2"}},
            ],
        }
    ]
    assert hub.cursor == "new"


def test_a_visible_insert_is_a_record_with_id_and_version(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    deliver(hub, [change(version=1, kind="insert")], sees(version=1))
    assert screen.updates == [
        {"key": "tasks:1", "version": 1, "record": {"title": "v1", "id": "1", "version": 1}}
    ]


def test_hidden_columns_are_cut(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    patch = {"title": "x", "gone": "secret"}
    deliver(hub, [change(patch=patch)], sees(hidden={"tasks": ["gone"]}))
    assert screen.updates[0]["patch"] == {"title": "x"}


def test_a_socket_gets_a_record_once_and_a_wake_up_in_one_frame(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "tasks:1", "tasks?boardId=b")
    deliver(hub, [change(version=2), change(version=3, xid="101")], sees(version=3))
    assert [update["version"] for update in screen.updates] == [2, 3]
    assert len(screen.frames) == 1


def test_equal_frames_are_encoded_once(hub: Hub) -> None:
    one, two = Screen(hub, "tasks"), Screen(hub, "tasks?boardId=b")
    deliver(hub, [change()], sees())
    assert one.raw[0] is two.raw[0]


def test_an_invisible_change_is_silence(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "tasks:1", evidence=True)
    deliver(hub, [change()], NOTHING)
    assert screen.frames == []
    assert hub.cursor == "new"


def test_a_change_made_in_another_class_is_shown_as_the_record_now(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    changes = [change(version=2, access="HIDDEN"), change(version=3, access="A", moved=True)]
    answer = sees(version=3)
    assert wanted_records(changes, answer) == {"tasks": ["1"]}
    record = {"id": "1", "version": 3, "title": "now"}
    answer.add_records({"tasks": ["1"]}, {"tasks": {"1": {"record": record}}})
    deliver(hub, changes, answer)
    assert screen.updates == [{"key": "tasks:1", "version": 3, "record": record}]


def test_a_record_lost_between_probe_and_fetch_is_lost(hub: Hub) -> None:
    screen = Screen(hub, "tasks:1", evidence=True)
    changes = [change(moved=True)]
    answer = sees()
    answer.add_records(wanted_records(changes, answer), {"tasks": {}})
    deliver(hub, changes, answer)
    assert screen.updates == [{"key": "tasks:1", "gone": True}]


@pytest.mark.parametrize("lost", [change(kind="delete"), change(moved=True)])
def test_a_lost_record_is_gone_for_who_could_read_it(hub: Hub, lost: Change) -> None:
    knew = Screen(hub, "tasks:1", evidence=True)
    never = Screen(hub, "tasks:1")
    deliver(hub, [lost], NOTHING)
    assert knew.updates == [{"key": "tasks:1", "gone": True}]
    assert never.frames == []


@pytest.mark.parametrize("lost", [change(kind="delete"), change(moved=True)])
def test_a_lost_record_makes_known_collections_stale_without_its_id(hub: Hub, lost: Change) -> None:
    knew = Screen(hub, "tasks?boardId=b", "tasks", evidence=True)
    never = Screen(hub, "tasks?boardId=b", "tasks")
    deliver(hub, [lost], NOTHING)
    assert knew.frames == [
        {"type": "stale", "keys": ["tasks?boardId=b", "tasks"], "reason": "access"}
    ]
    assert never.frames == []


def test_gone_is_said_once(hub: Hub) -> None:
    screen = Screen(hub, "tasks:1", evidence=True)
    deliver(hub, [change(kind="delete")], NOTHING)
    deliver(hub, [change(kind="delete", version=3)], NOTHING)
    assert len(screen.updates) == 1


def test_a_delivered_update_is_evidence(hub: Hub) -> None:
    screen = Screen(hub, "tasks?boardId=b")
    deliver(hub, [change()], sees())
    deliver(hub, [change(kind="delete", version=3)], NOTHING)
    assert screen.stale == ["tasks?boardId=b"]


def test_deleted_and_made_again_is_gone_first(hub: Hub) -> None:
    screen = Screen(hub, "tasks:1", evidence=True)
    changes = [change(kind="delete", version=9), change(kind="insert", version=1)]
    answer = sees(version=1)
    record = {"id": "1", "version": 1}
    answer.add_records(wanted_records(changes, answer), {"tasks": {"1": {"record": record}}})
    deliver(hub, changes, answer)
    assert screen.updates == [
        {"key": "tasks:1", "gone": True},
        {"key": "tasks:1", "version": 1, "record": record},
    ]


def test_an_identity_that_could_not_be_asked_reads_again(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "boards")
    deliver(hub, [change()], Answer(failed=True, asked={"tasks": {"1"}}))
    assert screen.stale == ["tasks"]


def test_an_identity_that_was_not_asked_reads_again(hub: Hub) -> None:
    screen = Screen(hub, "tasks", identity="another")
    deliver(hub, [change()], sees())
    assert screen.stale == ["tasks"]
    assert screen.updates == []


def test_a_very_long_list_becomes_stale(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "boards:1")
    ids = [str(number) for number in range(5000)]
    visible = {"tasks": {i: {"class": "A", "version": 2} for i in ids}}
    answer = Answer(visible, asked={"tasks": set(ids)})
    deliver(hub, [change(i) for i in ids], answer)
    assert screen.stale == ["tasks", "boards:1"]
    assert screen.updates == []


def test_interests_are_gathered_by_identity(hub: Hub) -> None:
    Screen(hub, "tasks:1", identity="a")
    Screen(hub, "tasks?boardId=b", identity="a")
    Screen(hub, "tasks:2", identity="b")
    Screen(hub, "boards", identity="c")
    found = interests(hub, [change("1"), change("2"), change("3", topics=["boardId=z"])])
    assert {identity: interest.refs for identity, interest in found.items()} == {
        "a": {"tasks": {"1", "2"}},
        "b": {"tasks": {"2"}},
    }
