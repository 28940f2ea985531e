"""Who hears what of a wake-up, given what PostgreSQL answered."""

import json
from collections.abc import Collection
from typing import Any

import pytest

from app import delivery as delivery_module
from app import hub as hub_module
from app.access import Policies
from app.delivery import Answer, Change, Delivery, Refs
from app.hub import Hub
from app.outlet import payload_of

CACHEABLE = Policies(
    {
        "fingerprint": "1",
        "tables": {
            "tasks": {"authenticated": {"cacheable": True, "shown": ["title"], "reads": {}}}
        },
    }
)


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
        self.subscriber = hub.join(
            identity, None, "authenticated", identity, self._take, lambda: None
        )
        hub.subscribe(self.subscriber, keys)
        if evidence:
            for key in keys:
                self.subscriber.reader.views[key].add(hub.row_class("tasks", "A"))

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
    """Where each record is asked for: `answer` is what `me` sees, everybody else sees nothing."""
    changes = [each._replace(after=hub.row_class(each.table, each.access)) for each in changes]
    delivery = Delivery(hub, Policies(), changes, str)
    for reader, refs in delivery.uncached().items():
        delivery.answer(reader, answer if reader.identity == "me" else Answer(asked=refs))
    delivery.send("new")


def wanted_records(changes: list[Change], answer: Answer) -> Refs:
    return Delivery(Hub(), Policies(), changes, str).wanted(answer)


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
    assert wanted_records(changes, answer) == {"tasks": {"1"}}
    record = {"id": "1", "version": 3, "title": "now"}
    answer.add_records({"tasks": {"1"}}, {"tasks": {"1": {"record": record}}})
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
    never = Screen(hub, "tasks:1", identity="another")
    deliver(hub, [lost], NOTHING)
    assert knew.updates == [{"key": "tasks:1", "gone": True}]
    assert never.frames == []


@pytest.mark.parametrize("lost", [change(kind="delete"), change(moved=True)])
def test_a_lost_record_makes_known_collections_stale_without_its_id(hub: Hub, lost: Change) -> None:
    knew = Screen(hub, "tasks?boardId=b", "tasks", evidence=True)
    never = Screen(hub, "tasks?boardId=b", "tasks", identity="another")
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


def test_a_very_long_list_becomes_stale(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "boards:1")
    ids = [str(number) for number in range(5000)]
    visible = {"tasks": {i: {"class": "A", "version": 2} for i in ids}}
    answer = Answer(visible, asked={"tasks": set(ids)})
    deliver(hub, [change(i) for i in ids], answer)
    assert screen.stale == ["tasks", "boards:1"]
    assert screen.updates == []


# --- where one answer holds for a class of rows --------------------------------------------------


def edit(
    hub: Hub, before: str | None = "A", after: str | None = "A", record_id: str = "1", **given: Any
) -> Change:
    """A change of a row of class `before` to class `after`; None: not there."""
    kind = "insert" if before is None else "delete" if after is None else "update"
    members: dict[str, Any] = {"kind": kind, "moved": kind != "insert" and before != after}
    return change(record_id, **members | given)._replace(
        after=None if after is None else hub.row_class("tasks", after),
        before=None if before is None else hub.row_class("tasks", before),
    )


def send(hub: Hub, changes: list[Change], sees: Collection[str] = (), **more: Any) -> None:
    """Delivers; PostgreSQL would say of the classes in `sees` that they are readable."""
    delivery = Delivery(hub, CACHEABLE, changes, str)
    last = {each.record_id: each.after for each in changes}
    for reader, refs in delivery.unknown().items():
        visible = {i for i in refs["tasks"] if (found := last[i]) and found.text in sees}
        delivery.learn(reader, refs, {"tasks": visible}, more.get("overtaken", {}))
    for reader, refs in delivery.gained().items():
        answer = Answer()
        answer.add_records(refs, {"tasks": more.get("records", {})})
        delivery.fetched(reader, answer)
    delivery.send("new")


def test_the_first_edit_of_a_class_is_asked_and_the_next_is_not(hub: Hub) -> None:
    screen = Screen(hub, "tasks?boardId=b")
    assert Delivery(hub, CACHEABLE, [edit(hub)], str).unknown() == {
        screen.subscriber.reader: {"tasks": {"1"}}
    }
    send(hub, [edit(hub)], {"A"})
    send(hub, [edit(hub, record_id="2", version=7)])
    assert [update["version"] for update in screen.updates] == [2, 7]


