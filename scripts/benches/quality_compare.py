"""What one network's runs come to: the figures, the picture, and the curves as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benches.harness import Figure, figure, note
from scripts.benches.quality_compile import compile_known
from scripts.benches.quality_curve import Match, Run, seconds_to_within
from scripts.benches.quality_match import (
    SideBySide,
    Subject,
    median_figure,
    time_side_by_side,
    when_matched,
)
from scripts.benches.quality_networks import QualityNetwork
from scripts.benches.quality_ours import phase_shares
from scripts.benches.quality_plot import draw_runs


@dataclass(frozen=True)
class Compared:
    """One network's figures, and what is summed up over all networks."""

    figures: dict[str, Figure]
    ratio: dict[str, float]
    """Our time to match over stock's time, by the suffix of our run."""
    matched: dict[str, bool]
    vs_onnxruntime: float


def compare(
    network: QualityNetwork,
    stock: Run,
    ours: Mapping[str, Run],
    folder: Path,
    *,
    versus: str,
    target: str,
    threads: int,
) -> Compared:
    """Compare runs of a network, unless the folder has the result already.

    Args:
        network: what was tuned.
        stock: by the other side.
        ours: by the suffix that their figures get; empty for the one from the base model.
        folder: of the bench; gets ``NAME.png`` and ``NAME.json``.
        versus: what the stock run is called in there.
        target: canonical target.
        threads: of all subjects.

    Raises:
        JobError: a network could not be compiled or does not run.
    """
    name = network.name if versus == "stock" else f"{network.name}-{versus}"
    kept = folder / f"{name}.json"
    if kept.exists():
        before = Compared(**json.loads(kept.read_text())["compared"])
        if before.ratio.keys() == ours.keys():
            return before
    work = folder / network.name / f"against-{versus}"
    subjects = [
        Subject("stock", "tvm", Path(stock.library)),
        Subject("onnxruntime", "onnx", network.model),
    ]
    matches: dict[str, Match | None] = {}
    for suffix, run in ours.items():
        place = work / f"ours{suffix}"
        library = compile_known(run, min(run.seconds, stock.seconds), target, place)
        subjects.append(Subject(f"ours{suffix}", "tvm", library))
        matches[suffix] = when_matched(run, stock, network, place, target=target, threads=threads)
    timed = time_side_by_side(subjects, network, threads, work)
    compared = _figures(network.name, stock, ours, matches, timed)
    runs = {"stock": stock, **{f"ours{s.replace('_', ' ')}": run for s, run in ours.items()}}
    measured = {n.replace("_", " "): statistics.median(s) for n, s in timed.samples_s.items()}
    draw_runs(f"{network.name}, {threads} threads", runs, measured, folder / f"{name}.png")
    note(f"time-to-quality: {json.dumps(compared.figures)}")
    curves = {n: [asdict(point) for point in run.curve()] for n, run in runs.items()}
    partial = kept.with_suffix(".partial")
    partial.write_text(
        json.dumps({"compared": asdict(compared), "samples_s": timed.samples_s, "curves": curves})
    )
    partial.replace(kept)
    return compared


def _figures(
    name: str,
    stock: Run,
    ours: Mapping[str, Run],
    matches: Mapping[str, Match | None],
    timed: SideBySide,
) -> Compared:
    failed = sum(event.latency_s is None for event in stock.events) / max(stock.trials(), 1)
    figures: dict[str, Figure] = {
        f"stock_s_{name}": figure([stock.seconds]),
        f"stock_trials_{name}": figure([stock.trials()]),
        f"stock_failed_share_{name}": figure([failed]),
        f"stock_s_to_1pct_{name}": figure([seconds_to_within(stock, 0.01)]),
        f"stock_latency_ms_{name}": _milliseconds(timed, "stock"),
        f"onnxruntime_latency_ms_{name}": _milliseconds(timed, "onnxruntime"),
        f"stock_vs_onnxruntime_{name}": median_figure(timed.ratio("onnxruntime", "stock")),
    }
    ratio: dict[str, float] = {}
    for suffix, run in ours.items():
        made, end = _of_ours(stock, run, matches[suffix], timed, f"ours{suffix}"), f"{name}{suffix}"
        figures |= {f"{key}_{end}": value for key, value in made.items()}
        ratio[suffix] = made["ratio"]["value"]
    return Compared(
        figures,
        ratio,
        {suffix: match is not None for suffix, match in matches.items()},
        figures[f"vs_onnxruntime_{name}"]["value"],
    )


def _of_ours(
    stock: Run, run: Run, match: Match | None, timed: SideBySide, subject: str
) -> dict[str, Figure]:
    return {
        **compare_times(stock, run, match),
        "latency_gain_equal_time": median_figure(timed.ratio("stock", subject)),
        "vs_onnxruntime": median_figure(timed.ratio("onnxruntime", subject)),
        "latency_ms": _milliseconds(timed, subject),
        "max_abs_err": {"value": float(f"{timed.max_abs_err[subject]:.2g}")},
        **{f"share_{phase}": figure([share]) for phase, share in phase_shares(run).items()},
    }


def compare_times(stock: Run, run: Run, match: Match | None) -> dict[str, Figure]:
    """Return the figures of when our run caught up with stock's."""
    spent_s = min(run.seconds, stock.seconds)
    after_s, by_s = (spent_s, spent_s) if match is None else (match.after_s, match.by_s)
    trials = run.trials(by_s)
    bracket = {"value": by_s, "low": after_s, "high": by_s}
    # Without a match nothing is known but that it takes longer than stock's whole run.
    ratio = {k: v / stock.seconds for k, v in bracket.items()} if match else {"value": 1.0}
    return {
        "ours_s_to_match": {key: round(value, 2) for key, value in bracket.items()},
        "ratio": {key: round(value, 4) for key, value in ratio.items()},
        "matched": figure([float(match is not None)]),
        "trials_ratio": figure([trials / max(stock.trials(), 1)]),
        "ours_s": figure([spent_s]),
        "ours_trials": figure([run.trials(spent_s)]),
    }


def _milliseconds(timed: SideBySide, subject: str) -> Figure:
    return median_figure([seconds * 1e3 for seconds in timed.samples_s[subject]])
