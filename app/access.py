"""What the SELECT policies of live tables read: which changes can alter who sees what. No I/O.

PostgreSQL derives it from its catalogue (`sync.policy_reads`); nothing here knows a policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

EVERYONE: Final = None


class Source(NamedTuple):
    """A table that policies of `table` read, and the columns read; None: any of them."""

    table: str
    columns: frozenset[str] | None


@dataclass(slots=True)
class Touch:
    """`users` may see other rows of a table than before, or EVERYONE, by the transaction `xid`;
    None: by several.
    """

    users: set[str] | None
    xid: str | None


class Policies:
    """The policies as they stood at `fingerprint`.

    `cacheable`: the (table, role) pairs where rows of one class are seen by the same people, so
    that one answer does for all of them. `shown`: columns a role may select, by (table, role).
    """

    def __init__(self, raw: Mapping[str, Any] | None = None) -> None:
        self.fingerprint: str | None = raw["fingerprint"] if raw else None
        self.cacheable: set[tuple[str, str]] = set()
        self.shown: dict[tuple[str, str], frozenset[str]] = {}
        self._dependents: dict[str, list[Source]] = {}
        for table, roles in (raw["tables"] if raw else {}).items():
            for role, entry in roles.items():
                if entry["cacheable"]:
                    self.cacheable.add((table, role))
                self.shown[table, role] = frozenset(entry.get("shown") or ())
                for source, columns in (entry.get("reads") or {}).items():
                    known = None if columns is None else frozenset(columns)
                    dependents = self._dependents.setdefault(source, [])
                    if Source(table, known) not in dependents:
                        dependents.append(Source(table, known))

    def opaque(self, role: str) -> list[str]:
        """The tables of which is not known what changes a role's access to them."""
        return [
            table
            for table, other in self.shown
            if other == role and (table, role) not in self.cacheable
        ]

    def touched(
        self, changes: Sequence[Mapping[str, Any]], behind: Sequence[str] = ()
    ) -> dict[str, Touch]:
        """The tables whose readers these changes of the feed may have altered; EVERYONE where it is
        not declared whom they concern. `behind`: tables changed too much to be listed.
        """
        found = {
            table: Touch(EVERYONE, None)
            for source in behind
            for table, _ in self._dependents.get(source, ())
        }
        for change in changes:
            dependents = self._dependents.get(change["table"])
            if dependents is None:
                continue
            patch = change.get("patch") or {}
            users = patch.get("users") if change["kind"] == "access" else EVERYONE
            for table, columns in dependents:
                if columns is not None and change["kind"] == "update" and columns.isdisjoint(patch):
                    continue
                touch = found.setdefault(table, Touch(set(), change["xid"]))
                if users is None or touch.users is EVERYONE:
                    touch.users = EVERYONE
                else:
                    touch.users.update(users)
                if touch.xid != change["xid"]:
                    touch.xid = None
        return found
