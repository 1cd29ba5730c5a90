"""Is the system's time kept right?"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

from agent.doctor.finding import Finding, Status, ok, unknown
from agent.doctor.machine import Machine

_EARLIEST_S = 1_735_689_600
"""2025-01-01 UTC, before TuneFleet existed. Boards without a clock of their own start in 1970."""


def check_clock_sync(
    machine: Machine,
    synchronised: bool | None,
    now: Callable[[], float] = time.time,
) -> Finding:
    """Tell whether something keeps the system's time right.

    Args:
        machine: where services leave their marks.
        synchronised: what the kernel says, from :func:`kernel_synchronised`.
        now: the system's time, in seconds since 1970.
    """
    name = "clock_sync"
    why = "trials and logs carry wrong times, and encrypted connections may be refused"
    advice = "Let a time service run."
    command = "sudo timedatectl set-ntp true"
    if now() < _EARLIEST_S:
        seen = f"the clock says {time.strftime('%Y-%m-%d', time.gmtime(now()))}"
        return Finding(name, Status.BAD, seen, why, advice, command)
    if synchronised:
        return ok(name, "the kernel's clock is synchronised")
    if machine.path("/run/systemd/timesync/synchronized").exists():
        return ok(name, "synchronised by systemd-timesyncd")
    if any(machine.path(f"/run/{pid}").exists() for pid in ("chrony/chronyd.pid", "chronyd.pid")):
        # Without rtcsync in its configuration chronyd does not tell the kernel.
        return unknown(name, "chronyd runs; `chronyc tracking` tells how well")
    if synchronised is None:
        return unknown(name, machine.untold("whether its time is kept right"))
    return Finding(
        name, Status.WARN, "the kernel's clock is not synchronised", why, advice, command
    )


class _Timex(ctypes.Structure):
    """The beginning of struct timex, see adjtimex(2), with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


_STA_UNSYNC = 0x40


def kernel_synchronised() -> bool | None:
    """Ask the kernel whether a time service steers its clock; ``None`` if it does not tell."""
    state = _Timex(modes=0)  # only reads
    try:
        answer = ctypes.CDLL(None).adjtimex(ctypes.byref(state))
    except AttributeError:
        return None
    return None if answer < 0 else not state.status & _STA_UNSYNC
