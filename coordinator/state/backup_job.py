"""The job that copies a coordinator's state, or brings it back.

Spec: ``{"action": "backup" or "restore", "home": folder, "place": the backup's folder}``.

Result: ``{"blobs": n, "copied": n, "bytes_copied": n, "spoiled": [digest, ...]}``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.models.job import Progress, run_job
from coordinator.state.backup import back_up, restore
from coordinator.state.home import Home


def copy_state(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: as :func:`back_up` and :func:`restore`.
    """
    home, place = Home(Path(spec["home"])), Path(spec["place"])
    if spec["action"] == "restore":
        return asdict(restore(place, home, progress))
    return asdict(back_up(home, place, progress, now=time.time()))


if __name__ == "__main__":
    sys.exit(run_job(copy_state))
