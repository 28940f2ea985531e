"""Calling the engine as the gateway does, and waiting for what other connections do."""

import json
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.postgres import Database

ALICE = "00000000-0000-7000-8000-00000000a11c"
BOB = "00000000-0000-7000-8000-000000000b0b"
CAROL = "00000000-0000-7000-8000-00000000ca01"
DEMO = "00000000-0000-7000-8000-0000000a0001"
CAROLS = "00000000-0000-7000-8000-0000000a0002"
LAUNCH = "00000000-0000-7000-8000-0000000b0001"
IDEAS = "00000000-0000-7000-8000-0000000b0002"
GARDEN = "00000000-0000-7000-8000-0000000b0003"
TASK_1, TASK_2, TASK_3, TASK_4, TASK_5, TASK_6, TASK_7, TASK_8 = (
    f"00000000-0000-7000-8000-0000000c{n:04d}" for n in range(1, 9)
)
TOMATOES = "00000000-0000-7000-8000-0000000c0013"
ALICE_SAID = "00000000-0000-7000-8000-0000000d0001"

DEADLINE = 20.0  # seconds; far above what any condition here takes

Json = dict[str, Any]


def new_id() -> str:
    """A uuid for a record."""
    return str(uuid.uuid4())


def new_tx_id(ahead: float = 0) -> str:
    """A version 7 uuid of now, or of so many seconds ahead."""
    stamp = int((time.time() + ahead) * 1000)
    number = stamp << 80 | 7 << 76 | secrets.randbits(12) << 64 | 2 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=number))


def set_(table: str, id_: str, key: Any, value: Any) -> Json:
    return {"type": "set", "table": table, "id": id_, "key": key, "value": value}


def title(task: str, value: str) -> Json:
    return set_("tasks", task, "title", value)


def create(table: str, id_: str, **value: Any) -> Json:
    return {"type": "create", "table": table, "id": id_, "value": value}


def call(fn: str, **args: Any) -> Json:
    return {"type": "call", "fn": fn, "args": args}


def tx(*operations: Any, **more: Any) -> Json:
    """A transaction with an id of its own."""
    return {"txId": new_tx_id(), "operations": list(operations), **more}


def claims_of(user: str | None, **more: Any) -> str | None:
    """The claims of a user; None is nobody."""
    return None if user is None else json.dumps({"sub": user, "role": "authenticated", **more})


@dataclass
class Answer:
    """What gateway_write gives for one request."""

    status: int
    body: Any
    again: bool

    @property
    def code(self) -> str | None:
        """The code of a refusal, of the only transaction where there are results."""
        if "results" in self.body:
            return self.error.get("code")
        code: str | None = self.body.get("code")
        return code

    @property
    def error(self) -> Json:
        """The refusal, of the only transaction where there are results."""
        if "results" in self.body:
            (result,) = self.body["results"]
            error: Json = result.get("error", {})
            return error
        problem: Json = self.body
        return problem

    @property
    def outcomes(self) -> list[str]:
        """The status of each result."""
        return [result["status"] for result in self.body["results"]]


