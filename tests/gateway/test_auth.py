"""Tokens: what is accepted, what is refused, and when keys are fetched."""

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.datastructures import Headers

from app import auth
from app.auth import Verifier, bearer, origin_allowed
from app.config import Settings
from app.errors import Problem
from tests.gateway.conftest import ALICE, SECRET, token
from tests.gateway.issuer import Issuer, issuer, signed
from tests.worker.office import certificate

__all__ = ["issuer"]


def verifier(**given: Any) -> Verifier:
    return Verifier(Settings(**{"jwt_secret": SECRET, **given}))


async def refusal(check: Verifier, presented: str) -> Problem:
    with pytest.raises(Problem) as caught:
        await check.verify(presented)
    return caught.value


async def test_a_good_token_becomes_a_session() -> None:
    session = await verifier().verify(token(more="x"))
    assert (session.user_id, session.role) == (ALICE, "authenticated")
    assert json.loads(session.claims or "")["more"] == "x"
    assert session.expires_at == pytest.approx(time.time() + 600, abs=5)


async def test_identity_is_the_whole_claims() -> None:
    check, expires = verifier(), time.time() + 60
    one, same, other = [await check.verify(token(exp=expires, org=org)) for org in ("a", "a", "b")]
    assert one.identity == same.identity != other.identity


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "a.b",
        "a.b.c",
        "ü.ü.ü",
        "x" * 10_000,
        token(secret="another secret that is long enough too"),
        token(role="service_role"),
        token(role="postgres"),
        token(role=["authenticated"]),
        token(user=None),
        token(user=""),
        token(exp=None),
        token(seconds=-60),
        token(nbf=time.time() + 600),
        token(note="a\0b"),
        token(note="\ud800"),
        token()[:-2],
        f"{part({'alg': 'none'})}.{part({'sub': ALICE, 'exp': 1e10})}.",
        f"{part({'alg': 'None'})}.{part({'sub': ALICE, 'exp': 1e10})}.",
        f"{part({'alg': ['HS256']})}.{part({'sub': ALICE, 'exp': 1e10})}.",
        f"{part({'alg': 'HS256', 'crit': ['x']})}.{part({'sub': ALICE, 'exp': 1e10})}.",
        f"{part([])}.{part([])}.",
        # No numbers in JSON, so that no jsonb can hold them; and one that no clock reaches.
        token(note=float("nan")),
        token(note=[float("inf")]),
        token(exp=10**400),
    ],
)
async def test_a_bad_token_is_401(presented: str) -> None:
    assert (await refusal(verifier(), presented)).status == 401


async def test_an_algorithm_outside_the_list_is_refused() -> None:
    presented = jwt.encode({"sub": ALICE, "exp": time.time() + 60}, SECRET * 2, algorithm="HS512")
    assert (await refusal(verifier(jwt_secret=SECRET * 2), presented)).status == 401
    listed = verifier(jwt_secret=SECRET * 2, jwt_algorithms="HS512")
    assert (await listed.verify(presented)).user_id == ALICE


async def test_audience_and_issuer_are_required_where_set() -> None:
    check = verifier(jwt_audience="us", jwt_issuer="idp")
    assert (await check.verify(token(aud="us", iss="idp"))).user_id == ALICE
    wrong: list[dict[str, Any]] = [{}, {"aud": "us"}, {"iss": "idp"}]
    wrong += [{"aud": "them", "iss": "idp"}, {"aud": "us", "iss": "me"}]
    for claims in wrong:
        assert (await refusal(check, token(**claims))).status == 401


async def test_an_audience_is_not_checked_where_none_is_set() -> None:
    for audience in ("authenticated", ["a", "b"], ""):
        assert (await verifier().verify(token(aud=audience))).user_id == ALICE


async def test_a_remembered_token_still_ends_at_its_time() -> None:
    check = verifier(jwt_leeway_seconds=0)
    presented = token(seconds=2)
    await check.verify(presented)
    async with asyncio.timeout(10):
        while True:
            try:
                await check.verify(presented)
            except Problem as problem:
                assert problem.code == "expired"
                return
            await asyncio.sleep(0.02)


async def test_anonymous_callers_need_the_setting() -> None:
    with pytest.raises(Problem) as caught:
        verifier().anonymous()
    assert caught.value.status == 401
    session = verifier(allow_anon=True).anonymous()
    assert (session.claims, session.user_id, session.role) == (None, None, "anon")


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PAIRS = [
    ("RS256", RSA),
    ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
]


@pytest.mark.parametrize(("algorithm", "private"), PAIRS)
async def test_public_keys_verify(issuer: Issuer, algorithm: str, private: Any) -> None:
    issuer.add("one", private, algorithm)
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    for key_id in ("one", None):
        assert (await check.verify(signed(private, algorithm, key_id))).user_id == ALICE
    assert issuer.asked == 1


