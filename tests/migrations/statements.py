"""What a released gateway asks PostgreSQL, kept by version.

Run `python -m tests.migrations.statements` at a release. The file of an unreleased
version is written again whenever a door changes.
"""

import json
from pathlib import Path

from app import __version__, account_calls, calls, worker_calls

FOLDER = Path(__file__).parent / "released"


def present() -> dict[str, str]:
    """The statements of this gateway by name."""
    found = {
        name: text
        for module in (calls, account_calls, worker_calls)
        for name, text in vars(module).items()
        if name.isupper() and isinstance(text, str) and text.startswith(("select", "with"))
    }
    return dict(sorted(found.items()))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(present(), indent=1) + "\n"
    (FOLDER / f"{__version__}.json").write_text(text, "utf-8")
