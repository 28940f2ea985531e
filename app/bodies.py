"""Models of the HTTP bodies. They document: PostgreSQL reads the bodies, not Python."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .protocol import Cursor, Key, RecordMap

Json = Any
Table = Annotated[str, Field(description="Wire name of a table: `tasks`.")]
RecordId = Annotated[str, Field(description="uuid, text, or bigint as text.")]
Path = Annotated[
    str | list[str], Field(description="A column, or a path into one: `metadata.color`.")
]


class Body(BaseModel):
    """Base of all bodies: unknown members are ignored, but not in operations."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        serialize_by_alias=True,
        validate_by_name=True,
    )


class Set(Body):
    """Puts a value at a path; without `value` removes it (on a column: null)."""

    type: Literal["set"]
    table: Table
    id: RecordId
    key: Path
    value: Json = None


class SetNow(Body):
    """Puts the server's time of the transaction."""

    type: Literal["set-now"]
    table: Table
    id: RecordId
    key: Path


class Before(Body):
    """In front of an equal value; first if there is none."""

    before: Json


class After(Body):
    """Behind an equal value; last if there is none."""

    after: Json


class ListInsert(Body):
    """Puts a value into a list once; an equal one present is moved."""

    type: Literal["listInsert"]
    table: Table
    id: RecordId
    key: Path
    value: Json
    position: Literal["prepend", "append"] | Before | After = "append"


class ListRemove(Body):
    """Removes every equal value from a list."""

    type: Literal["listRemove"]
    table: Table
    id: RecordId
    key: Path
    value: Json


class Create(Body):
    """Makes a record of these values on top of the column defaults."""

    type: Literal["create"]
    table: Table
    id: RecordId
    value: dict[str, Json]


class Delete(Body):
    """Marks the record as deleted, or deletes it where the table says so."""

    type: Literal["delete"]
    table: Table
    id: RecordId


class Restore(Body):
    """Takes the mark of deletion away."""

    type: Literal["restore"]
    table: Table
    id: RecordId


class Increment(Body):
    """Adds to a number; null or missing counts as 0."""

    type: Literal["increment"]
    table: Table
    id: RecordId
    key: Path
    by: Annotated[
        float | str, Field(description="As text where a double is not exact: bigint, numeric.")
    ]


class Call(Body):
    """Calls an SQL function made callable by `sync.expose`."""

    type: Literal["call"]
    fn: str
    args: dict[str, Json] | None = None


Operation = Annotated[
    Set | SetNow | ListInsert | ListRemove | Create | Delete | Restore | Increment | Call,
    Field(discriminator="type"),
]


class RecordVersion(Body):
    """A record at a version."""

    table: Table
    id: RecordId
    version: int


class Transaction(Body):
    """Operations that take effect together or not at all, once, whatever is repeated."""

    tx_id: Annotated[str, Field(description="A uuid, version 7 advised.")]
    operations: Annotated[list[Operation], Field(min_length=1, max_length=500)]
    expect: Annotated[
        list[RecordVersion] | None, Field(description="Refuse unless these versions hold.")
    ] = None
    author_id: str | None = None
    client_timestamp: Json = None


