"""Writing: apply, several records, bulk."""

import json
import random
from collections.abc import Callable

import psycopg

from .results import Figure, interleave
from .stage import TASKS, Say, Stage, cpu_us, member_of, new_id, one_write, ten_writes, uid

ROWCAST = "select bench.rowcast_apply(%s, %s, %s)"
HAND = "select bench.hand_apply(%s, %s, %s, %s)"
HAND_THREE = "select bench.hand_three(%s, %s, %s, %s, %s, %s)"

Call = Callable[[psycopg.Connection], object]


def apply(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """pgbench and CPU of one transaction on one record."""
    say("apply: 4 clients")
    hand, ours = interleave(
        5 * longer,
        lambda: stage.pgbench("apply_twin.sql", 4, 3),
        lambda: stage.pgbench("apply.sql", 4, 3),
    )
    say("apply: CPU")
    return [
        _speed("apply, 4 clients", hand, ours, 0.80),
        _cpu(stage, "apply, CPU a call", _hand, _ours, 7 * longer, 0.70),
    ]


def several(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """Ten operations on three records."""
    say("10 operations on 3 records")
    hand, ours = interleave(
        4 * longer,
        lambda: stage.pgbench("three_twin.sql", 4, 2),
        lambda: stage.pgbench("three.sql", 4, 2),
    )
    return [
        _speed("10 operations on 3 records, 4 clients", hand, ours, 0.60),
        _cpu(
            stage,
            "10 operations on 3 records, CPU a call",
            _hand_three,
            _ours_three,
            7 * longer,
            0.60,
        ),
    ]


def bulk(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """One UPDATE of 10 000 rows."""
    say("bulk")
    with stage.connect(stage.admin) as conn:

        def update(table: str) -> Callable[[], dict[str, float]]:
            low = iter(range(0, TASKS, 10_000))

            def work() -> dict[str, float]:
                first = next(low)
                before = cpu_us(conn.info.backend_pid)
                done = conn.execute(
                    f"update {table} set status = 'done', title = title || '.' "
                    "where id between bench.id(%s) and bench.id(%s)",
                    (first, first + 9999),
                )
                assert done.rowcount == 10_000
                return {"ms": (cpu_us(conn.info.backend_pid) - before) / 1000}

            return work

        hand, ours = interleave(min(5 * longer, 10), update("bench.tasks"), update("public.tasks"))
    return [
        Figure(
            "bulk update of 10 000 rows, CPU",
            f"{hand['ms']:.0f} ms",
            f"{ours['ms']:.0f} ms",
            ours["ms"] / hand["ms"],
            at_most=3,
        )
    ]


def _speed(name: str, hand: dict[str, float], ours: dict[str, float], target: float) -> Figure:
    return Figure(
        name, f"{hand['tps']:.0f}/s", f"{ours['tps']:.0f}/s", ours["tps"] / hand["tps"], target
    )


def _cpu(stage: Stage, name: str, hand: Call, ours: Call, rounds: int, target: float) -> Figure:
    with stage.connect() as one, stage.connect() as two:
        for _ in range(50):
            hand(one)
            ours(two)
        of_hand, of_ours = interleave(
            rounds, lambda: _calls(one, hand, 150), lambda: _calls(two, ours, 150)
        )
    return Figure(
        name,
        f"{of_hand['us']:.0f} us",
        f"{of_ours['us']:.0f} us",
        of_hand["us"] / max(of_ours["us"], 1e-9),
        target,
    )


def _calls(conn: psycopg.Connection, call: Call, count: int) -> dict[str, float]:
    before = cpu_us(conn.info.backend_pid)
    for _ in range(count):
        call(conn)
    return {"us": (cpu_us(conn.info.backend_pid) - before) / count}


def _someone() -> tuple[str, int, str]:
    task = random.randrange(TASKS)
    return uid(member_of(task, random.randrange(20))), task, f"New title {random.random()}"


def _hand(conn: psycopg.Connection) -> object:
    user, task, title = _someone()
    return conn.execute(HAND, (user, new_id(), uid(task), title))


def _ours(conn: psycopg.Connection) -> object:
    user, task, title = _someone()
    return conn.execute(ROWCAST, (user, new_id(), json.dumps(one_write(task, title))))


def _hand_three(conn: psycopg.Connection) -> object:
    user, task, title = _someone()
    return conn.execute(HAND_THREE, (user, new_id(), *map(uid, _three(task)), title))


def _ours_three(conn: psycopg.Connection) -> object:
    user, task, title = _someone()
    return conn.execute(ROWCAST, (user, new_id(), json.dumps(ten_writes(_three(task), title))))


def _three(task: int) -> list[int]:
    """Three tasks of one board."""
    return [task // 100 * 100 + number for number in random.sample(range(100), 3)]
