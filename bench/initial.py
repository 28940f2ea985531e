"""Initial load: 10 000 records at once."""

import json
import socket
import time

import psycopg

from .load import request
from .results import Figure, interleave
from .stage import LOADER, Running, Say, Stage, claims, token

COLUMNS = (
    "id, version, board_id, title, description, status, priority, assignee_id, due_date, tags, "
    "order_key, metadata, created_by, created_at, updated_at, deleted"
)
OPEN = "select sync.gateway_query_open(p_claims => %s, p_body => %s)"
FETCH = "fetch 512 from rowcast_page"  # about what the gateway takes at a time of such records
QUERY = {"table": "tasks"}
RECORDS = 10_000
LAST = b"0\r\n\r\n"  # of a chunked answer


def load(stage: Stage, say: Say, longer: int) -> list[Figure]:
    """NDJSON beside COPY, in SQL and over HTTP, and the memory it takes in the gateway."""
    say("initial load")
    with stage.gateway() as gateway, stage.connect() as one, stage.connect() as two:
        memory = _memory(gateway)
        copy, fetched, http = interleave(
            7 * longer, lambda: _copy(one), lambda: _fetch(two), lambda: _http(gateway)
        )
    figures = [
        _speed("initial load, 10 000 records, cursor", copy, fetched, 0.4),
        _speed("initial load, 10 000 records, HTTP", copy, http, None),
    ]
    if memory is not None:
        grown, size = memory
        figures.append(
            Figure(
                "initial load, memory of the gateway beside the size of the answer",
                f"{size} KiB",
                f"{grown} KiB",
                grown / size,
                at_most=0.5,
            )
        )
    return figures


def _copy(conn: psycopg.Connection) -> dict[str, float]:
    started = time.perf_counter()
    with conn.transaction():
        conn.execute("select sync.act_as(%s)", (claims(LOADER)["sub"],))
        with conn.cursor().copy(f"copy (select {COLUMNS} from public.tasks) to stdout") as copy:
            rows = sum(bytes(block).count(b"\n") for block in copy)
    assert rows == RECORDS
    return {"ms": (time.perf_counter() - started) * 1000}


def _fetch(conn: psycopg.Connection) -> dict[str, float]:
    started = time.perf_counter()
    records = 0
    with conn.transaction():
        conn.execute(OPEN, (json.dumps(claims(LOADER)), json.dumps(QUERY)))
        while rows := conn.execute(FETCH, prepare=False).fetchall():
            records += sum(row[0].count("\n") + 1 for row in rows)
    assert records == RECORDS
    return {"ms": (time.perf_counter() - started) * 1000}


def _http(gateway: Running) -> dict[str, float]:
    started = time.perf_counter()
    with _asked(gateway) as connection:
        records = size = 0
        before = b""  # a line may end in one block and its newline begin the next
        while not (block := connection.recv(262144)).endswith(LAST):
            assert block
            records += (before + block).count(b"}\n")
            before = block[-1:]
            size += len(block)
        records += (before + block).count(b"}\n")
    assert records == RECORDS + 1  # and the header
    return {"ms": (time.perf_counter() - started) * 1000, "kib": size / 1024}


def _memory(gateway: Running) -> tuple[int, int] | None:
    """How far the process grows while a reader pauses in the middle, and the size of the answer."""
    with _asked(gateway, {"table": "boards", "limit": 1}) as connection:
        while not connection.recv(65536).endswith(LAST):
            pass
    before = gateway.memory_kib("VmRSS")
    gateway.reset_peak()
    with _asked(gateway) as connection:
        connection.recv(65536)
        time.sleep(1)  # a reader that is slow: what the gateway holds for it is what counts
        while not connection.recv(262144).endswith(LAST):
            pass
    peak = gateway.memory_kib("VmHWM")
    size = int(_http(gateway)["kib"])
    return None if before is None or peak is None else (max(0, peak - before), size)


def _asked(gateway: Running, query: object = QUERY) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    connection.sendall(
        request(
            "/api/realtime/query", token(LOADER), json.dumps(query).encode(), "application/x-ndjson"
        )
    )
    return connection


def _speed(
    name: str, copy: dict[str, float], ours: dict[str, float], target: float | None
) -> Figure:
    return Figure(
        name, f"{copy['ms']:.0f} ms", f"{ours['ms']:.0f} ms", copy["ms"] / ours["ms"], target
    )
