"""A fleet that everything happens to, and that must lose and double nothing.

Several agents and a coordinator, as users start them, work on small campaigns while a seeded
schedule kills and stops any of their processes, cuts, silences and delays their connections, fills
their disks and shifts their clocks, and while the agents' calls are doubled, delayed past others
and robbed of their answers. Then the fleet is left in peace to finish. Beside each agent a journal,
out of reach of all that, keeps which trials the coordinator acknowledged; the coordinator's files
are compared with it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.benches.chaos_campaigns import ENDED, Submitter, campaign_states
from scripts.benches.chaos_check import Verdict, check_home, waiting_trials
from scripts.benches.chaos_faults import Tormentor
from scripts.benches.chaos_fleet import ChaosFleet, chaos_fleet
from scripts.benches.chaos_journal import Witness, read_journals
from scripts.benches.chaos_schedule import MEAN_GAP_S, schedule
from scripts.benches.harness import Figure, figure, note

_PEACE_MINUTES = 15.0
"""For the campaigns under way to finish: minutes of work, unless one hangs."""
_NOTE_EVERY_S = 30.0
_PRINTED = 20
"""Findings of a kind that are shown."""


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Run the chaos.

    Args:
        quick: two minutes of faults and two agents, instead of ten and three.
        arguments: ``--minutes M``, ``--agents N``, ``--seed S``, ``--mean-gap S``, ``--folder
            DIR``.

    Returns:
        Figures by name: counts.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0 if quick else 10.0)
    parser.add_argument("--agents", type=int, default=2 if quick else 3)
    parser.add_argument("--seed", type=int, default=0, help="of the schedule and the campaigns")
    parser.add_argument(
        "--mean-gap", type=float, default=MEAN_GAP_S, help="mean seconds between two faults"
    )
    parser.add_argument("--folder", type=Path, help="for homes and logs, which are then kept")
    options = parser.parse_args(arguments)
    # As Ctrl-C: whatever ends this run ends all that it has started.
    signal.signal(signal.SIGTERM, _interrupt)
    folder: Path = options.folder or Path(tempfile.mkdtemp(prefix="tunefleet-chaos-"))
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with chaos_fleet(folder, options.agents, options.seed) as fleet:
            figures = _run(fleet, options.minutes * 60.0, options.seed, options.mean_gap)
            if options.folder is not None:
                fleet.keep(folder / "kept")
    except KeyboardInterrupt:
        note("chaos: interrupted, everything is ended")
        raise SystemExit(130) from None
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return figures


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(fleet: ChaosFleet, length_s: float, seed: int, mean_gap_s: float) -> dict[str, Figure]:
    if not fleet.mount_disks():
        note("chaos: no small disks may be mounted here, so none is filled")
    fleet.start()
    submitter, tormentor = Submitter(fleet, seed), Tormentor(fleet)
    submitter.start()
    begun = time.monotonic()
    tormentor.torment(schedule(seed, length_s, mean_gap_s), length_s)
    note(f"chaos: {sum(tormentor.inflicted.values())} faults inflicted, now peace")
    submitter.stop()
    _await_end(fleet, tormentor)
    peaceful_s = time.monotonic() - begun - length_s
    orphans = fleet.stop()
    witness = read_journals(path for path in fleet.journals if path.exists())
    verdict = check_home(fleet.home, witness.acknowledged, submitter.accepted)
    outboxes = [fleet.agent_home(name) / "outbox.db" for name in fleet.agents]
    surprises = [text for member in fleet.members for text in member.surprises]
    _tell(verdict, witness, surprises)
    figures = _figures(tormentor, witness, verdict)
    return figures | {
        "undelivered": figure([sum(map(waiting_trials, outboxes))]),
        "orphans": figure([orphans]),
        "ended_by_themselves": figure([len(surprises)]),
        "finished_after_s": figure([peaceful_s]),
    }


def _await_end(fleet: ChaosFleet, tormentor: Tormentor) -> None:
    deadline = time.monotonic() + _PEACE_MINUTES * 60.0
    told = 0.0
    while time.monotonic() < deadline:
        tormentor.look_after()
        states = campaign_states(fleet.home)
        if states is not None and set(states.values()) <= ENDED:
            return
        if time.monotonic() - told > _NOTE_EVERY_S:
            told = time.monotonic()
            note(f"chaos: waiting for campaigns to end: {states}")
        time.sleep(0.5)


def _figures(tormentor: Tormentor, witness: Witness, verdict: Verdict) -> dict[str, Figure]:
    faults = tormentor.inflicted + witness.faults
    # Kills and stops are also counted by whom they hit.
    whole = {kind: count for kind, count in faults.items() if not _is_part(kind)}
    counts = {
        "faults": sum(whole.values()),
        **{f"faults_{kind}": count for kind, count in sorted(faults.items())},
        "trials_acknowledged": len(witness.acknowledged),
        "trials_stored": verdict.trials,
        "lost": len(verdict.lost) + len(verdict.lost_campaigns),
        "duplicated": len(verdict.duplicated),
        "damaged": len(verdict.damaged),
        "rejected": len(witness.rejected.keys() - witness.acknowledged),
        "campaigns_started": len(verdict.campaigns),
        "campaigns_finished": sum(state == "done" for state in verdict.campaigns.values()),
        "tasks_unmeasured": len(verdict.unmeasured),
        "leases_exceeded": len(verdict.excessive),
    }
    return {name: figure([count]) for name, count in counts.items()}


def _is_part(kind: str) -> bool:
    return kind.startswith(("kill_", "stop_"))


def _tell(verdict: Verdict, witness: Witness, surprises: Sequence[str]) -> None:
    """Show what is wrong, for whoever has to find out why."""
    findings = {
        "lost": verdict.lost,
        "campaigns lost": verdict.lost_campaigns,
        "duplicated": verdict.duplicated,
        "damaged": verdict.damaged,
        "rejected": [f"{name}: {why}" for name, why in witness.rejected.items()],
        "not finished": [
            f"{name} is {state}: {verdict.errors.get(name, '')}"
            for name, state in verdict.campaigns.items()
            if state != "done"
        ],
        "unmeasured": verdict.unmeasured,
        "more than asked for": verdict.excessive,
        "ended by themselves": surprises,
    }
    for what, found in findings.items():
        for each in found[:_PRINTED]:
            note(f"chaos: {what}: {each}")
