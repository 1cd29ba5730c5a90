from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from store_samples import KEY, NOW, trial

from coordinator.state.sql import open_store


def test_acknowledged_trials_survive_the_kill_of_who_stored_them(url: str) -> None:
    script = Path(__file__).with_name("store_ingester.py")
    ingester = subprocess.Popen([sys.executable, str(script), url], stdout=subprocess.PIPE)
    assert ingester.stdout is not None
    acknowledged = [line.decode().strip() for line in itertools.islice(ingester.stdout, 25)]
    ingester.kill()
    rest, _ = ingester.communicate()
    # The last line may be cut off.
    acknowledged += rest.decode().split("\n")[:-1]

    store = open_store(url)
    count = len(acknowledged)
    stored = store.count_trials("c-1")
    assert stored in {count, count + 1}
    assert acknowledged == [trial(n).trial_id for n in range(1, count + 1)]
    assert {trial(n).candidate for n in range(1, count + 1)} <= store.tried_candidates(KEY)
    again = store.ingest_trials(
        "id-pi4", "l-1", 1, [trial(n) for n in range(1, stored + 1)], NOW + 1
    )
    assert (again.new, again.rejected) == (0, {})
    assert store.task_progress("c-1")[0].trials == stored
    store.close()
