"""What the coordinator's main process is told, and what everything in it shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from coordinator.costmodel.base_model import base_folder
from coordinator.server.address import DEFAULT_LISTEN
from coordinator.server.bus import Bus
from coordinator.server.disk import DiskGuard
from coordinator.server.draining import Drain
from coordinator.server.grouping import GroupedCalls
from coordinator.server.quota import DEFAULT_QUOTA, BlobQuota, Quota
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.store import Store
from coordinator.state.uploads import Uploads
from tunefleet.identity.credentials import insecure_wanted


@dataclass(frozen=True)
class ServerConfig:
    """What a coordinator must be told."""

    home: Path
    listen: str = DEFAULT_LISTEN
    database_url: str = ""
    """Database in place of the home's own."""
    base_model: Path | None = field(default_factory=base_folder)
    """Folder of the cost model that a new home begins with; ``None`` for none."""
    quota: Quota = field(default_factory=lambda: Quota.parse(DEFAULT_QUOTA))
    """Of blobs on the disk."""
    drain_s: float = 0.0
    """Longest time to wait, when it is stopped, for rounds under way, in seconds."""
    insecure: bool = field(default_factory=insecure_wanted)
    """Plain text, which lets in everybody on this machine."""
    enrolment_port: int | None = None
    """Where agents and users join; by default the port after the one listened on."""


@dataclass(frozen=True)
class Core:
    """What everything in the coordinator's main process shares."""

    home: Home
    store: Store
    blobs: BlobStore
    bus: Bus
    clock: Callable[[], float] = time.time
    database_url: str = ""
    """The store's database, for jobs that open it themselves."""
    base_model: Path | None = field(default_factory=base_folder)
    """Folder of the cost model to begin with, if any."""
    blob_quota: Quota = field(default_factory=Quota)

    @cached_property
    def quota(self) -> BlobQuota:
        """What says whether there is room for uploads."""
        return BlobQuota(self.blobs, self.blob_quota)

    @cached_property
    def uploads(self) -> Uploads:
        """What was sent and is not named yet."""
        return Uploads(self.home.uploads_dir, self.blobs)

    @cached_property
    def disk(self) -> DiskGuard:
        """What says whether there is room for new work."""
        return DiskGuard(self.home.root)

    @cached_property
    def drain(self) -> Drain:
        """What says whether work is given out."""
        return Drain(self.store, self.bus)

    @cached_property
    def calls(self) -> GroupedCalls:
        """What runs the calls that agents wait for."""
        return GroupedCalls(self.store)
