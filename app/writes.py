"""Many users' writes in one commit: one call in flight, what arrives meanwhile goes in the next.

No timer: at low load a request goes at once and alone, under load a batch grows to 32 by itself.
Measured: 16 clients get 1.9 times what one commit a transaction gives them, 64 clients 2.9 times.
Whatever waits is taken in turn over authors, so that one who sends much is slow only to himself.
"""

import asyncio
import json
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from . import calls, metrics, spans, trace
from .auth import Session
from .calls import Answer
from .db import Lane
from .errors import Problem, from_database, retry, too_many, unavailable, unexpected

log = logging.getLogger("rowcast.writes")

# Beyond 64 subtransactions every other session pays; 16 to 32 take nearly all of the gain.
MAX_BATCH: Final = 32
MAX_BATCH_BYTES: Final = 256 * 1024
HEAVY_BYTES: Final = 64 * 1024  # goes alone, on a connection of its own, so as to hold up nobody
HEAVY_AT_ONCE: Final = 2
ALONE_AT_ONCE: Final = 3
MAX_WAITING: Final = 4096
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
MAX_OF_ONE: Final = 1024  # requests of one author, a quarter of what may wait
MAX_BYTES_OF_ONE: Final = 16 * 1024 * 1024
SLOW_SECONDS: Final = 0.25  # a batch that takes longer had something heavy in it
SLOW_BYTES: Final = 8 * 1024  # and it was one of at least this size
SLOW_FOR_SECONDS: Final = 10.0
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.02  # doubled at each try, and jittered


@dataclass(eq=False, slots=True)
class Item:
    """One request waiting for its answer."""

    session: Session
    body: str
    dry_run: bool
    schema: int | None
    settled: Callable[["Item"], None]
    trace: str = field(default_factory=trace.current.get)
    answer: asyncio.Future[Answer] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def size(self) -> int:
        """About how many bytes go to PostgreSQL."""
        return len(self.body)

    @property
    def author(self) -> str:
        """Whose turn it uses: one user's, whatever his token; all strangers together are one."""
        return self.session.author

    def resolve(self, answer: Answer) -> None:
        """Answers the request, if anybody still waits. Called once."""
        self.settled(self)
        if not self.answer.done():
            self.answer.set_result(answer)

    def refuse(self, problem: Problem) -> None:
        """Refuses the request, if anybody still waits."""
        self.resolve(Answer(problem.status, problem.text(), again=False))


class Line:
    """Requests waiting: in turn over authors, and each author's in the order they came."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Item]] = {}  # whose turn it is comes first

    def __bool__(self) -> bool:
        return bool(self._of)

    def push(self, item: Item) -> None:
        """Puts a request behind its author's others."""
        self._of.setdefault(item.author, deque()).append(item)

    def first(self) -> Item:
        """The request whose turn it is."""
        return next(iter(self._of.values()))[0]

    def pop(self) -> Item:
        """Takes it out; its author is last now."""
        item = self.first()
        own = self._of.pop(item.author)
        own.popleft()
        if own:
            self._of[item.author] = own
        return item


@dataclass(eq=False, slots=True)
class Side:
    """A way beside the batches, for requests that go alone: so many at once."""

    free: int
    line: Line = field(default_factory=Line)