async def test_a_public_key_is_no_shared_secret(issuer: Issuer) -> None:
    issuer.add("one", RSA, "RS256")
    pem = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    body = f"{part({'alg': 'HS256', 'kid': 'one'})}.{part({'sub': ALICE, 'exp': 1e10})}"
    key = jwt.get_algorithm_by_name("HS256")
    signature = base64.urlsafe_b64encode(
        __import__("hmac").digest(pem, body.encode(), "sha256")
    ).rstrip(b"=")
    assert key is not None
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    assert (await refusal(check, f"{body}.{signature.decode()}")).status == 401
    assert issuer.asked == 0


async def test_an_unknown_key_id_is_looked_for_once_a_minute(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.add("one", RSA, "RS256")
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    new = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer.add("two", new, "RS256")
    await check.verify(signed(RSA, "RS256", "one"))
    third = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for _ in range(3):
        assert (await refusal(check, signed(third, "RS256", "three"))).status == 401
    assert issuer.asked == 1
    issuer.add("three", third, "RS256")
    monkeypatch.setattr(auth, "JWKS_REFRESH_SECONDS", 0.0)
    many = [check.verify(signed(third, "RS256", "three")) for _ in range(5)]
    assert {session.user_id for session in await asyncio.gather(*many)} == {ALICE}
    assert issuer.asked == 2


async def test_keys_that_cannot_be_fetched_are_503_and_known_ones_stay(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "JWKS_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(auth, "JWKS_RETRY_SECONDS", 0.0)
    issuer.add("one", RSA, "RS256")
    issuer.broken = True
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    assert (await refusal(check, signed(RSA, "RS256", "one"))).status == 503
    issuer.broken = False
    await check.verify(signed(RSA, "RS256", "one"))
    issuer.broken = True
    assert (await check.verify(signed(RSA, "RS256", None))).user_id == ALICE
    assert (await refusal(check, signed(RSA, "RS256", "two"))).status == 401


async def test_without_any_key_they_are_asked_for_sooner_than_once_a_minute(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.add("one", RSA, "RS256")
    issuer.broken = True
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    for _ in range(2):
        assert (await refusal(check, signed(RSA, "RS256", "one"))).status == 503
    assert issuer.asked == 1
    issuer.broken = False
    monkeypatch.setattr(auth, "JWKS_RETRY_SECONDS", 0.0)
    assert (await check.verify(signed(RSA, "RS256", "one"))).user_id == ALICE


async def test_a_key_that_cannot_be_used_takes_nothing_from_those_beside_it(
    issuer: Issuer,
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    everybodys = jwt.get_algorithm_by_name("ES256").to_jwk(private, as_dict=True)
    issuer.keys = [
        {**everybodys, "kid": "private", "alg": "ES256"},
        {"kty": "RSA", "n": 5, "e": "AQAB", "kid": "number"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "point"},
        {**everybodys, "kid": ["list"]},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kty": "of tomorrow", "kid": "later"},
        None,
        "text",
    ]
    issuer.add("one", RSA, "RS256")
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    assert (await check.verify(signed(RSA, "RS256", "one"))).user_id == ALICE
    # What everybody can read signs for nobody.
    assert (await refusal(check, signed(private, "ES256", "private"))).status == 401


async def test_several_keys_with_one_id_all_count(issuer: Issuer) -> None:
    others = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    curve = ec.generate_private_key(ec.SECP256R1())
    issuer.add("one", RSA, "RS256")
    issuer.add("one", others[0], "RS256")
    issuer.add("one", curve, "ES256")
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url)
    named = set()
    for key, algorithm in ((RSA, "RS256"), (others[0], "RS256"), (curve, "ES256")):
        session = await check.verify(signed(key, algorithm, "one"))
        assert check.holds(session.key)
        named.add(session.key)
    assert len(named) == 3
    assert (await refusal(check, signed(others[1], "RS256", "one"))).status == 401
    assert (await refusal(check, signed(RSA, "RS384", "one"))).status == 401
    late = signed(others[0], "RS256", "one", exp=time.time() - 60)
    assert (await refusal(check, late)).code == "expired"


async def test_an_issuer_may_send_on_to_another_address(issuer: Issuer) -> None:
    issuer.add("one", RSA, "RS256")
    check = verifier(jwt_secret=None, jwt_jwks_url=issuer.url.replace("/keys", "/moved"))
    assert (await check.verify(signed(RSA, "RS256", "one"))).user_id == ALICE
    assert issuer.asked == 2


async def test_what_is_asked_for_over_https_is_not_taken_from_an_address_without(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = Issuer(certificate(tmp_path))
    try:
        for one in (issuer, secure):
            one.add("one", RSA, "RS256")
        untrusted = verifier(jwt_secret=None, jwt_jwks_url=secure.url)
        assert (await refusal(untrusted, signed(RSA, "RS256", "one"))).status == 503
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.pem"))
        check = verifier(jwt_secret=None, jwt_jwks_url=secure.url)
        assert (await check.verify(signed(RSA, "RS256", "one"))).user_id == ALICE
        secure.moved_to = issuer.url
        check = verifier(jwt_secret=None, jwt_jwks_url=secure.url.replace("/keys", "/moved"))
        assert (await refusal(check, signed(RSA, "RS256", "one"))).status == 503
        assert issuer.asked == 1
    finally:
        secure.stop()


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for name, value in pairs])


def test_one_bearer_header_is_read() -> None:
    assert bearer(headers(("authorization", "Bearer abc"))) == "abc"
    assert bearer(headers(("authorization", "bearer abc"))) == "abc"
    assert bearer(headers()) is None


@pytest.mark.parametrize(
    "values", [["Bearer a", "Bearer a"], ["Basic a"], ["Bearer"], ["Bearer "], [""]]
)
def test_anything_else_in_the_header_is_401(values: list[str]) -> None:
    with pytest.raises(Problem) as caught:
        bearer(headers(*(("authorization", value) for value in values)))
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        (["http://here:8000"], True),
        (["https://here:8000"], True),
        (["https://friend.example"], True),
        (["https://friend.example.evil"], False),
        (["http://here"], False),
        (["http://here:8001"], False),
        (["null"], False),
        (["file://here:8000"], False),
        ([], False),
        (["http://here:8000", "http://here:8000"], False),
    ],
)
def test_the_origin_rule(origins: list[str], allowed: bool) -> None:
    sent = headers(("host", "here:8000"), *(("origin", origin) for origin in origins))
    assert origin_allowed(sent, ("https://friend.example",)) is allowed


