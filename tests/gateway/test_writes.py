"""The write queue, over a stand-in for `sync.gateway_write` that shows what it was called with."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app import writes
from app.auth import Session
from app.calls import Answer
from app.db import Lane
from app.errors import Problem
from app.writes import Writes
from tests.gateway.conftest import until
from tests.postgres import Database

# Bodies say what is to happen: `again` once, `always` again, `fail` the call where others are in
# it, `raise` a refusal, `slow` until lock 1 is free.
STAND_IN = """
create schema sync;
create table public.calls (n serial, roles text[], bodies text[], dry boolean[]);
create sequence public.tries;
create function sync.gateway_write(
    p_claims text[], p_bodies text[], p_dry_run boolean[], p_schemas bigint[]
) returns table (ord integer, status integer, body text, again boolean) language plpgsql as $$
begin
    if current_setting('role') <> 'none' then raise exception 'a role was left'; end if;
    insert into public.calls (roles, bodies, dry)
    select array_agg(c::jsonb ->> 'role'), p_bodies, p_dry_run from unnest(p_claims) c;
    if 'slow' = any (p_bodies) then perform pg_advisory_xact_lock(1); end if;
    if 'fail' = any (p_bodies) and cardinality(p_bodies) > 1 then
        raise exception 'division' using errcode = '22012';
    end if;
    if 'raise' = any (p_bodies) then
        raise exception 'Not now' using errcode = 'PT429', detail = '{"code": "rate"}';
    end if;
    for i in 1 .. cardinality(p_bodies) loop
        ord := i; status := 200; body := p_bodies[i]; again := false;
        if p_bodies[i] = 'always' or p_bodies[i] = 'again' and cardinality(p_bodies) > 1 then
            perform nextval('public.tries');
            status := 503; body := null; again := true;
        end if;
        return next;
    end loop;
end $$;
"""


def session(role: str = "authenticated", user: str = "u") -> Session:
    return Session(json.dumps({"role": role}), user, role, None, role, role)


class Queue:
    """The queue under test and a superuser's look at what it did."""

    def __init__(self, database: Database, lane: Lane) -> None:
        self.committed = 0
        self.lane = lane
        self.writes = Writes(lane, self._committed)
        self.admin = database.connect()

    def _committed(self) -> None:
        self.committed += 1

    def submit(
        self, body: str, role: str = "authenticated", user: str = "u"
    ) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.writes.submit(session(role, user), body))

    @property
    def calls(self) -> list[list[str]]:
        return [row[0] for row in self.admin.execute("select bodies from public.calls order by n")]

    def blocked(self) -> bool:
        found = self.admin.execute(
            "select from pg_locks where locktype = 'advisory' and not granted"
        )
        return found.fetchone() is not None

    async def behind_a_slow_one(self, *bodies: str) -> list[Answer]:
        """Submits while one call is in flight, so that all of these go into the next."""
        self.admin.execute("select pg_advisory_lock(1)")
        slow = self.submit("slow")
        await until(self.blocked)
        tasks = [self.submit(body) for body in bodies]
        await asyncio.sleep(0)
        self.admin.execute("select pg_advisory_unlock(1)")
        await slow
        return await asyncio.gather(*tasks)


@pytest_asyncio.fixture
async def queue(empty_db: Database) -> AsyncIterator[Queue]:
    empty_db.connect().execute(STAND_IN.encode())
    lane = Lane(empty_db.dsn(), "test", 8)
    await lane.open()
    made = Queue(empty_db, lane)
    yield made
    await made.writes.idle()
    await lane.close()


async def test_alone_a_request_goes_at_once(queue: Queue) -> None:
    assert await queue.submit("one") == Answer(200, "one", again=False)
    assert queue.calls == [["one"]]
    assert queue.committed == 1


async def test_what_arrives_during_a_call_goes_together_in_the_next(queue: Queue) -> None:
    answers = await queue.behind_a_slow_one("a", "b", "c")
    assert [answer.body for answer in answers] == ["a", "b", "c"]
    assert queue.calls == [["slow"], ["a", "b", "c"]]


async def test_a_call_has_at_most_32_requests(queue: Queue) -> None:
    bodies = [str(number) for number in range(70)]
    answers = await queue.behind_a_slow_one(*bodies)
    assert [answer.body for answer in answers] == bodies
    assert [len(call) for call in queue.calls] == [1, 32, 32, 6]


async def test_a_batch_is_ordered_by_role(queue: Queue) -> None:
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    mixed = [("1", "authenticated"), ("2", "anon"), ("3", "authenticated"), ("4", "anon")]
    tasks = [queue.submit(body, role) for body, role in mixed]
    await asyncio.sleep(0)
    queue.admin.execute("select pg_advisory_unlock(1)")
    answers = await asyncio.gather(slow, *tasks)
    assert [answer.body for answer in answers] == ["slow", "1", "2", "3", "4"]
    assert queue.calls[-1] == ["2", "4", "1", "3"]


async def test_a_request_that_must_be_alone_is_repeated_alone(queue: Queue) -> None:
    answers = await queue.behind_a_slow_one("a", "again", "b")
    assert [answer.body for answer in answers] == ["a", "again", "b"]
    assert queue.calls == [["slow"], ["a", "again", "b"], ["again"]]


