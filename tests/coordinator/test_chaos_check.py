"""The chaos bench's witness and checks: each kind of damage is found, and nothing where none is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import KEY, NOW, campaign, device, lease, task, trial

from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import CampaignState
from coordinator.state.sql import open_store
from scripts.benches.chaos_check import Verdict, check_home
from scripts.benches.chaos_journal import Journal, read_journals
from tunefleet.lease_conversions import lease_to_proto
from tunefleet.leases import Lease, RoundSpec

ASKED = Lease("l-1", 1, 60.0, "c-1", RoundSpec(KEY.workload, "1" * 64, KEY.target, 2, seed=1))
ACKNOWLEDGED = [trial(number).trial_id for number in (1, 2)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A coordinator's home with two trials of a campaign that is done."""
    place = Home(tmp_path)
    place.create()
    digest = BlobStore(place.blobs_dir).put(b"workload")
    store = open_store(place.database_url)
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease(message=lease_to_proto(ASKED).SerializeToString()))
    store.ingest_trials("id-pi4", "l-1", 1, [trial(1), trial(2)], NOW)
    store.update_campaign("c-1", [], state=CampaignState.DONE)
    store.close()
    # The samples' digests are made up.
    change(tmp_path, "UPDATE tasks SET workload_digest = ?", digest)
    change(tmp_path, "UPDATE campaigns SET spec = json_set(spec, '$.model_digest', ?)", digest)
    return tmp_path


def change(home: Path, statement: str, *values: str) -> None:
    """Do what no coordinator does."""
    with closing(sqlite3.connect(home / "tunefleet.db")) as connection, connection:
        connection.execute(statement, values)


def check(home: Path) -> Verdict:
    """Check the home against what was acknowledged."""
    return check_home(home, ACKNOWLEDGED, ["c-1"])


def test_nothing_is_wrong_where_nothing_happened(home: Path) -> None:
    assert check(home) == Verdict(trials=2, campaigns={"c-1": "done"})


def test_an_acknowledged_trial_that_is_not_stored_is_lost(home: Path) -> None:
    assert check_home(home, [*ACKNOWLEDGED, "t-3"], ["c-1", "c-2"]).lost == ["t-3"]
    assert check_home(home, [], ["c-1", "c-2"]).lost_campaigns == ["c-2"]


def test_a_trial_without_its_trace_is_lost(home: Path) -> None:
    change(home, "DELETE FROM trial_payloads WHERE trial_seq = 1")
    assert check(home).lost == [ACKNOWLEDGED[0]]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET candidate = (SELECT candidate FROM trials WHERE seq = 1)",
        "UPDATE leases SET trials = trials + 1",
        "UPDATE devices SET trials = trials + 1",
        "UPDATE tasks SET trials = trials + 1",
        "UPDATE tasks SET measured = measured - 1",
        "UPDATE record_sets SET best_s = 1.0",
    ],
)
def test_what_is_counted_twice_or_wrongly_is_found(home: Path, statement: str) -> None:
    change(home, statement)
    assert check(home).duplicated


def test_a_collection_may_count_what_was_there_before(home: Path) -> None:
    change(home, "UPDATE campaigns SET spec = json_set(spec, '$.purpose', 'collect')")
    change(home, "UPDATE tasks SET trials = trials + 5, measured = measured + 4")
    assert check(home).duplicated == []
    change(home, "UPDATE tasks SET trials = 1")
    assert check(home).duplicated


def test_rows_that_name_what_is_not_there_are_damage(home: Path) -> None:
    change(home, "DELETE FROM devices")
    assert check(home).damaged


def test_blobs_that_are_missing_or_spoiled_are_damage(home: Path) -> None:
    [blob] = [path for path in (home / "blobs").glob("*/*") if path.is_file()]
    blob.chmod(0o600)
    blob.write_bytes(b"spoiled")
    assert "spoiled" in check(home).damaged[0]
    blob.unlink()
    assert "missing" in check(home).damaged[0]


def test_failed_campaigns_say_why(home: Path) -> None:
    change(home, "UPDATE campaigns SET state = 'failed', error_message = ?", "no reason")
    assert "no reason" in check(home).errors["c-1"]


def test_tasks_of_finished_campaigns_without_a_measurement_are_told(home: Path) -> None:
    change(home, "UPDATE record_sets SET best_s = NULL")
    assert check(home).unmeasured == ["conv2d of c-1"]


def test_a_lease_with_more_trials_than_it_asked_for_is_told(home: Path) -> None:
    change(home, "UPDATE leases SET trials = 3")
    assert check(home).excessive == ["round l-1 asked for 2, and has 3"]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that is kept."""
    with Journal(tmp_path / "agent.journal") as kept:
        yield kept


def test_a_journal_keeps_what_was_acknowledged_and_suffered(
    journal: Journal, tmp_path: Path
) -> None:
    journal.acknowledged(["t-1", "t-2"], [("t-3", "too late")])
    journal.fault("late", "ReportTrials")
    journal.acknowledged(["t-2"], [])
    witness = read_journals([tmp_path / "agent.journal"])
    assert witness.acknowledged == {"t-1", "t-2"}
    assert witness.rejected == {"t-3": "too late"}
    assert witness.faults == {"late": 1}


def test_half_a_line_at_the_end_is_of_a_call_that_was_never_answered(
    journal: Journal, tmp_path: Path
) -> None:
    path = tmp_path / "agent.journal"
    journal.acknowledged(["t-1"], [])
    with path.open("a") as file:
        file.write('{"stored": ["t-')
    assert read_journals([path]).acknowledged == {"t-1"}
    with path.open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(ValueError, match="Unterminated"):
        read_journals([path])
