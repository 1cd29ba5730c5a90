"""Jobs of the coordinator's that need no coordinator, run by the command itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunefleet.cli.installed import require_datasets, require_studies, require_training
from tunefleet.errors import Reason, TuneFleetError

Activity = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is being done."""

_ENDING_S = 10.0
"""Removing a folder or keeping a training's state takes moments; a job that is stuck is killed."""


@dataclass(frozen=True)
class ModelFiles:
    """A cost model to judge."""

    name: str
    """For people."""
    onnx: Path
    folder: Path | None = None
    """With what is known of it."""


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


def prune_dataset(
    place: Path,
    out_dir: Path,
    *,
    keep: float,
    strategy: str,
    seed: int,
    model: Path | None,
    activity: Activity | None = None,
) -> dict[str, Any]:
    """Write the trials of a folder or file that a strategy keeps to a new folder.

    Args:
        place: a dataset.
        out_dir: where to; made if missing.
        keep: share of the trials, above 0 and at most 1.
        strategy: by name.
        seed: of everything random, at least 0.
        model: ONNX file of a cost model, for strategies that ask one.
        activity: told the share done, 0 to 1, and what is being done.

    Returns:
        What the coordinator's prune job returns.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID, INVALID_ARGUMENT or NOT_INSTALLED.
    """
    if not place.exists():
        raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: there is no such file or folder")
    if model is not None and not model.is_file():
        raise TuneFleetError(Reason.MODEL_INVALID, f"{model}: there is no such file")
    require_datasets(models=model is not None)
    spec = {
        "place": str(place.resolve()),
        "out_dir": str(out_dir.resolve()),
        "keep": keep,
        "strategy": strategy,
        "seed": seed,
        "model": None if model is None else str(model.absolute()),
    }
    return _run("coordinator.study.prune_job", spec, activity)


def run_study(
    name: str, place: Path, folder: Path, options: dict[str, Any], activity: Activity | None = None
) -> dict[str, Any]:
    """Run a study of a folder or file.

    Args:
        name: of the study.
        place: a dataset.
        folder: where results go; made if missing.
        options: ``seeds``, ``splits``, ``models``, ``share``, ``features``, ``per_task``,
            ``profiles`` and ``threads``, as the coordinator's study job takes them; what is
            ``None`` is left to it.
        activity: told the share done, 0 to 1, and what is being done.

    Returns:
        What the coordinator's study job returns.

    Raises:
        TuneFleetError: DATASET_INVALID, INVALID_ARGUMENT or NOT_INSTALLED.
    """
    if not place.exists():
        raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: there is no such file or folder")
    require_studies()
    spec = {"study": name, "place": str(place.resolve()), "folder": str(folder.resolve())}
    given = {key: value for key, value in options.items() if value is not None}
    return _run("coordinator.study.job", spec | given, activity)


def train_model(
    place: Path,
    out_dir: Path,
    *,
    parent: Path | None,
    seed: int,
    threads: int | None,
    epochs: int | None,
    features: str | None = None,
    per_task: int | None = None,
    profiles: Sequence[tuple[str, str]] = (),
    activity: Activity | None = None,
) -> dict[str, Any]:
    """Train a cost model from a folder or file.

    Args:
        place: a dataset.
        out_dir: folder for the model; one that an interrupted training left is gone on from.
        parent: folder of the model to go on from; none for a new one.
        seed: of everything random, at least 0.
        threads: by default as many as there are cores.
        epochs: passes over the dataset; by default what its size calls for.
        features: ``stores`` or ``steps``; by default what agents rank by, where there are such.
        per_task: records to read of each task of TenSet's files.
        profiles: of TenSet's devices, as :func:`profile_files` gives them.
        activity: told the share done, 0 to 1, and what is being done.

    Returns:
        What the coordinator's training job returns.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID, INVALID_ARGUMENT or NOT_INSTALLED.
    """
    if not place.exists():
        raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: there is no such file or folder")
    require_training()
    spec = {
        "place": str(place.resolve()),
        "out_dir": str(out_dir.resolve()),
        "parent": None if parent is None else str(parent.resolve()),
        "seed": seed,
        "threads": threads,
        "epochs": epochs,
        "features": features,
        "per_task": per_task,
        "profiles": list(profiles),
    }
    return _run("coordinator.study.train_job", spec, activity)


