"""The hub's bookkeeping."""

from collections.abc import Callable
from functools import partial

import pytest

from app.hub import (
    MAX_HELD_BYTES,
    MAX_VIEW_CLASSES,
    MIN_AUDIENCE,
    Hub,
    RowClass,
    Subscriber,
    is_record_key,
    table_of,
)


def subscriber(hub: Hub, *keys: str) -> tuple[Subscriber, list[bytes]]:
    sent: list[bytes] = []
    made = hub.join("identity", None, "authenticated", "u", sent.append, lambda: None)
    hub.subscribe(made, keys)
    return made, sent


def test_a_change_matches_record_collection_and_table_keys() -> None:
    hub = Hub()
    record, _ = subscriber(hub, "tasks:1")
    collection, _ = subscriber(hub, "tasks?boardId=b")
    table, _ = subscriber(hub, "tasks")
    subscriber(hub, "tasks:2", "tasks?boardId=c", "boards")
    assert hub.matches("tasks", "1", ["boardId=b"]) == {
        record: ["tasks:1"],
        collection: ["tasks?boardId=b"],
        table: ["tasks"],
    }


def test_a_socket_with_several_matching_keys_is_found_once() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks", "tasks:1", "tasks?boardId=b")
    assert hub.matches("tasks", "1", ["boardId=b"]) == {
        one: ["tasks:1", "tasks?boardId=b", "tasks"]
    }


def test_after_unsubscribe_nothing_matches_and_nothing_is_kept() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks", "tasks:1")
    hub.unsubscribe(one, ["tasks", "tasks:1", "never"])
    assert not hub.matches("tasks", "1", [])
    assert hub.key_count == 0


def test_remove_forgets_the_socket_and_its_keys_alone() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks")
    two, _ = subscriber(hub, "tasks")
    hub.remove(one)
    hub.remove(one)
    assert list(hub.matches("tasks", "1", [])) == [two]
    assert len(hub) == 1


def test_sockets_of_one_identity_share_what_is_known_of_it() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks")
    seen = hub.row_class("tasks", "A")
    one.reader.learn(seen, readable=True)
    one.reader.views["tasks"].add(seen)
    two, _ = subscriber(hub, "tasks")
    assert two.reader is one.reader
    assert two.reader.views["tasks"].evidence
    hub.remove(one)
    assert two.reader.known == {seen: True}
    hub.remove(two)
    assert hub.readers == {}
    assert subscriber(hub, "tasks")[0].reader.known == {}


def test_a_table_is_forgotten_by_itself() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks")
    task, board = hub.row_class("tasks", "A"), hub.row_class("boards", "A")
    one.reader.learn_all([task, board])
    one.reader.forget("tasks")
    assert one.reader.known == {board: True}
    assert one.reader.generation == 1


def test_a_view_of_very_many_classes_counts_as_any() -> None:
    hub = Hub()
    view = subscriber(hub, "tasks")[0].reader.views["tasks"]
    for number in range(MAX_VIEW_CLASSES):
        view.add(hub.row_class("tasks", str(number)))
    assert len(view.classes or ()) == MAX_VIEW_CLASSES
    view.add(hub.row_class("tasks", "one more"))
    assert view.classes is None
    assert view.evidence


def test_another_token_is_another_reader() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks")
    one.reader.views["tasks"].add(hub.row_class("tasks", "A"))
    hub.renew(one, "same rights", "{}", "authenticated", "u", keep_views=True)
    assert one.reader.identity == "same rights"
    assert [view.evidence for view in one.reader.views.values()] == [True]
    hub.renew(one, "other rights", "{}", "authenticated", "u", keep_views=False)
    assert [view.evidence for view in one.reader.views.values()] == [False]
    assert list(hub.readers) == ["other rights"]
    assert list(hub.matches("tasks", "1", [])) == [one]


def test_a_table_is_found_through_all_kinds_of_its_keys() -> None:
    hub = Hub()
    one, _ = subscriber(hub, "tasks", "tasks:1", "tasks?boardId=b", "tasksOld", "boards")
    assert {key for keys in hub.of_table("tasks").values() for key in keys} == {
        "tasks",
        "tasks:1",
        "tasks?boardId=b",
    }
    assert list(hub.of_table("tasks")) == [one]


def test_what_arrives_during_a_replay_waits_and_keeps_its_order() -> None:
    hub = Hub()
    hub.cursor = "before"
    one, sent = subscriber(hub, "tasks")
    assert hub.hold(one) == "before"
    hub.cursor = "after"
    one.send(b"1")
    one.send(b"2")
    assert sent == []
    assert hub.cursor_of(one) == "before"
    assert hub.release(one)
    assert sent == [b"1", b"2"]
    assert hub.cursor_of(one) == "after"
    one.send(b"3")
    assert sent[-1] == b"3"


