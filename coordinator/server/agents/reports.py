"""Reads reported trials; one that cannot be used spoils none of the others."""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections.abc import Iterable

from coordinator.server.calls.requests import check_fields
from tunefleet.conversions import trial_from_proto
from tunefleet.trials import Trial
from tunefleet.v1 import trial_pb2

_CANDIDATE = re.compile(r"[0-9a-f]{16}")
_TRIAL_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def read_trials(messages: Iterable[trial_pb2.Trial]) -> tuple[list[Trial], dict[str, str]]:
    """Return the trials that can be stored, and by name why the others cannot."""
    trials: list[Trial] = []
    unreadable: dict[str, str] = {}
    for message in messages:
        try:
            trials.append(_read(message))
        except (ValueError, OverflowError) as e:
            unreadable[message.trial_id] = str(e)
    return trials, unreadable


def _read(message: trial_pb2.Trial) -> Trial:
    if not _TRIAL_ID.fullmatch(message.trial_id):
        raise ValueError("the trial has no usable name")
    check_fields(message)
    if not _CANDIDATE.fullmatch(message.candidate):
        # Leases carry candidates as numbers.
        raise ValueError(f"the candidate {message.candidate[:40]!r} is not 16 hex digits")
    # Whoever applies it parses it, in a process of its own; what is no JSON list gets nowhere.
    if not (message.trace.startswith("[[") and message.trace.endswith("]")):
        raise ValueError("the trace is not a list of instructions and a list of decisions")
    trial = trial_from_proto(message)
    if trial.features is not None and not _finite(trial.features.data):
        raise ValueError("the features are not all finite")
    return trial


def _finite(data: bytes) -> bool:
    """Return whether all little-endian float32 values are finite, without NumPy's megabytes."""
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    # No number of them can exceed what a sum of Python's can hold.
    return math.isfinite(sum(values))
