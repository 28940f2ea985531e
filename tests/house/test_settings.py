"""The settings class and its page."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.config import Settings
from docs import generate

SECRET = "s" * 32


@pytest.mark.skipif(
    not (generate.ROOT / "client/node_modules").is_dir(), reason="the client is not installed"
)
def test_generated_pages_are_current() -> None:
    assert not generate.stale()


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.setenv("ROWCAST_ALLOWED_ORIGINS", "https://a.example, https://b.example")
    monkeypatch.setenv("ROWCAST_POSTGRES_BIN", "")
    settings = Settings()
    assert settings.port == 8123
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.postgres_bin is None


def test_secret_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    monkeypatch.delenv("ROWCAST_JWT_SECRET", raising=False)
    monkeypatch.setenv("ROWCAST_JWT_SECRET_FILE", str(path))
    assert Settings().jwt_secret == SECRET


def test_secret_and_its_file_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROWCAST_JWT_SECRET", SECRET)
    monkeypatch.setenv("ROWCAST_JWT_SECRET_FILE", str(tmp_path))
    with pytest.raises(ValueError, match="keep one"):
        Settings()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_file_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.delenv("ROWCAST_JWT_SECRET", raising=False)
    monkeypatch.setenv("ROWCAST_JWT_SECRET_FILE", str(path))
    with pytest.raises(SettingsError, match=f"ROWCAST_JWT_SECRET_FILE: {path}"):
        Settings()


@pytest.mark.parametrize(
    "origin", ["*", "https://a.example/", "a.example", "https://a.example/x", "null", "https://"]
)
def test_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="ROWCAST_ALLOWED_ORIGINS"):
        Settings.model_validate({"allowed_origins": origin})


@pytest.mark.parametrize("url", ["issuer.example/keys", "file:///etc/passwd"])
def test_key_address_that_cannot_be_fetched_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="ROWCAST_JWT_JWKS_URL"):
        Settings(jwt_jwks_url=url)


def test_short_secret_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match="at least 32 bytes") as caught:
        Settings(jwt_secret="too-short")
    assert "too-short" not in str(caught.value)


def test_secrets_are_not_in_the_representation() -> None:
    settings = Settings(jwt_secret=SECRET, database_url="postgresql://u:hunter2@h/d")
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize("name", ["none", "HS1", "RS256,none"])
def test_unknown_algorithm_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="not supported"):
        Settings.model_validate({"jwt_algorithms": name})


def test_algorithms_follow_the_keys() -> None:
    url = "https://issuer.example/keys"
    assert Settings(jwt_secret=SECRET).algorithms == ("HS256",)
    assert Settings(jwt_jwks_url=url).algorithms == ("RS256", "ES256", "EdDSA")
    # A public key must never be taken for a shared secret.
    assert Settings(jwt_jwks_url=url, jwt_algorithms=("HS256",)).algorithms == ()


def test_dev_sign_in_needs_a_secret() -> None:
    with pytest.raises(ValidationError, match="ROWCAST_JWT_SECRET"):
        Settings(dev_sign_in=True)
    with pytest.raises(ValidationError, match="HS256"):
        Settings(dev_sign_in=True, jwt_secret=SECRET, jwt_algorithms=("RS256",))
