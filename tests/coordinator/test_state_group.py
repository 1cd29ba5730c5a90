"""What calls of a group have in common, and what not."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from store_samples import KEY, NOW, OTHER_KEY, device, lease, reason_of, trial

from coordinator.state.records import LeaseState
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Trial


def test_calls_of_a_group_see_what_was_done_before_them(busy_store: Store) -> None:
    with busy_store.group():
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        assert busy_store.tried_candidates(KEY) == {trial(1).candidate}
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        assert busy_store.active_lease("id-pi4") is None


def test_nobody_else_sees_any_of_it_before_all_of_it(url: str, busy_store: Store) -> None:
    with busy_store.group():
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(busy_store.count_trials()))
        reader.start()
        reader.join()
    assert (seen, busy_store.count_trials()) == ([0], 1)


def test_a_refused_call_leaves_the_others_as_they_are(busy_store: Store) -> None:
    busy_store.put_device(device("pi5"))
    with busy_store.group():
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        with pytest.raises(TuneFleetError) as raised:
            busy_store.grant_lease(lease("l-2", 2, "id-pi5"))
        busy_store.grant_lease(lease("l-3", 3, "id-pi5", workload=OTHER_KEY.workload))
    assert reason_of(raised) is Reason.LEASE_LOST
    assert busy_store.count_trials() == 1
    assert busy_store.active_lease("id-pi5").lease_id == "l-3"  # type: ignore[union-attr]


def store_in_group(store: Store, *trials: Trial) -> None:
    """Store trials in calls of their own, whatever becomes of the others."""
    with store.group():
        for each in trials:
            with suppress(UnicodeEncodeError):
                store.ingest_trials("id-pi4", "l-1", 1, [each], NOW)


def test_a_call_that_breaks_undoes_the_group_though_it_was_caught(busy_store: Store) -> None:
    with pytest.raises(UnicodeEncodeError):
        store_in_group(busy_store, trial(1), trial(2, candidate="\ud800"), trial(3))
    assert busy_store.count_trials() == 0
    store_in_group(busy_store, trial(1), trial(3))
    assert busy_store.count_trials() == 2


def test_after_a_group_calls_are_by_themselves_again(busy_store: Store) -> None:
    with busy_store.group():
        busy_store.touch_device("id-pi4", NOW + 1)
    with busy_store.group(), busy_store.group():
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
    busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(2)], NOW)
    assert busy_store.count_trials() == 2


def test_what_a_killed_process_had_not_finished_is_not_there(url: str, busy_store: Store) -> None:
    script = (
        "import os, sys\nfrom store_samples import *\n"
        "from coordinator.state.sql import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "with store.group():\n"
        "    store.ingest_trials('id-pi4', 'l-1', 1, [trial(1)], NOW)\n"
        "with store.group():\n"
        "    store.ingest_trials('id-pi4', 'l-1', 1, [trial(2)], NOW)\n"
        "    os._exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, url], cwd=Path(__file__).parent, check=False
    )
    assert done.returncode == 7
    again = open_store(url)
    assert again.tried_candidates(KEY) == {trial(1).candidate}
    again.close()
