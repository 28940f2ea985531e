"""Writing over HTTP."""

import random

from .load import Ask, generate, request
from .results import Figure, interleave
from .stage import Say, Stage, body, cpu_us, member_of, token


def writes(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """The gateway beside pgbench with one commit a transaction, 16 clients and one."""
    with stage.gateway() as gateway:
        gateway_cpu: list[float] = []

        def over_http(clients: int, seconds: float) -> dict[str, float]:
            before = cpu_us(gateway.pid or 0)
            found = generate(gateway.port, [_writer(n) for n in range(clients)], seconds)
            gateway_cpu.append((cpu_us(gateway.pid or 0) - before) / (found["tps"] * seconds))
            return found

        say("gateway: 16 clients")
        over_http(16, 1)
        hand, ours = interleave(
            5 * longer,
            lambda: stage.pgbench("gateway_twin.sql", 16, 3),
            lambda: over_http(16, 3),
        )
        cpu = sorted(gateway_cpu)[len(gateway_cpu) // 2]
        say("gateway: 1 client")
        hand_alone, ours_alone = interleave(
            4 * longer,
            lambda: stage.pgbench("gateway_twin.sql", 1, 2),
            lambda: over_http(1, 2),
        )
    return [
        _speed("gateway, 16 clients", hand, ours, 1.5),
        Figure(
            "gateway, 16 clients, p99",
            f"{hand['p99']:.1f} ms",
            f"{ours['p99']:.1f} ms",
            ours["p99"] / hand["p99"],
            at_most=1,
        ),
        _speed("gateway, 1 client", hand_alone, ours_alone, 0.6),
        Figure("gateway, CPU a request, 16 clients", "", f"{cpu:.0f} us", None),
    ]


def _writer(number: int) -> Ask:
    """A client: one user with one token, who edits the tasks of his workspace."""
    workspace = number * 7 % 100
    bearer = token(member_of(workspace * 1000, number))

    def ask() -> bytes:
        task = workspace * 1000 + random.randrange(1000)
        text = body(task, f"New title {random.random()}")
        return request("/api/realtime/write", bearer, text)

    return ask


def _speed(name: str, hand: dict[str, float], ours: dict[str, float], target: float) -> Figure:
    return Figure(
        name,
        f"{hand['tps']:.0f}/s, p50 {hand['p50']:.1f} ms",
        f"{ours['tps']:.0f}/s, p50 {ours['p50']:.1f} ms",
        ours["tps"] / hand["tps"],
        target,
    )
