"""Conversions between messages and native objects: the only place that knows both."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.trials import (
    LONGEST_S,
    MAX_SAMPLES,
    Conditions,
    ProgramFeatures,
    Trial,
    Verdict,
)
from tunefleet.v1 import device_pb2, trial_pb2

_VERDICTS = {v: trial_pb2.Verdict.Value(f"VERDICT_{v.name}") for v in Verdict}
_VERDICTS_BACK = {number: verdict for verdict, number in _VERDICTS.items()}

_LONGEST_DURATION_S = 315_576_000_000
"""Protobuf's own bound."""


def duration(seconds: float) -> Duration:
    """Make a Duration of seconds."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """Return a Duration in seconds. Raises ValueError beyond ten thousand years."""
    if abs(message.seconds) > _LONGEST_DURATION_S:
        raise ValueError(f"Duration is not valid: {message.seconds} s")
    return message.ToNanoseconds() / 1e9


def timestamp(unix_s: float) -> Timestamp:
    """Make a Timestamp of seconds since 1970."""
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(unix_s, UTC))
    return message


def unix_seconds(message: Timestamp) -> float:
    """Return a Timestamp in seconds since 1970. Raises ValueError beyond the year 9999."""
    return message.ToNanoseconds() / 1e9


def profile_to_proto(profile: DeviceProfile) -> device_pb2.DeviceProfile:
    """Make a message of a device profile; unknown values stay unset."""
    measured = None
    if profile.measured is not None:
        measured = device_pb2.MeasuredProfile(**asdict(profile.measured))
    plain = {
        f.name: getattr(profile, f.name) for f in fields(profile) if f.name not in _PROFILE_SPECIAL
    }
    return device_pb2.DeviceProfile(
        isa_features=profile.isa_features,
        versions=dict(profile.versions),
        measured=measured,
        **plain,
    )


_PROFILE_SPECIAL = frozenset({"isa_features", "versions", "measured"})


def profile_from_proto(message: device_pb2.DeviceProfile) -> DeviceProfile:
    """Read a device profile; unset values become ``None``.

    Raises:
        ValueError: the profile names no architecture or no core, or a value cannot be.
    """
    if not message.arch or message.logical_cores < 1:
        raise ValueError("the profile must name an architecture and at least one core")
    measured = None
    if message.HasField("measured"):
        measured = MeasuredProfile(
            **{f.name: _optional_finite(message.measured, f.name) for f in fields(MeasuredProfile)}
        )
    optional = {
        f.name: getattr(message, f.name) if message.HasField(f.name) else None  # type: ignore[arg-type]
        for f in fields(DeviceProfile)
        if f.name not in _PROFILE_SPECIAL | {"arch", "logical_cores"}
    }
    profile = DeviceProfile(
        arch=message.arch,
        logical_cores=message.logical_cores,
        isa_features=tuple(message.isa_features),
        versions=dict(message.versions),
        measured=measured,
        **optional,
    )
    profile.check()
    return profile


def _optional_finite(message: device_pb2.MeasuredProfile, name: str) -> float | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    value = float(getattr(message, name))
    return value if math.isfinite(value) else None


def trial_to_proto(trial: Trial) -> trial_pb2.Trial:
    """Make a message of a trial."""
    features = None
    if trial.features is not None:
        features = trial_pb2.ProgramFeatures(stores=trial.features.stores, data=trial.features.data)
    return trial_pb2.Trial(
        trial_id=trial.trial_id,
        lease_id=trial.lease_id,
        candidate=trial.candidate,
        trace=trial.trace,
        verdict=_VERDICTS[trial.verdict],
        samples_s=trial.samples_s,
        error=trial.error,
        features=features,
        predicted=trial.predicted,
        model_version=trial.model_version,
        explored=trial.explored,
        build_s=trial.build_s,
        run_s=trial.run_s,
        started_at=timestamp(trial.started_at_unix_s),
        conditions=trial_pb2.Conditions(**asdict(trial.conditions)),
    )


def trial_from_proto(message: trial_pb2.Trial) -> Trial:
    """Read a trial.

    Raises:
        ValueError: the verdict is unknown, a time is none or beyond all reason, a number is not
            finite, or the features do not have the bytes that their shape says.
    """
    verdict = _VERDICTS_BACK.get(message.verdict)
    if verdict is None:
        raise ValueError(f"verdict {message.verdict} is unknown")
    if len(message.samples_s) > MAX_SAMPLES:
        raise ValueError(f"{len(message.samples_s)} samples are more than {MAX_SAMPLES}")
    if not all(0 < s <= LONGEST_S for s in message.samples_s):
        raise ValueError("a sample is not a positive time")
    features = None
    if message.HasField("features"):
        features = ProgramFeatures(message.features.stores, message.features.data)
        features.check()
    return Trial(
        trial_id=message.trial_id,
        lease_id=message.lease_id,
        candidate=message.candidate,
        trace=message.trace,
        verdict=verdict,
        samples_s=tuple(message.samples_s),
        error=message.error,
        features=features,
        predicted=_finite(
            "predicted", message.predicted if message.HasField("predicted") else None
        ),
        model_version=message.model_version,
        explored=message.explored,
        build_s=_time("build_s", message.build_s if message.HasField("build_s") else None),
        run_s=_time("run_s", message.run_s if message.HasField("run_s") else None),
        started_at_unix_s=unix_seconds(message.started_at),
        conditions=_conditions(message.conditions),
    )


def _conditions(message: trial_pb2.Conditions) -> Conditions:
    found = {field.name: _finite(field.name, value) for field, value in message.ListFields()}
    return Conditions(**found)  # type: ignore[arg-type]


def _finite(name: str, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{name} is {value}")
    return value


def _time(name: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= LONGEST_S:
        raise ValueError(f"{name} is {value} s")
    return value
