"""How many candidates a round measures: few where the cost model is trusted, more where not.

A round ranks many candidates and measures the best. Between rounds the model is fed and the search
starts from better schedules, so short rounds learn faster, but only a model that ranks well puts
the good candidates among the first few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.report.metrics import online_pca
from coordinator.state.trial_records import LatencyPoint
from tunefleet.leases import SearchPolicy

ROUND_TRIALS = 16
"""Trials of a round whose candidates nobody can tell apart: enough to keep a search's cost small
beside that of measuring, few enough that a new model reaches the device soon."""

GUIDED_ROUND_TRIALS = 8
"""Trials of a round that a cost model guides."""

SMALL_ROUND_TRIALS = 4
"""Trials of a first round that a cost model guides, or of a task that hardly counts in the whole.
Until every task has a schedule, those without are what the network waits for; which of them
deserve more is known only then."""

SMALL_SHARE = 0.005
"""A task below this share of the network's operations gets a small first round."""

TRUSTED_ORDER = 0.7
"""Share of pairs that a model must have ranked right: half is chance, and candidates that were
measured because it liked them are harder to tell apart than random ones."""

JUDGED_TRIALS = 32
"""Last trials of a task that its model is judged by: what it made of the present best."""

_LEAST_JUDGED = 8
"""Fewer predictions say nothing: the model was promoted for ranking others well."""

_POPULATION_A_TRIAL = 8
"""Whatever the size of a round: what searching costs beside measuring stays the same."""
_SMALLEST_POPULATION = 32


def search_of(trials: int) -> SearchPolicy:
    """Size the search for a round by the trials that it is for."""
    wanted = max(_SMALLEST_POPULATION, _POPULATION_A_TRIAL * trials)
    return SearchPolicy(population=min(SearchPolicy.population, wanted))


def first_round_trials(share: float, *, model_known: bool) -> int:
    """Size a task's first round.

    Args:
        share: of the network's operations that the task has.
        model_known: whether a cost model ranks the candidates.
    """
    return SMALL_ROUND_TRIALS if model_known or share < SMALL_SHARE else ROUND_TRIALS


def later_round_trials(predictions: Sequence[LatencyPoint]) -> int:
    """Size a later round by how well the model ranked a task's last trials.

    Args:
        predictions: the task's last trials that the model, or one it was trained from, scored.
    """
    if len(predictions) < _LEAST_JUDGED:
        return GUIDED_ROUND_TRIALS
    order = online_pca(
        [
            {
                "workload": p.key,
                "model_version": p.model_version,
                "predicted": p.predicted,
                "latency_us": (p.latency_s or 0.0) * 1e6,
            }
            for p in predictions
        ]
    )
    return GUIDED_ROUND_TRIALS if order is not None and order >= TRUSTED_ORDER else ROUND_TRIALS


def lineage(version: str, parents: Mapping[str, str]) -> list[str]:
    """Return a model version and those that it was trained from, itself first.

    Args:
        version: its name.
        parents: of every version; empty for one that was trained from nothing.
    """
    line: list[str] = []
    while version and version not in line:
        line.append(version)
        version = parents.get(version, "")
    return line