def evaluate_models(
    models: Sequence[ModelFiles],
    place: Path,
    *,
    rows: str,
    only: Path | None = None,
    per_task: bool = False,
    features: str | None = None,
    sample: int | None = None,
    profiles: Sequence[tuple[str, str]] = (),
    activity: Activity | None = None,
) -> dict[str, Any]:
    """Judge one cost model, or two beside each other, on a folder or file.

    Args:
        models: one or two.
        place: a dataset.
        rows: ``auto``, ``all`` or ``held_out``, as the coordinator's evaluation job takes it.
        only: file with the names of the trials to judge.
        per_task: tell of each task too.
        features: ``stores`` or ``steps``, which the models must be for; by default any.
        sample: records to read of each task of TenSet's files.
        profiles: of TenSet's devices, as :func:`profile_files` gives them.
        activity: told the share done, 0 to 1, and what is being done.

    Returns:
        What the coordinator's evaluation job returns.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID or NOT_INSTALLED.
    """
    if not place.exists():
        raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: there is no such file or folder")
    require_datasets(models=True)
    spec = {
        "models": [
            {
                "name": model.name,
                "onnx": str(model.onnx.absolute()),
                "folder": None if model.folder is None else str(model.folder.absolute()),
            }
            for model in models
        ],
        "place": str(place.resolve()),
        "rows": rows,
        "only": None if only is None else str(only.absolute()),
        "per_task": per_task,
        "features": features,
        "sample": sample,
        "profiles": list(profiles),
    }
    return _run("coordinator.study.evaluate_job", spec, activity)


def copy_state(
    action: str, home: Path, place: Path, activity: Activity | None = None
) -> dict[str, Any]:
    """Copy a coordinator's state to a backup, or bring it back.

    Args:
        action: ``backup`` or ``restore``.
        home: the coordinator's folder.
        place: the backup's.
        activity: told the share done, 0 to 1, and what is being done.

    Returns:
        What the coordinator's backup job returns.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, HOME_IN_USE, INCOMPATIBLE or NOT_INSTALLED.
    """
    require_datasets()
    spec = {"action": action, "home": str(home.absolute()), "place": str(place.absolute())}
    return _run("coordinator.state.backup_job", spec, activity)


def profile_files(given: Sequence[str] | None) -> list[tuple[str, str]]:
    """Split ``DEVICE=FILE`` or ``FILE`` into a device, empty where none is named, and a path."""
    pairs = []
    for text in given or ():
        device, _, file = text.rpartition("=")
        pairs.append((device, str(Path(file).absolute())))
    return pairs


def _run(module: str, spec: dict[str, Any], activity: Activity | None = None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="tunefleet-job-") as name:
        spec_path, out_path, log_path = (Path(name) / n for n in ("spec.json", "out.json", "log"))
        spec_path.write_text(json.dumps(spec))
        command = [sys.executable, "-m", module, "--spec", str(spec_path), "--out", str(out_path)]
        with (
            log_path.open("wb") as log,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                errors="replace",
                # Ctrl-C reaches the job once, from here.
                start_new_session=True,
            ) as process,
        ):
            try:
                _follow(process, activity)
            except BaseException:
                _end(process)
                raise
        try:
            result: dict[str, Any] = json.loads(out_path.read_text())
        except (OSError, ValueError) as e:
            tail = log_path.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
            raise TuneFleetError(Reason.INTERNAL, f"{module} left no result: {tail[0]}") from e
    if "error" in result:
        error = result["error"]
        raise TuneFleetError(Reason[error["reason"]], error["message"], error.get("hint", ""))
    return result


def _follow(process: subprocess.Popen[str], activity: Activity | None) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if activity is None:
            continue
        with suppress(ValueError, KeyError, TypeError):
            told = json.loads(line)
            activity(float(told["progress"]), str(told["message"]))
    process.wait()


def _end(process: subprocess.Popen[str]) -> None:
    """Give a job the time to remove what it has not completed."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDING_S)
    process.kill()
