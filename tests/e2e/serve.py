"""`rowcast` with the apps of another folder: `python -m tests.e2e.serve FOLDER ...`."""

import sys
from pathlib import Path

from app import cli, main

folder = Path(sys.argv.pop(1))
setattr(main, "apps_folder", lambda: folder)  # noqa: B010
cli.main()
