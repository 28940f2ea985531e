"""`make planted-faults`: breaks the engine in known ways, and sees that the tests notice.

Each fault is a replacement of text that must be there exactly once, in a copy of the tree. The
tests named with it pass without the fault and must fail with it.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREES = ("app", "sql", "tests")
TEST_SECONDS = 200  # where one hangs for so long it has failed
FAILED = 1  # pytest's exit status where tests ran and some failed


@dataclass(frozen=True)
class Fault:
    """`replace` in `path`; what the tests `caught_by` must notice."""

    name: str
    path: str
    replace: str
    by: str
    caught_by: tuple[str, ...]

    def plant(self, tree: Path) -> None:
        """Raises ValueError where the text is not there exactly once."""
        file = tree / self.path
        text = file.read_text()
        if (times := text.count(self.replace)) != 1:
            raise ValueError(f"{self.name}: {times} times in {self.path}: {self.replace!r}")
        file.write_text(text.replace(self.replace, self.by))


FAULTS = (
    Fault(
        "cursor-by-highest-number",
        # What commits after a later one is lost, as with a cursor that is max(seq).
        "sql/functions/feed/cursor.sql",
        "where x.xip < v_xmax",
        "where false",
        ("tests/sql/feed/test_cursor.py",),
    ),
    Fault(
        "answers-outlive-memberships",
        "app/relay.py",
        'self.rights.policies.touched(answer.get("changes") or (), answer.get("behind") or ())',
        "{}",
        ("tests/gateway/test_access.py",),
    ),
    Fault(
        "answers-outlive-a-race",
        "app/socket.py",
        "if reader.generation != generation:",
        "if False:",
        ("tests/gateway/test_join.py",),
    ),
    Fault(
        "delete-sent-to-all",
        "app/delivery.py",
        """        if before:
            return Gone(self._gone(position))""",
        """        if before or change.after is None:
            return Gone(self._gone(position))""",
        ("tests/gateway/test_audiences.py", "tests/gateway/test_relay.py"),
    ),
    Fault(
        "hidden-columns-sent",
        "app/delivery.py",
        "found = frozenset(change.patch or ()) - shown",
        "found = NOTHING",
        ("tests/gateway/test_audiences.py",),
    ),
    Fault(
        "subscribed-before-registered",
        "app/socket.py",
        """                self._hub.subscribe(subscriber, keys)
                generation""",
        """                self._send(protocol.Subscribed(id=frame.id, cursor=cursor, versions={}))
                await asyncio.sleep(0.01)
                self._hub.subscribe(subscriber, keys)
                generation""",
        ("tests/gateway/test_join.py",),
    ),
    Fault(
        "asked-before-registered",
        # A change between the answer and the registration is in neither replay nor stream.
        "app/socket.py",
        """        self._send(subscribed)
        self._release(subscriber)
""",
        """        self._hub.unsubscribe(subscriber, new)
        subscriber.held = [] if new else subscriber.held
        self._hub.subscribe(subscriber, keys)
        self._send(subscribed)
        self._release(subscriber)
""",
        ("tests/gateway/test_socket.py",),
    ),
    Fault(
        "listener-not-opened-again",
        "app/bell.py",
        """            tries = 0 if time.monotonic() - started > STEADY_SECONDS else tries + 1
""",
        """            await asyncio.Event().wait()
            tries = 0 if time.monotonic() - started > STEADY_SECONDS else tries + 1
""",
        ("tests/gateway/test_bell.py",),
    ),
    Fault(
        "silent-connections-kept",
        "app/db.py",
        "call_later(SILENT_SECONDS, _sever, self._connection)",
        "call_later(3600, _sever, self._connection)",
        ("tests/faults/test_half_open.py",),
    ),
    Fault(
        "second-life-without-end-of-the-first",
        "sql/functions/access/join_keys.sql",
        "where r.made_again",
        "where false",
        ("tests/sql/access/test_replay.py",),
    ),
    Fault(
        "spent-cookies-good-for-ever",
        "sql/functions/accounts/gateway_refresh.sql",
        "sync_internal.setting('refresh_grace_seconds') * interval '1 s' then",
        "sync_internal.setting('refresh_grace_seconds') * interval '1 day' then",
        ("tests/gateway/test_accounts.py::test_a_cookie_used_again_later_ends_its_session",),
    ),
    Fault(
        "address-of-a-provider-believed",
        "sql/functions/accounts/gateway_provider_sign_in.sql",
        "when p_email_verified and p_email is not null then",
        "when p_email is not null then",
        ("tests/gateway/test_oidc.py::test_an_address_that_is_not_verified_finds_nobody",),
    ),
    Fault(
        "tokens-outlive-their-session",
        "sql/functions/auth/end_sessions.sql",
        "            or not exists (",
        "            or false and not exists (",
        (
            "tests/gateway/test_accounts.py"
            "::test_signing_out_ends_token_and_socket_of_this_session_alone",
        ),
    ),
    Fault(
        "sign-ins-outlive-the-end-of-all",
        "sql/functions/auth/end_sessions.sql",
        "lock table accounts.sessions in exclusive mode;",
        "null;",
        ("tests/sql/accounts/test_races.py",),
    ),
)


def copy(to: Path) -> Path:
    """The tree as it stands, without what was made from it."""
    for name in TREES:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def run(tree: Path, tests: tuple[str, ...]) -> int:
    """Exit status of pytest."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--pg", "18", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *tests], cwd=tree, capture_output=True, timeout=TEST_SECONDS, check=False
    ).returncode


def caught(fault: Fault) -> bool:
    """Whether the tests fail with the fault, in the right way; prints what came of it."""
    with tempfile.TemporaryDirectory(prefix="rowcast-planted-") as folder:
        tree = copy(Path(folder))
        fault.plant(tree)
        try:
            status = run(tree, fault.caught_by)
        except subprocess.TimeoutExpired:
            status = FAILED
    verdict = "caught" if status == FAILED else f"NOT CAUGHT ({status})"
    print(f"{verdict:12} {fault.name}", flush=True)
    return status == FAILED


def main(names: list[str]) -> int:
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    tests = tuple(dict.fromkeys(test for fault in chosen for test in fault.caught_by))
    if status := run(ROOT, tests):
        print(f"without any fault the tests end with {status}: {' '.join(tests)}")
        return 1
    results = [caught(fault) for fault in chosen]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
