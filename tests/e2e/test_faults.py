"""What a campaign survives: a pause, its coordinator killed, its agent killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, eventually
from tests.e2e.test_campaign import online

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def begin(fleet: Fleet, network: Path, trials: int) -> None:
    """Start an agent and a campaign, and wait for its first trials."""
    fleet.start_agent("one")
    eventually("the agent's profile", lambda: online(fleet) == ["one"])
    done = fleet.tunefleet(
        *("tune", str(network), "--trials", str(trials), "--min-gain", "0", "--detach")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    eventually("the first trials", lambda: len(fleet.trials()) >= 10)


def finish(fleet: Fleet) -> None:
    """Wait for the campaign's end."""
    done = fleet.tunefleet("campaigns", "watch", fleet.only_campaign())
    assert done.returncode == 0, done.stdout + done.stderr


def outbox(fleet: Fleet, agent: str) -> set[str]:
    """Trials that are on the agent's disk."""
    with sqlite3.connect(fleet.folder / agent / "outbox.db") as connection:
        return {row[0] for row in connection.execute("SELECT trial_id FROM trial")}


def test_a_campaign_rests_when_paused_and_outlives_its_coordinator_and_its_agent(
    fleet: Fleet, network: Path
) -> None:
    begin(fleet, network, trials=52)
    campaign = fleet.only_campaign()
    assert fleet.tunefleet("campaigns", "pause", campaign).returncode == 0
    eventually("the running round's end", lambda: not fleet.active_leases())
    resting = len(fleet.trials())
    assert "paused" in str(fleet.json("campaigns", "show", campaign)).lower()
    assert len(fleet.trials()) == resting
    assert fleet.tunefleet("campaigns", "resume", campaign).returncode == 0
    eventually("more trials", lambda: len(fleet.trials()) > resting)

    coordinator, agent = fleet.coordinator, fleet.agents["one"]
    assert coordinator is not None
    coordinator.kill()
    acknowledged = {t.trial_id for t in fleet.trials()}
    assert agent.alive()
    fleet.start_coordinator()
    eventually("further trials", lambda: len(fleet.trials()) >= len(acknowledged) + 10)
    assert agent.alive(), "an agent waits for its coordinator"

    agent.kill()
    measured = {t.trial_id for t in fleet.trials()} | outbox(fleet, "one")
    fleet.start_agent("one")
    finish(fleet)

    stored = [t.trial_id for t in fleet.trials()]
    assert acknowledged | measured <= set(stored)
    assert len(stored) == len(set(stored))
    assert outbox(fleet, "one") == set()
