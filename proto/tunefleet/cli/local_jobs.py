"""Jobs of the coordinator's that need no coordinator, run by the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tunefleet.cli.installed import require_datasets
from tunefleet.errors import Reason, TuneFleetError


def dataset_stats(place: Path) -> dict[str, Any]:
    """Count the trials in a folder or file.

    Returns:
        What the coordinator's stats job returns.

    Raises:
        TuneFleetError: DATASET_INVALID, or NOT_INSTALLED.
    """
    if not place.exists():
        raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: there is no such file or folder")
    require_datasets()
    return _run("coordinator.dataset.stats_job", {"place": str(place.absolute())})


def _run(module: str, spec: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tunefleet-job-") as name:
        spec_path, out_path = Path(name) / "spec.json", Path(name) / "out.json"
        spec_path.write_text(json.dumps(spec))
        done = subprocess.run(
            [sys.executable, "-m", module, "--spec", str(spec_path), "--out", str(out_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        try:
            result: dict[str, Any] = json.loads(out_path.read_text())
        except (OSError, ValueError) as e:
            tail = done.stderr.strip().splitlines()[-1:] or ["no output"]
            raise TuneFleetError(Reason.INTERNAL, f"{module} left no result: {tail[0]}") from e
    if "error" in result:
        raise TuneFleetError(Reason[result["error"]["reason"]], result["error"]["message"])
    return result
