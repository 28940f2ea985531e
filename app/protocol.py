"""Wire protocol, version 1: the models of frames and bodies, and what the gateway itself encodes.

Version history: 1 - first version.

The models validate what clients send over the socket and describe everything in OpenAPI. They are
not used on the write path: bodies go to PostgreSQL as raw text. Unknown fields are ignored.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

VERSION: Final = 1
MAX_KEYS: Final = 2000  # per socket
MAX_KEY_BYTES: Final = 256
MAX_FRAME_IN_BYTES: Final = 64 * 1024
MAX_FRAME_OUT_BYTES: Final = 512 * 1024
MAX_READ_DEPTH: Final = 200  # far below what Python reads, wherever the stack stands
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_CUT: Final = b'"\\u0000"'  # no jsonb holds it
MAX_HELLO_BYTES: Final = 4 * 1024
MAX_MALFORMED: Final = 5  # in a row
HELLO_SECONDS: Final = 5.0

BAD_FRAME: Final = 4400
SIGN_IN: Final = 4401
BAD_ORIGIN: Final = 4403
UPGRADE: Final = 4426
RATE: Final = 4429
GOING_AWAY: Final = 1001
FAILED: Final = 1011
OUTDATED: Final = "this version of the app is too old"
SESSION_ENDED: Final = "the session has ended"
TRY_LATER: Final = 1013

Json = Any
Id = Annotated[str | int, Field(description="Chosen by the client, repeated in the answer.")]
Key = Annotated[str, Field(description="`tasks:<id>`, `tasks?boardId=<id>` or `tasks`.")]
Cursor = Annotated[str, Field(description="Opaque place in the feed.")]
Record = Annotated[
    dict[str, Json],
    Field(description="Every column the caller may select, with `id` and `version`."),
]
RecordMap = Annotated[dict[str, dict[str, Record]], Field(description="Records by table and id.")]


class Malformed(Exception):
    """A frame that cannot be read. `frame_id` is its id where one could be found."""

    def __init__(self, message: str, frame_id: str | int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.frame_id = frame_id


class Model(BaseModel):
    """Base of all models: unknown fields are ignored, as the protocol says."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",
        serialize_by_alias=True,
        validate_by_name=True,
    )


# --- frames, client to server -------------------------------------------------------------------


class Hello(Model):
    """First frame, within five seconds."""

    type: Literal["hello"]
    protocol: int
    token: str | None = None
    schema_version: Annotated[
        str | int | None,
        Field(alias="schema", description="`schema` of `sync.describe()` the client was made for."),
    ] = None
    client: Json = None


class Auth(Model):
    """The same user's renewed token."""

    type: Literal["auth"]
    token: str


class Subscribe(Model):
    """Hear of changes under these keys, from `cursor` on if given."""

    type: Literal["subscribe"]
    id: Id
    keys: list[Key]
    cursor: Cursor | None = None
    empty: Annotated[bool, Field(description="The read of that cursor found nothing here.")] = False


class Unsubscribe(Model):
    """Hear no more of these keys."""

    type: Literal["unsubscribe"]
    id: Id
    keys: list[Key]


class Ping(Model):
    """Asks for a `pong`."""

    type: Literal["ping"]


class Presence(Model):
    """What others who can read this record see of the caller, null to leave. At most 4 KiB; the
    last one counts, and it has to be said again within two heartbeats.
    """

    type: Literal["presence"]
    key: Key
    state: dict[str, Json] | None


class Broadcast(Model):
    """An event for all others who can read this record now. At most 16 KiB, twenty a second."""

    type: Literal["broadcast"]
    key: Key
    event: Annotated[str, Field(min_length=1, max_length=128)]
    payload: Json = None


ClientFrame = Annotated[
    Hello | Auth | Subscribe | Unsubscribe | Ping | Presence | Broadcast,
    Field(discriminator="type"),
]

CLIENT_TYPES: Final = frozenset(
    {"hello", "auth", "subscribe", "unsubscribe", "ping", "presence", "broadcast"}
)
_client_frame: TypeAdapter[Any] = TypeAdapter(ClientFrame)


# --- frames, server to client -------------------------------------------------------------------


class SocketLimits(Model):
    """Keys a socket may hold; bytes a frame to the server may have."""

    keys: int = MAX_KEYS
    frame: int = MAX_FRAME_IN_BYTES


class Welcome(Model):
    """Answer to `hello`."""

    type: Literal["welcome"] = "welcome"
    protocol: Literal[1] = 1
    epoch: str
    user_id: str | None
    role: str
    rights: Annotated[
        str,
        Field(
            description="Stands for role and claims. Another one than `welcome` or `authed` said"
            " last: what was read before has to be read again."
        ),
    ]
    server_time: str
    heartbeat: Annotated[float, Field(description="Seconds.")]
    expires_at: Annotated[str | None, Field(description="When the token ends.")] = None
    schema_version: Annotated[
        int, Field(alias="schema", description="The application's; whole numbers, growing.")
    ]
    limits: SocketLimits = SocketLimits()


