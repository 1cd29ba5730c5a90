"""The data card beside a dataset: what it is, how and where it was measured, what one may do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from coordinator.dataset.schema import (
    DEVICES_FILE,
    TRIAL_COLUMNS,
    TRIALS_FILE,
    VERSION,
    WORKLOADS_FILE,
    About,
)
from coordinator.state.trial_records import ProfileRecord
from tunefleet.client.wording import latency, short_target

_MOST_SOURCES = 60

_HOW = """Candidates are schedules drawn from MetaSchedule's design space. Each was compiled for its
target and run on the device in a process of its own, with nothing else of TuneFleet's computing
meanwhile. `samples_s` are raw seconds per run, one a repeat; their median is the latency. The
verdict says what they are worth: `ok`, or why not. Trials of two targets, or of two fingerprints,
must never be compared as if they were one."""

_FILES = {
    TRIALS_FILE: "a row a trial: " + ", ".join(TRIAL_COLUMNS.names),
    WORKLOADS_FILE: "a row a workload, with its IRModule as TVM's JSON",
    DEVICES_FILE: "a row a hardware, with what it is and measured of itself",
}

_FEATURES = """`features` holds 172 float32 values for each buffer store of the scheduled program,
store after store. `tunefleet dataset import` reads the folder; so does every reader of Parquet."""


def data_card(
    about: About,
    stats: Mapping[str, Any],
    profiles: Sequence[ProfileRecord],
    files: Collection[str] = tuple(_FILES),
) -> str:
    """Write a data card in Markdown.

    Args:
        about: what the files say of themselves.
        stats: as :meth:`coordinator.dataset.stats.Stats.result` returns them.
        profiles: of the devices.
        files: names of the tables that there are.
    """
    day = datetime.fromtimestamp(about.created_unix_s, UTC).strftime("%Y-%m-%d")
    targets = [(_code(short_target(g["name"])), *_numbers(g)) for g in stats["targets"]]
    sources = [(_cell(g["name"]) or "(unknown)", *_numbers(g)) for g in stats["sources"]]
    left_out = len(sources) - _MOST_SOURCES
    written = (
        f"Written on {day} by TuneFleet {about.release}; version {VERSION} of the format, "
        f"feature schema `{about.feature_schema}`."
    )
    counts = (
        f"{stats['trials']:,} trials, {stats['measured']:,} of them with a latency, over "
        f"{stats['workloads']:,} workloads; {stats['featured']:,} have features. Latencies reach "
        f"from {latency(stats['fastest_s'])} to {latency(stats['slowest_s'])}."
    )
    parts = [
        "# Measured tensor programs",
        about.description or "Schedules of tensor programs and the time each took on a device.",
        written,
        "## What",
        counts,
        _table(("target", *_NUMBERS), targets),
        _table(("verdict", "trials"), [(k, f"{n:,}") for k, n in stats["verdicts"].items()]),
        "### Where the workloads come from",
        _table(("source", *_NUMBERS), sources[:_MOST_SOURCES]),
        f"… and {left_out} more." if left_out > 0 else "",
        "A workload of several sources counts in each.",
        "## How",
        _HOW,
        "## Where",
        *(_device(p, stats) for p in profiles),
        "## Files",
        _table(("file", "content"), [(_code(f), told) for f, told in _FILES.items() if f in files]),
        _FEATURES,
        "## Licence",
        about.licence or "None was named.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_NUMBERS = ("trials", "with latency", "workloads", "fastest", "slowest")


def _numbers(group: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (group["trials"], group["measured"], group["workloads"])
    times = (group["fastest_s"], group["slowest_s"])
    return (*(f"{n:,}" for n in counts), *(latency(t) for t in times))


def _device(record: ProfileRecord, stats: Mapping[str, Any]) -> str:
    profile, fingerprint = record.profile, record.profile.fingerprint()
    trials = sum(
        d["trials"]
        for d in stats["devices"]
        if (d["device_id"], d["fingerprint"]) == (record.device_id, fingerprint)
    )
    measured = profile.measured
    rate = measured.gflops_single_core if measured else None
    facts = [
        profile.cpu_model or profile.arch,
        f"{profile.logical_cores} of its cores in use",
        f"{rate:.0f} GFLOP/s on one core" if rate else "",
        profile.kernel or "",
        ", ".join(f"{name} {version}" for name, version in sorted(profile.versions.items())),
    ]
    told = "; ".join(_cell(fact) for fact in facts if fact)
    return f"- `{fingerprint}` ({_cell(record.name)}): {told}. {trials:,} trials."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{_cell(text)}`"
