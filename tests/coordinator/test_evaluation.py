"""Figures of a study: against formulas written out, and intervals that mean something."""

from __future__ import annotations

import math

import numpy as np
import pytest
from study_corpora import make_corpus

from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import METRICS, Evaluation, evaluate, merge


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus()


def every_row(corpus: Corpus) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(len(corpus))


def perfect(corpus: Corpus) -> Evaluation:
    return evaluate(corpus, every_row(corpus), -np.nan_to_num(corpus.arrays.log_latency))


def test_the_measured_order_is_perfect(corpus: Corpus) -> None:
    figures = perfect(corpus).figures()
    assert figures == dict.fromkeys(METRICS, pytest.approx(1.0))


def test_the_opposite_order_gets_no_pair_right(corpus: Corpus) -> None:
    figures = evaluate(corpus, every_row(corpus), corpus.arrays.log_latency.copy()).figures()
    assert figures["pca"] == figures["pca_by_task"] == 0.0
    assert figures["top1"] < figures["top5"] < 1.0


def test_top_k_is_that_of_each_network_and_device_then_averaged(corpus: Corpus) -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(len(corpus))
    found = evaluate(corpus, every_row(corpus), scores).figures()["top1"]
    shares = []
    names = sorted({name for sources in corpus.sources for name in sources})
    for target in range(len(corpus.targets)):
        for name in names:
            best = chosen = 0.0
            for workload, sources in enumerate(corpus.sources):
                rows = np.flatnonzero(
                    (corpus.workload == workload) & (corpus.target == target) & corpus.measured()
                )
                latency = np.exp(corpus.arrays.log_latency[rows])
                best += sources.get(name, 0) * latency.min()
                chosen += sources.get(name, 0) * latency[np.argmax(scores[rows])]
            shares.append(best / chosen)
    assert found == pytest.approx(np.mean(shares))


def test_failed_trials_are_not_judged(corpus: Corpus) -> None:
    scores = -np.nan_to_num(corpus.arrays.log_latency)
    scores[~corpus.measured()] = 1e9
    assert evaluate(corpus, every_row(corpus), scores).figures()["top1"] == pytest.approx(1.0)


def test_intervals_hold_the_figure_and_shrink_with_tasks() -> None:
    widths = []
    for copies in (1, 8):
        corpus = make_corpus([{"net": 1}] * 6 * copies)
        scores = np.random.default_rng(0).random(len(corpus))
        interval = evaluate(corpus, every_row(corpus), scores).intervals()["pca"]
        assert interval.low <= interval.value <= interval.high
        widths.append(interval.high - interval.low)
    assert widths[1] < widths[0] / 2


def test_a_difference_needs_the_same_tasks(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    guessed = evaluate(corpus, every_row(corpus), rng.random(len(corpus)))
    ahead = perfect(corpus).difference(guessed)["pca"]
    assert ahead.low > 0.2
    assert ahead.value == pytest.approx(1.0 - guessed.figures()["pca"])
    with pytest.raises(ValueError, match="same tasks"):
        perfect(corpus).difference(evaluate(corpus, every_row(corpus)[:40], np.zeros(40)))


def test_seeds_together_weigh_as_their_tasks_do(corpus: Corpus) -> None:
    rng = np.random.default_rng(0)
    halves = [every_row(corpus)[: len(corpus) // 2], every_row(corpus)[len(corpus) // 2 :]]
    parts = [evaluate(corpus, rows, rng.random(len(rows))) for rows in halves]
    both = merge(parts)
    assert len(both.keys) == sum(len(part.keys) for part in parts)
    rows = [part.rows.sum() for part in parts]
    expected = np.average([part.figures()["pca"] for part in parts], weights=rows)
    assert both.figures()["pca"] == pytest.approx(expected)


def test_nothing_to_compare_is_no_number(corpus: Corpus) -> None:
    failed = np.flatnonzero(~corpus.measured())
    with pytest.raises(ValueError, match="nothing"):
        evaluate(corpus, failed, np.zeros(len(failed)))
    assert math.isfinite(perfect(corpus).intervals()["top5"].low)
