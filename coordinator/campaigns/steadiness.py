"""Whether a device still is what it was: judged by what its reference kernel takes.

An agent itself repeats what the state of its machine spoils. What it cannot see is that its
machine is another one than weeks ago: a dying fan, a colder mainboard setting, a neighbour who
never rests. Records from before and after do not belong together, so such a device rests.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from coordinator.state.records import Quarantine

READINGS_USED = 200
"""Rounds that make up a device's history."""

_LEAST_HISTORY = 8
"""Rounds before which nothing is usual yet."""

_RECENT = 3
"""Rounds in a row that must stray: one alone may have met a neighbour."""

_USUAL_QUANTILE = 0.2
"""Of the history: low, since a kernel may be slowed down but never sped up. A device that is faster
than ever is not astray: whatever held it back before is gone, and that becomes the usual."""

_LIMIT = 1.25
"""Times the usual beyond which a round strays. Candidates that are worth telling apart differ by
less; undisturbed rounds stay within a few percent."""

_FIRST_REST_S = 60.0
_LONGEST_REST_S = 1800.0


def judge(
    readings_s: Sequence[float], quarantine: Quarantine | None, now: float
) -> Quarantine | None:
    """Judge a device after a round.

    Args:
        readings_s: what its reference kernel took in each round, oldest first, in seconds.
        quarantine: the one from which it was let out on probation, if any.
        now: seconds since 1970.

    Returns:
        The quarantine it is in from now on, or ``None`` where it is steady.
    """
    if len(readings_s) < _LEAST_HISTORY + _RECENT:
        return None
    history = sorted(readings_s[:-_RECENT])
    usual = history[int(_USUAL_QUANTILE * len(history))]
    on_probation = quarantine is not None
    judged = readings_s[-1:] if on_probation else readings_s[-_RECENT:]
    ratios = [reading / usual for reading in judged]
    if min(ratios) <= _LIMIT:
        return None
    ratio = statistics.median(ratios)
    reason = (
        f"its reference kernel took {statistics.median(judged) * 1e3:.3g} ms, {ratio:.2f} times "
        f"the {usual * 1e3:.3g} ms that are usual in the {len(history)} rounds before, though "
        "nothing disturbed it: heat, a lower clock, other settings?"
    )
    if quarantine is None:
        return Quarantine(reason, now, now + _FIRST_REST_S)
    rest_s = min(_LONGEST_REST_S, _FIRST_REST_S * 2.0**quarantine.strikes)
    return replace(
        quarantine,
        reason=reason,
        since_unix_s=min(quarantine.since_unix_s, now),  # the clock may have been set back
        until_unix_s=now + rest_s,
        strikes=quarantine.strikes + 1,
    )
