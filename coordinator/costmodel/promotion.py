"""Whether a new model version replaces the current one."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.costmodel.metrics import PairwiseAccuracy

MIN_PAIRS = 50
"""Fewer held-out pairs than this cannot tell a better model from luck: at 50 the standard error of
an accuracy is still 6 points."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, and the reason for people to read."""

    promote: bool
    why: str


def decide(new: PairwiseAccuracy, current: PairwiseAccuracy | None) -> Decision:
    """Promote a version only if it ranks the held-out trials no worse than the current one.

    Args:
        new: the new version on all held-out trials so far.
        current: the current version on the same trials; ``None`` if there is no current version.

    Raises:
        ValueError: the two were measured on different pairs.
    """
    if current is None:
        if new.pairs < MIN_PAIRS:
            return Decision(
                True, f"the first version; only {new.pairs} held-out pairs to judge it by"
            )
        return Decision(True, f"the first version; PCA {new.by_records:.3f} on {new.pairs} pairs")
    if new.pairs != current.pairs:
        raise ValueError(
            f"cannot compare accuracies on {new.pairs} and on {current.pairs} held-out pairs"
        )
    if new.pairs < MIN_PAIRS:
        return Decision(
            False,
            f"only {new.pairs} held-out pairs, {MIN_PAIRS} are needed to compare; "
            "the current version stays",
        )
    compared = (
        f"held-out PCA {new.by_records:.3f} against {current.by_records:.3f} on {new.pairs} pairs"
    )
    if new.by_records >= current.by_records:
        return Decision(True, f"ranks no worse: {compared}")
    return Decision(False, f"ranks worse: {compared}; the current version stays")
