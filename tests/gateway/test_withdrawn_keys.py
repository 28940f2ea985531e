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


async def test_keys_that_have_one_id_are_withdrawn_singly(provider: Provider, run: Run) -> None:
    service, issuer = provider.service, provider.issuer
    issuer.add("old", NEW, "ES256")
    async with service.connect() as one, service.connect() as other:
        await one.send(hello(by_old(30)))
        await one.expect("welcome")
        await other.send(hello(signed(NEW, "ES256", "old", BOB, iat=time.time() + 30)))
        await other.expect("welcome")
        del issuer.keys[0]
        run("select sync.end_all_sessions()")
        assert await one.closed() == SIGN_IN
        assert (await other.pong())["type"] == "pong"


async def test_an_issuer_without_keys_has_withdrawn_them_all(provider: Provider, run: Run) -> None:
    async with provider.service.connect() as thief:
        await thief.send(hello(by_old(30)))
        await thief.expect("welcome")
        provider.issuer.keys = []
        run("select sync.end_all_sessions()")
        assert await thief.closed() == SIGN_IN
    assert await provider.status(by_old(30)) == 401


@pytest.mark.parametrize(
    "answered",
    [
        b"",
        b"what?\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n<html>Come back later</html>",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b"HTTP/1.0 200 OK\r\n\r\nnull",
        b'HTTP/1.0 200 OK\r\n\r\n{"error": "busy"}',
        b'HTTP/1.0 200 OK\r\n\r\n{"keys": {}}',
        b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 500_000,
        b"HTTP/1.0 200 OK\r\n\r\n" + b" " * (2 << 20) + b'{"keys": []}',
        b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.0 302 Found\r\nLocation: /keys\r\n\r\n",
        b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none_signs_nobody_out_and_is_asked_for_again(
    provider: Provider, run: Run, monkeypatch: pytest.MonkeyPatch, answered: bytes
) -> None:
    monkeypatch.setattr(auth, "JWKS_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(auth, "JWKS_PAUSE_SECONDS", 0.0)
    issuer = provider.issuer
    async with provider.service.connect() as thief:
        await thief.send(hello(by_old(30)))
        await thief.expect("welcome")
        issuer.raw, asked = answered, issuer.asked
        run("select sync.end_all_sessions()")
        await until(lambda: issuer.asked > asked)
        await until(lambda: issuer.asked > asked + 1)
        assert (await thief.pong())["type"] == "pong"
        provider.withdraw("old")
        issuer.raw = None
        assert await thief.closed() == SIGN_IN


async def test_nobody_waits_for_an_issuer_that_does_not_end_his_answer(
    gateway_dsn: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.add("old", LEAKED, "ES256")
    settings = settings_for(gateway_dsn, jwt_jwks_url=issuer.url, jwt_jwks_seconds=1)
    async with Service(settings) as service:
        await service.ready()
        provider = Provider(service, issuer)
        assert await provider.status(by_old()) == 200
        monkeypatch.setattr(auth, "JWKS_TIMEOUT_SECONDS", 3600.0)
        issuer.open.clear()
        asked = issuer.asked
        await until(lambda: issuer.asked > asked)
        # A token that was not verified before, by a key that is older by now than it should be.
        keys = service.gateway.verifier._keys
        assert keys is not None
        await until(lambda: time.monotonic() - keys._fetched_at > keys.max_age)
        assert await provider.status(by_old()) == 200
        issuer.open.set()


async def test_a_fetch_that_takes_too_long_is_given_up(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "JWKS_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(auth, "JWKS_TIMEOUT_SECONDS", 0.3)
    issuer, verifier = provider.issuer, provider.service.gateway.verifier
    assert await provider.status(by_old()) == 200
    issuer.open.clear()
    asked = issuer.asked
    verifier.recall()
    await until(lambda: issuer.asked > asked + 1)
    assert await provider.status(by_old(1)) == 200
    issuer.open.set()


async def test_however_often_keys_are_recalled_there_is_a_pause(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "JWKS_PAUSE_SECONDS", 3600.0)
    issuer, verifier = provider.issuer, provider.service.gateway.verifier
    asked = issuer.asked
    verifier.recall()
    await until(lambda: issuer.asked > asked)
    for _ in range(5):
        verifier.recall()
        assert await provider.status(by_old()) == 200
    assert issuer.asked == asked + 1


async def test_a_socket_is_of_the_key_of_its_newest_token(provider: Provider, run: Run) -> None:
    async with provider.service.connect() as socket:
        await socket.send(hello(by_old()))
        await socket.expect("welcome")
        renewed = signed(NEW, "ES256", "new", ALICE, iat=time.time() + 30)
        await socket.send({"type": "auth", "token": renewed})
        await socket.expect("authed")
        provider.withdraw("old")
        run("select sync.end_all_sessions()")
        verifier = provider.service.gateway.verifier
        await until(lambda: len(verifier._keys._names) == 1)  # type: ignore[union-attr]
        assert (await socket.pong())["type"] == "pong"
        provider.issuer.keys = []
        verifier.recall()
        assert await socket.closed() == SIGN_IN


async def test_a_key_that_goes_while_a_token_is_renewed_renews_nothing(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = provider.service.gateway.verifier
    async with provider.service.connect() as socket:
        await socket.send(hello(signed(NEW, "ES256", "new", ALICE)))
        await socket.expect("welcome")
        verified = verifier.verify

        async def slow(token: str) -> auth.Session:
            session = await verified(token)
            provider.withdraw("old")
            verifier.recall()
            await until(lambda: not verifier.holds(session.key))
            return session

        monkeypatch.setattr(verifier, "verify", slow)
        await socket.send({"type": "auth", "token": by_old()})
        assert await socket.closed() == SIGN_IN
        assert not [frame for frame in socket.heard if frame.get("type") == "authed"]
