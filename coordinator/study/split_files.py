"""Splits as files, so that others can judge their models by the very same trials.

A file holds, for each trial of the corpus in the order of the trials' ids, one letter: ``r`` for
training, ``e`` for testing, ``-`` for neither; and a digest of these ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from coordinator.study.splits import SPLITS, LeakError, Split, check_no_leak
from tunefleet.errors import Reason, TuneFleetError

_VERSION = 1
_TRAIN, _TEST, _NEITHER = "re-"


def save_split(path: Path, corpus: Corpus, split: Split) -> None:
    """Write a split; a file there is replaced.

    Args:
        path: where to.
        corpus: the one that was split.
        split: of it.
    """
    side = np.full(len(corpus), _NEITHER)
    side[split.train] = _TRAIN
    side[split.test] = _TEST
    content = {
        "tunefleet_split": _VERSION,
        "name": split.name,
        "seed": split.seed,
        "share": split.share,
        "held_out": split.held_out,
        "corpus": {"name": corpus.name, "trials": len(corpus), "digest": corpus.digest()},
        "sides": "".join(side[_by_id(corpus)]),
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def load_split(path: Path, corpus: Corpus) -> Split:
    """Read a split of a corpus, and check it.

    Raises:
        TuneFleetError: DATASET_INVALID, the file is no such split, or one of another corpus, or
            what it tests is there to learn from.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["tunefleet_split"] != _VERSION:
            raise _refused(f"{path} is a split of another version of TuneFleet")
        made_of = content["corpus"]
        if made_of["digest"] != corpus.digest():
            raise _refused(
                f"{path} splits {made_of['name']} with {made_of['trials']} trials "
                f"({made_of['digest']}), not {corpus.name} with {len(corpus)} ({corpus.digest()})"
            )
        split = _split(content, corpus)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise _refused(f"{path} is no split that can be used: {type(e).__name__}: {e}") from e
    try:
        check_no_leak(corpus, split)
    except LeakError as e:
        raise _refused(f"{path} cannot be trusted: {e}") from e
    return split


def _split(content: dict[str, Any], corpus: Corpus) -> Split:
    sides = np.array(list(content["sides"]))
    if sides.shape != (len(corpus),) or content["name"] not in SPLITS:
        raise ValueError("it does not fit its own description")
    side = np.empty_like(sides)
    side[_by_id(corpus)] = sides
    return Split(
        name=content["name"],
        seed=int(content["seed"]),
        share=float(content["share"]),
        train=np.flatnonzero(side == _TRAIN),
        test=np.flatnonzero(side == _TEST),
        held_out=tuple(str(name) for name in content["held_out"]),
    )


def _by_id(corpus: Corpus) -> Indices:
    """Return int64 [N]: rows in the order of their trials' ids."""
    return np.array(sorted(range(len(corpus)), key=corpus.trial_ids.__getitem__), np.int64)


def _refused(message: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.DATASET_INVALID,
        message,
        hint="Give the dataset that the split was made of, or make a new split.",
    )
