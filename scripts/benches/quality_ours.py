"""Our side: a coordinator and an agent of their own, as users start them, and one campaign.

The fleet stands ready before the clock starts, its agent has measured itself; the clock starts when
the model is submitted and covers its import. What was known when is read from the coordinator's
database afterwards, by the time at which it received each trial.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.benches.harness import await_value, note
from scripts.benches.quality_curve import Event, Run
from scripts.benches.quality_jobs import JobError, child, tail
from scripts.benches.quality_networks import QualityNetwork
from tunefleet.client import TuneFleet
from tunefleet.client.values import CampaignStatus, DeviceState

_START_S = 120.0
_PROFILE_S = 900.0
"""On a busy machine an agent that measures itself waits for calm."""
_NOTE_EVERY_S = 30.0


def tune_ours(
    network: QualityNetwork,
    target: str,
    folder: Path,
    *,
    base_model: Path | None,
    limit_s: float,
    trials: int,
    seed: int,
) -> Run:
    """Tune a network with a new fleet, unless the folder has the result already.

    Args:
        network: what to tune.
        target: canonical target.
        folder: for the homes of both, their logs and the result.
        base_model: folder of the model to begin with; ``None`` for none.
        limit_s: longest time for tuning.
        trials: to measure at the most; 0 lets the coordinator choose.
        seed: of everything random in the campaign.

    Raises:
        JobError: the fleet did not come up or ended.
        TuneFleetError: the campaign failed.
    """
    kept = folder / "run.json"
    if kept.exists():
        return Run.load(kept)
    # What an interrupted run learned would help this one.
    shutil.rmtree(folder, ignore_errors=True)
    with _fleet(folder, "none" if base_model is None else str(base_model)) as address:
        began_unix_s, campaign = _tune(
            address, network, target=target, limit_s=limit_s, trials=trials, seed=seed
        )
    run = _read(folder / "coordinator", campaign, began_unix_s)
    run.save(kept)
    return run


@contextmanager
def _fleet(folder: Path, base_model: str) -> Iterator[str]:
    """Run both until the context ends; yields the address once the device is ready."""
    home = folder / "coordinator"
    serve = ["tunefleet.cli", "serve", "--home", str(home), "--listen", "127.0.0.1:0"]
    with child([*serve, "--base-model", base_model], folder / "coordinator.log") as coordinator:

        def read() -> str | None:
            _require(coordinator.poll(), folder / "coordinator.log")
            path = home / "run" / "address"
            return path.read_text().strip() if path.exists() else None

        address = await_value("the coordinator's address", read, _START_S)
        run = ["agent", "run", "--coordinator", address, "--home", str(folder / "agent")]
        with child([*run, "--name", "bench"], folder / "agent.log") as agent:
            with TuneFleet(address) as fleet:

                def ready() -> bool | None:
                    _require(agent.poll(), folder / "agent.log")
                    devices = fleet.devices()
                    return any(d.state is DeviceState.ONLINE for d in devices) or None

                await_value("a device that has measured itself", ready, _PROFILE_S)
            yield address


def _require(code: int | None, log: Path) -> None:
    if code is not None:
        raise JobError(f"a process of the fleet ended with code {code}: {tail(log)}")


def _tune(
    address: str, network: QualityNetwork, *, target: str, limit_s: float, trials: int, seed: int
) -> tuple[float, str]:
    last = [0.0]

    def told(status: CampaignStatus) -> None:
        if time.monotonic() - last[0] > _NOTE_EVERY_S:
            last[0] = time.monotonic()
            note(f"time-to-quality: {status}")

    with TuneFleet(address) as fleet:
        began_unix_s = time.time()
        campaign = fleet.tune(
            network.model,
            trials=trials,
            time_limit_s=limit_s,
            target=target,
            name=network.name,
            seed=seed,
        )
        campaign.wait(progress=told)
    return began_unix_s, campaign.id


def _read(home: Path, campaign_id: str, began_unix_s: float) -> Run:
    """Read what a campaign knew when from a coordinator's home that nobody uses any more."""
    from sqlalchemy import select  # noqa: PLC0415 (with the store: half a second)

    from coordinator.state.blobs import BlobStore  # noqa: PLC0415
    from coordinator.state.database import Database  # noqa: PLC0415
    from coordinator.state.home import Home  # noqa: PLC0415
    from coordinator.state.rows import unpack  # noqa: PLC0415
    from coordinator.state.sql import open_store  # noqa: PLC0415
    from coordinator.state.tables import record_sets, trial_payloads, trials  # noqa: PLC0415

    place = Home(home)
    blobs = BlobStore(place.blobs_dir)
    store, database = open_store(place.database_url), Database(place.database_url)
    try:
        campaign = store.get_campaign(campaign_id)
        tasks = [progress.task for progress in store.task_progress(campaign_id)]
        phases: Counter[str] = Counter()
        for lease in store.list_leases(campaign_id):
            if lease.workload:
                phases.update(lease.phase_seconds)
        query = (
            select(
                trials.c.received_at,
                trials.c.latency_s,
                record_sets.c.workload,
                trial_payloads.c.trace,
            )
            .join_from(trials, record_sets)
            .join(trial_payloads, trial_payloads.c.trial_seq == trials.c.seq)
            .where(trials.c.campaign_id == campaign_id)
            .order_by(trials.c.seq)
        )
        with database.read() as connection:
            events = tuple(
                Event(
                    row.received_at - began_unix_s,
                    row.workload,
                    row.latency_s,
                    unpack(row.trace).decode(),
                )
                for row in connection.execute(query)
            )
    finally:
        database.close()
        store.close()
    [group] = campaign.groups
    return Run(
        seconds=events[-1].seconds if events else 0.0,
        weights={task.key.workload: task.weight for task in tasks},
        events=events,
        paths={task.key.workload: str(blobs.path(task.workload_digest)) for task in tasks},
        prepared=str(blobs.path(group.prepared_digest)),
        phases={**phases, "tuning": campaign.tuning_s},
    )


def phase_shares(run: Run) -> dict[str, float]:
    """Return the shares of a campaign's wall time: ``search``, ``build``, ``run``, ``other``.

    A round's wall time is its search and its measuring; of the latter, what is not spent running
    candidates is waiting for builds. The rest of the campaign (fetching, between rounds, waiting
    for a training) is other.
    """
    wall = max(run.phases.get("tuning", 0.0), 1e-9)
    # Applying known schedules is what a replay has in place of a search.
    search = run.phases.get("search", 0.0) + run.phases.get("apply", 0.0)
    measure = run.phases.get("measure", 0.0)
    running = min(run.phases.get("run", 0.0), measure)
    shares = {"search": search, "build": measure - running, "run": running}
    return {
        **{name: seconds / wall for name, seconds in shares.items()},
        "other": max(0.0, 1 - (search + measure) / wall),
    }
