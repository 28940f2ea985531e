"""Reading and writing frames."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import protocol
from app.hub import record_key
from app.outlet import close_frame, payload_of, text_frame
from app.protocol import Malformed, parse


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "[]",
        "null",
        "1",
        "{}",
        '{"type":1}',
        '{"type":null}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","id":1,"keys":"tasks"}',
        '{"type":"subscribe","id":1,"keys":[1]}',
        '{"type":"subscribe","id":{},"keys":[]}',
        '{"type":"subscribe","id":1,"keys":[],"cursor":"\\u0000"}',
        '{"type":"subscribe","id":1,"keys":[],"cursor":"\\ud800"}',
        '{"type":"hello","protocol":NaN}',
        '{"type":"auth"}',
        "[" * 100_000,
        '{"type":"ping","x":' * 50_000,
    ],
)
def test_a_malformed_frame_is_told_apart(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)


@given(st.text())
def test_no_text_does_more_than_be_malformed(text: str) -> None:
    try:
        parse(text)
    except Malformed as bad:
        assert bad.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from(sorted(protocol.CLIENT_TYPES)),
)
def test_no_value_in_any_place_does_more_than_be_malformed(value: Any, kind: str) -> None:
    members = dict.fromkeys(("id", "keys", "cursor", "token", "protocol", "key", "state"), value)
    try:
        parse(json.dumps({**members, "type": kind}))
    except Malformed as bad:
        assert bad.message


def test_a_malformed_frame_keeps_its_id() -> None:
    with pytest.raises(Malformed) as caught:
        parse('{"type":"subscribe","id":"seven","keys":7}')
    assert caught.value.frame_id == "seven"


def test_unknown_types_and_fields_are_ignored() -> None:
    assert parse('{"type":"tomorrow"}') is None
    frame = parse('{"type":"subscribe","id":1,"keys":["tasks"],"more":true}')
    assert frame == protocol.Subscribe(type="subscribe", id=1, keys=["tasks"])


TOO_LONG = ["x" * 257, "ü" * 129]
NOT_CANONICAL = ["tasks:a b", "tasks:a:b", "tasks:%2d", "tasks:%61", "tasks:%", "tasks?b=a/b"]


@pytest.mark.parametrize("key", ["", "a\0", "\ud800", "tasks?b=ü", *TOO_LONG, *NOT_CANONICAL])
def test_unusable_keys(key: str) -> None:
    assert not protocol.usable_key(key)


@pytest.mark.parametrize(
    "key", ["x" * 256, "tasks", "tasks:1-2_3.4~5", "tasks?b=%C3%BC%3A", "tasks:%00", "tasks:"]
)
def test_usable_keys(key: str) -> None:
    assert protocol.usable_key(key)


def test_a_record_with_any_id_has_a_usable_key() -> None:
    for record_id in ("a b", "a:b?c=d", "ü", "%", "/"):
        assert protocol.usable_key(record_key("tasks", record_id))


def test_null_is_kept_where_it_says_something() -> None:
    welcome = protocol.Welcome(
        epoch="e",
        user_id=None,
        role="anon",
        rights="r",
        server_time="t",
        heartbeat=20,
        schema_version=1,
    )
    decoded = json.loads(protocol.encode(welcome))
    assert decoded["userId"] is None
    assert decoded["schema"] == 1
    assert "expiresAt" not in decoded
    assert decoded["limits"] == {"keys": 2000, "frame": 65536}
    error = protocol.ErrorFrame(code="c", message="m")
    assert json.loads(protocol.encode(error)) == {"type": "error", "code": "c", "message": "m"}


def test_an_element_has_one_kind_of_content() -> None:
    def element(**given: Any) -> Any:
        return json.loads(protocol.update_element("tasks:1", 2, **given))

    assert element() == {"key": "tasks:1", "version": 2}
    assert element(patch={"a": None}) == {"key": "tasks:1", "version": 2, "patch": {"a": None}}
    assert element(patch={}, from_version=0)["from"] == 0
    assert element(record={"id": "1"}, tx_id="t") == {
        "key": "tasks:1",
        "version": 2,
        "txId": "t",
        "record": {"id": "1"},
    }
    assert element(gone=True) == {"key": "tasks:1", "gone": True}


def test_a_number_json_cannot_carry_makes_the_element_bare() -> None:
    patch = json.loads('{"n": 1e400}')
    assert json.loads(protocol.update_element("t:1", 2, patch=patch)) == {
        "key": "t:1",
        "version": 2,
    }


def group(*sizes: int) -> list[tuple[bytes, bytes]]:
    return [(b'"' + b"x" * (size - 2) + b'"', b'"bare"') for size in sizes]


def updates(frames: list[bytes]) -> list[tuple[str, list[str]]]:
    return [(frame["cursor"], frame["updates"]) for frame in map(json.loads, frames)]


def test_one_wake_up_is_one_frame_with_the_new_cursor() -> None:
    frames = updates(protocol.updates_frames([group(10), group(10, 10)], "old", "new"))
    assert [(cursor, len(elements)) for cursor, elements in frames] == [("new", 3)]


def test_frames_stay_below_512_kib_and_only_the_last_moves_the_cursor() -> None:
    frames = protocol.updates_frames(
        [group(200_000), group(200_000, 90_000), group(50_000)], "o", "n"
    )
    assert all(len(frame) <= protocol.MAX_FRAME_OUT_BYTES for frame in frames)
    assert [(cursor, len(elements)) for cursor, elements in updates(frames)] == [("o", 3), ("n", 1)]


def test_a_transaction_too_large_for_a_frame_is_sent_bare_where_largest() -> None:
    (frame,) = protocol.updates_frames([group(400_000, 100, 300_000)], "o", "n")
    assert len(frame) <= protocol.MAX_FRAME_OUT_BYTES
    assert [element == "bare" for element in json.loads(frame)["updates"]] == [True, False, False]


def test_a_transaction_too_large_even_bare_is_cut_after_it_was_made_bare() -> None:
    bare = b'"' + b"y" * 700 + b'"'
    frames = protocol.updates_frames([[(bare + b" " * 300, bare)] * 2000, group(10)], "o", "n")
    assert all(len(frame) <= protocol.MAX_FRAME_OUT_BYTES for frame in frames)
    cursors, elements = zip(*updates(frames), strict=True)
    assert cursors == ("o", "o", "n")
    assert sum(map(len, elements)) == 2001


def test_no_elements_make_no_frame() -> None:
    assert protocol.updates_frames([], "o", "n") == []


def test_stale_keys_are_cut_into_frames() -> None:
    frames = [json.loads(f) for f in protocol.stale_frames([str(n) for n in range(2500)], "bulk")]
    assert [len(frame["keys"]) for frame in frames] == [1000, 1000, 500]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_a_frame_is_what_rfc_6455_says(size: int) -> None:
    from websockets.frames import Frame, Opcode

    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert payload_of(text_frame(payload)) == payload


def test_a_close_frame_is_what_rfc_6455_says() -> None:
    from websockets.frames import Close, Frame, Opcode

    close = Frame(Opcode.CLOSE, Close(4408, "too slow").serialize()).serialize(mask=False)
    assert close_frame(4408, "too slow") == close
    assert len(close_frame(4408, "x" * 300)) == 2 + 125
