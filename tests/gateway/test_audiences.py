"""Each audience of a change hears exactly what is its own, and nobody else hears anything.

The screens: whoever holds the record, its board or the whole table, and may read it; a member who
looks at another board; a stranger with the very same keys. The stranger's whole table is a screen
of its own, since there he sees rows of his own: that something he perhaps saw is no longer there
may make it stale, and says no more.
"""

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from app import relay
from tests.gateway.conftest import ALICE, BOARD, BOB, CAROL, Service, Socket, settings_for
from tests.gateway.test_socket import KEY, create, put

pytestmark = pytest.mark.both_versions

OTHER_BOARD = "00000000-0000-7000-8000-0000000b0002"
BOARD_OF_CAROL = "00000000-0000-7000-8000-0000000b0003"
NOBODY = "00000000-0000-7000-8000-00000000dead"
TABLE = "the stranger's table"

Run = Callable[..., Any]
Event = dict[str, Any]


class Screens:
    """Sockets by name, and what each hears from one moment to the next."""

    def __init__(self, service: Service, stack: contextlib.AsyncExitStack, task: str) -> None:
        self._service = service
        self._stack = stack
        self.task = task
        self.key = f"tasks:{task}"
        self._sockets: dict[str, Socket] = {}

    async def open(self, name: str, user: str, *keys: str) -> None:
        socket = await self._stack.enter_async_context(self._service.socket(user))
        await socket.subscribe(*keys)
        self._sockets[name] = socket

    async def hear(self) -> dict[str, list[Event]]:
        """What came since the last call, by screen: elements of updates, and stale frames."""
        await self._service.caught_up()
        found: dict[str, list[Event]] = {}
        for name, socket in self._sockets.items():
            await socket.pong()
            found[name] = []
            for frame in socket.heard:
                if frame["type"] == "updates":
                    found[name] += frame["updates"]
                elif frame["type"] == "stale":
                    found[name].append({"stale": sorted(frame["keys"])})
            socket.heard.clear()
        if found.get(TABLE) == [{"stale": ["tasks"]}]:
            found[TABLE] = []
        return found


@pytest_asyncio.fixture
async def screens(service: Service) -> AsyncIterator[Screens]:
    task = str(uuid.uuid4())
    await service.write(create(task, description="of old"))
    await service.caught_up()
    async with contextlib.AsyncExitStack() as stack:
        made = Screens(service, stack, task)
        await open_all(made)
        yield made


async def open_all(screens: Screens) -> None:
    """Everybody who is told of at the head of this file."""
    other_board = f"tasks?boardId={OTHER_BOARD}"
    await screens.open("record", ALICE, screens.key)
    await screens.open("board", BOB, KEY)
    await screens.open("table", ALICE, "tasks")
    await screens.open("other board", BOB, other_board)
    await screens.open("stranger", CAROL, screens.key, KEY, other_board)
    await screens.open(TABLE, CAROL, "tasks")
    await screens.hear()


def only(event: Event) -> dict[str, list[Event]]:
    """The same for each of the three who see the record, nothing for the others."""
    seen = {name: [event] for name in ("record", "board", "table")}
    return {**seen, "other board": [], "stranger": [], TABLE: []}


async def test_an_edit(service: Service, screens: Screens) -> None:
    answer = await service.write(put(screens.task, "edited"))
    record = answer["recordMap"]["tasks"][screens.task]
    patch = {"title": "edited", "updatedAt": record["updatedAt"]}
    event = {"key": screens.key, "version": 2, "txId": answer["txId"], "patch": patch}
    assert await screens.hear() == only(event)


async def test_a_soft_delete_and_a_restore(service: Service, screens: Screens) -> None:
    for kind, version in (("delete", 2), ("restore", 3)):
        answer = await service.write({"type": kind, "table": "tasks", "id": screens.task})
        record = answer["recordMap"]["tasks"][screens.task]
        patch = {name: record[name] for name in ("deleted", "updatedAt")}
        assert (patch["deleted"] is None) == (kind == "restore")
        event = {
            "key": screens.key,
            "version": version,
            "txId": answer["txId"],
            "patch": patch,
        }
        assert await screens.hear() == only(event)


async def test_a_hard_delete(screens: Screens, run: Run) -> None:
    run("delete from public.tasks where id = %s", screens.task)
    assert await screens.hear() == only({"key": screens.key, "gone": True})


