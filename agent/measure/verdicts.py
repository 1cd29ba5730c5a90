"""What a measurement is worth, judged by its samples and by the state of the machine meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.measure.sampling import WAITED_LIMIT
from tunefleet.intervals import relative_half_width
from tunefleet.trials import Conditions, Verdict

NOISE_LIMIT = 0.04
"""A median whose interval reaches further than this to either side decides no close race."""

_FOREIGN_CORES_LIMIT = 0.2
"""Load of others that a quiet machine has too."""
_STEAL_LIMIT = 0.02


@dataclass(frozen=True)
class Findings:
    """What is known of one measurement."""

    samples_s: Sequence[float]
    conditions: Conditions
    quiet: bool
    """Whether nothing else of TuneFleet computed."""
    spoilt: bool
    """Whether the canary strayed, or threads waited for a core, at every attempt."""
    throttling: str
    """What the machine says of throttling, in words."""
    usual_s: float | None
    """The canary's usual reading."""


def judge(found: Findings, *, virtual: bool | None = None) -> tuple[Verdict, str]:
    """Return a verdict, and what speaks against the samples if it is not ``OK``.

    Args:
        found: what is known.
        virtual: whether this is a virtual machine; by default what the kernel says.
    """
    if not found.quiet:
        return Verdict.CONTENDED, "another TuneFleet process kept the machine busy all the while"
    if found.spoilt:
        return _blame(found, _is_virtual() if virtual is None else virtual)
    spread = relative_half_width(found.samples_s)
    if spread > NOISE_LIMIT:
        return Verdict.NOISY, f"the interval of the median reaches {spread:.0%} to either side"
    return Verdict.OK, ""


def _blame(found: Findings, virtual: bool) -> tuple[Verdict, str]:
    now = found.conditions
    tries = f" at each of {now.attempts} attempts" if now.attempts and now.attempts > 1 else ""
    if now.waited_share is not None and now.waited_share > WAITED_LIMIT:
        waited = f"threads waited for a core {now.waited_share:.0%} of the time{tries}"
        return Verdict.CONTENDED, f"{waited}: other processes run on the measuring cores"
    slower = f"the reference kernel was slower than usual{tries}"
    if found.usual_s and now.canary_s:
        slower = f"the reference kernel took {now.canary_s / found.usual_s:.2f} times the usual"
        slower += tries
    if now.foreign_cores is not None and now.foreign_cores > _FOREIGN_CORES_LIMIT:
        return Verdict.CONTENDED, f"{slower}; other processes used {now.foreign_cores:.2f} cores"
    if now.steal_cores is not None and now.steal_cores > _STEAL_LIMIT:
        return Verdict.CONTENDED, f"{slower}; the hypervisor took {now.steal_cores:.2f} cores away"
    if found.throttling:
        return Verdict.THROTTLED, f"{slower}; {found.throttling}"
    if virtual:
        return Verdict.CONTENDED, f"{slower}; nothing here tells why, so a neighbour on the host"
    return Verdict.THROTTLED, f"{slower} with no load of others: the clock must have dropped"


@functools.cache
def _is_virtual() -> bool:
    try:
        return " hypervisor" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
