"""Collecting for learning: real sampling, real targets, and a coordinator that dies on the way."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.fleet import Fleet, eventually
from tests.e2e.test_campaign import online

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SSE = "llvm -mcpu=x86-64-v2 -num-cores=1"
AVX2 = "llvm -mcpu=x86-64-v3 -num-cores=1"


@pytest.mark.slow
def test_a_collection_covers_every_task_evenly_and_survives_its_coordinator(fleet: Fleet) -> None:
    fleet.start_agent("one")
    eventually("the agent's profile", lambda: online(fleet) == ["one"])
    started = fleet.json(
        *("collect", "--families", "dense,reduction", "--workloads", "2", "--per-task", "5"),
        *("--target", SSE, "--target", AVX2, "--detach"),
    )
    [campaign] = started["campaigns"]
    assert (campaign["purpose"], campaign["trials_per_task"]) == ("collect", 5)

    eventually("the first trials", lambda: len(fleet.trials()) >= 6)
    coordinator = fleet.coordinator
    assert coordinator is not None
    coordinator.kill()
    acknowledged = {t.trial_id for t in fleet.trials()}
    fleet.start_coordinator()
    watched = fleet.tunefleet("campaigns", "watch", campaign["campaign_id"])
    assert watched.returncode == 0, watched.stdout + watched.stderr

    trials = fleet.trials()
    assert acknowledged <= {t.trial_id for t in trials}
    assert len({t.key for t in trials}) == len(trials)
    by_task = Counter((t.workload, t.target) for t in trials)
    assert len(by_task) == 8
    assert {target for _, target in by_task} == set(campaign["targets_requested"])
    shown = fleet.json("campaigns", "show", campaign["campaign_id"])["campaign"]
    assert shown["state"] == "done"
    # A round that was cut off may be made up for by a whole one; some spaces hold less.
    assert all(5 <= task["trials"] <= 10 or task["exhausted"] for task in shown["tasks"])
    assert max(by_task.values()) >= 5
    assert {source for task in shown["tasks"] for source in task["sources"]} == {
        "dense",
        "reduction",
    }
    assert shown["artifacts"] == []