async def test_a_move_to_a_board_that_the_same_people_read(
    service: Service, screens: Screens
) -> None:
    move = {"type": "set", "table": "tasks", "id": screens.task, "key": "boardId"}
    await service.write({**move, "value": OTHER_BOARD})
    heard = await screens.hear()
    assert (heard.pop("stranger"), heard.pop(TABLE)) == ([], [])
    for name, events in heard.items():
        (event,) = events
        assert (event["key"], event["version"]) == (screens.key, 2), name
        shown = event.get("patch") or event["record"]
        assert shown["boardId"] == OTHER_BOARD, name
    # From now on it is the business of those who look at the other board.
    await service.write(put(screens.task, "there"))
    heard = await screens.hear()
    assert {name for name, events in heard.items() if events} == {"record", "table", "other board"}


async def test_a_move_out_of_sight_and_into_anothers(screens: Screens, run: Run) -> None:
    await screens.open("new reader", CAROL, f"tasks?boardId={BOARD_OF_CAROL}")
    await screens.hear()
    run(
        "update public.tasks set board_id = %s, description = 'clean' where id = %s",
        BOARD_OF_CAROL,
        screens.task,
    )
    heard = await screens.hear()
    for name in ("new reader", TABLE, "stranger"):
        (gained,) = heard.pop(name)
        assert (gained["key"], gained["version"]) == (screens.key, 2)
        assert gained["record"]["description"] == "clean"
        assert "of old" not in json.dumps(gained)
    assert heard.pop("other board") == []
    assert list(heard.values()) == [[{"key": screens.key, "gone": True}]] * 3
    assert BOARD_OF_CAROL not in json.dumps(heard)
    run("update public.tasks set title = 'hers' where id = %s", screens.task)
    heard = await screens.hear()
    assert {name for name, events in heard.items() if events} == {
        "new reader",
        "stranger",
        TABLE,
    }


async def test_a_column_they_may_not_see(gateway_dsn: str, run: Run) -> None:
    task = str(uuid.uuid4())
    run("alter table public.tasks add column price text default 'hidden price'")
    columns = run(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute where attnum > 0"
        " and attrelid = 'public.tasks'::regclass and not attisdropped and attname <> 'price'"
    )
    run("revoke select on public.tasks from authenticated")
    run(f"grant select ({columns}) on public.tasks to authenticated")
    run("select sync.refresh('public.tasks')")
    async with (
        Service(settings_for(gateway_dsn)) as service,
        contextlib.AsyncExitStack() as stack,
    ):
        await service.ready()
        await service.write(create(task))
        await service.caught_up()
        screens = Screens(service, stack, task)
        await open_all(screens)
        run("update public.tasks set price = 'hidden 2', title = 'shown' where id = %s", task)
        heard = await screens.hear()
        assert heard == only(heard["record"][0])
        patch = heard["record"][0]["patch"]
        assert {name: patch[name] for name in patch if name != "updatedAt"} == {"title": "shown"}
        run("update public.tasks set price = 'hidden 3' where id = %s", task)
        # The version has moved, so it is told; nothing else is.
        heard = await screens.hear()
        assert heard == only(heard["record"][0])
        assert heard["record"][0]["version"] == 3
        assert set(heard["record"][0]["patch"]) <= {"updatedAt"}
        run(
            "insert into public.tasks (board_id, title, created_by, price)"
            " values (%s, 'more', %s, 'hidden 4')",
            BOARD,
            ALICE,
        )
        heard = await screens.hear()
        assert {name for name, events in heard.items() if events} == {"board", "table"}
        assert "hidden" not in json.dumps(heard)
        assert "price" not in json.dumps(heard)


def titles(socket: Socket) -> set[str]:
    """The titles of tasks a socket has heard."""
    heard = [update for frame in socket.heard for update in frame.get("updates", ())]
    return {
        values["title"]
        for update in heard
        if "title" in (values := update.get("patch") or update.get("record") or {})
    }