class Gate:
    """The doors of the gateway, through its own login."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.conn = db.connect("rowcast_gateway")

    def close(self) -> None:
        self.conn.close()

    # Writing

    def write_all(self, requests: Iterable[tuple[str | None, Any]]) -> list[Answer]:
        """One call with several requests: (user, body), a body being JSON text or what makes it."""
        rows = list(requests)
        found = self.conn.execute(
            "select status, body, again from sync.gateway_write(%s::text[], %s::text[])",
            (
                [claims_of(user) for user, _ in rows],
                [body if isinstance(body, str) else json.dumps(body) for _, body in rows],
            ),
        ).fetchall()
        assert len(found) == len(rows)
        return [Answer(row[0], row[1] and json.loads(row[1]), row[2]) for row in found]

    def send(self, user: str | None, body: Any) -> Answer:
        """One call with one request."""
        (answer,) = self.write_all([(user, body)])
        return answer

    def write(self, user: str | None, *operations: Any, **more: Any) -> Answer:
        """One transaction in the single form."""
        return self.send(user, tx(*operations, **more))

    def applied(self, user: str | None, *operations: Any, **more: Any) -> Answer:
        """One transaction that has to be applied."""
        answer = self.write(user, *operations, **more)
        assert answer.status == 200, answer
        return answer

    # Reading

    def get_records(self, user: str | None, *pointers: tuple[str, str]) -> Json:
        body = {"pointers": [{"table": table, "id": id_} for table, id_ in pointers]}
        return self.ask("get_records", user, body)

    def query(self, user: str | None, table: str, **more: Any) -> Json:
        return self.ask("query", user, {"table": table, **more})

    def ask(self, door: str, user: str | None, body: Any) -> Json:
        text = body if isinstance(body, str) else json.dumps(body)
        statement = f"select sync.gateway_{door}(%s, %s)"
        row = self.conn.execute(statement.encode(), (claims_of(user), text)).fetchone()
        assert row
        answer: Json = json.loads(row[0])
        return answer

    def refusal(self, door: str, user: str | None, body: Any) -> Json:
        """The refusal of a read: status, message and detail."""
        try:
            answer = self.ask(door, user, body)
        except psycopg.Error as error:
            return refusal_of(error)
        raise AssertionError(f"not refused: {answer}")

    def subscribe(self, user: str | None, *keys: str, cursor: str | None = None) -> Json:
        row = self.conn.execute(
            "select sync.gateway_subscribe(%s, %s, %s)", (claims_of(user), list(keys), cursor)
        ).fetchone()
        assert row
        answer: Json = json.loads(row[0])
        return answer

    def changes(self, cursor: str | None) -> Json:
        row = self.conn.execute("select sync.gateway_changes(%s)", (cursor,)).fetchone()
        assert row
        answer: Json = json.loads(row[0])
        return answer

    def cursor(self) -> str:
        cursor: str = self.changes(None)["cursor"]
        return cursor

    def visible(self, user: str | None, refs: Json, *, records: bool = False) -> Json:
        row = self.conn.execute(
            "select sync.gateway_visible(%s, %s, %s)", (claims_of(user), json.dumps(refs), records)
        ).fetchone()
        assert row
        answer: Json = json.loads(row[0])
        return answer


def refusal_of(error: psycopg.Error) -> Json:
    """What a raised PTxyz says; anything else is raised on."""
    state = error.sqlstate or ""
    if not (state.startswith("PT") and state[2:].isdigit()):
        raise error
    detail: Json = json.loads(error.diag.message_detail or "{}")
    return {"status": int(state[2:]), "message": error.diag.message_primary, **detail}


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Asks until the answer is true; fails at the deadline."""
    end = time.monotonic() + DEADLINE
    pause = threading.Event()
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        pause.wait(0.002)
    raise AssertionError(f"still not: {what}")


def wait_blocked(conn: psycopg.Connection[Any], *pids: int) -> None:
    """Waits until each of these backends waits for a lock."""
    query = "select count(*) from unnest(%s::int[]) p where cardinality(pg_blocking_pids(p)) > 0"

    def blocked() -> bool:
        row = conn.execute(query, (list(pids),)).fetchone()
        return row is not None and row[0] == len(pids)

    wait_until(blocked, f"backends {pids} wait for a lock")


def pid(conn: psycopg.Connection[Any]) -> int:
    return conn.info.backend_pid


def value(conn: psycopg.Connection[Any], query: str, *args: Any) -> Any:
    """The only value of the only row."""
    rows = conn.execute(query.encode(), args or None).fetchall()
    assert len(rows) == 1, rows
    assert len(rows[0]) == 1, rows
    return rows[0][0]


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """Runs jobs at the same time, each in a thread, and gives their results in order."""
    results: list[Any] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def run(number: int) -> None:
        start.wait(DEADLINE)
        try:
            results[number] = jobs[number]()
        except BaseException as error:
            results[number] = error
            raise

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(jobs))]
    excepthook = threading.excepthook
    threading.excepthook = lambda _: None  # the error is raised below
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE * 2)
    finally:
        threading.excepthook = excepthook
    assert not any(thread.is_alive() for thread in threads), "a job hangs"
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Background:
    """A job in a thread, whose result is asked for later."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        self._thread.start()

    def _run(self, job: Callable[[], Any]) -> None:
        try:
            self._result = job()
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error

    def result(self) -> Any:
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the job hangs"
        if self._error is not None:
            raise self._error
        return self._result


def live(conn: psycopg.Connection[Any], name: str, columns: str, options: str = "") -> None:
    """Makes a live table that authenticated may read and write as it likes."""
    conn.execute(
        f"""
        create table public.{name} ({columns}, version integer not null default 1);
        alter table public.{name} enable row level security;
        create policy everybody on public.{name} using (true) with check (true);
        grant select, insert, update, delete on public.{name} to authenticated;
        select sync.enable('public.{name}'{options});
        """.encode()
    )
