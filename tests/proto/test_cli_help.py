"""Help and version answer without importing what only commands need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tunefleet import __version__
from tunefleet.errors import Reason

_PROBE = """
import sys
from tunefleet.cli.app import run
code = run(sys.argv[1:])
heavy = ("grpc", "google.protobuf", "stamina", "structlog", "rich.live", "rich.progress",
         "tunefleet.client", "tunefleet.v1", "numpy", "tvm", "torch", "coordinator", "agent")
print("imported:", [m for m in heavy if m in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["tune", "--help"], ["campaigns", "--help"], ["up", "--help"]),
        *(["dataset", "prune", "--help"], ["model", "--help"], ["model", "evaluate", "--help"]),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == "imported: []\n"


def cli(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tunefleet.cli", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_version_is_the_packages():
    assert cli("--version") == f"tunefleet {__version__}\n"


def test_help_lists_the_exit_codes():
    words = " ".join(cli("--help").split())
    assert f"{Reason.NO_DEVICE_MATCHES.value.exit_code} no device matches;" in words
    assert "130 interrupted." in words


@pytest.mark.parametrize(
    "command",
    [
        *(["tune"], ["up"], ["serve"], ["devices", "list"], ["devices", "show"]),
        *(["drain"], ["devices", "drain"], ["devices", "undrain"]),
        *(["model", c] for c in ("list", "show", "train", "evaluate", "compare", "export")),
        *(["model", c] for c in ("promote", "rollback")),
        *(["campaigns", c] for c in ("list", "show", "watch", "pause", "resume", "cancel")),
        ["campaigns", "export"],
        ["bench"],
        ["dataset", "prune"],
    ],
    ids=" ".join,
)
def test_every_command_shows_an_example(command):
    assert f"$ tunefleet {' '.join(command)}" in cli(*command, "--help")
