"""How well scores order trials: figures over tasks, with intervals from resampling workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.costmodel.metrics import pairwise_accuracy
from coordinator.study.corpus import Corpus

Floats = NDArray[np.float64]

TOP = (1, 5)
METRICS = ("pca", "pca_by_task", "pca_resolved", *(f"top{k}" for k in TOP))
"""Pairwise comparison accuracy weighted by records, by task, and over pairs further apart than
their noise; best latency over the best among the k best-scored."""
_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and where it may lie."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Evaluation:
    """T tasks (a workload on a target and device), each with how well its trials were ordered."""

    keys: tuple[tuple[str, str, str], ...]
    """(workload, target, device) of each."""
    rows: Floats
    """[T], trials with a latency."""
    accuracy: Floats
    """[T], share of pairs ordered right; NaN where there is none."""
    resolved: Floats
    """[T], the same over pairs further apart than their noise."""
    best_s: Floats
    """[T], the lowest latency measured."""
    chosen_s: Floats
    """[len(TOP), T], the lowest among the best-scored."""
    weight: Floats
    """[T, S], how often each of S networks (or families) runs a task, on one target and device."""
    sources: tuple[str, ...]
    """[S], names; one may come several times, for other devices or splits."""

    def figures(self) -> dict[str, float]:
        """Compute every metric over all tasks."""
        values = self._figures(np.ones((1, len(self.keys))))
        return {name: float(value[0]) for name, value in values.items()}

    def intervals(self, seed: int = 0) -> dict[str, Interval]:
        """Compute every metric with its 95 % interval, from resampling workloads.

        All tasks of a workload are drawn together: on several targets they are no independent
        evidence.
        """
        drawn = self._figures(self._draws(seed))
        return {name: _interval(value, drawn[name]) for name, value in self.figures().items()}

    def difference(self, other: Evaluation, seed: int = 0) -> dict[str, Interval]:
        """Compute how far this is ahead of another on the same tasks, with 95 % intervals.

        Raises:
            ValueError: the tasks are others.
        """
        if self.keys != other.keys:
            raise ValueError("only evaluations of the same tasks can be compared")
        draws = self._draws(seed)
        ours, theirs = self._figures(draws), other._figures(draws)
        mine, its = self.figures(), other.figures()
        return {
            name: _interval(mine[name] - its[name], ours[name] - theirs[name]) for name in METRICS
        }

    def _draws(self, seed: int) -> Floats:
        """Return [R, T]: how often each task is drawn in each of R resamples."""
        names = [workload for workload, _, _ in self.keys]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        of_task = np.array([numbers[name] for name in names], np.int64)
        rng = np.random.default_rng(seed)
        count = len(numbers)
        draws: Floats = rng.multinomial(count, np.full(count, 1 / count), _RESAMPLES).astype(
            np.float64
        )
        return draws[:, of_task]

    def _figures(self, draws: Floats) -> dict[str, Floats]:
        values = {
            "pca": _mean(draws * self.rows, self.accuracy),
            "pca_by_task": _mean(draws, self.accuracy),
            "pca_resolved": _mean(draws * self.rows, self.resolved),
        }
        best = draws @ (self.weight * self.best_s[:, None])
        for k, chosen_s in zip(TOP, self.chosen_s, strict=True):
            chosen = draws @ (self.weight * chosen_s[:, None])
            share = np.where(chosen > 0, best / np.where(chosen > 0, chosen, 1.0), np.nan)
            values[f"top{k}"] = _mean((~np.isnan(share)).astype(np.float64), share)
        return values


def evaluate(corpus: Corpus, rows: Indices, scores: Floats) -> Evaluation:
    """Judge scores of some trials.

    Args:
        corpus: where the trials are.
        rows: int64 [B], which; those without a latency are left out.
        scores: float64 [B], higher is predicted to be faster.

    Returns:
        One entry for each task with two trials or more that have a latency.

    Raises:
        ValueError: there is none.
    """
    arrays = corpus.arrays
    known = ~np.isnan(arrays.log_latency[rows])
    rows, scores = rows[known], scores[known]
    order = np.argsort(arrays.group[rows], kind="stable")
    borders = np.flatnonzero(np.diff(arrays.group[rows][order])) + 1
    tasks = [part for part in np.split(order, borders) if len(part) > 1]
    if not tasks:
        raise ValueError(f"nothing to judge: no task has two of the {len(rows)} trials")
    numbers = {workload: number for number, workload in enumerate(corpus.workloads)}
    keys = [arrays.group_keys[arrays.group[rows[part[0]]]] for part in tasks]
    weight, sources = _weights(keys, [corpus.sources[numbers[key[0]]] for key in keys])
    results = [_judge(corpus, rows[part], scores[part]) for part in tasks]
    columns = np.array(results, np.float64).reshape(len(tasks), 4 + len(TOP)).T
    return Evaluation(
        keys=tuple(keys),
        rows=columns[0],
        accuracy=columns[1],
        resolved=columns[2],
        best_s=columns[3],
        chosen_s=columns[4:],
        weight=weight,
        sources=sources,
    )


def merge(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Put the evaluations of several seeds together.

    A workload that several of them tested is still drawn as one.
    """
    width = sum(len(e.sources) for e in evaluations)
    blocks, done = [], 0
    for e in evaluations:
        block = np.zeros((len(e.keys), width))
        block[:, done : done + len(e.sources)] = e.weight
        blocks.append(block)
        done += len(e.sources)
    return Evaluation(
        keys=tuple(key for e in evaluations for key in e.keys),
        rows=np.concatenate([e.rows for e in evaluations]),
        accuracy=np.concatenate([e.accuracy for e in evaluations]),
        resolved=np.concatenate([e.resolved for e in evaluations]),
        best_s=np.concatenate([e.best_s for e in evaluations]),
        chosen_s=np.concatenate([e.chosen_s for e in evaluations], axis=1),
        weight=np.concatenate(blocks),
        sources=tuple(source for e in evaluations for source in e.sources),
    )


