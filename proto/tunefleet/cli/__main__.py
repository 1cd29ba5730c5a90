"""Lets ``python -m tunefleet.cli`` stand in for ``tunefleet``."""

from tunefleet.cli.app import main

main()
