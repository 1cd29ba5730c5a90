"""Run as a process: stores trials one by one and says which were acknowledged."""

from __future__ import annotations

import itertools
import sys

from store_samples import NOW, campaign, device, lease, task, trial

from coordinator.state.sql import open_store

store = open_store(sys.argv[1])
store.put_device(device())
store.create_campaign(campaign(), "")
store.add_tasks("c-1", [task()])
store.grant_lease(lease())
for number in itertools.count(1):
    outcome = store.ingest_trials("id-pi4", "l-1", 1, [trial(number)], NOW)
    sys.stdout.write("".join(f"{name}\n" for name in outcome.stored))
    sys.stdout.flush()