def test_one_record_of_a_class_is_asked_for_all_of_it(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    changes = [edit(hub, record_id=str(number)) for number in range(20)]
    (refs,) = Delivery(hub, CACHEABLE, changes, str).unknown().values()
    assert len(refs["tasks"]) == 1
    send(hub, changes, {"A"})
    assert len(screen.updates) == 20


def test_a_class_he_may_not_see_is_silence_also_later(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    send(hub, [edit(hub)])
    delivery = Delivery(hub, CACHEABLE, [edit(hub)], str)
    assert delivery.unknown() == {}
    delivery.send("new")
    assert screen.frames == []


def test_columns_hidden_from_the_role_are_cut(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    send(hub, [edit(hub, patch={"title": "x", "secret": "y"})], {"A"})
    send(hub, [edit(hub, None, patch={"title": "x", "secret": "y"})], {"A"})
    assert screen.updates[0]["patch"] == {"title": "x"}
    assert screen.updates[1]["record"] == {"title": "x", "id": "1", "version": 2}


def test_an_edit_is_one_frame_for_all_and_one_for_each_socket(hub: Hub) -> None:
    screens = [
        Screen(hub, "tasks", "tasks:1", "tasks?boardId=b", identity=str(number))
        for number in range(3)
    ]
    send(hub, [edit(hub)], {"A"})
    assert [len(screen.raw) for screen in screens] == [1, 1, 1]
    assert screens[0].raw[0] is screens[2].raw[0]


def test_a_row_that_leaves_what_he_sees_is_gone_by_any_key(hub: Hub) -> None:
    screen = Screen(hub, "tasks?boardId=b")
    send(hub, [edit(hub)], {"A"})
    send(hub, [edit(hub, "A", "B")])
    assert screen.updates[1:] == [{"key": "tasks:1", "gone": True}]


def test_a_deleted_row_is_gone_for_who_saw_its_class(hub: Hub) -> None:
    saw, not_saw = Screen(hub, "tasks"), Screen(hub, "tasks", identity="another")
    not_saw.subscriber.reader.learn(hub.row_class("tasks", "A"), readable=False)
    send(hub, [edit(hub)], {"A"})
    send(hub, [edit(hub, "A", None)])
    assert saw.updates[1:] == [{"key": "tasks:1", "gone": True}]
    assert not_saw.frames == []


def test_a_row_deleted_from_a_class_never_asked_makes_keys_with_evidence_stale(hub: Hub) -> None:
    knew = Screen(hub, "tasks", "tasks:1", evidence=True)
    never = Screen(hub, "tasks", "tasks:1", identity="another")
    send(hub, [edit(hub, "A", None)])
    assert knew.stale == ["tasks"]
    assert knew.updates == [{"key": "tasks:1", "gone": True}]
    assert never.frames == []


def test_a_row_that_comes_into_sight_is_sent_whole(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    record = {"id": "1", "version": 5, "title": "now"}
    send(hub, [edit(hub, "HIDDEN", "A")], {"A"}, records={"1": {"record": record}})
    assert screen.updates == [{"key": "tasks:1", "version": 5, "record": record}]
    assert screen.subscriber.reader.views["tasks"].classes == (hub.row_class("tasks", "A"),)


def test_a_row_that_moves_between_classes_he_sees_is_an_ordinary_update(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    screen.subscriber.reader.learn_all([hub.row_class("tasks", name) for name in ("A", "B")])
    send(hub, [edit(hub, "A", "B")])
    assert screen.updates == [{"key": "tasks:1", "version": 2, "patch": {"title": "v2"}}]
    assert screen.subscriber.reader.views["tasks"].classes == (hub.row_class("tasks", "B"),)


def test_what_a_row_held_while_hidden_is_not_shown(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    changes = [edit(hub, "HIDDEN", "HIDDEN"), edit(hub, "HIDDEN", "A", version=3, xid="101")]
    record = {"id": "1", "version": 3, "title": "now"}
    send(hub, changes, {"A"}, records={"1": {"record": record}})
    assert screen.updates == [{"key": "tasks:1", "version": 3, "record": record}]


def test_an_answer_about_a_row_that_was_changed_again_is_not_kept(hub: Hub) -> None:
    screen = Screen(hub, "tasks")
    send(hub, [edit(hub)], overtaken={"tasks": {"1"}})
    assert screen.subscriber.reader.known == {}
    assert screen.frames == []


def test_a_reader_who_could_not_be_asked_reads_again(hub: Hub) -> None:
    screen = Screen(hub, "tasks", "boards")
    delivery = Delivery(hub, CACHEABLE, [edit(hub)], str)
    for reader in delivery.unknown():
        delivery.fail(reader)
    assert delivery.unknown() == {}
    delivery.send("new")
    assert screen.stale == ["tasks"]


def test_answers_dropped_for_lack_of_room_are_asked_again(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_KNOWN", 4)
    screen = Screen(hub, "tasks")
    send(hub, [edit(hub, "a", "a"), edit(hub, "b", "b", "2")])
    changes = [edit(hub, name, name, name) for name in ("c", "d", "e")]
    delivery = Delivery(hub, CACHEABLE, changes, str)
    while unknown := delivery.unknown():
        for reader, refs in unknown.items():
            delivery.learn(reader, refs, refs, {})
    delivery.send("new")
    assert [update["key"] for update in screen.updates] == ["tasks:c", "tasks:d", "tasks:e"]


def test_every_socket_of_a_reader_is_told_that_a_record_is_gone(hub: Hub) -> None:
    one, two = (Screen(hub, "tasks:1", evidence=True) for _ in range(2))
    send(hub, [edit(hub, "A", None)])
    assert one.updates == two.updates == [{"key": "tasks:1", "gone": True}]


def test_telling_everybody_of_very_much_is_bounded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "MAX_TOLD", 5)
    Screen(hub, "tasks", "tasks:1")
    few = [edit(hub, record_id=str(number)) for number in range(4)]
    assert Delivery(hub, CACHEABLE, few, str).keys_of_too_much() == set()
    many = [edit(hub, record_id=str(number)) for number in range(6)]
    assert Delivery(hub, CACHEABLE, many, str).keys_of_too_much() == {"tasks", "tasks:1"}