class Authed(Model):
    """Answer to `auth`."""

    type: Literal["authed"] = "authed"
    rights: Annotated[str, Field(description="As in `welcome`.")]
    expires_at: str | None = None


class KeyRefusal(Model):
    """A key that was not accepted."""

    key: Key
    code: str


class Subscribed(Model):
    """Everything before `cursor` of every acknowledged key has been sent."""

    type: Literal["subscribed"] = "subscribed"
    id: Id
    cursor: Cursor
    versions: Annotated[dict[str, int], Field(description="Of readable record keys.")]
    stale: list[Key] | None = None
    errors: list[KeyRefusal] | None = None


class Unsubscribed(Model):
    """Nothing more comes for those keys."""

    type: Literal["unsubscribed"] = "unsubscribed"
    id: Id


class Update(Model):
    """One change of one record: exactly one of `patch`, `record`, `gone`, or none (fetch it)."""

    key: Key
    version: int | None = None
    from_version: Annotated[int | None, Field(alias="from")] = None
    patch: dict[str, Json] | None = None
    record: Record | None = None
    gone: Literal[True] | None = None
    tx_id: str | None = None


class Updates(Model):
    """Whole transactions, in order."""

    type: Literal["updates"] = "updates"
    cursor: Cursor
    updates: list[Update]


class Stale(Model):
    """Run the queries of these keys again."""

    type: Literal["stale"] = "stale"
    keys: list[Key]
    reason: Literal["access", "behind", "schema", "bulk"]
    epoch: Annotated[
        str | None,
        Field(
            description="Another one than that of `welcome`: the database was restored or failed "
            "over, so that versions say nothing of what was read before."
        ),
    ] = None


class PresentPeer(Model):
    """A socket that is present; `state` null: it has left."""

    peer: Annotated[str, Field(description="One socket, for as long as it lasts.")]
    user_id: str | None
    state: dict[str, Json] | None


class Peers(Model):
    """Who is present under a key besides oneself: what has changed or, with `full`, all."""

    type: Literal["presence"] = "presence"
    key: Key
    peers: list[PresentPeer]
    full: Literal[True] | None = None


class Broadcasted(Model):
    """An event another socket has sent."""

    type: Literal["broadcast"] = "broadcast"
    key: Key
    event: str
    payload: Json
    from_user: Annotated[str | None, Field(alias="from")]


class Pong(Model):
    """Answer to `ping`."""

    type: Literal["pong"] = "pong"
    cursor: Cursor | None


class ErrorFrame(Model):
    """A frame that was not understood or not carried out."""

    type: Literal["error"] = "error"
    code: str
    message: str
    id: Id | None = None


# --- reading and writing frames ------------------------------------------------------------------


def parse(text: str) -> Any:
    """A client's frame as its model; None for a type this version does not know.

    Raises Malformed, whatever the text is.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        raise Malformed("Not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise Malformed("Not an object with a type")
    if value["type"] not in CLIENT_TYPES:
        return None
    frame_id = value.get("id")
    known_id = frame_id if isinstance(frame_id, str | int) else None
    try:
        frame = _client_frame.validate_python(value, strict=True)
    except ValidationError as exc:
        place = ".".join(str(part) for part in exc.errors(include_input=False)[0]["loc"][1:])
        raise Malformed(f"Not a {value['type']} frame: {place}"[:200], known_id) from None
    if isinstance(frame, Subscribe) and not storable(frame.cursor or ""):
        raise Malformed("Not a subscribe frame: cursor", known_id)
    return frame


def schema_number(said: str | int | None) -> int | None:
    """The version of the schema a client was made for; None where it does not say. What is no
    such number is older than any: the client is to be updated and keeps its queue.
    """
    if said is None:
        return None
    text = str(said)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0


def later(reason: str, seconds: float) -> str:
    """The reason of a close after which the client waits so long before it comes again."""
    return f"{reason}; retry-after={seconds:.1f}"


def storable(text: str) -> bool:
    """Whether PostgreSQL can take the text: UTF-8 without NUL, so no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def usable_key(key: str) -> bool:
    """Whether a key may be asked for at all: storable, at most 256 bytes, and canonical.

    Ids and values are percent-encoded but for letters, digits and `-._~` (RFC 3986), hex digits
    upper case: a key has one form, so that what is sent under it is recognised.
    """
    if not key or not storable(key) or len(key.encode()) > MAX_KEY_BYTES:
        return False
    _, collection, value = key.partition("?")
    if collection:
        _, _, value = value.partition("=")
    else:
        _, _, value = key.partition(":")
    return quote(unquote(value), safe="") == value


def encode(frame: Model) -> bytes:
    """A frame as JSON, members that are None left out but where None is a value."""
    members = frame.model_dump(mode="json")
    keep = {"userId", "state"} | ({"cursor"} if isinstance(frame, Pong) else set())
    return dumps({name: v for name, v in members.items() if v is not None or name in keep})