class Writes:
    """The queue in front of `sync.gateway_write`. A caller who goes away cancels nothing."""

    def __init__(self, lane: Lane, committed: Callable[[], None] = lambda: None) -> None:
        self._lane = lane
        self._committed = committed
        self._waiting = Line()
        self._held = 0  # not yet answered, also where the caller went away
        self._held_bytes = 0
        self._held_of: Counter[str] = Counter()  # the same by author
        self._held_bytes_of: Counter[str] = Counter()
        self._slow_until: dict[str, float] = {}
        self._pump: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._heavy = Side(HEAVY_AT_ONCE)
        self._alone = Side(ALONE_AT_ONCE)

    @property
    def waiting(self) -> int:
        """Requests taken and not yet answered."""
        return self._held

    async def submit(
        self, session: Session, body: str, dry_run: bool = False, schema: int | None = None
    ) -> Answer:
        """Applies one request body under this session. Raises 429 when too many of this author
        are waiting, 503 when too many of all.
        """
        item = Item(session, body, dry_run, schema, self._settle)
        self._admit(item)
        if item.size > HEAVY_BYTES or self._is_slow(item):
            self._beside(self._heavy, item)
        else:
            self._waiting.push(item)
            if self._pump is None:
                self._pump = self._run(self._drain())
        return await item.answer

    def _admit(self, item: Item) -> None:
        author, size = item.author, item.size
        # One request alone is bounded by the size of a body, whatever that is.
        if self._held_of[author] >= MAX_OF_ONE or (
            self._held_of[author] and self._held_bytes_of[author] + size > MAX_BYTES_OF_ONE
        ):
            raise too_many("Too many of your writes are waiting; send the same again")
        if self._held >= MAX_WAITING or (
            self._held and self._held_bytes + size > MAX_WAITING_BYTES
        ):
            raise unavailable("Too many writes are waiting; try again")
        self._hold(item, 1)

    def _settle(self, item: Item) -> None:
        self._hold(item, -1)
        if not self._held_of[item.author]:
            del self._held_of[item.author], self._held_bytes_of[item.author]

    def _hold(self, item: Item, sign: int) -> None:
        self._held += sign
        self._held_bytes += sign * item.size
        self._held_of[item.author] += sign
        self._held_bytes_of[item.author] += sign * item.size

    def _is_slow(self, item: Item) -> bool:
        until = self._slow_until.get(item.session.author)
        if until is None:
            return False
        if until < time.monotonic():
            del self._slow_until[item.session.author]
            return False
        return item.size > SLOW_BYTES

    async def idle(self) -> None:
        """Waits until every request taken so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                # What is logged here concerns many requests, not the one that began this.
                trace.current.set("")
                await self._together(self._take())
        finally:
            self._pump = None

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
            size += self._waiting.first().size
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._waiting.pop())
        # PostgreSQL plans anew when the role alternates. The sort is stable: each author's order
        # holds.
        batch.sort(key=lambda item: item.session.role)
        return batch

    async def _together(self, batch: list[Item]) -> None:
        metrics.write_batch.observe(len(batch))
        began = time.monotonic()
        try:
            with spans.span("write batch", links=[item.trace for item in batch]):
                answers = await self._call(batch, repeat=False)
        except psycopg.Error as exc:
            # One bad element can fail the call as a whole (a timeout, an encoding), and a lost
            # connection leaves the outcome unknown: alone each gets its own answer, and what was
            # applied already answers as the duplicate it is.
            log.info("batch of %d repeated one by one sqlstate=%s", len(batch), exc.sqlstate)
            for item in batch:
                self._beside(self._alone, item)
            return
        except Exception as exc:  # noqa: BLE001
            problem = unexpected(exc)
            for item in batch:
                item.refuse(problem)
            return
        if time.monotonic() - began > SLOW_SECONDS:
            # Whoever sends much work at once goes on beside the others for a while.
            now = time.monotonic()
            self._slow_until = {who: at for who, at in self._slow_until.items() if at > now}
            for item in batch:
                if item.size > SLOW_BYTES:
                    self._slow_until[item.session.author] = now + SLOW_FOR_SECONDS
        for item, answer in zip(batch, answers, strict=True):
            if answer.again:
                self._beside(self._alone, item)
            else:
                item.resolve(answer)

    def _beside(self, side: Side, item: Item) -> None:
        side.line.push(item)
        if side.free:
            side.free -= 1
            self._run(self._serve(side))

    async def _serve(self, side: Side) -> None:
        try:
            while side.line:
                await self._repeatedly(side.line.pop())
        finally:
            side.free += 1

    async def _repeatedly(self, item: Item) -> None:
        """Up to three tries; a lock or a race that outlasts them is the answer `retry`."""
        trace.current.set(item.trace)
        answer = Answer(503, "", again=True)
        try:
            for number in range(TRIES):
                if number:
                    metrics.write_retries.add()
                    pause = PAUSE_SECONDS * 2**number
                    await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311
                answer = (await self._call([item], repeat=True))[0]
                if not answer.again:
                    break
        except psycopg.Error as exc:
            item.refuse(from_database(exc))
        except Exception as exc:  # noqa: BLE001
            item.refuse(unexpected(exc))
        else:
            if answer.again and not answer.body:
                item.refuse(retry())
            else:
                item.resolve(answer)

    async def _call(self, batch: list[Item], repeat: bool) -> list[Answer]:
        answers = await calls.write(
            self._lane,
            [item.session.claims for item in batch],
            [item.body for item in batch],
            [item.dry_run for item in batch],
            [item.schema for item in batch],
            repeat,
        )
        self._committed()
        for item, answer in zip(batch, answers, strict=True):
            if '"logId"' in answer.body:
                _log_ids(item, answer)
        return answers

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # The loop holds tasks weakly; without this set one could be collected while it waits.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_ids(item: Item, answer: Answer) -> None:
    """Says under which ids PostgreSQL has logged what went wrong, and for whom it was."""
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return  # it is committed: whatever records it shows, it has to be answered
    problems = [body, *(result.get("error") or {} for result in body.get("results", ()))]
    outer = trace.current.set(item.trace)
    for problem in problems:
        if isinstance(problem.get("logId"), str):
            log.error("unexpected error in PostgreSQL id=%s", problem["logId"])
    trace.current.reset(outer)
