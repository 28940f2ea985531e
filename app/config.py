"""Settings: every environment variable the gateway and the command line read, in one class.

`docs/reference/settings.md` is generated from this class (`make generate`), and checked.
"""

import os
from email.utils import getaddresses
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
ASYMMETRIC = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
DEVELOPMENT = "development-"  # how a secret begins that `rowcast run` has made
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is at least as long as its hash

Words = Annotated[tuple[str, ...], NoDecode]
"""Comma separated in the environment."""


def _secret(description: str) -> Any:
    """An optional field that may also come from the file named by `<NAME>_FILE`."""
    return Field(
        default=None, repr=False, description=description, json_schema_extra={"file": True}
    )


class Settings(BaseSettings):
    """What is configurable. Unusable values raise ValidationError, which does not show them."""

    model_config = SettingsConfigDict(
        env_prefix="ROWCAST_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    env: Literal["production", "development"] = Field(
        default="production",
        description="In `production` the gateway does not start with development sign-in, a secret "
        "that could be guessed, or a database that `rowcast doctor` finds an error in. `rowcast "
        "run` sets `development`.",
    )
    database_url: str | None = _secret(
        "PostgreSQL 15 or newer, as the login `rowcast_gateway`: a `postgresql://` URL or a libpq "
        "`key=value` string, with several hosts where there are standbys. Without it `rowcast run` "
        "starts an embedded server."
    )
    migrate_url: str | None = _secret(
        "The same database as a role that may create roles and schemas; used by `migrate`, "
        "`doctor` and `remove` alone. Default: the database URL."
    )
    listen_url: str | None = _secret(
        "A direct connection for the doorbell (LISTEN and a session lock) where the database URL "
        "goes through a pooler. Default: the database URL."
    )
    worker_url: str | None = _secret(
        "The same database as the login `rowcast_worker`, for `rowcast worker`; a direct "
        "connection, not through a pooler that shares sessions."
    )
    prepared_statements: bool = Field(
        default=True,
        description="Prepare statements on connections of the database URL. Turn it off behind a "
        "pooler in transaction mode that does not keep track of them, as PgBouncer before 1.21.",
    )
    worker_jobs: int = Field(
        default=10,
        ge=2,
        le=1000,
        description="Jobs a worker does at once, each on a connection, and up to half as many more "
        "in place of those that take longer than two seconds.",
    )
    worker_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port on which `rowcast worker` says how it is (`/healthz`, `/readyz`, "
        "`/metrics`), at `ROWCAST_HOST`. Default: none.",
    )
    worker_modules: Words = Field(
        default=(),
        description="Python modules, comma separated, with code of your own kinds of job.",
    )
    webhook_networks: Words = Field(
        default=(),
        description="Networks, comma separated, that webhooks may go to although they are not "
        "public, and without TLS: `10.1.2.0/24`. Default: none.",
    )
    pool_size: int = Field(
        default=8, ge=2, le=1000, description="Connections the gateway keeps for reads and writes."
    )
    data_dir: Path = Field(
        default=Path(".data"),
        description="Folder of the embedded server's data, kept between runs; `make reset` "
        "deletes it.",
    )
    postgres_bin: Path | None = Field(
        default=None,
        description="Folder with `postgres` and `initdb` to use in place of the embedded ones.",
    )

    host: str = Field(
        default="127.0.0.1", description="Address the gateway listens on; `0.0.0.0` for all."
    )
    port: int = Field(
        default=8000,
        ge=0,
        le=65535,
        validation_alias="PORT",
        description="Port the gateway listens on; 0 lets the system choose one.",
    )
    allowed_origins: Words = Field(
        default=(),
        description="Origins, comma separated, whose pages may use the API and the socket, besides "
        "the gateway's own origin: `https://app.example.com`.",
    )

    jwt_secret: str | None = _secret(
        "Secret that verifies HS256, HS384 and HS512 tokens; at least 32 bytes."
    )
    jwt_jwks_url: str | None = Field(
        default=None, description="JWKS document that verifies tokens signed with a private key."
    )
    jwt_jwks_seconds: float = Field(
        default=600,
        ge=1,
        le=86400,
        description="How often that document is fetched anew: sockets and requests of a key that "
        "the issuer withdrew end within it. `sync.end_all_sessions` has it fetched at once.",
    )
    jwt_previous_secrets: str | None = _secret(
        "Former values of `ROWCAST_JWT_SECRET`, one a line, whose tokens made by the gateway "
        "still count until they expire. Leave it empty where a secret has leaked."
    )
    jwt_audience: Words = Field(
        default=(),
        description="Accepted `aud`, comma separated: a token names at least one of them. "
        "Default: not checked.",
    )
    jwt_issuer: Words = Field(
        default=(),
        description="Accepted `iss`, comma separated. Default: not checked.",
    )
    jwt_authorized_parties: Words = Field(
        default=(),
        description="Accepted `azp`, comma separated, where a token has one: the client it was "
        "issued to. Default: not checked.",
    )
    jwt_role_claim: str = Field(
        default="role",
        pattern=r"^[^.\s].*$",
        description="Claim that says `authenticated` or `anon`, as text or in a list; dots lead "
        "into objects: `realm_access.roles`. Left out in a token: `authenticated`.",
    )
    jwt_algorithms: Words = Field(
        default=(),
        description="Algorithms accepted, comma separated. Default: HS256 where a secret is set, "
        "RS256, ES256 and EdDSA where a JWKS URL is set.",
    )
    jwt_leeway_seconds: float = Field(
        default=5, ge=0, le=300, description="Clock difference tolerated in `exp` and `nbf`."
    )
    allow_anon: bool = Field(
        default=False, description="Let requests without a token in, as the role `anon`."
    )
    dev_sign_in: bool = Field(
        default=False,
        description="Sign in as a demo user without a password. For development only; "
        "`rowcast run` turns it on.",
    )

    smtp_url: str | None = _secret(
        "Where mails are sent by: `smtp://user:password@host:587` (with STARTTLS where the server "
        "offers it, and always with a password), or `smtps://` for TLS from the start. Used by the "
        "worker; without it mails wait."
    )
    mail_from: str | None = Field(
        default=None,
        description="Sender of mails: `app@example.com` or `My app <app@example.com>`.",
    )

    files_url: str | None = Field(
        default=None,
        description="Where the bytes of files are: `file:///folder`, `s3://bucket/prefix`, "
        "`gs://bucket/prefix` or `az://container/prefix`. Default: the folder `files` in "
        "`ROWCAST_DATA_DIR`.",
    )
    files_endpoint: str | None = Field(
        default=None, description="Address of the S3 or Azure service where it is not the usual."
    )
    files_region: str = Field(default="us-east-1", description="Region of the S3 bucket.")
    files_key_id: str | None = Field(
        default=None,
        description="Access key id of S3, or account name of Azure. Default: as that cloud's own "
        "tools find it.",
    )
    files_secret_key: str | None = _secret(
        "Secret access key of S3, account key of Azure, or the service account's JSON of Google."
    )
    files_direct: bool = Field(
        default=False,
        description="Let browsers send files to the S3 bucket themselves, by links signed with the "
        "key above; the bucket needs CORS.",
    )

    files_exclusive: bool = Field(
        default=False,
        description="The store, or its prefix, is this database's alone: the worker then removes "
        "objects older than a day that the database knows nothing of, too.",
    )

    accounts: bool = Field(
        default=False,
        description="Sign-up, sign-in and sessions by the gateway itself. Needs "
        "`ROWCAST_JWT_SECRET` and `ROWCAST_PUBLIC_URL`; `rowcast run` turns it on.",
    )
    public_url: str | None = Field(
        default=None,
        description="Where people open the app, without a path: `https://app.example.com`. In "
        "links of mails, in what providers send people back to, and what makes cookies `Secure`.",
    )
    guests: bool = Field(
        default=True, description="With accounts: let people begin without an address."
    )
    oidc_providers: str | None = _secret(
        "OpenID Connect providers to sign in by: a JSON list of `{id, name, issuer, clientId, "
        "clientSecret?, scopes?}`."
    )
    password_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Passwords verified at once; each takes 64 MiB and a core for 0.1 s.",
    )

    poll_seconds: float = Field(
        default=1,
        gt=0,
        le=60,
        description="Longest wait between two looks at the feed when no notification arrives.",
    )
    heartbeat_seconds: float = Field(
        default=20, gt=0, le=300, description="Interval of the server's pings on a socket."
    )
    drain_seconds: float = Field(
        default=10,
        ge=0,
        le=600,
        description="Time that open requests get to finish when the gateway is told to stop.",
    )
    max_body_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="Largest request body; beyond it 413."
    )
    socket_buffer_bytes: int = Field(
        default=1024 * 1024,
        ge=65536,
        description="Unsent bytes at which a socket is closed as too slow (4408); it resumes by "
        "cursor.",
    )
    user_sockets: int = Field(
        default=100, ge=0, description="Sockets one user may have on a gateway; 0: any number."
    )
    address_sockets: int = Field(
        default=0,
        ge=0,
        description="Sockets one address (of IPv6 a /64) may have on a gateway; 0: any number. "
        "Behind a proxy needs `ROWCAST_TRUSTED_PROXIES`.",
    )
    user_requests_per_second: float = Field(
        default=0,
        ge=0,
        description="HTTP requests one user may send in a second, and five times as many at once; "
        "beyond it 429. 0: any number.",
    )
    address_requests_per_second: float = Field(
        default=0, ge=0, description="The same of one address, whoever signs in from it."
    )
    user_subscriptions_per_second: float = Field(
        default=0,
        ge=0,
        description="`subscribe` frames one user may send in a second, and five times as many at "
        "once; beyond it the socket is closed (4429). 0: any number.",
    )
    greetings: int = Field(
        default=100,
        ge=1,
        description="Sockets accepted, or greeted, in the same moment; others wait their turn.",
    )
    trusted_proxies: Words = Field(
        default=(),
        description="Addresses and networks, comma separated, whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` are believed: `10.0.0.0/8`.",
    )
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description="Least severe message logged: debug (of the gateway's own), info, warning or "
        "error.",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="A message is a line of `text` or of `json`; `auto`: text on a terminal.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the files that `<NAME>_FILE` variables name."""
        return init_settings, env_settings, SecretFiles(settings_cls)

    @field_validator(
        "allowed_origins",
        "jwt_algorithms",
        "jwt_audience",
        "jwt_authorized_parties",
        "jwt_issuer",
        "trusted_proxies",
        "webhook_networks",
        "worker_modules",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.jwt_secret is not None and len(self.jwt_secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"ROWCAST_JWT_SECRET needs at least {MIN_SECRET_BYTES} bytes")
        unknown = set(self.jwt_algorithms) - SYMMETRIC - ASYMMETRIC
        if unknown:
            raise ValueError(f"ROWCAST_JWT_ALGORITHMS: not supported: {', '.join(sorted(unknown))}")
        for network in (*self.trusted_proxies, *self.webhook_networks):
            ip_network(network, strict=False)  # raises ValueError
        for origin in self.allowed_origins:
            parts = urlsplit(origin)
            if not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"ROWCAST_ALLOWED_ORIGINS: {origin} is not like https://a.example")
        if urlsplit(self.jwt_jwks_url or "https:").scheme not in ("http", "https"):
            raise ValueError("ROWCAST_JWT_JWKS_URL must be an http or https address")
        self._check_connections()
        self._check_files()
        self._check_mail()
        for secret in self.previous_secrets:
            if len(secret.encode()) < MIN_SECRET_BYTES:
                raise ValueError(
                    f"ROWCAST_JWT_PREVIOUS_SECRETS: each needs at least {MIN_SECRET_BYTES} bytes"
                )
        self._check_accounts()
        if self.dev_sign_in and SYMMETRIC.isdisjoint(self.algorithms):
            raise ValueError(
                "ROWCAST_DEV_SIGN_IN needs ROWCAST_JWT_SECRET to sign its tokens, and HS256 among "
                "ROWCAST_JWT_ALGORITHMS where these are set"
            )
        return self

    def _check_connections(self) -> None:
        for name in ("database_url", "migrate_url", "listen_url", "worker_url"):
            try:
                conninfo_to_dict(getattr(self, name) or "")
            except ProgrammingError:
                # libpq would show all of it, password too.
                raise ValueError(
                    f"ROWCAST_{name.upper()} must be a postgresql:// URL or key=value pairs"
                ) from None

    def _check_files(self) -> None:
        store = urlsplit(self.files_url or "file:///x")
        where = store.path.strip("/") if store.scheme == "file" else store.netloc
        if store.scheme not in ("file", "s3", "gs", "az") or not where:
            raise ValueError(
                "ROWCAST_FILES_URL must be like file:///folder, s3://bucket, gs://bucket or "
                "az://container"
            )
        if urlsplit(self.files_endpoint or "https:").scheme not in ("http", "https"):
            raise ValueError("ROWCAST_FILES_ENDPOINT must be an http or https address")
        if self.files_direct and not (
            store.scheme == "s3" and self.files_key_id and self.files_secret_key
        ):
            raise ValueError(
                "ROWCAST_FILES_DIRECT needs an s3:// URL, ROWCAST_FILES_KEY_ID and "
                "ROWCAST_FILES_SECRET_KEY"
            )

    def _check_mail(self) -> None:
        if self.smtp_url is None:
            return
        server = urlsplit(self.smtp_url)
        try:
            fits = server.scheme in ("smtp", "smtps") and server.hostname and server.port != 0
        except ValueError:
            fits = False
        if not fits or server.path.strip("/") or server.query:
            raise ValueError("ROWCAST_SMTP_URL must be like smtp://user:password@host:587")
        parsed = [a for _, a in getaddresses([self.mail_from or ""])]
        if len(parsed) != 1 or "@" not in parsed[0] or not (self.mail_from or "").isprintable():
            raise ValueError("ROWCAST_SMTP_URL needs ROWCAST_MAIL_FROM, one address")
        if self.jwt_secret is None or self.public_url is None:
            raise ValueError(
                "ROWCAST_SMTP_URL needs ROWCAST_JWT_SECRET and ROWCAST_PUBLIC_URL, which the links "
                "in mails are made of"
            )

    def _check_accounts(self) -> None:
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            if parts.scheme not in ("http", "https") or (
                self.public_url != f"{parts.scheme}://{parts.netloc}"
            ):
                raise ValueError("ROWCAST_PUBLIC_URL is like https://app.example.com, no path")
            if self.dev_sign_in and parts.scheme == "https":
                raise ValueError(
                    "ROWCAST_DEV_SIGN_IN lets anybody in without a password; it does not go with "
                    "a ROWCAST_PUBLIC_URL of https"
                )
        if self.accounts and (self.jwt_secret is None or self.public_url is None):
            raise ValueError("ROWCAST_ACCOUNTS needs ROWCAST_JWT_SECRET and ROWCAST_PUBLIC_URL")
        if self.oidc_providers is not None:
            if not self.accounts:
                raise ValueError("ROWCAST_OIDC_PROVIDERS needs ROWCAST_ACCOUNTS")
            if len({provider.id for provider in self.providers}) < len(self.providers):
                raise ValueError("ROWCAST_OIDC_PROVIDERS: two have the same id")

    @property
    def origins(self) -> tuple[str, ...]:
        """Whose pages may use the API with a cookie, besides the host they call."""
        return (*self.allowed_origins, *((self.public_url,) if self.public_url else ()))

    @property
    def providers(self) -> tuple["Provider", ...]:
        """The OpenID Connect providers. Raises ValueError, which does not show them."""
        if self.oidc_providers is None:
            return ()
        return tuple(PROVIDERS.validate_json(self.oidc_providers))

    @property
    def previous_secrets(self) -> tuple[str, ...]:
        """Secrets that still verify the gateway's own tokens."""
        given = (self.jwt_previous_secrets or "").splitlines()
        return tuple(word.strip() for word in given if word.strip())

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The token algorithms in force: symmetric ones with a secret, others with a JWKS URL."""
        wanted = self.jwt_algorithms or ("HS256", "RS256", "ES256", "EdDSA")
        usable: set[str] = set()
        if self.jwt_secret is not None:
            usable |= SYMMETRIC
        if self.jwt_jwks_url is not None:
            usable |= ASYMMETRIC
        return tuple(name for name in wanted if name in usable)

    @property
    def admin_url(self) -> str | None:
        """Where `migrate` connects: the migrate URL, else the database URL."""
        return self.migrate_url or self.database_url

    @property
    def listener_url(self) -> str | None:
        """Where the listener connects: the listen URL, else the database URL."""
        return self.listen_url or self.database_url


class Provider(BaseModel):
    """An OpenID Connect provider people sign in by."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    id: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    name: str = Field(min_length=1, max_length=80)
    issuer: str = Field(pattern=r"^https?://\S+$")
    client_id: str = Field(alias="clientId", min_length=1)
    client_secret: str | None = Field(default=None, alias="clientSecret", repr=False)
    scopes: str = "openid email"


