"""What a strategy is given, what it returns, and where strategies are found by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from tunefleet.errors import Reason, TuneFleetError

Spread: TypeAlias = Callable[[Indices], NDArray[np.float64]]
"""Takes rows, int64 [B]; gives float64 [B], at least 0: how unsure a model is of each."""


@dataclass(frozen=True, eq=False)
class Context:
    """What may be pruned."""

    corpus: Corpus
    rows: Indices
    """[n], sorted: the rows of the corpus among which to choose, such as a split's training side.
    A strategy looks at no other row's latency."""
    seed: int = 0
    spread: Spread | None = None
    """A model's uncertainty, for the strategies that use one."""

    def __post_init__(self) -> None:
        if not (np.diff(self.rows) > 0).all():
            raise ValueError("the rows that may be pruned must be sorted and unique")

    def __len__(self) -> int:
        return len(self.rows)

    def count(self, keep: float) -> int:
        """Return how many rows a share means: rounded, halves up, and one at the least.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, it is no share.
        """
        check_keep(keep)
        return min(len(self), max(1, math.floor(keep * len(self) + 0.5)))

    def rng(self) -> np.random.Generator:
        """Return a generator that begins anew for every strategy."""
        return np.random.default_rng(self.seed)

    def tasks(self) -> list[Indices]:
        """Return sorted positions in ``rows`` of each task (a workload on a target and device)."""
        group = self.corpus.arrays.group[self.rows]
        order = np.argsort(group, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []

    def spreads(self) -> NDArray[np.float64]:
        """Ask the model how unsure it is: float64 [n].

        Raises:
            TuneFleetError: INVALID_ARGUMENT, there is no model.
            ValueError: what it says makes no sense.
        """
        if self.spread is None:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                "this strategy needs a cost model that says how unsure it is",
                hint="Give one with --model FILE.onnx, or choose another strategy.",
            )
        spread = np.asarray(self.spread(self.rows), np.float64)
        if spread.shape != self.rows.shape or not (np.isfinite(spread) & (spread >= 0)).all():
            raise ValueError("a spread must be one finite number of at least 0 for each row")
        return spread


Strategy: TypeAlias = Callable[[Context, float], Indices]
"""Takes what may be pruned and the share to keep; gives the positions, int64 [K], that it keeps in
``Context.rows``, in any order. K is ``Context.count(share)``, exactly."""

STRATEGIES: dict[str, Strategy] = {}
"""Every strategy, by name."""


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    """Register a function as a strategy."""

    def register(function: Strategy) -> Strategy:
        STRATEGIES[name] = function
        return function

    return register


def prune(name: str, context: Context, keep: float) -> Indices:
    """Choose the rows that a strategy keeps.

    Args:
        name: of the strategy.
        context: what may be pruned.
        keep: share to keep, above 0 and at most 1; see :meth:`Context.count` for how it is rounded.

    Returns:
        Int64 [K], rows of the corpus, sorted and unique. Two rows of every task (one where it has
        one) are among them where K allows.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
        ValueError: the strategy did not keep to its contract.
    """
    chosen = strategy_of(name)
    count = context.count(keep)
    if not count:
        return context.rows
    kept = np.sort(chosen(context, keep))
    if len(kept) != count or not (np.diff(kept) > 0).all():
        raise ValueError(f"{name} keeps {len(np.unique(kept))} different rows and not {count}")
    return context.rows[kept]


def strategy_of(name: str) -> Strategy:
    """Return the strategy of that name. Raises INVALID_ARGUMENT."""
    if name not in STRATEGIES:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"there is no strategy {name!r} for pruning",
            hint=f"There are {', '.join(STRATEGIES)}.",
        )
    return STRATEGIES[name]


def check_keep(keep: float) -> None:
    """Make sure that a number is a share of trials to keep. Raises INVALID_ARGUMENT."""
    if not 0.0 < keep <= 1.0:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"the share of trials to keep must be above 0 and at most 1, not {keep}",
            hint="To keep half of the trials give 0.5.",
        )
