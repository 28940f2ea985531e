"""What waking the relay costs those who write."""

import json
from collections.abc import Callable

from websockets.sync.client import ClientConnection, connect

from .results import Figure, interleave
from .stage import Running, Say, Stage, member_of, token, uid

CAPTURE = "sync_internal.capture_tasks()"
RING = "if pg_sequence_last_value('sync_internal.bell') is distinct from 0 then"


def plain(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """16 plain committers: no signal, the doorbell, a NOTIFY each. The relay reads in all three."""
    say("plain committers")
    with stage.connect(stage.admin) as admin, stage.gateway() as gateway, _screen(gateway):
        found = admin.execute("select pg_get_functiondef(%s::regprocedure)", (CAPTURE,)).fetchone()
        built: str = found[0] if found else ""
        assert RING in built

        def signalling(how: str) -> Callable[[], dict[str, float]]:
            def work() -> dict[str, float]:
                admin.execute(built.replace(RING, how).encode())
                return stage.pgbench("plain.sql", 16, 3, stage.admin)

            return work

        signalling(RING)()
        none, doorbell, always = interleave(
            5 * longer, signalling("if false then"), signalling(RING), signalling("if true then")
        )
        admin.execute(built.encode())
    return [
        _figure("16 plain committers, doorbell beside no signal", none, doorbell, 0.85),
        _figure("16 plain committers, a NOTIFY each beside no signal", none, always, None),
    ]


def _screen(gateway: Running) -> ClientConnection:
    """A socket, so that the relay has somebody to hurry for; it hears of none of these changes."""
    socket = connect(f"ws://127.0.0.1:{gateway.port}/api/realtime/socket")
    bearer = token(member_of(0, 0))
    socket.send(json.dumps({"type": "hello", "protocol": 1, "token": bearer}))
    socket.send(json.dumps({"type": "subscribe", "id": 1, "keys": [f"boards:{uid(0)}"]}))
    while json.loads(socket.recv())["type"] != "subscribed":
        pass
    return socket


def _figure(
    name: str, twin: dict[str, float], ours: dict[str, float], target: float | None
) -> Figure:
    return Figure(
        name, f"{twin['tps']:.0f}/s", f"{ours['tps']:.0f}/s", ours["tps"] / twin["tps"], target
    )
