"""Keys that an identity provider withdraws: their sockets are closed, their requests refused."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from app import auth
from tests.gateway.conftest import ALICE, BOB, Service, settings_for, until
from tests.gateway.issuer import Issuer, issuer, signed
from tests.gateway.test_sessions import SIGN_IN, Run

__all__ = ["issuer"]

LEAKED, NEW = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
QUERY = {"table": "boards", "limit": 1}


class Provider:
    """A gateway that takes the tokens of an issuer, who has two keys."""

    def __init__(self, service: Service, issuer: Issuer) -> None:
        self.service = service
        self.issuer = issuer

    async def status(self, token: str) -> int:
        """What a pull with this token is answered."""
        answer = await self.service.post(
            "/api/realtime/query", QUERY, authorization=f"Bearer {token}"
        )
        return answer.status_code

    def withdraw(self, key_id: str) -> None:
        self.issuer.keys = [key for key in self.issuer.keys if key["kid"] != key_id]


def by_old(later: float = 0) -> str:
    """A token of Alice's, as whoever has the key makes it: it says that it is of later."""
    return signed(LEAKED, "ES256", "old", ALICE, iat=time.time() + later)


def by_new(later: float = 0) -> str:
    """A token of Bob's."""
    return signed(NEW, "ES256", "new", BOB, iat=time.time() + later)


def hello(token: str) -> dict[str, Any]:
    return {"type": "hello", "protocol": 1, "token": token}


@pytest_asyncio.fixture
async def provider(gateway_dsn: str, issuer: Issuer) -> AsyncIterator[Provider]:
    issuer.add("old", LEAKED, "ES256")
    issuer.add("new", NEW, "ES256")
    settings = settings_for(gateway_dsn, jwt_jwks_url=issuer.url)
    async with Service(settings) as service:
        await service.ready()
        yield Provider(service, issuer)


async def test_a_leaked_key_is_of_no_use_once_everybody_was_signed_out(
    provider: Provider, run: Run
) -> None:
    stolen, from_before = by_old(30), by_new()
    assert await provider.status(stolen) == 200
    service = provider.service
    async with service.connect() as thief, service.connect() as bob:
        await thief.send(hello(stolen))
        await thief.expect("welcome")
        await bob.send(hello(by_new(30)))
        await bob.expect("welcome")
        provider.withdraw("old")
        run("select sync.end_all_sessions()")
        assert await thief.closed() == SIGN_IN
        # Though it was verified a moment ago.
        assert await provider.status(stolen) == 401
        assert await provider.status(from_before) == 401
        assert await provider.status(by_new(30)) == 200
        assert (await bob.pong())["type"] == "pong"


async def test_a_withdrawn_key_ends_its_sessions_by_itself(
    gateway_dsn: str, issuer: Issuer
) -> None:
    issuer.add("old", LEAKED, "ES256")
    issuer.add("new", NEW, "ES256")
    settings = settings_for(gateway_dsn, jwt_jwks_url=issuer.url, jwt_jwks_seconds=1)
    async with Service(settings) as service:
        await service.ready()
        provider = Provider(service, issuer)
        async with service.connect() as one, service.connect() as other:
            await one.send(hello(by_old()))
            await one.expect("welcome")
            await other.send(hello(by_new()))
            await other.expect("welcome")
            provider.withdraw("old")
            assert await one.closed() == SIGN_IN
            assert (await other.pong())["type"] == "pong"
        assert await provider.status(by_old()) == 401
        assert await provider.status(by_new()) == 200


async def test_a_key_under_an_old_name_is_another_key(provider: Provider, run: Run) -> None:
    stolen = by_old(30)
    async with provider.service.connect() as thief:
        await thief.send(hello(stolen))
        await thief.expect("welcome")
        provider.withdraw("old")
        provider.issuer.add("old", NEW, "ES256")
        run("select sync.end_all_sessions()")
        assert await thief.closed() == SIGN_IN
    assert await provider.status(stolen) == 401


async def test_a_key_that_is_found_gone_meanwhile_lets_nobody_in(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is greeted while the keys are fetched: it was verified before."""
    verifier = provider.service.gateway.verifier
    verified = verifier.verify

    async def slow(token: str) -> auth.Session:
        session = await verified(token)
        provider.withdraw("old")
        asked = provider.issuer.asked
        verifier.recall()
        await until(lambda: provider.issuer.asked > asked and not verifier.holds(session.key))
        return session

    monkeypatch.setattr(verifier, "verify", slow)
    async with provider.service.connect() as socket:
        await socket.send(hello(by_old()))
        assert await socket.closed() == SIGN_IN
        assert not socket.heard


async def test_an_issuer_that_does_not_answer_signs_nobody_out(
    provider: Provider, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "JWKS_RETRY_SECONDS", 0.05)
    stolen = by_old(30)
    service = provider.service
    async with service.connect() as thief:
        await thief.send(hello(stolen))
        await thief.expect("welcome")
        provider.issuer.broken = True
        asked = provider.issuer.asked
        run("select sync.end_all_sessions()")
        await until(lambda: provider.issuer.asked > asked)
        assert await provider.status(stolen) == 200
        assert (await thief.pong())["type"] == "pong"
        # As soon as he does, it is as if he had from the first.
        provider.withdraw("old")
        provider.issuer.broken = False
        assert await thief.closed() == SIGN_IN
        assert await provider.status(stolen) == 401
