"""What a coordinator makes of a thousand agents, beside what else could keep their trials.

Simulated agents (:mod:`.fleet_agents`) speak the real protocol to a real coordinator with a home
of its own: a connection with mutual TLS each, for which each has enrolled with a token, a control
stream each, heartbeats, leases, reports. They measure nothing: their trials are real ones of the
shipped dataset under new names. 25 of them at a time have the same hardware and share 64 tasks;
how many trials a round has is the coordinator's to say: 64 for a thousand devices. All of it runs
on this machine, so agents and coordinator share its cores.

Six parts, one after the other:

* **connecting**: all agents at once; connected means registered, control stream open, one heartbeat
  answered.
* **idle**: no work; heartbeats, and questions for work as often as the coordinator wishes.
* **start**: the campaign is resumed, and all ask for work at once; counted from when they have
  ended their first rounds.
* **load**: each agent measures one candidate every ``agents / --trials-per-s`` seconds and reports
  as often as the coordinator wishes; ``lease_p99_ms`` is over every AcquireLease of it, those that
  were told to come back too, ``work_wait_p99_ms`` over the times from when a device wanted work
  until it had some.
* **half**: the same with devices that are half as fast; counted after one of their rounds.
* **peak**: measuring takes no time, a round's trials go in one report.

``trials_per_s``: trials acknowledged, so durable, per second of the load; ``peak_trials_per_s`` the
same of the peak; ``trials_per_s_postgresql`` and ``peak_trials_per_s_postgresql`` with the state in
PostgreSQL instead of SQLite.

Beside it, :mod:`.fleet_peers`, with as many clients as it takes to keep them busy: Optuna's gRPC
storage, a trial in one call, on SQLite and PostgreSQL; TVM's RPC tracker, one REQUEST and the PUT
that it takes. ``ratio_vs_optuna_sqlite`` and ``ratio_vs_optuna_postgresql`` are
``peak_trials_per_s`` and ``peak_trials_per_s_postgresql`` over the trials that Optuna stores per
second, with no more in one of Optuna's than its value and five parameters.
``ratio_vs_tvm_tracker`` is ``peak_trials_per_s`` over the requests that the tracker answers per
second as TVM's RPCRunner puts them, a connection for each candidate: what it takes there to measure
one, and nothing of it is stored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from coordinator.campaigns.collecting import collecting_round_trials
from scripts.benches.fleet_coordinator import Seen, count_stored, quantile, running_fleet
from scripts.benches.fleet_hardware import CAMPAIGN
from scripts.benches.fleet_peers import optuna_rates, tracker_rates
from scripts.benches.harness import Figure, figure, note
from scripts.postgresql_server import find_binaries, running

_SETTLE_S = 5.0
"""After a change of pace, before anything is counted."""


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Measure the fleet.

    Args:
        quick: fewer agents, for shorter, without PostgreSQL.
        arguments: see ``--help``.

    Returns:
        Figures by name: rates per second, times in the unit of their names, memory in MB (1e6
        bytes), shares of one core.
    """
    options = _parse(quick, arguments)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory(prefix="tunefleet-fleet-", dir=options.folder) as scratch:
        folder = Path(scratch)
        figures |= _coordinator(folder / "sqlite", options)
        figures |= _without("optuna", optuna_rates(f"sqlite:///{folder}/optuna.db", options.peer_s))
        if options.postgresql and (binaries := find_binaries()) is not None:
            with running(binaries, durable=True) as server:
                ours = _coordinator(folder / "postgresql", options, server.new_database())
                figures |= {
                    f"{name}_postgresql": ours[name]
                    for name in (
                        "trials_per_s",
                        "peak_trials_per_s",
                        "lease_p99_ms",
                        "work_wait_p99_ms",
                        "half_trials_per_s",
                        "half_lease_p99_ms",
                    )
                }
                url = server.new_database().replace("postgresql:", "postgresql+psycopg:")
                figures |= _without("optuna", optuna_rates(url, options.peer_s), "_postgresql")
    figures |= _without("tvm_tracker", tracker_rates(options.peer_s))
    return figures | _ratios(figures)