def test_too_much_behind_a_replay_is_dropped_and_reported() -> None:
    hub = Hub()
    one, sent = subscriber(hub, "tasks")
    hub.hold(one)
    one.send(b"x" * MAX_HELD_BYTES)
    one.send(b"x")
    one.send(b"y")
    assert not hub.release(one)
    assert sent == []
    one.send(b"z")
    assert sent == [b"z"]


def test_kinds_of_keys() -> None:
    assert table_of("tasks?boardId=a:b") == "tasks"
    assert table_of("tasks:a?b") == "tasks"
    assert table_of("tasks") == "tasks"
    assert is_record_key("tasks:1")
    assert is_record_key("tasks:a?b")
    assert not is_record_key("tasks?x=a:b")
    assert not is_record_key("tasks")


def test_the_end_of_a_session_closes_and_forgets_its_sockets_alone() -> None:
    hub, ended = Hub(), list[str]()
    made = [
        hub.join(who, who, "authenticated", "u", lambda _: None, partial(ended.append, who))
        for who in ("old", "old", "new")
    ]
    for one in made:
        hub.subscribe(one, ["tasks"])
    hub.end(made[0].reader)
    assert ended == ["old", "old"]
    assert hub.of_table("tasks") == {made[2]: ["tasks"]}
    # Frames it had sent before it was closed are still handled.
    hub.subscribe(made[0], ["boards"])
    hub.renew(made[1], "newer", "newer", "authenticated", "u", keep_views=True)
    for one in made:
        hub.remove(one)
    assert not hub.readers
    assert hub.key_count == 0


class Line:
    """A transport that is idle."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        del data


Crowd = tuple[Hub, list[Subscriber], RowClass]


@pytest.fixture
def crowd() -> Crowd:
    """So many sockets of different readers under one key that who hears of a row is kept."""
    hub = Hub()
    seen = hub.row_class("tasks", "A")
    sockets = []
    for number in range(MIN_AUDIENCE):
        one = hub.join(
            f"{number}", None, "authenticated", f"{number}", lambda _: None, lambda: None
        )
        hub.subscribe(one, ["tasks"])
        hub.connect(one, Line())
        one.reader.learn(seen, readable=True)
        sockets.append(one)
    return hub, sockets, seen


def hearing(crowd: Crowd) -> set[object]:
    """The wires of those who hear of an edit, and those who hear of it without one."""
    hub, _, seen = crowd
    audience = hub.audience(hub.holders("tasks", "1", []), seen)
    return {
        who
        for listeners in audience.by_role.values()
        for who in (*listeners.wires, *listeners.others)
    } | audience.unknown


def test_who_hears_of_an_edit_is_kept(crowd: Crowd) -> None:
    hub, _, seen = crowd
    holders = hub.holders("tasks", "1", [])
    assert hub.audience(holders, seen) is hub.audience(holders, seen)


@pytest.mark.parametrize(
    ("event", "change"),
    [
        (lambda hub, one, seen: hub.remove(one), "gone"),
        (lambda hub, one, seen: hub.end(one.reader), "gone"),
        (lambda hub, one, seen: hub.unsubscribe(one, ["tasks"]), "gone"),
        (lambda hub, one, seen: one.reader.learn(seen, readable=False), "gone"),
        (lambda hub, one, seen: one.reader.forget("tasks"), "no wire"),
        (lambda hub, one, seen: one.reader.forget_all(), "no wire"),
        (lambda hub, one, seen: hub.hold(one), "no wire"),
        (lambda hub, one, seen: hub.connect(one, None), "no wire"),
        (
            lambda hub, one, seen: hub.renew(
                one, "other", None, "authenticated", "0", keep_views=False
            ),
            "no wire",
        ),
    ],
    ids=[
        "left",
        "ended",
        "unsubscribed",
        "lost",
        "forgot",
        "forgot all",
        "held",
        "closed",
        "renewed",
    ],
)
def test_what_concerns_one_of_them_ends_what_was_kept(
    crowd: Crowd, event: Callable[[Hub, Subscriber, RowClass], object], change: str
) -> None:
    hub, (one, *_), seen = crowd
    before, wire = hearing(crowd), one.wire
    event(hub, one, seen)
    after = hearing(crowd)
    assert before - after == {wire}
    assert after - before == ({one} if change == "no wire" else set())


def test_who_joins_is_among_them(crowd: Crowd) -> None:
    hub, _, seen = crowd
    before = hearing(crowd)
    late = hub.join("late", None, "authenticated", "late", lambda _: None, lambda: None)
    hub.subscribe(late, ["tasks"])
    assert hearing(crowd) - before == {late}
    late.reader.learn(seen, readable=True)
    hub.connect(late, line := Line())
    assert hearing(crowd) - before == {line}
    hub.hold(late)
    assert hearing(crowd) - before == {late}
    hub.release(late)
    assert hearing(crowd) - before == {line}
