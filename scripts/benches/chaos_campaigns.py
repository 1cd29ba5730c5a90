"""Keeps a fleet that is mistreated in work: small campaigns, a few at a time."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from scripts.benches.chaos_fleet import ChaosFleet
from scripts.benches.chaos_network import write_tiny_network
from scripts.benches.harness import note
from tunefleet.client import TuneFleet
from tunefleet.errors import TuneFleetError

AT_A_TIME = 2
"""Campaigns under way: enough for every agent to have work while one is compiled."""
_TUNE_TRIALS = 24
_COLLECT_TRIALS = 8
_POLL_S = 1.0
_NARROWEST, _WIDER = 32, 16
"""Hidden width of the first network, and by how much the next ones grow: new tasks for each."""


class Submitter:
    """Submits campaigns from a thread of its own, as a patient user would."""

    def __init__(self, fleet: ChaosFleet, seed: int) -> None:
        self._fleet = fleet
        self._seed = seed
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.accepted: set[str] = set()
        """Ids of the campaigns that the coordinator said it had begun."""
        self.refused = 0
        """Times that it said nothing, or no."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Submit no more; returns once the last one is submitted or given up."""
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._enough.wait(_POLL_S):
            states = campaign_states(self._fleet.home)
            if states is None or sum(s not in ENDED for s in states.values()) >= AT_A_TIME:
                continue
            try:
                self.accepted.add(self._submit(number))
                number += 1
            except TuneFleetError as e:
                self.refused += 1
                note(f"chaos: campaign {number} not accepted for now: {e.message}")

    def _submit(self, number: int) -> str:
        with TuneFleet(self._fleet.address, credentials=self._fleet.credentials) as client:
            if number % 2:
                return client.collect(
                    families=("dense", "reduction"),
                    workloads=1,
                    per_task=_COLLECT_TRIALS,
                    seed=self._seed + number,
                    name=f"collect-{number}",
                ).id
            width = _NARROWEST + _WIDER * number
            path = write_tiny_network(self._fleet.folder / f"tiny-{width}.onnx", number, width)
            return client.tune(
                path, trials=_TUNE_TRIALS, min_gain=0.0, seed=self._seed, name=f"tune-{number}"
            ).id


ENDED = frozenset({"done", "failed", "cancelled"})


def campaign_states(home: Path) -> dict[str, str] | None:
    """Read the campaigns' states from a coordinator's home, whether it runs or not.

    Returns:
        State by campaign; ``None`` while the database cannot be read.
    """
    try:
        uri = f"file:{home / 'tunefleet.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return dict(connection.execute("SELECT campaign_id, state FROM campaigns").fetchall())
    except sqlite3.Error:
        return None
