"""A PostgreSQL server of a test run's or a bench's own, on a socket nobody else can reach."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

USER = "postgres"
"""It refuses to run as root; Debian's package brings this user along."""


def find_binaries() -> Path | None:
    """Return the folder with the server's programs, or ``None`` where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


@dataclass
class Server:
    """A server that runs."""

    folder: Path
    binaries: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test{next(self.numbers)}"
        self.run("createdb", "--template", "template0", name)
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs."""
        _run(self.binaries / program, "-h", str(self.folder), "-U", USER, *arguments)


@contextmanager
def running(binaries: Path, *, durable: bool = False) -> Iterator[Server]:
    """Run a server for as long as the context lasts.

    Args:
        binaries: the folder with its programs.
        durable: whether what it acknowledges must survive a power cut, as is its default.
    """
    # Not below pytest's own folder, into which the server's user may not look.
    folder = Path(tempfile.mkdtemp(prefix="tunefleet-postgresql-"))
    if os.geteuid() == 0:
        user = pwd.getpwnam(USER)
        os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    try:
        # Sorted by code points, as SQLite does.
        _run(binaries / "initdb", "-D", str(data), "-U", USER, "--no-sync", "--locale=C", "-EUTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'}"
        log = str(folder / "log")
        _run(binaries / "pg_ctl", "-D", str(data), "-w", "-l", log, "-o", options, "start")
        try:
            yield Server(folder, binaries)
        finally:
            _run(binaries / "pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: Path, *arguments: str) -> None:
    done = subprocess.run(
        [program, *arguments],
        user=USER if os.geteuid() == 0 else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        # A file: a server that goes on running would keep a pipe open.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program.name} ended with code {done.returncode}")