def dumps(value: Json) -> bytes:
    """Compact JSON. Raises ValueError on a number that JSON cannot carry."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def loads(text: str) -> Any:
    """What PostgreSQL tells of changes. Plain SQL may store JSON that nests deeper than Python
    reads: of such a change only is left that there was one, and the client fetches the record.
    """
    try:
        return json.loads(text)
    except RecursionError:
        answer = json.loads(_cut(text))
    for change in (*(answer.get("changes") or ()), *(answer.get("updates") or ())):
        for name in ("patch", "record"):
            if _CUT in dumps(change.get(name)):
                del change[name]
    return answer


def _cut(text: str) -> str:
    """The same with a mark for whatever stands below the deepest level."""
    parts: list[str] = []
    depth = kept = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_READ_DEPTH:
                parts.append(text[kept : token.start()])
        elif token[0] in "]}":
            if depth == MAX_READ_DEPTH:
                parts.append(_CUT.decode())
                kept = token.end()
            depth -= 1
    return "".join((*parts, text[kept:]))


def update_element(
    key: str,
    version: int | None = None,
    *,
    patch: Json = None,
    record: Json = None,
    gone: bool = False,
    from_version: int | None = None,
    tx_id: str | None = None,
) -> bytes:
    """One element of `updates`. A value JSON cannot carry makes it bare: the client fetches."""
    element: dict[str, Json] = {"key": key}
    if gone:
        element["gone"] = True
        return dumps(element)
    element["version"] = version
    if tx_id is not None:
        element["txId"] = tx_id
    bare = dict(element)
    if patch is not None:
        if from_version is not None:
            element["from"] = from_version
        element["patch"] = patch
    elif record is not None:
        element["record"] = record
    try:
        return dumps(element)
    except (ValueError, RecursionError):
        return dumps(bare)


def replayed_element(update: Json) -> tuple[bytes, bytes]:
    """An element that PostgreSQL made, whole and bare."""
    bare = update_element(
        update["key"],
        update.get("version"),
        gone=bool(update.get("gone")),
        tx_id=update.get("txId"),
    )
    try:
        return dumps(update), bare
    except (ValueError, RecursionError):
        return bare, bare


def updates_frames(
    groups: Iterable[Sequence[tuple[bytes, bytes]]], before: str, after: str
) -> list[bytes]:
    """Frames of `updates`, each at most 512 KiB, for groups of (element, bare element).

    A group is one transaction and stays in one frame; its largest elements are sent bare where it
    would not fit, and where even that is too much it is cut: of bare elements nothing is applied.
    Only the last frame carries the cursor `after`: until it has arrived the client stands where it
    stood, at `before`.
    """
    room = MAX_FRAME_OUT_BYTES - 256 - max(len(dumps(before)), len(dumps(after)))
    frames: list[list[bytes]] = [[]]
    used = 0
    for group in groups:
        elements = _fit(group, room)
        parts = [elements] if _size(elements) <= room else [[element] for element in elements]
        for part in parts:
            size = _size(part)
            if used and used + size > room:
                frames.append([])
                used = 0
            frames[-1].extend(part)
            used += size
    last = len(frames) - 1
    return [
        b'{"type":"updates","cursor":%b,"updates":[%b]}'
        % (dumps(after if position == last else before), b",".join(elements))
        for position, elements in enumerate(frames)
        if elements
    ]


def _fit(group: Sequence[tuple[bytes, bytes]], room: int) -> list[bytes]:
    elements = [element for element, _ in group]
    size = _size(elements)
    if size <= room:
        return elements
    for position in sorted(range(len(group)), key=lambda i: -len(elements[i])):
        size -= len(elements[position]) - len(group[position][1])
        elements[position] = group[position][1]
        if size <= room:
            break
    return elements


def _size(elements: Sequence[bytes]) -> int:
    """In a frame, with a comma each."""
    return sum(map(len, elements)) + len(elements)


def stale_frames(keys: Sequence[str], reason: str, epoch: str | None = None) -> list[bytes]:
    """Frames of `stale`, a thousand keys each. Another epoch is told also where there are none."""
    news = {} if epoch is None else {"epoch": epoch}
    return [
        dumps({"type": "stale", "keys": list(keys[start : start + 1000]), "reason": reason, **news})
        for start in range(0, max(len(keys), len(news)), 1000)
    ]


def presence_frames(key: str, elements: Sequence[bytes], *, full: bool = False) -> list[bytes]:
    """Frames of `presence`, each at most 512 KiB. With `full` the first is the whole list as far
    as it goes, the others add to it; without elements it is an empty list, else there is none.
    """
    name, frames, room = dumps(key), [], MAX_FRAME_OUT_BYTES - 1024
    parts: list[list[bytes]] = [[]] if full or elements else []
    used = 0
    for element in elements:
        if used + len(element) > room:
            parts.append([])
            used = 0
        parts[-1].append(element)
        used += len(element) + 1
    for number, part in enumerate(parts):
        mark = b',"full":true' if full and number == 0 else b""
        frames.append(
            b'{"type":"presence","key":%b,"peers":[%b]%b}' % (name, b",".join(part), mark)
        )
    return frames
