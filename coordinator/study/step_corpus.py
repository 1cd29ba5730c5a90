"""Corpora whose programs are sequences of schedule steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from coordinator.costmodel.arrays import Floats, RowArrays
from coordinator.costmodel.feature_sets import STEPS
from coordinator.costmodel.steps import STEP_FEATURES, encode
from coordinator.dataset.reading import Refused, find_parts, open_trials, read_all
from coordinator.dataset.schema import invalid
from coordinator.state.trial_records import TrialRecord
from coordinator.study.corpus import Corpus, gather
from tunefleet.machine_lock import MachineLock
from tunefleet.schedules.trace import trace_steps

Progress: TypeAlias = Callable[[float, str], None]

_LINES_AT_ONCE = 256
"""Read in some 50 ms, for which whatever is to be timed on this machine waits."""


def step_arrays(place: Path, corpus: Corpus, progress: Progress | None = None) -> RowArrays:
    """Read the schedule steps of a dataset's trials.

    Nothing is read while something is timed on this machine: its lock must not be held already.

    Args:
        place: where the corpus was loaded from.
        corpus: of that dataset, whole or a part of it.
        progress: told the share read and what is being done.

    Returns:
        The corpus's arrays, row by row, with schedule steps in place of stores: ``features`` are
        [S, STEP_FEATURES] and ``stores`` counts steps. All else is the same.

    Raises:
        TuneFleetError: DATASET_INVALID, a trial is missing or its trace cannot be read.
    """
    wanted = set(corpus.trial_ids)
    blocks: dict[str, Floats] = {}
    lock = MachineLock()
    tables = [open_trials(path) for path in find_parts(place).trials]
    for item in read_all(tables, progress, features=False):
        if isinstance(item, Refused):
            continue
        trial = item[0].trial
        if trial.trial_id in wanted and trial.trial_id not in blocks:
            with lock.busy():
                blocks[trial.trial_id] = _encoded(trial.trial_id, trial.trace)
    missing = len(wanted) - len(blocks)
    if missing:
        raise invalid(f"{place} lacks {missing} trials of the corpus {corpus.name}")
    return _with_steps(corpus.arrays, [blocks[trial_id] for trial_id in corpus.trial_ids])


def load_steps(
    place: Path,
    progress: Progress | None = None,
    refused: Callable[[Refused], None] | None = None,
) -> Corpus:
    """Read a dataset, its programs described by the steps of their traces.

    As :func:`coordinator.study.corpus.load_corpus`, but trials need no features, and those whose
    traces cannot be read are told of and left out.
    """
    lock = MachineLock()

    def describe(record: TrialRecord) -> tuple[int, bytes]:
        with lock.busy():
            block = encode(trace_steps(record.trial.trace))
        return len(block), block.astype("<f4", copy=False).tobytes()

    return gather(place, STEPS, describe, progress, refused)


def _encoded(trial_id: str, trace: str) -> Floats:
    try:
        return encode(trace_steps(trace))
    except ValueError as e:
        raise invalid(f"trial {trial_id}: {e}") from e


def _with_steps(arrays: RowArrays, blocks: Sequence[Floats]) -> RowArrays:
    counts = np.array([len(block) for block in blocks], np.int64)
    return replace(
        arrays,
        features=np.concatenate([np.zeros((0, STEP_FEATURES), np.float32), *blocks]),
        first_store=np.cumsum(counts) - counts,
        stores=counts,
        scheduled=False,
    )
