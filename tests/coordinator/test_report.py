"""The report of a campaign, from records in a real store to files a person opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import FINGERPRINT, KEY, NOW, TARGET, campaign, device, lease, model, task, trial

from coordinator.campaigns.summary import campaign_summary
from coordinator.report.job import write_report
from coordinator.report.metrics import online_pca
from coordinator.state.records import GroupRecord, LeaseState
from coordinator.state.sql import open_store
from coordinator.state.store import Store

GROUP = GroupRecord(
    TARGET,
    FINGERPRINT,
    "4" * 64,
    "5" * 64,
    benchmark_s={"untuned": (0.3,), "tuned": (0.1, 0.11, 0.5), "onnxruntime": (0.1,)},
    max_abs_err=2e-7,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    made.put_device(device("pi4"))
    ended = {"tuning_s": 60.0, "tuning_ended": "all trials were made"}
    made.create_campaign(campaign(groups=(GROUP,), trials_wanted=8, **ended), "")
    made.add_tasks("c-1", [task(name="conv<2d>")])
    made.grant_lease(lease())
    baseline = trial(9, trace="[[],[]]", candidate=KEY.workload, predicted=None)
    report = [baseline, *(trial(n) for n in (5, 7, 2, 3, 4))]
    for at, one in enumerate(report):
        made.ingest_trials("id-pi4", "l-1", 1, [one], NOW + at)
    made.end_lease("l-1", 1, LeaseState.DONE, phase_seconds={"search": 1.5, "measure": 2.5})
    made.add_model_version(model("v1"))
    yield made
    made.close()


def test_the_summary_follows_the_campaign(store: Store) -> None:
    summary = campaign_summary(store, "c-1")
    [group] = summary["groups"]
    [only] = group["tasks"]
    assert summary["trials"] == 6
    assert (summary["tuning_ended"], summary["min_gain"]) == ("all trials were made", 0.001)
    assert summary["phase_seconds"] == {"search": 1.5, "measure": 2.5}
    assert group["devices"] == ["pi4"]
    assert group["latency_ms"] == {"untuned": 300.0, "tuned": 110.0, "onnxruntime": 100.0}
    assert only["untuned_us"] == pytest.approx(9000)
    assert only["tuned_us"] == pytest.approx(2000)
    # The task's weight is 3; the curve never rises.
    assert [p["latency_ms"] for p in group["curve"]] == pytest.approx([27, 15, 15, 6, 6, 6])
    assert len(group["predictions"]) == 5


def test_the_report_is_one_page_with_its_plots(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_report(campaign_summary(store, "c-1"), folder)
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "conv&lt;2d&gt;" in page, "names must be escaped"
    assert "110 ms" in page
    assert "Tuning ended: all trials were made." in page
    report = json.loads((folder / "report.json").read_text())
    assert report["cost_model"]["pca_online"] == 1.0
    assert sorted(p.name for p in (folder / "plots").iterdir()) == [
        "latency-over-time.png",
        "predicted-against-measured.png",
        "tasks-before-and-after.png",
    ]


def prediction(workload: str, predicted: float, latency_us: float) -> dict[str, object]:
    return {
        "workload": workload,
        "model_version": "v1",
        "predicted": predicted,
        "latency_us": latency_us,
    }


def test_pairs_of_different_tasks_are_not_compared() -> None:
    assert online_pca([prediction("a", 1.0, 10.0), prediction("b", 2.0, 99.0)]) is None


def test_pairs_within_the_noise_are_not_compared() -> None:
    assert online_pca([prediction("a", 1.0, 10.0), prediction("a", 2.0, 10.1)]) is None


def test_a_tie_of_scores_counts_as_half_right() -> None:
    assert online_pca([prediction("a", 1.0, 10.0), prediction("a", 1.0, 20.0)]) == 0.5


def test_a_reversed_order_is_wrong() -> None:
    assert online_pca([prediction("a", 1.0, 10.0), prediction("a", 2.0, 20.0)]) == 0.0
