"""``tunefleet drain``: let rounds end before something is taken down."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)
from tunefleet.errors import Reason, TuneFleetError

if TYPE_CHECKING:
    from tunefleet.client import Coordinator

LOOK_INTERVAL_S = 1.0
"""A round takes from half a minute on."""

_T = TypeVar("_T")


def drain(
    timeout: Annotated[
        str, typer.Option(metavar="TIME", help="Longest time to wait for rounds under way.")
    ] = "1h",
    resume: Annotated[bool, typer.Option("--resume", help="Give out work again.")] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Have the coordinator give out no more work, and wait until what is under way has ended.

    \bIt answers as before, takes in results and new campaigns, and stays drained when it is
    started again, until --resume. Nothing would be lost without it: rounds go on while a
    coordinator is away. It is for taking down devices, or for a release that does not speak
    with the agents of this one.

    \bExamples:
      $ tunefleet drain
      $ tunefleet drain --timeout 10m && systemctl stop tunefleet
      $ tunefleet drain --resume
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.parsing import parse_duration

    limit_s = parse_duration(timeout)
    progress = make_console(sys.stderr)
    with connect(coordinator) as fleet:
        if resume:
            found = fleet.resume()
        else:
            fleet.drain()
            found = wait_until(
                fleet.coordinator,
                lambda now: not now.active_leases,
                _under_way,
                limit_s=limit_s,
                tell=progress.print,
            )
    if output_format is OutputFormat.JSON:
        print_json({"coordinator": found})
    elif resume:
        make_console().print("The coordinator gives out work again.")
    else:
        make_console().print(
            "The coordinator is drained: no work is under way. `tunefleet drain --resume` ends it."
        )


def wait_until(
    look: Callable[[], _T],
    done: Callable[[_T], bool],
    words: Callable[[_T], str],
    *,
    limit_s: float,
    tell: Callable[[str], object],
) -> _T:
    """Look again and again until something is done, telling whatever changed.

    Args:
        look: finds out how far it is.
        done: whether that will do.
        words: that say what is waited for.
        limit_s: longest time, in seconds.
        tell: is given the words whenever they change.

    Raises:
        TuneFleetError: TIMED_OUT.
    """
    ends_at, told = time.monotonic() + limit_s, ""
    while not done(now := look()):
        if words(now) != told:
            told = words(now)
            tell(f"Waiting for {told} ...")
        if time.monotonic() >= ends_at:
            raise TuneFleetError(
                Reason.TIMED_OUT,
                f"after {limit_s:.0f} s there is still {told}",
                hint="It gets no new work; run the command again to wait on, or --resume it.",
            )
        time.sleep(LOOK_INTERVAL_S)
    return now


def _under_way(coordinator: Coordinator) -> str:
    rounds = coordinator.active_leases
    where = ", ".join(coordinator.busy_devices)
    return f"{rounds} round{'s' if rounds != 1 else ''} under way on {where}"