class WriteBody(Body):
    """A batch; each transaction has its own outcome."""

    transactions: Annotated[list[Transaction], Field(min_length=1, max_length=50)]
    dry_run: bool = False


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is the stable word to branch on."""

    model_config = ConfigDict(alias_generator=to_camel, extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    table: str | None = None
    id: str | None = None
    key: Path | None = None
    op: Annotated[int | None, Field(description="Which operation, counted from 0.")] = None
    tx_id: str | None = None
    limit: float | None = None
    blocked_by: str | None = None
    conflicts: list[RecordVersion] | None = None
    record_map: RecordMap | None = None
    retry_after: Annotated[float | None, Field(description="Seconds.")] = None
    log_id: str | None = None


class Result(Body):
    """Outcome of one transaction of a batch."""

    tx_id: str
    status: Literal["applied", "duplicate", "refused", "retry"]
    versions: list[RecordVersion]
    values: Annotated[list[Json] | None, Field(description="Results of calls.")] = None
    error: Problem | None = None


class WriteAnswer(Body):
    """Outcomes in the order sent, and the records the operations name, as they stand."""

    results: list[Result]
    record_map: RecordMap


class TransactionAnswer(Body):
    """Outcome where one transaction was the whole body."""

    tx_id: str
    status: Literal["applied", "duplicate"]
    versions: list[RecordVersion]
    values: list[Json] | None = None
    record_map: RecordMap


class Pointer(Body):
    """Names a record; with `version`, it is sent only if it differs."""

    table: Table
    id: RecordId
    version: int | None = None


class Place(Body):
    """Names a record."""

    table: Table
    id: RecordId


class GetRecordsBody(Body):
    """Which records."""

    pointers: Annotated[list[Pointer], Field(min_length=1, max_length=1000)]


class GetRecordsAnswer(Body):
    """What the caller may read; `gone` is what he may not, or what is not there."""

    record_map: RecordMap
    gone: list[Place]
    unchanged: list[Place] | None = None
    cursor: Cursor


class Order(Body):
    """One sort key; nulls last, ties by id."""

    key: str
    dir: Literal["asc", "desc"] = "asc"


class QueryBody(Body):
    """A filter, an order, a page."""

    table: Table
    where: Annotated[
        dict[str, Json] | None,
        Field(
            description="`{boardId: 'x', status: {in: [...]}, dueDate: {lt: '...'}}`; operators "
            "eq, neq, in, lt, lte, gt, gte, is, contains."
        ),
    ] = None
    order_by: list[Order] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    after: Annotated[str | None, Field(description="`next` of the page before.")] = None
    include: list[str] | None = None
    have: Annotated[
        dict[str, int] | None, Field(description="Versions held, by id; at most 10 000.")
    ] = None


class QueryAnswer(Body):
    """A page, the keys to subscribe to, and the cursor to subscribe from."""

    ids: list[str]
    record_map: RecordMap
    gone: list[Place]
    keys: list[Key]
    cursor: Cursor
    next: str | None = None


class FileBody(Body):
    """Names a file: a record of a table made by `sync.files`."""

    table: Table
    id: RecordId


class FileUploadBody(FileBody):
    """The same, and whether an upload that broke off is to go on."""

    resume: bool = False


class FileConfirmBody(FileBody):
    """The same, with what the upload answered; without it the bytes are read again."""

    receipt: str | None = None


class FileDownloadBody(FileBody):
    """The same, and whether it is to be shown in a page: images alone, all else is saved."""

    inline: bool = False


class FileUploadAnswer(Body):
    """Send the bytes there, with these headers and no other length or type."""

    method: Literal["PUT"]
    url: Annotated[str, Field(description="Of the gateway where it has no host.")]
    headers: dict[str, str]
    offset: Annotated[int, Field(description="Send the bytes from here on: these are there.")]
    expires_at: Annotated[int, Field(description="Begin before then; seconds since 1970.")]


class FileConfirmAnswer(Body):
    """The file is there, and stays as it is."""

    table: Table
    id: RecordId
    state: Literal["ready"]
    size: int
    sha256: str


class FileDownloadAnswer(Body):
    """GET it within a minute; with ranges, if you like."""

    url: Annotated[str, Field(description="A path of the gateway.")]
    expires_at: Annotated[int, Field(description="Seconds since 1970.")]


class FileReceipt(Body):
    """What an upload answers, for its confirmation. A bucket answers with nothing."""

    receipt: str


class DevSignInBody(Body):
    """A demo user's name."""

    user: Annotated[str, Field(examples=["alice", "bob", "carol"])]


class DevSignInAnswer(Body):
    """The token, also set as a cookie."""

    token: str
    user_id: str


Password = Annotated[str, Field(max_length=2048)]
LinkToken = Annotated[str, Field(description="What stands behind `#token=` of a mailed link.")]


class SignUpBody(Body):
    """A new account. The same answer for every address."""

    email: str
    password: Password


class VerifyBody(Body):
    """Ends a sign-up. The password chosen then is needed in another browser."""

    token: LinkToken
    password: Password | None = None


class SignInBody(Body):
    """Address and password."""

    email: str
    password: Password


class ChangePasswordBody(Body):
    """Another password, and the present one where there is one."""

    current: Password | None = None
    password: Password


class RequestResetBody(Body):
    """Whose password is to be set anew."""

    email: str


class ResetBody(Body):
    """Another password, by a link."""

    token: LinkToken
    password: Password


class CheckMail(Body):
    """A mail was sent, or would have been."""

    status: Literal["check_mail"]


class AccountUser(Body):
    """A user, as he himself may see him."""

    id: str
    email: Annotated[
        str | None, Field(description="Verified, in lower case; a guest has none.")
    ] = None
    guest: bool
    has_password: bool
    providers: list[str]
    created_at: str


class SignedIn(Body):
    """A token of ten minutes; the session is a cookie."""

    token: str
    expires_at: Annotated[str, Field(description="ISO 8601 in UTC.")]
    user: AccountUser


class MeAnswer(Body):
    """Null: a token of another issuer, whose user has no account here."""

    user: AccountUser | None


class SignInProvider(Body):
    """A provider to sign in by: open `startUrl` as a page."""

    id: str
    name: str
    start_url: str


class SignInWays(Body):
    """By what one can sign in."""

    providers: list[SignInProvider]
    guests: bool
    password_min_length: int


class Health(Body):
    """The process runs."""

    status: Literal["ok"]


class Readiness(Body):
    """Whether requests can be served, and what is missing."""

    ready: bool
    database: bool
    schema_current: Annotated[bool, Field(alias="schema")]
    relay: bool
    accepting: bool