AUTH0 = {
    "iss": "https://tenant.auth0.example/",
    "sub": "auth0|6f",
    "aud": ["https://api.example", "https://tenant.auth0.example/userinfo"],
    "azp": "client",
    "scope": "openid",
}
CLERK = {"iss": "https://clerk.example", "sub": "user_2", "azp": "https://app.example", "sid": "s"}
SUPABASE = {
    "iss": "https://project.example/auth/v1",
    "sub": ALICE,
    "aud": "authenticated",
    "role": "authenticated",
    "session_id": "x",
}
KEYCLOAK = {
    "iss": "https://host.example/realms/r",
    "sub": ALICE,
    "aud": ["app", "account"],
    "azp": "app",
    "typ": "Bearer",
    "role": "editor",
    "realm_access": {"roles": ["offline_access", "editor"]},
}
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "auth0": (
        AUTH0,
        {"jwt_audience": "https://api.example"},
        [
            {"aud": ["https://tenant.auth0.example/userinfo"]},
            {"iss": "https://tenant.auth0.example"},
        ],
    ),
    "clerk": (
        CLERK,
        {"jwt_authorized_parties": "https://app.example"},
        [{"azp": "https://evil.example"}, {"azp": ["https://app.example"]}, {"azp": {}}],
    ),
    "supabase": (
        SUPABASE,
        {"jwt_audience": "authenticated"},
        [{"role": "service_role"}, {"aud": "anon"}, {"role": "anon", "aud": "x"}],
    ),
    "keycloak": (
        KEYCLOAK,
        {"jwt_audience": "app", "jwt_role_claim": "realm_access.roles"},
        [{"aud": "account"}, {"realm_access": {"roles": "admin"}}, {"realm_access": {"roles": 7}}],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_tokens_of_existing_providers(issuer: Issuer, shape: str) -> None:
    claims, given, bad = SHAPES[shape]
    issuer.add("one", RSA, "RS256")
    check = verifier(
        jwt_secret=None, jwt_jwks_url=issuer.url, jwt_issuer=str(claims["iss"]), **given
    )

    def made(**other: Any) -> str:
        said = {**claims, "exp": time.time() + 60, **other}
        return jwt.encode(said, RSA, algorithm="RS256", headers={"kid": "one"})

    session = await check.verify(made())
    assert (session.user_id, session.role) == (claims["sub"], "authenticated")
    assert json.loads(session.claims or "").get("role", "authenticated") == "authenticated"
    for other in (*bad, {"iss": "https://evil.example"}, {"rowcast_session": "x"}):
        assert (await refusal(check, made(**other))).status == 401, other


async def test_several_issuers_and_audiences(issuer: Issuer) -> None:
    check = verifier(jwt_issuer="one, two", jwt_audience="a,b")
    for iss, aud in (("one", "a"), ("two", ["b", "c"])):
        assert (await check.verify(token(iss=iss, aud=aud))).user_id == ALICE
    assert (await refusal(check, token(iss="three", aud="a"))).status == 401
