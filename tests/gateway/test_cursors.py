"""Cursors are opaque to clients: they tell nothing of others' writes, and none can be made up."""

import base64
import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import migrate
from app.cursors import MAX_CHARACTERS, Cursors, covers
from tests.gateway.conftest import ALICE, BOARD, BOB, Service, settings_for, until
from tests.gateway.test_socket import KEY, create
from tests.postgres import Database

GET = "/api/realtime/getRecords"
QUERY = "/api/realtime/query"
PLAIN = "v1.0123456789abcdef.1234567.1234565-1234566.1234566-987654-1234567890"


def cursors(key: bytes | None = None) -> Cursors:
    made = Cursors()
    made.use(key or os.urandom(64))
    return made


def test_a_sealed_cursor_opens_under_its_key_alone() -> None:
    ours, foreign = cursors(), cursors()
    sealed = ours.seal(PLAIN)
    assert ours.open(sealed) == PLAIN
    assert foreign.open(sealed) is None
    assert Cursors().open(sealed) is None
    ours.use(os.urandom(64))
    assert ours.open(sealed) is None


def test_a_cursor_never_looks_the_same_and_its_length_tells_little() -> None:
    made = cursors()
    assert made.seal(PLAIN) != made.seal(PLAIN)
    assert len(made.seal(PLAIN)) == len(made.seal(PLAIN.replace("1234565-1234566", "")))
    long = PLAIN.replace("1234565-", "-".join(["1234565"] * 500))
    assert made.open(made.seal(long)) == long


def test_any_change_of_a_byte_is_noticed() -> None:
    made = cursors()
    sealed = base64.urlsafe_b64decode(made.seal(PLAIN) + "==")
    for position in range(len(sealed)):
        forged = bytearray(sealed)
        forged[position] ^= 1
        assert made.open(base64.urlsafe_b64encode(forged).decode()) is None


ONE = cursors()


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
def test_whatever_is_sent_is_no_cursor_and_no_error(text: str) -> None:
    assert ONE.open(text) is None


def test_text_of_any_length_is_no_cursor() -> None:
    for size in (1, 2, 3, 4, 20, 21, 22, 43, MAX_CHARACTERS, MAX_CHARACTERS + 1):
        assert ONE.open("A" * size) is None


def test_an_answer_without_a_cursor_in_front_is_an_error() -> None:
    for answer in ("{}", '{"ids" : [], "cursor" : "v1"}', '{"cursor" : "v1'):
        with pytest.raises(ValueError, match="cursor"):
            ONE.seal_answer(answer)


@pytest.mark.both_versions
async def test_nothing_a_client_gets_shows_a_transaction_number(
    service: Service, run: Callable[..., Any]
) -> None:
    task = str(uuid.uuid4())
    async with service.socket(BOB) as bob:
        seen = [(await bob.subscribe(KEY))["cursor"]]
        await service.write(create(task))
        update = await bob.expect("updates")
        seen += [update["cursor"], (await bob.pong())["cursor"], (await bob.pong())["cursor"]]
    for path, body in (
        (GET, {"pointers": [{"table": "tasks", "id": task}]}),
        (QUERY, {"table": "tasks"}),
    ):
        seen += [(await service.post(path, body)).json()["cursor"] for _ in range(2)]
    stream = await service.post(QUERY, {"table": "tasks"}, accept="application/x-ndjson")
    seen.append(json.loads(stream.text.splitlines()[0])["cursor"])
    epoch = run("select epoch from sync_internal.state")
    opened = [service.gateway.cursors.open(cursor) or "" for cursor in seen]
    assert all(plain.startswith(f"v1.{epoch}.") for plain in opened)
    for cursor in seen:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        assert epoch.encode() not in raw
    # Asked twice with nothing in between, it still does not show that nothing was.
    assert len(set(seen)) == len(seen)


async def test_a_cursor_of_a_read_is_resumed_from(service: Service) -> None:
    task = str(uuid.uuid4())
    read = (await service.post(QUERY, {"table": "tasks", "where": {"boardId": BOARD}})).json()
    await service.write(create(task))
    async with service.socket() as socket:
        answer = await socket.subscribe(KEY, cursor=read["cursor"])
        assert "stale" not in answer
        replayed = [u["key"] for frame in socket.heard for u in frame.get("updates", [])]
        assert replayed == [f"tasks:{task}"]


async def test_a_cursor_not_made_by_a_gateway_of_this_database_is_stale(
    service: Service, run: Callable[..., Any]
) -> None:
    plain = service.gateway.hub.cursor
    assert plain
    foreign = cursors().seal(plain)
    async with service.socket() as socket:
        for cursor in (plain, foreign, "%", "ü", "=" * 50, foreign[:-8], "A" * 60_000):
            assert (await socket.subscribe(KEY, cursor=cursor))["stale"] == [KEY]
        good = service.gateway.cursors.seal(plain)
        assert "stale" not in await socket.subscribe(KEY, cursor=good)