async def test_what_stays_transient_is_tried_three_times_and_answers_retry(queue: Queue) -> None:
    answer = (await queue.behind_a_slow_one("always", "a"))[0]
    assert answer.status == 503
    assert json.loads(answer.body)["code"] == "retry"
    assert [call for call in queue.calls if call == ["always"]] == [["always"]] * 3


async def test_a_call_that_fails_as_a_whole_is_repeated_one_by_one(queue: Queue) -> None:
    answers = await queue.behind_a_slow_one("a", "fail", "b")
    assert [answer.body for answer in answers] == ["a", "fail", "b"]
    assert sorted(queue.calls[1:]) == [["a"], ["b"], ["fail"]]  # the failed call left nothing


async def test_an_error_of_one_is_answered_to_it_alone(queue: Queue) -> None:
    answers = await queue.behind_a_slow_one("a", "raise")
    assert answers[0] == Answer(200, "a", again=False)
    assert answers[1].status == 429
    assert json.loads(answers[1].body)["code"] == "rate"


async def test_a_caller_who_leaves_cancels_nothing(queue: Queue) -> None:
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    leaver, stayer = queue.submit("leaver"), queue.submit("stayer")
    await asyncio.sleep(0)
    leaver.cancel()
    slow.cancel()
    queue.admin.execute("select pg_advisory_unlock(1)")
    assert (await stayer).body == "stayer"
    assert queue.calls == [["slow"], ["leaver", "stayer"]]


async def test_a_heavy_request_holds_up_nobody(queue: Queue) -> None:
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    heavy = await queue.submit("x" * (writes.HEAVY_BYTES + 1))
    assert heavy.status == 200
    queue.admin.execute("select pg_advisory_unlock(1)")
    await slow
    await queue.writes.idle()


async def test_one_authors_flood_does_not_delay_another(queue: Queue) -> None:
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    flood = [queue.submit(f"a{number}", user="a") for number in range(500)]
    single = [queue.submit("b", user="b"), queue.submit("c", user="c")]
    await asyncio.sleep(0)
    queue.admin.execute("select pg_advisory_unlock(1)")
    await asyncio.gather(slow, *flood, *single)
    assert {"b", "c"} <= set(queue.calls[1])
    # Each author's own order holds, and nothing is left out of a batch for fairness' sake.
    sent = [body for call in queue.calls[1:] for body in call if body.startswith("a")]
    assert sent == [f"a{number}" for number in range(500)]
    assert {len(call) for call in queue.calls[1:-1]} == {32}


@pytest.mark.parametrize(
    "padding", ["", "x" * (writes.HEAVY_BYTES + 1)], ids=["repeated alone", "heavy"]
)
async def test_a_flood_beside_the_batches_does_not_delay_another(
    queue: Queue, padding: str
) -> None:
    kind = padding or "again"
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    flood = [queue.submit(kind, user="a") for _ in range(40)]
    single = queue.submit(kind, user="b")
    order: list[str] = []
    for task in (*flood, single):
        task.add_done_callback(lambda done: order.append("b" if done is single else "a"))
    await asyncio.sleep(0)
    queue.admin.execute("select pg_advisory_unlock(1)")
    await asyncio.gather(slow, *flood, single)
    assert order.index("b") < 2 * writes.ALONE_AT_ONCE + 2


async def test_too_much_of_one_author_is_429_to_him_alone(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "MAX_OF_ONE", 3)
    monkeypatch.setattr(writes, "MAX_BYTES_OF_ONE", 100)
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow", user="c")
    await until(queue.blocked)
    waiting = [queue.submit("a", user="a") for _ in range(3)]
    waiting += [queue.submit("x" * 200, user="b")]  # one alone is never too much
    await asyncio.sleep(0)
    for body, user in (("a", "a"), ("x", "b")):
        with pytest.raises(Problem) as caught:
            await queue.submit(body, user=user)
        assert (caught.value.status, caught.value.code) == (429, "too_many_requests")
        assert caught.value.extra["retryAfter"]
    waiting.append(queue.submit("d", user="d"))
    await asyncio.sleep(0)
    queue.admin.execute("select pg_advisory_unlock(1)")
    await asyncio.gather(slow, *waiting)
    assert (await queue.submit("a", user="a")).body == "a"


async def test_too_many_waiting_is_503(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "MAX_WAITING", 0)
    with pytest.raises(Problem) as caught:
        await queue.submit("a")
    assert (caught.value.status, caught.value.code) == (503, "unavailable")


async def test_a_connection_that_dies_in_the_call_is_replaced(queue: Queue) -> None:
    queue.admin.execute("select pg_advisory_lock(1)")
    slow = queue.submit("slow")
    await until(queue.blocked)
    queue.admin.execute(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted"
    )
    queue.admin.execute("select pg_advisory_unlock(1)")
    assert (await slow).body == "slow"


async def test_a_connection_with_a_role_left_on_it_is_not_used(empty_db: Database) -> None:
    empty_db.connect().execute(STAND_IN.encode())
    lane = Lane(empty_db.dsn(), "single", 1)
    await lane.open()
    async with lane.connection() as connection:
        await connection.execute("set role pg_monitor")
    answer = await Writes(lane).submit(session(), "a")
    assert answer.body == "a"
    assert connection.closed
    await lane.close()
