"""Writes a campaign's report: ``report.json``, ``report.html`` and the plots it shows.

Run as a job with a spec of ``{"summary": {...}, "out_dir": DIR}``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from coordinator.report.metrics import online_pca
from coordinator.report.page import group_key, render_page
from coordinator.report.plots import draw_plots


def write_report(summary: dict[str, Any], folder: Path) -> None:
    """Write the report of a summary into a folder."""
    plots: dict[str, dict[str, Path]] = {}
    for index, group in enumerate(summary["groups"]):
        prefix = f"{index}-" if len(summary["groups"]) > 1 else ""
        plots[group_key(group)] = draw_plots(group, folder / "plots", prefix)
    every = [p for group in summary["groups"] for p in group["predictions"]]
    online = online_pca(every)
    summary["cost_model"]["pca_online"] = online
    (folder / "report.html").write_text(render_page(summary, plots, online), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def main() -> None:
    """Run the job named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    spec = json.loads(args.spec.read_text())
    write_report(spec["summary"], Path(spec["out_dir"]))
    args.out.write_text(json.dumps({"written": True}))


if __name__ == "__main__":
    main()