PROVIDERS: TypeAdapter[list[Provider]] = TypeAdapter(list[Provider])


class SecretFiles(PydanticBaseSettingsSource):
    """Reads a secret from the file that `<NAME>_FILE` names, without the newline at its end."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Raises SettingsError where both the variable and its file are given, or the file cannot
        be read or is empty.
        """
        name = variable(field_name, field)
        path = os.environ.get(f"{name}_FILE")
        if not takes_file(field) or not path:
            return None, field_name, False
        if os.environ.get(name):
            raise SettingsError(f"both {name} and {name}_FILE are set; keep one")
        try:
            secret = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SettingsError(f"{name}_FILE: {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise SettingsError(f"{name}_FILE: {path} is not UTF-8") from None
        if not secret:
            # libpq would take an empty URL for whatever server is near.
            raise SettingsError(f"{name}_FILE: {path} is empty")
        return secret, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


def variable(field_name: str, field: FieldInfo) -> str:
    """Name of the environment variable of a field."""
    if isinstance(field.validation_alias, str):
        return field.validation_alias
    return f"ROWCAST_{field_name.upper()}"


def takes_file(field: FieldInfo) -> bool:
    """Whether the value may also come from `<NAME>_FILE`."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("file") is True


def markdown() -> str:
    """The table of docs/reference/settings.md."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = "" if default is None or default == () else f"`{_word(default)}`"
        file = f" Or `{variable(name, field)}_FILE`." if takes_file(field) else ""
        lines.append(f"| `{variable(name, field)}` | {shown} | {field.description}{file} |")
    return "\n".join(lines) + "\n"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