async def test_gateways_share_the_key_and_notice_another(
    service: Service, gateway_dsn: str, run: Callable[..., Any]
) -> None:
    async with Service(settings_for(gateway_dsn)) as other:
        await other.ready()
        sealed = service.gateway.cursors.seal(PLAIN)
        assert other.gateway.cursors.open(sealed) == PLAIN
        run("update sync_internal.state set cursor_key = sha512('another')")
        for gateway in (service.gateway, other.gateway):
            await until(lambda gateway=gateway: gateway.cursors.open(sealed) is None)  # type: ignore[misc]
        again = service.gateway.cursors.seal(PLAIN)
        assert other.gateway.cursors.open(again) == PLAIN


async def test_reads_are_served_before_the_relay_has_looked(service: Service) -> None:
    await service.gateway.relay.stop()
    service.gateway.cursors = Cursors()
    answer = (await service.post(QUERY, {"table": "tasks"}, ALICE)).json()
    assert (service.gateway.cursors.open(answer["cursor"]) or "").startswith("v1.")


async def test_members_named_cursor_in_records_stay_as_they_are(service: Service) -> None:
    task, like = str(uuid.uuid4()), '{"cursor" : "v1.x"}'
    metadata = {"cursor": "v1.x", "text": like}
    await service.write(create(task, title=like, metadata=metadata))
    for path, body in (
        (GET, {"pointers": [{"table": "tasks", "id": task}]}),
        (QUERY, {"table": "tasks", "where": {"id": task}}),
    ):
        record = (await service.post(path, body)).json()["recordMap"]["tasks"][task]
        assert (record["title"], record["metadata"]) == (like, metadata)


@pytest.mark.both_versions
def test_each_installation_draws_a_key_of_its_own(pg: Any) -> None:
    keys = []
    for _ in range(2):
        with pg.database(empty=True) as database:
            made: Database = database
            migrate.migrate(made.dsn())
            row = made.connect().execute("select cursor_key from sync_internal.state").fetchone()
            assert row is not None
            keys.append(row[0])
            migrate.migrate(made.dsn())
            assert made.connect().execute(
                "select cursor_key from sync_internal.state"
            ).fetchone() == (row[0],)
    assert len({*keys}) == 2
    assert {len(key) for key in keys} == {64}


@pytest.mark.parametrize("why", ["pruned", "too many", "another history", "ahead", "another key"])
async def test_cursor_that_cannot_be_resumed_from_makes_its_keys_stale(
    service: Service, run: Callable[..., Any], why: str
) -> None:
    """Never a silent "nothing missed"."""
    change = "update public.tasks set title = title || 'x' where board_id = %s"
    run(change, BOARD)
    async with service.socket(BOB) as bob:
        cursor = (await bob.subscribe(KEY))["cursor"]
    match why:
        case "pruned":
            run(change, BOARD)
            run("update sync_internal.changes set slot = (slot + 4) %% 8, at = '2020-02-02Z'")
            # Not beside the gateway's own, which has it do nothing.
            run("select sync.prune() from pg_advisory_xact_lock(7215604)")
        case "too many":
            run("select sync.configure('max_changes_read', 2)")
            run(change, BOARD)
        case "another history":
            run("select sync.new_epoch()")
        case "ahead":
            plain = (service.gateway.cursors.open(cursor) or "").split(".")
            plain[2] = str(int(plain[2]) + 1_000_000)
            cursor = service.gateway.cursors.seal(".".join(plain))
        case "another key":
            cursor = cursors().seal(service.gateway.cursors.open(cursor) or "")
    await service.caught_up()
    async with service.socket(BOB) as bob:
        subscribed = await bob.subscribe(KEY, cursor=cursor)
        assert subscribed["stale"] == [KEY]
        # What it is told with that can be resumed from.
        again = await bob.subscribe(KEY, cursor=subscribed["cursor"])
        assert "stale" not in again


@pytest.mark.parametrize(
    ("cursor", "other", "covered"),
    [
        ("v1.e.10..9-1-1", "v1.e.10..9-1-1", True),
        ("v1.e.11..9-1-1", "v1.e.10..9-1-1", True),
        ("v1.e.10..9-1-1", "v1.e.11..9-1-1", False),
        ("v1.f.11..9-1-1", "v1.e.10..9-1-1", False),
        # 7 has committed before the one, and still ran at the other.
        ("v1.e.11.7.9-1-1", "v1.e.10..9-1-1", False),
        ("v1.e.11..9-1-1", "v1.e.10.7.9-1-1", True),
        ("v1.e.11.7.9-1-1", "v1.e.10.7-8.9-1-1", True),
        # It began after the other.
        ("v1.e.12.10-11.9-1-1", "v1.e.10..9-1-1", True),
        ("v1.e.12..9-1-1", "another form", False),
        ("v1.e.12..9-1-1", None, True),
    ],
)
def test_a_cursor_covers_what_is_before_it(cursor: str, other: str | None, covered: bool) -> None:
    assert covers(cursor, other) is covered
