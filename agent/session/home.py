"""The agent's folder: who it is, and what it must not lose."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from tunefleet.errors import Reason, TuneFleetError

HOME_VARIABLE = "TUNEFLEET_AGENT_HOME"


def default_home() -> Path:
    """Return the folder an agent uses unless told otherwise."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".local/share/tunefleet/agent"


class Home:
    """One agent's folder, for as long as it is entered: no two agents share one."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock_fd: int | None = None

    @property
    def outbox(self) -> Path:
        """File with the trials that are not acknowledged."""
        return self.path / "outbox.db"

    @property
    def blobs(self) -> Path:
        """Folder of blobs fetched from the coordinator."""
        return self.path / "blobs"

    @property
    def identity(self) -> Path:
        """Folder of the agent's key and certificate."""
        return self.path / "identity"

    @property
    def logs(self) -> Path:
        """Folder of the workers' logs."""
        return self.path / "logs"

    def __enter__(self) -> Self:
        """Create the folder where needed and take it.

        Raises:
            TuneFleetError: HOME_IN_USE if another agent has it, INVALID_ARGUMENT if it cannot be
                written to.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            self._release()
            raise TuneFleetError(
                Reason.HOME_IN_USE, f"another agent is running in {self.path}"
            ) from e
        except OSError as e:
            self._release()
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"the folder {self.path} cannot be used: {e.strerror}",
                hint="Choose another folder with --home.",
            ) from e
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def device_id(self) -> str:
        """Return this agent's id, made when the folder is used for the first time."""
        path = self.path / "device_id"
        try:
            return str(uuid.UUID(path.read_text(encoding="ascii").strip()))
        except (FileNotFoundError, ValueError):
            made = str(uuid.uuid4())
        temporary = path.with_suffix(".new")
        with temporary.open("w", encoding="ascii") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return made

    def _release(self) -> None:
        fd, self._lock_fd = self._lock_fd, None
        if fd is not None:
            os.close(fd)
