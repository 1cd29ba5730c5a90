"""How many candidates a round measures."""

from __future__ import annotations

import pytest
from store_samples import KEY

from coordinator.campaigns.round_size import (
    GUIDED_ROUND_TRIALS,
    ROUND_TRIALS,
    SMALL_ROUND_TRIALS,
    first_round_trials,
    later_round_trials,
    lineage,
    search_of,
)
from coordinator.state.trial_records import LatencyPoint


def scored(scores: list[float], version: str = "v1") -> list[LatencyPoint]:
    """Make trials with these scores, each 10 % slower than the one before."""
    return [
        LatencyPoint(KEY, 0.0, "", 1e-3 * 1.1**n, "ok", score, version)
        for n, score in enumerate(scores)
    ]


RIGHT = [float(-n) for n in range(12)]


def test_a_first_round_is_sized_by_what_is_known_and_what_it_matters() -> None:
    assert first_round_trials(0.1, model_known=False) == ROUND_TRIALS
    assert first_round_trials(0.1, model_known=True) == SMALL_ROUND_TRIALS
    assert first_round_trials(0.001, model_known=False) == SMALL_ROUND_TRIALS
    assert first_round_trials(0.001, model_known=True) == SMALL_ROUND_TRIALS


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (RIGHT, GUIDED_ROUND_TRIALS),
        (RIGHT[::-1], ROUND_TRIALS),
        ([0.0] * 12, ROUND_TRIALS),
        ([*RIGHT[:9:-1], *RIGHT[:10]], ROUND_TRIALS),
        ([RIGHT[1], RIGHT[0], *RIGHT[2:]], GUIDED_ROUND_TRIALS),
        (RIGHT[:7][::-1], GUIDED_ROUND_TRIALS),
        ([], GUIDED_ROUND_TRIALS),
    ],
    ids=["right", "wrong", "ties", "two thirds", "nearly right", "too few to tell", "none"],
)
def test_a_later_round_is_short_unless_pairs_were_ranked_wrong(
    scores: list[float], expected: int
) -> None:
    assert later_round_trials(scored(scores)) == expected


def test_scores_of_two_versions_are_not_compared() -> None:
    # Each version ranks right, and the second scores everything higher than the first.
    both = [*scored(RIGHT), *scored([s + 100 for s in RIGHT], "v2")[::-1]]
    assert later_round_trials(both) == GUIDED_ROUND_TRIALS


def test_a_line_of_models_goes_back_to_the_first() -> None:
    parents = {"base": "", "v1": "base", "v2": "v1", "v3": "base"}
    assert lineage("v2", parents) == ["v2", "v1", "base"]
    assert lineage("v3", parents) == ["v3", "base"]
    assert lineage("", parents) == []


def test_a_line_of_models_that_bites_its_tail_ends() -> None:
    assert lineage("a", {"a": "b", "b": "a"}) == ["a", "b"]


def test_a_short_round_is_preceded_by_a_small_search() -> None:
    populations = [search_of(trials).population for trials in (4, 8, 16, 64)]
    assert populations == [32, 64, 128, 128]
