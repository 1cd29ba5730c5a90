"""The training job: a cost model from a dataset, as a folder.

Spec (those marked * may be left out)::

    {"place": dataset's folder or file, "out_dir": folder for the model, "parent"*: folder of the
     model to go on from, "features"*: "stores" or "steps", "per_task"*: int, records of each task
     of TenSet's, "profiles"*: [[TenSet's device or "", file with what it is], ...],
     "seed"*: int, "threads"*: int, "epochs"*: int}

The folder gets the files of ``tunefleet.model_files`` when all is done. Until then it keeps the
state of the training, and a job with the same spec goes on from there.

Result: what ``model.json`` holds, and ``"files": [path, ...]``.

To train in several processes, on one machine or more that share their files, start the same job
with torchrun; the first process writes::

    torchrun --nproc-per-node 4 -m coordinator.study.train_job --spec spec.json --out result.json
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.costmodel.feature_sets import STEPS, STORES, FeatureSet, chosen_features
from coordinator.models.job import Progress, run_job
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.model_files import CHECKPOINT_FILE

if TYPE_CHECKING:
    from coordinator.costmodel.checkpoint import Checkpoint
    from coordinator.costmodel.train import TrainConfig

_WORK = ".training"
"""Folder within the model's, of what is kept until it is done."""
_READ, _TRAINED = 0.1, 0.92
"""Shares of the whole work that are done after each step."""
_ANY_STEPS = 10**9
"""No bound: somebody asked for so many epochs."""


def train_model(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID, INVALID_ARGUMENT.
        KeyboardInterrupt: somebody ended it; its state is kept.
    """
    progress(0.0, "starting")
    # torch and what needs it: seconds.
    from coordinator.costmodel.team import join_team  # noqa: PLC0415
    from coordinator.costmodel.train import fit  # noqa: PLC0415
    from coordinator.study.model_writing import Training, write_model  # noqa: PLC0415
    from coordinator.study.opening import is_tenset, open_corpus  # noqa: PLC0415

    place, out_dir = Path(spec["place"]), Path(spec["out_dir"])
    began = time.monotonic()
    _check_free(out_dir)
    parent = _parent(spec)
    features = chosen_features(spec.get("features"))
    if features is None:
        usual = parent.features if parent else STORES
        features = STEPS if is_tenset(place) else usual
    _check_fits(spec, parent, features)
    with join_team() as team:
        opened = open_corpus(
            place,
            features,
            per_task=spec.get("per_task"),
            profiles=spec.get("profiles") or (),
            progress=_part(progress, 0.0, _READ),
        )
        corpus = opened.corpus
        config = _config(spec, features)
        work = out_dir / _WORK
        work.mkdir(parents=True, exist_ok=True)
        with _stoppable() as stopped:
            try:
                trained = fit(
                    corpus.arrays,
                    parent,
                    config,
                    _ending(_part(progress, _READ, _TRAINED), stopped) if team.leads else None,
                    state_path=work / "state.npz",
                    team=team,
                )
            except ValueError as e:
                raise TuneFleetError(Reason.DATASET_INVALID, f"{place}: {e}") from e
        if not team.leads:
            return {}
        training = Training(
            spec=spec,
            opened=opened,
            parent=parent,
            config=config,
            trained=trained,
            processes=team.size,
            seconds=time.monotonic() - began,
        )
        return write_model(training, work, _part(progress, _TRAINED, 1.0))


def _check_free(out_dir: Path) -> None:
    """Make sure that a model's folder holds nothing but an earlier run's state."""
    if out_dir.exists() and (
        not out_dir.is_dir() or any(path.name != _WORK for path in out_dir.iterdir())
    ):
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{out_dir} exists and is not empty",
            hint="Name a new folder for the model, or remove that one.",
        )


def _parent(spec: Mapping[str, Any]) -> Checkpoint | None:
    from coordinator.costmodel.checkpoint import Checkpoint  # noqa: PLC0415 (torch)

    if not spec.get("parent"):
        return None
    path = Path(spec["parent"]) / CHECKPOINT_FILE
    try:
        checkpoint = Checkpoint.load(path)
        checkpoint.build()
    except OSError as e:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"cannot go on from {spec['parent']}: {e}",
            hint="Give a folder that tunefleet model train has made.",
        ) from e
    except ValueError as e:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"cannot go on from {spec['parent']}: {e}",
            hint="Train it anew, without --from, or go on from a model that this release trained.",
        ) from e
    return checkpoint


def _check_fits(spec: Mapping[str, Any], parent: Checkpoint | None, features: FeatureSet) -> None:
    """Make sure that a model goes on with the features it is for."""
    if parent is not None and parent.features is not features:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"cannot go on from {spec['parent']}: it ranks by {parent.features.name}, and "
            f"{features.name} are what it would learn from",
            hint="Train a new model, without --from, or give a dataset that has its features.",
        )


def _config(spec: Mapping[str, Any], features: FeatureSet) -> TrainConfig:
    from coordinator.study.rankers.attention import LABORATORY  # noqa: PLC0415 (torch)

    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = spec.get("threads") or max(1, len(os.sched_getaffinity(0)) // processes)
    config = replace(
        LABORATORY,
        model=features.sized(LABORATORY.model),
        seed=int(spec.get("seed") or 0),
        threads=int(threads),
    )
    epochs = spec.get("epochs")
    if epochs is None:
        return config
    return replace(
        config,
        epochs=int(epochs),
        epochs_fine_tuning=int(epochs),
        min_steps=1,
        max_steps=_ANY_STEPS,
    )


def _part(progress: Progress, begin: float, end: float) -> Progress:
    """Make a step's own progress a part of the whole."""
    return lambda share, message: progress(begin + (end - begin) * share, message)


def _ending(progress: Progress, stopped: Callable[[], bool]) -> Progress:
    """End the training where it tells of its progress: there its state is whole."""

    def tell(share: float, message: str) -> None:
        progress(share, message)
        if stopped():
            raise KeyboardInterrupt

    return tell


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Note that somebody wants this process to end, in place of ending in the midst of a step."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: asked.append(got))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    # Spinning OpenMP threads that lose their core to another process make a step 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(run_job(train_model, leads=os.environ.get("RANK", "0") == "0"))
