"""What a released gateway asks PostgreSQL, kept by version.

Run `python -m tests.migrations.statements` at a release. The file of an unreleased
version is written again whenever a door changes.
"""

import json
from pathlib import Path

from app import __version__, calls

FOLDER = Path(__file__).parent / "released"


def present() -> dict[str, str]:
    """The statements of this gateway by name."""
    return {
        name: text
        for name, text in sorted(vars(calls).items())
        if name.isupper() and isinstance(text, str) and text.startswith(("select", "with"))
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(present(), indent=1) + "\n"
    (FOLDER / f"{__version__}.json").write_text(text, "utf-8")
