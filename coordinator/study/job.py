"""The study job: one study of one dataset.

Spec (those marked * may be left out)::

    {"study": name, "place": dataset's folder or file, "folder": where results go,
     "features"*: "stores" or "steps", "per_task"*: int, records of each task of TenSet's,
     "profiles"*: [[TenSet's device or "", file with what it is], ...],
     "seeds"*: [int, ...], "splits"*: [name, ...], "models"*: [name, ...], "share"*: number,
     "threads"*: int, "steps"*: int, the most that a training takes}

The folder gets ``STUDY.md``, ``STUDY.json`` and plots; what is computed on the way is kept in its
subfolder ``cells``, so that a study that is interrupted goes on from there.

Result: ``{"tables": [...], "notes": [text, ...], "unusable": {"count", "named": [{"where", "why"},
...]}, "files": [path, ...]}``, and what was studied.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.costmodel.feature_sets import chosen_features
from coordinator.models.job import Progress, run_job
from tunefleet.client.wording import unusable_lines
from tunefleet.errors import Reason, TuneFleetError


def run_study(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, or INVALID_ARGUMENT where there is no such study.
    """
    # Spinning OpenMP threads that lose their core to another process make a step 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from coordinator.study.opening import open_corpus  # noqa: PLC0415 (torch: seconds)
    from coordinator.study.plots import draw_curves  # noqa: PLC0415
    from coordinator.study.rankers.base import Effort  # noqa: PLC0415
    from coordinator.study.studies.base import Bench, Plan  # noqa: PLC0415
    from coordinator.study.studies.registry import STUDIES  # noqa: PLC0415

    name = str(spec["study"])
    if name not in STUDIES:
        known = ", ".join(STUDIES)
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, f"there is no study {name!r}; there are {known}"
        )
    folder, place = Path(spec["folder"]), Path(spec["place"])
    folder.mkdir(parents=True, exist_ok=True)
    progress(0.0, "reading the dataset")
    features = chosen_features(spec.get("features"))
    if features is not None and name == "features":
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            "the study features compares stores, schedules and steps: there is nothing to choose",
            hint="Leave --features out.",
        )
    opened = open_corpus(
        place,
        features,
        per_task=spec.get("per_task"),
        profiles=spec.get("profiles") or (),
    )
    bench = Bench(opened.corpus, place, folder, progress)
    plan = Plan(
        seeds=tuple(int(seed) for seed in spec.get("seeds", Plan.seeds)),
        share=float(spec.get("share", Plan.share)),
        splits=tuple(spec.get("splits", ())),
        models=tuple(spec.get("models", ())),
        effort=Effort(int(spec.get("threads", len(os.sched_getaffinity(0)))), spec.get("steps")),
    )
    found = STUDIES[name](bench, plan)
    plots = draw_curves(found.curves, folder)
    notes = [*opened.notes, *found.notes]
    about = {
        "study": name,
        "dataset": bench.corpus.name,
        "features": bench.corpus.features.name,
        "trials": len(bench.corpus),
        "workloads": len(bench.corpus.workloads),
        "targets": len(bench.corpus.targets),
        "seeds": list(plan.seeds),
        "notes": notes,
        "unusable": opened.unusable.json(),
    }
    tables = [table.json() for table in found.tables]
    text = "\n".join(
        [
            f"# {name.capitalize()}: {bench.corpus.name}",
            "",
            "{trials} trials, {workloads} workloads, {targets} targets; programs described by "
            "their {features}.".format(**about),
            "",
            *(f"{note}\n" for note in notes),
            *_listed(unusable_lines(opened.unusable.json())),
            *(table.markdown() for table in found.tables),
            *(f"![{curve.title}]({curve.name}.png)" for curve in found.curves),
            "",
        ]
    )
    report, data = folder / f"{name}.md", folder / f"{name}.json"
    report.write_text(text)
    data.write_text(json.dumps({**about, "tables": tables}, indent=1, allow_nan=False) + "\n")
    return {**about, "tables": tables, "files": [str(p) for p in (report, data, *plots)]}


def _listed(lines: list[str]) -> list[str]:
    """Make a Markdown list of a heading and what is indented under it."""
    if not lines:
        return []
    return [lines[0], "", *(f"- {line.strip()}" for line in lines[1:]), ""]


if __name__ == "__main__":
    sys.exit(run_job(run_study))