async def test_a_column_that_is_new_is_shown_to_nobody_before_its_rights_are_known(
    gateway_dsn: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = run(
        "select string_agg(quote_ident(attname), ', ') from pg_attribute where attnum > 0"
        " and attrelid = 'public.tasks'::regclass and not attisdropped"
    )
    run("revoke select on public.tasks from authenticated")
    run(f"grant select ({columns}) on public.tasks to authenticated")
    run("select sync.refresh('public.tasks')")
    task = str(uuid.uuid4())
    async with Service(settings_for(gateway_dsn)) as service:
        await service.ready()
        await service.write(create(task))
        async with service.socket(BOB) as bob:
            await bob.subscribe(KEY)
            await service.write(put(task, "one"))
            await service.caught_up()
            # From now on the catalogue is not looked at.
            monkeypatch.setattr(relay, "FINGERPRINT_SECONDS", 3600.0)
            run("alter table public.tasks add column price text")
            run("select sync.refresh('public.tasks')")
            run("update public.tasks set price = 'hidden', title = 'shown' where id = %s", task)
            run(
                "insert into public.tasks (board_id, title, created_by, price)"
                " values (%s, 'more', %s, 'hidden')",
                BOARD,
                ALICE,
            )
            await service.caught_up()
            await bob.pong()
            assert {"shown", "more"} <= titles(bob)
            assert "hidden" not in json.dumps(bob.heard)


# --- who may not know ----------------------------------------------------------------------------


def families() -> dict[str, tuple[str, str]]:
    """A key of what a stranger may not see, and one of what is not there; their ids differ."""
    records = {
        "workspaces": "0a0001",
        "boards": "0b0001",
        "tasks": "0c0001",
        "comments": "0d0001",
        "notebooks": "0e0001",
        "notes": "0f0001",
    }
    hidden = {table: f"00000000-0000-7000-8000-000000{tail}" for table, tail in records.items()}
    collections = {
        "boards": ("workspaceId", "workspaces"),
        "tasks": ("boardId", "boards"),
        "comments": ("taskId", "tasks"),
        "notes": ("notebookId", "notebooks"),
        "workspaceMembers": ("workspaceId", "workspaces"),
        "notebookMembers": ("notebookId", "notebooks"),
    }
    found = {f"{table}:": (record_id, NOBODY) for table, record_id in hidden.items()}
    for table, (column, parent) in collections.items():
        found[f"{table}?{column}="] = (hidden[parent], NOBODY)
    found["tasks?assigneeId="] = (BOB, NOBODY)
    found["workspaceMembers?userId="] = (ALICE, NOBODY)
    return found


CHANGES = (
    "update public.tasks set title = title || '!', assignee_id = '{bob}'",
    "update public.boards set name = name || '!'",
    "update public.workspaces set name = name || '!'",
    "update public.notebooks set name = name || '!'",
    "update public.notes set content = 'new'",
    "update public.comments set content = 'new'",
    "insert into public.tasks (board_id, title, created_by)"
    " select id, 'more', created_by from public.boards",
    "delete from public.comments",
    "update public.tasks set board_id = '{other}' where board_id = '{board}'",
    "delete from public.tasks",
    "delete from public.notes",
    "update public.workspaces set member_ids = '[]'",
    "update public.notebooks set shared_with = '[]'",
    "delete from public.boards",
)


@pytest.mark.parametrize("resumed", [False, True], ids=["anew", "resumed"])
async def test_hidden_missing_and_foreign_keys_answer_alike_and_stay_silent(
    service: Service, run: Run, resumed: bool
) -> None:
    """Somebody who belongs to nothing: all he ever hears is the same as of what is not there."""
    stranger = str(uuid.uuid4())
    keys = families()
    hidden = [f"{family}{ids[0]}" for family, ids in keys.items()]
    missing = [f"{family}{ids[1]}" for family, ids in keys.items()]
    tables = ["workspaces", "boards", "tasks", "comments", "notebooks", "notes", "workspaceMembers"]
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(service.socket(stranger)) for _ in range(3)]
        cursor = (await sockets[0].pong())["cursor"] if resumed else None
        if resumed:
            run("update public.tasks set description = 'since'")
            run("delete from public.comments where content like 'The second%%'")
            await service.caught_up()
        said = []
        for socket, asked in zip(sockets, (hidden, missing, tables), strict=True):
            await socket.subscribe(*asked, cursor=cursor)
            # What changed last is no secret: every cursor on this server says it.
            heard = [{**frame, "cursor": ""} for frame in socket.heard[-2 if resumed else -1 :]]
            said.append(json.dumps(heard))
        for family, (one, other) in keys.items():
            said[0] = said[0].replace(f"{family}{one}", family)
            said[1] = said[1].replace(f"{family}{other}", family)
        assert _sorted(said[0]) == _sorted(said[1])
        assert all("record" not in text and '"patch"' not in text for text in said)
        for socket in sockets:
            socket.heard.clear()
        for change in CHANGES:
            run(change.format(bob=BOB, other=OTHER_BOARD, board=BOARD))
        await service.caught_up()
        for socket in sockets:
            await socket.pong()
            assert [frame["type"] for frame in socket.heard] == ["pong"]


def _sorted(text: str) -> Any:
    """Keys in lists in one order: that they came in another says nothing."""

    def order(value: Any) -> Any:
        if isinstance(value, list):
            return sorted((order(item) for item in value), key=json.dumps)
        if isinstance(value, dict):
            return {name: order(item) for name, item in sorted(value.items())}
        return value

    return order(json.loads(text))
