"""Signed links: to the gateway's own store, receipts of uploads, and presigned uploads to S3.

Only digits, lower-case words and what was checked before are signed, each exactly as it stands in
the link; the display name is not among it. No I/O.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from .config import Settings
from .errors import Problem

PATH: Final = "/api/files/content"
RECEIPT_PARTS: Final = 3
# Shown in a page, if asked for; whatever else is an attachment. No SVG: it runs scripts.
IMAGES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif"})
LONGEST_NAME: Final = 255
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,14}")
# Controls, and what turns the text behind it round.
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069/\\]")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 !#$&+.^_`|~()@,=-]")
DIRECT: Final = "direct-{}"  # which attempt


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is for. `by` counts whose transfers these are, `until` ends an upload, `sha256`
    is empty where the record names none, what lies before `offset` is there already. Times are
    seconds since 1970.
    """

    method: str
    id: str
    object: str
    size: int
    type: str
    sha256: str
    inline: int
    by: str
    expires: int
    until: int
    offset: int = 0


_FIELDS: Final = tuple(field.name for field in fields(Link) if field.name != "method")
_NUMBERS: Final = frozenset({"size", "inline", "expires", "until", "offset"})


class Signer:
    """Makes and checks links with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def url(self, link: Link, name: str | None = None) -> str:
        """The link, as a path with its query."""
        values = astuple(link)
        query = list(zip(_FIELDS, map(str, values[1:]), strict=True))
        query.append(("signature", self._sign("link", values)))
        if name is not None:
            query.append(("name", name))
        return f"{PATH}?{urlencode(query, quote_via=quote)}"

    def read(self, method: str, query: Sequence[tuple[str, str]], now: float) -> Link:
        """What a link is for. Raises 403 `bad_link` for one that is not ours, not any more, or not
        for this; each part has to be there once.
        """
        given = dict(query)
        if len(given) != len(query) or given.keys() - {"name"} != {*_FIELDS, "signature"}:
            raise bad_link()
        values = [given[name] for name in _FIELDS]
        if not hmac.compare_digest(
            self._sign("link", (method, *values)).encode(), given["signature"].encode()
        ):
            raise bad_link()
        # Signed, so these are ours.
        link = Link(
            method,
            **{  # type: ignore[arg-type]
                name: int(value) if name in _NUMBERS else value
                for name, value in zip(_FIELDS, values, strict=True)
            },
        )
        if link.expires <= now:
            raise bad_link()
        return link

    def receipt(self, id_: str, name: str, size: int, sha256: str) -> str:
        """Says what an upload has stored, for the confirmation."""
        return f"{name}.{sha256}.{self._sign('receipt', (id_, name, size, sha256))}"

    def stored(self, id_: str, size: int, receipt: object) -> tuple[str, str] | None:
        """The object and the hash that a receipt speaks of; None where it is none of ours."""
        if not isinstance(receipt, str) or receipt.count(".") != RECEIPT_PARTS - 1:
            return None
        name, sha256, signature = receipt.split(".")
        expected = self._sign("receipt", (id_, name, size, sha256))
        # Bytes, since a text may hold anything.
        given = signature.encode(errors="replace")
        return (name, sha256) if hmac.compare_digest(expected.encode(), given) else None

    def _sign(self, kind: str, values: Sequence[object]) -> str:
        text = "\n".join((kind, *map(str, values)))
        return hmac.new(self._key, text.encode(errors="replace"), hashlib.sha256).hexdigest()


def bad_link() -> Problem:
    """403, the same whatever is wrong with it."""
    return Problem(
        403, "bad_link", "This link is not valid, not any more, or not for this; ask for another"
    )


def length(text: str | None) -> int | None:
    """A number as a header or query writes it; None for any other text."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes a Range header asks for, [start, end); None for all: without the header, for one
    that cannot be read, and for several ranges, which nobody needs. Raises 416 beyond the end.
    """
    match = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", header or "", re.ASCII)
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < start:
            return None
    if start >= end:
        raise Problem(416, "bad_range", "The file ends before these bytes", size=size)
    return start, end


def disposition(kind: str, name: str) -> str:
    """A Content-Disposition (RFC 6266): the name in ASCII, and as it is where that differs."""
    name = _SURROGATES.sub("_", _UNSEEN.sub("_", name[:LONGEST_NAME])) or "file"
    plain = "".join(letter if _PLAIN.fullmatch(letter) else "_" for letter in name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{kind}; filename="{plain}"{extended}'


def presigned_upload(settings: Settings, link: Link, now: float) -> tuple[str, dict[str, str]]:
    """An upload to S3, and the headers that go with it. The signature binds them: length, type,
    and that nothing is there yet.
    """
    prefix = urlsplit(settings.files_url or "").path.strip("/")
    key = "/".join(part for part in (prefix, link.id, link.object) if part)
    # A browser writes the length itself.
    sent = {"Content-Type": link.type, "If-None-Match": "*"}
    bound = {"content-length": str(link.size), "content-type": link.type, "if-none-match": "*"}
    return presign(settings, "PUT", f"/{key}", bound, link.expires - int(now), now), sent


def presign(
    settings: Settings, method: str, path: str, bound: dict[str, str], seconds: int, now: float
) -> str:
    """An address in the S3 bucket with Signature Version 4 in its query, good for these headers."""
    target = urlsplit(_bucket(settings) + quote(path))
    at = datetime.fromtimestamp(now, UTC)
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    scope = f"{day}/{settings.files_region}/s3/aws4_request"
    headers = dict(sorted({**bound, "host": target.netloc}.items()))
    names = ";".join(headers)
    query = urlencode(
        {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{settings.files_key_id}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(max(1, seconds)),
            "X-Amz-SignedHeaders": names,
        },
        quote_via=quote,
        safe="",
    )
    lines = [f"{name}:{value}" for name, value in headers.items()]
    request = "\n".join((method, target.path, query, *lines, "", names, "UNSIGNED-PAYLOAD"))
    digest = hashlib.sha256(request.encode()).hexdigest()
    signing = f"AWS4{settings.files_secret_key}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"):
        signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
    return f"{target.geturl()}?{query}&X-Amz-Signature={signing.hex()}"


def direct_origin(settings: Settings) -> str | None:
    """Where browsers send uploads themselves; None where they do not."""
    if not settings.files_direct:
        return None
    parts = urlsplit(_bucket(settings))
    return f"{parts.scheme}://{parts.netloc}"


def _bucket(settings: Settings) -> str:
    """The address of the S3 bucket: at Amazon in the host, elsewhere in the path."""
    bucket = urlsplit(settings.files_url or "").netloc
    if settings.files_endpoint is not None:
        return f"{settings.files_endpoint.rstrip('/')}/{bucket}"
    return f"https://{bucket}.s3.{settings.files_region}.amazonaws.com"
