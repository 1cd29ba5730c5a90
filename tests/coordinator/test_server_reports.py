"""Reported trials that cannot be stored: each is named with the reason, and spoils no other."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from store_samples import trial

from coordinator.server.agents.reports import read_trials
from tunefleet.conversions import trial_to_proto
from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import MAX_TRACE_CHARS
from tunefleet.v1 import trial_pb2

NAN = float("nan")


def message(**changes: Any) -> trial_pb2.Trial:
    """Make a trial as an agent sends it, with some fields replaced."""
    made = trial_to_proto(trial(1))
    for name in changes:
        made.ClearField(name)
    made.MergeFrom(trial_pb2.Trial(**changes))
    return made


def features(value: float) -> trial_pb2.ProgramFeatures:
    values = [0.0] * (PROGRAM_FEATURES_PER_STORE - 1)
    return trial_pb2.ProgramFeatures(
        stores=1, data=struct.pack(f"<{PROGRAM_FEATURES_PER_STORE}f", *values, value)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"trial_id": ""},
        {"trial_id": "a/../b"},
        {"candidate": "xyz"},
        {"verdict": 99},
        {"samples_s": [NAN]},
        {"samples_s": [1e300]},
        {"samples_s": [1.0] * 1_001},
        {"predicted": NAN},
        {"build_s": -1.0},
        {"run_s": float("inf")},
        {"started_at": Timestamp(seconds=2**62)},
        {"conditions": trial_pb2.Conditions(canary_s=NAN)},
        {"error": "\0"},
        {"trace": "[[" + "x" * MAX_TRACE_CHARS + "]"},
        {"trace": "not a trace"},
        {"features": trial_pb2.ProgramFeatures(stores=1, data=b"\0")},
        {"features": trial_pb2.ProgramFeatures(stores=-1)},
        {"features": features(NAN)},
        {"features": features(float("-inf"))},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_trial_that_cannot_be_is_refused_and_the_others_are_taken(
    changes: dict[str, Any],
) -> None:
    taken, refused = read_trials([message(**changes), trial_to_proto(trial(2))])
    assert [t.candidate for t in taken] == [f"{2:016x}"]
    assert len(refused) == 1


def test_finite_features_are_taken_whatever_their_size() -> None:
    taken, refused = read_trials([message(features=features(3e38))])
    assert len(taken) == 1
    assert refused == {}
