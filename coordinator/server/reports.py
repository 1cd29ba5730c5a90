"""Reads reported trials; one that cannot be used spoils none of the others."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunefleet.conversions import trial_from_proto
from tunefleet.trials import Trial
from tunefleet.v1 import trial_pb2

_CANDIDATE = re.compile(r"[0-9a-f]{16}")
_MAX_TRIAL_ID_CHARS = 64


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
    if not 0 < len(message.trial_id) <= _MAX_TRIAL_ID_CHARS:
        raise ValueError("the trial has no usable name")
    if not _CANDIDATE.fullmatch(message.candidate):
        # Leases carry candidates as numbers.
        raise ValueError(f"the candidate {message.candidate[:40]!r} is not 16 hex digits")
    return trial_from_proto(message)
