"""TypeScript as text: what the generators of the client's types share."""

import json
import re
import textwrap
from collections.abc import Iterable
from typing import Any, Final

WIDTH: Final = 100
Member = tuple[str, str, str | None]
"""Name (perhaps with `?`), type and comment."""

_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def quoted(value: Any) -> str:
    """A JSON value as a TypeScript literal, object keys in their order."""
    if isinstance(value, dict):
        members = ", ".join(f"{name(key)}: {quoted(inner)}" for key, inner in value.items())
        return f"{{ {members} }}" if members else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(quoted, value))}]"
    return json.dumps(value, ensure_ascii=False)


def name(key: str) -> str:
    """A member's name, quoted only where it has to be."""
    return key if _NAME.fullmatch(key) else quoted(key)


def comment(text: str | None, indent: str = "") -> list[str]:
    """A doc comment as lines; none without a text."""
    words = " ".join((text or "").split()).replace("*/", "*\\/")
    if not words:
        return []
    if len(indent) + len(words) + 7 <= WIDTH:
        return [f"{indent}/** {words} */"]
    wrapped = textwrap.wrap(
        words, WIDTH - len(indent) - 3, break_long_words=False, break_on_hyphens=False
    )
    return [f"{indent}/**", *(f"{indent} * {line}" for line in wrapped), f"{indent} */"]


def interface(title: str, text: str | None, members: Iterable[Member]) -> list[str]:
    """An exported interface as lines."""
    lines = [*comment(text), f"export interface {title} {{"]
    for member, kind, about in members:
        lines += [*comment(about, "  "), f"  {member}: {kind};"]
    return [*lines, "}", ""]


def union(title: str, text: str | None, options: list[str]) -> list[str]:
    """An exported type that is one of several, a line each unless they fit on one."""
    line = f"export type {title} = {' | '.join(options)};"
    if len(line) > WIDTH:
        line = f"export type {title} =\n" + "\n".join(f"  | {option}" for option in options) + ";"
    return [*comment(text), line, ""]
