"""The folder that holds everything a coordinator keeps."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunefleet.errors import Reason, TuneFleetError


def default_home() -> Path:
    """Return the home used where none is given; the commands use the same."""
    chosen = os.environ.get("TUNEFLEET_HOME")
    base = Path(chosen) if chosen else Path.home() / ".local/share/tunefleet"
    return base / "coordinator"


@dataclass(frozen=True)
class Home:
    """Where things lie in a coordinator's home."""

    root: Path

    @property
    def database_url(self) -> str:
        """The database used where no other is configured."""
        return f"sqlite:///{self.root.absolute() / 'tunefleet.db'}"

    @property
    def blobs_dir(self) -> Path:
        """Folder of the blobs."""
        return self.root / "blobs"

    @property
    def uploads_dir(self) -> Path:
        """Folder of what notes which blobs were sent and not named yet."""
        return self.root / "uploads"

    @property
    def campaigns_dir(self) -> Path:
        """Folder with a folder for each campaign's results."""
        return self.root / "campaigns"

    @property
    def logs_dir(self) -> Path:
        """Folder of log files, those of child processes included."""
        return self.root / "logs"

    @property
    def run_dir(self) -> Path:
        """Folder of what matters only while a coordinator runs: lock, address, job files."""
        return self.root / "run"

    @property
    def authority_dir(self) -> Path:
        """Folder of the certificate authority's keys."""
        return self.root / "authority"

    @property
    def admin_dir(self) -> Path:
        """Folder with credentials of an admin, for whoever owns the home."""
        return self.root / "admin"

    @property
    def address_file(self) -> Path:
        """File with the HOST:PORT of the coordinator that uses this home."""
        return self.run_dir / "address"

    def campaign_dir(self, campaign_id: str) -> Path:
        """Return the folder of one campaign's results."""
        return self.campaigns_dir / campaign_id

    def create(self) -> None:
        """Make the folders that are missing, for this user only."""
        for folder in (
            self.root,
            self.blobs_dir,
            self.uploads_dir,
            self.campaigns_dir,
            self.logs_dir,
            self.run_dir,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other coordinators out of this home; the kernel lets go when the process dies.

        Raises:
            TuneFleetError: HOME_IN_USE.
        """
        self.create()
        handle = os.open(self.run_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as e:
                owner = os.pread(handle, 32, 0).decode(errors="replace").strip()
                raise TuneFleetError(
                    Reason.HOME_IN_USE,
                    f"process {owner or '(unknown)'} runs a coordinator in {self.root} already",
                ) from e
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(handle)
