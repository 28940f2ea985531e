"""Connections that are open and silent: they are noticed, and nothing is lost."""

import asyncio
import uuid

import pytest

from app import db
from tests.faults.proxy import Proxy
from tests.gateway.conftest import BOB, Service
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