def _parse(quick: bool, arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench fleet")
    parser.add_argument("--agents", type=int, default=100 if quick else 1000)
    parser.add_argument("--processes", type=int, default=2, help="that simulate them")
    parser.add_argument(
        "--trials-per-s",
        type=float,
        help="that all devices together measure under load; default: 2.2 for each",
    )
    parser.add_argument("--plain", action="store_true", help="without TLS, for a comparison")
    parser.add_argument("--idle-s", type=float, default=8.0 if quick else 30.0)
    parser.add_argument("--load-s", type=float, default=8.0 if quick else 60.0)
    parser.add_argument("--peak-s", type=float, default=5.0 if quick else 20.0)
    parser.add_argument("--peer-s", type=float, default=3.0 if quick else 15.0)
    parser.add_argument("--folder", type=Path, help="on the disk to measure with; default: TMPDIR")
    parser.add_argument("--postgresql", action=argparse.BooleanOptionalAction, default=not quick)
    options = parser.parse_args(arguments)
    if options.trials_per_s is None:
        options.trials_per_s = 2.2 * options.agents
    return options


def _coordinator(
    folder: Path, options: argparse.Namespace, database_url: str = ""
) -> dict[str, Figure]:
    kept = "PostgreSQL" if database_url else "SQLite"
    acknowledged = 0
    with running_fleet(
        folder, options.agents, options.processes, database_url, plain=options.plain
    ) as (fleet, client):
        began = time.monotonic()
        fleet.tell(do="connect")
        connecting_s = time.monotonic() - began
        time.sleep(_SETTLE_S)
        idle = fleet.watch(options.idle_s)
        _tell(f"{kept}, idle", idle)
        fleet.tell(do="pace", trial_s=options.agents / options.trials_per_s)
        client.campaign(CAMPAIGN).resume()
        # All ask at once then: what counts is how it goes on when they end their rounds in turn.
        round_trials = collecting_round_trials(options.agents)
        first_round_s = round_trials * options.agents / options.trials_per_s
        start = fleet.watch(max(_SETTLE_S, 1.25 * first_round_s))
        _tell(f"{kept}, start", start)
        acknowledged += start.acknowledged
        load = fleet.watch(options.load_s)
        _tell(f"{kept}, load", load)
        fleet.tell(do="pace", trial_s=2 * options.agents / options.trials_per_s)
        acknowledged += fleet.watch(max(_SETTLE_S, 2 * first_round_s)).acknowledged
        half = fleet.watch(options.load_s)
        _tell(f"{kept}, half", half)
        acknowledged += half.acknowledged
        rss_mb = fleet.rss_mb()
        fleet.tell(do="pace", trial_s=0.0)
        acknowledged += fleet.watch(_SETTLE_S).acknowledged
        peak = fleet.watch(options.peak_s)
        _tell(f"{kept}, peak", peak)
        rss_mb = max(rss_mb, fleet.rss_mb())
        fleet.tell(do="stop")
    acknowledged += load.acknowledged + peak.acknowledged
    stored = count_stored(folder, database_url)
    note(f"fleet: {acknowledged} acknowledged while counting, {stored} stored in all")
    if stored < acknowledged:
        raise RuntimeError(f"{acknowledged} trials were acknowledged, but {stored} are stored")
    return {
        name: figure([value])
        for name, value in {
            "agents": float(min(idle.streaming, load.streaming, peak.streaming)),
            "connects_per_s": options.agents / connecting_s,
            "idle_cpu_share": idle.cpu_share,
            "start_lease_p99_ms": 1e3 * quantile(start.lease_s, 0.99),
            "trials_per_s": load.acknowledged / load.seconds,
            "lease_p50_ms": 1e3 * quantile(load.lease_s, 0.5),
            "lease_p99_ms": 1e3 * quantile(load.lease_s, 0.99),
            "work_wait_p99_ms": 1e3 * quantile(load.work_wait_s, 0.99),
            "report_p99_ms": 1e3 * quantile(load.report_call_s, 0.99),
            "load_cpu_share": load.cpu_share,
            "half_trials_per_s": half.acknowledged / half.seconds,
            "half_lease_p50_ms": 1e3 * quantile(half.lease_s, 0.5),
            "half_lease_p99_ms": 1e3 * quantile(half.lease_s, 0.99),
            "half_work_wait_p99_ms": 1e3 * quantile(half.work_wait_s, 0.99),
            "half_cpu_share": half.cpu_share,
            "peak_trials_per_s": peak.acknowledged / peak.seconds,
            "peak_leases_per_s": peak.leases / peak.seconds,
            "peak_lease_p99_ms": 1e3 * quantile(peak.lease_s, 0.99),
            "coordinator_rss_mb": rss_mb,
        }.items()
    }


def _tell(what: str, seen: Seen) -> None:
    lease, wait, report = (
        f"p50 {1e3 * quantile(values, 0.5):.0f}, p99 {1e3 * quantile(values, 0.99):.0f} ms"
        for values in (seen.lease_s, seen.work_wait_s, seen.report_call_s)
    )
    note(
        f"fleet: {what}: {seen.streaming} streams, {seen.acknowledged / seen.seconds:.0f} trials, "
        f"{seen.reports / seen.seconds:.0f} reports, {seen.leases / seen.seconds:.1f} leases, "
        f"{seen.heartbeats / seen.seconds:.0f} heartbeats a second; {len(seen.lease_s)} asked, "
        f"{lease}; until there was work {wait}; report {report}; "
        f"cores: {seen.cpu_share:.2f}, agents {seen.agents_cpu_share:.2f}; "
        f"rejected {seen.rejected}, errors {dict(seen.errors)}"
    )


def _without(peer: str, rates: dict[str, float], suffix: str = "") -> dict[str, Figure]:
    note(f"fleet: {peer}{suffix}: {rates}")
    return {f"{peer}_{name}{suffix}": figure([rate]) for name, rate in rates.items()}


def _ratios(figures: dict[str, Figure]) -> dict[str, Figure]:
    pairs = {
        "ratio_vs_optuna_sqlite": ("peak_trials_per_s", "optuna_bare_trials_per_s"),
        "ratio_vs_optuna_postgresql": (
            "peak_trials_per_s_postgresql",
            "optuna_bare_trials_per_s_postgresql",
        ),
        "ratio_vs_tvm_tracker": ("peak_trials_per_s", "tvm_tracker_requests_per_s"),
    }
    return {
        name: figure([figures[ours]["value"] / figures[theirs]["value"]])
        for name, (ours, theirs) in pairs.items()
        if ours in figures and theirs in figures
    }
