"""Checks what a row of somebody's file says before anything of it is believed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from coordinator.state.records import TaskKey
from coordinator.state.trial_records import TrialRecord
from tunefleet.devices import DeviceProfile
from tunefleet.features import MAX_STORES, PROGRAM_FEATURES_PER_STORE
from tunefleet.targets import canonical_target
from tunefleet.trials import (
    LONGEST_S,
    MAX_SAMPLES,
    MAX_TRACE_CHARS,
    Conditions,
    ProgramFeatures,
    Trial,
    Verdict,
)

MAX_MODULE_CHARS = 64 * 2**20
"""A workload holds no weights; its module has some 20 KB."""

_MAX_TEXT_CHARS = 64 * 1024
_MAX_SOURCES = 10_000
_MAX_WEIGHT = 100_000
"""Calls of one workload in one network; ten thousand sources of them fit into a column."""
_LATEST_UNIX_S = 2.0**33
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{16}")


def read_trial(row: Mapping[str, Any], features: bytes | None) -> tuple[TrialRecord, str]:
    """Make a trial of a row.

    Args:
        row: by column, without the features.
        features: their bytes.

    Returns:
        The trial and its device's profile as JSON, which is empty where the row has none.

    Raises:
        ValueError: something in the row cannot be; the message says what.
    """
    target = text(row, "target")
    if known_target(target) != target:
        raise ValueError(f"the target {target[:80]!r} is not in canonical form")
    key = TaskKey(hashed(row, "workload"), target, hashed(row, "fingerprint"))
    profile = text(row, "device_profile")
    if profile and profile_fingerprint(profile) != key.fingerprint:
        raise ValueError("the fingerprint is not that of the device's profile")
    record = TrialRecord(
        key=key,
        device_id=name(row, "device_id"),
        campaign_id=name(row, "campaign_id"),
        task=text(row, "task"),
        sources=read_sources(text(row, "sources")),
        trial=_trial(row, features),
    )
    return record, profile


def _trial(row: Mapping[str, Any], features: bytes | None) -> Trial:
    try:
        verdict = Verdict(text(row, "verdict"))
    except ValueError as e:
        raise ValueError(f"the verdict {row['verdict']!r:.40} is not known") from e
    samples = row["samples_s"]
    if samples is None or len(samples) > MAX_SAMPLES:
        raise ValueError("the samples are missing or too many")
    if not all(s is not None and 0 < s <= LONGEST_S for s in samples):
        raise ValueError("a sample is not a positive time")
    if verdict.has_latency and not samples:
        raise ValueError(f"the verdict {verdict} needs samples")
    return Trial(
        trial_id=name(row, "trial_id"),
        lease_id=name(row, "lease_id"),
        candidate=hashed(row, "candidate"),
        trace=check_trace(row["trace"]),
        verdict=verdict,
        samples_s=tuple(samples),
        error=text(row, "error"),
        features=_features(features),
        predicted=_number(row, "predicted"),
        model_version=text(row, "model_version"),
        explored=bool(row["explored"]),
        build_s=_seconds(row, "build_s"),
        run_s=_seconds(row, "run_s"),
        started_at_unix_s=_seconds(row, "started_at_unix_s", _LATEST_UNIX_S) or 0.0,
        conditions=_conditions(text(row, "conditions")),
    )


def check_trace(value: Any) -> str:
    """Return a trace if it looks like one: instructions and decisions, as JSON lists."""
    if not isinstance(value, str) or len(value) > MAX_TRACE_CHARS:
        raise ValueError("the trace is missing or too long")
    try:
        trace = json.loads(value)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the trace is not JSON: {e}") from e
    if not (
        isinstance(trace, list) and len(trace) == 2 and all(isinstance(p, list) for p in trace)
    ):
        raise ValueError("the trace is not a list of instructions and a list of decisions")
    return value


def text(row: Mapping[str, Any], column: str) -> str:
    """Return a text of bounded length."""
    value = row[column]
    if not isinstance(value, str) or len(value) > _MAX_TEXT_CHARS or "\0" in value:
        raise ValueError(f"{column} is missing, too long or no text")
    return value


def name(row: Mapping[str, Any], column: str) -> str:
    """Return a name as this system makes them."""
    value = row[column]
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{column} {value!r:.80} is not a name of at most 64 plain characters")
    return value


def hashed(row: Mapping[str, Any], column: str) -> str:
    """Return a hash of 16 hex digits."""
    value = row[column]
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{column} {value!r:.40} is not 16 hex digits")
    return value


@lru_cache(maxsize=4096)
def known_target(target: str) -> str:
    """Return the canonical form of a target. Raises ValueError if it is none."""
    return canonical_target(target)


@lru_cache(maxsize=4096)
def profile_fingerprint(profile: str) -> str:
    """Return the fingerprint of a profile as JSON. Raises ValueError if it is none."""
    read = DeviceProfile.from_json(profile)
    read.check()
    return read.fingerprint()


def read_sources(value: str) -> dict[str, int]:
    """Read where a workload comes from, and how often."""
    return dict(_read_sources(value))


@lru_cache(maxsize=4096)
def _read_sources(value: str) -> tuple[tuple[str, int], ...]:
    raw = _json_object(value, "sources")
    if len(raw) > _MAX_SOURCES or not all(n.isprintable() and len(n) <= 200 for n in raw):
        raise ValueError("the sources are too many, or one has no printable name")
    if not all(type(weight) is int and 0 <= weight <= _MAX_WEIGHT for weight in raw.values()):
        raise ValueError("the sources have a weight that is no number of calls")
    return tuple(raw.items())


def _json_object(value: str, column: str) -> dict[str, Any]:
    try:
        raw = json.loads(value)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{column} is not JSON: {e}") from e
    if not isinstance(raw, dict):
        raise ValueError(f"{column} is not a JSON object")  # noqa: TRY004 - one kind of failure
    return raw


# Annotations are texts here, such as "float | None".
_CONDITION_TYPES = {f.name: str(f.type) for f in fields(Conditions)}


def _conditions(value: str) -> Conditions:
    raw = _json_object(value, "conditions")
    # What a newer release noted besides is of no use to this one.
    known = {key: item for key, item in raw.items() if key in _CONDITION_TYPES}
    for key, item in known.items():
        if not _fits(item, _CONDITION_TYPES[key]):
            raise ValueError(f"the condition {key} cannot be {item!r:.40}")
    return Conditions(**known)


def _fits(item: Any, annotation: str) -> bool:
    if isinstance(item, (bool, str)):
        return type(item).__name__ in annotation
    if isinstance(item, int):
        return abs(item) < 2**63 and ("int" in annotation or "float" in annotation)
    return isinstance(item, float) and math.isfinite(item) and "float" in annotation


def _features(data: bytes | None) -> ProgramFeatures | None:
    if not data:
        return None
    stores, rest = divmod(len(data), 4 * PROGRAM_FEATURES_PER_STORE)
    if rest or stores > MAX_STORES:
        raise ValueError(
            f"{len(data) // 4} feature values are not {PROGRAM_FEATURES_PER_STORE} for each of at "
            f"most {MAX_STORES} stores"
        )
    if not np.isfinite(np.frombuffer(data, "<f4")).all():
        raise ValueError("the features are not all finite")
    return ProgramFeatures(stores, data)


def _number(row: Mapping[str, Any], column: str) -> float | None:
    value = row[column]
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{column} is {value}")
    return None if value is None else float(value)


def _seconds(row: Mapping[str, Any], column: str, most: float = 1e7) -> float | None:
    value = _number(row, column)
    if value is not None and not 0 <= value <= most:
        raise ValueError(f"{column} is {value} s")
    return value
