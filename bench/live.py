"""Live delivery: fan-out, latency, revocation, reconnects, memory, catch-up."""

import json
import os
import re
import resource
import signal
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg

from .crowd import Crowd
from .provider import Provider
from .results import Figure, interleave
from .stage import HERE, Running, Say, Stage, claims, cpu_us, latencies, token, uid
from .twin import Twin, node

SOCKETS = 1000
USERS = 300_000
BOARD = f"tasks?boardId={uid(5000)}"
TASK = 500_000
WIDE_BOARD = f"tasks?boardId={uid(5001)}"
WIDE_TASK = 600_000
IDLE = 5000
FILES = 16_384  # sockets and connections a process of this bench may have open


def fanout(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """One change to 1000 sockets, each of another user."""
    say("fan-out: opening 1000 sockets on each server")
    waves = 40
    with ExitStack() as stack:
        conn, gateway = _prepared(stage, stack)
        ours = _Waves(stack.enter_context(Crowd()), lambda: cpu_us(gateway.pid or 0))
        ours.crowd.open(gateway.port, _members(SOCKETS))
        bare = stack.enter_context(Twin())
        plain = _Waves(stack.enter_context(Crowd()), lambda: bare.cpu_us)
        plain.crowd.open(bare.port, [("", [])] * SOCKETS, bare=True)
        other = node(stack.enter_context(tempfile.TemporaryDirectory()))
        loop: _Waves | None = None
        if other is not None:
            stack.enter_context(other)
            loop = _Waves(stack.enter_context(Crowd()), lambda: other.cpu_us)
            loop.crowd.open(other.port, [("", [])] * SOCKETS, bare=True)

        def edit() -> None:
            _edit(conn)

        def told(twin: Twin, how: str = "bare") -> Callable[[], None]:
            """By hand: the change is committed to a table that is not live, and the server told."""

            def work() -> None:
                _edit(conn, "bench.tasks", 0)
                twin.wave(text, how)

            return work

        say("fan-out: one change to 1000 sockets")
        ours.run(edit, 20)
        text: str = ours.crowd.ask("heard_last")
        probes = _probes(gateway)
        hand, gate = interleave(
            5 * longer, lambda: plain.run(told(bare), waves), lambda: ours.run(edit, waves)
        )
        asked = _probes(gateway) - probes
        say("fan-out: changes in a row")
        works = [lambda: plain.row(told(bare), 2 * waves), lambda: ours.row(edit, 2 * waves)]
        if loop is not None and other is not None:
            works.append(lambda: loop.row(told(other), 2 * waves))
        rates = interleave(5 * longer, *works)
        say("fan-out: with and without looking at rights")
        for how in ("checked", "unchecked"):
            plain.run(told(bare, how), 20)
        unchecked, checked = interleave(
            5 * longer,
            lambda: plain.run(told(bare, "unchecked"), waves),
            lambda: plain.run(told(bare, "checked"), waves),
        )
    figures = [
        Figure(
            "fan-out to 1000 sockets, CPU a delivery",
            f"{hand['us']:.2f} us",
            f"{gate['us']:.2f} us",
            gate["us"] / hand["us"],
            at_most=1.25,
        ),
        Figure(
            "fan-out to 1000 sockets, one change, to the last",
            f"{hand['ms']:.0f} ms",
            f"{gate['ms']:.0f} ms",
            gate["ms"] / hand["ms"],
        ),
        _rate("fan-out to 1000 sockets, beside bare writes", rates[0], rates[1], 0.8),
    ]
    if len(rates) > 2:
        figures.append(_rate("fan-out to 1000 sockets, beside node ws", rates[2], rates[1], 1.2))
    else:
        say("fan-out: no node or no ws, so that twin is left out")
    figures += [
        Figure("delivery, statements that asked for rights", "0", f"{asked:.0f}", asked, at_most=0),
        Figure(
            "delivery, CPU with and without looking at rights",
            f"{unchecked['us']:.2f} us",
            f"{checked['us']:.2f} us",
            checked["us"] / unchecked["us"],
            at_most=1.1,
        ),
        _probe(stage, say, longer),
    ]
    return figures


class _Waves:
    """Changes to every socket of a crowd, and the server's CPU."""

    def __init__(self, crowd: Crowd, cpu: Callable[[], float]) -> None:
        self.crowd = crowd
        self._cpu = cpu

    def row(self, send: Callable[[], None], changes: int) -> dict[str, float]:
        """Changes one after the other, four of them on their way at a time."""
        self.crowd.ask("watch", what="changes")
        started = time.monotonic()
        for change in range(1, changes + 1):
            send()
            self.crowd.ask("wave", count=max(0, change - 4) * SOCKETS)
        ended = self.crowd.ask("wave", count=changes * SOCKETS)
        return {"rate": changes * SOCKETS / (ended - started)}

    def run(self, send: Callable[[], None], waves: int) -> dict[str, float]:
        """Each change begun when the last has arrived everywhere."""
        self.crowd.ask("watch", what="count")
        before, taken = self._cpu(), []
        for wave in range(1, waves + 1):
            started = time.monotonic()
            send()
            taken.append(self.crowd.ask("wave", count=wave * SOCKETS) - started)
        used = (self._cpu() - before) / waves / SOCKETS
        return {"us": used, "ms": statistics.median(taken) * 1000}


def _probe(stage: Stage, say: Say, longer: int) -> Figure:
    """What asking costs where no answer is known: 1000 users, 8 rows, 500 users a statement."""
    say("asking for the rights of 1000 users")
    rows = 8
    refs = json.dumps({"tasks": [uid(TASK + row) for row in range(rows)]})
    who = [json.dumps(claims(USERS + number)) for number in range(SOCKETS)]
    taken = []
    with stage.connect() as conn:
        cursor = _cursor(conn)
        for _ in range(7 * longer):
            before = cpu_us(conn.info.backend_pid)
            for half in (who[:500], who[500:]):
                answer = conn.execute(
                    "select sync.gateway_probe(p_claims => %s::text[], p_refs => %s::jsonb,"
                    " p_cursor => %s)",
                    (half, refs, cursor),
                ).fetchone()
                assert answer is not None
                assert len(json.loads(answer[0])["seen"][-1]["tasks"]) == rows
            taken.append((cpu_us(conn.info.backend_pid) - before) / SOCKETS / rows)
    return _within("asking for rights, CPU a user and row", statistics.median(taken), 15, "us")


def latency(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """From the start of a write to its arrival at the last of 100 sockets, beside a bare commit."""
    figures = []
    with ExitStack() as stack:
        conn, gateway = _prepared(stage, stack)
        crowd = stack.enter_context(Crowd())
        crowd.open(gateway.port, _members(100))
        crowd.ask("watch", what="marks")
        for rate in (20, 200):
            say(f"latency: {rate} writes a second to 100 sockets")
            bare: list[float] = []
            last: list[float] = []
            for _ in range(4 * longer):
                for _, started, ended in _paced(conn, "bench.tasks", 0, rate, 2):
                    bare.append((ended - started) * 1000)
                crowd.ask("watch", what="marks")
                began = _paced(conn, "public.tasks", TASK, rate, 2)
                heard = crowd.ask("marked", count=len(began))
                last += [(heard[str(mark)] - started) * 1000 for mark, started, _ in began]
            hand, ours = latencies(bare), latencies(last)
            figures += [
                Figure(
                    f"last of 100 sockets, {rate} writes/s, {name}",
                    f"{hand[name]:.1f} ms",
                    f"{ours[name]:.1f} ms",
                    ours[name] / hand[name],
                    at_most=5,
                )
                for name in ("p50", "p99")
            ]
    return figures


def _paced(
    conn: psycopg.Connection, table: str, first: int, rate: int, seconds: float
) -> list[tuple[int, float, float]]:
    """Writes at even distances; gives the number, start and end of each."""
    done = []
    begin = time.monotonic()
    for number in range(int(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        started = time.monotonic()
        conn.execute(
            f"update {table} set title = %s where id = %s",
            (f"mark {number} {started}", uid(first + number % 100)),
        )
        done.append((number, started, time.monotonic()))
    return done


def revocation(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """Members are removed while the board is edited and 1000 sockets listen."""
    say("revocation: 1000 sockets")
    late, told = [], []
    with ExitStack() as stack:
        conn, gateway = _prepared(stage, stack)
        writer = stack.enter_context(stage.connect(stage.admin))
        crowd = stack.enter_context(Crowd())
        crowd.open(gateway.port, _members(SOCKETS))
        crowd.ask("watch", what="rights")
        for number in range(1, 1 + 50 * longer):
            _edit_for(writer, 0.2)
            with conn.transaction():
                conn.execute(
                    "delete from public.workspace_members where workspace_id = %s and user_id = %s",
                    (uid(200), uid(USERS + number)),
                )
                committed = time.monotonic()
            _edit_for(writer, 0.4)
            data_at, word_at = crowd.ask("rights", number=number)
            late.append(max(0.0, data_at - committed) * 1000)
            told.append((word_at - committed) * 1000)
    lasts, words = latencies(late), latencies(told)
    return [
        _within("revocation to the last byte of the board, p99", lasts["p99"], 1000, "ms"),
        _within("revocation to `stale` or `gone`, p99", words["p99"], 1000, "ms"),
    ]


def ends(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """Sessions end, of one user after the other and then of all, on two gateways at once, while
    the board is edited: until the last socket is closed and the first request is refused. Nobody
    can come back, so it is the last part.
    """
    say("ends of sessions: 500 users on two gateways")
    count, closed, refused = SOCKETS // 2, [], []
    with ExitStack() as stack:
        conn, first = _prepared(stage, stack)
        second = stack.enter_context(stage.gateway())
        writer = stack.enter_context(stage.connect(stage.admin))
        crowd = stack.enter_context(Crowd())
        for gateway in (first, second):
            crowd.open(gateway.port, _members(count))
        for number in range(50 * longer):
            _edit_for(writer, 0.05)
            end = ("end_sessions", "disable_user")[number % 2]
            conn.execute(f"select sync.{end}(%s)".encode(), (uid(USERS + number),))
            committed = time.monotonic()
            for gateway in (first, second):
                _until_refused(gateway.port, token(USERS + number))
                refused.append((time.monotonic() - committed) * 1000)
            closed.append(
                (crowd.ask("closed", numbers=[number, count + number]) - committed) * 1000
            )
        rest = [*range(50 * longer, count), *range(count + 50 * longer, 2 * count)]
        conn.execute("select sync.end_all_sessions()")
        committed = time.monotonic()
        all_closed = (crowd.ask("closed", numbers=rest) - committed) * 1000
    return [
        _within("session ended to 401 on two gateways, p99", latencies(refused)["p99"], 1000, "ms"),
        _within("session ended to sockets closed, p99", latencies(closed)["p99"], 1000, "ms"),
        _within("everybody's ended to the last of 900 closed", all_closed, 1000, "ms"),
    ]


def rotation(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """A provider's key leaks and is withdrawn, again and again, while the board is edited: until
    the last socket of its tokens is closed and the first request refused, on two gateways. The
    tokens claim to be of later, so that nothing but the key tells them from good ones.
    """
    say("keys: 20 users on two gateways, whose key is withdrawn")
    count, closed, refused = 20, [], []
    with ExitStack() as stack:
        provider = stack.enter_context(Provider())
        _, first = _prepared(stage, stack, ROWCAST_JWT_JWKS_URL=provider.url)
        second = stack.enter_context(stage.gateway(ROWCAST_JWT_JWKS_URL=provider.url))
        conn = stack.enter_context(stage.connect(stage.admin))
        writer = stack.enter_context(stage.connect(stage.admin))
        for _ in range(50 * longer):
            # Others than those who were disabled.
            tokens = [provider.token(USERS + 500 + number) for number in range(count)]
            with Crowd() as crowd:
                for gateway in (first, second):
                    crowd.open(gateway.port, ((token, [BOARD]) for token in tokens))
                _edit_for(writer, 0.05)
                provider.rotate()
                conn.execute("select sync.end_all_sessions()")
                committed = time.monotonic()
                for gateway in (first, second):
                    _until_refused(gateway.port, tokens[0])
                    refused.append((time.monotonic() - committed) * 1000)
                last = crowd.ask("closed", numbers=list(range(2 * count)))
                closed.append((last - committed) * 1000)
    return [
        _within("key withdrawn to 401 on two gateways, p99", latencies(refused)["p99"], 1000, "ms"),
        _within("key withdrawn to sockets closed, p99", latencies(closed)["p99"], 1000, "ms"),
    ]


def _until_refused(port: int, bearer: str) -> None:
    """Asks until the answer is 401, which the first should be."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/realtime/query",
        json.dumps({"table": "tasks", "limit": 1}).encode(),
        {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
    )
    while True:
        try:
            urllib.request.urlopen(asked, timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                return
            raise


def storm(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """kill -9 of the gateway with 1000 clients, who come back with their cursors."""
    say("reconnects: 1000 sockets")
    taken = []
    for _ in range(longer):
        with ExitStack() as stack:
            conn, gateway = _prepared(stage, stack)
            crowd = stack.enter_context(Crowd())
            crowd.open(gateway.port, _members(SOCKETS))
            crowd.ask("persist")
            assert gateway.pid is not None
            killed = time.monotonic()
            os.kill(gateway.pid, signal.SIGKILL)
            _edit(conn)
            gateway.again()
            taken.append(crowd.ask("current") - killed)
    return [_within("kill -9 to all 1000 clients current", max(taken), 10, "s")]


def idle(stage: Stage, say: Say, _: int) -> list[Figure]:
    """5000 sockets that say nothing."""
    say("5000 idle sockets")
    with ExitStack() as stack:
        conn, gateway = _prepared(stage, stack)
        crowd = stack.enter_context(Crowd())
        crowd.open(gateway.port, _members(500))
        before = gateway.memory_kib("VmRSS") or 0
        crowd.open(gateway.port, _members(IDLE - 500))
        after = gateway.memory_kib("VmRSS") or 0
        crowd.ask("watch", what="count")
        started = time.monotonic()
        _edit(conn)
        last = crowd.ask("wave", count=IDLE) - started
        answered = crowd.ask("ping")
        grown = gateway.memory_kib("VmHWM") or 0
    return [
        _within("an idle socket", (after - before) / (IDLE - 500), 30, "KiB"),
        _within("the gateway with 5000 sockets", grown * 1024 / 1e6, 200, "MB"),
        Figure("5000 sockets, one change to all", "", f"{last * 1000:.0f} ms", None),
        Figure("5000 sockets, all ping and have their pong", "", f"{answered:.2f} s", None),
    ]


def catch_up(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """What a client that was away costs the database."""
    with ExitStack() as stack:
        admin = _admin(stage, stack)
        conn = stack.enter_context(stage.connect())
        figures = []
        for name, records, times, foreign, most in (
            ("catch-up, 10 000 changes of 200 records", 200, 50, 0, 50),
            ("catch-up, 10 000 changes of as many records", 10_000, 1, 0, None),
            ("catch-up, 100 changes among 1 000 000 foreign", 100, 1, 1_000_000, 20),
        ):
            say(name)
            admin.execute("truncate sync_internal.changes")
            _edit(admin)
            cursor = _cursor(conn)
            if foreign:
                admin.execute(
                    """
                    insert into sync_internal.changes
                        (slot, table_name, record_id, version, kind, topics, patch, class)
                    select sync_internal.feed_slot(), 'tasks', bench.id(n %% 90000)::text, 2,
                        'update', array['boardId=' || bench.id(n %% 900)],
                        json_build_object('title', n), bench.id(n %% 900)::text
                    from generate_series(1, %s) n
                    """,
                    (foreign,),
                )
            for turn in range(times):
                done = admin.execute(
                    "update public.tasks set title = %s where id between %s and %s",
                    (f"{turn} {cursor[-9:]}", uid(WIDE_TASK), uid(WIDE_TASK + records - 1)),
                )
                assert done.rowcount == records
            admin.execute("analyze sync_internal.changes")  # as autovacuum does
            taken = []
            for _ in range(5 * longer):
                before = cpu_us(conn.info.backend_pid)
                answer = conn.execute(
                    "select sync.gateway_subscribe(p_claims => %s, p_keys => %s::text[],"
                    " p_cursor => %s)",
                    (json.dumps(claims(USERS)), [WIDE_BOARD], cursor),
                ).fetchone()
                taken.append((cpu_us(conn.info.backend_pid) - before) / 1000)
                assert answer is not None
                assert len(json.loads(answer[0])["updates"]) == records
            ms = statistics.median(taken)
            figures.append(
                Figure(name, "", f"{ms:.0f} ms", None)
                if most is None
                else _within(name, ms, most, "ms")
            )
        admin.execute("truncate sync_internal.changes")
    return figures


# --- shared --------------------------------------------------------------------------------------


def _prepared(
    stage: Stage, stack: ExitStack, **settings: str
) -> tuple[psycopg.Connection, Running]:
    """A superuser's connection and a gateway, with the data of live.sql."""
    conn = _admin(stage, stack)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    return conn, stack.enter_context(stage.gateway(**settings))


def _admin(stage: Stage, stack: ExitStack) -> psycopg.Connection:
    conn = stack.enter_context(stage.connect(stage.admin))
    conn.execute((HERE / "live.sql").read_bytes(), prepare=False)
    return conn


def _members(count: int) -> Iterator[tuple[str, list[str]]]:
    """A socket each: another user of the workspace where there are enough, all on its board."""
    return ((token(USERS + number % SOCKETS), [BOARD]) for number in range(count))


def _edit(conn: psycopg.Connection, table: str = "public.tasks", task: int = TASK) -> None:
    conn.execute(
        f"update {table} set title = 'New title ' || clock_timestamp() where id = %s", (uid(task),)
    )


def _edit_for(conn: psycopg.Connection, seconds: float) -> None:
    """Edits the board 25 times a second: 25 000 deliveries where 1000 listen."""
    begin = time.monotonic()
    for number in range(round(seconds * 25)):
        time.sleep(max(0.0, begin + number / 25 - time.monotonic()))
        _edit(conn)


def _cursor(conn: psycopg.Connection) -> str:
    found = conn.execute(
        "select sync.gateway_changes(p_cursor => null, p_fingerprint => false)"
    ).fetchone()
    assert found is not None
    cursor: str = json.loads(found[0])["cursor"]
    return cursor


def _probes(gateway: Running) -> float:
    """How many statements have asked for rights so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^rowcast_access_probes_total\S* (\S+)", text, re.MULTILINE)
    return sum(map(float, found))


def _rate(name: str, hand: dict[str, float], ours: dict[str, float], target: float) -> Figure:
    return Figure(
        name, f"{hand['rate']:.0f}/s", f"{ours['rate']:.0f}/s", ours["rate"] / hand["rate"], target
    )


def _within(name: str, found: float, most: float, unit: str) -> Figure:
    """A figure with a limit in place of a twin."""
    shown = f"{found:.1f}" if found < 100 else f"{found:.0f}"
    return Figure(name, f"limit {most:g} {unit}", f"{shown} {unit}", found / most, at_most=1)
