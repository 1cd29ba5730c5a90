"""Time to quality: how soon a network is as fast as after a whole run of stock MetaSchedule.

For each network stock tunes for ``--trials-per-task`` times its tasks, and a fresh fleet of ours
(one coordinator, one agent, one campaign) tunes for the same time, once from a base model and once
from none (``_untrained``: candidates are random until the first training). Of the first network
stock comes first, of the next ours, and so on, so that what drifts meets both; ours then gets the
time that stock needed so far, by its trials, and a quarter more, and counts only what it knew by
the end of stock's run. ``--ours-share`` makes all of ours shorter; what it has by then is what
stock's final result is compared with. All of it runs on ``--threads`` cores. Nothing else should
run meanwhile.

Our clock starts when the model is submitted to a fleet that stands ready, stock's when it reads the
model, TVM imported; see :mod:`scripts.benches.quality_ours` and
:mod:`scripts.benches.quality_stock`, which say what each side does. Latencies are end to end, of
modules that take turns.

Figures of each network M: ``stock_s_M``, ``stock_trials_M``, ``stock_failed_share_M``;
``stock_s_to_1pct_M``, when stock's own estimate came within 1 % of its last; ``ours_s_to_match_M``
(bounds: the bracket of the bisection), ``ratio_M`` over ``stock_s_M``, ``trials_ratio_M``,
``matched_M`` (where 0, the ratio counts as 1, and the other two as all that ours had time for);
``ours_s_M``, the time that ours had, and ``ours_trials_M``;
``latency_gain_equal_time_M`` (theirs over ours, with a 90 % interval of the median over turns);
``vs_onnxruntime_M`` (its latency over ours) and ``stock_vs_onnxruntime_M``; ``latency_ms_M``;
``max_abs_err_M``; ``share_search_M``, ``share_build_M``, ``share_run_M``, ``share_other_M`` of our
campaign's wall time; the same of the untrained with the suffix ``_untrained``. Over all:
``ratio_geomean``, ``ratio_max``, ``matched``, ``ahead_of_onnxruntime``, and
``base_workloads_left_out`` with ``base_trials_left_out``: the base model is trained for this run on
the dataset without all workloads that are structurally equal to a task of any of the networks or
were collected from one; ``base_known_tasks``, how many of their tasks the base model was trained on
all the same, is 0 unless ``--base-model`` named another. ``M.png`` and ``M.json`` in the folder
have the curves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.profile.static import read_static_profile
from scripts.benches.harness import Figure, figure, note
from scripts.benches.quality_base import Base, base_without, named_base
from scripts.benches.quality_compare import Compared, compare
from scripts.benches.quality_curve import Run
from scripts.benches.quality_jobs import interruptible, output_of
from scripts.benches.quality_networks import (
    MODELS,
    QualityNetwork,
    prepare_network,
    short_name,
)
from scripts.benches.quality_ours import tune_ours
from scripts.benches.quality_stock import tune_stock
from tunefleet.targets import derive_target

_DATASET = Path(__file__).parents[2] / "datasets" / "zen4-one-core"
_MARGIN = 1.25
_FIRST_GUESS_S = 3.0
"""Of a trial of stock's, where it was not seen yet."""
_ENDLESS_TRIALS = 1000
"""For each task: time ends the campaign, not their number."""
_FREE_OPTIONS = ("folder", "stock_prepared", "no_untrained")
"""Those that a second call on the same folder may change."""
_LLVM_CPU = "import tvm; print(tvm.target.codegen.llvm_get_system_cpu())"


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Measure.

    Args:
        quick: squeezenet alone, two trials a task with a search that is not stock's any more, a
            base model trained for one epoch: it shows that all works, its figures mean nothing.
        arguments: see ``--help``.
    """
    options = _parse(quick, arguments)
    usable = sorted(os.sched_getaffinity(0))
    with interruptible(), tempfile.TemporaryDirectory(prefix="tunefleet-quality-") as scratch:
        os.sched_setaffinity(0, usable[: options.threads])
        try:
            folder = (options.folder or Path(scratch)).absolute()
            return _Bench(options, folder, quick=quick).measure()
        finally:
            os.sched_setaffinity(0, usable)


def _parse(quick: bool, arguments: Sequence[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="scripts/bench time-to-quality")
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        default=["squeezenet"] if quick else list(MODELS),
        metavar="MODEL",
        help=f"of {', '.join(MODELS)}, or paths of ONNX files; default: %(default)s",
    )
    add("--folder", type=Path, help="keeps what is done, in place: the same call goes on")
    add("--threads", type=int, default=cores, help="cores of both sides; default: %(default)s")
    add("--trials-per-task", type=int, default=2 if quick else 24, help="stock's, on average")
    add("--batch", type=int, default=2 if quick else 16, help="stock's, of one task at a time")
    add("--stock-prepared", action="store_true", help="stock tunes the network as we prepare it")
    add("--ours-trials", type=int, help="default: as many as the time allows; 0: our own default")
    add(
        "--ours-share",
        type=float,
        default=1.0,
        help="of stock's time that ours gets: less is quicker, and no figure gains by it; "
        "default: %(default)s",
    )
    add("--no-untrained", action="store_true", help="leave the runs without a base model out")
    add("--dataset", type=Path, default=_DATASET, help="for the base model; default: %(default)s")
    add("--base-model", type=Path, help="take this one, whatever it learned from")
    add("--base-epochs", type=int, default=1 if quick else None, help="default: by the dataset")
    add("--seed", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args(arguments)
    if not 0 < options.ours_share <= 1:
        parser.error("--ours-share must be above 0 and at most 1")
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads must be 1 to {cores}, the cores there are")
    if unknown := [m for m in options.models if m not in MODELS and not Path(m).is_file()]:
        parser.error(f"no network and no ONNX file: {', '.join(unknown)}")
    return options


class _Bench:
    """All networks, one after another; each step's result is kept in the folder."""

    def __init__(self, options: argparse.Namespace, folder: Path, *, quick: bool) -> None:
        self._options = options
        self._folder = folder
        self._quick = quick
        cpu = output_of(_LLVM_CPU)
        self._target = derive_target(replace(read_static_profile(), llvm_cpu=cpu or None))
        self._claim_folder()

    def _claim_folder(self) -> None:
        """Make sure that what the folder keeps was made with the same options.

        Raises:
            SystemExit: it was made with others.
        """
        ours = vars(self._options) | {"target": self._target, "quick": self._quick}
        wanted = {name: str(ours[name]) for name in sorted(ours) if name not in _FREE_OPTIONS}
        kept = self._folder / "options.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            kept.write_text(json.dumps(wanted, indent=1))
        before = json.loads(kept.read_text())
        if before != wanted:
            changed = [name for name in wanted if before.get(name) != wanted[name]]
            raise SystemExit(
                f"{self._folder} holds a run with another {', '.join(changed)}, see {kept}; "
                "name a new folder, or give the options of then"
            )

    def measure(self) -> dict[str, Figure]:
        networks, options = [], self._options
        for named in options.models:
            note(f"time-to-quality: importing {named}")
            place = self._folder / short_name(named) / "network"
            networks.append(prepare_network(named, self._target, place))
        base = self._base(networks)
        trial_s = _FIRST_GUESS_S
        results = []
        for index, network in enumerate(networks):
            # Where an interrupted run has kept stock's result, its time need not be guessed.
            if index % 2 == 0 or (self._stock_folder(network) / "run.json").exists():
                stock = self._stock(network)
                ours = self._both(network, base, stock.seconds * options.ours_share)
            else:
                guess_s = trial_s * len(network.tasks) * options.trials_per_task
                ours = self._both(network, base, guess_s * _MARGIN * options.ours_share)
                stock = self._stock(network)
            trial_s = stock.seconds / max(stock.trials(), 1)
            results.append(self._compare(network, stock, ours))
        return {**base.figures, **_together(results)}

    def _base(self, networks: Sequence[QualityNetwork]) -> Base:
        options = self._options
        if options.base_model is not None:
            return named_base(options.base_model.absolute(), networks)
        return base_without(
            networks, options.dataset, self._folder / "base-model", options.base_epochs
        )

    def _stock(self, network: QualityNetwork) -> Run:
        options = self._options
        note(f"time-to-quality: {network.name} by stock MetaSchedule")
        return tune_stock(
            network,
            self._target,
            options.threads,
            self._stock_folder(network),
            trials_per_task=options.trials_per_task,
            batch=options.batch,
            seed=options.seed,
            prepared=options.stock_prepared,
            quick=self._quick,
        )

    def _stock_folder(self, network: QualityNetwork) -> Path:
        return self._folder / network.name / self._stock_name()

    def _stock_name(self) -> str:
        return "stock-prepared" if self._options.stock_prepared else "stock"

    def _both(self, network: QualityNetwork, base: Base, limit_s: float) -> dict[str, Run]:
        models: dict[str, Path | None] = {"": base.folder, "_untrained": None}
        if self._options.no_untrained:
            del models["_untrained"]
        trials = self._options.ours_trials
        runs = {}
        for suffix, model in models.items():
            note(f"time-to-quality: {network.name} by ours{suffix.replace('_', ', ')}")
            runs[suffix] = tune_ours(
                network,
                self._target,
                self._folder / network.name / f"ours{suffix}",
                base_model=model,
                limit_s=limit_s,
                trials=_ENDLESS_TRIALS * len(network.tasks) if trials is None else trials,
                seed=self._options.seed,
            )
        return runs

    def _compare(self, network: QualityNetwork, stock: Run, ours: dict[str, Run]) -> Compared:
        note(f"time-to-quality: {network.name}: comparing")
        return compare(
            network,
            stock,
            ours,
            self._folder,
            versus=self._stock_name(),
            target=self._target,
            threads=self._options.threads,
        )


def _together(results: Sequence[Compared]) -> dict[str, Figure]:
    figures = {name: made for result in results for name, made in result.figures.items()}
    for suffix in results[0].ratio:
        ratios = [result.ratio[suffix] for result in results]
        figures[f"ratio_geomean{suffix}"] = figure([_geomean(ratios)])
        figures[f"ratio_max{suffix}"] = figure([max(ratios)])
        figures[f"matched{suffix}"] = figure([sum(result.matched[suffix] for result in results)])
    ahead = sum(result.vs_onnxruntime >= 1.0 for result in results)
    return {**figures, "ahead_of_onnxruntime": figure([ahead])}


def _geomean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))
