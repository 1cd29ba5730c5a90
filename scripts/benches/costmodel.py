"""The cost model: how well it orders trials it has not seen, beside what others use.

On the shipped dataset, or another. Parts:

``splits``: ``SPLIT_METRIC_MODEL`` with SPLIT one of within_task, by_task, by_network, by_target,
unseen_both; METRIC one of pca (share of pairs ordered right), top1, top5 (best latency over the
best among the k best-scored); MODEL one of attention, xgb, xgb_hw, mlp, random and, on the two
splits that hold out a target, attention_128 (fine-tuned with 128 trials of that target on workloads
that are not tested; ``..._attention_0`` is the same model without them on the same tests).
``SPLIT_ahead_of_xgb_hw`` is the difference of PCA on the same tasks.

``pruning``: ``pruned_share_SPLIT`` (strategy ``combined``) and ``pruned_share_SPLIT_random``, the
largest share of the training trials removed at which PCA's interval still covers the whole set's;
by_task, or each ``--prune-split`` that is named (33 trainings each).

``speed``, all on one core: ``rank_2560_s`` (2,560 candidates in onnxruntime, features given),
``rank_ratio_vs_xgb`` (XGBoost's predict on the same candidates over it, pooled features given) and
``rank_steps_2560_s`` (the same candidates as schedule steps, by an untrained model of the same
sizes, steps given); and what preparing candidates of one network's convolution takes:
``features_stores_s_per_1000`` (TVM's extractor on scheduled programs, as agents run it),
``features_row_s_per_1000`` (the schedules' rows from the same), ``features_steps_s_per_1000`` (from
a trace's text) and ``apply_s_per_1000`` (a trace made into a scheduled program, which stores need
and steps do not).

``parity``: ``onnx_torch_max_diff`` over every record and ``onnx_torch_discordant``, the share of
neighbouring pairs within a task that the two order differently.

Intervals are 95 % from resampling workloads; speeds have the lowest and highest of the repeats.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts.benches.harness import Figure, figure, note

_PARTS = ("splits", "pruning", "speed", "parity")
_DATASET = Path(__file__).parents[2] / "datasets" / "zen4-one-core"
_CANDIDATES = 2560
_REPEATS = 7
_METRICS = ("pca", "top1", "top5")
_SPLITS = ("within_task", "by_task", "by_network", "by_target", "unseen_both")
_TARGET_SPLITS = ("by_target", "unseen_both")
_LABELS = 128
_INPUTS = ("features", "mask", "hardware")
"""Of a cost model's ONNX file."""


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Measure.

    Args:
        quick: one seed, and no pruning.
        arguments: ``--part`` (default: all), ``--prune-split``, ``--dataset DIR``, ``--seeds N``,
            ``--folder DIR`` for what is computed on the way: a second call goes on where the first
            was interrupted.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench costmodel", description=__doc__)
    parser.add_argument("--part", choices=_PARTS, action="append")
    parser.add_argument("--dataset", type=Path, default=_DATASET)
    parser.add_argument("--seeds", type=int, default=1 if quick else 3)
    parser.add_argument("--prune-split", choices=_SPLITS, action="append")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from coordinator.study.corpus import load_corpus  # noqa: PLC0415 (torch: seconds)
    from coordinator.study.rankers.base import Effort  # noqa: PLC0415
    from coordinator.study.studies.base import Bench, Plan  # noqa: PLC0415

    parts = options.part or [part for part in _PARTS if not (quick and part == "pruning")]
    with tempfile.TemporaryDirectory(prefix="tunefleet-costmodel-") as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        note(f"costmodel: reading {options.dataset}")
        corpus = load_corpus(options.dataset)
        bench = Bench(corpus, options.dataset, folder, _noting())
        plan = Plan(seeds=tuple(range(options.seeds)), effort=Effort(len(os.sched_getaffinity(0))))
        measure: dict[str, Callable[[Any, Any], dict[str, Figure]]] = {
            "splits": _splits,
            "pruning": partial(_pruning, splits=tuple(options.prune_split or ("by_task",))),
            "speed": _speed,
            "parity": _parity,
        }
        figures: dict[str, Figure] = {}
        for part in parts:
            figures |= measure[part](bench, plan)
    return figures


def _noting() -> Callable[[float, str], None]:
    last = [0.0]

    def progress(share: float, message: str) -> None:
        if time.monotonic() - last[0] > 10.0:
            last[0] = time.monotonic()
            note(f"costmodel: {share:.0%} {message}")

    return progress


def _splits(bench: Any, plan: Any) -> dict[str, Figure]:
    from coordinator.study.evaluation import merge  # noqa: PLC0415
    from coordinator.study.splits import make_split  # noqa: PLC0415
    from coordinator.study.studies.few_labels import with_pool  # noqa: PLC0415
    from coordinator.study.studies.splits import study_splits  # noqa: PLC0415
    from coordinator.study.studies.transfer import Transfer  # noqa: PLC0415

    found = study_splits(bench, plan)
    results, ahead = (table.json()["rows"] for table in found.tables)
    figures = {
        f"{row['split']}_{metric}_{row['model']}": _bounded(row[metric])
        for row in results
        for metric in _METRICS
    }
    for row in ahead:
        figures[f"{row['split']}_ahead_of_{row['against']}"] = _bounded(row["pca"])
    book = bench.workbook(2 * len(_TARGET_SPLITS) * len(plan.seeds))
    for name in _TARGET_SPLITS:
        parts = [
            Transfer(book, plan, with_pool(bench.corpus, make_split(name, bench.corpus, seed)))
            for seed in plan.seeds
        ]
        for labels in (0, _LABELS):
            intervals = merge([part.judge("attention", labels) for part in parts]).intervals()
            for metric in _METRICS:
                interval = intervals[metric]
                figures[f"{name}_{metric}_attention_{labels}"] = _bounded(
                    {"value": interval.value, "low": interval.low, "high": interval.high}
                )
    return figures


