"""What a measurement gives, and how it is written down."""

import datetime as dt
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parent / "RESULTS.md"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    `ratio` is how much of the twin's speed Rowcast has; for a cost, how many times the twin's.
    `at_least` and `at_most` are the targets.
    """

    name: str
    twin: str
    rowcast: str
    ratio: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def shown(self) -> str:
        return "" if self.ratio is None else f"{self.ratio:.2f}"

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:.2f}"
        return f"<= {self.at_most:.2f}" if self.at_most is not None else ""

    @property
    def verdict(self) -> str:
        if self.ratio is None:
            return ""
        if self.at_least is not None:
            return "met" if self.ratio >= self.at_least else "missed"
        if self.at_most is not None:
            return "met" if self.ratio <= self.at_most else "missed"
        return ""


@dataclass(frozen=True)
class Bound:
    """A figure and what it has to stay within, if anything."""

    name: str
    value: float
    at_least: float | None
    at_most: float | None
    form: str = "{:,.0f}"

    @property
    def holds(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    @property
    def bound(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:,g}"
        return f"<= {self.at_most:,g}" if self.at_most is not None else ""

    @property
    def verdict(self) -> str:
        return "" if not self.bound else "holds" if self.holds else "broken"


def bounds(figures: Sequence[Bound]) -> list[str]:
    lines = ["| figure | measured | bound | |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {f.name} | {f.form.format(f.value)} | {f.bound} | {f.verdict} |" for f in figures
    ]


def interleave(rounds: int, *works: Callable[[], dict[str, float]]) -> list[dict[str, float]]:
    """Runs A B A B ...; gives for each work the medians of what it measured."""
    samples: list[list[dict[str, float]]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, samples, strict=True):
            found.append(work())
    return [
        {name: statistics.median(sample[name] for sample in found) for name in found[0]}
        for found in samples
    ]


def table(figures: Sequence[Figure]) -> list[str]:
    lines = [
        "| figure | by hand | Rowcast | ratio | target | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {f.name} | {f.twin} | {f.rowcast} | {f.shown} | {f.target} | {f.verdict} |"
        for f in figures
    ]
    return lines


def write(figures: Sequence[Figure], postgres: str, mode: str, seconds: float) -> Path:
    """Writes RESULTS.md, but for sections of others."""
    lines = [
        "# Speed, beside the same work done by hand",
        "",
        "Written by `make bench`. Each line was measured in one run, Rowcast and its twin in",
        "turns; the figures are medians. The ratio is what carries over to another machine.",
        "",
        f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}, {mode}, {seconds:.0f} s",
        f"- machine: {machine()}, shared by clients and servers",
        f"- system: {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}{' of the system' * (sys.base_prefix == '/usr')}",
        f"- PostgreSQL {postgres}, default settings, fsync on",
        "- data: 100 workspaces of 20 members, 1000 boards, 100 000 tasks; row-level security on",
        "",
        *table(figures),
        "",
        "What is compared:",
        "",
        "- apply: one transaction sets a title and touches `updatedAt` of one task, as a member.",
        "  By hand: a PL/pgSQL function of static SQL (`twins.sql`) that takes on the same role",
        "  and claims and writes the same receipt, row, feed row and NOTIFY.",
        "  CPU is that of the backend, commit included.",
        "- gateway: the same transaction over HTTP; by hand: pgbench, one `sync.gateway_write` a",
        "  commit, as many clients.",
        "- plain committers: pgbench, one UPDATE of a live table a commit, while a gateway with a",
        "  socket reads the feed. Only the signal of the capture trigger differs.",
        "- initial load: 10 000 tasks as NDJSON; by hand: COPY of the same columns to the client",
        "  under the same role and policies.",
        "- bulk: one UPDATE of 10 000 rows; by hand: on a table that is not live, with the same",
        "  triggers of the application (ratio: cost).",
        "- fan-out: one committed change to 1000 sockets, each of another user. By hand: a commit",
        "  to a table that is not live, then an asyncio.Protocol on uvloop that writes the same",
        "  bytes to 1000 transports (or node's `ws`, in a loop of `send`). CPU is that of the",
        "  server, the read of the feed included, with one change on its way; deliveries a second",
        "  are changes times sockets with four on their way, several of which may share a frame.",
        "- delivery with and without looking at rights: the gateway's own code in one process, and",
        "  the same with everybody allowed everything.",
        "- last of 100 sockets: from the start of a plain UPDATE to its arrival at the last one;",
        "  by hand: the same UPDATE of a table that is not live, until it is committed.",
        "- 1 GiB: memory is the gateway's at its peak above what it had before; by hand: the same",
        "  written to a file, hashed and flushed, and read from it, hashed.",
        "- the rest have limits, not twins. Revocation: a membership is deleted by SQL while the",
        "  board is edited 25 times a second; from the commit. Catch-up and asking for rights: CPU",
        "  of the backend.",
        "",
    ]
    _, sections = _read()
    return _write("\n".join(lines), sections)


def write_section(title: str, lines: Sequence[str]) -> Path:
    """Writes a section of RESULTS.md anew; `write` keeps it."""
    first, sections = _read()
    return _write(first, {**sections, title: "\n".join(["", *lines, ""])})


def _read() -> tuple[str, dict[str, str]]:
    """What stands before the first section, and the sections by title."""
    first, *others = PATH.read_text(encoding="utf-8").split("\n## ")
    parts = (other.partition("\n") for other in others)
    return first, {title: text for title, _, text in parts}


def _write(first: str, sections: dict[str, str]) -> Path:
    parts = [first.rstrip("\n") + "\n"]
    parts += [f"## {title}\n{text.rstrip()}\n" for title, text in sections.items()]
    PATH.write_text("\n".join(parts), encoding="utf-8")
    return PATH


def machine() -> str:
    """The processor and its number of cores."""
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
