"""Connections that are open and silent: they are noticed, and nothing is lost."""

import asyncio
import uuid

import pytest

from app import db
from tests.faults.proxy import Proxy
from tests.gateway.conftest import BOB, Service, eventually
from tests.gateway.test_socket import KEY, create


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_silent_connections_to_the_database_are_replaced(
    service: Service, database_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    monkeypatch.setattr(db, "SILENT_SECONDS", 0.3)
    task = str(uuid.uuid4())
    async with service.socket(BOB) as bob:
        await bob.subscribe(KEY)
        database_proxy.half_open(direction)
        async with asyncio.timeout(10):
            await service.write(create(task))
            assert (await bob.update(f"tasks:{task}"))["version"] == 1


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_streams_on_silent_connections_end_and_give_their_place_back(
    service: Service, database_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, direction: str
) -> None:
    monkeypatch.setattr(db, "SILENT_SECONDS", 0.3)
    database_proxy.half_open(direction)

    async def answered() -> bool:
        answer = await service.post(
            "/api/realtime/query", {"table": "boards"}, BOB, accept="application/x-ndjson"
        )
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    await eventually(answered)