def _pruning(bench: Any, plan: Any, splits: tuple[str, ...]) -> dict[str, Figure]:
    from dataclasses import replace  # noqa: PLC0415

    from coordinator.study.studies.pruning import study_pruning  # noqa: PLC0415

    found = study_pruning(bench, replace(plan, splits=splits, models=("combined", "random")))
    suffix = {"combined": "", "random": "_random"}
    return {
        f"pruned_share_{row['split']}{suffix[row['strategy']]}": figure([row["removed"]])
        for row in found.tables[1].json()["rows"]
    }


def _speed(bench: Any, _plan: Any) -> dict[str, Figure]:
    import numpy as np  # noqa: PLC0415
    import xgboost  # noqa: PLC0415

    from agent.search.ranker import Ranker  # noqa: PLC0415
    from coordinator.study.rankers.pooled import TreeConfig, TreeRanker, pool  # noqa: PLC0415
    from scripts.benches.preparing import preparing_figures  # noqa: PLC0415

    arrays = bench.corpus.arrays
    rows = np.resize(np.random.default_rng(0).permutation(len(arrays)), _CANDIDATES)
    rank_steps = _steps_ranking(bench, rows)
    programs = [
        arrays.features[arrays.first_store[row] : arrays.first_store[row] + arrays.stores[row]]
        for row in rows
    ]
    model = _base()
    ranker = Ranker(_exported(model, bench.folder), threads=1)
    hardware = arrays.hardware[rows[0]].tolist()
    trees = TreeRanker(True, 0, TreeConfig(threads=1))
    trees.fit(arrays, np.arange(len(arrays)))
    pooled = np.concatenate([pool(arrays, rows), arrays.hardware[rows]], axis=1)
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        ours, theirs, by_steps = [], [], []
        for _ in range(_REPEATS):
            ours.append(_timed(lambda: ranker.rank(programs, hardware)))
            by_steps.append(_timed(rank_steps))
            theirs.append(_timed(lambda: trees.booster.predict(xgboost.DMatrix(pooled, nthread=1))))
        preparing = preparing_figures(bench.place)
    finally:
        os.sched_setaffinity(0, allowed)
    return {
        "rank_2560_s": figure(ours),
        "rank_ratio_vs_xgb": figure([b / a for a, b in zip(ours, theirs, strict=True)]),
        "rank_steps_2560_s": figure(by_steps),
        **preparing,
    }


def _steps_ranking(bench: Any, rows: Any) -> Callable[[], object]:
    """Make what ranks candidates by their steps, all at once, as agents rank by stores."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from coordinator.costmodel.feature_sets import STEPS  # noqa: PLC0415
    from coordinator.costmodel.model import CostModel  # noqa: PLC0415
    from coordinator.study.step_corpus import step_arrays  # noqa: PLC0415

    note("costmodel: reading schedule steps")
    numbers, of_row = np.unique(rows, return_inverse=True)
    arrays = step_arrays(bench.place, bench.corpus.take(numbers))
    model = CostModel(STEPS.sized(_base().config))
    some = (torch.from_numpy(part) for part in arrays.padded(np.arange(len(numbers))))
    model.normaliser.fit(*some)
    session = _session(_exported(model, bench.folder, "steps.onnx"), threads=1)

    def rank() -> object:
        inputs = dict(zip(_INPUTS, arrays.padded(of_row), strict=True))
        return session.run(["score", "spread"], inputs)

    return rank


def _parity(bench: Any, _plan: Any) -> dict[str, Figure]:
    import numpy as np  # noqa: PLC0415

    from coordinator.costmodel.train import score  # noqa: PLC0415

    arrays = bench.corpus.arrays
    model = _base()
    session = _session(_exported(model, bench.folder))
    found = np.zeros(len(arrays))
    for start in range(0, len(arrays), 512):
        rows = np.arange(start, min(start + 512, len(arrays)))
        inputs = dict(zip(_INPUTS, arrays.padded(rows), strict=True))
        found[rows] = session.run(["score"], inputs)[0]
    wanted = score(model, arrays)
    order = np.lexsort((wanted, arrays.group))
    together = np.diff(arrays.group[order]) == 0
    swapped = np.diff(found[order])[together] < 0
    return {
        "onnx_torch_max_diff": {"value": float(f"{np.abs(found - wanted).max():.2g}")},
        "onnx_torch_discordant": figure([float(swapped.mean())]),
    }


def _base() -> Any:
    """Return the base model shipped with the project, whose speed and parity matter."""
    from coordinator.costmodel.base_model import base_checkpoint  # noqa: PLC0415

    return base_checkpoint().build()


def _exported(model: Any, folder: Path, name: str = "model.onnx") -> Path:
    from coordinator.costmodel.export import export  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    return export(model, folder / name, "bench").path


def _session(path: Path, threads: int = 0) -> Any:
    """Open a model in onnxruntime, by default with as many threads as it likes."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def _bounded(interval: dict[str, float]) -> Figure:
    return {name: round(interval[name], 4) for name in ("value", "low", "high")}


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
