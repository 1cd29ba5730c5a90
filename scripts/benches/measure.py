"""Measuring: how many trials a minute, and what they are worth, beside stock MetaSchedule.

The same candidates, seeded random ones of four tasks of squeezenet and resnet50 that were imported
as a coordinator does, are measured by an agent's worker and by MetaSchedule's LocalBuilder and
LocalRunner, with the same threads and the same target. Stock comes in two ways: as shipped, on a
few candidates only since each costs it over ten seconds, and cured of its slow import.

``--part throughput``: with the stopping rule ``trials_per_minute``, ``ratio_vs_stock``,
``ratio_vs_stock_cured``; with stock's samples (number=3, repeat=1, min_repeat_ms=100) the same with
the suffix ``_fixed``. ``share_of_limit`` is (CPU seconds that the builds took / cores + wall
seconds that the evaluator took) / wall seconds, with stock's samples: what remains to 1 is spent on
neither. ``top_decile_tau``, ``_fixed`` and ``_stock_cured``: Kendall's tau against a long reference
measurement, over the pairs of one task that are both in its fastest tenth by that reference.

``--part repeatability``: candidates are measured twice in separate runs, and once with a busy
neighbour on one core. ``quiet_median_rel_diff`` and ``quiet_p95_rel_diff`` between the first two
(``ok`` in both), ``quiet_kendall_tau`` within tasks, ``busy_median_rel_diff_ok`` of those that are
``ok`` in the third against the first two, ``busy_flagged_share`` of those that are not; the same of
cured stock, which flags nothing, with the suffix ``_stock``.

Nothing else should run on the machine meanwhile. Starting processes for the first time is counted
for neither side, starting them anew for each batch, as stock does, is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from agent.profile.static import read_static_profile
from scripts.benches.harness import Figure, figure, note
from scripts.benches.measure_candidates import BenchTask, prepare_tasks
from scripts.benches.measure_ours import (
    REFERENCE,
    STOCK_SAMPLES,
    STOPPING_RULE,
    busy_neighbour,
    measure_ours,
)
from scripts.benches.measure_rows import (
    Measured,
    Row,
    interval_of_mean,
    merge,
    pairs_in_order,
    relative_differences,
)
from scripts.benches.measure_stock import measure_stock
from tunefleet.leases import MeasurePolicy
from tunefleet.targets import derive_target

_PARTS = ("throughput", "repeatability")
_PER_TASK = {"throughput": 50, "repeatability": 25}
_PER_TASK_QUICK = {"throughput": 6, "repeatability": 4}
_SHIPPED_STOCK = 4
"""Candidates measured by stock as shipped."""
_REFERENCE_ROUNDS = 3
"""Passes of the reference over all candidates: what drifts in minutes averages out."""
_TOP_SHARE = 0.1
_TOP_LEAST = 3
"""A tenth of a few candidates has no order."""


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Measure.

    Args:
        quick: a few candidates a task, and one pass of the reference.
        arguments: ``--part`` one of the two (default: both), ``--per-task N`` candidates,
            ``--seed``, ``--folder`` for what is kept: a second call with the same folder goes on
            where the first was interrupted.

    Returns:
        Figures by name; shares and relative differences as fractions of 1.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench measure", description=__doc__)
    parser.add_argument("--part", choices=_PARTS, action="append")
    parser.add_argument("--per-task", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="tunefleet-measure-") as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        for part in options.part or _PARTS:
            per_task = options.per_task or (_PER_TASK_QUICK if quick else _PER_TASK)[part]
            if per_task < _TOP_LEAST:
                parser.error(f"--per-task must be at least {_TOP_LEAST}")
            place = folder / f"{part}-{per_task}-{options.seed}"
            target = derive_target(read_static_profile())
            tasks = prepare_tasks(place / "tasks", target, per_task, options.seed)
            bench = _Bench(place, tasks, target, quick=quick)
            made = bench.throughput() if part == "throughput" else bench.repeatability()
            note(f"measure: {part}: {json.dumps(made)}")
            figures |= made
    return figures


class _Bench:
    """One part on one set of candidates, each step's result kept in a file."""

    def __init__(
        self, folder: Path, tasks: Sequence[BenchTask], target: str, *, quick: bool
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._target = target
        self._threads = len(os.sched_getaffinity(0))
        self._rounds = 1 if quick else _REFERENCE_ROUNDS

    def throughput(self) -> dict[str, Figure]:
        rule, fixed, cured = [], [], []
        # Task by task, so that a machine that drifts does so for all.
        for number, task in enumerate(self._tasks):
            rule.append(self._ours(f"rule-{number}", task, STOPPING_RULE))
            fixed.append(self._ours(f"fixed-{number}", task, STOCK_SAMPLES))
            cured.append(self._stock(f"cured-{number}", task))
        few = replace(self._tasks[0], traces=self._tasks[0].traces[:_SHIPPED_STOCK])
        shipped = self._stock("shipped", few, cured=False)
        reference = self._reference()
        figures = {}
        for suffix, ours in (("", rule), ("_fixed", fixed)):
            rates = [_rate(part) for part in ours]
            figures |= {
                f"trials_per_minute{suffix}": _overall(_rate(merge(ours)), rates),
                f"ratio_vs_stock{suffix}": _overall(_rate(merge(ours)) / _rate(shipped), []),
                f"ratio_vs_stock_cured{suffix}": _overall(
                    _rate(merge(ours)) / _rate(merge(cured)),
                    [mine / _rate(theirs) for mine, theirs in zip(rates, cured, strict=True)],
                ),
                f"ok_share{suffix}": figure([_ok_share(merge(ours).rows)]),
            }
        figures |= {
            "trials_per_minute_stock": figure([_rate(shipped)]),
            "trials_per_minute_stock_cured": _overall(
                _rate(merge(cured)), [_rate(part) for part in cured]
            ),
            "share_of_limit": _overall(
                self._share_of_limit(merge(fixed)), [self._share_of_limit(p) for p in fixed]
            ),
        }
        for suffix, parts in (("", rule), ("_fixed", fixed), ("_stock_cured", cured)):
            figures[f"top_decile_tau{suffix}"] = _top_tau(reference, parts)
        return figures

    def repeatability(self) -> dict[str, Figure]:
        figures: dict[str, Figure] = {}
        one_by_one = [(number, task) for number, task in enumerate(self._tasks)]
        ways: dict[str, Callable[[str], list[Measured]]] = {
            "": lambda name: self._ours_all(f"rule-{name}", STOPPING_RULE),
            "_stock": lambda name: [self._stock(f"cured-{name}-{n}", t) for n, t in one_by_one],
        }
        for suffix, measure in ways.items():
            first, second = measure("first"), measure("second")
            with nullcontext() if self._has(suffix) else busy_neighbour():
                busy = measure("busy")
            figures |= {
                f"{name}{suffix}": value for name, value in _repeats(first, second, busy).items()
            }
        return figures

    def _has(self, suffix: str) -> bool:
        name = "rule-busy" if not suffix else f"cured-busy-{len(self._tasks) - 1}"
        return (self._folder / f"{name}.json").exists()

    def _share_of_limit(self, measured: Measured) -> float:
        return (measured.build_cpu_s / self._threads + measured.kernel_s) / measured.wall_s

    def _reference(self) -> list[dict[str, float]]:
        """Return the median over the rounds of each candidate's latency, by task."""
        rounds = [
            self._ours_all(f"reference-{number}", REFERENCE) for number in range(self._rounds)
        ]
        return [
            {
                name: statistics.median(parts[index].rows[name].latency_s for parts in rounds)
                for name in rounds[0][index].rows
            }
            for index in range(len(self._tasks))
        ]

    def _ours(self, name: str, task: BenchTask, policy: MeasurePolicy) -> Measured:
        return self._kept(name, lambda: self._measure_ours([task], policy))[0]

    def _ours_all(self, name: str, policy: MeasurePolicy) -> list[Measured]:
        return self._kept(name, lambda: self._measure_ours(self._tasks, policy))

    def _measure_ours(self, tasks: Sequence[BenchTask], policy: MeasurePolicy) -> list[Measured]:
        return measure_ours(tasks, self._target, policy, self._folder / "worker")

    def _stock(self, name: str, task: BenchTask, *, cured: bool = True) -> Measured:
        def measure() -> list[Measured]:
            place = self._folder / name
            return [measure_stock(task, self._target, self._threads, place, cured=cured)]

        return self._kept(name, measure)[0]

    def _kept(self, name: str, measure: Callable[[], list[Measured]]) -> list[Measured]:
        path = self._folder / f"{name}.json"
        if path.exists():
            return [Measured.from_json(values) for values in json.loads(path.read_text())]
        note(f"measure: {self._folder.name}: {name}")
        result = measure()
        path.write_text(json.dumps([part.to_json() for part in result]))
        for part in result:
            note(f"measure: {_rate(part):.0f} trials a minute, {_ok_share(part.rows):.0%} ok")
        return result


def _repeats(
    first: Sequence[Measured], second: Sequence[Measured], busy: Sequence[Measured]
) -> dict[str, Figure]:
    one, two, three = merge(first).rows, merge(second).rows, merge(busy).rows
    quiet = relative_differences(one, two, both_ok=True)
    signs = [
        sign
        for left, right in zip(first, second, strict=True)
        for sign in pairs_in_order(_latencies(left), _latencies(right))
    ]
    calm = {
        name: Row("ok", (*one[name].samples_s, *two[name].samples_s))
        for name in one
        if "ok" in (one[name].verdict, two[name].verdict)
    }
    disturbed = relative_differences(calm, three, both_ok=True)
    figures = {
        "quiet_ok_share": figure([_ok_share(one), _ok_share(two)]),
        "quiet_kendall_tau": _figure_of_mean(signs),
        "busy_flagged_share": figure([1 - _ok_share(three)]),
        "busy_ok": figure([len(disturbed)]),
    }
    if quiet:
        figures["quiet_median_rel_diff"] = figure([statistics.median(quiet)])
        figures["quiet_p95_rel_diff"] = figure([_quantile(quiet, 0.95)])
    if disturbed:
        figures["busy_median_rel_diff_ok"] = figure([statistics.median(disturbed)])
        figures["busy_p95_rel_diff_ok"] = figure([_quantile(disturbed, 0.95)])
    return figures


def _top_tau(reference: Sequence[Mapping[str, float]], parts: Sequence[Measured]) -> Figure:
    signs: list[int] = []
    for truth, measured in zip(reference, parts, strict=True):
        count = max(_TOP_LEAST, round(_TOP_SHARE * len(truth)))
        top = sorted(truth, key=lambda name: truth[name])[:count]
        latencies = _latencies(measured)
        signs += pairs_in_order(
            {name: truth[name] for name in top}, {name: latencies[name] for name in top}
        )
    return _figure_of_mean(signs)


def _figure_of_mean(values: Sequence[float]) -> Figure:
    mean, low, high = interval_of_mean(values)
    return {"value": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


def _overall(value: float, by_task: Sequence[float]) -> Figure:
    """Return a figure over all tasks, with the lowest and the highest of single ones."""
    made = figure([value])
    if len(by_task) > 1:
        made |= {"low": round(min(by_task), 4), "high": round(max(by_task), 4)}
    return made


def _latencies(measured: Measured) -> dict[str, float]:
    return {name: row.latency_s for name, row in measured.rows.items()}


def _rate(measured: Measured) -> float:
    return len(measured.rows) / measured.wall_s * 60


def _ok_share(rows: Mapping[str, Row]) -> float:
    return sum(row.verdict == "ok" for row in rows.values()) / len(rows)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
