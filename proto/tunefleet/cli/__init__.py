"""The ``tunefleet`` command.

Nothing heavy is imported before a command runs: ``tunefleet --help`` answers at once.
"""

from tunefleet.cli.app import main

__all__ = ["main"]
