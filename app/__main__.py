"""`python -m app` in a checkout, `python -m rowcast` once installed: the command line."""

from .cli import main

main()
