"""A gateway with the apps of another folder, forked from a process that has imported it already."""

import os
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from socket import socket

from app import cli, main

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])


def serve(
    apps: Path, environment: Mapping[str, str], listener: socket, lifeline: Connection
) -> None:
    """`rowcast serve` in this environment, until it is told to end or the lifeline is cut."""
    os.environ.clear()
    os.environ.update(environment)
    setattr(main, "apps_folder", lambda: apps)  # noqa: B010
    sys.argv = ["rowcast", "serve", "--handles", f"{listener.detach()},{lifeline.fileno()}"]
    cli.main()