def _judge(corpus: Corpus, rows: Indices, scores: Floats) -> list[float]:
    log_latency, noise = corpus.arrays.log_latency[rows], corpus.arrays.noise[rows]
    one = np.zeros(len(rows), np.int64)
    latency_s = np.exp(log_latency)
    # Among equals the first stands for what one would try.
    order = np.argsort(-scores, kind="stable")
    return [
        float(len(rows)),
        pairwise_accuracy(scores, log_latency, one).by_list,
        pairwise_accuracy(scores, log_latency, one, noise).by_list,
        float(latency_s.min()),
        *(float(latency_s[order[:k]].min()) for k in TOP),
    ]


def _weights(
    keys: Sequence[tuple[str, str, str]], sources: Sequence[Mapping[str, int]]
) -> tuple[Floats, tuple[str, ...]]:
    """Return [T, S]: each network counts once for each target and device it is run on."""
    columns: dict[tuple[str, str, str], int] = {}
    entries = []
    for task, ((_, target, device), of_task) in enumerate(zip(keys, sources, strict=True)):
        for name, times in (of_task or {"": 1}).items():
            column = columns.setdefault((name, target, device), len(columns))
            entries.append((task, column, float(times)))
    weight = np.zeros((len(keys), len(columns)))
    for task, column, weighs in entries:
        weight[task, column] = weighs
    return weight, tuple(name for name, _, _ in columns)


def _mean(weight: Floats, values: Floats) -> Floats:
    """Return the weighted mean along the last axis, without NaN values."""
    known = ~np.isnan(values)
    total = np.sum(weight * known, axis=-1)
    summed = np.sum(weight * np.where(known, values, 0.0), axis=-1)
    return np.where(total > 0, summed / np.where(total > 0, total, 1.0), np.nan)


def _interval(value: float, drawn: Floats) -> Interval:
    """Return where a figure may lie, by how far its resamples are from their own mean.

    Not by where they are: a resample lacks a third of the workloads, which raises the top-k score
    of a network whose worst choices are few, so that the figure itself may be outside.
    """
    if np.isnan(drawn).all():
        return Interval(value, np.nan, np.nan)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.nanquantile(drawn - np.nanmean(drawn), [tail, 1 - tail])
    # Where all resamples agree, rounding would put the figure itself outside.
    return Interval(value, value + min(float(low), 0.0), value + max(float(high), 0.0))
