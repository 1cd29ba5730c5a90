"""``tunefleet-agent doctor``: the options, and what follows from them."""

# ruff: noqa: PLC0415 - --help shall not wait for what only an examination needs.

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.options import HomeOption
from tunefleet.cli.options import FormatOption, OutputFormat
from tunefleet.errors import Reason

if TYPE_CHECKING:
    from agent.doctor.fixing import Outcome
    from agent.doctor.undo_log import UndoFile

_EXIT_REASONS = (Reason.INVALID_ARGUMENT, Reason.HOME_IN_USE)
EXIT_CODES = "; ".join(
    [
        "Exit codes: 0 nothing is bad (there may be warnings), or everything is restored",
        "1 something is bad, or could not be changed or restored",
        *(f"{r.value.exit_code} {r.name.lower().replace('_', ' ')}" for r in _EXIT_REASONS),
    ]
)


def doctor(
    *,
    home: HomeOption,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="First change what may be changed: frequency governor, turbo, moving of pages "
            "between memory nodes. Needs root on most machines.",
        ),
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Only restore what --fix has changed.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out trying the compiler, which takes seconds.")
    ] = False,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Tell what harms measurements on this machine, why, and what to change.

    Looking changes nothing and may be done while an agent runs.
    What --fix changes lasts until --undo or a restart of the machine.

    \bExamples:
      $ tunefleet-agent doctor
      $ sudo $(which tunefleet-agent) doctor --fix --home DIR
      $ tunefleet-agent doctor --quick --format json | jq .status
    """
    if fix and undo:
        raise typer.BadParameter("--fix and --undo exclude each other", param_hint="--undo")
    as_json = output_format is OutputFormat.JSON
    code = _undo(home.absolute(), as_json) if undo else _look(home.absolute(), fix, quick, as_json)
    raise typer.Exit(code)


def _look(home: Path, fix: bool, quick: bool, as_json: bool) -> int:
    from agent.doctor.examination import examine, fixes
    from agent.doctor.finding import Status, worst
    from agent.doctor.fixing import Result, apply
    from agent.doctor.machine import Machine
    from agent.doctor.report import print_findings, print_outcomes, print_undo
    from agent.doctor.undo_log import UndoFile
    from tunefleet.cli.output import make_console, print_json

    machine, file = Machine(), UndoFile(home)
    outcomes: list[Outcome] = []
    changes = fixes(machine) if fix else []
    if changes:
        outcomes = _under_lock(file, lambda: apply(machine, file, changes))
        _forget_measured_profile(home, outcomes)
    findings = examine(machine, home, quick=quick)
    status = worst(findings)
    failed = any(outcome.result is Result.FAILED for outcome in outcomes)
    to_undo = file.exists()
    if as_json:
        content = {"status": status, "findings": findings, "can_undo": to_undo}
        print_json({**content, "fixes": outcomes} if fix else content)
    else:
        console = make_console()
        if fix:
            print_outcomes(outcomes, home, console, undoing=False)
        print_findings(findings, home, console)
        if to_undo:
            print_undo(home, console)
    return 1 if failed or status is Status.BAD else 0


def _undo(home: Path, as_json: bool) -> int:
    from agent.doctor.fixing import Result, restore
    from agent.doctor.machine import Machine
    from agent.doctor.report import print_outcomes
    from agent.doctor.undo_log import UndoFile
    from tunefleet.cli.output import make_console, print_json

    machine, file = Machine(), UndoFile(home)
    outcomes: list[Outcome] = []
    if file.read() is not None:
        outcomes = _under_lock(file, lambda: restore(machine, file))
        _forget_measured_profile(home, outcomes)
    if as_json:
        print_json({"restored": outcomes})
    else:
        print_outcomes(outcomes, home, make_console(), undoing=True)
    return int(any(outcome.result is Result.FAILED for outcome in outcomes))


def _under_lock(file: UndoFile, act: Callable[[], list[Outcome]]) -> list[Outcome]:
    with file.locked():
        return act()


def _forget_measured_profile(home: Path, outcomes: Sequence[Outcome]) -> None:
    """Have the agent measure itself anew at its next start: its clock is another one now."""
    from agent.doctor.fixing import Result
    from agent.profile.cache import FILE_NAME

    if any(outcome.result in {Result.CHANGED, Result.RESTORED} for outcome in outcomes):
        with contextlib.suppress(OSError):
            (home / FILE_NAME).unlink()
